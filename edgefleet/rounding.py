"""How an integer variant rounds values on its way: the converter reads it from the graph, the device's explanation repeats it."""

from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from edgefleet.errors import ArtifactError

RoundingKind = Literal["none", "fixed", "span"]
_SPAN_STEPS: Final = 255
_LEAST_SPAN: Final = _SPAN_STEPS * np.finfo(np.float32).tiny


@dataclass(frozen=True)
class Rounding:
    """One way to round.

    Attributes:
        kind: `none`; `fixed`: to steps that calibration rows decided, cut at both ends; `span`: to 255 steps over each row's own span,
            which holds 0.
        step: Of `fixed`, in units of the value.
        low: Its smallest value.
        high: Its largest.
        by_rate: Whether the runtime multiplies with the inverse of a step (LiteRT) or divides by the step (ONNX Runtime): near ties the
            last bit decides.
    """

    kind: RoundingKind
    step: float = 0.0
    low: float = 0.0
    high: float = 0.0
    by_rate: bool = False

    @classmethod
    def fixed(cls, step: float, zero: int, least: int, largest: int, *, by_rate: bool = False) -> "Rounding":
        """Steps of integers from `least` to `largest`; the value is step x (integer - zero)."""
        return cls("fixed", step, step * (least - zero), step * (largest - zero), by_rate)

    @classmethod
    def of(cls, kind: str, grid: NDArray[Any]) -> "Rounding":
        """From what `kind` and `grid` were written to a file.

        Raises:
            ArtifactError: An unknown kind, or a grid that is none.
        """
        known = next((one for one in get_args(RoundingKind) if one == kind), None)
        fits = grid.shape == (4,) and grid.dtype.kind == "f" and bool(np.isfinite(grid).all())
        if known is None or not fits or (known == "fixed" and not (grid[0] > 0 and grid[1] < grid[2])):
            raise ArtifactError(f"explainer: its rounding {kind[:20]!r} {grid.ravel()[:4].tolist()} is unknown or no grid; convert again")
        return cls(known, float(grid[0]), float(grid[1]), float(grid[2]), bool(grid[3]))

    def grid(self) -> NDArray[np.float64]:
        """[4] step, low, high, and 1 for `by_rate`."""
        return np.array([self.step, self.low, self.high, float(self.by_rate)])

    def run(self, values: NDArray[np.float32]) -> NDArray[np.float64]:
        """Rounded values [..., C], each row by itself; counted in float32 as the runtimes do, so that near ties fall as theirs.

        >>> Rounding("fixed", 0.5, -1.0, 1.0).run(np.array([0.3, 0.7, 9.0], np.float32)).tolist()
        [0.5, 0.5, 1.0]
        >>> Rounding("span").run(np.array([[255.0, 0.4], [510.0, 3.4]], np.float32)).tolist()
        [[255.0, 0.0], [510.0, 4.0]]
        """
        if self.kind == "none":
            return values.astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):  # of values near the ends of float32 the runtimes make what they make
            return self._run(values)

    def _run(self, values: NDArray[np.float32]) -> NDArray[np.float64]:
        if self.kind == "fixed":
            steps = np.rint(self._steps(values, np.float32(self.step), np.float32(1 / np.float32(self.step))))
            found: NDArray[np.float64] = np.clip(steps.astype(np.float64) * self.step, self.low, self.high)
            return found
        low = np.minimum(values.min(axis=-1, keepdims=True), np.float32(0))
        high = np.maximum(values.max(axis=-1, keepdims=True), np.float32(0))
        # Below it a step has no inverse in float32, and all values are 0.
        span = np.where(high - low >= _LEAST_SPAN, high - low, np.float32(_SPAN_STEPS))
        step, rate = span / np.float32(_SPAN_STEPS), np.float32(_SPAN_STEPS) / span
        below = np.clip(np.rint(self._steps(-low, step, rate)), 0, _SPAN_STEPS)
        whole = np.clip(np.rint(self._steps(values, step, rate)), -below, _SPAN_STEPS - below)
        return whole.astype(np.float64) * step

    def unexplained(self, rounded: float, exact: float) -> float:
        """How far `exact` is from all values that this rounds, with steps that calibration decided, to `rounded`.

        >>> Rounding("fixed", 0.5, -1.0, 1.0).unexplained(0.5, 0.7)
        0.0
        >>> Rounding("fixed", 0.5, -1.0, 1.0).unexplained(0.5, 1.0)
        0.25
        >>> Rounding("fixed", 0.5, -1.0, 1.0).unexplained(1.0, 3.0)
        0.0
        """
        half = self.step / 2
        # Beyond the ends everything becomes the end.
        least = -np.inf if rounded <= self.low + half else rounded - half
        most = np.inf if rounded >= self.high - half else rounded + half
        return float(np.maximum(np.maximum(least - exact, exact - most), 0.0))

    def _steps(self, values: NDArray[np.float32], step: Any, rate: Any) -> NDArray[np.float32]:
        counted: NDArray[np.float32] = values * rate if self.by_rate else values / step
        return counted
