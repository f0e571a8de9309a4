"""The scorer: check a row, run the model, count. The hot path keeps nothing that it allocates.

Guarantees: no byte reaches a parser before its digest was checked; a bad row is counted and answered with `RowRejected`, and the next row
is scored as if nothing had happened; statistics are exact whatever the batches. Safe for threads: one lock around a row.
Price: one row in 256 also pays for folding the statistics (about 50 us at 20 features, more with more).
"""

import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from device_agent.batching import CLOSED, RUNTIME_FAILED, Batching, ClosedBatching
from device_agent.choose import choose_variant
from device_agent.counting import Counting
from device_agent.decision import Decision
from device_agent.forking import mend_after_fork
from device_agent.opening import check_shape, checks_of, explainer_of, open_detector, reference_of, spread_of
from device_agent.ring import DEFAULT_SLOTS, MAX_RING_BYTES, Ring
from device_agent.row_stream import Row, RowStream, StreamAnswer, answers_at, answers_of
from device_agent.runtime import Matrix, open_runtime
from device_agent.score import BatchScores, Score, Source
from device_agent.telemetry.windows import Window, WindowCollector
from edgefleet.bundle import Bundle
from edgefleet.digests import sha256_hex
from edgefleet.errors import ArtifactError, ConfigError, InputError, RowRejected
from edgefleet.grid import Grid
from edgefleet.manifest import Variant

__all__ = ["RUNTIME_FAILED", "BatchScores", "Score", "Scorer", "choose_variant"]

BATCH_ROWS: Final = 1024
_clock = time.perf_counter_ns


class Scorer:
    """Scores rows with one variant of one bundle; make it with `Scorer.open`.

    Attributes:
        bundle: The opened bundle.
        variant: The variant that runs.
        digest: Sha256 of the graph's bytes as they were given to the runtime.
        chosen_because: One sentence: why this variant.
        decision: How the graph's numbers become a label.
        score_spread: Of values and anomaly scores: their standard deviation on the validation rows, None where the bundle does not say.
    """

    def __init__(self, bundle: Bundle, variant: Variant, chosen_because: str, ring_rows: int, outlier: bool) -> None:
        self.bundle, self.variant, self.chosen_because = bundle, variant, chosen_because
        self._ring_rows, self._outlier = ring_rows, outlier
        self._load()
        self._lock: AbstractContextManager[Any] = threading.Lock()
        mend_after_fork(self)

    def _load(self) -> None:
        """Open all files of the variant; what was counted before is forgotten."""
        manifest, graph = self.bundle.manifest, self.bundle.read(self.variant.file)
        self.digest = sha256_hex(graph)
        self._runtime = open_runtime(self.variant.runtime, graph)
        check_shape(manifest, self.variant, self._runtime)
        self._detector = open_detector(self.bundle, self.variant, self._runtime) if self._outlier else None
        self.decision = Decision.of(manifest, self._runtime.margins)
        self._source = Source(self.decision, self.digest)
        slots = min(self._ring_rows, max(1, MAX_RING_BYTES // (4 * math.prod(self._runtime.shape))))
        self._ring = Ring(self._runtime, slots)
        self._runs: Sequence[Callable[[], object]] = self._ring.runs
        self._checks = checks_of(manifest, self.variant, self._ring.rows)
        self._fits = self._checks.fits
        reference = reference_of(self.bundle)
        detects, now_us = self._detector is not None, time.time_ns() // 1000
        windows = WindowCollector(reference, self.decision, self.bundle.digest, self.digest, now_us, detects)
        self._counting = Counting(windows, self._ring, self._detector, len(manifest.inputs))
        self._batching: Batching | ClosedBatching = Batching(
            self._checks, self._runtime, self._counting, self.decision, detects, self.digest
        )
        self.score_spread = spread_of(reference)
        self._explainer = explainer_of(self.bundle, self.variant, self._runtime)

    @classmethod
    def open(
        cls,
        bundle: Bundle | Path | str,
        variant: str | None = None,
        *,
        runtimes: Sequence[str] | None = None,
        ring_rows: int = DEFAULT_SLOTS,
        outlier: bool = True,
        memory_bytes: int | None = None,
    ) -> "Scorer":
        """Open a bundle for scoring.

        Args:
            bundle: An opened bundle, or its folder.
            variant: Name of the variant, or None for the first in the manifest's order that this device can run: `chosen_because` says
                why it was taken, and why others were not.
            runtimes: Restrict the choice to these runtimes (`onnxruntime`, `litert`), or None for all that are installed.
            ring_rows: Rows between two folds of the statistics, at least 1; fewer where they would need more than 16 MiB.
            outlier: Also run the bundle's outlier detector, where it has one for the variant's runtime.
            memory_bytes: Budget for the model's resident bytes, by the estimate of `device_agent.choose.memory_needed`; None = no limit.

        Raises:
            ArtifactError: The bundle is damaged, inconsistent, or needs what this agent cannot do.
            MissingPartError: No runtime for any variant is installed.
            ConfigError: `ring_rows` is out of range, or no variant fits the device and its budget.
        """
        if not 1 <= ring_rows <= 65_536:
            raise ConfigError(f"ring_rows {ring_rows} is out of range, expected 1 to 65536")
        opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        chosen, because = choose_variant(opened.manifest, variant, runtimes, memory_bytes=memory_bytes)
        return cls(opened, chosen, because, ring_rows, outlier)

    @property
    def session(self) -> Any:
        """The bare runtime object: an onnxruntime InferenceSession or a LiteRT Interpreter. Not safe beside running scores (LiteRT)."""
        return self._runtime.raw

    @property
    def can_explain(self) -> bool:
        """Whether the variant carries what an explanation needs."""
        return self._explainer is not None

    @property
    def segment_rows_back(self) -> tuple[tuple[int, int], ...]:
        """Time segments in which a window is explained; see `Explanation`. Empty where there are none."""
        return () if self._explainer is None else self._explainer.segment_rows_back

    def score(self, row: Row, explain: bool = False, later: list[Callable[[], None]] | None = None) -> Score:
        """Score one row, or one window of rows where the manifest says `window_rows`.

        Args:
            row: F numbers in the manifest's order (None = missing, texts for categories), a mapping by input name, or an array [F].
                Of a model of windows: T such rows, oldest first, or an array [T, F].
            explain: Also say which inputs moved the answer; costs from a fraction of a millisecond (trees) to a batch of thousands of rows.
            later: Where the call that completes the explanation is put, for callers with locks of their own; None: it is made at once.

        Raises:
            RowRejected: The row is refused, and counted by its reason.
            ArtifactError: The runtime failed on this row.
            ConfigError: An explanation is asked of a variant without explainer, or the scorer is closed.
        """
        start = _clock()
        if explain:
            self._check_explains()
        with self._lock:
            ring = self._ring
            slot = ring.at
            source = slot if self._fits(row, slot) else self._judge(row, slot)
            try:
                self._runs[source]()
            except Exception as err:  # a runtime raises kinds of its own
                if not self._runs:
                    raise ConfigError(CLOSED) from err
                self._counting.refuse(slot, RUNTIME_FAILED)
                raise ArtifactError(f"model {self.digest[:12]} failed on a row: {str(err)[:200]}") from err
            if source != slot:
                ring.keep_answer(slot, source)
            answer = ring.answer_rows[slot].copy()
            seen = None if self._detector is None else (self._detector, ring.rows[slot].copy())
            given = ring.rows[source].reshape(self._runtime.shape).copy() if explain else None
            ring.latency_ns[slot] = taken = _clock() - start
            ring.at = slot + 1
            if slot + 1 == ring.slots:
                self._counting.fold()
        score = Score(answer, self._source, taken / 1e6, seen)
        if given is not None:
            explaining = partial(self._explain, given, score, start)
            explaining() if later is None else later.append(explaining)
        return score

    def explain(self, row: Row) -> Score:
        """Answer and explain a row that is no traffic, as `score` would: it enters no statistics. Raises as `score`, and counts nothing."""
        start = _clock()
        self._check_explains()
        with self._lock:
            given, answer = self._batching.answer_aside(row)
        score = Score(answer, self._source, 0.0, None)
        self._explain(given, score, start)
        return score

    def score_batch(self, rows: Sequence[object] | NDArray[Any]) -> BatchScores:
        """Score many rows; each bad row is counted, stands as NaN in the answer and with its reason in `rejected`.

        Args:
            rows: Array [n, F] (windows: [n, T, F]) of numbers, or a sequence of rows as `score` takes them.

        Raises:
            InputError: An array of another shape or not of numbers; rows inside are refused one by one.
            ArtifactError: The runtime failed; the rows that it was given are counted as refused.
            ConfigError: The scorer is closed.
        """
        shape = self._runtime.shape
        if isinstance(rows, np.ndarray) and (rows.shape[1:] != shape or rows.dtype.kind not in "fiub"):
            expected = ", ".join(map(str, shape))
            raise InputError(f"rows are {rows.dtype} of shape {rows.shape}, expected numbers of shape [n, {expected}]")
        answers = np.full((len(rows), self.decision.width), np.nan, np.float32)
        strange = np.full(len(rows), np.nan, np.float32)
        rejected: dict[int, RowRejected] = {}
        for start in range(0, len(rows), BATCH_ROWS):
            chunk = slice(start, start + BATCH_ROWS)
            with self._lock:
                refused = self._batching.answer(rows[chunk], answers[chunk], strange[chunk])
            rejected.update({start + i: err for i, err in refused.items()})
        if self._detector is None:
            return BatchScores(answers, self.decision, rejected, digest=self.digest)
        return BatchScores(answers, self.decision, rejected, strange, self._detector.outliers(strange), self.digest)

    def stream(self, grid: Grid | Literal["manifest"] | None = "manifest") -> RowStream:
        """A place for the rows of one source, one by one, which keeps the last rows where the model wants windows of them.

        Args:
            grid: Puts rows that arrive at any time on a fixed grid first; then each row needs its time. The manifest's is the one of the
                training rows; it has none where they were taken as they came. None: the rows are on the grid already.
        """
        return RowStream(self, self.bundle.manifest, self.variant, grid)

    def score_stream(self, rows: Iterable[Row]) -> Iterator[StreamAnswer]:
        """Answer rows of one source one after the other, each before the next is taken.

        Yields:
            For each row its `Score`, `WarmingUp` while the window is not full, or the `RowRejected` that refused it.

        Raises:
            ArtifactError, ConfigError: As `score`; ConfigError also where the manifest has a grid, which needs times (`score_stream_at`).
        """
        return answers_of(self.stream(), rows)

    def score_stream_at(self, rows: Iterable[tuple[float, Row]]) -> Iterator[tuple[float, StreamAnswer]]:
        """Answer the grid points of one source's rows, each as soon as a row shows that it is complete.

        Args:
            rows: When each row was measured, in seconds since 1970, and the row.

        Yields:
            Grid time and its answer; for a refused row its own time and the `RowRejected`. Raises as `score_stream`, without a grid too.
        """
        return answers_at(self.stream(), rows)

    def reject(self, reason: str) -> None:
        """Count a row that was refused before it came to `score`."""
        with self._lock:
            self._counting.reject(reason)

    def take_window(self, now_us: int | None = None) -> Window | None:
        """Close the telemetry window, all rows since the last call, at `now_us` microseconds UTC (None: now); None when there were none."""
        with self._lock:
            return self._counting.take(time.time_ns() // 1000 if now_us is None else now_us)

    def close(self) -> None:
        """Let go of the graph; scoring afterwards is a ConfigError. The open window can still be taken."""
        with self._lock:
            self._runs, self._batching = (), ClosedBatching()
            self._runtime.close()

    def __enter__(self) -> "Scorer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_explains(self) -> None:
        if self._explainer is None:
            raise ConfigError(f"variant {self.variant.name} carries no explainer; convert the package with an explanation, or ask for none")

    def _reload(self) -> None:
        """Open the bundle again in a forked child; what is closed stays closed."""
        if self._runs:
            self._load()

    def _judge(self, row: object, slot: int) -> int:
        """Write a row into the ring and return the ring row that the model may be given; refusals are counted."""
        try:
            self._checks.parse(row, slot)
        except RowRejected as err:
            self._counting.reject(err.reason)
            raise
        try:
            return self._checks.admit(slot)
        except RowRejected as err:
            self._counting.refuse(slot, err.reason)
            raise

    def _explain(self, row: Matrix, score: Score, start: int) -> None:
        assert self._explainer is not None  # noqa: S101 - `score` has refused this before
        score.explanation = self._explainer.explain(row, score.index, score.margin, self._locked_margins)
        score.latency_ms = (_clock() - start) / 1e6

    def _locked_margins(self, rows: Matrix) -> Matrix:
        with self._lock:
            return self._batching.margins_aside(rows)
