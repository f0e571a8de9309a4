"""How true an explanation is, measured with the device's own explainer on the variant that will run there; and what is true enough.

Exact methods must add up (gate X1); where an integer variant of a linear model rounds its margin, too, they must up to those steps. A
student, and the closed form of such a variant, must also point where a long run of sampled permutations through the same variant points
(gate X2): quantization may have moved both the model and what its inputs do. The same explanation as a graph for other programs, run by the
variant's own runtime, must say what the device's explainer says (gate X3; the C variant's function is measured in `to_c/running.py`). The
time segments of a window must point there as well, beyond what an even division of each channel says (gate X4), or they are not shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from converter.explain.agreement import agreement, of_segments
from converter.explain.amortised import GATE_EVALUATIONS, REFERENCE_PAIRS, reference_values
from converter.explain.shapley import Floats, Matrix, ShapleyValues
from edgefleet.errors import ArtifactError, RowRejected
from edgefleet.package import read_npz
from edgefleet.players import by_segment, players_of
from edgefleet.rounding import Rounding

if TYPE_CHECKING:
    from device_agent.scorer import Scorer

MAX_GAP: Final = 1e-4
# Relative to a row's largest contribution; 8e-7 was seen.
MAX_DIFFERENCE: Final = 1e-5
# On the lower end of a one-sided 95 % interval over rows.
LEAST_COSINE: Final = 0.95
LEAST_TOP3: Final = 0.80
# Of what time segments say beyond the channels. Between students that name the wrong segment of the strongest input in every eighth to
# second window (up to 0.79) and those that name the right one in nine of ten (from 0.91): see ADR 14.
LEAST_WITHIN: Final = 0.85
JUDGED_ROWS: Final = 100
# A closed form is judged on fewer rows and pairs than a student: only rounding makes these differ.
_LINEAR_ROWS: Final = 40
# Each sampled explanation asks the model as often as four pairs of a reference.
_SAMPLED_ROWS: Final = 20
_PAIRS: Final = {"linear": 2, "sampled": 16}
# What proving the segments of sampling asks of the model, in pairs of permutations: its reference, and four for each explanation.
PROVING_PAIRS: Final = _SAMPLED_ROWS * (_PAIRS["sampled"] + 4)
_GRAPH_ROWS: Final = 20
_ADDED_UP_ROWS: Final = 50


@dataclass(frozen=True)
class Reference:
    """A long run through the variant, of the predicted class.

    Attributes:
        values: [n, P] contribution of each player that contributions can be summed to: an input, or a patch of an image's inputs.
        error: [n, P] their standard errors.
        players: [F] player of each input.
        segments: [n, S x F] contribution of each time segment of each input of a window, the oldest segment first; None without.
    """

    values: Floats
    error: Floats
    players: NDArray[np.intp]
    segments: Floats | None = None


@dataclass(frozen=True)
class Judged:
    """One gate's figure: `limit` is its largest (X1, X3) or smallest (X2, X4) good value."""

    gate: str
    name: str
    value: float
    limit: float
    ok: bool


_LEAST: Final = (
    ("X2", "cosine_low", LEAST_COSINE),
    ("X2", "top3_low", LEAST_TOP3),
    ("X4", "segment_cosine_low", LEAST_COSINE),
    ("X4", "segment_within_low", LEAST_WITHIN),
)


def segments_point(figures: dict[str, float]) -> bool:
    """Whether time segments pass their gate; True where there are none."""
    return all(figures.get(name, 1.0) >= limit for gate, name, limit in _LEAST if gate == "X4")


def judge_fidelity(gap: float, figures: dict[str, float] | None, difference: float | None = None) -> list[Judged]:
    """The gates of an explanation.

    Args:
        gap: From `additivity_gap`.
        figures: From `fidelity`; None for methods that are exact or show their own error bar, which X1 alone judges. Those of sampled
            windows are of their time segments only.
        difference: From `graph_difference`; None where there is neither graph nor function in C.
    """
    judged = [Judged("X1", "gap", gap, MAX_GAP, gap <= MAX_GAP)]
    for gate, name, limit in _LEAST:
        if figures is not None and name in figures:
            judged.append(Judged(gate, name, figures[name], limit, figures[name] >= limit))
    if difference is not None:
        judged.append(Judged("X3", "difference", difference, MAX_DIFFERENCE, difference <= MAX_DIFFERENCE))
    return judged


def measure_explanation(scorer: "Scorer", rows: Matrix) -> tuple[float, dict[str, float] | None]:
    """Everything that the gates ask about one variant.

    Args:
        scorer: The variant, opened by the device's scorer.
        rows: The package's parity rows; a student was measured on those with an even number (see `converter.explain.building`), so that it
            is judged on the others.

    Returns:
        The relative additivity gap, and the figures that `judge_fidelity` takes.
    """
    method, answer = scorer.variant.explain_method, answer_rounding(scorer)
    gap = additivity_gap(scorer, list(rows[: _ADDED_UP_ROWS if method in ("linear", "treeshap") else 3]), answer)
    rounded = method == "linear" and "background" in _arrays(scorer)
    sampled = method == "sampled" and bool(scorer.segment_rows_back)
    if method != "amortised" and not rounded and not sampled:
        return gap, None
    judged = judged_rows(rows)[: _LINEAR_ROWS if rounded else _SAMPLED_ROWS if sampled else JUDGED_ROWS]
    figures = fidelity(scorer, judged, reference_of(scorer, judged))
    if sampled:  # its contributions show their own bars
        figures = {name: value for name, value in figures.items() if name.startswith("segment_") or name == "rows"}
    return gap, figures if answer is None else figures | {"answer_step": answer.step}


def answer_rounding(scorer: "Scorer") -> Rounding | None:
    """How an integer variant of a linear model rounds its margin; None where it does not, and where nobody asked."""
    if scorer.variant.explain_method != "linear":
        return None
    grid = _arrays(scorer).get("answer_grid")
    return None if grid is None else Rounding.of("fixed", grid)


def _arrays(scorer: "Scorer") -> dict[str, NDArray[Any]]:
    return read_npz(scorer.bundle.read(scorer.variant.explainer or ""), (), "explainer")


def graph_difference(scorer: "Scorer", rows: Matrix) -> float | None:
    """Largest difference of the explanation's graph, run by the variant's runtime, to the device's explainer on some rows.

    Relative to a row's largest contribution, for the predicted class, each row alone and all together. None without a graph; infinity where
    the graph cannot be run.
    """
    from device_agent.runtime.explaining import ExplanationGraph

    variant = scorer.variant
    if variant.explain_graph is None:
        return None
    rows = rows[:_GRAPH_ROWS]
    scores = [scorer.score(row, explain=True) for row in rows]
    try:
        graph = ExplanationGraph.open(variant.runtime, scorer.bundle.read(variant.explain_graph))
        alone = np.concatenate([graph.explain(row[None])[0] for row in rows])
        answered, base = graph.explain(rows)
    except ArtifactError:
        return float("inf")
    worst = 0.0
    for i, score in enumerate(scores):
        if score.explanation is None:
            return float("inf")
        column, sign = (0, -1.0 if score.index == 0 else 1.0) if len(base) == 1 else (score.index or 0, 1.0)
        wanted = score.explanation.contributions
        size = max(float(np.abs(wanted).max()), float(np.finfo(np.float32).tiny))
        for found in (alone[i], answered[i]):
            # numpy's: NaN stays, where max() would drop it.
            worst = float(np.maximum(worst, np.abs(sign * found[:, column] - wanted).max() / size))
        if not abs(sign * float(base[column]) - score.explanation.base) <= MAX_DIFFERENCE * max(1.0, abs(score.explanation.base)):
            return float("inf")
    return worst


def judged_rows(rows: Matrix) -> Matrix:
    """Every second row, from the second."""
    return rows[1::2] if len(rows) > 1 else rows


def measured_rows(rows: Matrix) -> Matrix:
    """The other rows."""
    return rows[::2]


def additivity_gap(scorer: "Scorer", rows: Sequence[NDArray[np.float32]], answer: Rounding | None = None) -> float:
    """Largest |margin - base - sum of contributions| relative to max(1, |margin|) over some rows.

    Args:
        scorer: The variant, opened by the device's scorer.
        rows: A few rows; a sampled explanation evaluates the model some hundred times for each.
        answer: How the variant rounds its margin: only what such rounding does not explain then counts.
    """
    worst, columns = 0.0, 1 if answer is None else scorer.score_batch(np.stack(rows[:1])).margins.shape[1]
    for row in rows:
        score = scorer.score(row, explain=True)
        if score.explanation is None:
            return float("inf")
        gap = abs(score.explanation.gap)
        if answer is not None:
            # Two classes that share a column: the first has its negative, and the column is what was rounded.
            sign = -1.0 if columns == 1 and score.index == 0 else 1.0
            gap = answer.unexplained(sign * score.margin, sign * (score.margin - score.explanation.gap))
        worst = float(np.maximum(worst, gap / max(1.0, abs(score.margin))))
    return worst


def reference_of(scorer: "Scorer", rows: Matrix, seed: int = 17) -> Reference:
    """A long run of sampled permutations, every margin answered by the variant itself, against the explainer's own background rows.

    Raises:
        ArtifactError: The explainer file has no background rows.
    """
    optional = ("players", "background_values", "reference_evaluations")
    arrays = read_npz(scorer.bundle.read(scorer.variant.explainer or ""), ("background",), "explainer", optional=optional)
    background, at_most = arrays["background"], int(arrays.get("reference_evaluations", GATE_EVALUATIONS))
    players = players_of(arrays.get("players"), background.shape[-1])
    found = reference_values(
        lambda x: scorer.score_batch(x).margins, rows, background, players, seed, at_most,
        _PAIRS.get(scorer.variant.explain_method or "", REFERENCE_PAIRS),
    )  # fmt: skip
    if "background_values" in arrays:  # the closed form compares with the mean row, not with these
        found = found.moved(arrays["background_values"], players)
    column, sign = _columns_of(scorer, rows, found.values.shape[2])
    picked = np.arange(len(rows))

    def of_predicted(of: ShapleyValues) -> Floats:
        values: Floats = of.values[picked, :, column] * sign[:, None]
        return values

    error = found.shown.error[picked, :, column]
    if players.ndim == 1:
        return Reference(of_predicted(found), error, players)
    return Reference(of_predicted(found.shown), error, np.arange(players.shape[1]), of_predicted(found))


def fidelity(scorer: "Scorer", rows: Matrix, reference: Reference) -> dict[str, float]:
    """How near the variant's explanations are to the reference.

    Args:
        scorer: The variant, opened by the device's scorer.
        rows: [n, ...] held-out rows.
        reference: Of the same rows.

    Returns:
        `cosine` and `top3` (means over rows: angle, and share of the three strongest inputs that are the reference's), `cosine_low` and
        `top3_low` (lower ends of their one-sided 95 % intervals), `r2` over all, `covered` (share of contributions inside their error
        bars), `reference_error` (standard error of the reference relative to its size) and `rows`. Of windows in time segments also the
        figures of `of_segments`.
    """
    found, wanted, inside, errors, parts, wanted_parts = [], [], [], [], [], []
    for i, (row, want, error) in enumerate(zip(rows, reference.values, reference.error, strict=True)):
        try:
            explanation = scorer.score(row, explain=True).explanation
        except RowRejected:
            continue
        if explanation is None or not np.isfinite(explanation.contributions).all() or not np.isfinite(want).all():
            continue
        bars = explanation.error if explanation.error is not None else np.full(len(explanation.contributions), np.inf)
        got, bar = (np.bincount(reference.players, values, len(want)) for values in (explanation.contributions, bars))
        found.append(got)
        wanted.append(want)
        errors.append(error)
        inside.append(np.abs(got - want) <= bar + 1e-12)
        if reference.segments is not None and explanation.segments is not None:
            parts.append(explanation.segments)
            wanted_parts.append(by_segment(reference.segments[i], len(scorer.bundle.manifest.inputs)))
    figures = agreement(np.array(found), np.array(wanted)) | {
        "covered": float(np.mean(inside)) if inside else 0.0,
        "reference_error": _relative(np.array(errors), np.array(wanted)),
    }
    if reference.segments is None or not scorer.segment_rows_back:
        return figures
    # Without a row that can be compared they are proven by nothing, and fail.
    shape = (-1, len(scorer.segment_rows_back), len(scorer.bundle.manifest.inputs))
    return figures | of_segments(np.reshape(parts, shape), np.reshape(wanted_parts, shape))


def _relative(errors: Floats, wanted: Floats) -> float:
    if not errors.size or not np.isfinite(errors).all():
        return 0.0
    return float(np.sqrt((errors**2).sum()) / max(float(np.sqrt((wanted**2).sum())), 1e-30))


def _columns_of(scorer: "Scorer", rows: Matrix, columns: int) -> tuple[NDArray[np.intp], Floats]:
    """[n] column of the predicted class's margin, and [n] its sign."""
    index: NDArray[Any] = np.maximum(scorer.score_batch(rows).index, 0)
    if columns > 1:
        return index.astype(np.intp), np.ones(len(rows))
    classes = len(scorer.bundle.manifest.classes)
    return np.zeros(len(rows), np.intp), np.where((index == 0) & (classes > 0), -1.0, 1.0)
