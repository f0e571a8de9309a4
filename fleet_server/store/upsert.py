"""Insert-or-ignore and insert-or-update, in the form that both SQLite and PostgreSQL understand."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

Row = Mapping[str, Any]


def insert_or_ignore(connection: sa.Connection, table: sa.Table, rows: Sequence[Row]) -> None:
    """Insert rows; those whose primary key is there already change nothing."""
    if rows:
        connection.execute(_insert(connection, table).on_conflict_do_nothing(), list(rows))


def insert_new(connection: sa.Connection, table: sa.Table, rows: Sequence[Row], columns: Sequence[str]) -> set[tuple[Any, ...]]:
    """Insert rows and return the given columns of those that were not there before."""
    if not rows:
        return set()
    statement = _insert(connection, table).on_conflict_do_nothing().returning(*(table.c[name] for name in columns))
    return {tuple(row) for row in connection.execute(statement, list(rows))}


def insert_or_update(connection: sa.Connection, table: sa.Table, rows: Sequence[Row], *, growing: str = "") -> None:
    """Insert rows; of those whose primary key is there already all other given columns are overwritten, `growing` by larger values only."""
    if not rows:
        return
    connection.execute(_overwriting(table, connection.dialect.name, tuple(rows[0]), growing), list(rows))


def add_to(connection: sa.Connection, table: sa.Table, row: Row, added: Sequence[str]) -> None:
    """Insert a row; if its key is there already, add the columns `added` and overwrite the other ones."""
    statement = _insert(connection, table)
    keys = [column.name for column in table.primary_key]
    changed = {
        name: table.c[name] + statement.excluded[name] if name in added else statement.excluded[name] for name in row if name not in keys
    }
    connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=changed), [dict(row)])


def insert_or_larger(connection: sa.Connection, table: sa.Table, row: Row, column: str) -> None:
    """Insert a row; if its key is there already, keep the larger value of `column`."""
    connection.execute(_keeping_larger(table, connection.dialect.name, column), [dict(row)])


@lru_cache(maxsize=256)
def _overwriting(table: sa.Table, dialect: str, names: tuple[str, ...], growing: str) -> Any:
    """Made once: making it takes three times as long as running it, and each heartbeat runs one."""
    statement = postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)
    keys = [column.name for column in table.primary_key]
    changed: dict[str, Any] = {name: statement.excluded[name] for name in names if name not in keys}
    if growing:
        changed[growing] = _larger(table, statement, growing)
    return statement.on_conflict_do_update(index_elements=keys, set_=changed)


@lru_cache(maxsize=16)
def _keeping_larger(table: sa.Table, dialect: str, column: str) -> Any:
    statement = postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)
    changed = {column: _larger(table, statement, column)}
    return statement.on_conflict_do_update(index_elements=[one.name for one in table.primary_key], set_=changed)


def _larger(table: sa.Table, statement: Any, column: str) -> Any:
    offered = statement.excluded[column]
    return sa.case((offered > table.c[column], offered), else_=table.c[column])


def _insert(connection: sa.Connection, table: sa.Table) -> Any:
    return postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)
