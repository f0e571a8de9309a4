"""Groups of devices: a name for a selection, in one project."""

from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass

import sqlalchemy as sa

from fleet_server.rollout.transitions import RolloutState
from fleet_server.store.tables import DEVICE_GROUP, PLANNED_GROUP, ROLLOUT
from fleet_server.store.upsert import insert_new, insert_or_update


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


def in_order(
    connection: sa.Connection, project: str | None = None, *, after: tuple[str, str] = ("", ""), limit: int | None = None
) -> list[StoredGroup]:
    """The groups of a project, of all projects when none is named, by project and name: so many behind `after`."""
    query = sa.select(DEVICE_GROUP).order_by(DEVICE_GROUP.c.project, DEVICE_GROUP.c.name).limit(limit)
    query = query.where(
        sa.or_(DEVICE_GROUP.c.project > after[0], sa.and_(DEVICE_GROUP.c.project == after[0], DEVICE_GROUP.c.name > after[1]))
    )
    if project is not None:
        query = query.where(DEVICE_GROUP.c.project == project)
    return [StoredGroup(**row._mapping) for row in connection.execute(query)]


def get(connection: sa.Connection, project: str, name: str, *, lock: bool = False) -> StoredGroup | None:
    """One group, None when there is none of that name; locked for whoever changes it whatever somebody else may be doing to it."""
    query = sa.select(DEVICE_GROUP).where(DEVICE_GROUP.c.project == project, DEVICE_GROUP.c.name == name)
    row = connection.execute(query.with_for_update() if lock else query).first()
    return None if row is None else StoredGroup(**row._mapping)


def names(connection: sa.Connection, project: str) -> list[str]:
    """Names of the groups of a project, in order."""
    return list(connection.scalars(sa.select(DEVICE_GROUP.c.name).where(DEVICE_GROUP.c.project == project).order_by(DEVICE_GROUP.c.name)))


def add(connection: sa.Connection, group: StoredGroup) -> bool:
    """Keep a group of a name that none has; False when somebody else made one at this moment."""
    return bool(insert_new(connection, DEVICE_GROUP, [asdict(group)], ("name",)))


def put(connection: sa.Connection, group: StoredGroup) -> None:
    """Keep a group in the place of the one of that name."""
    insert_or_update(connection, DEVICE_GROUP, [asdict(group)])


def drop(connection: sa.Connection, project: str, name: str) -> None:
    """Forget a group."""
    connection.execute(sa.delete(DEVICE_GROUP).where(DEVICE_GROUP.c.project == project, DEVICE_GROUP.c.name == name))


def plan_with(connection: sa.Connection, rollout_id: str, names: Iterable[str]) -> None:
    """Keep which groups the selection of a rollout named."""
    rows = [{"rollout_id": rollout_id, "name": name} for name in sorted(set(names))]
    if rows:
        connection.execute(sa.insert(PLANNED_GROUP), rows)


def planned_with(connection: sa.Connection, project: str, states: Collection[RolloutState]) -> dict[str, list[str]]:
    """Name of a group -> rollouts of the project in these states that were planned with it, the oldest first."""
    query = sa.select(PLANNED_GROUP.c.name, ROLLOUT.c.rollout_id).join(ROLLOUT)
    query = query.where(ROLLOUT.c.project == project, ROLLOUT.c.state.in_([state.value for state in states]))
    found: dict[str, list[str]] = {}
    for name, rollout_id in connection.execute(query.order_by(ROLLOUT.c.created_at, ROLLOUT.c.rollout_id)):
        found.setdefault(name, []).append(rollout_id)
    return found
