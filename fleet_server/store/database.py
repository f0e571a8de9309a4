"""The database behind one small class: readers see a snapshot, writers take the write lock before they read.

SQLite's driver, left alone, begins a transaction only before the first write: what was read before may be stale by then, and updates
are lost. So the driver begins nothing itself, writers say BEGIN IMMEDIATE (they wait for each other instead of failing in the middle),
readers say BEGIN. On another database both are its own transactions, and compare-and-set on versions is the fence on all of them.
"""

import contextlib
import logging
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.pool import ConnectionPoolEntry

from edgefleet.errors import StorageError
from fleet_server.store.migrate import upgrade

BUSY_TIMEOUT_MS: Final = 15_000
JOURNAL_SIZE_LIMIT_BYTES: Final = 67_108_864
FILE_NAME: Final = "fleet.db"
_ASKED_AGAIN_S: Final = 0.01

LOG = logging.getLogger(__name__)


class Database:
    """Two engines over one database, and the migrations run.

    Attributes:
        url: SQLAlchemy URL without password, for messages.
    """

    def __init__(self, url: str) -> None:
        self._writer = _engine(url, "BEGIN IMMEDIATE")
        self._reader = _engine(url, "BEGIN")
        self.url = self._writer.url.render_as_string(hide_password=True)
        self._listeners: list[Callable[[], None]] = []

    @classmethod
    def open(cls, data_dir: Path) -> "Database":
        """Open (and create or upgrade) the SQLite database in a data folder.

        Raises:
            StorageError: The folder or the file cannot be written, or the file is no database.
        """
        try:
            data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            database = cls(f"sqlite:///{data_dir / FILE_NAME}")
            database.upgrade()
        except (OSError, sa.exc.DatabaseError) as err:
            raise StorageError(
                f"{data_dir / FILE_NAME}: cannot be opened as the fleet's database: {err}; check owner, space, file"
            ) from err
        return database

    def upgrade(self) -> None:
        """Run the migrations that are missing, in one transaction; several processes may do so at once."""
        with self._writer.connect() as connection, connection.begin():
            upgrade(connection)

    @contextlib.contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """One transaction that holds the write lock; committed at the end of the block, rolled back by an exception."""
        with self._writer.begin() as connection:
            yield connection

    @contextlib.contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """One snapshot; keep it short, an open reader lets the write-ahead log grow."""
        with self._reader.connect() as connection, connection.begin() as transaction:
            try:
                yield connection
            finally:
                transaction.rollback()

    def close(self) -> None:
        """Close all connections."""
        self._writer.dispose()
        self._reader.dispose()


def _engine(url: str, begin: str) -> sa.Engine:
    lite = url.startswith("sqlite")
    engine = sa.create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_MS / 1000} if lite else {}, pool_pre_ping=not lite, **_pool(lite))
    if lite:
        _set_sqlite_mode(engine, begin)
    return engine


def _pool(lite: bool) -> dict[str, Any]:
    # Web threads and page streams read at the same time; a pool that is too small makes them wait for each other.
    return {"pool_size": 8, "max_overflow": 56} if lite else {"pool_size": 8, "max_overflow": 24}


def _set_sqlite_mode(engine: sa.Engine, begin: str) -> None:
    @sa.event.listens_for(engine, "connect")
    def _connect(driver: Any, _entry: ConnectionPoolEntry) -> None:
        driver.isolation_level = None
        cursor = driver.cursor()
        _keep_write_ahead_log(cursor)
        for pragma in (
            "synchronous=NORMAL",
            f"busy_timeout={BUSY_TIMEOUT_MS}",
            "foreign_keys=ON",
            f"journal_size_limit={JOURNAL_SIZE_LIMIT_BYTES}",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql(begin)


def _keep_write_ahead_log(cursor: sqlite3.Cursor) -> None:
    # A new file changes its mode once, and that needs the file alone: two that begin together would wait for each other, so SQLite
    # answers one of them "locked" at once, whatever the busy timeout is. Asked again, it finds the mode changed.
    deadline = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as err:
            if err.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(_ASKED_AGAIN_S)
        else:
            return
