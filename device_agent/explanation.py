"""What an explanation says, and what every explainer offers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float32]
Margins = Callable[[Matrix], Matrix]


@dataclass(frozen=True)
class Explanation:
    """One explained answer.

    Attributes:
        base: Expected margin of the predicted class: over the training rows (trees) or the background rows (sampled).
        contributions: [F] float64, margin units, in the order of the manifest's inputs.
        names: The inputs' names.
        method: `treeshap` or `sampled`.
        error: [F] half-width of the 95 % interval of each contribution: zeros when exact, None when too few samples tell.
        gap: margin - base - sum(contributions): what the contributions do not account for.
    """

    base: float
    contributions: NDArray[np.float64]
    names: tuple[str, ...]
    method: str
    error: NDArray[np.float64] | None
    gap: float

    def top(self, k: int = 3) -> list[tuple[str, float]]:
        """The k inputs that moved the margin most, strongest first."""
        order = np.argsort(-np.abs(self.contributions), kind="stable")[:k]
        return [(self.names[i], float(self.contributions[i])) for i in order]

    def text(self, k: int = 3) -> str:
        """One sentence about the k strongest inputs."""
        parts = [f"{name} {value:+.3g}" for name, value in self.top(k) if value != 0.0]
        if not parts:
            return f"No input moved the margin from its expected {self.base:.3g}."
        total = self.base + float(self.contributions.sum())
        return f"Of the margin's way from {self.base:.3g} to {total:.3g}, the strongest inputs are {', '.join(parts)} ({self.method})."


class Explainer(Protocol):
    """Explains one row that was scored."""

    def explain(self, row: Matrix, index: int | None, margin: float, margins: Margins) -> Explanation:
        """Explain.

        Args:
            row: [F] float32 as the model got it.
            index: Predicted class, None for one value.
            margin: Margin of the predicted class that the model answered.
            margins: The model itself, [n, F] -> [n, K], outside all statistics.
        """
        ...
