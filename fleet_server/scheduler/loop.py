"""The scheduler's thread: looks for due rollouts, publishes, runs drift rounds, tidies up. It sleeps until woken or until the next look."""

import logging
import secrets
import threading
import time
from collections.abc import Callable
from typing import Final

import sqlalchemy as sa

from fleet_server.drift_rounds import run_rounds
from fleet_server.rollout import RolloutState
from fleet_server.sampling import end_orders
from fleet_server.scheduler import late, trickle
from fleet_server.scheduler.claiming import start_queued
from fleet_server.scheduler.relay import REFRESH_PIECE, Relay
from fleet_server.scheduler.steering import LEASE_US, settle
from fleet_server.scheduler.telling import tell_floors
from fleet_server.scheduler.to_and_fro import pause_flipflop
from fleet_server.services import Services
from fleet_server.store import activations, changes, halts, looks, peaks, rollouts
from fleet_server.store.tables import TELEMETRY

LOG = logging.getLogger(__name__)

TIDY_S: Final = 600.0
RELAY_S: Final = 0.25
DAY_US: Final = 86_400_000_000
_DELETED_AT_ONCE: Final = 5_000
_NOT_STARTED: Final = (RolloutState.DRAFT, RolloutState.APPROVED)


class Scheduler:
    """Runs until stopped; every task survives the failure of every other one."""

    def __init__(self, services: Services, relay: Relay | None) -> None:
        self._services, self._relay = services, relay
        self._owner = secrets.token_hex(8)
        self._stopping = threading.Event()
        self._republish = threading.Event()
        self._threads: list[threading.Thread] = []
        self._refresh_every_s = services.config.refresh_s

    def start(self) -> None:
        """Start deciding, and (with a broker) publishing, in threads of their own: a slow broker must not delay a decision."""
        self._spawn("scheduler", self._decide)
        if self._relay is not None:
            self._spawn("relay", self._publish)

    def stop(self, timeout_s: float = 10.0) -> None:
        """End the threads and wait for them."""
        self._stopping.set()
        self._services.wake.set()
        for thread in self._threads:
            thread.join(timeout_s)

    def broker_connected(self) -> None:
        """The broker is (back) there: it may have forgotten everything."""
        self._republish.set()

    def decide_due(self) -> int:
        """Settle every rollout that is due now; the number of rollouts looked at."""
        looked = 0
        while not self._stopping.is_set():
            at = self._services.now_us()
            with self._services.db.read() as connection:
                if not looks.any_due(connection, at) or halts.is_halted(connection, self._services.config.fleet):
                    return looked
            with self._services.db.write() as connection:
                rollout_id = looks.claim(connection, self._owner, at, LEASE_US)
            if rollout_id is None:
                return looked
            try:
                self._look(rollout_id)
            finally:
                with self._services.db.write() as connection:
                    looks.release_claim(connection, rollout_id, self._owner)
            looked += 1
        return looked

    def end_sampling(self) -> None:
        """Take back the orders about rows whose time is over."""
        end_orders(self._services)

    def tell_floors(self) -> None:
        """Tell devices a release floor that was raised."""
        tell_floors(self._services)

    def tidy(self) -> None:
        """Forget telemetry that is older than the operator wants it kept, and changes that no page follows any more."""
        horizon = self._services.now_us() - int(self._services.config.telemetry_days * DAY_US)
        with self._services.db.write() as connection:
            old = sa.select(TELEMETRY.c.device_id, TELEMETRY.c.boot, TELEMETRY.c.seq).where(TELEMETRY.c.received_at < horizon)
            for row in connection.execute(old.limit(_DELETED_AT_ONCE)).all():
                key = (TELEMETRY.c.device_id == row.device_id, TELEMETRY.c.boot == row.boot, TELEMETRY.c.seq == row.seq)
                connection.execute(sa.delete(TELEMETRY).where(*key))
            changes.prune(connection)
            activations.prune(connection, self._services.now_us())
            peaks.forget_old(connection, self._services.now_us())

    def _decide(self) -> None:
        poll_s = self._services.config.scheduler_poll_s
        rounds = _Every(self._services.config.drift_round_s, lambda: run_rounds(self._services))
        tidying = _Every(TIDY_S, self.tidy)
        while not self._stopping.is_set():
            for task in (self.decide_due, self.end_sampling, self.tell_floors, rounds.run_if_due, tidying.run_if_due):
                self._survive(task)
            self._services.wake.wait(min(poll_s, rounds.left_s()))
            self._services.wake.clear()

    def _publish(self) -> None:
        relay = self._relay
        if relay is None:
            return
        refresh = _Every(self._refresh_every_s / 60, lambda: relay.refresh(REFRESH_PIECE))
        while not self._stopping.wait(RELAY_S):
            if self._republish.is_set():
                self._republish.clear()
                self._survive(relay.publish_everything)
            self._survive(relay.publish_waiting)
            self._survive(refresh.run_if_due)

    def _look(self, rollout_id: str) -> None:
        """Everything that may follow for one rollout now; most looks end with `settle`."""
        if self._state(rollout_id) in _NOT_STARTED:
            self._beside(start_queued, rollout_id)
        settle(self._services, rollout_id)
        state = self._state(rollout_id)
        if state == RolloutState.RUNNING:
            self._beside(pause_flipflop, rollout_id)
        elif state == RolloutState.COMPLETED:
            self._beside(late.look, rollout_id)
            self._beside(trickle.follow, rollout_id)

    def _state(self, rollout_id: str) -> str:
        with self._services.db.read() as connection:
            return rollouts.state_of(connection, rollout_id)

    def _beside(self, step: Callable[[Services, str], object], rollout_id: str) -> None:
        try:
            step(self._services, rollout_id)
        except Exception:  # a rollout that cannot be read is stopped by `settle`; the other rollouts go on
            LOG.exception("scheduler: %s failed for rollout %s", getattr(step, "__qualname__", step), rollout_id)

    def _survive(self, task: Callable[[], object]) -> None:
        try:
            task()
        except Exception:  # a scheduler that died of one error would leave every rollout of the fleet where it is
            LOG.exception("scheduler: %s failed, it is tried again", getattr(task, "__qualname__", task))
            self._stopping.wait(1.0)

    def _spawn(self, name: str, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, name=name, daemon=True)
        thread.start()
        self._threads.append(thread)


class _Every:
    """Runs a task every so many seconds, the first time after one period."""

    def __init__(self, period_s: float, task: Callable[[], object]) -> None:
        self._period_s, self._task = period_s, task
        self._due = time.monotonic() + period_s

    def left_s(self) -> float:
        return max(self._due - time.monotonic(), 0.0)

    def run_if_due(self) -> None:
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + self._period_s
            self._task()
