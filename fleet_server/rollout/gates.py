"""The gates of the open wave: explicit failures (R1), silence (R2), dwell, and unanimous evidence.

All waves that are open count, not only the last one: a failure in wave 1 that comes late stops wave 3.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from fleet_server.read_models import Progress, Verdict
from fleet_server.rollout.policy import Policy

# From the one that decides to the one that gives way.
SEVERITY: Final[tuple[Verdict, ...]] = ("abort", "pause", "hold", "promote")
REMOVED: Final = "removed"  # name of the gate
_NAMED: Final = 3


@dataclass(frozen=True)
class GateResult:
    """One gate now: verdict, what it saw, its limit, its n, one sentence."""

    name: str
    verdict: Verdict
    now: str
    limit: str
    n: int
    sentence: str


@dataclass(frozen=True)
class Exposure:
    """What the gates look at.

    Attributes:
        wave: Number of the last open wave, from 1.
        members: Device id -> (progress, sentence) of all open waves.
        added: Devices that the last open wave added.
        opened_at: When the last open wave was opened.
        dwell_s: Least seconds it stays open.
        accepted: Devices whose explicit failure, or removal, a person has accepted by resuming.
        removed: Devices that were taken out of the fleet.
    """

    wave: int
    members: Mapping[str, tuple[Progress, str]]
    added: tuple[str, ...]
    opened_at: datetime
    dwell_s: float
    accepted: frozenset[str]
    removed: frozenset[str] = frozenset()

    def of(self, *words: Progress) -> tuple[str, ...]:
        """Ids of the members with one of these words, sorted."""
        return tuple(sorted(device_id for device_id, (word, _) in self.members.items() if word in words))


def evaluate(exposure: Exposure, policy: Policy, now: datetime) -> tuple[GateResult, ...]:
    """All gates of the open wave."""
    return (_explicit(exposure, policy), *_removed(exposure), _silence(exposure, policy), _dwell(exposure, now), _unanimous(exposure))


def combine(results: Iterable[GateResult]) -> GateResult:
    """The gate that decides: the gravest verdict, the first of equals.

    Raises:
        ValueError: No gate, or a verdict that no gate may give; a decision without gates must not promote.
    """
    return min(results, key=lambda result: SEVERITY.index(result.verdict))


def true_rate_limit(n: int) -> float:
    """Upper 90 % bound of the failure rate after n devices without a failure: the p that solves (1 - p)^n = 0.1.

    Reference: Clopper and Pearson (1934), one-sided, k = 0.

    >>> round(true_rate_limit(5), 3)
    0.369
    """
    return 1.0 if n <= 0 else 1.0 - 0.1 ** (1.0 / n)


def _explicit(exposure: Exposure, policy: Policy) -> GateResult:
    failed = exposure.of("failed")
    begun = len(exposure.members) - len(exposure.of("not-begun"))
    limit = policy.max_explicit_failures_before_abort
    pending = tuple(device_id for device_id in failed if device_id not in exposure.accepted)
    why = "; ".join(f"{device_id}: {exposure.members[device_id][1]}" for device_id in failed[:_NAMED])
    seen = f"{len(failed)} of {begun} devices failed"
    if len(failed) > limit:
        verdict: Verdict = "abort"
        sentence = f"Abort: {seen}, {limit} {'is' if limit == 1 else 'are'} allowed. {why}."
    elif pending:
        verdict, sentence = "pause", f"Pause: {seen}. {why}."
    elif failed:
        verdict, sentence = "promote", f"{seen}; a person accepted {'it' if len(failed) == 1 else 'them'} and went on. {why}."
    else:
        # Only proven devices speak for the release; pending ones have not failed yet, which is another thing.
        proven = len(exposure.of("ok"))
        verdict, sentence = "promote", f"0 of {proven} failed: the true rate may still be {_percent(true_rate_limit(proven))}."
        if proven == 0:
            sentence = "No device has failed, and none has proved itself: nothing is known."
    return GateResult("explicit failures", verdict, str(len(failed)), f"pause at 1, abort above {limit}", begun, sentence)


def _removed(exposure: Exposure) -> tuple[GateResult, ...]:
    """A gate only where a device of an open wave was taken out: it proves nothing, and to go on without it is a person's decision."""
    n = len(exposure.removed)
    unseen = tuple(sorted(exposure.removed - exposure.accepted - set(exposure.of("failed"))))
    if unseen:
        were = "device was" if len(unseen) == 1 else "devices were"
        sentence = f"Pause: {len(unseen)} {were} removed from the fleet: {', '.join(unseen[:_NAMED])}. A person goes on without, or aborts."
        return (GateResult(REMOVED, "pause", str(len(unseen)), "0", len(exposure.members), sentence),)
    return (GateResult(REMOVED, "promote", "0", "0", n, f"{n} removed, and a person goes on without."),) if n else ()


def _silence(exposure: Exposure, policy: Policy) -> GateResult:
    silent = exposure.of("silent")
    begun = len(exposure.members) - len(exposure.of("not-begun"))
    limit = f"0 without a sign of life for {policy.deadline_s:g} s"
    if silent:
        sentence = f"Hold: {len(silent)} of {begun} devices {_are(len(silent))} silent: {_named(silent, exposure)}."
        return GateResult("silence", "hold", str(len(silent)), limit, begun, sentence)
    return GateResult("silence", "promote", "0", limit, begun, f"0 of {begun} devices are silent.")


def _dwell(exposure: Exposure, now: datetime) -> GateResult:
    open_s = (now - exposure.opened_at).total_seconds()
    n = len(exposure.added)
    if now < exposure.opened_at + timedelta(seconds=exposure.dwell_s):
        sentence = f"Hold: wave {exposure.wave} has been open for {open_s:.0f} s of {exposure.dwell_s:g} s."
        return GateResult("dwell", "hold", f"{open_s:.0f} s", f"{exposure.dwell_s:g} s", n, sentence)
    return GateResult("dwell", "promote", f"{open_s:.0f} s", f"{exposure.dwell_s:g} s", n, f"Wave {exposure.wave} was open long enough.")


def _unanimous(exposure: Exposure) -> GateResult:
    # An accepted device is out of the evidence for good: if it could come back as "ok" or "pending", a later failure of it might turn a
    # hold into a promotion.
    counted = tuple(device_id for device_id in exposure.members if device_id not in exposure.accepted)
    ok = tuple(device_id for device_id in exposure.of("ok") if device_id in counted)
    waiting = tuple(sorted(device_id for device_id in counted if device_id not in ok))
    n, limit, now = len(counted), "all", f"{len(ok)} of {len(counted)}"
    if waiting:
        sentence = f"Hold: wave {exposure.wave} waits for {len(waiting)} of {n} devices: {_named(waiting, exposure)}."
        return GateResult("evidence", "hold", now, limit, n, sentence)
    if not any(device_id in ok for device_id in exposure.added):
        sentence = f"Hold: wave {exposure.wave} has no device that is ok, and nobody is no evidence."
        return GateResult("evidence", "hold", now, limit, n, sentence)
    without = len(exposure.members) - n
    but = f", without {without} accepted as failed" if without else ""
    bound = f"The true failure rate may still be {_percent(true_rate_limit(n))}." if not without else "That proves nothing about rates."
    sentence = f"Promote: {len(ok)} of {n} devices of wave {exposure.wave} and before are ok{but}. {bound}"
    return GateResult("evidence", "promote", now, limit, n, sentence)


def _named(devices: tuple[str, ...], exposure: Exposure) -> str:
    more = f" and {len(devices) - _NAMED} more" if len(devices) > _NAMED else ""
    return ", ".join(f"{device_id} ({exposure.members[device_id][1]})" for device_id in devices[:_NAMED]) + more


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %" if fraction < 0.095 else f"{100 * fraction:.0f} %"
