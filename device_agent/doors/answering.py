"""One door for every row: the running model answers, and a candidate on trial answers beside it, unseen.

A swap happens between two rows, never within one; no row is lost by it. The candidate's failures are counted and touch nobody.
"""

import math
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from device_agent.scorer import BatchScores, Score, Scorer
from device_agent.telemetry.windows import Window
from edgefleet.errors import ConfigError, EdgefleetError, InputError, RowRejected, without_values

if TYPE_CHECKING:  # a trial knows its signed policy, and with it 7 MB of cryptography that a door without a fleet does not need
    from device_agent.update.trial import Said, Trial

Row = Sequence[object] | Mapping[str, object] | NDArray[Any]


class ModelSwapped(EdgefleetError):
    """Rows were put in the order of a model that does not answer any more: put them in order again."""


class Answering:
    """The running model, perhaps a candidate, and counters since the start of the agent.

    Attributes:
        rows: Rows answered.
        rejected: Rows refused because of their values.
        unanswered: Rows that came when no model was there, or that the model failed on.
        rows_in_window: Rows that came since the last window was taken.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._running: Scorer | None = None
        self._candidate: Scorer | None = None
        self._trial: Trial | None = None
        self._closed_windows: list[Window] = []
        self.rows = self.rejected = self.unanswered = self.rows_in_window = 0

    @property
    def running(self) -> Scorer | None:
        """The committed model, None before the first."""
        return self._running

    @property
    def in_service(self) -> Scorer | None:
        """The model whose answers count: the committed one, before the first the candidate; None when there is neither."""
        return self._running or self._candidate

    def running_digest(self) -> str:
        """Bundle digest of the committed model, "" before the first."""
        running = self._running
        return running.bundle.digest if running is not None else ""

    def score(self, row: Row, explain: bool = False, made_for: Scorer | None = None) -> Score:
        """Answer one row.

        Args:
            row: As `Scorer.score` takes it.
            explain: Ask for an explanation; a variant without explainer answers without one.
            made_for: The model whose order of inputs the row is in, None where that is the caller's matter.

        Raises:
            RowRejected: The row is refused, and counted.
            ModelSwapped: Another model than `made_for` answers now; nothing was counted.
            ConfigError: No model has been installed yet.
            ArtifactError: The running model failed on this row.
        """
        with self._lock:
            first = self._answering(made_for)
            self.rows_in_window += 1
            if first is None:
                self.unanswered += 1
                raise ConfigError("no model is installed yet; start a rollout that selects this device")
            answer: Score | None = None
            try:
                answer = first.score(row, explain=explain and first.can_explain)
                self.rows += 1
                return answer
            except RowRejected:
                self.rejected += 1
                raise
            except EdgefleetError as err:
                self.unanswered += 1
                if first is self._candidate and self._trial is not None:
                    self._trial.last_error = without_values(err)
                raise
            finally:
                self._compare(row, answer)

    def score_batch(self, rows: Sequence[Any] | NDArray[Any], made_for: Scorer | None = None) -> BatchScores:
        """Answer many rows with one model.

        Args:
            rows: As `Scorer.score_batch` takes them.
            made_for: The model whose order of inputs the rows are in, None where that is the caller's matter.

        Raises:
            InputError: An array of another shape or not of numbers; all its rows are counted as rejected.
            ModelSwapped: Another model than `made_for` answers now; nothing was counted.
            ConfigError: No model has been installed yet.
            ArtifactError: The running model failed on these rows.
        """
        with self._lock:
            first = self._answering(made_for)
            self.rows_in_window += len(rows)
            if first is None:
                self.unanswered += len(rows)
                raise ConfigError("no model is installed yet; start a rollout that selects this device")
            try:
                answers = first.score_batch(rows)
            except InputError:
                self.rejected += len(rows)
                raise
            except EdgefleetError as err:
                self.unanswered += len(rows)
                if first is self._candidate and self._trial is not None:
                    self._trial.last_error = without_values(err)
                self._compare_batch(rows, None)
                raise
            self.rows += len(rows) - len(answers.rejected)
            self.rejected += len(answers.rejected)
            self._compare_batch(rows, answers)
            return answers

    def install(self, scorer: Scorer) -> None:
        """Make a model the running one; the one before is closed after its window was taken."""
        with self._lock:
            old, self._running = self._running, scorer
            if scorer is self._candidate:
                if old is not None:
                    scorer.take_window()  # its rows were answered, and counted, by the model before
                self._candidate = self._trial = None
            if old is not None and old is not scorer:
                self._retire(old)

    def begin_trial(self, scorer: Scorer, trial: "Trial") -> None:
        """Let a candidate answer beside the running model from the next row on."""
        with self._lock:
            self._candidate, self._trial = scorer, trial

    def end_trial(self) -> None:
        """Let the candidate go."""
        with self._lock:
            candidate, self._candidate, self._trial = self._candidate, None, None
            if candidate is None:
                return
            if self._running is None:
                self._retire(candidate)
            else:
                candidate.close()

    @property
    def candidate(self) -> Scorer | None:
        """The model on trial."""
        return self._candidate

    @property
    def trial(self) -> "Trial | None":
        """The trial's counts."""
        return self._trial

    def take_windows(self, now_us: int) -> list[Window]:
        """Close the telemetry window of the model that answers, and hand out those of models that have gone."""
        with self._lock:
            taken, self._closed_windows = self._closed_windows, []
            answering = self._running or self._candidate
            window = answering.take_window(now_us) if answering is not None else None
            self.rows_in_window = 0
            return [*taken, window] if window is not None else taken

    def close(self) -> None:
        """Let go of both models; windows can still be taken before."""
        with self._lock:
            for scorer in (self._candidate, self._running):
                if scorer is not None:
                    scorer.close()

    def _answering(self, made_for: Scorer | None) -> Scorer | None:
        first = self._running or self._candidate
        if first is not made_for and made_for is not None:
            raise ModelSwapped("another model was installed meanwhile")
        return first

    def _retire(self, scorer: Scorer) -> None:
        window = scorer.take_window()
        if window is not None:
            self._closed_windows.append(window)
        scorer.close()

    def _compare(self, row: Row, answer: Score | None) -> None:
        trial, candidate = self._trial, self._candidate
        if trial is None or candidate is None:
            return
        if self._running is None:
            trial.count(None, _said(answer))
            return
        theirs: Said = None
        try:
            theirs = _said(candidate.score(row))
        except EdgefleetError as err:
            trial.last_error = without_values(err)
        trial.count(_said(answer), theirs)

    def _compare_batch(self, rows: Sequence[Any] | NDArray[Any], answers: BatchScores | None) -> None:
        trial, candidate = self._trial, self._candidate
        if trial is None or candidate is None:
            return
        said = _said_in_batch(answers, len(rows))
        if self._running is None:
            for one in said:
                trial.count(None, one)
            return
        theirs: BatchScores | None = None
        try:
            theirs = candidate.score_batch(rows)
        except EdgefleetError as err:
            trial.last_error = without_values(err)
        for one, other in zip(said, _said_in_batch(theirs, len(rows)), strict=True):
            trial.count(one, other)


def _said(answer: Score | None) -> "Said":
    if answer is None or math.isnan(answer.score):
        return None
    return answer.score if answer.label is None else answer.label


def _said_in_batch(answers: BatchScores | None, rows: int) -> "list[Said]":
    if answers is None:
        return [None] * rows
    pairs = zip(answers.label.tolist(), answers.score.tolist(), strict=True)
    return [None if math.isnan(score) else score if label is None else label for label, score in pairs]
