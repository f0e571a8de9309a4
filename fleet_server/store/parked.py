"""Devices that were asked, were not heard since, and hold no place of their site any more.

Their signed document asks nothing until they are heard.
"""

from collections.abc import Sequence

import sqlalchemy as sa

from fleet_server.rollout import places
from fleet_server.store.evidence_members import Unasked
from fleet_server.store.tables import ASSIGNMENT, DEVICE_SEEN, ROLLOUT_MEMBER

_M = ROLLOUT_MEMBER.c
_SEEN = DEVICE_SEEN.c
_ASSIGNED = ASSIGNMENT.c
_SELECTED = (_M.left_at.is_(None), _M.removed_at.is_(None))


def sleepers(connection: sa.Connection, rollout_id: str, asked_before: int, limit: int) -> list[tuple[str, str | None]]:
    """(device, what it ran before) of devices that were asked before a moment (microseconds UTC), and not heard since they were.

    Only where others wait to begin at their site: a place that nobody wants is not given back.
    """
    # The assignment knows when it was asked last, the member when it was asked first.
    assigned = sa.and_(_ASSIGNED.device_id == _M.device_id, _ASSIGNED.project == _M.project, _ASSIGNED.rollout_id == rollout_id)
    asleep = places.sleeps(
        asked_long_ago=_ASSIGNED.assigned_at < asked_before,
        heard_since=sa.exists().where(_SEEN.device_id == _M.device_id, _SEEN.seen_at >= _ASSIGNED.assigned_at),
        began=sa.or_(_M.began_at.is_not(None), _M.committed_at.is_not(None), _M.failed_at.is_not(None)),
        aside=_M.parked_at.is_not(None),
    )
    asked = (_M.rollout_id == rollout_id, _M.active == sa.true(), _M.counter.is_not(None))
    query = sa.select(_M.device_id, _M.previous_release).select_from(ROLLOUT_MEMBER.join(ASSIGNMENT, assigned))
    query = query.where(*asked, asleep, *_SELECTED)
    if connection.execute(query.limit(1)).first() is None:
        return []
    # Before the limit: sleepers of sites where nobody waits must not hide those of the others.
    wanted = query.where(_M.site.in_(_waited_for())).order_by(_M.wave, _M.place).limit(limit)
    return [(row.device_id, row.previous_release) for row in connection.execute(wanted)]


def park(connection: sa.Connection, rollout_id: str, device_ids: Sequence[str], at: int | None) -> None:
    """They hold no place from now on; None: what they gave back is no matter any more."""
    for device_id in device_ids:
        key = (_M.rollout_id == rollout_id, _M.device_id == device_id)
        connection.execute(sa.update(ROLLOUT_MEMBER).where(*key).values(parked_at=at))


def heard_again(connection: sa.Connection, rollout_id: str, limit: int) -> list[Unasked]:
    """Those that were heard since, in the order of the rollout."""
    joined = ROLLOUT_MEMBER.join(DEVICE_SEEN, _SEEN.device_id == _M.device_id)
    anew = places.asked_anew(aside=_M.parked_at.is_not(None), heard_since=_M.parked_at < _SEEN.seen_at)
    mine = (_M.rollout_id == rollout_id, _M.active == sa.true(), anew)
    query = sa.select(_M.device_id, _M.site).select_from(joined).where(*mine, *_SELECTED).order_by(_M.wave, _M.place)
    return [Unasked(row.device_id, row.site) for row in connection.execute(query.limit(limit))]


def asked_nothing(connection: sa.Connection, rollout_id: str, limit: int) -> list[tuple[str, str | None]]:
    """(device, what it ran before) of those whose document names no release: what they run by now is what they had begun unheard."""
    assigned = sa.and_(_ASSIGNED.device_id == _M.device_id, _ASSIGNED.project == _M.project)
    mine = (_M.rollout_id == rollout_id, _M.active == sa.true(), _M.parked_at.is_not(None), _ASSIGNED.release_id.is_(None))
    query = sa.select(_M.device_id, _M.previous_release).select_from(ROLLOUT_MEMBER.outerjoin(ASSIGNMENT, assigned))
    query = query.where(*mine, _M.removed_at.is_(None)).order_by(_M.wave, _M.place).limit(limit)
    return [(row.device_id, row.previous_release) for row in connection.execute(query)]


def all_of(connection: sa.Connection, rollout_id: str, limit: int) -> list[Unasked]:
    """All of a rollout that is over."""
    mine = (_M.rollout_id == rollout_id, _M.parked_at.is_not(None))
    query = sa.select(_M.device_id, _M.site).where(*mine, *_SELECTED).order_by(_M.wave, _M.place)
    return [Unasked(row.device_id, row.site) for row in connection.execute(query.limit(limit))]


def _waited_for() -> sa.Select[tuple[str]]:
    """Sites at which some rollout has devices that it will ask: first, or anew because they were heard again."""
    waiting = ROLLOUT_MEMBER.alias("waiting").c
    heard = sa.exists().where(_SEEN.device_id == waiting.device_id, _SEEN.seen_at > waiting.parked_at)
    wants = places.waits(
        asked=waiting.counter.is_not(None), in_wave=waiting.wave > 0, aside=waiting.parked_at.is_not(None), heard_since=heard
    )
    return sa.select(waiting.site).where(waiting.active == sa.true(), waiting.left_at.is_(None), waiting.removed_at.is_(None), wants)
