"""A selection as SQL, and what labels, values and devices a project has. Same meaning as `fleet_server.selection.matches`."""

from collections.abc import Callable, Iterable
from typing import Final

import sqlalchemy as sa

from fleet_server.selection import Devices, Either, Every, Group, Has, Label, Not, Selection
from fleet_server.store.tables import DEVICE, DEVICE_LABEL

_BATCH: Final = 500
# SQLite refuses an expression that is 1,000 operators deep, and a chain of `OR` is as deep as it is long.
_CHAIN: Final = 100


def where(selection: Selection) -> sa.ColumnElement[bool]:
    """The condition on rows of `device`; groups must be expanded."""
    match selection:
        case Label(key, values):
            return _labelled(DEVICE_LABEL.c.key == key, DEVICE_LABEL.c.value.in_(values))
        case Has(key):
            return _labelled(DEVICE_LABEL.c.key == key)
        case Devices(device_ids):
            return DEVICE.c.device_id.in_(device_ids)
        case Not(part):
            return sa.not_(where(part))
        case Every(parts):
            return _chain(sa.and_, [sa.true(), *map(where, parts)])
        case Either(parts):
            return _chain(sa.or_, [sa.false(), *map(where, parts)])
        case Group(name):
            raise ValueError(f"group {name!r} is not expanded: who is in it is not known here")


def select_ids(connection: sa.Connection, project: str, selection: Selection, limit: int | None = None) -> list[str]:
    """Ids of the project's devices that are selected, in order, without those that were removed; at most so many."""
    query = sa.select(DEVICE.c.device_id).where(of_project(project), where(selection)).order_by(DEVICE.c.device_id)
    return list(connection.scalars(query.limit(limit)))


def count(connection: sa.Connection, project: str, selection: Selection) -> int:
    """How many devices of the project are selected."""
    return connection.scalar(sa.select(sa.func.count()).select_from(DEVICE).where(of_project(project), where(selection))) or 0


def has_devices(connection: sa.Connection, project: str) -> bool:
    """Whether the project has a device."""
    return connection.execute(sa.select(DEVICE.c.device_id).where(of_project(project)).limit(1)).first() is not None


def keys(connection: sa.Connection, project: str) -> list[str]:
    """Labels that devices of the project have, in order."""
    return sorted(connection.scalars(sa.select(DEVICE_LABEL.c.key).join(DEVICE).where(of_project(project)).distinct()))


def has_label(connection: sa.Connection, project: str, key: str) -> bool:
    """Whether a device of the project has the label."""
    return _any(connection, project, DEVICE_LABEL.c.key == key)


def values(connection: sa.Connection, project: str, key: str, limit: int = 1_000) -> list[str]:
    """Values that a label has in the project, in order."""
    query = sa.select(DEVICE_LABEL.c.value).join(DEVICE).where(of_project(project), DEVICE_LABEL.c.key == key)
    return list(connection.scalars(query.distinct().order_by(DEVICE_LABEL.c.value).limit(limit)))


def known_values(connection: sa.Connection, project: str, key: str, among: Iterable[str]) -> set[str]:
    """Those of the values that the label of a device of the project has; it looks for one device each, not through all of them."""
    return {value for value in among if _any(connection, project, DEVICE_LABEL.c.key == key, DEVICE_LABEL.c.value == value)}


def known_ids(connection: sa.Connection, project: str, device_ids: Iterable[str]) -> dict[str, bool]:
    """Those of the devices that are of the project or were before they were removed -> whether they are."""
    wanted = sorted(set(device_ids))
    found: dict[str, bool] = {}
    for start in range(0, len(wanted), _BATCH):
        query = sa.select(DEVICE.c.device_id, DEVICE.c.removed_at)
        query = query.where(DEVICE.c.project == project, DEVICE.c.device_id.in_(wanted[start : start + _BATCH]))
        found |= {row.device_id: row.removed_at is None for row in connection.execute(query)}
    return found


def _labelled(*conditions: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    return DEVICE.c.device_id.in_(sa.select(DEVICE_LABEL.c.device_id).where(*conditions))


def _any(connection: sa.Connection, project: str, *conditions: sa.ColumnElement[bool]) -> bool:
    return (
        connection.execute(sa.select(DEVICE_LABEL.c.key).join(DEVICE).where(of_project(project), *conditions).limit(1)).first() is not None
    )


def _chain(join: Callable[..., sa.ColumnElement[bool]], parts: list[sa.ColumnElement[bool]]) -> sa.ColumnElement[bool]:
    """All parts joined, in brackets of at most `_CHAIN`; as mere brackets SQLAlchemy would take them away."""
    while len(parts) > _CHAIN:
        parts = [join(*parts[at : at + _CHAIN]).is_(sa.true()) for at in range(0, len(parts), _CHAIN)]
    return join(*parts)


def of_project(project: str) -> sa.ColumnElement[bool]:
    """The condition that a row of `device` is of the project, and not one that was removed."""
    return sa.and_(DEVICE.c.project == project, DEVICE.c.removed_at.is_(None))
