"""Tokens and sessions as rows: looked up by the sha256 of the secret, never by the secret."""

from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from fleet_server.store.tables import SESSION, TOKEN

DAY_US: Final = 86_400_000_000
_PEOPLE: Final = 0x65667070  # number of the lock in the database, the same for every server process


@dataclass(frozen=True)
class TokenRow:
    """A valid token's owner."""

    token_id: str
    name: str
    role: str
    device_id: str | None


@dataclass(frozen=True)
class PersonRow:
    """A person's valid token, without its secret."""

    name: str
    role: str
    created_at: int
    expires_at: int


def insert(connection: sa.Connection, row: TokenRow, sha256: str, at: int, days: float) -> None:
    """Keep a token's digest until it expires."""
    connection.execute(
        sa.insert(TOKEN).values(
            token_id=row.token_id,
            sha256=sha256,
            name=row.name,
            role=row.role,
            device_id=row.device_id,
            created_at=at,
            expires_at=at + int(days * DAY_US),
        )
    )


def find(connection: sa.Connection, sha256: str, at: int) -> TokenRow | None:
    """The token of that digest, unless it is unknown, expired or revoked."""
    return _row(connection.execute(_valid(at).where(TOKEN.c.sha256 == sha256)).first())


def any_of_role(connection: sa.Connection, role: str, at: int) -> bool:
    """Whether a valid token of that role exists."""
    return connection.execute(_valid(at).where(TOKEN.c.role == role).limit(1)).first() is not None


def lock_people(connection: sa.Connection) -> None:
    """Nobody else adds or removes people until the transaction ends: take it before reading who there is.

    On SQLite the write transaction is that lock already. Elsewhere locking the rows would not do: a name that somebody else adds has none.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_PEOPLE)))


def of_people(connection: sa.Connection, at: int) -> list[PersonRow]:
    """Valid tokens that belong to no device, by name."""
    columns = sa.select(TOKEN.c.name, TOKEN.c.role, TOKEN.c.created_at, TOKEN.c.expires_at)
    valid = columns.where(TOKEN.c.device_id.is_(None), TOKEN.c.expires_at > at, TOKEN.c.revoked_at.is_(None))
    return [PersonRow(*row) for row in connection.execute(valid.order_by(TOKEN.c.name, TOKEN.c.created_at))]


def revoke_person(connection: sa.Connection, name: str, at: int) -> None:
    """End all tokens of a person, and with them her sessions."""
    mine = (TOKEN.c.name == name, TOKEN.c.device_id.is_(None), TOKEN.c.revoked_at.is_(None))
    connection.execute(sa.update(TOKEN).where(*mine).values(revoked_at=at))


def revoke_device(connection: sa.Connection, device_id: str, at: int) -> None:
    """End all tokens of a device."""
    connection.execute(sa.update(TOKEN).where(TOKEN.c.device_id == device_id, TOKEN.c.revoked_at.is_(None)).values(revoked_at=at))


def open_session(connection: sa.Connection, sha256: str, token_id: str, at: int, days: float) -> None:
    """Keep a session of a token; expired ones go on this occasion."""
    connection.execute(sa.delete(SESSION).where(SESSION.c.expires_at <= at))
    connection.execute(sa.insert(SESSION).values(sha256=sha256, token_id=token_id, created_at=at, expires_at=at + int(days * DAY_US)))


def find_session(connection: sa.Connection, sha256: str, at: int) -> TokenRow | None:
    """The owner of a session, unless session or token has ended."""
    joined = _valid(at).join(SESSION, SESSION.c.token_id == TOKEN.c.token_id)
    return _row(connection.execute(joined.where(SESSION.c.sha256 == sha256, SESSION.c.expires_at > at)).first())


def close_session(connection: sa.Connection, sha256: str) -> None:
    """End a session."""
    connection.execute(sa.delete(SESSION).where(SESSION.c.sha256 == sha256))


def _valid(at: int) -> sa.Select[Any]:
    columns = sa.select(TOKEN.c.token_id, TOKEN.c.name, TOKEN.c.role, TOKEN.c.device_id)
    return columns.where(TOKEN.c.expires_at > at, TOKEN.c.revoked_at.is_(None))


def _row(row: sa.Row[Any] | None) -> TokenRow | None:
    return None if row is None else TokenRow(row.token_id, row.name, row.role, row.device_id)
