"""What a rollout by evidence says to people: the gates of its open wave with what would change them, its verdict, and what comes next."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from edgefleet.spans import span
from fleet_server.read_models import Verdict
from fleet_server.rollout.approval import needs_approval
from fleet_server.rollout.course import Course, clock_of
from fleet_server.rollout.engine import decide
from fleet_server.rollout.judgement import Clock, Finding, decisive, judge
from fleet_server.rollout.model import ActionKind, Facts, Rollout
from fleet_server.rollout.on_abort import said
from fleet_server.rollout.transitions import FINAL, RolloutState
from fleet_server.rollout.turning import turns

_JUDGED: Final = frozenset({RolloutState.RUNNING, RolloutState.SOAKING, RolloutState.PAUSED, RolloutState.ABORTED})
_VERDICTS: Final[dict[ActionKind, Verdict]] = {
    ActionKind.OPEN_WAVE: "promote",
    ActionKind.MATURE: "hold",
    ActionKind.EXTEND: "extend",
    ActionKind.PROMOTE: "promote",
    ActionKind.PAUSE: "pause",
    ActionKind.ABORT: "abort",
    ActionKind.ROLL_BACK: "abort",
    ActionKind.COMPLETE: "done",
    ActionKind.ROLLED_BACK: "done",
}


@dataclass(frozen=True)
class Judged:
    """The gates of the open wave.

    Attributes:
        clock: Where it stands in time.
        findings: In the engine's order.
        turns: Gate -> what would change its answer.
    """

    clock: Clock
    findings: tuple[Finding, ...]
    turns: dict[str, str]


def judged(rollout: Rollout, facts: Facts, now: datetime) -> Judged | None:
    """What the gates say now; None while no wave is open, or when there is nothing to judge any more.

    Raises:
        ConfigError: Sums that contradict each other.
    """
    if rollout.course is None or rollout.wave == 0 or facts.tally is None or rollout.state not in _JUDGED:
        return None
    clock = clock_of(rollout.course, rollout.wave, rollout.opened_at[-1], now)
    found = judge(rollout.course.rule, facts.tally, clock)
    return Judged(clock, found, turns(rollout.course.rule, facts.tally, clock, found))


def view_by_evidence(rollout: Rollout, course: Course, facts: Facts, now: datetime) -> tuple[Verdict, str, str]:
    """Verdict, its sentence with numbers, and what is missing or comes next."""
    state = rollout.state
    if state in FINAL:
        return "done", _headline(rollout), "Nothing more happens here."
    if state in (RolloutState.DRAFT, RolloutState.APPROVED):
        waves = "1 wave" if len(course.sizes) == 1 else f"{len(course.sizes)} waves"
        return (
            "waiting",
            f"Waiting: {course.sizes[-1]:,} devices in {waves}; no device has begun.",
            needs_approval(rollout) or "A person starts it.",
        )
    if state is RolloutState.ABORTED:
        return "abort", _headline(rollout), said(rollout.policy.on_abort)
    if state in (RolloutState.PAUSED, RolloutState.PAUSED_RB):
        ways = "resume" if course.asked is None else "confirm or resume"
        return "pause", _headline(rollout), f"A person decides: look at the gates, then {ways}, abort or roll back."
    action = decide(rollout, facts, now)
    if action is not None:
        return _VERDICTS[action.kind], action.reason, "It is acted on at the next look."
    if state is RolloutState.ROLLING_BACK:
        away = facts.away or 0
        return "hold", f"Rolling back: {away} devices still run or try the release.", "It goes on until nobody does."
    seen = judged(rollout, facts, now)
    if seen is None:
        return "hold", _headline(rollout), ""
    found = decisive(seen.findings)
    return _word(found), found.sentence, _next(seen, found, course)


def _word(found: Finding) -> Verdict:
    """An engine that holds has not promoted, whatever its gates say: its first look at a ripe wave is stored before it acts."""
    return "hold" if found.word == "promote" else found.word


def _next(seen: Judged, found: Finding, course: Course) -> str:
    said = seen.turns.get(found.gate, "")
    clock = seen.clock
    if clock.judged_s is not None:
        left_s = max(clock.hold_s - clock.judged_s, 0.0)
        asked = f"Without an answer it pauses for a person in {span(left_s)}."
    else:
        left_s = max(clock.dwell_s + course.stall_s - clock.open_s, 0.0)
        asked = f"If it cannot be judged it pauses for a person in {span(left_s)}."
    return f"{said} {asked}".strip() if found.gate != "evidence" else said


def _headline(rollout: Rollout) -> str:
    return rollout.last_reason or f"The rollout is {rollout.state.value}."
