"""Whether another rollout changes a device, or has changed it within its own dwell: then it is no control of anybody."""

from typing import Any

import sqlalchemy as sa

from fleet_server.store.tables import ROLLOUT, ROLLOUT_MEMBER


def elsewhere(device_id: sa.ColumnElement[str], rollout_id: str, begins_at: int) -> sa.ColumnElement[bool]:
    """A condition on a device: some other rollout, of any model, exposed it so lately that its harm could be taken for normal.

    Args:
        device_id: Column of the query that asks.
        rollout_id: The rollout that looks for controls.
        begins_at: When the devices began that they stand beside, microseconds UTC.
    """
    other: Any = ROLLOUT_MEMBER.alias()
    its: Any = ROLLOUT.alias()
    # Its dwell on the device; of a rollout that names every device, and after the last wave, the soak is what is left of it.
    lasts = sa.func.coalesce(its.c.dwell_us, 0) + sa.func.coalesce(its.c.soak_us, 0)
    asked = sa.and_(other.c.active == sa.true(), other.c.counter.is_not(None), other.c.began_at.is_(None), other.c.failed_at.is_(None))
    lately = other.c.began_at + lasts > begins_at
    query = sa.select(sa.literal(1)).select_from(other.join(its, its.c.rollout_id == other.c.rollout_id))
    return sa.exists(query.where(other.c.device_id == device_id, other.c.rollout_id != rollout_id, sa.or_(asked, lately)))
