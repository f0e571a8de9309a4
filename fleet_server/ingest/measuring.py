"""One number per device of an experiment, once its period is over, for both arms in the same hours; then the sums grow by it."""

import functools
import logging
import math
from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa

from edgefleet.errors import EdgefleetError, InputError
from fleet_server.rollout import Rollout
from fleet_server.rollout.behaviour import METRICS, Pair, own_change, tells
from fleet_server.rollout.comparisons import COMPARISONS
from fleet_server.rollout.experiment_plan import ACCURACY, Experiment
from fleet_server.rollout.experiment_sums import Guards
from fleet_server.store import experiment_rows, shown
from fleet_server.store.experiment_rows import Measured
from fleet_server.store.moments import to_micros

LOG = logging.getLogger(__name__)
AT_ONCE: Final = 10  # devices of one transaction: some 30 ms of reading each, and the write lock is everybody's


def measure_due(connection: sa.Connection, rollout: Rollout, plan: Experiment, now: datetime, limit: int = AT_ONCE) -> int:
    """Measure devices whose period is over; the number measured. Repeat until it is 0, each time in a transaction of its own.

    Args:
        connection: The transaction; numbers and sums are written in it.
        rollout: That carries the experiment.
        plan: Of the experiment.
        now: Aware UTC.
        limit: Devices at most.
    """
    at, done = to_micros(now), 0
    for batch, begun_at in enumerate(rollout.opened_at, start=1):
        if plan.measured_at(begun_at) > now or done >= limit:
            break
        for device_id in experiment_rows.to_measure(connection, rollout, batch, limit - done):
            arm = plan.arm(rollout.salt, device_id)
            measured, guards = _measured(connection, rollout, plan, device_id, arm, begun_at)
            before = experiment_rows.sums(connection, rollout.rollout_id, lock=True)
            if measured.value is None:
                after = before.without_value(arm, delivered=measured.delivered)
            else:
                after = before.with_value(arm, measured.value, guards)
            experiment_rows.store(connection, rollout.rollout_id, measured, after, at)
            done += 1
    return done


def _measured(
    connection: sa.Connection, rollout: Rollout, plan: Experiment, device_id: str, arm: int, begun_at: datetime
) -> tuple[Measured, Guards]:
    try:
        delivered, value, guards, reason = _measure(connection, rollout, plan, device_id, begun_at)
    except EdgefleetError as err:
        delivered, value, guards, reason = True, None, {}, str(err)
    except Exception as err:  # one device that cannot be measured must not stop the others; it is said and left out
        LOG.exception("experiment %s: %s cannot be measured", rollout.rollout_id, device_id)
        delivered, value, guards, reason = True, None, {}, f"its number could not be made ({type(err).__name__}: {err})"
    return Measured(device_id, arm, delivered, value, reason), guards


def _measure(
    connection: sa.Connection, rollout: Rollout, plan: Experiment, device_id: str, begun_at: datetime
) -> tuple[bool, float | None, Guards, str]:
    """Whether the device delivered, its number, its own change of each guardrail, and why it has no number."""
    begins = begun_at + timedelta(seconds=plan.burn_in_s)
    since, until = to_micros(begins), to_micros(begins + timedelta(seconds=plan.measure_s))
    earlier, begun = to_micros(begun_at - timedelta(seconds=plan.measure_s)), to_micros(begun_at)
    read = functools.partial(shown.of_device, connection, device_id, rollout.project)
    pair = Pair(read(earlier, begun), read(since, until))
    if plan.metric == ACCURACY:
        told = functools.partial(shown.accuracy, connection, device_id, rollout.project)
        (known, was_right), (rows, is_right) = told(earlier, begun), told(since, until)
        was, found = [was_right / max(known, 1)], [is_right / max(rows, 1)]
    else:
        known, rows = pair.before.rows, pair.now.rows
        was, found = METRICS[plan.metric](pair.before), METRICS[plan.metric](pair.now)
    if rows < plan.rows:
        return False, None, {}, f"{rows} of {plan.rows} rows in its period"
    if not found:
        return True, None, {}, f"nothing was told of its {plan.metric}"
    if plan.centred and (known < plan.rows or not was):
        return True, None, {}, f"no pre-period to centre it by: {known} of {plan.rows} rows"
    value = found[0] - (was[0] if plan.centred else 0.0)
    if not math.isfinite(value):
        raise InputError(f"{plan.metric} of {value} is no finite number")
    telling = [name for name in plan.guardrails if all(tells(COMPARISONS[name], one, plan.rows) for one in (pair.before, pair.now))]
    return True, value, {name: own_change(COMPARISONS[name], pair) for name in telling}, ""
