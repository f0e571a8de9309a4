"""A linear model with the integers that a file of it holds, so that the closed form adds up to the margin of that very variant.

An integer variant's margin is not linear in the cleaned columns: weights, what they are multiplied with, and in some the answer are rounded
to steps, and what lies beyond the calibrated range is cut. But it is linear in the ROUNDED columns, so the closed form holds for these.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from converter.cores import Core, Layers
from converter.explain.amortised import GATE_EVALUATIONS, half_widths
from converter.explain.behind import cleaned, cleaning_arrays, raw_inputs
from converter.explain.linear import is_linear
from converter.explain.rounded_files import Rounded, rounded_layer
from converter.explain.shapley import Floats, Matrix, channel_sums, shapley_values
from edgefleet.errors import VerdictError
from edgefleet.package import npz_bytes
from edgefleet.players import segment_of_rows, segmented, segments_for
from edgefleet.steps import Steps

MEASURED_ROWS: Final = 40
# A margin without interactions but those of rounding needs no long run.
_PAIRS: Final = 2


def rounded(core: Core, target: str, content: bytes) -> Rounded | None:
    """The integers of a linear model's file; None where the model is none, or the file holds its weights in another way.

    Args:
        core: The model.
        target: One of the integer targets.
        content: The graph.
    """
    if not is_linear(core):
        return None
    assert isinstance(core.head, Layers)  # noqa: S101  # `is_linear` says so
    return rounded_layer(content, core.head.layers[0].weight.astype(np.float64), is_onnx=target.startswith("onnx"))


@dataclass(frozen=True)
class RoundedLinear:
    """An integer file of a linear model as a function.

    Attributes:
        found: Its integers.
        steps: Cleaning in front, the first first.
        shift: [C] subtracted before it rounds.
        sources: [C] raw input of each cleaned value.
        inputs: Raw inputs F.
    """

    found: Rounded
    steps: tuple[Steps, ...]
    shift: Matrix
    sources: NDArray[np.intp]
    inputs: int

    @classmethod
    def of(cls, found: Rounded, core: Core, inputs: int, steps: Sequence[Steps]) -> "RoundedLinear":
        """With the model that the file was made of."""
        assert isinstance(core.head, Layers)  # noqa: S101  # `rounded` looked
        center = np.zeros(core.features) if core.head.center is None else core.head.center
        return cls(found, tuple(steps), np.asarray(center, np.float32), raw_inputs(steps, core.features), inputs)

    def columns(self, rows: Matrix) -> Floats:
        """[n, C] as the file rounds them."""
        return self.found.entry.run(cleaned(self.steps, rows) - self.shift)

    def margins(self, rows: Matrix) -> Floats:
        """[n, K] what the file answers; each row as if it were alone."""
        summed: Floats = self.columns(rows) @ self.found.weight + self.found.bias
        answer = self.found.answer
        return summed if answer is None else answer.run(summed.astype(np.float32))

    def moved(self, rows: Matrix, mean: Floats, players: NDArray[np.intp]) -> Floats:
        """[n, P, K] contributions against the mean [C]; `players` [C] of each column."""
        each = (self.columns(rows) - mean)[:, :, None] * self.found.weight
        found = np.zeros((len(rows), int(players.max()) + 1, each.shape[2]))
        for column, player in enumerate(players):
            found[:, player] += each[:, column]
        return found


def compile_rounded(model: RoundedLinear, rows: Matrix, held_out: Matrix, background: Matrix) -> bytes:
    """The explainer file of an integer variant.

    Its bars are half-widths that covered 95 % of held-out rows, against Shapley values of the rounded model: in some variants the whole row
    decides how large the steps are, so that inputs interact. They are zero where only the weights are integers.

    Args:
        model: The variant.
        rows: [n, ...] raw training rows; the base is the mean margin of those that are complete behind the steps, before it is rounded.
        held_out: Rows that the bars are measured on; the first `MEASURED_ROWS` are looked at.
        background: Rows that the gate compares with.

    Raises:
        VerdictError: No row, or no held-out row, is complete behind the steps.
    """
    z = model.columns(rows)
    z = z[np.isfinite(z).all(axis=1)]
    if len(z) == 0:
        raise VerdictError("no row of the package is complete behind the cleaning steps, and a linear model needs complete rows; impute")
    found, mean = model.found, z.mean(axis=0)
    arrays: dict[str, NDArray[Any]] = {
        "method": np.array("linear"),
        "weight": found.weight,
        "mean": mean,
        "base": mean @ found.weight + found.bias,
        "shift": model.shift,
        "rounding": np.array(found.entry.kind),
        "grid": found.entry.grid(),
        **cleaning_arrays(model.steps, len(mean)),
    }
    if found.entry.kind == "none":
        return npz_bytes(arrays)
    if found.answer is not None:
        arrays["answer_grid"] = found.answer.grid()
    players, of_columns = model.sources, model.sources
    shape, inputs = background.shape[1:], model.inputs
    in_game: NDArray[np.intp] = np.arange(inputs)
    if "rows" in arrays and (cut := segments_for(shape[0], inputs)) > 1:
        in_game = segmented(shape[0], inputs, cut)
        of_columns = segment_of_rows(shape[0], cut)[arrays["rows"]] * inputs + players
        arrays["players"] = in_game.astype(np.int64)
    looked_at = held_out[:MEASURED_ROWS]
    reference = shapley_values(model.margins, looked_at, background, in_game, _PAIRS, 0)
    # Against the mean row instead of the background rows: a margin without interactions moves by what it says of these.
    offset = model.moved(background, mean, of_columns).mean(axis=0)
    errors = np.abs(channel_sums(model.moved(looked_at, mean, of_columns) - reference.values - offset, in_game))
    errors = errors[np.isfinite(errors).all(axis=(1, 2))]
    if len(errors) == 0:
        raise VerdictError("no held-out row of the package is complete behind the cleaning steps, and bars need complete rows; impute")
    arrays |= {
        "error": half_widths(errors).T,
        "background": background.astype(np.float32),
        "background_values": offset,
        "reference_evaluations": np.array(GATE_EVALUATIONS, np.int64),
    }
    return npz_bytes(arrays)
