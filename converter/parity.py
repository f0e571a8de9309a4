"""A variant answered by the scorer that devices run, one row at a time and in batches; `measure(job)` is a child process's whole work.

What the variant costs (cold start, memory) is then its own.
"""

import resource
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from converter.comparing import Answers
from converter.measured import answers_file, costs, row_sets
from edgefleet.package import read_npz

_BATCH_ROWS: Final = 64
_WARM_UP_ROWS: Final = 50
_LATENCY_ROWS: Final = 1000
_TIMED_BATCHES: Final = 20
# A slow variant is timed on fewer rows.
_LATENCY_DEADLINE_S: Final = 20.0
_EXPLAINED_ROWS: Final = 220


@dataclass(frozen=True)
class Cost:
    """What the variant costs on this machine; depends on clock and host.

    Attributes:
        latency_p50_ms: Median of one row, checks and statistics included.
        latency_p95_ms: 95th percentile of it.
        latency_p99_ms: 99th percentile of it.
        batch_row_ms: Of one row in a batch of 64, median.
        cold_start_ms: Importing the scorer and its runtime, loading the graph, and the first answer.
        memory_peak_bytes: Peak resident memory of the whole process.
        explain_gap: Relative additivity gap of the explanation, None without an explainer.
        fidelity: Further figures of the explanation, see `converter.explain.fidelity`.
        explain_difference: Of the explanation as a graph or in C to the exact one, relative to a row's largest contribution; None: there
            is no such thing.
    """

    latency_p50_ms: float
    latency_p95_ms: float
    latency_p99_ms: float
    batch_row_ms: float
    cold_start_ms: float
    memory_peak_bytes: int
    explain_gap: float | None = None
    fidelity: dict[str, float] | None = None
    explain_difference: float | None = None


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Answer every row set with the device's scorer, then time single rows and batches.

    Args:
        job: `bundle` (folder), `variant`, `rows` {name: path of an .npz with x}, `folder` (for the answers).

    Returns:
        `answers` {name: path} and the fields of `Cost`.
    """
    began = time.perf_counter()
    from device_agent.scorer import Scorer

    sets = row_sets(job)
    scorer = Scorer.open(job["bundle"], job["variant"])
    try:
        parity = sets["parity"]
        scorer.score_batch(parity[:1])
        cold_start_ms = (time.perf_counter() - began) * 1e3
        paths = {name: answers_file(job, name, _one_by_one(scorer, x), _in_batches(scorer, x)) for name, x in sets.items()}
        taken_ms = latencies_ms(scorer, parity)
        batch_row_ms = _batch_row_ms(scorer, parity)
        memory_peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        explained = _explained(scorer, parity)
    finally:
        scorer.close()
    return {"answers": paths, **costs(taken_ms, batch_row_ms, cold_start_ms, memory_peak_bytes), **explained}


def read_answers(path: Path) -> Answers:
    """Read what `measure` wrote for one row set."""
    return Answers(**read_npz(path.read_bytes(), ("single", "batch"), path.name))


def _width(scorer: Any) -> int:
    return len(scorer.bundle.manifest.classes) if scorer.bundle.manifest.task == "classification" else 1


def _one_by_one(scorer: Any, x: NDArray[np.float32]) -> NDArray[np.float64]:
    from edgefleet.errors import RowRejected

    classes = scorer.bundle.manifest.task == "classification"
    answers = np.full((len(x), _width(scorer)), np.nan)
    for i, row in enumerate(x):
        try:
            score = scorer.score(row)
        except RowRejected:
            continue  # counted by the comparison: the row stays NaN
        answers[i] = score.probabilities if classes else score.margin
    return answers


def _in_batches(scorer: Any, x: NDArray[np.float32]) -> NDArray[np.float64]:
    classes = scorer.bundle.manifest.task == "classification"
    answers = np.full((len(x), _width(scorer)), np.nan)
    for i in range(0, len(x), _BATCH_ROWS):
        found = scorer.score_batch(x[i : i + _BATCH_ROWS])
        answers[i : i + _BATCH_ROWS] = found.probabilities if classes else found.margins
    return answers


def latencies_ms(scorer: Any, x: NDArray[np.float32], deadline_s: float = _LATENCY_DEADLINE_S) -> NDArray[np.float64]:
    """Wall time of single calls on changing rows: the same row again and again flatters trees by branch prediction.

    A slow variant is warm after fewer rows, and at least one answered row is timed; infinity where none is answered.
    """
    from edgefleet.errors import RowRejected

    taken: list[float] = []
    start = time.perf_counter()
    for i in range(_WARM_UP_ROWS + _LATENCY_ROWS):
        row = x[i % len(x)]
        began = time.perf_counter()
        if taken and began - start > deadline_s:
            break
        try:
            scorer.score(row)
        except RowRejected:
            continue
        if i >= _WARM_UP_ROWS or began - start > deadline_s / 2:
            taken.append((time.perf_counter() - began) * 1e3)
    return np.array(taken or [float("inf")])


def _batch_row_ms(scorer: Any, x: NDArray[np.float32]) -> float:
    batch = x[np.arange(_BATCH_ROWS) % len(x)]
    taken = []
    for _ in range(_TIMED_BATCHES):
        began = time.perf_counter()
        scorer.score_batch(batch)
        taken.append((time.perf_counter() - began) * 1e3 / len(batch))
    return float(np.median(taken))


def _explained(scorer: Any, x: NDArray[np.float32]) -> dict[str, Any]:
    """What the explanation's gates ask, on rows that the scorer answers."""
    if not scorer.can_explain:
        return {}
    from converter.explain.fidelity import graph_difference, measure_explanation

    looked_at = x[:_EXPLAINED_ROWS]
    # A student was measured on every second row and is judged on the others, so rows that are not answered go with their neighbours.
    pairs = {row // 2 for row in scorer.score_batch(looked_at).rejected}
    answered = [row for row in range(len(looked_at)) if row // 2 not in pairs]
    gap, figures = measure_explanation(scorer, looked_at[answered])
    return {"explain_gap": gap, "fidelity": figures, "explain_difference": graph_difference(scorer, looked_at[answered])}
