"""Features of a window: few wide operations, because a runtime pays for each of them."""

from collections.abc import Callable, Sequence

import numpy as np

from edgefleet.steps import Trace
from trainer.cleaning.exact import halving
from trainer.cleaning.plan import Column
from trainer.settings import Window


def window_features(
    trace: Trace, node: int, columns: Sequence[Column], window: Window, inputs: Sequence[str]
) -> tuple[int, tuple[Column, ...]]:
    """All declared features of every column of a cleaned window.

    `difference` is the last value minus the oldest, `range` is max minus min, `variance` divides by the number of rows (in two passes: one
    pass in float32 loses a pressure of 1e5 completely), `missing_count` counts the missing values of the raw input, before fill and impute.

    Args:
        trace: Where to write.
        node: The cleaned window [T, columns].
        columns: Its columns.
        window: Which features.
        inputs: Names of the raw inputs.

    Returns:
        The place of [features], and its columns: feature by feature, then lag by lag.
    """
    made = _Features(trace, node)
    parts: list[int] = []
    named: list[Column] = []
    for feature in window.features:
        if feature == "missing_count":
            sources = list(dict.fromkeys(column.source for column in columns))
            parts.append(made.missing_count(sources))
            named += [Column(f"{inputs[source]}.missing_count", source, "number") for source in sources]
            continue
        parts.append(made.of(feature))
        named += [Column(f"{column.name}.{feature}", column.source, "number") for column in columns]
    for lag in window.lags:
        parts.append(made.row(lag))
        named += [Column(f"{column.name}.lag{lag}", column.source, "number") for column in columns]
    return trace.concat(parts), tuple(named)


class _Features:
    """Writes each feature once; sums share one tree for all columns, and the least value is the largest of the negated ones."""

    def __init__(self, trace: Trace, node: int) -> None:
        self.trace, self.node = trace, node
        self.t, self.width = trace.shape(node)
        self._largest: int | None = None

    def of(self, feature: str) -> int:
        """[columns]."""
        made: dict[str, Callable[[], int]] = {
            "last": lambda: self.row(0),
            "mean": self.mean,
            "variance": self.variance,
            "max": lambda: self.extreme(0),
            "min": lambda: self.trace.mul(self.extreme(1), np.float32(-1)),
            # Max minus min, where the least value comes negated.
            "range": lambda: self.trace.add(self.extreme(0), self.extreme(1)),
            "difference": lambda: self.trace.sub(self.row(0), self.row(self.t - 1)),
        }
        return made[feature]()

    def row(self, back: int) -> int:
        """The values so many rows before the last."""
        return self.flat(self.trace.rows(self.node, self.t - 1 - back, self.t - back))

    def flat(self, one_row: int) -> int:
        """[1, columns] as [columns]."""
        return self.trace.reshape(one_row, (self.trace.shape(one_row)[-1],))

    def mean_rows(self, x: int) -> int:
        """[1, columns] mean over the rows."""
        return self.trace.mul(halving(self.trace, x, self.trace.add), np.float32(1) / np.float32(self.t))

    def mean(self) -> int:
        """Mean over the rows."""
        return self.flat(self.mean_rows(self.node))

    def variance(self) -> int:
        """Mean of the squared distances from the mean."""
        distance = self.trace.sub(self.node, self.mean_rows(self.node))
        return self.flat(self.mean_rows(self.trace.mul(distance, distance)))

    def extreme(self, which: int) -> int:
        """0: largest value; 1: largest negated value. One tree over both."""
        if self._largest is None:
            both = self.trace.concat([self.node, self.trace.mul(self.node, np.float32(-1))])
            self._largest = self.flat(halving(self.trace, both, lambda a, b: self.trace.where(self.trace.lt(a, b), b, a)))
        return self.trace.take(self._largest, range(which * self.width, (which + 1) * self.width))

    def missing_count(self, sources: Sequence[int]) -> int:
        """Missing values of raw inputs; counts are exact in float32."""
        raw = self.trace.take(0, list(sources))
        return self.flat(halving(self.trace, self.trace.f32(self.trace.isnan(raw)), self.trace.add))
