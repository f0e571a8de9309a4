"""The gate of evidence: what the open wave has shown is enough to promote, may become enough with more devices, or asks a person."""

from dataclasses import dataclass
from typing import Final

from fleet_server.rollout.bounds import upper_bound
from fleet_server.rollout.findings import Accepted, Clock, Finding, Word, hours, percent
from fleet_server.rollout.posterior import bad_probability, silence_prior
from fleet_server.rollout.rules import Rule
from fleet_server.rollout.silence import Silence
from fleet_server.rollout.tally import Tally

_DWELLED_SHARE: Final = 0.6


def evidence_gate(rule: Rule, tally: Tally, quiet: Silence, clock: Clock) -> Finding:
    """Whether the wave is promoted, held, grows, or asks a person."""
    told = _told(tally, quiet, clock.accepted)
    calm = clock.dwell_s <= 0 or told.dwelled_failed <= rule.limit * told.dwelled + (rule.kind == "posterior")
    asked = _bound(rule, told, quiet, clock) if rule.kind == "bound" else _posterior(rule, told, quiet, clock)
    now, limit = asked.now, asked.limit

    def found(word: Word, sentence: str) -> Finding:
        return Finding("evidence", word, now, limit, told.n, sentence, asked.level)

    accepted = clock.accepted.failures or clock.accepted.missing
    said = f"{told.failed} of {told.n} devices failed, {told.missing} of {told.due} are missing"
    said += " beside those that a person accepted" if accepted else ""
    if asked.promotes and calm:
        return found("promote", f"Promote: {said}; {now} is within {limit}.")
    late = "" if calm else f" {told.dwelled_failed} of {told.dwelled} failed over the whole dwell."
    judged_s = clock.judged_s or 0.0
    if judged_s >= clock.hold_s:
        return found("pause", f"Pause: no answer for {hours(judged_s)}. {said}: {now}, the limit is {limit}.{late}")
    dwelled = clock.dwell_s <= 0 or rule.kind == "posterior"
    # What grew last must have had its dwell before the wave grows again.
    dwelled = dwelled or (rule.extend(told.dwelled_failed, told.dwelled, clock.grown) and tally.dwelled > _DWELLED_SHARE * tally.exposed)
    if asked.grows and dwelled and clock.may_grow and clock.grown < rule.extends and judged_s >= asked.patience_s:
        return found("extend", f"Extend: {said}; {now} is not within {limit} yet, more devices can tell.")
    return found("hold", f"Hold: {said}; {now}, the limit is {limit}.{late}")


@dataclass(frozen=True)
class _Told:
    """What a promotion is judged by: devices with nothing to lose and what a person accepted say nothing about the others."""

    n: int
    failed: int
    dwelled: int
    dwelled_failed: int
    due: int
    missing: int


def _told(tally: Tally, quiet: Silence, accepted: Accepted) -> _Told:
    failed = max(tally.failed_of_others - accepted.failures, 0)
    due = max(quiet.due - tally.aside.exposed - (tally.failed_of_others - failed), 0)
    dwelled_failed = max(tally.dwelled_failed - accepted.failures, 0)
    missing = max(quiet.missing - accepted.missing, 0)
    return _Told(
        n=max(due, failed),
        failed=failed,
        dwelled=tally.dwelled - (tally.dwelled_failed - dwelled_failed),
        dwelled_failed=dwelled_failed,
        due=quiet.due - (quiet.missing - missing),
        missing=missing,
    )


@dataclass(frozen=True)
class _Asked:
    """What a rule says to numbers: whether they promote, whether more devices may help and after how long, and how it is written."""

    promotes: bool
    grows: bool
    patience_s: float
    now: str
    limit: str
    level: float


def _bound(rule: Rule, told: _Told, quiet: Silence, clock: Clock) -> _Asked:
    failing = of_all = upper_bound(told.failed, told.n, rule.confidence)
    if clock.dwell_s > 0:
        # Young devices would dilute what the old ones show late: devices that had the whole dwell must prove the limit by themselves.
        failing = max(failing, upper_bound(told.dwelled_failed, told.dwelled, rule.confidence))
    missing, allowed = upper_bound(told.missing, told.due, rule.confidence), quiet.limit_now(rule.limit)
    # Where all devices prove the limit and those with the whole dwell are too few, waiting for the others' dwell tells more than growing.
    young = told.n > 0 and of_all <= rule.limit < failing
    return _Asked(
        promotes=told.n > 0 and failing <= rule.limit and missing <= allowed,
        # Who is missing after his dwell seldom comes back: there is no leaning towards silence.
        grows=rule.extend(told.failed, told.n, clock.grown) and told.missing <= allowed * told.due,
        patience_s=clock.patience_s + (clock.dwell_s if young else 0.0),
        now=f"{percent(failing)} failing, {percent(missing)} missing",
        limit=f"{percent(rule.limit)}, {percent(allowed)}",
        level=min(max(failing / rule.limit, missing / allowed), 1.0),
    )


def _posterior(rule: Rule, told: _Told, quiet: Silence, clock: Clock) -> _Asked:
    failing = bad_probability(told.failed, told.n, rule.history.prior())
    worst = max(failing, bad_probability(told.missing, told.due, silence_prior(min(quiet.missing_baseline, 0.98))))
    return _Asked(
        promotes=told.n > 0 and worst <= rule.promote_below,
        grows=worst <= rule.extend_below,
        patience_s=clock.patience_s,
        now=f"{percent(worst)} likely to be bad",
        limit=percent(rule.promote_below),
        level=min(worst / rule.promote_below, 1.0),
    )
