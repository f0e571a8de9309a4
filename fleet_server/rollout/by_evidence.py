"""The next step of a rollout by evidence: the gravest finding decides, and a wave that cannot be judged is paused in the end."""

from datetime import datetime

from fleet_server.rollout.confirming import GATE, asked_about, confirmed_then
from fleet_server.rollout.course import Course, clock_of
from fleet_server.rollout.judgement import Clock, Finding, decisive, judge, judgeable, seen, soaked_out
from fleet_server.rollout.model import Action, ActionKind, Facts, Rollout
from fleet_server.rollout.steps import open_next, undecidable
from fleet_server.rollout.tally import Tally
from fleet_server.rollout.transitions import RolloutState


def decide_by_evidence(rollout: Rollout, course: Course, facts: Facts, now: datetime) -> Action | None:
    """The next step, or None to hold.

    Args:
        rollout: Running, soaking or paused; while it is paused it can still be aborted.
        course: Of the rollout.
        facts: With the tally of its exposed devices.
        now: Aware UTC.

    Raises:
        ConfigError: Sums that contradict each other.
    """
    running = rollout.state is RolloutState.RUNNING
    if rollout.wave == 0:
        return open_next(rollout, "The rollout was started.") if running else None
    if facts.tally is None:
        return undecidable(rollout, "Pause: what is known of the devices has not been summed up.")
    clock = clock_of(course, rollout.wave, rollout.opened_at[-1], now)
    findings = judge(course.rule, facts.tally, clock)
    found = decisive(findings)
    if found.word == "abort":
        return Action(ActionKind.ABORT, rollout.wave, found.sentence)
    if rollout.state is RolloutState.PAUSED:
        return None
    if found.word == "pause":
        # Facts that cannot be read are nothing that a person could accept.
        shown = None if found.gate == "facts" else seen(facts.tally)
        about = asked_about(facts.tally, clock.asks, clock, findings) if found.gate == GATE else "nothing"
        asked = None if about == "nothing" else confirmed_then(about, facts.tally, clock.asks)
        return Action(ActionKind.PAUSE, rollout.wave, found.sentence, shown=shown, asked=asked)
    if running and len(rollout.promoted_at) == rollout.wave:
        # The promotion is stored; what opens the next wave is that record, not a second look at facts that may have changed for the worse.
        return open_next(rollout, f"Wave {rollout.wave} was promoted.")
    if found.word == "promote":
        kind = ActionKind.PROMOTE if running else ActionKind.COMPLETE
        waited_s = (now - rollout.promoted_at[-1]).total_seconds() if rollout.promoted_at else 0.0
        if kind is ActionKind.COMPLETE and not soaked_out(facts.tally, waited_s, course.hold_s):
            return None
        # Of gates that all agree, the evidence is the one that says why.
        return Action(kind, rollout.wave, findings[-1].sentence)
    return _wait(rollout, course, facts.tally, clock, found)


def _wait(rollout: Rollout, course: Course, tally: Tally, clock: Clock, found: Finding) -> Action | None:
    """What a wave does that has no answer yet."""
    if course.judged_at is None:
        if judgeable(tally, clock):
            return Action(ActionKind.MATURE, rollout.wave, f"Wave {rollout.wave} has had its time. {found.sentence}")
        if clock.open_s >= clock.dwell_s + course.stall_s and (clock.resumed_s is None or clock.resumed_s >= course.stall_s):
            days = course.stall_s / 86_400
            return Action(
                ActionKind.PAUSE, rollout.wave, f"Pause: wave {rollout.wave} could not be judged for {days:.3g} days. {found.sentence}"
            )
    if found.gate == "comparisons" and clock.judged_s is not None and clock.judged_s >= clock.hold_s:
        # Devices that cannot be read are never left out; a person is asked, and again after another hold.
        hours = clock.judged_s / 3_600
        return Action(ActionKind.PAUSE, rollout.wave, f"Pause: no answer for {hours:.3g} h. {found.sentence}")
    if found.word == "extend" and rollout.state is RolloutState.RUNNING:
        return Action(ActionKind.EXTEND, rollout.wave, found.sentence, size=course.larger(rollout.wave))
    return None
