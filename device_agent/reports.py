"""What the device tells: reported state, heartbeats, windows, explanations, attestations and events.

Everything that must arrive goes through the spool; `reported` and heartbeats are only published, because the next one repeats them.
Nothing here may hurt the scoring: a disk that refuses costs a record, which is counted, and no more.
"""

import logging
import os
import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from device_agent.attestation import Attester
from device_agent.config import AgentConfig, Identity
from device_agent.connection import Link, now_us
from device_agent.doors.answering import Answering, Row
from device_agent.health import WRITE_EVERY_S, Health, write_health
from device_agent.runtime import available_runtimes
from device_agent.score import Score
from device_agent.telemetry.selfwatch import own_cost
from device_agent.telemetry.spool import Spool
from device_agent.update.disk import Disk
from device_agent.update.updater import Updater
from edgefleet import __version__
from edgefleet.errors import EdgefleetError, StorageError
from edgefleet.messages import (
    MAX_MESSAGE_BYTES,
    MAX_QUARANTINED,
    Acked,
    EventBody,
    ExplanationBody,
    Heartbeat,
    ProjectState,
    Reported,
    TelemetryKind,
    decode,
    encode,
)

LOG = logging.getLogger(__name__)

SYNC_EVERY_S: Final = 2.0
RESEND_AFTER_S: Final = 30.0
MAX_DETAIL_CHARS: Final = 2000
EVENTS_PER_MINUTE: Final = 10


class Reports:
    """Telemetry and reports of one agent.

    Attributes:
        bad_lines: Lines of the sensor's file that were no row.
        doors: Asks for the counts of each door that is open.
    """

    def __init__(self, identity: Identity, config: AgentConfig, boot: int, disk: Disk, models: Answering, spool: Spool, link: Link) -> None:
        self._identity, self._config, self._boot, self._disk = identity, config, boot, disk
        self._models, self._spool, self._link = models, spool, link
        self._updater: Updater | None = None
        self._stopped_threads: Callable[[], list[str]] = list
        self.bad_lines = 0
        self.doors: Callable[[], dict[str, dict[str, int]]] = dict
        self._changed = True
        self._generation = 0
        self._told: dict[str, list[tuple[float, str]]] = {}
        self._explained_rows = 0
        self._explained_digest = ""
        self._attester: Attester | None = None
        start = time.monotonic()
        self._window_at = start + config.window_s
        self._beat_at, self._sync_at, self._health_at, self._progress_at = start, start, start, start

    def watch(self, updater: Updater, stopped_threads: Callable[[], list[str]]) -> None:
        """Name what is reported about; once, before the threads start."""
        self._updater, self._stopped_threads = updater, stopped_threads
        self._attester = Attester(self._identity, self._models, updater.director, self._config.attest_s)

    def change(self) -> None:
        """Something in `reported` is different now."""
        self._changed = True

    def tell(self, name: str, detail: str, bundle_digest: str) -> None:
        """Spool an event for the operator; per minute at most ten of one name and each text once, so that nobody can flood the spool."""
        now = time.monotonic()
        recent = [(at, text) for at, text in self._told.get(name, []) if now - at < 60.0]
        if len(recent) >= EVENTS_PER_MINUTE or any(text == detail for _, text in recent):
            return
        self._told[name] = [*recent, (now, detail)]
        LOG.info("event %s: %s", name, detail)
        at = now_us()
        body = EventBody(name=name, detail=detail[:MAX_DETAIL_CHARS], bundle_digest=bundle_digest)
        self._put("event", "", at, at, encode(body))

    def refuse_oversized(self, leaf: str, size_bytes: int) -> None:
        """Tell that a message was dropped unread."""
        self.tell(
            f"{leaf}-refused",
            f"{leaf}: {size_bytes} bytes exceed the limit of {MAX_MESSAGE_BYTES}; nothing was changed, send a smaller one",
            "",
        )

    def explanation_is_due(self) -> bool:
        """Whether the next row is one of those that are explained and reported."""
        if not self._config.explain_every:
            return False
        running = self._models.running
        if running is None or not running.can_explain:
            return False
        if running.digest != self._explained_digest:
            self._explained_digest, self._explained_rows = running.digest, 0
        due = self._explained_rows % self._config.explain_every == 0
        self._explained_rows += 1
        return due

    def explain(self, score: Score, row: Row) -> None:
        """Spool the explanation of an answer; the row itself only when this device's own configuration allows it."""
        running, explanation = self._models.running, score.explanation
        if running is None or explanation is None:
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
            row=_numbers(row) if self._config.allow_payload else [],
        )
        self._put("explanation", score.digest, at, at, encode(body))

    def close_full_window(self) -> None:
        """Spool the statistics when enough rows came."""
        if self._models.rows_in_window >= self._config.window_rows:
            self._close_windows()

    def once(self) -> None:
        """Do what is due: acknowledgements, windows, attestation, heartbeat, reported state, sending, syncing, health."""
        now = time.monotonic()
        self._take_acked(now)
        if now >= self._window_at:
            self._close_windows()
        self._attest(now)
        self._publish(now)
        if now >= self._sync_at:
            self._sync_at = now + SYNC_EVERY_S
            self._quietly(self._spool.sync)
        if now >= self._health_at:
            self._health_at = now + WRITE_EVERY_S
            self._quietly(lambda: write_health(self._config.dir, self.health(), self._disk))

    def flush(self) -> None:
        """Put the open window on the disk, tell the last state, leave a last health file."""
        self._close_windows()
        self._quietly(self._spool.sync)
        if self._link.connected:
            self._send()
        self._quietly(lambda: write_health(self._config.dir, self.health(), self._disk))

    def reported(self) -> Reported:
        """The reported state as it is now."""
        updater, running = self._the_updater(), self._models.running
        progress = updater.progress
        epoch, counter = updater.director.position
        state = ProjectState(
            bundle_digest=running.bundle.digest if running else "",
            model_digest=running.digest if running else "",
            state=progress.state_while(running.bundle.digest if running else ""),
            reason=progress.reason or updater.waiting_for or updater.storage_problem,
            attempt=progress.attempt,
            subject_digest=progress.subject,
        )
        allowed = self._config.runtimes
        return Reported(
            epoch=epoch,
            counter=counter,
            projects={self._identity.project: state},
            quarantined=[digest for digest, _ in progress.quarantined][-MAX_QUARANTINED:],
            runtimes=[name for name in available_runtimes() if allowed is None or name in allowed],
            agent_version=__version__,
        )

    def health(self) -> Health:
        """The agent as the people on its machine see it."""
        updater, running, cost = self._the_updater(), self._models.running, own_cost()
        progress = updater.progress
        return Health(
            at=now_us(),
            pid=os.getpid(),
            boot=self._boot,
            device_id=self._identity.device_id,
            project=self._identity.project,
            connected=self._link.connected,
            state=progress.state_while(running.bundle.digest if running else ""),
            reason=progress.reason or updater.waiting_for,
            running=running.bundle.digest if running else "",
            model=running.digest if running else "",
            variant=running.variant.name if running else "",
            subject=progress.subject,
            attempt=progress.attempt,
            quarantined=[digest for digest, _ in progress.quarantined],
            rows=self._models.rows,
            rejected=self._models.rejected + self.bad_lines,
            unanswered=self._models.unanswered,
            spooled=len(self._spool),
            dropped=self._spool.dropped,
            stopped_threads=self._stopped_threads(),
            storage_problem=updater.storage_problem,
            rss_bytes=cost.rss_bytes,
            cpu_s=cost.cpu_s,
            doors=self.doors(),
        )

    def _publish(self, now: float) -> None:
        if not self._link.connected:
            return
        if self._generation != self._link.generation:
            self._generation, self._changed, self._progress_at = self._link.generation, True, now
            self._spool.resend()
        if self._changed:
            self._changed = False
            if not self._link.publish("reported", encode(self.reported()), retain=True):
                self._changed = True
        if now >= self._beat_at:
            self._beat_at = now + self._config.heartbeat_s
            self._link.publish("hb", encode(self._heartbeat()))
        if self._spool.outstanding and now - self._progress_at > RESEND_AFTER_S:
            self._progress_at = now
            self._spool.resend()
        self._send()

    def _send(self) -> None:
        for key, message in self._spool.to_send():
            if not self._link.publish("t", message):
                return
            self._spool.mark_sent(key)

    def _heartbeat(self) -> Heartbeat:
        digest = self._models.running_digest()
        return Heartbeat(
            boot=self._boot,
            at=now_us(),
            running={self._identity.project: digest} if digest else {},
            rows=self._models.rows,
            spooled=len(self._spool),
            dropped=self._spool.dropped,
            rejected=self._models.rejected + self.bad_lines,
        )

    def _take_acked(self, now: float) -> None:
        payload = self._link.mailbox.take("acked")
        self._link.mailbox.take_oversized("acked")
        if payload is None:
            return
        try:
            if self._spool.acknowledge(decode(Acked, payload)):
                self._progress_at = now
        except EdgefleetError as err:
            self.tell("acked-refused", str(err), "")

    def _close_windows(self) -> None:
        self._window_at = time.monotonic() + self._config.window_s
        for window in self._models.take_windows(now_us()):
            self._put("window", window.model_digest, window.start_at, window.end_at, encode(window.body))

    def _attest(self, now: float) -> None:
        body = self._attester.due(now) if self._attester is not None else None
        if body is not None:
            at = now_us()
            if self._put("attestation", body.model_digest, at, at, encode(body)) and self._attester is not None:
                self._attester.done()

    def _put(self, kind: TelemetryKind, model_digest: str, start_at: int, end_at: int, body: bytes) -> bool:
        try:
            self._spool.put(kind, self._identity.project, model_digest, start_at, end_at, body)
        except EdgefleetError as err:
            LOG.warning("%s record lost: %s", kind, err)
            return False
        return True

    def _quietly(self, write: Callable[[], Any]) -> None:
        try:
            write()
        except StorageError as err:
            LOG.debug("not written: %s", err)  # the updater tells of a disk that refuses

    def _the_updater(self) -> Updater:
        assert self._updater is not None  # noqa: S101  # `watch` is called before any thread starts
        return self._updater


def _numbers(row: Row) -> list[float]:
    values = row.values() if isinstance(row, dict) else row
    return [float(v) if isinstance(v, int | float | np.number) else float("nan") for v in values]
