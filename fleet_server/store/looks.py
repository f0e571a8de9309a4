"""When the scheduler looks at a rollout next, and which scheduler does."""

from collections.abc import Sequence

import sqlalchemy as sa

from fleet_server.rollout.transitions import RolloutState
from fleet_server.store.tables import ROLLOUT


def at_once(at: int) -> int:
    """`due_at` of a rollout that deserves a look since `at`: due by any clock, also by one that is set back before anybody has looked.

    A planned look has a moment, which a clock that was set back has yet to reach; this is its negative, so that it is always behind us and
    still tells who has waited longest.
    """
    return -at


def bring_forward(connection: sa.Connection, rollout_ids: Sequence[str], due_at: int) -> None:
    """Look at these no later than at `due_at`, a moment or `at_once`; one that is due at once already has waited longer, and stays so."""
    later = sa.or_(ROLLOUT.c.due_at.is_(None), ROLLOUT.c.due_at > max(due_at, 0))
    connection.execute(sa.update(ROLLOUT).where(ROLLOUT.c.rollout_id.in_(rollout_ids), later).values(due_at=due_at))


def look_at(connection: sa.Connection, rollout_id: str, due_at: int | None) -> None:
    """Look at the rollout at a moment, `at_once`, or (None) no more until somebody acts."""
    connection.execute(sa.update(ROLLOUT).where(ROLLOUT.c.rollout_id == rollout_id).values(due_at=due_at))


def any_due(connection: sa.Connection, at: int) -> bool:
    """Whether a rollout is due; asked without the write lock, because the answer is nearly always no."""
    return connection.execute(sa.select(ROLLOUT.c.rollout_id).where(ROLLOUT.c.due_at <= at).limit(1)).first() is not None


def claim(connection: sa.Connection, owner: str, at: int, lease_us: int) -> str | None:
    """The rollout that comes first of those that are due and that nobody works on, leased to `owner`; None when there is none."""
    lease = ROLLOUT.c.lease_until
    # One that ends later than a lease can was given by a clock that was set back since.
    free = sa.or_(lease.is_(None), lease <= at, lease > at + lease_us, ROLLOUT.c.lease_owner == owner)
    # Emergencies first, then what goes back: where a site can take only so many devices, the first to look takes them.
    emergency = sa.case((ROLLOUT.c.policy.contains('"emergency":true'), 0), else_=1)
    backward = sa.case((ROLLOUT.c.state == RolloutState.ROLLING_BACK.value, 0), else_=1)
    order = (emergency, backward, sa.func.abs(ROLLOUT.c.due_at))
    query = sa.select(ROLLOUT.c.rollout_id).where(ROLLOUT.c.due_at <= at, free).order_by(*order).limit(1)
    if connection.dialect.name == "postgresql":
        query = query.with_for_update(skip_locked=True)
    rollout_id: str | None = connection.scalar(query)
    if rollout_id is not None:
        values = {"lease_owner": owner, "lease_until": at + lease_us}
        connection.execute(sa.update(ROLLOUT).where(ROLLOUT.c.rollout_id == rollout_id).values(**values))
    return rollout_id


def release_claim(connection: sa.Connection, rollout_id: str, owner: str) -> None:
    """Give a lease back."""
    where = (ROLLOUT.c.rollout_id == rollout_id, ROLLOUT.c.lease_owner == owner)
    connection.execute(sa.update(ROLLOUT).where(*where).values(lease_owner=None, lease_until=None))
