"""The release floor of each project: the least release counter that any device may still be given. It only rises."""

from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa

from fleet_server.store.tables import DESIRED, DEVICE, DEVICE_FACT, RELEASE_FLOOR
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
    return None if row is None else _floor(row)


def counter_of(connection: sa.Connection, project: str) -> int:
    """Least counter that may be given; 0 where nobody raised it."""
    floor = current(connection, project)
    return 0 if floor is None else floor.counter


def keep(connection: sa.Connection, floor: Floor) -> None:
    """Keep a floor that is above the one before; the caller has compared them."""
    insert_or_update(connection, RELEASE_FLOOR, [asdict(floor) | {"telling": True}])


def of_projects(connection: sa.Connection, projects: Collection[str]) -> dict[str, int]:
    """Project -> counter of its floor, where somebody raised it."""
    query = sa.select(RELEASE_FLOOR.c.project, RELEASE_FLOOR.c.counter).where(RELEASE_FLOOR.c.project.in_(projects))
    return {row.project: row.counter for row in connection.execute(query)}


def being_told(connection: sa.Connection) -> list[Floor]:
    """Floors of which not every device is known to have been told."""
    query = sa.select(RELEASE_FLOOR).where(RELEASE_FLOOR.c.telling).order_by(RELEASE_FLOOR.c.project)
    return [_floor(row) for row in connection.execute(query)]


def untold(connection: sa.Connection, floor: Floor, limit: int) -> list[str]:
    """Devices whose signed desired state does not tell the floor, in order of their ids."""
    joined = DEVICE.outerjoin(DESIRED, DESIRED.c.device_id == DEVICE.c.device_id)
    query = sa.select(DEVICE.c.device_id).select_from(joined).where(DEVICE.c.project == floor.project, DEVICE.c.removed_at.is_(None))
    query = query.where(sa.func.coalesce(DESIRED.c.floor, 0) < floor.counter)
    return list(connection.scalars(query.order_by(DEVICE.c.device_id).limit(limit)))


def all_told(connection: sa.Connection, floor: Floor) -> None:
    """Note that every device was told, unless the floor was raised again meanwhile."""
    same = (RELEASE_FLOOR.c.project == floor.project, RELEASE_FLOOR.c.counter == floor.counter)
    connection.execute(sa.update(RELEASE_FLOOR).where(*same).values(telling=False))


def keepers(connection: sa.Connection, project: str, counter: int) -> tuple[int, int]:
    """(devices of the project, those that keep a floor of at least this counter by their word)."""
    keeps = sa.func.sum(sa.case((DEVICE_FACT.c.floor >= counter, 1), else_=0))
    joined = DEVICE.outerjoin(DEVICE_FACT, DEVICE_FACT.c.device_id == DEVICE.c.device_id)
    here = (DEVICE.c.project == project, DEVICE.c.removed_at.is_(None))
    total, kept = connection.execute(sa.select(sa.func.count(), keeps).select_from(joined).where(*here)).one()
    return int(total), int(kept or 0)


def _floor(row: sa.Row[Any]) -> Floor:
    return Floor(**{name: value for name, value in row._mapping.items() if name != "telling"})
