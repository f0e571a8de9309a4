"""Take a device out of the fleet: what it holds of ours stops working, what it did stays readable, and no rollout gets better by it.

In an open wave it counts neither as a success nor as a failure: a failure that was told stays one, what was not proven stays unproven. So a
removal never turns a hold into a promotion; where a policy asks every device, going on without it is a person's resume.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from edgefleet.topics import device_topic
from fleet_server import audit
from fleet_server.auth import Actor
from fleet_server.enroll.credentials import take_password
from fleet_server.errors import ConflictError
from fleet_server.known_devices import hold
from fleet_server.labels import described
from fleet_server.reasons import reason_of
from fleet_server.rollout import Rollout, progress
from fleet_server.services import Services
from fleet_server.store import (
    changes,
    devices,
    evidence_members,
    evidence_sums,
    experiment_rows,
    facts,
    members,
    outbox,
    removals,
    rollouts,
    tokens,
)
from fleet_server.store.experiment_rows import Measured
from fleet_server.store.moments import to_micros

# All that the broker keeps of a device. An empty retained message takes it away.
_RETAINED: Final = ("desired", "acked", "reported", "presence")
GONE: Final = "removed from the fleet"


@dataclass(frozen=True)
class Removed:
    """A device that is out of the fleet; `rollouts`: rollout -> what its removal means there."""

    device_id: str
    removed_at: datetime
    rollouts: dict[str, str]


def remove_device(services: Services, device_id: str, *, reason: str, actor: Actor) -> Removed:
    """Take a device out of the fleet.

    Args:
        services: The server's parts.
        device_id: A device of the fleet.
        reason: For the log.
        actor: Who does it.

    Raises:
        InputError: No reason.
        NotFoundError: There is no such device.
        ConflictError: It was removed before, or a rollout of it is being decided at this moment.
        StorageError: Its broker password could not be taken away; nothing was changed.
        ConfigError: The broker could not be told of that; only the password is gone from its file, and the same call tries again.
    """
    words, now = reason_of(reason), services.clock()
    at = to_micros(now)
    with services.db.write() as connection:
        hold(connection, device_id)
        was = described(devices.labels_of(connection, [device_id]).get(device_id, {}))
        means = {
            rollout_id: _leave(connection, rollout_id, device_id, actor, now) for rollout_id in members.open_rollouts(connection, device_id)
        }
        tokens.revoke_device(connection, device_id, at)
        removals.take_out(connection, device_id, at)
        for leaf in _RETAINED:
            outbox.put(connection, device_topic(device_id, leaf), b"", at)
        audit.record(
            connection, at, actor=actor.name, action="remove", subject=("device", device_id), detail=f"{words} (its labels: {was})"
        )
        changes.touch(connection, at, "devices", "overview", "rollouts", "drift", f"device:{device_id}")
        # Inside the transaction: a device whose password still opens the broker is not removed.
        if services.config.mosquitto_password_file is not None:
            take_password(device_id, services.config.mosquitto_password_file, services.config.mosquitto_pid_file)
    services.wake.set()
    return Removed(device_id, now, means)


def _leave(connection: sa.Connection, rollout_id: str, device_id: str, actor: Actor, now: datetime) -> str:
    """What follows for one rollout that is not over; one sentence about it."""
    if not rollouts.lock(connection, rollout_id):
        raise ConflictError(f"rollout {rollout_id} is being decided at this moment. Nothing was done; try again.")
    stored = rollouts.load_readable(connection, rollout_id)
    if stored is None:
        return "it cannot be read, and stands"
    leave = _leave_named if stored.rollout.course is None else _leave_counted
    after, sentence = leave(connection, stored.rollout, device_id, now)
    if not rollouts.save_and_look(connection, stored, after, now):
        raise ConflictError(f"rollout {rollout_id} was changed at the same moment. Nothing was done; try again.")
    detail = f"{device_id} was removed: {sentence}"
    audit.record(connection, to_micros(now), actor=actor.name, action="lose-device", subject=("rollout", rollout_id), detail=detail)
    changes.touch(connection, to_micros(now), f"rollout:{rollout_id}")
    return sentence


def _leave_counted(connection: sa.Connection, rollout: Rollout, device_id: str, now: datetime) -> tuple[Rollout, str]:
    """Of a rollout by evidence: who was not asked makes room for the next in the order, who was stays in the counts."""
    wave, asked = members.place(connection, rollout.rollout_id, device_id)
    if asked:
        evidence_sums.removed(connection, rollout.rollout_id, device_id, to_micros(now))
        return rollout, "it was asked: no success any more, its failures stay counted"
    evidence_members.drop(connection, rollout.rollout_id, device_id)
    if wave == 0:
        return rollout, "it was held back, and excuses no silence any more"
    evidence_members.close_ranks(connection, rollout.rollout_id, max(wave, rollout.wave), rollout.wave_count)
    course = rollout.course and evidence_members.sizes(connection, rollout.rollout_id, rollout.course)
    return replace(rollout, course=course), "it was not asked; the next in the order moved up"


def _leave_named(connection: sa.Connection, rollout: Rollout, device_id: str, now: datetime) -> tuple[Rollout, str]:
    """Of a rollout that names its devices, an experiment as well: its place stays, and is no evidence."""
    known = facts.read(connection, rollout, now).devices.get(device_id)
    if known is not None:
        word, why = progress(known, rollout.bundle_digest, rollout.policy, now)
        if word == "failed":
            members.keep_failure(connection, rollout.rollout_id, device_id, to_micros(now), why)
    if rollout.experiment is not None:
        _measure_nothing(connection, rollout, device_id, to_micros(now))
        return rollout, "it has no number in the experiment, if it had none before"
    if device_id in rollout.members:
        return rollout, "its wave is open: a person goes on without it, or aborts"
    accepted = tuple(sorted({*rollout.accepted, device_id}))
    return replace(rollout, accepted=accepted), "its wave is not open yet, and will go without it"


def _measure_nothing(connection: sa.Connection, rollout: Rollout, device_id: str, at: int) -> None:
    plan = rollout.experiment
    if plan is None or experiment_rows.is_measured(connection, rollout.rollout_id, device_id):
        return
    arm = plan.arm(rollout.salt, device_id)
    after = experiment_rows.sums(connection, rollout.rollout_id, lock=True).without_value(arm, delivered=False)
    experiment_rows.store(connection, rollout.rollout_id, Measured(device_id, arm, False, None, GONE), after, at)
