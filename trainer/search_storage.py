"""Where a search keeps its trials, and who is alive: several workers may share one search, and any of them may be killed.

Each worker holds a lock of its own for as long as it lives, and every trial names its worker; the operating system (SQLite: a locked file)
or the database (PostgreSQL: an advisory lock of a session) lets go when the worker dies, whatever killed it. A running trial whose worker's
lock is free is lost, without heartbeats and without waiting.
"""

import fcntl
import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from edgefleet.errors import ConfigError, MissingPartError, TransportError


class Locks(Protocol):
    """Locks of one study."""

    worker: str

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """One worker at a time, across processes and machines."""

    def is_alive(self, worker: str) -> bool:
        """Whether the worker of that name still holds its lock."""

    def close(self) -> None:
        """Let go of everything."""


@dataclass(frozen=True)
class Storage:
    """An open storage: optuna's own object, and the locks of one study in it."""

    optuna: Any
    locks: Locks


@contextmanager
def open_storage(url: str, study: str) -> Iterator[Storage]:
    """Open the storage at a SQLAlchemy URL; `env:NAME` takes the URL from an environment variable, for passwords.

    Raises:
        ConfigError: No such variable, or neither a SQLite file nor PostgreSQL.
        MissingPartError: optuna or the database's driver is not installed.
        TransportError: The database does not answer.
    """
    try:
        import optuna
        from sqlalchemy.engine import make_url
        from sqlalchemy.exc import ArgumentError, OperationalError
    except ImportError as err:
        raise MissingPartError('a search needs optuna: pip install "edgefleet[train]"') from err
    try:
        address = make_url(_resolved(url))
    except ArgumentError as err:
        raise ConfigError("search.storage: no SQLAlchemy URL; expected sqlite:///FILE or postgresql://USER@HOST/DATABASE") from err
    if address.drivername == "postgresql":
        address = address.set(drivername="postgresql+psycopg")
    shown = address.render_as_string(hide_password=True)
    options: dict[str, Any] = {"connect_args": {"timeout": 60}} if address.get_backend_name() == "sqlite" else {"pool_pre_ping": True}
    try:
        locks = _locks(address, study, shown)
        try:
            with locks.exclusive():  # two workers must not create the tables at the same time
                storage = optuna.storages.RDBStorage(address.render_as_string(hide_password=False), engine_kwargs=options)
            try:
                yield Storage(storage, locks)
            finally:
                storage.remove_session()
                storage.engine.dispose()
        finally:
            locks.close()
    except ModuleNotFoundError as err:
        raise MissingPartError(f'search.storage = {shown!r} needs the driver {err.name!r}: pip install "edgefleet[postgres]"') from err
    except OperationalError as err:
        raise TransportError(f"search.storage = {shown!r} does not answer: {' '.join(str(err.orig).split())[:200]}; try again") from err


def _resolved(url: str) -> str:
    if not url.startswith("env:"):
        return url
    value = os.environ.get(url.removeprefix("env:"), "")
    if not value:
        raise ConfigError(f"search.storage = {url!r}: the environment variable is not set; export it")
    return value


def _locks(address: Any, study: str, shown: str) -> Locks:
    backend = address.get_backend_name()
    if backend == "postgresql":
        return SessionLocks(address, study)
    if backend == "sqlite" and address.database and address.database != ":memory:":
        path = Path(address.database)
        path.parent.mkdir(parents=True, exist_ok=True)
        return FileLocks(path, study)
    raise ConfigError(f"search.storage = {shown!r}: expected a SQLite file or PostgreSQL, which survive a killed worker")


class FileLocks:
    """Locked files beside a SQLite file, for workers on one machine."""

    def __init__(self, database: Path, study: str) -> None:
        self.worker = uuid.uuid4().hex
        self._folder = database.with_name(database.name + ".locks")
        self._folder.mkdir(exist_ok=True)
        self._study = self._folder / f"study-{hashlib.sha256(study.encode()).hexdigest()[:16]}"
        self._path = self._worker_path(self.worker)
        self._own = os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(self._own, fcntl.LOCK_EX)

    def _worker_path(self, worker: str) -> Path:
        return self._folder / f"worker-{uuid.UUID(worker).hex}"

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """One worker at a time on this machine."""
        descriptor = os.open(self._study, os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def is_alive(self, worker: str) -> bool:
        """Whether the worker's file is locked; the file of a dead one is removed."""
        if worker == self.worker:
            return True
        path = self._worker_path(worker)
        try:
            descriptor = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        else:
            path.unlink(missing_ok=True)
            return False
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Remove the own file and unlock it."""
        self._path.unlink(missing_ok=True)
        os.close(self._own)


class SessionLocks:
    """Advisory locks of one PostgreSQL session, for workers on any machine."""

    def __init__(self, address: Any, study: str) -> None:
        from sqlalchemy import create_engine

        self.worker = uuid.uuid4().hex
        self._study = study
        self._engine = create_engine(address, isolation_level="AUTOCOMMIT")
        self._session = self._engine.connect()
        self._ask("pg_advisory_lock", self.worker)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """One worker at a time in this database."""
        self._ask("pg_advisory_lock", "")
        try:
            yield
        finally:
            self._ask("pg_advisory_unlock", "")

    def is_alive(self, worker: str) -> bool:
        """Whether another session holds the worker's lock."""
        if worker == self.worker:
            return True
        if not self._ask("pg_try_advisory_lock", worker):
            return True
        self._ask("pg_advisory_unlock", worker)
        return False

    def close(self) -> None:
        """End the session, which lets go of its locks."""
        self._session.close()
        self._engine.dispose()

    def _ask(self, function: str, of: str) -> Any:
        from sqlalchemy import BigInteger, cast, func, select

        digest = hashlib.sha256(f"edgefleet search {self._study} {of}".encode()).digest()
        key = int.from_bytes(digest[:8], "big", signed=True)
        return self._session.execute(select(getattr(func, function)(cast(key, BigInteger)))).scalar()
