"""What the device tells: reported state, heartbeats, windows, explanations, attestations and events.

Everything that must arrive goes through the spool; `reported` and heartbeats are only published, because the next one repeats them.
Nothing here may hurt the scoring: a disk that refuses costs a record, which is counted, and no more.
"""

import contextlib
import dataclasses
import logging
import os
import time
from collections.abc import Callable
from typing import Any, Final

import msgspec

from device_agent.attestation import Attester
from device_agent.config import AgentConfig, Identity
from device_agent.connection import Link, now_us
from device_agent.doors.answering import Answering
from device_agent.health import WRITE_EVERY_S, Health, read_health, write_health
from device_agent.runtime import available_runtimes
from device_agent.telemetry.clockwatch import ClockWatch, steady_s
from device_agent.telemetry.events import MAX_DETAIL_CHARS, EventLimit
from device_agent.telemetry.open_window import OpenWindow
from device_agent.telemetry.pace import Pace
from device_agent.telemetry.samples import Samples
from device_agent.telemetry.selfwatch import SelfWatch
from device_agent.telemetry.sending import Sending
from device_agent.telemetry.spool import Spool
from device_agent.telemetry.windows import Window
from device_agent.update.disk import Disk
from device_agent.update.updater import Updater
from edgefleet import __version__
from edgefleet.desired import PayloadOrder
from edgefleet.errors import ArtifactError, ConfigError, EdgefleetError, StorageError
from edgefleet.messages import (
    MAX_MESSAGE_BYTES,
    MAX_QUARANTINED,
    EventBody,
    Heartbeat,
    ProjectState,
    Reported,
    TelemetryKind,
    encode,
)

LOG = logging.getLogger(__name__)

SYNC_EVERY_S: Final = 2.0


class Reports:
    """Telemetry and reports of one agent.

    Attributes:
        bad_lines: Lines of the sensor's file that were no row; `doors` asks for the counts of each open door.
        samples: Explained rows, and rows that may leave.
    """

    def __init__(self, identity: Identity, config: AgentConfig, boot: int, disk: Disk, models: Answering, spool: Spool, link: Link) -> None:
        self._identity, self._config, self._boot, self._disk = identity, config, boot, disk
        self._models, self._spool, self._link = models, spool, link
        self._updater: Updater | None = None
        self._stopped_threads: Callable[[], list[str]] = list
        self.bad_lines = 0
        self.doors: Callable[[], dict[str, dict[str, int]]] = dict
        self._changed, self._generation = True, 0
        self._events = EventLimit()
        self._attester: Attester | None = None
        start = time.monotonic()
        self._open = OpenWindow(config.dir, boot, spool, disk)
        self._sending = Sending(spool, link, Pace(config.send_records_per_s, config.send_bytes_per_s), start)
        self.samples = Samples(config, models, self._put, self._payload_order)
        self._clock, self._watch = ClockWatch(now_us(), steady_s()), SelfWatch(config.dir)
        self._watch.look(start, None, 0)
        self._rows_lost = 0
        self._window_at, self._keep_at = start + config.window_s, start + config.keep_s
        self._beat_at, self._sync_at, self._health_at = start, start, start
        self._recover()

    def watch(self, updater: Updater, stopped_threads: Callable[[], list[str]]) -> None:
        """Name what is reported about; once, before the threads start."""
        self._updater, self._stopped_threads = updater, stopped_threads
        self._attester = Attester(self._identity, self._models, updater.director, self._config.attest_s)

    def change(self) -> None:
        """Something in `reported` is different now."""
        self._changed = True

    def tell(self, name: str, detail: str, bundle_digest: str) -> None:
        """Spool an event for the operator; per minute at most ten of one name and each text once, so that nobody can flood the spool."""
        if self._events.admits(name, detail):
            LOG.info("event %s: %s", name, detail)
            at, body = now_us(), EventBody(name=name, detail=detail[:MAX_DETAIL_CHARS], bundle_digest=bundle_digest)
            self._put("event", "", at, at, encode(body))

    def refuse_oversized(self, leaf: str, size_bytes: int) -> None:
        """Tell that a message was dropped unread."""
        said = f"{leaf}: {size_bytes} bytes exceed the limit of {MAX_MESSAGE_BYTES}; nothing was changed, send a smaller one"
        self.tell(f"{leaf}-refused", said, "")

    def once(self) -> None:
        """Do what is due: clock, acknowledgements, windows, attestation, heartbeat, reported state, sending, syncing, health."""
        now = time.monotonic()
        self._watch_clock()
        self._take_acked(now)
        if now >= self._window_at or self._open.rows + self._models.rows_in_window >= self._config.window_rows:
            self._close_windows(now)
        elif now >= self._keep_at:
            self._keep(now)
        self._attest(now)
        self._publish(now)
        if now >= self._sync_at:
            self._sync_at = now + SYNC_EVERY_S
            self._quietly(self._spool.sync)
        if now >= self._health_at:
            self._write_health(now)

    def flush(self) -> None:
        """Put the open window on the disk, tell the last state, leave a last health file."""
        now = time.monotonic()
        self._close_windows(now)
        self._keep(now)  # what the spool could not take
        self._quietly(self._spool.sync)
        self._publish(now)
        self._write_health(now)

    def reported(self) -> Reported:
        """The reported state as it is now."""
        updater, running = self._the_updater(), self._models.running
        progress, (epoch, counter) = updater.progress, updater.director.position
        state = ProjectState(
            bundle_digest=running.bundle.digest if running else "",
            model_digest=running.digest if running else "",
            state=progress.state_while(running.bundle.digest if running else ""),
            reason=progress.reason or updater.waiting_for or updater.storage_problem,
            attempt=progress.attempt,
            subject_digest=progress.subject,
        )
        return Reported(
            epoch=epoch,
            counter=counter,
            projects={self._identity.project: state},
            quarantined=[digest for digest, _ in progress.quarantined][-MAX_QUARANTINED:],
            runtimes=[name for name in available_runtimes() if self._config.runtimes is None or name in self._config.runtimes],
            agent_version=__version__,
            floors=updater.director.floors(),
            **updater.halt.facts(),
        )

    def health(self) -> Health:
        """The agent as the people on its machine see it."""
        updater, running = self._the_updater(), self._models.running
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
            **self._watch.facts(),
            rows_not_kept=self._open.rows_not_kept + (self._models.rows_in_window if running else 0),
            rows_lost=self._rows_lost,
            **self.samples.facts(),
            doors=self.doors(),
            variant_because=running.chosen_because if running else "",
            **updater.halt.health(),
        )

    def _publish(self, now: float) -> None:
        if not self._link.connected:
            return
        if self._generation != self._link.generation:
            self._generation, self._changed = self._link.generation, True
            self._sending.reconnected(now)
        if self._changed:
            self._changed = False
            if not self._link.publish("reported", encode(self.reported()), retain=True):
                self._changed = True
        if now >= self._beat_at:
            self._beat_at = now + self._config.heartbeat_s
            self._link.publish("hb", encode(self._heartbeat()))
        self._sending.send(now)

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
            load=self._watch.load,
        )

    def _take_acked(self, now: float) -> None:
        try:
            if self._sending.take_acked(now):
                self._clock.heard(self._sending.server_at, steady_s())
        except EdgefleetError as err:
            self.tell("acked-refused", str(err), "")

    def _watch_clock(self) -> None:
        moved_us = self._clock.look(now_us(), steady_s())
        if moved_us:
            # No window spans a jump: its length would be that of the jump.
            self._close_windows(time.monotonic(), moved_us)
            self.tell("clock-jumped", f"the clock of this device was set by {moved_us / 1e6:+.1f} s; windows go on from there", "")

    def _take_pieces(self, moved_us: int = 0) -> None:
        for window in self._models.take_windows(now := now_us()):
            sums = self.samples.explaining.take(window.model_digest)
            body = window.body if sums is None else msgspec.structs.replace(window.body, attribution=sums)
            end_at = max(window.start_at, now - moved_us) if moved_us else window.end_at  # by the clock that it began with
            self._open.add([dataclasses.replace(window, body=body, end_at=end_at)])
        if (running := self._models.running) is not None:
            self.samples.explaining.forget_others(running.digest)

    def _close_windows(self, now: float, moved_us: int = 0) -> None:
        self._window_at, self._keep_at = now + self._config.window_s, now + self._config.keep_s
        self._take_pieces(moved_us)
        try:
            self._open.close(self._put_window)
        except StorageError as err:
            LOG.warning("the window stays open: %s", err)
            self._window_at = now + SYNC_EVERY_S

    def _keep(self, now: float) -> None:
        self._keep_at = now + self._config.keep_s
        self._take_pieces()
        self._quietly(self._open.keep)
        self._write_health(now)  # says that nothing is to be lost now

    def _put_window(self, window: Window) -> None:
        try:
            self._spool.offer("window", self._identity.project, window.model_digest, window.start_at, window.end_at, encode(window.body))
        except ArtifactError as err:
            LOG.warning("window lost: %s", err)  # too large for any broker, and counted by the spool

    def _recover(self) -> None:
        """Put the open window of the start before into the spool, and count what its end has cost."""
        with contextlib.suppress(ConfigError):
            self._rows_lost = read_health(self._config.dir).rows_not_kept
        self._quietly(lambda: self._open.recover(self._put_window))
        if self._rows_lost:
            self.tell("window-rows-lost", f"about {self._rows_lost} rows of the last start are in no statistics: it did not end well", "")

    def _write_health(self, now: float) -> None:
        self._health_at = now + WRITE_EVERY_S
        self._watch.look(now, self._clock.offset_ms(now_us(), steady_s()), self._clock.jumps)
        self._quietly(lambda: write_health(self._config.dir, self.health(), self._disk))

    def _attest(self, now: float) -> None:
        if self._attester is not None and (body := self._attester.due(now)) is not None:
            try:  # what the disk refuses now is no loss: it is made again
                self._spool.offer("attestation", self._identity.project, body.model_digest, at := now_us(), at, encode(body))
                self._attester.done()
            except EdgefleetError as err:
                LOG.warning("the attestation waits: %s", err)

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

    def _payload_order(self) -> PayloadOrder | None:
        payload = self._the_updater().director.payload
        return None if payload is None else payload.sampling_at(now_us())

    def _the_updater(self) -> Updater:
        assert self._updater is not None  # noqa: S101  # `watch` is called before any thread starts
        return self._updater
