"""Which rows the ranges of integer activations come from: chosen, not taken, and the choice is told.

A range that is too small clips what a device meets; so rows that hold an input's least or largest value come first, and the rest is spread
over classes and slices as they are in the package.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgefleet.errors import VerdictError
from edgefleet.package import ModelPackage, Rows

MIN_ROWS: Final = 16
# Extremes alone would draw a picture of outliers: they get at most this share of the rows.
_EXTREME_SHARE: Final = 0.5
_QUARTERS: Final = (0.25, 0.5, 0.75)
_MAX_STRATA_TOLD: Final = 64


@dataclass(frozen=True)
class Calibration:
    """Rows that were chosen.

    Attributes:
        x: [n, ...] raw float32 rows in the package's order.
        facts: How they were chosen: `rows`, `available`, `unusable` (missing values or infinities behind the cleaning steps), `extremes`
            (rows taken because they hold the least or largest value of an input), `inputs_covered` (inputs whose both extremes are
            among the rows), `constant_inputs`, and `strata` (rows by class and slice).
    """

    x: NDArray[np.float32]
    facts: dict[str, Any]


def choose(package: ModelPackage, limit: int = 0) -> Calibration:
    """Choose from the package's calibration rows.

    Args:
        package: The package.
        limit: Most rows to choose; 0 takes all.

    Raises:
        VerdictError: Fewer than `MIN_ROWS` rows are usable or asked for, or all of them are the same.
    """
    if 0 < limit < MIN_ROWS:
        raise VerdictError(f"{limit} calibration rows are too few, at least {MIN_ROWS} are needed; raise --calibration-rows")
    rows = package.rows("calibration")
    usable = _usable(package, rows.x)
    if len(usable) < MIN_ROWS:
        lost = len(rows.x) - len(usable)
        more = f" ({lost} more have missing or infinite values behind the cleaning steps)" if lost else ""
        raise VerdictError(f"{len(usable)} calibration rows are too few, at least {MIN_ROWS} are needed{more}; train with more rows")
    x = rows.x[usable]
    flat = _spans(x)
    if np.array_equal(flat[0], flat[1], equal_nan=True):
        raise VerdictError(f"all {len(x)} calibration rows are the same, they show no ranges; train with rows that differ")
    strata = _strata(package, rows, usable)
    extremes = _extremes(x)
    if not limit or limit >= len(x):
        chosen = np.arange(len(x))
    else:
        first = _covering(extremes, int(limit * _EXTREME_SHARE))
        chosen = np.sort(np.concatenate([first, _spread(strata, first, limit - len(first))]))
    return Calibration(x[chosen], _facts(rows, strata, extremes, chosen))


def _usable(package: ModelPackage, x: NDArray[np.float32]) -> NDArray[np.int64]:
    """Places of rows that are finite behind the steps."""
    if len(x) == 0:
        return np.empty(0, np.int64)
    cleaned = package.steps().run(x)
    return np.flatnonzero(np.isfinite(cleaned.reshape(len(x), -1)).all(axis=1))


def _spans(x: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(least, largest) value of each input, over time too; NaN where it is always missing."""
    columns = x.reshape(-1, x.shape[-1])
    missing = np.isnan(columns)
    empty = missing.all(axis=0)
    low = np.where(missing, np.float32(np.inf), columns).min(axis=0)
    high = np.where(missing, np.float32(-np.inf), columns).max(axis=0)
    return np.where(empty, np.float32(np.nan), low), np.where(empty, np.float32(np.nan), high)


def _extremes(x: NDArray[np.float32]) -> NDArray[np.int64]:
    """[inputs, 2] place of the first row with each input's least and largest value; -1 for inputs that never change."""
    low, high = _spans(x)
    found = np.full((x.shape[-1], 2), -1, np.int64)
    for column in range(x.shape[-1]):
        values = x[..., column].reshape(len(x), -1)
        if low[column] < high[column]:
            found[column] = [int(np.argmax((values == bound[column]).any(axis=1))) for bound in (low, high)]
    return found


def _covering(extremes: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """At most `most` rows, those with the most extremes first."""
    rows, counts = np.unique(extremes[extremes >= 0], return_counts=True)
    return rows[np.lexsort((rows, -counts))][:most]


def _strata(package: ModelPackage, rows: Rows, usable: NDArray[np.int64]) -> list[str]:
    """Name of each usable row's stratum: its class, or the quarter that its target is in, and its slice."""
    label, index = rows.label[usable], package.index
    if index.task == "classification":
        kinds = [index.classes[int(value)] if 0 <= int(value) < len(index.classes) else "unknown" for value in label]
    elif index.task == "regression":
        values = label.astype(np.float64)
        kinds = [f"quarter {1 + int(q)}" for q in np.searchsorted(np.quantile(values, _QUARTERS), values, side="left")]
    else:
        kinds = ["rows"] * len(usable)
    return [f"{kind}, {part}" if part else kind for kind, part in zip(kinds, rows.slice[usable].tolist(), strict=True)]


def _spread(strata: list[str], taken: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """`count` further rows: strata as frequent as they are, each at least once while there is room, evenly spaced inside."""
    free = np.setdiff1d(np.arange(len(strata)), taken)
    members: dict[str, list[int]] = {}
    for place in free.tolist():
        members.setdefault(strata[place], []).append(place)
    # The place of a member among its stratum as a fraction: sorting all by it takes from each stratum in proportion.
    order = sorted((i / len(own), name) for name, own in members.items() for i in range(len(own)))
    shares = Counter(name for _, name in order[:count])
    chosen = [own[(2 * i + 1) * len(own) // (2 * shares[name])] for name, own in members.items() for i in range(shares[name])]
    return np.array(chosen, np.int64)


def _facts(rows: Rows, strata: list[str], extremes: NDArray[np.int64], chosen: NDArray[np.int64]) -> dict[str, Any]:
    names, counts = np.unique([strata[place] for place in chosen], return_counts=True)
    told = dict(zip(names.tolist()[:_MAX_STRATA_TOLD], counts.tolist(), strict=False))
    varying = extremes[extremes[:, 0] >= 0]
    return {
        "rows": len(chosen),
        "available": len(rows.x),
        "unusable": len(rows.x) - len(strata),
        "extremes": int(np.isin(chosen, varying).sum()),
        "inputs_covered": int(np.isin(varying, chosen).all(axis=1).sum()),
        "constant_inputs": len(extremes) - len(varying),
        "strata": told,
    }
