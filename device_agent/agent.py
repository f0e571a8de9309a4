"""The agent: wires doors, scorer, update, telemetry and connection together, and keeps them going.

Threads: the network's (paho, see `connection.py`), `update` (desired state -> model), `sensor` (rows from the file), `reports` (windows,
heartbeats, spool, health). They share the models (`Answering`), the spool and the mailbox, each with its own lock. No thread dies of
an exception: it is logged, told as an event, and the loop goes on. Offline is the normal case.
"""

import logging
import random
import secrets
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from device_agent.config import AgentConfig, load_identity
from device_agent.connection import Link
from device_agent.doors.answering import Answering, Row
from device_agent.doors.split import Key
from device_agent.doors.stream import POLL_S, SensorFile
from device_agent.reports import Reports
from device_agent.score import BatchScores, Score
from device_agent.scorer import Scorer
from device_agent.telemetry.samples import LOOK_S
from device_agent.telemetry.spool import Spool
from device_agent.update.disk import Disk
from device_agent.update.outside import Outside
from device_agent.update.selftest import SelftestResult, run_in_child
from device_agent.update.updater import Updater
from edgefleet.errors import EdgefleetError
from edgefleet.locks import FolderLock
from edgefleet.messages import MAX_MESSAGE_BYTES

if TYPE_CHECKING:  # most devices open no door, and each is a megabyte of code
    from device_agent.doors.http.door import HttpDoor
    from device_agent.doors.mqtt.door import MqttDoor

LOG = logging.getLogger(__name__)

AFTER_ERROR_S: Final = 1.0
JOIN_S: Final = 10.0


class Agent:
    """One device's agent on one identity folder.

    Args:
        config: Settings; `config.dir` is the identity folder that `edgefleet enroll` wrote.
        disk: Where all writing goes through.

    Raises:
        ConfigError: The folder is not an identity folder, or another agent runs on it.
        StorageError: The folder cannot be locked or its spool not be made.
    """

    def __init__(self, config: AgentConfig, disk: Disk | None = None) -> None:
        self._config = config
        self._disk = disk or Disk()
        self._identity = load_identity(config.dir)
        self._lock = FolderLock(config.dir / "lock", "agent")
        try:
            self._wire(config)
        except BaseException:
            self._lock.release()  # else this process could not try again, with another port for example
            raise

    def _wire(self, config: AgentConfig) -> None:
        boot = secrets.randbits(63)
        self._stop = threading.Event()
        self._models = Answering(config.trial_cpu_fraction)
        self._spool = Spool(config.dir / "spool", boot, config.spool_limit_bytes, self._disk)
        self._link = Link(self._identity, boot, config.reconnect_spread_s, random.Random())  # noqa: S311  # jitter, no secret
        self._reports = Reports(self._identity, config, boot, self._disk, self._models, self._spool, self._link)
        outside = Outside(
            selftest=self._selftest,
            stopped=self._stop.is_set,
            newer=lambda: self._link.mailbox.has("desired") or self._link.mailbox.has("halt"),
            tell=self._reports.tell,
            changed=self._reports.change,
        )
        self._updater = Updater(self._identity, config, self._disk, self._models, outside)
        self._reports.watch(self._updater, self._stopped_threads)
        self._reports.doors = self._door_counts
        self._sensor: SensorFile | None = None
        self._mqtt = self._mqtt_door()
        self._http = self._http_door()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Load the model that runs, then start connecting, updating and scoring; returns at once."""
        LOG.info("agent of %s starts on %s", self._identity.device_id, self._config.dir)
        self._updater.load()
        self._link.start()
        self._spawn("update", self._update_once)
        self._spawn("reports", self._reports_once)
        if self._config.sensor is not None:
            sensor = self._sensor = SensorFile(self._config.sensor, self._config.sensor_from_start)
            self._spawn("sensor", lambda: self._sensor_once(sensor))
        if self._mqtt is not None:
            self._mqtt.start()
        if self._http is not None:
            self._http.start()
            LOG.info("HTTP door on %s", self._http.url)

    def run(self) -> None:
        """Start, and return when `stop` was called and everything is put away."""
        try:
            self.start()
            self._stop.wait()
        finally:
            self.close()

    def stop(self) -> None:
        """Ask the agent to stop; safe in a signal handler."""
        self._stop.set()

    def close(self) -> None:
        """Stop the threads, note the stop, flush the telemetry, say `offline`."""
        self._stop.set()
        if self._mqtt is not None:
            self._mqtt.close()
        if self._http is not None:
            self._http.close()
        self._link.mailbox.wake()
        for thread in self._threads:
            thread.join(JOIN_S)
        if self._sensor is not None:
            self._sensor.close()
        self._updater.close()
        self._reports.flush()
        self._link.close()
        self._models.close()
        self._lock.release()
        LOG.info("agent of %s stopped", self._identity.device_id)

    def score(self, row: Row, explain: bool = False, made_for: Scorer | None = None, key: Key | None = None) -> Score:
        """Score one row with the running model; it counts for statistics, and for the trial of a candidate.

        Args:
            row: Numbers in the manifest's order, or a mapping by input name.
            explain: Also say which inputs moved the answer.
            made_for: As `Answering.score`.
            key: The same.

        Raises:
            RowRejected: The row is refused, and counted.
            ConfigError: No model has been installed yet.
        """
        samples = self._reports.samples
        if samples.explanation_is_due():
            score = samples.score_explained(row, explain, made_for, key)
        else:
            score = self._models.score(row, explain=explain, made_for=made_for, key=key)
        samples.row(score, row)
        return score

    def score_batch(self, rows: Any, made_for: Scorer | None = None, key: Key | None = None) -> BatchScores:
        """Score many rows with one model; as `Answering.score_batch`. Those that are due are explained later, within the budget."""
        answers = self._models.score_batch(rows, made_for, key)
        self._reports.samples.batch(rows, answers)
        return answers

    @property
    def models(self) -> Answering:
        """The models that answer: where two of them begin and end to share the rows."""
        return self._models

    @property
    def in_service(self) -> Scorer | None:
        """The model whose answers count, None before the first."""
        return self._models.in_service

    @property
    def http_url(self) -> str | None:
        """Where the HTTP door is, None without one."""
        return None if self._http is None else self._http.url

    @property
    def running_digest(self) -> str:
        """Bundle digest of the committed model, "" before the first."""
        return self._models.running_digest()

    @property
    def folder(self) -> Path:
        """The identity folder."""
        return self._config.dir

    def _mqtt_door(self) -> "MqttDoor | None":
        if self._config.mqtt is None:
            return None
        from device_agent.doors.mqtt.door import MqttDoor
        from device_agent.doors.mqtt.settings import resolve

        return MqttDoor(resolve(self._config.mqtt, self._identity), self)

    def _http_door(self) -> "HttpDoor | None":
        if self._config.http is None:
            return None
        from device_agent.doors.agent_http import http_door

        return http_door(self, self._models, self._config.http, self._updater, self._reports)

    def _spawn(self, name: str, once: Callable[[], None]) -> None:
        thread = threading.Thread(target=self._forever, args=(name, once), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _forever(self, name: str, once: Callable[[], None]) -> None:
        while not self._stop.is_set():
            try:
                once()
            except Exception as err:
                LOG.exception("%s: going on after an error", name)
                # What a row's own error says may be the row, which does not leave the device.
                said = "see the agent's log" if name == "sensor" else str(err)[:200]
                self._reports.tell("agent-error", f"{name}: {type(err).__name__}: {said}", "")
                self._stop.wait(AFTER_ERROR_S)

    def _update_once(self) -> None:
        mailbox, halt = self._link.mailbox, self._updater.halt
        if size_bytes := mailbox.take_oversized("halt"):
            halt.refuse(f"a fleet halt of {size_bytes} bytes exceeds the limit of {MAX_MESSAGE_BYTES}; nothing was changed")
            self._reports.change()
        if (message := mailbox.take("halt")) is not None:
            halt.receive(message)
        if size_bytes := mailbox.take_oversized("desired"):
            self._reports.refuse_oversized("desired", size_bytes)
        if (message := mailbox.take("desired")) is not None:
            self._updater.receive(message)
        wait_s = self._updater.work()
        if wait_s > 0 and not self._stop.is_set():
            mailbox.wait("desired", wait_s, "halt")

    def _reports_once(self) -> None:
        self._reports.samples.catch_up()
        self._reports.once()
        self._stop.wait(LOOK_S)

    def _sensor_once(self, sensor: SensorFile) -> None:
        rows = sensor.poll()
        self._reports.bad_lines = sensor.rejected_lines
        for row in rows:
            if self._stop.is_set():
                return
            try:
                self.score(row)
            except EdgefleetError as err:
                LOG.debug("row not answered: %s", err)  # counted where it happened
        if not rows:
            self._stop.wait(POLL_S)

    def _selftest(self, bundle_digest: str) -> SelftestResult:
        return run_in_child(
            self._config.dir,
            bundle_digest,
            timeout_s=self._config.selftest_timeout_s,
            memory_bytes=self._config.selftest_memory_bytes,
            stopped=self._stop.is_set,
        )

    def _door_counts(self) -> dict[str, dict[str, int]]:
        return {} if self._mqtt is None else {"mqtt": self._mqtt.counts.as_numbers()}

    def _stopped_threads(self) -> list[str]:
        stopped = [thread.name for thread in self._threads if not thread.is_alive()]
        stopped += ["mqtt-door"] if self._mqtt is not None and not self._mqtt.alive else []
        stopped += ["http"] if self._http is not None and not self._http.alive else []
        return stopped if self._link.threads_alive else [*stopped, "connection"]
