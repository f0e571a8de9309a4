"""The trainer's gates: G1 schema, G2 quality, G3 leakage, G4 minimum, G5 slices, G7 champion.

Each returns pass | fail | inconclusive | skipped with the value, the limit, n, the interval and one sentence. "At least" passes when the
one-sided 95 % lower bound reaches the limit, fails when the upper bound does not, and is inconclusive between: too few rows never pass.
"""

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgefleet.digests import sha256_hex
from edgefleet.errors import ConfigError
from edgefleet.intervals import Z_ONE_SIDED, wilson
from edgefleet.manifest import Input, Override
from trainer.dataset import DataSet
from trainer.intervals import (
    below_floor_p,
    design_effect,
    exact_bounds,
    holm,
    paired_difference,
    proportion,
    rows_for_noninferiority,
)

GateVerdict = Literal["pass", "fail", "inconclusive", "skipped", "overridden"]
MIN_ROWS = 30
KNOWN_GATES = ("G1", "G2", "G3", "G4", "G5", "G7")


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


def judge_schema(rows: int, breaches: int, named: list[str]) -> Gate:
    """G1: every row obeys the schema. Exact."""
    sentence = f"All {rows} rows obey the schema."
    if breaches:
        sentence = f"{breaches} of {rows + breaches} rows break the schema: {'; '.join(named)}."
    return Gate(gate="G1", verdict=_exact(breaches), value=breaches, limit=0, n=rows + breaches, sentence=sentence)


def judge_quality(x: NDArray[np.float32], inputs: Sequence[Input], max_missing_fraction: float) -> Gate:
    """G2: the share of missing values of the worst column is within its limit (Wilson bounds); constant columns make it inconclusive."""
    n = len(x)
    if n < MIN_ROWS:
        return Gate(gate="G2", verdict="skipped", n=n, sentence=f"{n} training rows are fewer than {MIN_ROWS}.")
    missing = np.isnan(x).sum(axis=0)
    worst = int(missing.argmax())
    low, high = wilson(float(missing[worst]), n, Z_ONE_SIDED)
    value, limit = missing[worst] / n, max_missing_fraction
    verdict: GateVerdict = "pass" if missing[worst] == 0 or high <= limit else "fail" if low > limit else "inconclusive"
    sentence = f"At most {value:.1%} of a column is missing ({inputs[worst].name}), limit {limit:.1%}."
    with np.errstate(invalid="ignore"):
        varies = np.fmax.reduce(x, axis=0) > np.fmin.reduce(x, axis=0)
    if constant := [column.name for column, moves in zip(inputs, varies, strict=True) if not moves]:
        verdict = "inconclusive" if verdict == "pass" else verdict
        sentence += f" {len(constant)} columns never change: {', '.join(constant[:5])}; remove them or say why they stay."
    return Gate(gate="G2", verdict=verdict, value=float(value), limit=limit, n=n, low=low, high=high, sentence=sentence)


def judge_leakage(rows: DataSet) -> Gate:
    """G3: no row id, no group and no equal row of values stands in two splits. Exact."""
    found = {"row ids": _in_two_splits(rows.row_id, rows.split)}
    if rows.group is not None:
        found["groups"] = _in_two_splits(rows.group, rows.split)
    contents = np.array([sha256_hex(row.tobytes()) for row in rows.x])
    found["equal rows"] = _in_two_splits(contents, rows.split)
    repeated = len(rows.row_id) - len(np.unique(rows.row_id))
    count = sum(found.values()) + repeated
    n = len(rows.row_id)
    sentence = f"No {', '.join(found)} in two splits, and no row id twice, among {n} rows."
    if count:
        shares = [f"{number} {what} stand in two splits" for what, number in found.items() if number]
        shares += [f"{repeated} row ids are repeated"] if repeated else []
        sentence = f"{' and '.join(shares)}: validation would praise what was learnt by heart."
    return Gate(gate="G3", verdict=_exact(count), value=count, limit=0, n=n, sentence=sentence)


def judge_minimum(right: NDArray[np.bool_], groups: NDArray[Any] | None, minimum: float) -> Gate:
    """G4: accuracy is at least the goal's minimum, by Wilson's one-sided 95 % bounds."""
    share = proportion(right, groups)
    verdict = _at_least(share.lower, share.upper, minimum)
    words = {
        "pass": "reaches",
        "fail": "is below",
        "inconclusive": "may or may not reach",
    }[verdict]
    sentence = (
        f"Accuracy {share.value:.3f} [{share.lower:.3f}, {share.upper:.3f}] on {share.n} rows"
        f"{_worth(share.n, share.effective_n)} {words} the minimum {minimum:.3f}."
    )
    return Gate(
        gate="G4", verdict=verdict, value=share.value, limit=minimum, n=share.n, low=share.lower, high=share.upper, sentence=sentence
    )


def judge_slices(right: NDArray[np.bool_], slices: NDArray[np.str_], groups: NDArray[Any] | None, floor: float | None) -> Gate:
    """G5: every slice reaches the floor.

    Fails when the exact binomial test rejects a slice after Holm's correction. Passes when each slice's own exact lower bound reaches the
    floor: all must hold, so no correction is due. Slices under 30 rows are inconclusive, never pass.
    """
    if floor is None:
        return Gate(gate="G5", verdict="skipped", n=len(right), sentence="gates.slice_minimum is not set.")
    names = np.unique(slices).tolist()
    if len(names) < 2:
        return Gate(gate="G5", verdict="skipped", n=len(right), limit=floor, sentence="There is one slice only, and G4 judges it.")
    counts = []
    for name in names:
        here = slices == name
        effective = here.sum() / design_effect(right[here].astype(np.float64), None if groups is None else groups[here])
        counts.append((float(right[here].mean()), int(here.sum()), float(effective)))
    p_values = holm([below_floor_p(value * effective, effective, floor) for value, _, effective in counts])
    bounds = [exact_bounds(value * effective, effective) for value, _, effective in counts]
    enough = [n >= MIN_ROWS for _, n, _ in counts]
    worst = min(range(len(names)), key=lambda i: (bounds[i][0], counts[i][0]))
    verdict: GateVerdict = "inconclusive"
    if any(p < 0.05 and some for p, some in zip(p_values, enough, strict=True)):
        verdict = "fail"
        worst = min((i for i in range(len(names)) if enough[i]), key=lambda i: p_values[i])
    elif all(some and low >= floor for (low, _), some in zip(bounds, enough, strict=True)):
        verdict = "pass"
    value, n, _ = counts[worst]
    low, high = bounds[worst]
    few = [name for name, some in zip(names, enough, strict=True) if not some]
    sentence = (
        f"Worst of {len(names)} slices is {names[worst]!r}: accuracy {value:.3f} [{low:.3f}, {high:.3f}] on {n} rows, floor {floor:.3f}."
    )
    sentence += f" Under {MIN_ROWS} rows: {', '.join(few[:5])}." if few else ""
    return Gate(gate="G5", verdict=verdict, value=value, limit=floor, n=n, low=low, high=high, sentence=sentence)


def judge_champion(right: NDArray[np.bool_], champion_right: NDArray[np.bool_] | None, groups: NDArray[Any] | None, margin: float) -> Gate:
    """G7: not worse than the champion by the margin or more, on the same rows (non-inferiority, paired)."""
    if champion_right is None:
        return Gate(gate="G7", verdict="skipped", n=len(right), sentence="First: there is no champion to compare with.")
    delta = paired_difference(right, champion_right, groups)
    verdict: GateVerdict = "pass" if delta.lower > -margin else "fail" if delta.upper < -margin else "inconclusive"
    sentence = (
        f"Accuracy differs from the champion's by {delta.value:+.3f} [{delta.lower:+.3f}, {delta.upper:+.3f}] on the same {delta.n} rows"
    )
    sentence += f", margin {margin:.3f}."
    if verdict == "inconclusive":
        needed = rows_for_noninferiority(delta.discordant_fraction, margin, delta.design_effect)
        sentence += f" Needs about {needed} rows, had {delta.n}."
    return Gate(
        gate="G7", verdict=verdict, value=delta.value, limit=-margin, n=delta.n, low=delta.lower, high=delta.upper, sentence=sentence
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


def _exact(breaches: int) -> GateVerdict:
    return "fail" if breaches else "pass"


def _at_least(lower: float, upper: float, limit: float) -> GateVerdict:
    return "pass" if lower >= limit else "fail" if upper < limit else "inconclusive"


def _worth(n: int, effective_n: float) -> str:
    return f" (worth {effective_n:.0f} independent ones)" if effective_n < 0.95 * n else ""


def _in_two_splits(names: NDArray[np.str_], split: NDArray[np.str_]) -> int:
    """How many names occur in more than one split."""
    _, index = np.unique(names, return_inverse=True)
    pairs = np.unique(np.stack([index, np.unique(split, return_inverse=True)[1]]), axis=1)
    return int((np.bincount(pairs[0]) > 1).sum())
