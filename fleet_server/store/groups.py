"""Groups of devices: a name for a selection, in one project."""

from dataclasses import asdict, dataclass

import sqlalchemy as sa

from fleet_server.store.tables import DEVICE_GROUP
from fleet_server.store.upsert import insert_or_update


@dataclass(frozen=True)
class StoredGroup:
    """One group.

    Attributes:
        selection: Its text.
        changed_at: Microseconds UTC.
        changed_by: A token's name.
        reason: The person's words.
    """

    project: str
    name: str
    selection: str
    changed_at: int
    changed_by: str
    reason: str


def of_project(connection: sa.Connection, project: str | None = None) -> list[StoredGroup]:
    """The groups of a project, of all projects when none is named, in order."""
    query = sa.select(DEVICE_GROUP).order_by(DEVICE_GROUP.c.project, DEVICE_GROUP.c.name)
    if project is not None:
        query = query.where(DEVICE_GROUP.c.project == project)
    return [StoredGroup(**row._mapping) for row in connection.execute(query)]


def get(connection: sa.Connection, project: str, name: str) -> StoredGroup | None:
    """One group, None when there is none of that name."""
    row = connection.execute(sa.select(DEVICE_GROUP).where(DEVICE_GROUP.c.project == project, DEVICE_GROUP.c.name == name)).first()
    return None if row is None else StoredGroup(**row._mapping)


def names(connection: sa.Connection, project: str) -> list[str]:
    """Names of the groups of a project, in order."""
    return list(connection.scalars(sa.select(DEVICE_GROUP.c.name).where(DEVICE_GROUP.c.project == project).order_by(DEVICE_GROUP.c.name)))


def put(connection: sa.Connection, group: StoredGroup) -> None:
    """Keep a group in the place of the one of that name."""
    insert_or_update(connection, DEVICE_GROUP, [asdict(group)])


def drop(connection: sa.Connection, project: str, name: str) -> None:
    """Forget a group."""
    connection.execute(sa.delete(DEVICE_GROUP).where(DEVICE_GROUP.c.project == project, DEVICE_GROUP.c.name == name))
