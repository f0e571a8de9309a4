"""A device that is taken out of the fleet, and one that comes later under the same id.

What it is goes at once: labels, last signs, what it should run, its drift. What it did stays: the log, its telemetry, its rows in rollouts.
"""

from typing import Final

import sqlalchemy as sa

from fleet_server.store.tables import (
    ACK_STATE,
    ACTIVATION,
    ASSIGNMENT,
    ATTESTATION,
    COMPARISON_CONTROL,
    COMPARISON_TASK,
    DESIRED,
    DEVICE,
    DEVICE_FACT,
    DEVICE_LABEL,
    DEVICE_LOAD,
    DEVICE_PEAK,
    DEVICE_SEEN,
    DRIFT_ALARM,
    DRIFT_STATE,
    LABELLED,
    QUARANTINE_LIFT,
    REPORTED,
    ROLLOUT_MEMBER,
    SAMPLING_ORDER,
    STATISTICS,
    TOTALS,
)

_PRESENT: Final = (
    ASSIGNMENT,
    ATTESTATION,
    DESIRED,
    DEVICE_FACT,
    DEVICE_LABEL,
    DEVICE_LOAD,
    DEVICE_SEEN,
    DRIFT_STATE,
    QUARANTINE_LIFT,
    REPORTED,
    SAMPLING_ORDER,
    STATISTICS,
)
# What is shown of a removed device or waited for, and must not speak for another one of its name. A comparison that waits for it is given
# up when its time is over, as with a device that is silent.
_PAST: Final = (ACK_STATE, ACTIVATION, COMPARISON_TASK, DEVICE_PEAK, LABELLED, TOTALS)


def take_out(connection: sa.Connection, device_id: str, at: int) -> None:
    """Mark the device and all its rows in rollouts, and forget its present."""
    connection.execute(sa.update(DEVICE).where(DEVICE.c.device_id == device_id).values(removed_at=at))
    mine = (ROLLOUT_MEMBER.c.device_id == device_id, ROLLOUT_MEMBER.c.removed_at.is_(None))
    connection.execute(sa.update(ROLLOUT_MEMBER).where(*mine).values(removed_at=at, active=False))
    alarm = (DRIFT_ALARM.c.device_id == device_id, DRIFT_ALARM.c.cleared_at.is_(None))
    connection.execute(sa.update(DRIFT_ALARM).where(*alarm).values(cleared_at=at, cleared_why="the device was removed"))
    _forget(connection, _PRESENT, device_id)


def enroll_again(connection: sa.Connection, *, device_id: str, project: str, public_key: str, at: int, actor: str) -> None:
    """Another device takes the id of a removed one; its counter goes on, nothing else does."""
    # Also the present: a message that was being stored while the first one was removed may have left some of it.
    _forget(connection, (*_PRESENT, *_PAST), device_id)
    connection.execute(sa.delete(COMPARISON_CONTROL).where(COMPARISON_CONTROL.c.control_id == device_id))
    values = {"project": project, "public_key": public_key, "enrolled_at": at, "enrolled_by": actor, "removed_at": None}
    connection.execute(sa.update(DEVICE).where(DEVICE.c.device_id == device_id).values(**values))


def _forget(connection: sa.Connection, tables: tuple[sa.Table, ...], device_id: str) -> None:
    for table in tables:
        connection.execute(sa.delete(table).where(table.c.device_id == device_id))
