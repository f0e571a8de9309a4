"""A candidate that scores the same rows off the hot path: a bounded queue, a thread of its own, and a budget of processor time.

The caller's thread pays for a copy of the row and nothing else: no wake-up, no lock, no model. Rows for which there is no room are shed:
counted in the comparison and in the trial. A candidate that hangs hangs this thread only.
Memory: at most MAX_ROWS rows and MAX_VALUES values. Time: BUDGET_FRACTION of one core; a row is compared IDLE_S later at the earliest.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from device_agent.doors.comparison import Comparison, Heard, heard, heard_in_batch
from device_agent.score import BatchScores, Score
from device_agent.scorer import Scorer
from edgefleet.errors import EdgefleetError, without_values

if TYPE_CHECKING:
    from device_agent.update.trial import Trial

LOG = logging.getLogger(__name__)

MAX_ROWS: Final = 1024
MAX_VALUES: Final = 262_144
# Short, because the interpreter is not free for the running model while a batch is prepared.
BATCH_ROWS: Final = 16
BUDGET_FRACTION: Final = 0.25
IDLE_S: Final = 0.02
JOIN_S: Final = 5.0


# Rows, how many, what the running model said to each (a list) or to all, and whether they came as a batch. A plain tuple: it is made for
# every row of the running model.
_Waiting = tuple[Any, int, "Score | BatchScores | list[Score | None] | None", bool]


class Shadow:
    """The candidate's place beside the running model.

    Args:
        running: The model whose answers count.
        candidate: The one that is compared.
        trial: Told of every row, compared or shed.
        budget_fraction: Share of one core that it may use, above 0 and at most 1.
    """

    def __init__(self, running: Scorer, candidate: Scorer, trial: "Trial", budget_fraction: float = BUDGET_FRACTION) -> None:
        self._candidate, self._trial, self._rest_per_work = candidate, trial, 1.0 / budget_fraction - 1.0
        ours, theirs = running.bundle, candidate.bundle
        self.comparison = Comparison((ours.manifest, ours.digest), (theirs.manifest, theirs.digest), trial.tolerance)
        self._window_rows = ours.manifest.window_rows
        values = len(ours.manifest.inputs) * self._window_rows
        self._longest, self._limit = 2 * values, min(MAX_ROWS, max(BATCH_ROWS, MAX_VALUES // values))
        self._queue: deque[_Waiting] = deque()
        # Each is written by one side only, so that neither needs a lock.
        self._taken_in = self._unasked = 0
        self._done = self._told_unasked = 0
        self._closed = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="shadow", daemon=True)
        self._thread.start()

    def offer(self, row: Any, answer: Score | None) -> None:
        """Note a row and what the running model said; from one thread at a time."""
        if self._taken_in - self._done >= self._limit or self._closed:
            self._unasked += 1
            return
        self._taken_in += 1
        plain = type(row) is list and self._window_rows == 1 and len(row) <= self._longest
        self._queue.append((row.copy() if plain else self._kept(row), 1, answer, False))

    def offer_batch(self, rows: Any, answers: BatchScores | None) -> None:
        """Note a batch; of one that is larger than the room its first rows."""
        room = 0 if self._closed else self._limit - (self._taken_in - self._done)
        count = min(len(rows), max(room, 0))
        self._unasked += len(rows) - count
        if count:
            first = rows[:count]
            kept = first.copy() if isinstance(first, np.ndarray) else [self._kept(row) for row in first]
            self._taken_in += count
            self._queue.append((kept, count, answers, True))

    def settle(self, timeout_s: float) -> bool:
        """Wait until everything offered was compared; False when the time was too short."""
        deadline = time.monotonic() + timeout_s
        pause = threading.Event()
        while self._done < self._taken_in:
            if time.monotonic() >= deadline or not self._thread.is_alive():
                return False
            pause.wait(0.001)
        return True

    def stop(self) -> bool:
        """Stop comparing; what waits is shed. False when the candidate does not come back from a row."""
        self._closed = True
        self._stop.set()
        self._thread.join(JOIN_S)
        if self._thread.is_alive():
            return False
        self._shed(sum(size for _, size, _, _ in self._queue))
        self._queue.clear()
        self._tell_unasked()
        return True

    def _kept(self, row: Any) -> Any:
        # The caller may use its row again; and one that is far too long would be refused for that by both models.
        try:
            if len(row) > self._longest:
                return ()
            if isinstance(row, np.ndarray):
                return row.copy()
            if isinstance(row, Mapping):
                return dict(row)
            if not isinstance(row, Sequence) or isinstance(row, str):
                return ()
            return [self._kept(inner) for inner in row] if self._window_rows > 1 else list(row)
        except TypeError:
            return ()

    def _shed(self, rows: int) -> None:
        if rows:
            self.comparison.shed(rows)
            self._trial.count_shed(rows)

    def _tell_unasked(self) -> None:
        unasked = self._unasked
        self._shed(unasked - self._told_unasked)
        self._told_unasked = unasked

    def _work(self) -> None:
        while not self._stop.is_set():
            waiting = self._next()
            self._tell_unasked()
            if waiting is None:
                self._stop.wait(IDLE_S)
            else:
                self._compare(waiting)

    def _next(self) -> _Waiting | None:
        """The batch in front, or up to BATCH_ROWS single rows as one."""
        queue = self._queue
        if not queue:
            return None
        if queue[0][3]:
            return queue.popleft()
        singles: list[_Waiting] = []
        while queue and len(singles) < BATCH_ROWS and not queue[0][3]:
            singles.append(queue.popleft())
        answers: list[Any] = [answer for _, _, answer, _ in singles]
        return [row for row, _, _, _ in singles], len(singles), answers, True

    def _compare(self, waiting: _Waiting) -> None:
        rows, size, answers, _ = waiting
        counted = 0
        try:
            said = _said(answers, size)
            while counted < size and not self._stop.is_set():
                start_s = time.thread_time()
                chunk = slice(counted, min(counted + BATCH_ROWS, size))
                for ours, theirs in zip(said[chunk], self._answers(rows[chunk]), strict=True):
                    self.comparison.add(ours, theirs)
                    self._trial.count(None if ours is None else ours.said, None if theirs is None else theirs.said)
                    counted += 1
                self._stop.wait((time.thread_time() - start_s) * self._rest_per_work)
        except Exception as err:  # a thread that died would look like a candidate that has nothing to say
            LOG.exception("%d rows could not be compared", size - counted)
            self._trial.last_error = f"{type(err).__name__}; see the agent's log"
        self._shed(size - counted)
        self._done += size

    def _answers(self, rows: Any) -> list[Heard | None]:
        """What the candidate says: to the first row alone, because a row's latency in a batch is none, to the others together."""
        return [self._answer(rows[0]), *(self._answer_batch(rows[1:]) if len(rows) > 1 else ())]

    def _answer_batch(self, rows: Any) -> list[Heard | None]:
        try:
            answers = self._candidate.score_batch(rows)
        except EdgefleetError as err:
            self._trial.last_error = without_values(err)
            return [self._answer(row) for row in rows]  # one of them may have failed for all
        if answers.rejected:
            self._trial.last_error = without_values(next(iter(answers.rejected.values())))
        return heard_in_batch(answers, len(rows))

    def _answer(self, row: Any) -> Heard | None:
        try:
            score = self._candidate.score(row)
            self.comparison.took(score.latency_ms)
            return heard(score)
        except EdgefleetError as err:
            self._trial.last_error = without_values(err)
            return None


class Alone:
    """The place of the first model on trial: it answers by itself, and there is nothing to compare it with."""

    def __init__(self, trial: "Trial") -> None:
        self._trial = trial

    def offer(self, _row: Any, answer: Score | None) -> None:
        """Count a row."""
        said = heard(answer)
        self._trial.count(None, None if said is None else said.said)

    def offer_batch(self, rows: Any, answers: BatchScores | None) -> None:
        """Count many."""
        for said in heard_in_batch(answers, len(rows)):
            self._trial.count(None, None if said is None else said.said)

    def settle(self, _timeout_s: float) -> bool:
        """Nothing waits here."""
        return True

    def stop(self) -> bool:
        """Nothing runs here."""
        return True


def _said(answers: Score | BatchScores | list[Score | None] | None, size: int) -> list[Heard | None]:
    if isinstance(answers, list):
        return [heard(one) for one in answers]
    if isinstance(answers, Score):
        return [heard(answers)]
    return heard_in_batch(answers, size)[:size]
