"""The next step of an experiment: open the next batch, stop for harm, or end with an answer.

Looks cost nothing: every number here is valid at any time, so it may be decided after each device.
"""

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from fleet_server.rollout.eprocess import e_value
from fleet_server.rollout.evidence import DeviceFacts
from fleet_server.rollout.experiment import FIRST_LOOK, ratio_evidence
from fleet_server.rollout.experiment_plan import Ending, Experiment
from fleet_server.rollout.experiment_sums import Sums
from fleet_server.rollout.gates import GateResult
from fleet_server.rollout.model import Action, ActionKind, Facts, Rollout
from fleet_server.rollout.steps import open_next, undecidable
from fleet_server.rollout.transitions import RolloutState

WARNING: Final = "early warning"
HARM_AT: Final = 100.0
FAILURE_AT: Final = 20.0
WARN_LIMIT: Final = 0.03
WARN_AT: Final = 10.0
RATIO_AT: Final = 1_000.0
PAIRS_AT: Final = 20.0


@dataclass(frozen=True)
class Answer:
    """One question of an experiment, with its numbers: `end` ends it, `pause` asks a person, `go` and `wait` let it go on."""

    name: str
    word: Literal["end", "pause", "wait", "go"]
    now: str
    limit: str
    n: int
    sentence: str
    ending: Ending = ""


def decide_by_experiment(rollout: Rollout, plan: Experiment, facts: Facts, now: datetime) -> Action | None:
    """The next step, or None to wait.

    Args:
        rollout: Running, soaking (all batches have begun) or paused; while it is paused it can still be stopped for harm.
        plan: Of the rollout.
        facts: With the sums of the arms.
        now: Aware UTC.

    Raises:
        ConfigError: Sums that contradict each other.
    """
    running = rollout.state is RolloutState.RUNNING
    if rollout.wave == 0:
        return open_next(rollout, "The experiment was started.") if running else None
    if facts.arms is None or facts.unreadable:
        return undecidable(rollout, "Pause: what the experiment has seen cannot be read.")
    answers = questions(rollout, plan, facts, now)
    harm = next((one for one in answers if one.ending == "harm"), None)
    if harm is not None:
        return _end(rollout, harm)
    if rollout.state is RolloutState.PAUSED:
        return None
    if (pause := next((one for one in answers if one.word == "pause"), None)) is not None:
        # Whoever resumes has seen the failures so far; only further ones pause it again.
        return Action(ActionKind.PAUSE, rollout.wave, pause.sentence, _failed(rollout, plan, facts) if pause.name == WARNING else ())
    if (end := next((one for one in answers if one.word == "end"), None)) is not None:
        return _end(rollout, end)
    if running and len(rollout.promoted_at) == rollout.wave:
        return open_next(rollout, f"Batch {rollout.wave} has begun without harm.")
    if running and now >= rollout.opened_at[-1] + timedelta(seconds=plan.every_s):
        return Action(ActionKind.PROMOTE, rollout.wave, f"Batch {rollout.wave} has been open for {plan.every_s / 3600:.3g} h without harm.")
    return None


def questions(rollout: Rollout, plan: Experiment, facts: Facts, now: datetime) -> tuple[Answer, ...]:
    """Everything that may end it, the gravest first.

    Raises:
        ConfigError: Sums that contradict each other.
    """
    sums = facts.arms or Sums()
    return (*_failures(rollout, plan, facts), _guardrails(plan, sums), _ratio(plan, sums), _effect(plan, sums), _time(rollout, plan, now))


def results(rollout: Rollout, plan: Experiment, facts: Facts, now: datetime) -> tuple[GateResult, ...]:
    """The same for the page."""
    words = {"end": "promote", "pause": "pause", "wait": "hold", "go": "promote"}
    return tuple(
        GateResult(one.name, "abort" if one.ending == "harm" else words[one.word], one.now, one.limit, one.n, one.sentence)  # type: ignore[arg-type]
        for one in questions(rollout, plan, facts, now)
    )


def next_moment(rollout: Rollout, plan: Experiment, now: datetime) -> datetime | None:
    """When time alone may change something: a batch, a period that is over, the horizon."""
    if not rollout.opened_at or rollout.state not in (RolloutState.RUNNING, RolloutState.SOAKING):
        return None
    moments = [rollout.opened_at[-1] + timedelta(seconds=plan.every_s)] if rollout.state is RolloutState.RUNNING else []
    moments += [plan.measured_at(at) for at in rollout.opened_at]
    moments.append(rollout.opened_at[0] + timedelta(seconds=plan.horizon_s))
    return min((moment for moment in moments if moment > now), default=None)


def _of_arm_b(rollout: Rollout, plan: Experiment, facts: Facts) -> list[DeviceFacts]:
    return [facts.devices[d] for d in rollout.members if d in facts.devices and plan.arm(rollout.salt, d) == 1]


def _failed(rollout: Rollout, plan: Experiment, facts: Facts) -> tuple[str, ...]:
    return tuple(device.device_id for device in _of_arm_b(rollout, plan, facts) if device.failed_at is not None)


def _failures(rollout: Rollout, plan: Experiment, facts: Facts) -> tuple[Answer, Answer]:
    n = sum(device.began_at is not None for device in _of_arm_b(rollout, plan, facts))
    told = _failed(rollout, plan, facts)
    failed, fresh = min(len(told), n), min(len(set(told).difference(rollout.accepted)), n)
    evidence, early = e_value(failed, n, plan.failure_limit), e_value(fresh, n, WARN_LIMIT)
    seen = f"{failed} of {n} devices of arm B failed"
    harm = evidence >= FAILURE_AT
    said = f"Stopped for harm: {seen}; evidence {evidence:.3g}." if harm else f"{seen}."
    first = Answer("failures", "end" if harm else "go", f"{evidence:.3g}", f"{FAILURE_AT:g}", n, said, "harm" if harm else "")
    warns = early >= WARN_AT
    said = f"Pause: {seen} already; evidence {early:.3g}." if warns else "Nothing unusual."
    return first, Answer(WARNING, "pause" if warns else "go", f"{early:.3g}", f"{WARN_AT:g}", n, said)


def _guardrails(plan: Experiment, sums: Sums) -> Answer:
    evidence, worst = sums.harm(plan.guardrails)
    now, limit = f"{evidence:.3g}", f"{HARM_AT:g}"
    if not math.isfinite(evidence):
        return Answer("guardrails", "pause", now, limit, sums.pairs, "Pause: the guardrails' evidence is no number.")
    if evidence >= HARM_AT:
        said = f"Stopped for harm: arm B is worse in {worst}; evidence {now}, the limit is {limit}."
        return Answer("guardrails", "end", now, limit, sums.pairs, said, "harm")
    named = ", ".join(plan.guardrails) or "no guardrail"
    return Answer("guardrails", "go", now, limit, sums.pairs, f"{named}: evidence {now} of {limit} that arm B is worse.")


def _ratio(plan: Experiment, sums: Sums) -> Answer:
    a, b = sums.arms
    n = a.delivered + b.delivered
    evidence = ratio_evidence(b.delivered, n, plan.share)
    now, limit = f"{evidence:.3g}", f"{RATIO_AT:g}"
    seen = f"{b.delivered} of {n} devices that delivered are of arm B, {100 * plan.share:.3g} % were drawn"
    if not evidence < RATIO_AT:
        said = f"Pause: {seen}; evidence {now}: the arms are not comparable, and no difference between them means anything."
        return Answer("sample ratio", "pause", now, limit, n, said)
    return Answer("sample ratio", "go", now, limit, n, f"{seen}.")


def _effect(plan: Experiment, sums: Sums) -> Answer:
    a, b = sums.arms
    n, half, difference = a.n + b.n, sums.half(plan.alpha), sums.difference
    limit = f"R = {plan.resolution:g}"
    if n < FIRST_LOOK or not math.isfinite(half):
        return Answer("difference", "wait", "", limit, n, f"{n} devices are measured, the first look is at {FIRST_LOOK}.")
    now = f"{difference:+.3g} +- {half:.2g}"
    stated = f"B - A = {now} of {plan.metric} after {n} devices"
    if abs(difference) > half and sums.evidence >= PAIRS_AT:
        better = plan.better_by(difference) > 0
        ending: Ending = "winner B" if better else "winner A"
        return Answer("difference", "end", now, limit, n, f"{ending.capitalize()}: {stated}.", ending)
    if abs(difference) + half <= plan.resolution:
        return Answer("difference", "end", now, limit, n, f"No difference larger than {plan.resolution:g}: {stated}.", "no difference")
    return Answer("difference", "wait", now, limit, n, f"Undecided: {stated}.")


def _time(rollout: Rollout, plan: Experiment, now: datetime) -> Answer:
    open_s = (now - rollout.opened_at[0]).total_seconds() if rollout.opened_at else 0.0
    shown, limit = f"{open_s / 86_400:.1f} d", f"{plan.horizon_s / 86_400:.3g} d"
    if open_s >= plan.horizon_s:
        said = f"Inconclusive after {shown}: the experiment could not tell, which is not the same as no difference."
        return Answer("time", "end", shown, limit, rollout.wave, said, "inconclusive")
    return Answer("time", "go", shown, limit, rollout.wave, f"{shown} of {limit}.")


def _end(rollout: Rollout, answer: Answer) -> Action:
    kind = ActionKind.CONCLUDE if answer.ending == "winner B" else ActionKind.ROLL_BACK
    return Action(kind, rollout.wave, answer.sentence, ending=answer.ending)
