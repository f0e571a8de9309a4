"""Until when the server has heard its broker, for the process that comes next and for whoever judges silence."""

from datetime import datetime

import sqlalchemy as sa

from fleet_server.rollout.hearing import Hearing
from fleet_server.store.moments import from_micros, to_micros
from fleet_server.store.tables import DEVICE_SEEN, HEARING
from fleet_server.store.upsert import insert_or_ignore, insert_or_update

_BROKER = "broker"
# A row of its own, whose first moment is when a marker came back for the first time.
_MARKERS = "markers"


def keep(connection: sa.Connection, heard: Hearing) -> None:
    """Keep what the last marker proved."""
    insert_or_update(connection, HEARING, [{"name": _BROKER, "since": heard.since, "back_at": heard.back_at}])


def last(connection: sa.Connection, at: int) -> Hearing:
    """What was kept last, as far as it is of use at `at`.

    A database that never kept anything was listening when it last heard a device, and one that never heard any has missed nothing. Where
    the clock was set back meanwhile nobody knows by how much: what the broker held then says of nobody when he lived.
    """
    known = _kept(connection)
    if known is not None:
        return known if known.since <= at else Hearing(0)
    newest: int | None = connection.scalar(sa.select(sa.func.max(DEVICE_SEEN.c.seen_at)))
    return Hearing(at if newest is None else min(newest, at))


def note_come_back(connection: sa.Connection, at: int) -> None:
    """A marker has come back: this broker can be waited for."""
    insert_or_ignore(connection, HEARING, [{"name": _MARKERS, "since": at, "back_at": 0}])


def has_come_back(connection: sa.Connection) -> bool:
    """Whether a marker ever came back."""
    return connection.scalar(sa.select(HEARING.c.name).where(HEARING.c.name == _MARKERS)) is not None


def deaf_until(connection: sa.Connection, now: datetime) -> datetime | None:
    """Until when no device could be heard, whoever is to blame: now while it lasts, None when it never was so."""
    known = _kept(connection)
    found = None if known is None else known.deaf_until(to_micros(now))
    return None if found is None else from_micros(found)


def deaf_since(connection: sa.Connection, now: datetime) -> datetime | None:
    """Since when no device can be heard; None while they can, and where nothing was ever kept."""
    known, at = _kept(connection), to_micros(now)
    return from_micros(known.since) if known is not None and known.is_deaf(at) else None


def _kept(connection: sa.Connection) -> Hearing | None:
    row = connection.execute(sa.select(HEARING.c.since, HEARING.c.back_at).where(HEARING.c.name == _BROKER)).first()
    return None if row is None else Hearing(row.since, row.back_at)
