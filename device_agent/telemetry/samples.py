"""The few answers that are told one by one: explained rows, and rows themselves where operator and device both allow that."""

import time
from collections.abc import Callable

import numpy as np

from device_agent.config import AgentConfig
from device_agent.connection import now_us
from device_agent.doors.answering import Answering, Row
from device_agent.doors.split import Key
from device_agent.score import Score
from device_agent.scorer import Scorer
from device_agent.telemetry.explaining import SampledExplanations
from device_agent.telemetry.payload import PayloadSampling
from edgefleet.desired import PayloadOrder
from edgefleet.messages import ExplanationBody, TelemetryKind, encode

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

    def explanation_is_due(self) -> bool:
        """Whether the next row is one of those that are explained."""
        running = self._models.running if self._config.explain_every else None
        return running is not None and running.can_explain and self.explaining.due(running.digest, time.monotonic())

    def score_explained(self, row: Row, made_for: Scorer | None = None, key: Key | None = None) -> Score:
        """Answer a row that is due: its explanation is summed, and sent as well unless there were many. Raises as `Answering.score`."""
        start_s = time.thread_time()
        try:
            score = self._models.score(row, explain=True, made_for=made_for, key=key)
        finally:
            self.explaining.spent(time.thread_time() - start_s)
        self._tell(score)
        return score

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
