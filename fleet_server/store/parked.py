"""Devices that were asked, were not heard since, and hold no place of their site any more.

Their signed document asks nothing until they are heard.
"""

from collections.abc import Sequence

import sqlalchemy as sa

from fleet_server.store.evidence_members import Unasked
from fleet_server.store.tables import DEVICE_SEEN, ROLLOUT_MEMBER

_M = ROLLOUT_MEMBER.c
_SEEN = DEVICE_SEEN.c
_SELECTED = (_M.left_at.is_(None), _M.removed_at.is_(None))


def sleepers(connection: sa.Connection, rollout_id: str, asked_before: int, limit: int) -> list[tuple[str, str | None]]:
    """(device, what it ran before) of devices that were asked before a moment (microseconds UTC), and not heard since they were.

    Only where others wait to begin at their site: a place that nobody wants is not given back.
    """
    unheard = ~sa.exists().where(_SEEN.device_id == _M.device_id, _SEEN.seen_at >= _M.assigned_at)
    silent = (_M.began_at.is_(None), _M.committed_at.is_(None), _M.failed_at.is_(None), _M.parked_at.is_(None), unheard)
    asked = (_M.rollout_id == rollout_id, _M.active == sa.true(), _M.counter.is_not(None), _M.assigned_at < asked_before)
    query = sa.select(_M.device_id, _M.previous_release, _M.site).where(*asked, *silent, *_SELECTED).order_by(_M.wave, _M.place)
    found = connection.execute(query.limit(limit)).all()
    waited_for = _waited_for(connection, {row.site for row in found})
    return [(row.device_id, row.previous_release) for row in found if row.site in waited_for]


def park(connection: sa.Connection, rollout_id: str, device_ids: Sequence[str], at: int | None) -> None:
    """They hold no place from now on; None: what they gave back is no matter any more."""
    for device_id in device_ids:
        key = (_M.rollout_id == rollout_id, _M.device_id == device_id)
        connection.execute(sa.update(ROLLOUT_MEMBER).where(*key).values(parked_at=at))


def heard_again(connection: sa.Connection, rollout_id: str, limit: int) -> list[Unasked]:
    """Those that were heard since, in the order of the rollout."""
    joined = ROLLOUT_MEMBER.join(DEVICE_SEEN, _SEEN.device_id == _M.device_id)
    mine = (_M.rollout_id == rollout_id, _M.active == sa.true(), _M.parked_at < _SEEN.seen_at)
    query = sa.select(_M.device_id, _M.site).select_from(joined).where(*mine, *_SELECTED).order_by(_M.wave, _M.place)
    return [Unasked(row.device_id, row.site) for row in connection.execute(query.limit(limit))]


def all_of(connection: sa.Connection, rollout_id: str, limit: int) -> list[Unasked]:
    """All of a rollout that is over."""
    mine = (_M.rollout_id == rollout_id, _M.parked_at.is_not(None))
    query = sa.select(_M.device_id, _M.site).where(*mine, *_SELECTED).order_by(_M.wave, _M.place)
    return [Unasked(row.device_id, row.site) for row in connection.execute(query.limit(limit))]


def _waited_for(connection: sa.Connection, sites: set[str]) -> set[str]:
    """Of these sites, those at which some rollout has devices that it will ask."""
    if not sites:
        return set()
    waiting = (_M.active == sa.true(), _M.counter.is_(None), _M.wave > 0, _M.site.in_(sorted(sites)))
    return set(connection.scalars(sa.select(_M.site).where(*waiting).distinct()))
