"""At which hours of the day devices are heard: from the hours at which their records came in."""

from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa

from fleet_server.rollout.foresight import Awake
from fleet_server.store.tables import TELEMETRY

SAMPLE: Final = 400  # devices: a share is then exact to 2.5 points
DAYS: Final = 7
_HOUR_US: Final = 3_600_000_000
_DAY_HOURS: Final = 24
_BATCH: Final = 100


def awake(connection: sa.Connection, project: str, device_ids: Sequence[str], at: int) -> Awake | None:
    """Shares of the last week by hour UTC; of a large selection a sample is asked.

    Args:
        connection: To read with.
        project: Whose records.
        device_ids: Selected, in any order.
        at: Now, microseconds UTC.

    Returns:
        None while there is less than a day of history: a share of hours that nobody looked at would be invented.
    """
    # Evenly over all of them: ids in order begin with those of one site.
    count = min(SAMPLE, len(device_ids))
    sample = [device_ids[place * len(device_ids) // count] for place in range(count)]
    this_hour = at // _HOUR_US
    first = this_hour - DAYS * _DAY_HOURS
    heard = {pair for start in range(0, len(sample), _BATCH) for pair in _heard(connection, project, sample[start : start + _BATCH], first)}
    complete = {(device_id, hour) for device_id, hour in heard if hour < this_hour}
    if not complete:
        return None
    # Whole days only, so that each hour of the day is looked at equally often.
    days = (this_hour - min(hour for _, hour in complete)) // _DAY_HOURS
    if days < 1:
        return None
    counts = [0] * _DAY_HOURS
    for _, hour in complete:
        if hour >= this_hour - days * _DAY_HOURS:
            counts[hour % _DAY_HOURS] += 1
    return Awake(tuple(count / (len(sample) * days) for count in counts), days=days, devices=len(sample))


def _heard(connection: sa.Connection, project: str, device_ids: Sequence[str], first_hour: int) -> set[tuple[str, int]]:
    """(device, hour since 1970) in which a record of it came in."""
    hour = (TELEMETRY.c.received_at // _HOUR_US).label("hour")
    query = (
        sa.select(TELEMETRY.c.device_id, hour)
        .where(TELEMETRY.c.device_id.in_(device_ids), TELEMETRY.c.project == project, TELEMETRY.c.received_at >= first_hour * _HOUR_US)
        .distinct()
    )
    return {(row.device_id, int(row.hour)) for row in connection.execute(query)}
