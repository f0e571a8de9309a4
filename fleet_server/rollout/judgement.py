"""The verdict about the open wave by evidence: abort, pause, promote, extend or hold, each gate with its numbers and one sentence.

Explicit failures and silence are streams of their own and never added. ABORT counts every device that began, pending ones as successes, by
evidence that may be looked at any time; PROMOTE counts devices whose time is over. Comparisons of what the model does may pause only.
"""

from typing import Final

from fleet_server.rollout.comparisons import PAUSE_AT, compare
from fleet_server.rollout.confirming import confirmation_gate
from fleet_server.rollout.eprocess import e_value, mean_evidence
from fleet_server.rollout.findings import NOBODY, SEVERITY, Accepted, Clock, Finding, Word, hours, level_of, percent
from fleet_server.rollout.promotion import evidence_gate
from fleet_server.rollout.rules import Rule
from fleet_server.rollout.silence import Silence, site_evidence
from fleet_server.rollout.tally import Tally

__all__ = ["SEVERITY", "Accepted", "Clock", "Finding", "Word", "decisive", "judge", "judgeable", "seen", "soaked_out"]

DUE_OF_BEGUN: Final = 0.78
DUE_OF_OPENED: Final = 0.5
HEARD_AFTER_DWELL: Final = 45
HEARD_SHARE: Final = 0.6
SITES_AT: Final = 20.0  # evidence
_SMALL: Final = 200  # devices: below, silence alone pauses before it can abort
OWN_SITES: Final = 5  # fewer: no statistics about sites, the first that goes dark stops the opening elsewhere


def judge(rule: Rule, tally: Tally, clock: Clock) -> tuple[Finding, ...]:
    """All gates; the gravest word decides (`decisive`).

    Raises:
        ConfigError: Numbers that contradict each other; whoever cannot decide must pause.
    """
    found = (
        _readable(tally),
        _stop(rule, tally, tally.quiet, clock.accepted),
        _warning(rule, tally, clock.accepted),
        _sites(tally, clock.accepted),
        _compared(tally, clock.accepted),
        _time(tally, tally.quiet, clock),
        evidence_gate(rule, tally, tally.quiet, clock),
    )
    if clock.asks == NOBODY:
        return found
    # Last but one: of gates that all promote, the evidence is the one that says why.
    return (*found[:-1], confirmation_gate(tally, clock.asks, clock, found), found[-1])


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
        sentence = f"Abort: {seen}; evidence against {percent(rule.limit)} is {now}, the limit is {limit}.{where}"
        return Finding("stop", "abort", now, limit, tally.exposed, sentence, 1.0)
    if alone >= rule.abort_at and tally.exposed < _SMALL and quiet.silent > accepted.silent:
        sentence = f"Pause: {quiet.silent} of {tally.exposed} devices went silent, {percent(quiet.silent_baseline)} of the controls did."
        return Finding("stop", "pause", f"{alone:.3g}", limit, tally.exposed, sentence, 1.0)
    calm = f"{seen}: evidence {now} of {limit} against {percent(rule.limit)}."
    return Finding("stop", "promote", now, limit, tally.exposed, calm, level_of(evidence, rule.abort_at))


def _warning(rule: Rule, tally: Tally, accepted: Accepted) -> Finding:
    if rule.warn_limit is None:
        return Finding("early warning", "promote", "off", "off", tally.exposed, "The policy asks for no early warning.")
    evidence = e_value(max(tally.failed - accepted.failures, 0), tally.exposed, rule.warn_limit)
    known = f" (a person accepted {accepted.failures})" if accepted.failures else ""
    now, limit = f"{evidence:.3g}", f"{rule.warn_at:g}"
    if evidence >= rule.warn_at:
        sentence = f"Pause: {tally.failed} of {tally.exposed} devices failed already{known}; "
        sentence += f"evidence against {percent(rule.warn_limit)} is {now}."
        return Finding("early warning", "pause", now, limit, tally.exposed, sentence, 1.0)
    calm = f"{tally.failed} of {tally.exposed} failed{known}: nothing unusual."
    return Finding("early warning", "promote", now, limit, tally.exposed, calm, level_of(evidence, rule.warn_at))


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
    return Finding("sites", "promote", now, f"{SITES_AT:g}", n, calm, level_of(evidence, SITES_AT))


def _compared(tally: Tally, accepted: Accepted) -> Finding:
    found = compare(tally.wealth, tally.exposed)
    now, limit = f"{found.evidence:.3g}", f"{PAUSE_AT:g}"
    # What was accepted once must grow by as much again.
    if found.pauses and found.evidence >= PAUSE_AT * accepted.compared:
        sentence = (
            f"Pause: the release does something else than the one before, most in {found.worst}; evidence {now}, the limit is {limit}."
        )
        return Finding("comparisons", "pause", now, limit, tally.exposed, sentence, 1.0)
    level = level_of(found.evidence, PAUSE_AT) if tally.wealth else None
    if found.immature:
        sentence = f"Hold: too few devices have been compared yet for {', '.join(found.immature)}."
        return Finding("comparisons", "hold", now, limit, tally.exposed, sentence, level)
    sentence = f"Evidence {now} of {limit} that devices behave differently." if tally.wealth else "The policy compares nothing."
    if found.nothing:
        sentence = f"{sentence} Nothing to compare for {', '.join(found.nothing)}."
    return Finding("comparisons", "promote", now, limit, tally.exposed, sentence, level)


def _time(tally: Tally, quiet: Silence, clock: Clock) -> Finding:
    now, limit = hours(clock.open_s), hours(clock.dwell_s)
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
