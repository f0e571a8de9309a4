"""What a rollout wants on each device, what it says to people, and when it must be looked at again. Pure, like the engine."""

from datetime import datetime, timedelta
from typing import Literal

from fleet_server.read_models import Progress, Verdict
from fleet_server.rollout.approval import needs_approval
from fleet_server.rollout.by_experiment import next_moment
from fleet_server.rollout.course import Course, clock_of
from fleet_server.rollout.engine import GATED, decide, dwell_s, gates, held_s
from fleet_server.rollout.evidence import is_back, progress, silent_from, soaked_at
from fleet_server.rollout.gates import combine
from fleet_server.rollout.model import ActionKind, Facts, Rollout
from fleet_server.rollout.on_abort import keeps, said
from fleet_server.rollout.outlook_evidence import view_by_evidence
from fleet_server.rollout.transitions import FINAL, RolloutState

_FORWARD = frozenset({RolloutState.RUNNING, RolloutState.PAUSED, RolloutState.SOAKING, RolloutState.COMPLETED})
_BACK = frozenset({RolloutState.ROLLING_BACK, RolloutState.PAUSED_RB, RolloutState.ROLLED_BACK})
_VERDICTS: dict[ActionKind, Verdict] = {
    ActionKind.OPEN_WAVE: "promote",
    ActionKind.PROMOTE: "promote",
    ActionKind.PAUSE: "pause",
    ActionKind.ABORT: "abort",
    ActionKind.ROLL_BACK: "abort",
    ActionKind.COMPLETE: "done",
    ActionKind.CONCLUDE: "done",
    ActionKind.ROLLED_BACK: "done",
}


def wants(rollout: Rollout, device_id: str, device_progress: Progress) -> Literal["new", "previous"] | None:
    """What this rollout wants on a device now: its release, what the device had before, or nothing (None).

    Level-triggered: the answer follows from the present state alone, so that a device that slept through everything gets it right.

    Args:
        rollout: As stored.
        device_id: Any device.
        device_progress: Its word in this rollout.
    """
    if device_id not in rollout.members:
        return None
    if rollout.experiment is not None and rollout.experiment.arm(rollout.salt, device_id) == 0:
        return None  # arm A keeps what it runs
    if rollout.state in _FORWARD:
        return "new"
    if rollout.state is RolloutState.ABORTED:
        own, begun = device_id in rollout.waves[rollout.wave - 1], device_progress != "not-begun"
        return "new" if keeps(rollout.policy.on_abort, ok=device_progress == "ok", begun=begun, in_open_wave=own) else "previous"
    return "previous" if rollout.state in _BACK else None


def view(rollout: Rollout, facts: Facts, now: datetime) -> tuple[Verdict, str, str]:
    """Verdict, its sentence with numbers, and what is missing or comes next."""
    if rollout.course is not None:
        return view_by_evidence(rollout, rollout.course, facts, now)
    if rollout.state in FINAL:
        return "done", _headline(rollout), "Nothing more happens here."
    if rollout.state in (RolloutState.DRAFT, RolloutState.APPROVED):
        devices = sum(len(wave) for wave in rollout.waves)
        sentence = f"Waiting: {devices} devices in {len(rollout.waves)} waves; no device has begun."
        return "waiting", sentence, needs_approval(rollout) or "A person starts it."
    if rollout.state is RolloutState.ABORTED:
        return "abort", _headline(rollout), said(rollout.policy.on_abort)
    if rollout.state in (RolloutState.PAUSED, RolloutState.PAUSED_RB):
        return "pause", _headline(rollout), f"A person decides. {_present(rollout, facts, now)}".rstrip()
    if rollout.changed_at is not None and now < rollout.changed_at:
        behind_s = (rollout.changed_at - now).total_seconds()
        return (
            "hold",
            f"Hold: the server's clock stands {behind_s:.0f} s before the last change.",
            "Nothing is decided before it has caught up.",
        )
    action = decide(rollout, facts, now)
    if action is not None:
        return _VERDICTS[action.kind], action.reason, "It is acted on at the next look."
    if rollout.state is RolloutState.ROLLING_BACK:
        back = [d for d in rollout.members if d in facts.devices and is_back(facts.devices[d], rollout.bundle_digest)]
        return "hold", f"Rolling back: {len(back)} of {len(rollout.members)} devices are back.", _pauses(rollout, now)
    if rollout.experiment is not None:
        answers = gates(rollout, facts, now)
        return "hold", next(one.sentence for one in answers if one.name == "difference"), answers[-1].sentence
    return "hold", combine(gates(rollout, facts, now)).sentence, _pauses(rollout, now)


def next_due(rollout: Rollout, facts: Facts, now: datetime) -> datetime | None:
    """When time alone may change the answer: end of a soak, a dwell, a deadline or a hold. None: only news can.

    Never before `now`; `now` itself when there is something to do already.
    """
    if decide(rollout, facts, now) is not None:
        return now
    # A clock that stands before the last change decides nothing until it has caught up.
    if rollout.changed_at is not None and now < rollout.changed_at and rollout.state not in FINAL:
        return rollout.changed_at
    if rollout.state not in (RolloutState.RUNNING, RolloutState.SOAKING, RolloutState.ROLLING_BACK) or rollout.wave == 0:
        return None
    if rollout.experiment is not None and rollout.state in GATED:
        return next_moment(rollout, rollout.experiment, now)
    moments = [now + timedelta(seconds=rollout.policy.hold_s - held_s(rollout, now))]
    if rollout.course is not None and rollout.state in GATED:
        moments = _course_moments(rollout, rollout.course, now)
    elif rollout.state in GATED:
        moments.append(rollout.opened_at[-1] + timedelta(seconds=dwell_s(rollout)))
        moments += [moment for device_id in rollout.members for moment in _device_moments(rollout, facts, device_id, now)]
    return min((moment for moment in moments if moment > now), default=None)


def _course_moments(rollout: Rollout, course: Course, now: datetime) -> list[datetime]:
    """When time alone may let devices begin, end the dwell, or make a hold too long."""
    clock = clock_of(course, rollout.wave, rollout.opened_at[-1], now)
    left_s = [clock.dwell_s - clock.open_s, clock.dwell_s + course.stall_s - clock.open_s]
    if clock.judged_s is not None:
        left_s += [clock.patience_s - clock.judged_s, clock.hold_s - clock.judged_s]
    batch = course.next_batch_at(rollout.wave, now)
    moments = [now + timedelta(seconds=seconds) for seconds in left_s]
    if clock.open_s == 0.0:
        # The dwell begins with the last batch.
        dwells_from_s = 0.0 if course.grown else course.dwells_from_s(rollout.wave)
        moments.append(rollout.opened_at[-1] + timedelta(seconds=dwells_from_s + clock.dwell_s))
    return moments if batch is None else [*moments, batch]


def _device_moments(rollout: Rollout, facts: Facts, device_id: str, now: datetime) -> list[datetime]:
    device = facts.devices.get(device_id)
    if device is None or device.removed or progress(device, rollout.bundle_digest, rollout.policy, now)[0] != "pending":
        return []
    quiet_from = silent_from(device)
    moments = [] if quiet_from is None else [quiet_from + timedelta(seconds=rollout.policy.deadline_s)]
    soak_end = soaked_at(device, rollout.policy)
    return moments if soak_end is None else [*moments, soak_end]


def _present(rollout: Rollout, facts: Facts, now: datetime) -> str:
    """What the gates say while a rollout is paused, as far as the facts can be read."""
    readable = rollout.wave > 0 and all(device_id in facts.devices for device_id in rollout.members)
    return combine(gates(rollout, facts, now)).sentence if readable and rollout.state in GATED else ""


def _headline(rollout: Rollout) -> str:
    return rollout.last_reason or f"The rollout is {rollout.state.value}."


def _pauses(rollout: Rollout, now: datetime) -> str:
    left_s = max(rollout.policy.hold_s - held_s(rollout, now), 0.0)
    return f"Without an answer it pauses for a person in about {left_s:.0f} s."
