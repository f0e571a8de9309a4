"""What an explanation says, what every explainer offers, and what they share: classes, arrays of the file, cleaning in front."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgefleet.errors import ArtifactError
from edgefleet.manifest import Input
from edgefleet.players import by_segment, rows_back, segment_of_rows, segments_for, strongest_when

if TYPE_CHECKING:  # only explanations clean rows on a device
    from edgefleet.steps import Steps

Matrix = NDArray[np.float32]
Margins = Callable[[Matrix], Matrix]


@dataclass(frozen=True)
class Explanation:
    """One explained answer.

    Attributes:
        base: Expected margin of the predicted class: over the training rows (treeshap, linear) or the background rows (amortised, sampled).
        contributions: [F] float64, margin units, in the order of the manifest's inputs.
        names: The inputs' names.
        method: `linear`, `treeshap`, `amortised` or `sampled`.
        error: [F] half-width of the 95 % interval of each contribution: zeros when exact, None when too few samples tell.
        gap: margin - base - sum(contributions): what the contributions do not account for.
        segments: [S, F] of a window in time segments, the oldest first: what each segment of each input contributed; they add up to the
            contributions. None where nobody can say it: single rows, one segment, or columns that derive from several rows of the window.
        segment_rows_back: (oldest, newest) row of each segment, counted back from the window's newest row, which is 0.
    """

    base: float
    contributions: NDArray[np.float64]
    names: tuple[str, ...]
    method: str
    error: NDArray[np.float64] | None
    gap: float
    segments: NDArray[np.float64] | None = None
    segment_rows_back: tuple[tuple[int, int], ...] = ()

    def top(self, k: int = 3) -> list[tuple[str, float]]:
        """The k inputs that moved the margin most, strongest first."""
        return [(self.names[i], float(self.contributions[i])) for i in self._strongest(k)]

    def as_text(self, inputs: Sequence[Input], row: NDArray[np.float32], label: str | None, k: int = 3) -> str:
        """What a person is told: "vibration_rms 8.1 mm/s pushed towards failure by +1.9; ...".

        Of a window in time segments also when: "... by +1.9, strongest 16-31 rows ago", the segment that moved the margin most in the
        direction in which the input did.

        Args:
            inputs: The manifest's inputs.
            row: [F] the raw values; of a window its newest row.
            label: The answered class; None for a value or an anomaly score, which is raised or lowered.
            k: Inputs that are named, strongest first; those that moved nothing are not.
        """
        parts = []
        for i in self._strongest(k):
            moved = float(self.contributions[i])
            if moved == 0.0:
                continue
            if label is None:
                effect = f"{'raised' if moved > 0 else 'lowered'} the answer by {moved:+.2g}"
            else:
                effect = f"pushed {'towards' if moved > 0 else 'away from'} {label} by {moved:+.2g}"
            parts.append(f"{self.names[i]} {said_value(inputs[i], float(row[i]))} {effect}{self._when(i)}")
        return "; ".join(parts) if parts else "no input moved the answer"

    def as_plain(self, inputs: Sequence[Input], row: NDArray[np.float32], k: int = 3) -> list[dict[str, Any]]:
        """The k strongest inputs as plain values for JSON: input, value, contribution, and error and segments where they are known.

        Args:
            inputs: The manifest's inputs.
            row: [F] the raw values; of a window its newest row.
            k: Inputs that are named.
        """
        found = []
        for i in self._strongest(k):
            value = float(row[i])
            shown: object = None if not math.isfinite(value) else float(f"{value:.9g}")
            if inputs[i].kind == "category":
                shown = said_value(inputs[i], value)
            entry: dict[str, Any] = {"input": self.names[i], "value": shown, "contribution": round(float(self.contributions[i]), 6)}
            if self.error is not None:
                entry["error"] = round(float(self.error[i]), 6)
            if self.segments is not None:
                entry["segments"] = self.plain_segments(i)
            found.append(entry)
        return found

    def plain_segments(self, i: int) -> list[dict[str, Any]]:
        """Of input i, the oldest segment first: `rows_back` [oldest, newest] (0 is the window's newest row) and `contribution`."""
        if self.segments is None:
            return []
        moved = zip(self.segment_rows_back, self.segments[:, i].tolist(), strict=True)
        return [{"rows_back": list(rows), "contribution": round(value, 6)} for rows, value in moved]

    def _when(self, i: int) -> str:
        if self.segments is None:
            return ""
        return f", {strongest_when(self.segments[:, i].tolist(), self.segment_rows_back)}"

    def _strongest(self, k: int) -> list[int]:
        return [int(i) for i in np.argsort(-np.abs(self.contributions), kind="stable")[:k]]

    def text(self, k: int = 3) -> str:
        """One sentence about the k strongest inputs."""
        parts = [f"{name} {value:+.3g}" for name, value in self.top(k) if value != 0.0]
        if not parts:
            return f"No input moved the margin from its expected {self.base:.3g}."
        total = self.base + float(self.contributions.sum())
        return f"Of the margin's way from {self.base:.3g} to {total:.3g}, the strongest inputs are {', '.join(parts)} ({self.method})."


def said_value(column: Input, value: float) -> str:
    """A raw value in words: with its unit, the text of a category, `missing` or `unseen`."""
    if math.isnan(value):
        return "missing"
    if column.kind == "category":
        index = int(value)
        return column.categories[index] if 0 <= index < len(column.categories) else "unseen"
    return f"{value:.4g} {column.unit}".rstrip()


class Explainer(Protocol):
    """Explains one row that was scored."""

    @property
    def segment_rows_back(self) -> tuple[tuple[int, int], ...]:
        """As in each `Explanation`; empty where there are no segments."""
        ...

    def explain(self, row: Matrix, index: int | None, margin: float, margins: Margins) -> Explanation:
        """Explain.

        Args:
            row: [F] or, for a model of windows, [T, F] float32 as the model got it.
            index: Predicted class, None for one value.
            margin: Margin of the predicted class that the model answered.
            margins: The model itself, [n, F] or [n, T, F] -> [n, K], outside all statistics.
        """
        ...


@dataclass(frozen=True)
class Cleaning:
    """The way from a raw row to the columns that an exact explanation speaks of, and back to the raw inputs.

    Attributes:
        steps: Lists of cleaning steps, each reading what the one before gives; none where the model takes raw rows.
        sources: [C] for every cleaned value the raw input that it derives from; contributions are summed by it.
        inputs: Raw inputs F.
        players: [C] the same as `sources`, of windows whose cleaned values are each of one row: segment x F + input.
        segment_rows_back: As in `Explanation`; empty without segments.
    """

    steps: tuple["Steps", ...]
    sources: NDArray[np.intp]
    inputs: int
    players: NDArray[np.intp]
    segment_rows_back: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, arrays: dict[str, NDArray[Any]], inputs: int) -> "Cleaning":
        """From the arrays `steps_0`, `steps_1` (the bytes of their JSON) and `rows` of an explainer file.

        Raises:
            ArtifactError: Damaged, or made for another number of inputs.
        """
        from edgefleet.steps import Steps

        steps: list[Steps] = []
        sources, width = np.arange(inputs), inputs
        for name in ("steps_0", "steps_1"):
            found = arrays.get(name)
            if found is None:
                break
            if found.dtype != np.uint8 or found.ndim != 1:
                raise ArtifactError("explainer: its cleaning steps are no bytes; convert the package again")
            one = Steps.from_json(found.tobytes())
            if one.input_shape[-1] != width or (steps and one.input_shape != steps[-1].output_shape):
                raise ArtifactError(f"explainer: its cleaning steps take {one.input_shape[-1]} columns and get {width}; convert again")
            # A second list sees every value of a window's row as a column of its last axis.
            sources = (sources if len(steps) == 0 else sources[-one.input_shape[-1] :])[np.array(one.sources, np.intp)]
            steps.append(one)
            width = one.output_shape[-1]
        if "rows" not in arrays:
            return cls(tuple(steps), sources, inputs, sources)
        window = steps[0].input_shape[0] if steps and len(steps[0].input_shape) == 2 else 0
        rows = array_of(arrays, "rows", 1)
        if rows.shape != sources.shape or rows.dtype.kind != "i" or not ((rows >= 0) & (rows < window)).all():
            raise ArtifactError(
                f"explainer: its {len(rows)} rows do not fit {len(sources)} cleaned values of windows of {window} rows; convert again"
            )
        cut = segments_for(window, inputs)
        if cut == 1:
            return cls(tuple(steps), sources, inputs, sources)
        segment = segment_of_rows(window, cut)
        return cls(tuple(steps), sources, inputs, segment[rows] * inputs + sources, rows_back(segment))

    @property
    def player_count(self) -> int:
        """Inputs, or segments x inputs."""
        return self.inputs * max(1, len(self.segment_rows_back))

    def shown(self, by_player: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """([F] contributions, [S, F] segments or None) of what the players [P] moved."""
        if not self.segment_rows_back:
            return by_player, None
        segments = by_segment(by_player, self.inputs)
        return segments.sum(axis=0), segments

    def run(self, row: Matrix) -> Matrix:
        """[C] cleaned values of one row, in row-major order."""
        if not self.steps:
            return row
        rows: Matrix = row[None]
        for one in self.steps:
            rows = one.run(rows)
        return rows.ravel()


def column_of(index: int | None, columns: int) -> tuple[int, float]:
    """(column, sign) of a class's margin: where two classes share one column, the first has the negative of it."""
    if columns == 1:
        return 0, -1.0 if index == 0 else 1.0
    return index or 0, 1.0


def array_of(arrays: dict[str, NDArray[Any]], name: str, dimensions: int) -> NDArray[Any]:
    """An array of numbers of an explainer file.

    Raises:
        ArtifactError: Missing, or of another form.
    """
    found = arrays.get(name)
    if found is None or found.ndim != dimensions or found.dtype.kind not in "fiub":
        raise ArtifactError(f"explainer: array {name!r} is missing or of another form; convert the package again")
    return found
