"""Gives one device a release, or what it had before: assignment, signed document, outbox, the member's row."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

import sqlalchemy as sa

from fleet_server import audit
from fleet_server.rollout import Rollout, trial_for
from fleet_server.rollout.rollback_targets import Stay, Target, target_of
from fleet_server.scheduler import comparing
from fleet_server.services import Services
from fleet_server.store import assignments, devices, drift_rows, floors, members, stays
from fleet_server.store.moments import to_micros


def assign_new(connection: sa.Connection, services: Services, rollout: Rollout, device_id: str, now: datetime) -> None:
    """Assign the rollout's release to a device, unless it was taken out of the fleet since it was chosen."""
    if devices.is_removed(connection, device_id):
        return
    before = assignments.committed_release(connection, device_id, rollout.project)
    drifting = drift_rows.has_open_alarm(connection, device_id, rollout.project)
    wish = assignments.Wish(rollout.release_id, rollout.rollout_id, trial_for(rollout.policy, drifting=drifting))
    counter = assignments.assign(connection, _director(services), device_id, rollout.project, wish, to_micros(now))
    previous = before if before != rollout.release_id else None
    members.note_assigned(connection, rollout.rollout_id, device_id, previous, counter, to_micros(now))
    comparing.enlist(connection, rollout, device_id)


def assign_previous(
    connection: sa.Connection, services: Services, rollout: Rollout, device_id: str, previous: str | None, now: datetime
) -> None:
    """Assign what a device goes back to: the last release that was completed there, else the baseline, else nothing, and a person is told.

    `previous` is what it merely ran before; it is where it goes unless that never proved itself there.
    """
    if devices.is_removed(connection, device_id):
        return
    target = targets_for(connection, rollout, {device_id: previous})[device_id]
    expected = "completed" if rollout.experiment is None else "baseline"
    if target.word != expected and (previous is not None or rollout.policy.baseline is not None):
        subject, detail = ("device", device_id), f"rollout {rollout.rollout_id}: {target.sentence}"
        audit.record(connection, to_micros(now), actor="engine", action=f"go-{target.word}", subject=subject, detail=detail)
    previous = target.release_id
    # A bundle that the device committed before skips its trial there; the rules travel all the same, for a device that lost it.
    wish = None if previous is None else assignments.Wish(previous, rollout.rollout_id, trial_for(rollout.policy, drifting=True))
    assignments.assign(connection, _director(services), device_id, rollout.project, wish, to_micros(now), forward=False)


def targets_for(connection: sa.Connection, rollout: Rollout, previous: Mapping[str, str | None]) -> dict[str, Target]:
    """Where devices go back to from a rollout's release, by a few queries for all of them.

    Args:
        connection: The transaction.
        rollout: What they go back from.
        previous: Device -> the release that it ran before.
    """
    device_ids = list(previous)
    floor, bad = floors.counter_of(connection, rollout.project), stays.quarantined_by_device(connection, device_ids)
    # Arm B goes to what arm A runs, which is what it ran itself when the arms were drawn.
    by_arm = rollout.experiment is not None
    baseline = rollout.policy.baseline if rollout.experiment is None else rollout.experiment.baseline_release
    known = {} if by_arm else stays.of_devices(connection, device_ids, rollout.project)
    releases = stays.of_releases(connection, {baseline, *previous.values()})
    return {
        device_id: target_of(
            [] if by_arm else _with_brought(known.get(device_id, []), releases.get(before)),
            leaving=rollout.release_id,
            floor=floor,
            quarantined=bad.get(device_id, []),
            baseline=releases.get(baseline),
        )
        for device_id, before in previous.items()
    }


def _with_brought(known: list[Stay], brought: Stay | None) -> list[Stay]:
    """Its stays, with the release that it came with: no rollout that could have failed brought that here."""
    if brought is None or brought.release_id in {one.release_id for one in known}:
        return known
    return [replace(brought, completed=True), *known]


def _director(services: Services) -> assignments.Director:
    return assignments.Director(services.director, services.config.fleet)
