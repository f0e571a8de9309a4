"""A selection as SQL, and what labels, values and devices a project has. Same meaning as `fleet_server.selection.matches`."""

from collections.abc import Iterable, Sequence

import sqlalchemy as sa

from fleet_server.selection import Devices, Either, Every, Group, Has, Label, Not, Selection
from fleet_server.store.tables import DEVICE, DEVICE_LABEL

_BATCH = 500


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
            return sa.and_(sa.true(), *map(where, parts))
        case Either(parts):
            return sa.or_(sa.false(), *map(where, parts))
        case Group(name):
            raise ValueError(f"group {name!r} is not expanded: who is in it is not known here")


def select_ids(connection: sa.Connection, project: str, selection: Selection) -> list[str]:
    """Ids of the project's devices that are selected, in order, without those that were removed."""
    return list(connection.scalars(sa.select(DEVICE.c.device_id).where(_of(project), where(selection)).order_by(DEVICE.c.device_id)))


def count(connection: sa.Connection, project: str, selection: Selection) -> int:
    """How many devices of the project are selected."""
    return connection.scalar(sa.select(sa.func.count()).select_from(DEVICE).where(_of(project), where(selection))) or 0


def keys(connection: sa.Connection, project: str) -> list[str]:
    """Labels that devices of the project have, in order."""
    return sorted(connection.scalars(sa.select(DEVICE_LABEL.c.key).join(DEVICE).where(_of(project)).distinct()))


def values(connection: sa.Connection, project: str, key: str, among: Sequence[str] = (), limit: int = 1_000) -> list[str]:
    """Values that a label has in the project, in order; with `among` only those of them."""
    query = sa.select(DEVICE_LABEL.c.value).join(DEVICE).where(_of(project), DEVICE_LABEL.c.key == key)
    if among:
        query = query.where(DEVICE_LABEL.c.value.in_(among))
    return list(connection.scalars(query.distinct().order_by(DEVICE_LABEL.c.value).limit(limit)))


def known_ids(connection: sa.Connection, project: str, device_ids: Iterable[str]) -> set[str]:
    """Those of the devices that are in the project."""
    wanted = sorted(set(device_ids))
    found: set[str] = set()
    for start in range(0, len(wanted), _BATCH):
        query = sa.select(DEVICE.c.device_id).where(_of(project), DEVICE.c.device_id.in_(wanted[start : start + _BATCH]))
        found |= set(connection.scalars(query))
    return found


def _labelled(*conditions: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    return DEVICE.c.device_id.in_(sa.select(DEVICE_LABEL.c.device_id).where(*conditions))


def _of(project: str) -> sa.ColumnElement[bool]:
    return sa.and_(DEVICE.c.project == project, DEVICE.c.removed_at.is_(None))
