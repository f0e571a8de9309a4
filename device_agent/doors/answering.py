"""One door for every row: the running model answers, and perhaps another model beside it.

A candidate on trial only listens (`shadow.py`): it scores the same rows off the hot path and touches nobody. A challenger answers a
share of the keys itself (`split.py`). A swap happens between two calls, never within one; no row is lost by it.
"""

import logging
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from device_agent.doors.ab import STEPS, check_share
from device_agent.doors.closed_windows import ClosedWindows
from device_agent.doors.shadow import BUDGET_FRACTION, Alone, Shadow
from device_agent.doors.split import Key, Split
from device_agent.scorer import BatchScores, Score, Scorer
from device_agent.telemetry.windows import Window
from edgefleet.errors import ArtifactError, ConfigError, InputError, ModelSwapped, RowRejected

if TYPE_CHECKING:  # a trial knows its signed policy, which a door without a fleet does not need
    from device_agent.update.trial import Trial

LOG = logging.getLogger(__name__)

Row = Sequence[object] | Mapping[str, object] | NDArray[Any]


class Answering:
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
        self._windows = ClosedWindows()
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
        with self._lock:
            first, split = self._first(1, made_for), self.split
            if split is not None and first is not self.earlier and split.chooses(key, row):
                split.rows += 1
                try:
                    return self._ask(split.challenger, row, explain)
                except ArtifactError as err:
                    split.fail(err)  # an experiment costs nobody an answer
            answer: Score | None = None
            try:
                answer = self._ask(first, row, explain)
                return answer
            except ArtifactError as err:
                self._failed(first, 1, err)
                raise
            finally:
                if self._shadow is not None and first is not self.earlier:
                    self._shadow.offer(row, answer)

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

    def install(self, scorer: Scorer) -> None:
        """Make a model the running one; the one before is closed after its window was taken. Ends a split.

        Raises:
            ArtifactError: The candidate that is to be installed does not come back from a row; nothing was changed.
        """
        with self._changing:
            promoted = scorer is self.candidate
            if not self._stop_shadow() and promoted:
                raise ArtifactError(f"model {scorer.digest[:12]} does not come back from a row that it was asked on trial")
            with self._lock:
                old, self.running = self.running, scorer
                split, self.split = self.split, None
                if promoted:
                    if old is not None:
                        scorer.take_window()  # its rows were answered, and counted, by the model before
                    self.candidate = self.trial = None
                elif self.candidate is not None and self.trial is not None:
                    self._shadow = Shadow(scorer, self.candidate, self.trial, self._shadow_fraction)
                for gone, share in ((old, None if split is None else STEPS - split.share_1024), (self.earlier, None)):
                    if gone is not None and gone is not scorer:
                        self._retire(gone, share)
                self.earlier = None
                if split is not None and split.challenger is scorer:
                    self._windows.close(scorer, split.share_1024)
                elif split is not None:
                    self._retire(split.challenger, split.share_1024)

    def begin_trial(self, scorer: Scorer, trial: "Trial") -> None:
        """Let a candidate be compared with the running model from the next row on; before the first model it answers itself."""
        with self._changing, self._lock:
            self.candidate, self.trial = scorer, trial
            self._shadow = Alone(trial) if self.running is None else Shadow(self.running, scorer, trial, self._shadow_fraction)

    def end_trial(self) -> None:
        """Let the candidate go."""
        with self._changing:
            stopped = self._stop_shadow()
            with self._lock:
                candidate, self.candidate, self.trial, self._shadow = self.candidate, None, None, None
            if candidate is not None and not stopped:
                LOG.error("model %s does not come back from a row; it is left alone", candidate.digest[:12])  # closing it would wait
            elif candidate is not None and self.running is None:
                self._retire(candidate)
            elif candidate is not None:
                candidate.close()

    def settle(self, timeout_s: float) -> bool:
        """Wait until the candidate has seen every row that it will see; False when the time was too short."""
        return (shadow := self._shadow) is None or shadow.settle(timeout_s)

    def begin_split(self, challenger: Scorer, share_1024: int, salt: str) -> Split:
        """Let another model, owned by this object from now on, answer a share of the keys until `end_split` or `install`; see `Split`.

        Raises:
            ConfigError: No running model, a split under way, models of different forms, or a value out of range.
        """
        with self._changing, self._lock:
            if self.running is None or self.split is not None:
                raise ConfigError("no model is installed yet" if self.split is None else f"split {self.split.salt!r} is under way; end it")
            split = Split(self.running, challenger, share_1024, salt)
            self._windows.close(self.running)  # the windows of a split hold nothing from before
            self.split = split
            return split

    def set_share(self, share_1024: int) -> None:
        """Change the challenger's share; windows end here, so that each is of one share.

        Raises:
            ConfigError: No split is under way, or the share is out of range.
        """
        with self._changing, self._lock:
            if (split := self.split) is None:
                raise ConfigError("no split is under way")
            check_share(share_1024, split.salt)
            self._close_open(None)
            split.share_1024 = share_1024

    def end_split(self) -> None:
        """Let the running model answer every row again, and the challenger go."""
        with self._changing, self._lock:
            if (split := self.split) is not None:
                self._close_open(None)
                self.split = None
                self._retire(split.challenger, split.share_1024)

    def keep_earlier(self, scorer: Scorer) -> None:
        """Let one more model answer who asks for it, and the one before go; its rows count in windows of its own."""
        with self._changing, self._lock:
            if self.earlier is not None:
                self._retire(self.earlier)
            self.earlier = scorer

    def take_windows(self, now_us: int) -> list[Window]:
        """Close the telemetry windows of the models that answer, and hand out those of models that have gone."""
        with self._lock:
            self._close_open(now_us)
            self.rows_in_window = 0
            return self._windows.take()

    def close(self) -> None:
        """Let go of all models; windows can still be taken before."""
        with self._changing:
            stopped = self._stop_shadow()
            with self._lock:
                challenger = self.split.challenger if self.split is not None else None
                for scorer in filter(None, (self.candidate if stopped else None, challenger, self.earlier, self.running)):
                    scorer.close()

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

    def _ask(self, model: Scorer, row: Row, explain: bool) -> Score:
        try:
            answer = model.score(row, explain=explain and model.can_explain)
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

    def _close_open(self, now_us: int | None) -> None:
        split = self.split
        shares = [(self.in_service, None if split is None else STEPS - split.share_1024), (self.earlier, None)]
        shares += [] if split is None else [(split.challenger, split.share_1024)]
        for model, share in shares:
            if model is not None:
                self._windows.close(model, share, now_us)
        if isinstance(self._shadow, Shadow):
            self._windows.compared(self._shadow.comparison.take())

    def _retire(self, scorer: Scorer, share_1024: int | None = None) -> None:
        self._windows.close(scorer, share_1024)
        scorer.close()

    def _stop_shadow(self) -> bool:
        stopped = (shadow := self._shadow) is None or shadow.stop()
        with self._lock:
            if isinstance(shadow, Shadow):
                stopped = stopped and shadow.stop()  # again: rows may have come since, and are shed now that none can
                self._windows.compared(shadow.comparison.take())
            self._shadow = None if stopped else shadow
        return stopped
