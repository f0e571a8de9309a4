"""A process of the server that may die at any transaction: before it, inside it, after its commit; and whom it lets in between.

All processes share one real database; what is committed stays, what a dead process held in memory is gone, its leases run out by time.
"""

import contextlib
from collections.abc import Callable, Iterator

import sqlalchemy as sa

from fleet_server.store import Database


class Killed(BaseException):
    """The process ends here; no handler of the server runs any more."""


class ProcessDatabase(Database):
    """One process's way to the shared database.

    Attributes:
        left: Chances to die that it survives, None = it lives.
        dead: It is gone; nothing that it still tries has an effect.
        let_in: Called once before the next transaction begins: another process that is faster.
    """

    def __init__(self, shared: Database, committed: Callable[[], None]) -> None:
        # Not Database.__init__: the connections are those of `shared`.
        self._shared, self._committed = shared, committed
        self.url = shared.url
        self.left: int | None = None
        self.dead = False
        self.let_in: Callable[[], None] | None = None

    @contextlib.contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """One transaction, if the process lives."""
        if self.let_in is not None:
            other, self.let_in = self.let_in, None
            other()
        self.may_die()
        with self._shared.write() as connection:
            yield connection
            self.may_die()
        self._committed()
        self.may_die()

    @contextlib.contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """One snapshot, if the process lives."""
        if self.dead:
            raise Killed
        with self._shared.read() as connection:
            yield connection

    def may_die(self) -> None:
        """A point at which a kill -9 may come."""
        if self.left is not None and not self.dead:
            self.left -= 1
            self.dead = self.left < 0
        if self.dead:
            raise Killed


class WhatIf(Database):
    """A transaction that is never committed, as a database: what would be, if this were written?"""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    @contextlib.contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """The one transaction."""
        yield self._connection

    @contextlib.contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """The same, with what was written in it."""
        yield self._connection


class _Undone(Exception):
    """Ends a what-if."""


@contextlib.contextmanager
def what_if(shared: Database) -> Iterator[WhatIf]:
    """A database whose changes are undone at the end of the block."""
    with contextlib.suppress(_Undone), shared.write() as connection:
        yield WhatIf(connection)
        raise _Undone
