"""What a verdict is, and how a person overrules one."""

from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from edgefleet.errors import ConfigError
from edgefleet.manifest import Override
from trainer.bootstrap import Interval
from trainer.criteria import finite

GateVerdict = Literal["pass", "fail", "inconclusive", "skipped", "overridden"]
KNOWN_GATES: Final = ("G1", "G2", "G3", "G4", "G5", "G6", "G7", "G8", "G9", "G10")


class Gate(msgspec.Struct, frozen=True, kw_only=True):
    """One verdict; `low` and `high` are the one-sided 95 % bounds, None where the value is exact."""

    gate: str
    verdict: GateVerdict
    sentence: str
    value: float | None = None
    limit: float | None = None
    n: int = 0
    low: float | None = None
    high: float | None = None


def exact(breaches: int) -> GateVerdict:
    """Of a count that must be 0."""
    return "fail" if breaches else "pass"


def judged(gate: str, verdict: GateVerdict, interval: Interval, limit: float, sentence: str) -> Gate:
    """A gate of an interval; a bound that cannot be trusted is inconclusive and says why."""
    if interval.reason:
        verdict, sentence = "inconclusive", f"{sentence} Not judged: {interval.reason}."
    return Gate(
        gate=gate,
        verdict=verdict,
        sentence=sentence,
        value=finite(interval.value),
        limit=limit,
        n=interval.n,
        low=finite(interval.lower),
        high=finite(interval.upper),
    )


def check_overrides(overrides: Sequence[Override]) -> None:
    """Raise ConfigError for a gate that does not exist, or an override without a reason."""
    for override in overrides:
        if override.gate not in KNOWN_GATES:
            raise ConfigError(f"gate {override.gate!r} cannot be overridden: the trainer's gates are {', '.join(KNOWN_GATES)}")
        if not override.reason.strip():
            raise ConfigError(f"overriding {override.gate} needs a reason: it travels with the model for ever")


def overrule(
    gates: Sequence[Gate], overrides: Sequence[Override], allow_inconclusive: Sequence[str]
) -> tuple[list[Gate], list[Override], list[Gate]]:
    """Apply people's overrides.

    Returns:
        The gates, the overridden ones with the verdict `overridden` and their own sentence kept; the overrides that were needed; the
        gates that still forbid a package.
    """
    wanted = {override.gate: override for override in overrides}
    outcome: list[Gate] = []
    used: list[Override] = []
    blocking: list[Gate] = []
    for gate in gates:
        blocked = gate.verdict == "fail" or (gate.verdict == "inconclusive" and gate.gate not in allow_inconclusive)
        if blocked and (override := wanted.get(gate.gate)) is not None:
            used.append(override)
            sentence = f"{gate.sentence} Overridden ({gate.verdict}): {override.reason}"
            outcome.append(msgspec.structs.replace(gate, verdict="overridden", sentence=sentence))
            continue
        outcome.append(gate)
        blocking += [gate] if blocked else []
    return outcome, used, blocking
