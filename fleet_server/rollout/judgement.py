"""The verdict about the open wave by evidence: abort, pause, promote, extend or hold, each gate with its numbers and one sentence.

Explicit failures and silence are streams of their own and never added. ABORT counts every device that began, pending ones as successes, by
evidence that may be looked at any time; PROMOTE counts devices whose time is over. Comparisons of what the model does may pause only.
"""

import math
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from fleet_server.rollout.bounds import upper_bound
from fleet_server.rollout.comparisons import PAUSE_AT, compare
from fleet_server.rollout.eprocess import e_value, mean_evidence
from fleet_server.rollout.posterior import bad_probability, silence_prior
from fleet_server.rollout.rules import Rule
from fleet_server.rollout.silence import Silence, site_evidence
from fleet_server.rollout.tally import Tally

Word = Literal["abort", "pause", "hold", "extend", "promote"]
# From the one that decides to the one that gives way; a wave is promoted when every gate says so.
SEVERITY: Final[tuple[Word, ...]] = ("abort", "pause", "hold", "extend", "promote")
DUE_OF_BEGUN: Final = 0.78
DUE_OF_OPENED: Final = 0.5
HEARD_AFTER_DWELL: Final = 45
HEARD_SHARE: Final = 0.6
SITES_AT: Final = 20.0  # evidence
_DWELLED_SHARE: Final = 0.6
_SMALL: Final = 200  # devices: below, silence alone pauses before it can abort
OWN_SITES: Final = 5  # fewer: no statistics about sites, the first that goes dark stops the opening elsewhere


class Accepted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a person saw at a pause and accepted by resuming: it pauses nothing again and holds back no promotion; ABORT counts it all.

    Attributes:
        failures: Explicit failures.
        silent: Devices that were silent at their deadline.
        missing: Devices that were missing.
        sites_out: Sites that went dark.
        compared: Evidence of the comparisons, at least 1.
    """

    failures: int = 0
    silent: int = 0
    missing: int = 0
    sites_out: int = 0
    compared: float = 1.0


_NOTHING: Final = Accepted()


@dataclass(frozen=True)
class Clock:
    """Where the open wave stands: times in seconds, growth, and what a person accepted.

    Attributes:
        opened_all: Whether its last batch was opened.
        open_s: Since it was opened.
        dwell_s: It stays open at least so long.
        judged_s: Since it could be judged for the first time; None: it cannot be yet.
        patience_s: After so long without an answer more devices are taken, if that may help.
        hold_s: After so long a person is asked.
        grown: Times that it has grown.
        may_grow: Whether there are devices left to grow into.
        resumed_s: Since a person resumed the rollout; None: nobody did.
        accepted: What she accepted by that.
    """

    opened_all: bool
    open_s: float
    dwell_s: float
    judged_s: float | None
    patience_s: float
    hold_s: float
    grown: int = 0
    may_grow: bool = True
    resumed_s: float | None = None
    accepted: Accepted = _NOTHING


@dataclass(frozen=True)
class Finding:
    """One gate now.

    Attributes:
        n: Devices that it is about.
        level: What it sees as a share of its limit, cut at 1: evidence on the scale of its logarithm; None: nothing to measure.
    """

    gate: str
    word: Word
    now: str
    limit: str
    n: int
    sentence: str
    level: float | None = None


def judge(rule: Rule, tally: Tally, clock: Clock) -> tuple[Finding, ...]:
    """All gates; the gravest word decides (`decisive`).

    Raises:
        ConfigError: Numbers that contradict each other; whoever cannot decide must pause.
    """
    return (
        _readable(tally),
        _stop(rule, tally, tally.quiet, clock.accepted),
        _warning(rule, tally, clock.accepted),
        _sites(tally, clock.accepted),
        _compared(tally, clock.accepted),
        _time(tally, tally.quiet, clock),
        _evidence(rule, tally, tally.quiet, clock),
    )


def decisive(findings: tuple[Finding, ...]) -> Finding:
    """The gate that decides: the gravest word, the first of equals; where all promote, the evidence, which is the reason."""
    gravest = min(findings, key=lambda finding: SEVERITY.index(finding.word))
    return findings[-1] if gravest.word == "promote" else gravest


def seen(tally: Tally) -> Accepted:
    """What a person is shown who is asked now."""
    quiet = tally.quiet
    compared = max(compare(tally.wealth, tally.exposed).evidence, 1.0)
    return Accepted(
        failures=tally.failed, silent=quiet.silent, missing=quiet.missing, sites_out=tally.sites_out, compared=min(compared, 1e300)
    )


def judgeable(tally: Tally, clock: Clock) -> bool:
    """Whether dwell, opening and deadlines are over, so that the evidence counts; from then on a hold is a hold."""
    return _time(tally, tally.quiet, clock).word == "promote"


def soaked_out(tally: Tally, waited_s: float, hold_s: float) -> bool:
    """Whether the devices of the last wave have had their chance to fail, so that the rollout can be complete.

    The last wave has no dwell. Who never comes back would keep a rollout open for ever: after `hold_s` it is complete without him.

    Args:
        tally: Of all waves.
        waited_s: Since the last wave was promoted.
        hold_s: Of the policy.
    """
    if tally.asked is None:
        return True
    if not tally.all_asked or tally.quiet.due < DUE_OF_BEGUN * tally.exposed:
        return False
    return tally.exposed >= DUE_OF_BEGUN * tally.opened or waited_s >= hold_s


def _readable(tally: Tally) -> Finding:
    n = len(tally.unreadable)
    if n:
        return Finding(
            "facts", "pause", str(n), "0", n, f"Pause: the facts of {n} devices cannot be read: {', '.join(tally.unreadable[:3])}."
        )
    return Finding("facts", "promote", "0", "0", tally.exposed, f"The facts of all {tally.exposed} devices can be read.")


def _stop(rule: Rule, tally: Tally, quiet: Silence, accepted: Accepted) -> Finding:
    by_stratum = {name: e_value(one.failed, one.exposed, rule.limit) for name, one in tally.strata.items()}
    alone = quiet.evidence(rule.limit)
    strata = sum(by_stratum.values()) / len(by_stratum) if by_stratum else 1.0
    evidence = mean_evidence([(0.5, strata), (0.25, e_value(tally.failed, tally.exposed, rule.limit)), (0.25, alone)])
    seen = f"{tally.failed} of {tally.exposed} devices failed, {quiet.silent} were silent"
    now, limit = f"{evidence:.3g}", f"{rule.abort_at:g}"
    if evidence >= rule.abort_at:
        worst = max(by_stratum, key=lambda name: by_stratum[name], default="")
        one = tally.strata.get(worst)
        where = f" Most in {worst or 'devices without a model'}: {one.failed} of {one.exposed}." if one and len(by_stratum) > 1 else ""
        sentence = f"Abort: {seen}; evidence against {_percent(rule.limit)} is {now}, the limit is {limit}.{where}"
        return Finding("stop", "abort", now, limit, tally.exposed, sentence, 1.0)
    if alone >= rule.abort_at and tally.exposed < _SMALL and quiet.silent > accepted.silent:
        sentence = f"Pause: {quiet.silent} of {tally.exposed} devices went silent, {_percent(quiet.silent_baseline)} of the controls did."
        return Finding("stop", "pause", f"{alone:.3g}", limit, tally.exposed, sentence, 1.0)
    calm = f"{seen}: evidence {now} of {limit} against {_percent(rule.limit)}."
    return Finding("stop", "promote", now, limit, tally.exposed, calm, _level(evidence, rule.abort_at))


def _warning(rule: Rule, tally: Tally, accepted: Accepted) -> Finding:
    if rule.warn_limit is None:
        return Finding("early warning", "promote", "off", "off", tally.exposed, "The policy asks for no early warning.")
    evidence = e_value(max(tally.failed - accepted.failures, 0), tally.exposed, rule.warn_limit)
    known = f" (a person accepted {accepted.failures})" if accepted.failures else ""
    now, limit = f"{evidence:.3g}", f"{rule.warn_at:g}"
    if evidence >= rule.warn_at:
        sentence = f"Pause: {tally.failed} of {tally.exposed} devices failed already{known}; "
        sentence += f"evidence against {_percent(rule.warn_limit)} is {now}."
        return Finding("early warning", "pause", now, limit, tally.exposed, sentence, 1.0)
    calm = f"{tally.failed} of {tally.exposed} failed{known}: nothing unusual."
    return Finding("early warning", "promote", now, limit, tally.exposed, calm, _level(evidence, rule.warn_at))


def _sites(tally: Tally, accepted: Accepted) -> Finding:
    n, out = tally.sites_exposed, max(tally.sites_out - accepted.sites_out, 0)
    if n < OWN_SITES:
        word: Word = "hold" if out else "promote"
        said = "Hold: a site went dark within two hours of its first device; no other site begins until it is back." if out else ""
        return Finding("sites", word, str(out), "0", n, said or f"None of {n} sites went dark.")
    evidence = site_evidence(out, n, tally.sites_out_share)
    now = f"{evidence:.3g}"
    if evidence >= SITES_AT:
        sentence = f"Pause: {out} of {n} sites went dark within two hours of their first device."
        return Finding("sites", "pause", now, f"{SITES_AT:g}", n, sentence, 1.0)
    calm = f"{out} of {n} sites went dark: no more than sites do."
    return Finding("sites", "promote", now, f"{SITES_AT:g}", n, calm, _level(evidence, SITES_AT))


def _compared(tally: Tally, accepted: Accepted) -> Finding:
    found = compare(tally.wealth, tally.exposed)
    now, limit = f"{found.evidence:.3g}", f"{PAUSE_AT:g}"
    # What was accepted once must grow by as much again.
    if found.pauses and found.evidence >= PAUSE_AT * accepted.compared:
        sentence = (
            f"Pause: the release does something else than the one before, most in {found.worst}; evidence {now}, the limit is {limit}."
        )
        return Finding("comparisons", "pause", now, limit, tally.exposed, sentence, 1.0)
    level = _level(found.evidence, PAUSE_AT) if tally.wealth else None
    if found.immature:
        sentence = f"Hold: too few devices have been compared yet for {', '.join(found.immature)}."
        return Finding("comparisons", "hold", now, limit, tally.exposed, sentence, level)
    sentence = f"Evidence {now} of {limit} that devices behave differently." if tally.wealth else "The policy compares nothing."
    if found.nothing:
        sentence = f"{sentence} Nothing to compare for {', '.join(found.nothing)}."
    return Finding("comparisons", "promote", now, limit, tally.exposed, sentence, level)


def _time(tally: Tally, quiet: Silence, clock: Clock) -> Finding:
    now, limit = _hours(clock.open_s), _hours(clock.dwell_s)
    waits = ""
    heard_needed = min(HEARD_SHARE * tally.exposed, HEARD_AFTER_DWELL) if clock.dwell_s > 0 else 0
    if tally.exposed == 0:
        waits = "no device has begun, and nobody is no evidence"
    elif not clock.opened_all:
        waits = f"{tally.exposed} of {tally.opened} devices have begun, more follow in batches"
    elif not tally.all_asked:
        waits = f"{tally.asked} of {tally.opened} devices were given the release"
    elif clock.open_s < clock.dwell_s:
        waits = f"open for {now} of {limit}"
    elif quiet.due < DUE_OF_BEGUN * tally.exposed or quiet.due < DUE_OF_OPENED * tally.opened:
        waits = f"the deadline of {quiet.due} of {tally.exposed} devices is over"
    elif tally.heard_after_dwell < heard_needed:
        waits = f"{tally.heard_after_dwell} devices were heard after the dwell, {heard_needed:.0f} are needed"
    level = min(clock.open_s / clock.dwell_s, 1.0) if clock.dwell_s > 0 else None
    if waits:
        return Finding("time", "hold", now, limit, tally.exposed, f"Hold: {waits}.", level)
    return Finding("time", "promote", now, limit, tally.exposed, f"Open for {now}, {quiet.due} devices have had their time.", level)


def _evidence(rule: Rule, tally: Tally, quiet: Silence, clock: Clock) -> Finding:
    told = _told(tally, quiet, clock.accepted)
    calm = clock.dwell_s <= 0 or told.dwelled_failed <= rule.limit * told.dwelled + (rule.kind == "posterior")
    asked = _bound(rule, told, quiet, clock) if rule.kind == "bound" else _posterior(rule, told, quiet)
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
        return found("pause", f"Pause: no answer for {_hours(judged_s)}. {said}: {now}, the limit is {limit}.{late}")
    dwelled = clock.dwell_s <= 0 or rule.kind == "posterior"
    # What grew last must have had its dwell before the wave grows again.
    dwelled = dwelled or (rule.extend(told.dwelled_failed, told.dwelled, clock.grown) and tally.dwelled > _DWELLED_SHARE * tally.exposed)
    if asked.grows and dwelled and clock.may_grow and clock.grown < rule.extends and judged_s >= clock.patience_s:
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
    """What a rule says to numbers: whether they promote, whether more devices may help, and how it is written."""

    promotes: bool
    grows: bool
    now: str
    limit: str
    level: float


def _bound(rule: Rule, told: _Told, quiet: Silence, clock: Clock) -> _Asked:
    failing = upper_bound(told.failed, told.n, rule.confidence)
    if clock.dwell_s > 0:
        # Young devices would dilute what the old ones show late: devices that had the whole dwell must prove the limit by themselves.
        failing = max(failing, upper_bound(told.dwelled_failed, told.dwelled, rule.confidence))
    missing, allowed = upper_bound(told.missing, told.due, rule.confidence), quiet.limit_now(rule.limit)
    return _Asked(
        promotes=told.n > 0 and failing <= rule.limit and missing <= allowed,
        grows=rule.extend(told.failed, told.n, clock.grown) and told.missing <= rule.leaning(clock.grown) * allowed * told.due,
        now=f"{_percent(failing)} failing, {_percent(missing)} missing",
        limit=f"{_percent(rule.limit)}, {_percent(allowed)}",
        level=min(max(failing / rule.limit, missing / allowed), 1.0),
    )


def _posterior(rule: Rule, told: _Told, quiet: Silence) -> _Asked:
    failing = bad_probability(told.failed, told.n, rule.history.prior())
    worst = max(failing, bad_probability(told.missing, told.due, silence_prior(min(quiet.missing_baseline, 0.98))))
    return _Asked(
        promotes=told.n > 0 and worst <= rule.promote_below,
        grows=worst <= rule.extend_below,
        now=f"{_percent(worst)} likely to be bad",
        limit=_percent(rule.promote_below),
        level=min(worst / rule.promote_below, 1.0),
    )


def _level(evidence: float, limit: float) -> float:
    """Evidence as a share of its limit, on the scale of its logarithm: 1 says nothing, the limit says enough."""
    return min(math.log(max(evidence, 1.0)) / math.log(limit), 1.0)


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds:.0f} s"
