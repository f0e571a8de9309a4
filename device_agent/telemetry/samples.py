"""The few answers that are told one by one: explained rows, and rows themselves where operator and device both allow that."""

import logging
import time
from collections import deque
from collections.abc import Callable, Container, Sequence
from copy import deepcopy
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from device_agent.config import AgentConfig
from device_agent.connection import now_us
from device_agent.doors.answering import Answering, Row
from device_agent.doors.split import Key
from device_agent.score import BatchScores, Score
from device_agent.scorer import Scorer
from device_agent.telemetry.explaining import SampledExplanations
from device_agent.telemetry.payload import PayloadSampling
from edgefleet.desired import PayloadOrder
from edgefleet.errors import EdgefleetError
from edgefleet.messages import ExplanationBody, TelemetryKind, encode

LOG = logging.getLogger(__name__)

WAITING_VALUES: Final = 65_536
# How often the reports look: so far ahead the budget may be spent at once.
LOOK_S: Final = 0.1
# Spools a record: kind, model digest, start and end in microseconds UTC, body; whether it was stored.
Put = Callable[[TelemetryKind, str, int, int, bytes], bool]


class Samples:
    """Samples of one agent; safe for threads.

    Args:
        config: How often rows are explained, and what may leave.
        models: Who answers.
        put: Spools a record.
        order: Gives the operator's word about rows as it is now.

    Attributes:
        explaining: Sums of explanations.
        payload: Decides which rows leave.
    """

    def __init__(self, config: AgentConfig, models: Answering, put: Put, order: Callable[[], PayloadOrder | None]) -> None:
        self._config, self._models, self._put = config, models, put
        self.explaining = SampledExplanations(config.explain_every, config.explain_cpu_fraction)
        self.payload = PayloadSampling(config.payload, order)
        self._waiting: deque[tuple[Scorer, Row]] = deque()

    def facts(self) -> dict[str, Any]:
        """Counts since the start, by their names in the status."""
        explaining = self.explaining
        return {"explained": explaining.explained, "explanations_skipped": explaining.skipped, "rows_sent": self.payload.sampled}

    def explanation_is_due(self) -> bool:
        """Whether the next row is one of those that are explained."""
        running = self._models.running if self._config.explain_every else None
        return running is not None and running.can_explain and self.explaining.due(running.digest, time.monotonic())

    def score_explained(self, row: Row, asked: bool = False, made_for: Scorer | None = None, key: Key | None = None) -> Score:
        """Answer a row that is due: its explanation is summed, and sent as well unless there were many. Raises as `Answering.score`.

        It is explained once it has been answered, so that other rows need not wait, and a failing explanation costs nobody an answer;
        but where the caller `asked` for it, it comes with the answer or fails with it, and the budget is not charged.
        """
        score = self._models.score(row, explain=asked, made_for=made_for, key=key)
        if score.explanation is not None:
            self._tell(score)
            return score
        model = self._who_answered(score.digest)
        explained = None if model is None else self._explained(model, row)
        if explained is not None:
            score.explanation = explained.explanation
        return score

    def batch(self, rows: Sequence[Any] | NDArray[Any], answers: BatchScores) -> None:
        """Keep the rows of an answered batch that are due, for `catch_up`; WAITING_VALUES values may wait, what is more is skipped."""
        if self._config.explain_every and (model := self._who_answered(answers.digest)) is not None:
            self._keep(model, rows, len(answers), answers.rejected)

    def later(self, score: Score, row: Row) -> None:
        """The same for a single answered row whose caller must not wait; and `row`."""
        if self._config.explain_every and (model := self._who_answered(score.digest)) is not None:
            self._keep(model, [row], 1, ())
        self.row(score, row)

    def catch_up(self) -> None:
        """Explain rows of batches as far as the budget goes; called by the thread of the reports, as often as it looks."""
        while self._waiting and self.explaining.affords(time.monotonic(), LOOK_S):
            self._explained(*self._waiting.popleft())

    def _keep(self, model: Scorer, rows: Sequence[Any] | NDArray[Any], count: int, rejected: Container[int]) -> None:
        most = max(1, WAITING_VALUES // (len(model.bundle.manifest.inputs) * model.bundle.manifest.window_rows))
        due = self.explaining.due_in(model.digest, count)
        kept = due[: max(0, most - len(self._waiting))]
        for i in kept:
            if i not in rejected:
                self._waiting.append((model, deepcopy(rows[i])))  # the caller may fill its buffer anew
        if len(kept) < len(due):
            self.explaining.skip(model.digest, len(due) - len(kept))

    def _explained(self, model: Scorer, row: Row) -> Score | None:
        """Explain a row and tell it; None when its model has gone, or fails on it, which is counted."""
        start_s = time.thread_time()
        try:
            score = model.explain(row)
        except EdgefleetError as err:
            LOG.debug("row not explained: %s", err)
            self.explaining.skip(model.digest)
            return None
        finally:
            self.explaining.spent(time.thread_time() - start_s)
        self._tell(score)
        return score

    def _who_answered(self, digest: str) -> Scorer | None:
        """The model of that digest, if it explains."""
        running, split = self._models.running, self._models.split
        for model in (running, None if split is None else split.challenger):
            if model is not None and model.digest == digest:
                return model if model.can_explain else None
        return None

    def row(self, score: Score, row: Row) -> None:
        """Spool an answered row where both allow it; else nothing leaves, at the price of one comparison."""
        running = self._models.running
        if self._config.payload is None or running is None or score.digest != running.digest:
            return
        answer = (score.label or "", float(score.score))
        body = self.payload.take(running.bundle.digest, running.bundle.manifest.inputs, row, answer, time.monotonic())
        if body is not None:
            at = now_us()
            self._put("payload", score.digest, at, at, body)

    def _tell(self, score: Score) -> None:
        running, explanation = self._models.running, score.explanation
        if running is None or explanation is None:
            return
        self.explaining.add(score.digest, explanation.contributions)
        if score.digest != running.digest or not self.explaining.may_travel_alone(time.monotonic()):
            return
        at = now_us()
        body = ExplanationBody(
            bundle_digest=running.bundle.digest,
            label=score.label or "",
            score=float(score.score),
            margin=float(score.margin),
            base=float(explanation.base),
            contributions=np.asarray(explanation.contributions, float).tolist(),
            method=explanation.method,
            error=None if explanation.error is None else np.asarray(explanation.error, float).tolist(),
            gap=float(explanation.gap),
            segments=[] if explanation.segments is None else explanation.segments.tolist(),
        )
        self._put("explanation", score.digest, at, at, encode(body))
