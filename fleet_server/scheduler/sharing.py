"""A site takes only so many devices at once, over all rollouts: what the ones that come first are about to ask is kept free for them."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa

from fleet_server.rollout import Rollout, RolloutState
from fleet_server.rollout.precedence import Wish, order
from fleet_server.store import evidence_members, rollouts
from fleet_server.store.tables import ROLLOUT, ROLLOUT_MEMBER

_OPENING = (RolloutState.RUNNING.value, RolloutState.SOAKING.value)


def taken(connection: sa.Connection, rollout: Rollout, sites: Sequence[str], now: datetime) -> Counter[str]:
    """Site -> devices in activation, of any rollout, and those that rollouts before this one may ask now."""
    found = Counter(evidence_members.in_activation(connection, sites))
    mine = wish_of(rollout)
    for other in _others(connection, rollout.rollout_id):
        if order(wish_of(other)) < order(mine):
            found += _about_to_begin(connection, other, sites, now)
    return found


def wish_of(rollout: Rollout) -> Wish:
    """Its place among the rollouts that want devices to begin."""
    since = rollout.opened_at[0] if rollout.opened_at else rollout.created_at
    return Wish(rollout.rollout_id, rollout.policy.emergency, rollout.state is RolloutState.ROLLING_BACK, since)


def _others(connection: sa.Connection, rollout_id: str) -> list[Rollout]:
    open_ones = (ROLLOUT.c.rollout_id != rollout_id, ROLLOUT.c.state.in_(_OPENING), ROLLOUT.c.cell_us.is_not(None))
    ids = connection.scalars(sa.select(ROLLOUT.c.rollout_id).where(*open_ones)).all()
    return [stored.rollout for stored in (rollouts.load_readable(connection, one) for one in ids) if stored is not None]


def _about_to_begin(connection: sa.Connection, other: Rollout, sites: Sequence[str], now: datetime) -> Counter[str]:
    """Of an earlier rollout, no more than its pace and rate let it ask now: what it cannot use is free for the others."""
    member = ROLLOUT_MEMBER.c
    mine = (member.rollout_id == other.rollout_id, member.wave.between(1, other.wave), member.active == sa.true())
    if other.course is None or not other.wave:
        return Counter()
    asked = int(connection.scalar(sa.select(sa.func.count(member.counter)).where(*mine)) or 0)
    room = min(other.course.left(other.wave, asked, now).values())
    waiting = sa.select(member.site).where(*mine, member.counter.is_(None)).order_by(member.wave, member.place).limit(max(room, 0))
    return Counter(site for site in connection.scalars(waiting) if site in set(sites))
