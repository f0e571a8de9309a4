"""A variant against the original, answered by the scorer that devices run, one row at a time and in batches.

`measure(job)` runs in a child process: what the variant costs (cold start, memory) is then its own. `compare` is pure.
"""

import resource
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from converter.originals import Original
from edgefleet.package import npz_bytes, read_npz

# Below this difference of the best two probabilities, which of them is larger is decided by the last bits of float32.
TIE_MARGIN_FP32: Final = 1e-5
_BATCH_ROWS: Final = 64
_WARM_UP_ROWS: Final = 50
_LATENCY_ROWS: Final = 1000
_EXPLAINED_ROWS: Final = 3


@dataclass(frozen=True)
class Cost:
    """What the variant costs on this machine; depends on clock and host.

    Attributes:
        cold_start_ms: Importing the scorer and its runtime, loading the graph, and the first answer.
        memory_peak_bytes: Peak resident memory of the whole process.
        explain_gap: Relative additivity gap of the explanation, None without an explainer.
    """

    latency_p50_ms: float
    latency_p95_ms: float
    cold_start_ms: float
    memory_peak_bytes: int
    explain_gap: float | None


@dataclass(frozen=True)
class Answers:
    """A variant's probabilities [n, classes], row by row and as batches; NaN where the scorer refused the row."""

    single: NDArray[np.float64]
    batch: NDArray[np.float64]


@dataclass(frozen=True)
class Pairs:
    """Who was right, row by row, on the same rows: only rows where one of both is right carry information."""

    name: str
    n: int
    worse: int
    better: int

    @property
    def drop(self) -> float:
        """Accuracy of the original minus accuracy of the variant."""
        return (self.worse - self.better) / self.n if self.n else 0.0


@dataclass(frozen=True)
class Comparison:
    """A variant against the original on the parity rows.

    Attributes:
        n: Rows that the scorer answered.
        refused: Rows that it did not answer.
        agreed: Rows with the same class.
        outside_ties: Rows where the original's best two probabilities differ by more than `TIE_MARGIN_FP32`.
        agreed_outside_ties: Those of them with the same class.
        max_error: Largest absolute error of a probability, single rows and batches.
        mean_error: Mean absolute error of the probabilities of single rows.
        accuracy: Of the variant.
        accuracy_original: Of the original.
        overall: Paired counts over all rows.
        slices: The same for each slice, empty when there is only one.
    """

    n: int
    refused: int
    agreed: int
    outside_ties: int
    agreed_outside_ties: int
    max_error: float
    mean_error: float
    accuracy: float
    accuracy_original: float
    overall: Pairs
    slices: list[Pairs]


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """The child's whole work: answer every row set with the device's scorer, then time single rows.

    Args:
        job: `bundle` (folder), `variant`, `rows` {name: path of an .npz with x}, `folder` (for the answers).

    Returns:
        `answers` {name: path} and the fields of `Cost`.
    """
    began = time.perf_counter()
    from device_agent.scorer import Scorer

    sets = {name: read_npz(Path(path).read_bytes(), ("x",), name)["x"] for name, path in job["rows"].items()}
    scorer = Scorer.open(job["bundle"], job["variant"])
    try:
        parity = sets["parity"]
        scorer.score_batch(parity[:1])
        classes = len(scorer.bundle.manifest.classes)
        cold_start_ms = (time.perf_counter() - began) * 1e3
        paths = {}
        for name, x in sets.items():
            paths[name] = str(Path(job["folder"]) / f"{job['variant']}-{name}.npz")
            Path(paths[name]).write_bytes(npz_bytes({"single": _one_by_one(scorer, x, classes), "batch": _in_batches(scorer, x, classes)}))
        latency_ms = _latency_ms(scorer, parity)
        memory_peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        gap = _explain_gap(scorer, parity)
    finally:
        scorer.close()
    p50, p95 = (float(np.quantile(latency_ms, q)) for q in (0.5, 0.95))
    cost = {"latency_p50_ms": p50, "latency_p95_ms": p95, "cold_start_ms": cold_start_ms, "memory_peak_bytes": memory_peak_bytes}
    return {"answers": paths, **cost, "explain_gap": gap}


def read_answers(path: Path) -> Answers:
    """Read what `measure` wrote for one row set."""
    return Answers(**read_npz(path.read_bytes(), ("single", "batch"), path.name))


def compare(original: Original, answers: Answers, label: NDArray[Any], slices: NDArray[np.str_]) -> Comparison:
    """Counts and errors of a variant against the original.

    Args:
        original: Answers of the trained model on the rows.
        answers: Answers of the variant on the same rows.
        label: [n] class indices.
        slices: [n] names of slices.
    """
    answered = np.isfinite(answers.single).all(axis=1) & np.isfinite(answers.batch).all(axis=1)
    truth: NDArray[np.float64] = original.probabilities[answered]
    single, batch = answers.single[answered], answers.batch[answered]
    right, mine = label[answered], single.argmax(axis=1)
    theirs = truth.argmax(axis=1)
    best = np.sort(truth, axis=1)
    clear = best[:, -1] - best[:, -2] > TIE_MARGIN_FP32
    # A batch may not answer otherwise than its rows do alone.
    same = (mine == theirs) & (batch.argmax(axis=1) == theirs)
    errors = np.abs(single - truth)
    n = len(errors)
    groups = slices[answered]
    names = np.unique(groups)
    return Comparison(
        n=n,
        refused=int((~answered).sum()),
        agreed=int(same.sum()),
        outside_ties=int(clear.sum()),
        agreed_outside_ties=int((same & clear).sum()),
        max_error=float(max(errors.max(), np.abs(batch - truth).max())) if n else float("inf"),
        mean_error=float(errors.mean()) if n else float("inf"),
        accuracy=float((mine == right).mean()) if n else 0.0,
        accuracy_original=float((theirs == right).mean()) if n else 0.0,
        overall=_pairs("all rows", theirs == right, mine == right),
        slices=[_pairs(str(name), (theirs == right)[groups == name], (mine == right)[groups == name]) for name in names]
        if len(names) > 1
        else [],
    )


def golden_failures(original: Original, answers: Answers, tie_margin: float) -> tuple[float, int]:
    """What the device's self-test will see: largest error on the golden rows, and labels that differ outside ties."""
    if len(original.probabilities) == 0:
        return 0.0, 0
    best = np.sort(original.probabilities, axis=1)
    clear = best[:, -1] - best[:, -2] > tie_margin
    flips = (answers.single.argmax(axis=1) != original.probabilities.argmax(axis=1)) & clear
    errors = np.nan_to_num(np.abs(answers.single - original.probabilities), nan=np.inf)
    return float(errors.max()), int(flips.sum())


def _pairs(name: str, original_right: NDArray[np.bool_], variant_right: NDArray[np.bool_]) -> Pairs:
    worse, better = int((original_right & ~variant_right).sum()), int((variant_right & ~original_right).sum())
    return Pairs(name, len(original_right), worse, better)


def _one_by_one(scorer: Any, x: NDArray[np.float32], classes: int) -> NDArray[np.float64]:
    from edgefleet.errors import RowRejected

    answers = np.full((len(x), classes), np.nan)
    for i, row in enumerate(x):
        try:
            answers[i] = scorer.score(row).probabilities
        except RowRejected:
            continue  # counted by the comparison: the row stays NaN
    return answers


def _in_batches(scorer: Any, x: NDArray[np.float32], classes: int) -> NDArray[np.float64]:
    answers = np.full((len(x), classes), np.nan)
    for i in range(0, len(x), _BATCH_ROWS):
        answers[i : i + _BATCH_ROWS] = scorer.score_batch(x[i : i + _BATCH_ROWS]).probabilities
    return answers


def _latency_ms(scorer: Any, x: NDArray[np.float32]) -> NDArray[np.float64]:
    """Wall time of single calls on changing rows: the same row again and again flatters trees by branch prediction."""
    from edgefleet.errors import RowRejected

    taken = []
    for i in range(_WARM_UP_ROWS + _LATENCY_ROWS):
        row = x[i % len(x)]
        began = time.perf_counter()
        try:
            scorer.score(row)
        except RowRejected:
            continue
        if i >= _WARM_UP_ROWS:
            taken.append((time.perf_counter() - began) * 1e3)
    return np.array(taken or [float("inf")])


def _explain_gap(scorer: Any, x: NDArray[np.float32]) -> float | None:
    if not scorer.can_explain:
        return None
    from converter.explain.fidelity import additivity_gap

    return additivity_gap(scorer, list(x[:_EXPLAINED_ROWS]))
