"""The engine: decide what a rollout does next, and apply it. Pure: no clock, no database; `now` is an argument.

`decide` is called until it answers None; each action is saved before anything is published. It may be called by any number of
schedulers: an action that was already applied is refused by `apply`, a repeated tick changes nothing.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

import msgspec

from fleet_server.rollout.by_evidence import decide_by_evidence
from fleet_server.rollout.by_experiment import decide_by_experiment, results
from fleet_server.rollout.course import Course
from fleet_server.rollout.evidence import failed_on_the_way_back, is_back, progress
from fleet_server.rollout.experiment_plan import Ending, Experiment
from fleet_server.rollout.gates import REMOVED, Exposure, GateResult, combine, evaluate
from fleet_server.rollout.model import Action, ActionKind, Facts, Rollout
from fleet_server.rollout.policy import plan_waves
from fleet_server.rollout.steps import open_next, undecidable
from fleet_server.rollout.transitions import Event, RolloutState, TransitionError, next_state

GATED: Final = frozenset({RolloutState.RUNNING, RolloutState.SOAKING, RolloutState.PAUSED})
_EVENTS: Final = {
    ActionKind.OPEN_WAVE: Event.OPEN_WAVE,
    ActionKind.MATURE: Event.MATURE,
    ActionKind.EXTEND: Event.EXTEND,
    ActionKind.PROMOTE: Event.PROMOTE,
    ActionKind.PAUSE: Event.HALT,
    ActionKind.ABORT: Event.ABORT_VERDICT,
    ActionKind.ROLL_BACK: Event.ROLL_BACK,
    ActionKind.COMPLETE: Event.COMPLETE,
    ActionKind.CONCLUDE: Event.CONCLUDE,
    ActionKind.ROLLED_BACK: Event.ALL_BACK,
}
_PAST: Final = {
    Event.APPROVE: "Approved by people",
    Event.START: "Started by a person",
    Event.PAUSE: "Paused by a person",
    Event.CONFIRM: "Confirmed by a person",
    Event.RESUME: "Resumed by a person",
    Event.ABORT: "Aborted by a person",
    Event.ROLL_BACK: "Rolled back by a person",
    Event.SUPERSEDE: "Superseded",
}
PERSON_EVENTS: Final = tuple(_PAST)


def decide(rollout: Rollout, facts: Facts, now: datetime) -> Action | None:
    """The next step, or None to hold.

    A decision that cannot be made pauses the rollout; it never promotes and never raises.

    Args:
        rollout: As stored.
        facts: What is known of its devices.
        now: Aware UTC; before the last change nothing is decided.
    """
    try:
        if rollout.changed_at is not None and now < rollout.changed_at:
            return None
        return _decide(rollout, facts, now)
    except Exception as err:
        return undecidable(rollout, f"Pause: the decision failed ({type(err).__name__}: {str(err)[:200]}).")


def apply(rollout: Rollout, action: Action, now: datetime) -> Rollout:
    """The rollout after an action.

    Raises:
        TransitionError: The state does not know the action, or it is about another wave (somebody else was faster).
    """
    expected = rollout.wave + 1 if action.kind is ActionKind.OPEN_WAVE else rollout.wave
    if action.wave != expected:
        raise TransitionError(f"{action.kind.value} is about wave {action.wave}, the rollout expects {expected}; nothing was changed")
    state = next_state(rollout.state, _EVENTS[action.kind])
    now = _not_before(rollout, now)
    changed = replace(rollout, state=state, last_reason=action.reason, changed_at=now, experiment=_ended(rollout, action.ending))
    if action.kind is ActionKind.OPEN_WAVE:
        if len(rollout.promoted_at) != rollout.wave or action.wave > rollout.wave_count:
            raise TransitionError(f"wave {action.wave} cannot open: {len(rollout.promoted_at)} of {rollout.wave_count} waves are promoted")
        course = rollout.course and rollout.course.opened(action.wave, now)
        return replace(changed, wave=action.wave, opened_at=(*rollout.opened_at, now), hold_since=now, course=course)
    if action.kind in (ActionKind.MATURE, ActionKind.EXTEND):
        if rollout.course is None:
            raise TransitionError(f"{action.kind.value} is for rollouts by evidence; this one names its devices; nothing was changed")
        course = (
            rollout.course.matured(now) if action.kind is ActionKind.MATURE else rollout.course.grown_to(rollout.wave, action.size, now)
        )
        return replace(changed, course=course)
    if action.kind is ActionKind.PROMOTE:
        if len(rollout.promoted_at) != rollout.wave - 1:
            raise TransitionError(f"wave {action.wave} is already promoted; nothing was changed")
        promoted = replace(changed, promoted_at=(*rollout.promoted_at, now), hold_since=now)
        return replace(promoted, state=next_state(state, Event.LAST_WAVE_DONE)) if promoted.all_promoted else promoted
    if action.kind is ActionKind.PAUSE:
        course = rollout.course and msgspec.structs.replace(rollout.course, shown=action.shown, asked=action.asked)
        return replace(changed, paused_for=action.devices, course=course)
    if action.kind is ActionKind.ROLL_BACK:
        return replace(changed, hold_since=now)
    return changed


def apply_person(rollout: Rollout, event: str, reason: str, now: datetime, *, dark_sites: int = 0) -> Rollout:
    """The rollout after a person (or a later rollout: supersede) acted.

    Args:
        rollout: As stored.
        event: start, pause, confirm, resume, abort, roll-back or supersede.
        reason: The person's words.
        now: Aware UTC.
        dark_sites: Of few sites, those that are dark now: whoever resumes lets the others go on all the same.

    Raises:
        TransitionError: Unknown event, the state does not know it, or nothing waits for a confirmation.
    """
    if event not in PERSON_EVENTS:
        raise TransitionError(f"{event!r} is nothing that a person can do; possible: {', '.join(e.value for e in PERSON_EVENTS)}")
    step = Event(event)
    state = rollout.state
    if step is Event.START and state is RolloutState.DRAFT:
        if rollout.policy.approvals:
            needed = rollout.policy.approvals
            raise TransitionError(f"the policy asks for {needed} approval{'s' if needed > 1 else ''} before the start; nothing was changed")
        # The policy asks for no approval, so the start is also the approval.
        state = next_state(state, Event.APPROVE)
    state = next_state(state, step)
    now = _not_before(rollout, now)
    changed = replace(rollout, state=state, last_reason=f"{_PAST[step]}: {reason or 'no reason given'}", changed_at=now)
    if step in (Event.ABORT, Event.ROLL_BACK, Event.SUPERSEDE):
        changed = replace(changed, experiment=_ended(rollout, "stopped"))
    if step in (Event.CONFIRM, Event.RESUME) and state is RolloutState.RUNNING and rollout.all_promoted:
        changed = replace(changed, state=next_state(state, Event.LAST_WAVE_DONE))
    if step is Event.CONFIRM:
        return replace(changed, hold_since=now, course=_looked_at(rollout, now))
    if step is Event.PAUSE and rollout.course is not None:
        # Who pauses it has a reason of her own, and a confirmation is no answer to that.
        return replace(changed, course=msgspec.structs.replace(rollout.course, asked=None))
    if step is Event.RESUME:
        accepted = tuple(sorted({*rollout.accepted, *rollout.paused_for}))
        course = rollout.course and rollout.course.resumed(now, dark_sites)
        return replace(changed, hold_since=now, accepted=accepted, paused_for=(), course=course)
    if step is Event.ROLL_BACK and rollout.state is not RolloutState.ROLLING_BACK:
        return replace(changed, hold_since=now)
    return changed


def gates(rollout: Rollout, facts: Facts, now: datetime) -> tuple[GateResult, ...]:
    """All gates of the open wave, for the page; empty while no wave is open.

    Raises:
        KeyError: The facts of a member are missing.
    """
    if rollout.experiment is not None:
        return results(rollout, rollout.experiment, facts, now) if rollout.wave else ()
    return evaluate(exposure(rollout, facts, now), rollout.policy, now) if rollout.wave else ()


def exposure(rollout: Rollout, facts: Facts, now: datetime) -> Exposure:
    """What the gates look at: the devices of all open waves."""
    judged = {device_id: progress(facts.devices[device_id], rollout.bundle_digest, rollout.policy, now) for device_id in rollout.members}
    return Exposure(
        wave=rollout.wave,
        members=judged,
        added=rollout.waves[rollout.wave - 1],
        opened_at=rollout.opened_at[-1],
        dwell_s=dwell_s(rollout),
        accepted=frozenset(rollout.accepted),
        removed=frozenset(device_id for device_id in rollout.members if facts.devices[device_id].removed),
    )


def dwell_s(rollout: Rollout) -> float:
    """Least seconds that the open wave stays open."""
    reached = len(rollout.members)
    plan = plan_waves(rollout.policy, sum(len(wave) for wave in rollout.waves))
    return next((wave.dwell_s for wave in plan if wave.devices >= reached), 0.0)


def held_s(rollout: Rollout, now: datetime) -> float:
    """Seconds of hold: since the end of the dwell, the promotion or the resume, whichever was last."""
    if rollout.hold_since is None:
        return 0.0
    start = rollout.hold_since
    if rollout.state is RolloutState.RUNNING and rollout.opened_at:
        start = max(start, rollout.opened_at[-1] + timedelta(seconds=dwell_s(rollout)))
    return (now - start).total_seconds()


def _decide(rollout: Rollout, facts: Facts, now: datetime) -> Action | None:
    if rollout.state in GATED and rollout.experiment is not None:
        return decide_by_experiment(rollout, rollout.experiment, facts, now)
    if rollout.state in GATED:
        return _decide_forward(rollout, facts, now) if rollout.course is None else decide_by_evidence(rollout, rollout.course, facts, now)
    if rollout.state is RolloutState.ABORTED and rollout.policy.on_abort == "roll-back" and rollout.wave:
        return Action(ActionKind.ROLL_BACK, rollout.wave, "Roll back: the policy says on_abort = roll-back.")
    if rollout.state is RolloutState.ROLLING_BACK:
        return _decide_back(rollout, facts, now)
    return None


def _decide_forward(rollout: Rollout, facts: Facts, now: datetime) -> Action | None:
    if not rollout.waves:
        return undecidable(rollout, "Pause: the rollout has no device, and nobody is no evidence.")
    lost = sorted({*facts.unreadable, *(d for d in rollout.members if d not in facts.devices)})
    if lost:
        return undecidable(rollout, f"Pause: the facts of {len(lost)} devices cannot be read: {', '.join(lost[:3])}.")
    if rollout.wave == 0:
        return open_next(rollout, "The rollout was started.") if rollout.state is RolloutState.RUNNING else None
    results = gates(rollout, facts, now)
    decisive = combine(results)
    if decisive.verdict == "abort":
        return Action(ActionKind.ABORT, rollout.wave, decisive.sentence)
    if rollout.state is RolloutState.PAUSED:
        return None
    if decisive.verdict == "pause":
        seen = exposure(rollout, facts, now)
        # Only what the sentence names is accepted by a resume.
        cause = tuple(sorted(seen.removed)) if decisive.name == REMOVED else seen.of("failed")
        return Action(ActionKind.PAUSE, rollout.wave, decisive.sentence, cause)
    if rollout.state is RolloutState.RUNNING and len(rollout.promoted_at) == rollout.wave:
        # The promotion is stored; what opens the next wave is that record, not a second look at facts that may have changed for the worse.
        return open_next(rollout, f"Wave {rollout.wave} was promoted.")
    if decisive.verdict == "promote":
        kind = ActionKind.COMPLETE if rollout.state is RolloutState.SOAKING else ActionKind.PROMOTE
        return Action(kind, rollout.wave, results[-1].sentence)
    if held_s(rollout, now) >= rollout.policy.hold_s:
        return Action(ActionKind.PAUSE, rollout.wave, f"Pause: held for {held_s(rollout, now):.0f} s. {decisive.sentence}")
    return None


def _decide_back(rollout: Rollout, facts: Facts, now: datetime) -> Action | None:
    if rollout.course is not None:
        return _decide_back_by_count(rollout, facts.away, facts.stuck, now)
    lost = [device_id for device_id in rollout.members if device_id not in facts.devices or device_id in facts.unreadable]
    if lost:
        return undecidable(rollout, f"Pause: the facts of {len(lost)} devices cannot be read: {', '.join(lost[:3])}.")
    unseen = [d for d in rollout.members if d not in rollout.accepted]
    failed = [d for d in unseen if failed_on_the_way_back(facts.devices[d], rollout.bundle_digest)]
    if failed:
        return _stuck(rollout, failed, len(rollout.members))
    waiting = [d for d in rollout.members if not is_back(facts.devices[d], rollout.bundle_digest)]
    if not waiting:
        return Action(ActionKind.ROLLED_BACK, rollout.wave, f"Rolled back: none of {len(rollout.members)} devices runs the release.")
    if held_s(rollout, now) >= rollout.policy.hold_s:
        reason = f"Pause: {len(waiting)} of {len(rollout.members)} devices are not back after {rollout.policy.hold_s:g} s: "
        return Action(ActionKind.PAUSE, rollout.wave, reason + ", ".join(waiting[:3]) + ".")
    return None


def _looked_at(rollout: Rollout, now: datetime) -> Course:
    """The course after a confirmation.

    Raises:
        TransitionError: Nothing waits for one.
    """
    course = rollout.course
    if course is None or course.asked is None:
        waits = "nothing waits for a confirmation here; a pause of another kind ends by resume, abort or roll-back; nothing was changed"
        raise TransitionError(waits)
    return course.looked_at(rollout.changed_at or now, now)


def _ended(rollout: Rollout, ending: Ending) -> Experiment | None:
    """The experiment with its ending; the first one stays."""
    plan = rollout.experiment
    return plan if plan is None or plan.ending or not ending else msgspec.structs.replace(plan, ending=ending)


def _stuck(rollout: Rollout, failed: Sequence[str], devices: int) -> Action:
    reason = f"Pause: the way back failed on {len(failed)} of {devices} devices: {', '.join(failed[:3])}."
    return Action(ActionKind.PAUSE, rollout.wave, reason, tuple(failed))


def _decide_back_by_count(rollout: Rollout, away: int | None, stuck: Sequence[str], now: datetime) -> Action | None:
    if away is None:
        return undecidable(rollout, "Pause: how many devices still run the release has not been counted.")
    failed = sorted(set(stuck).difference(rollout.accepted))
    if failed:
        return _stuck(rollout, failed, away)
    if away == 0:
        return Action(ActionKind.ROLLED_BACK, rollout.wave, "Rolled back: no device runs the release.")
    if held_s(rollout, now) >= rollout.policy.hold_s:
        reason = f"Pause: {away} devices are not back after {rollout.policy.hold_s:g} s."
        return Action(ActionKind.PAUSE, rollout.wave, reason)
    return None


def _not_before(rollout: Rollout, now: datetime) -> datetime:
    """A clock that was set back must not make later times earlier than older ones."""
    return now if rollout.changed_at is None else max(now, rollout.changed_at)
