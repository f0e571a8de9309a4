"""Brings comparisons and measurements up to date before a rollout is decided, a few devices a transaction."""

from datetime import datetime
from typing import Final

import sqlalchemy as sa

from fleet_server.ingest.comparing import compare_due
from fleet_server.ingest.measuring import measure_due
from fleet_server.rollout import Rollout
from fleet_server.rollout.engine import GATED
from fleet_server.services import Services
from fleet_server.store import comparison_rows, rollouts
from fleet_server.store.moments import from_micros

_ROUNDS: Final = 100  # of AT_ONCE devices: what is left is due at once again, and other rollouts come between


def compares(rollout: Rollout) -> bool:
    """Whether a rollout has gates that compare devices, and is where they matter."""
    return rollout.course is not None and bool(rollout.policy.gates.compare) and rollout.state in GATED


def bring_up(services: Services, rollout_id: str) -> None:
    """Compare, or measure, the devices that are due."""
    for _ in range(_ROUNDS):
        with services.db.write() as connection:
            stored = rollouts.load(connection, rollout_id)
            if stored is None or not _look(connection, stored.rollout, services.clock()):
                return


def _look(connection: sa.Connection, rollout: Rollout, now: datetime) -> int:
    if rollout.experiment is not None and rollout.state in GATED:
        return measure_due(connection, rollout, rollout.experiment, now)
    return compare_due(connection, rollout, now) if compares(rollout) else 0


def enlist(connection: sa.Connection, rollout: Rollout, device_id: str) -> None:
    """A device was given the release."""
    if rollout.course is not None and rollout.policy.gates.compare:
        comparison_rows.enlist(connection, rollout.rollout_id, device_id)


def no_later(connection: sa.Connection, rollout: Rollout, due_at: datetime | None) -> datetime | None:
    """When to look at the rollout again: as planned, or when a comparison falls due before."""
    look_at = comparison_rows.next_look(connection, rollout.rollout_id) if compares(rollout) else None
    return min((moment for moment in (due_at, None if look_at is None else from_micros(look_at)) if moment is not None), default=None)
