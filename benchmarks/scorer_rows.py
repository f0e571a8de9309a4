"""Single rows and batches: `Scorer` with checks, statistics and telemetry beside the bare runtime's call on the same rows.

The ways take turns, a few rows each, so that a machine that is busy elsewhere disturbs all of them alike; the rows rotate, because the same
row again and again flatters trees by branch prediction. Ratios of means hold the folding of the statistics, which one row in 256 pays.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.figures import Figure
from device_agent.scorer import Scorer

TURN: Final = 32  # calls of one way before the next has its turn
RING: Final = 256  # a round: every way folds its statistics once
BATCH: Final = 1000
P99_LIMIT: Final = 2.0
BY_NAME_LIMIT: Final = 1.3

Matrix = NDArray[np.float32]


@dataclass(frozen=True)
class Taken:
    """Times of one way: the mean of each round, and every call, in microseconds."""

    means: list[float]
    calls: list[float]

    @property
    def mean(self) -> float:
        """Median of the rounds' means."""
        return statistics.median(self.means)

    def quantile(self, share: float) -> float:
        """Of single calls."""
        return float(np.quantile(self.calls, share))


def measure_rows(name: str, bundle: Path, x: Matrix, rounds: int, limit: float) -> list[Figure]:
    """Figures of one model; n = rounds x 256 calls each.

    Args:
        name: Model in the figures' names.
        bundle: Its folder.
        x: Rows [n, F], n a multiple of 256.
        rounds: Rounds of 256 rows.
        limit: Largest good ratio of `score(array)` to the bare call, of means and of medians.
    """
    start = time.perf_counter_ns()
    scorer = Scorer.open(bundle)
    opened_ms = (time.perf_counter_ns() - start) / 1e6
    rows, lists = list(x), x.tolist()
    names = [column.name for column in scorer.bundle.manifest.inputs]
    mappings = [dict(zip(names, row, strict=True)) for row in lists]
    bare = bare_call(scorer, x)
    ways: dict[str, Callable[[int], Any]] = {
        "bare": bare,
        "array": lambda i: scorer.score(rows[i]),
        "list": lambda i: scorer.score(lists[i]),
        "mapping": lambda i: scorer.score(mappings[i]),
        "array, label and score read": lambda i: _read(scorer.score(rows[i])),
    }
    taken = interleaved(ways, len(x), rounds)
    scorer.close()
    raw, array, mapping, n = taken["bare"], taken["array"], taken["mapping"], rounds * RING
    figures = [
        Figure(f"{name}: open", opened_ms, "ms", None, 1),
        Figure(f"{name}: bare call, mean", raw.mean, "us", None, n),
        Figure(f"{name}: bare call, p50", raw.quantile(0.5), "us", None, n),
        Figure(f"{name}: score(array) / bare call, means", array.mean / raw.mean, "ratio", limit, n),
        Figure(f"{name}: score(array) / bare call, p50", array.quantile(0.5) / raw.quantile(0.5), "ratio", limit, n),
        Figure(f"{name}: score(array) / bare call, p99", array.quantile(0.99) / raw.quantile(0.99), "ratio", P99_LIMIT, n),
        Figure(f"{name}: score(mapping) / score(array), p50", mapping.quantile(0.5) / array.quantile(0.5), "ratio", BY_NAME_LIMIT, n),
    ]
    for way in ("list", "array, label and score read"):
        figures.append(Figure(f"{name}: score({way}) / bare call, p50", taken[way].quantile(0.5) / raw.quantile(0.5), "ratio", None, n))
    return figures


def measure_batch(name: str, bundle: Path, x: Matrix, rounds: int, ratio: float | None, more_us: float | None) -> Figure:
    """`score_batch` of 1,000 rows beside one bare call of as many: as a ratio, or as microseconds more for each row."""
    scorer = Scorer.open(bundle)
    rows = np.ascontiguousarray(np.resize(x, (BATCH, x.shape[1])))
    session, entry = scorer.session, scorer.session.get_inputs()[0].name
    ways: dict[str, Callable[[], Any]] = {"bare": lambda: session.run(None, {entry: rows}), "batch": lambda: scorer.score_batch(rows)}
    taken: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, call in ways.items():
            start = time.perf_counter_ns()
            call()
            taken[way].append((time.perf_counter_ns() - start) / 1e3)
    scorer.close()
    bare, batch = (statistics.median(taken[way]) for way in ("bare", "batch"))
    if ratio is not None:
        return Figure(f"{name}: score_batch / bare batch, {BATCH} rows", batch / bare, "ratio", ratio, rounds)
    return Figure(f"{name}: score_batch - bare batch, a row", (batch - bare) / BATCH, "us", more_us, rounds)


def bare_call(scorer: Scorer, x: Matrix) -> Callable[[int], Any]:
    """What a program without us would call for row i."""
    session = scorer.session
    if scorer.variant.runtime == "onnxruntime":
        entry = session.get_inputs()[0].name
        return lambda i: session.run(None, {entry: x[i : i + 1]})
    entry = session.get_input_details()[0]["index"]
    outputs = [output["index"] for output in session.get_output_details()]

    def call(i: int) -> list[Any]:
        session.set_tensor(entry, x[i : i + 1])
        session.invoke()
        return [session.get_tensor(output) for output in outputs]

    return call


def interleaved(ways: dict[str, Callable[[int], Any]], rows: int, rounds: int) -> dict[str, Taken]:
    """Call every way for row after row, turn by turn; the first round warms up and does not count."""
    taken = {way: Taken([], []) for way in ways}
    for turn in range(rounds + 1):
        spent: dict[str, list[float]] = {way: [] for way in ways}
        for first in range(turn * RING, (turn + 1) * RING, TURN):
            for way, call in ways.items():
                spent[way] += _times_us(call, [i % rows for i in range(first, first + TURN)])
        if turn:
            for way, calls in spent.items():
                taken[way].means.append(statistics.fmean(calls))
                taken[way].calls.extend(calls)
    return taken


def _times_us(call: Callable[[int], Any], rows: list[int]) -> list[float]:
    clock, taken = time.perf_counter_ns, []
    for i in rows:
        start = clock()
        call(i)
        taken.append((clock() - start) / 1e3)
    return taken


def _read(score: Any) -> tuple[str | None, float]:
    return score.label, score.score
