"""The release floor of each project: the least release counter that any device may still be given. It only rises."""

from dataclasses import asdict, dataclass

import sqlalchemy as sa

from fleet_server.store.tables import RELEASE_FLOOR
from fleet_server.store.upsert import insert_or_update


@dataclass(frozen=True)
class Floor:
    """One project's.

    Attributes:
        counter: Of the oldest release that may be given.
        release_id: The release that it was raised to.
        raised_at: Microseconds UTC.
        raised_by: A token's name.
        reason: The person's words.
    """

    project: str
    counter: int
    release_id: str
    raised_at: int
    raised_by: str
    reason: str


def current(connection: sa.Connection, project: str) -> Floor | None:
    """The floor as it was raised last, None where nobody raised it."""
    row = connection.execute(sa.select(RELEASE_FLOOR).where(RELEASE_FLOOR.c.project == project)).first()
    return None if row is None else Floor(**row._mapping)


def counter_of(connection: sa.Connection, project: str) -> int:
    """Least counter that may be given; 0 where nobody raised it."""
    floor = current(connection, project)
    return 0 if floor is None else floor.counter


def keep(connection: sa.Connection, floor: Floor) -> None:
    """Keep a floor that is above the one before; the caller has compared them."""
    insert_or_update(connection, RELEASE_FLOOR, [asdict(floor)])
