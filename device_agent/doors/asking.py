"""The way of a row: who is asked, and what is counted of it. `Answering` adds how models come and go."""

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from device_agent.doors.closed_windows import ClosedWindows
from device_agent.doors.leaving import Leaving
from device_agent.doors.shadow import BUDGET_FRACTION, Alone, Shadow
from device_agent.doors.split import Key, Split
from device_agent.scorer import BatchScores, Score, Scorer
from edgefleet.errors import ArtifactError, ConfigError, InputError, ModelSwapped, RowRejected

if TYPE_CHECKING:  # a trial knows its signed policy, which a door without a fleet does not need
    from device_agent.update.trial import Trial

Row = Sequence[object] | Mapping[str, object] | NDArray[Any]


class Asking:
    """The running model, perhaps a candidate or a challenger, and counters since the start of the agent.

    Args:
        shadow_fraction: Share of one core that a candidate may use beside the running model, above 0 and at most 1.

    Attributes:
        running: The committed model, None before the first. This and the next three are for others to read only.
        candidate: The model on trial; `trial` are its counts.
        split: The experiment that is under way.
        earlier: A model that answers only who asks for it (`made_for`), until another one is installed.
        rows, rejected: Rows answered, and rows refused because of their values.
        unanswered: Rows that came when no model was there, or that the model failed on.
        rows_in_window: Rows that came since the last window was taken.
    """

    def __init__(self, shadow_fraction: float = BUDGET_FRACTION) -> None:
        if not 0.0 < shadow_fraction <= 1.0:
            raise ConfigError(f"a share of {shadow_fraction} of one core is out of range, expected above 0 and at most 1")
        self._lock = threading.RLock()
        self._changing = threading.RLock()  # models come and go one at a time, without holding up the rows
        self._shadow_fraction = shadow_fraction
        self.running: Scorer | None = None
        self.earlier: Scorer | None = None
        self.candidate: Scorer | None = None
        self.trial: Trial | None = None
        self._shadow: Shadow | Alone | None = None
        self.split: Split | None = None
        self._windows, self._leaving = ClosedWindows(), Leaving()
        self.rows = self.rejected = self.unanswered = self.rows_in_window = 0

    @property
    def in_service(self) -> Scorer | None:
        """The model whose answers count: the committed one, before the first the candidate; None when there is neither."""
        return self.running or self.candidate

    def running_digest(self) -> str:
        """Bundle digest of the committed model, "" before the first."""
        return "" if (running := self.running) is None else running.bundle.digest

    def score(self, row: Row, explain: bool = False, made_for: Scorer | None = None, key: Key | None = None) -> Score:
        """Answer one row.

        Args:
            row: As `Scorer.score` takes it.
            explain: Ask for an explanation; a variant without explainer answers without one.
            made_for: The model whose order of inputs the row is in, None where that is the caller's matter.
            key: While two models share the rows: what the choice shall stick to; None is the row's values.

        Raises:
            RowRejected: The row is refused, and counted.
            ModelSwapped: Another model than `made_for` answers now; nothing was counted.
            ConfigError: No model has been installed yet.
            ArtifactError: The running model failed on this row.
        """
        later: list[Callable[[], None]] = []
        with self._lock:
            answer, model, split = self._answer(row, explain, later, made_for, key)
            if not later:
                return answer
            self._leaving.use(model)
        try:
            later[0]()  # others are answered meanwhile
            return answer
        except ArtifactError as err:
            with self._lock:
                self.rows -= 1
                if split is None:
                    self._failed(model, 1, err)
                    raise
                split.fail(err)
                return self._ask(self._first(0, made_for), row, explain)
        finally:
            with self._lock:
                self._leaving.done(model)

    def score_batch(self, rows: Sequence[Any] | NDArray[Any], made_for: Scorer | None = None, key: Key | None = None) -> BatchScores:
        """Answer many rows with one model.

        Rows are taken as by `Scorer.score_batch`, `made_for` and `key`, of the batch as a whole, as by `score`.

        Raises:
            InputError: An array of another shape or not of numbers; all its rows are counted as rejected.
            ModelSwapped, ConfigError, ArtifactError: As in `score`.
        """
        with self._lock:
            first, split = self._first(len(rows), made_for), self.split
            if split is not None and first is not self.earlier and split.chooses(key, rows):
                split.rows += len(rows)
                try:
                    return self._ask_batch(split.challenger, rows)
                except ArtifactError as err:
                    split.fail(err, len(rows))
            answers: BatchScores | None = None
            try:
                answers = self._ask_batch(first, rows)
                return answers
            except ArtifactError as err:
                self._failed(first, len(rows), err)
                raise
            finally:
                if self._shadow is not None and first is not self.earlier:
                    self._shadow.offer_batch(rows, answers)

    def _answer(
        self, row: Row, explain: bool, later: list[Callable[[], None]], made_for: Scorer | None, key: Key | None
    ) -> tuple[Score, Scorer, Split | None]:
        """An answer, who gave it, and the split that chose him if he is its challenger; the explanation is left to the caller."""
        first, split = self._first(1, made_for), self.split
        if split is not None and first is not self.earlier and split.chooses(key, row):
            split.rows += 1
            try:
                return self._ask(split.challenger, row, explain, later), split.challenger, split
            except ArtifactError as err:
                split.fail(err)  # an experiment costs nobody an answer
        answer: Score | None = None
        try:
            answer = self._ask(first, row, explain, later)
            return answer, first, None
        except ArtifactError as err:
            self._failed(first, 1, err)
            raise
        finally:
            if self._shadow is not None and first is not self.earlier:
                self._shadow.offer(row, answer)

    def _first(self, rows: int, made_for: Scorer | None) -> Scorer:
        first = self.in_service
        # A challenger has the running model's inputs, so that rows made for either suit both.
        if made_for is not None and made_for not in (first, self.split and self.split.challenger):
            if made_for is not self.earlier:
                raise ModelSwapped("another model was installed meanwhile")
            first = made_for
        self.rows_in_window += rows
        if first is None:
            self.unanswered += rows
            raise ConfigError("no model is installed yet; start a rollout that selects this device")
        return first

    def _ask(self, model: Scorer, row: Row, explain: bool, later: list[Callable[[], None]] | None = None) -> Score:
        try:
            answer = model.score(row, explain and model.can_explain, later)
        except RowRejected:
            self.rejected += 1
            raise
        self.rows += 1
        return answer

    def _ask_batch(self, model: Scorer, rows: Sequence[Any] | NDArray[Any]) -> BatchScores:
        try:
            answers = model.score_batch(rows)
        except InputError:
            self.rejected += len(rows)
            raise
        self.rows += len(rows) - len(answers.rejected)
        self.rejected += len(answers.rejected)
        return answers

    def _failed(self, model: Scorer, rows: int, err: ArtifactError) -> None:
        self.unanswered += rows
        if model is self.candidate and self.trial is not None:
            self.trial.last_error = str(err)
