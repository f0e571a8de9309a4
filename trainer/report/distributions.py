"""Histograms of inputs by split, on bins that all splits share."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgefleet.manifest import Input
from edgefleet.report.bars import categories, histogram, sparkline
from edgefleet.report.markup import Html
from edgefleet.report.numbers import number
from trainer.dataset import SPLITS

BINS = 24
MOST_CATEGORIES = 10


@dataclass(frozen=True)
class Distribution:
    """One input's shares by bin and split.

    Attributes:
        input: The input.
        names: Categories, or empty for numbers.
        edges: Bin edges; places 0, 1, 2, .. for categories.
        series: (split, shares of that split's values).
        outside: Share of values beyond the outermost edges, which are the .1 % and 99.9 % quantiles where tails are long.
    """

    input: Input
    names: list[str]
    edges: list[float]
    series: list[tuple[str, list[float]]]
    outside: float = 0.0

    def chart(self) -> Html:
        """As a chart with axes."""
        if self.names:
            return categories(self.input.name, self.names, self.series, width=360)
        unit = f"{self.input.name}, {self.input.unit}" if self.input.unit else self.input.name
        cut = f"; {self.outside:.2%} outside" if self.outside else ""
        return histogram(self.input.name, self.edges, self.series, unit + cut, width=360, height=190)

    def small(self) -> Html:
        """As a cell of a table."""
        return sparkline(self.edges, self.series, f"{self.input.name} from {number(self.edges[0])} to {number(self.edges[-1])}")


def distribution(declared: Input, values: NDArray[np.float32], split: NDArray[np.str_]) -> Distribution:
    """Shares of one input's values by split.

    Args:
        declared: The input.
        values: [n].
        split: [n] text.
    """
    return _of_categories(declared, values, split) if declared.kind == "category" else _of_numbers(declared, values, split)


def _of_numbers(declared: Input, values: NDArray[np.float32], split: NDArray[np.str_]) -> Distribution:
    there = np.isfinite(values)
    known = values[there].astype(np.float64)
    if len(known) == 0:
        return Distribution(declared, [], [0.0, 1.0], [(name, [0.0]) for name in SPLITS if (split == name).any()])
    edges = _edges(known)
    series = []
    for name in SPLITS:
        part = known[split[there] == name]
        if len(part):
            series.append((name, [float(share) for share in np.histogram(part, edges)[0] / len(part)]))
    outside = float(((known < edges[0]) | (known > edges[-1])).mean())
    return Distribution(declared, [], [float(edge) for edge in edges], series, outside)


def _edges(known: NDArray[np.float64]) -> NDArray[np.float64]:
    low, high = float(known.min()), float(known.max())
    inner_low, inner_high = (float(q) for q in np.quantile(known, [0.001, 0.999]))
    # One wild value would squeeze all others into one bin.
    if high - low > 3 * (inner_high - inner_low) > 0:
        low, high = inner_low, inner_high
    if high <= low:
        return np.array([low - 0.5, low + 0.5])
    whole = np.unique(known[:5000])
    if len(whole) <= BINS and np.all(whole == np.round(whole)) and high - low <= BINS:
        return np.arange(np.floor(low) - 0.5, np.ceil(high) + 1.0)
    return np.linspace(low, high, BINS + 1)


def _of_categories(declared: Input, values: NDArray[np.float32], split: NDArray[np.str_]) -> Distribution:
    index = np.where(np.isnan(values), -2, values).astype(np.int64)
    total = np.bincount(index + 2, minlength=len(declared.categories) + 2)
    order = [int(i) for i in np.argsort(-total, kind="stable") if total[i]]
    shown, rest = order[:MOST_CATEGORIES], order[MOST_CATEGORIES:]
    names = [{0: "(missing)", 1: "(unseen)"}.get(i, declared.categories[i - 2] if i >= 2 else "") for i in shown]
    names += [f"{len(rest)} others"] if rest else []
    series = []
    for name in SPLITS:
        part = index[split == name] + 2
        if len(part):
            counts = np.bincount(part, minlength=len(total)) / len(part)
            series.append((name, [float(counts[i]) for i in shown] + ([float(counts[rest].sum())] if rest else [])))
    return Distribution(declared, names, [float(i) for i in range(len(names) + 1)], series)
