"""Carries the plan out: takes desired states, and does in each state what the table is waiting for.

Order everywhere: judge, journal, act. `work` does one step and says when to come again; it may be called again after any failure,
by this process or by the next one. A disk that refuses stops the update where it is, never the scoring.
"""

import logging
import time
from collections.abc import Callable
from typing import Final

from device_agent.config import AgentConfig, Identity
from device_agent.doors.answering import Answering
from device_agent.update.arrival import Arrival
from device_agent.update.director import Director
from device_agent.update.disk import Disk
from device_agent.update.halt import FleetHalt
from device_agent.update.journal import Journal, last_progress
from device_agent.update.lifting import obey
from device_agent.update.opening import open_model
from device_agent.update.outside import Outside
from device_agent.update.plan import WORKING, Event, judge_desired, step
from device_agent.update.store import Store
from device_agent.update.trial import TrialVerdict, against
from edgefleet.desired import Acceptance, TrialPolicy
from edgefleet.errors import ArtifactError, EdgefleetError, StorageError
from edgefleet.messages import DeviceState

LOG = logging.getLogger(__name__)

JOURNAL_NAME: Final = "journal"
IDLE_S: Final = 30.0
TRIAL_LOOK_S: Final = 0.1
STORAGE_RETRY_S: Final = 5.0


class Updater:
    """The update of one device; all methods but the attributes belong to one thread.

    Attributes:
        progress: Where the update stands, as journalled.
        halt: Whether the fleet is halted; then nothing new begins.
        waiting_for: Why nothing happens at the moment, "" when something does.
        storage_problem: The last thing the disk refused, "" when it works.
    """

    def __init__(self, identity: Identity, config: AgentConfig, disk: Disk, models: Answering, outside: Outside) -> None:
        self._config, self._models, self._outside = config, models, outside
        self.store = Store(config.dir, disk)
        self._arrival = Arrival(identity, config, self.store, disk, lambda: outside.stopped() or outside.newer())
        self.journal = Journal(config.dir / JOURNAL_NAME, disk)
        self.director = Director(identity, disk, config.dir)
        self.halt = FleetHalt(identity, disk, config.dir, outside.tell)
        self.progress = last_progress(self.journal.records)
        self.waiting_for = self.storage_problem = ""
        self._pending: bytes | None = None
        self._recovered = self._unjudged = self._asked_anew = False

    def load(self) -> None:
        """Open the model that runs, or the one before when it is damaged; reads only, so it works on a full or read-only disk."""
        for name in ("active", "previous"):
            digest = self.store.pointer(name)
            if not digest:
                continue
            try:
                self._models.install(open_model(self.store, digest, self._config))
            except EdgefleetError as err:
                self._outside.tell(f"{name}-unusable", f"the {name} model cannot be loaded: {err}", digest)
                continue
            return

    def receive(self, message: bytes) -> None:
        """Remember a desired state for the next `work`; only the latest matters."""
        self._pending = message

    def work(self) -> float:
        """Do what can be done now; returns the seconds after which it should be called again at the latest."""
        try:
            self._recover()
            self._take_halt()
            self._take_desired()
            wait_s = self._stand_still() if self.halt.halted else self._advance()
        except StorageError as err:
            self._storage(str(err))
            return STORAGE_RETRY_S
        self._storage("")
        return wait_s

    def close(self) -> None:
        """Note that the agent stops on request: the running attempt is not counted against the model."""
        try:
            if self._recovered:
                self._step(Event.STOPPED)
        except StorageError as err:
            LOG.warning("the stop could not be noted, the attempt counts: %s", err)

    def _recover(self) -> None:
        """Bring journal and pointers into line after whatever ended the last run."""
        if self._recovered:
            return
        if self.journal.torn_tails:
            self._outside.tell("journal-torn", "a damaged tail of the journal was cut away", "")
            self.journal.torn_tails = 0
        if self.director.problem:
            self._outside.tell("desired-unusable", self.director.problem, "")
            self.director.problem = ""
        subject = self.progress.subject
        if self.progress.state == "committed" and self._models.running_digest() != subject and not self.store.is_complete(subject):
            self._step(Event.DAMAGED, reason="the committed model was damaged on disk; it is fetched again")
        self._step(Event.RESTARTED)
        self._recovered = self._unjudged = True
        self._judge_unjudged()
        if self.progress.state not in WORKING and not self._switch_is_due():
            self.store.clear("trial")
            self.store.sweep()

    def _take_halt(self) -> None:
        if self.halt.take():
            self._outside.changed()
        self._judge_unjudged()

    def _stand_still(self) -> float:
        """While the fleet is halted: what is on trial stops, without counting against the model; a journalled decision is finished."""
        if self.progress.state in ("self-test", "trial"):
            self._step(Event.STOPPED, reason=self.halt.reason)
        return self._finish() if self.progress.state == "committed" else IDLE_S

    def _take_desired(self) -> None:
        if self._pending is None:
            return
        try:
            acceptance = self.director.accept(self._pending)
        except ArtifactError as err:
            self._pending = None
            LOG.warning("desired state refused: %s", err)
            self._outside.tell("desired-refused", str(err), "")
            return
        if acceptance is Acceptance.NEW:
            self._unjudged = self._asked_anew = True
            self._arrival.forget_failures()
            if ignored := ", ".join(self.director.ignored):
                self._outside.tell("desired-fields-ignored", f"this agent does not know {ignored}, and may ignore it; update it", "")
        self._judge_unjudged()
        if acceptance is Acceptance.STALE:
            self._outside.tell("desired-stale", f"an older desired state came again; counter {self.director.position[1]} stays", "")
        self._pending = None
        self._outside.changed()

    def _judge_unjudged(self) -> None:
        """Judge what is wanted, unless that was done; a halt, or a disk that refuses, puts it off."""
        if self._unjudged:  # a lift begins nothing, so it is heard in a halt as well
            self.progress = obey(self.progress, self.director.lifted(), self.journal, self._outside)
        if self._unjudged and not self.halt.halted:
            self._judge()
            self._unjudged = self._asked_anew = False

    def _judge(self) -> None:
        if self.director.payload is None:
            return
        if self._switch_is_due():
            self._commit()  # a decision that is in the journal is finished before the next
        digest = None if (wanted := self.director.wanted()) is None else wanted.bundle_digest
        too_old = self.director.below_floor()
        event = judge_desired(self.progress, digest, self._models.running_digest(), below_floor=bool(too_old))
        if event is Event.DESIRED_NEW and self._restart_is_pointless(digest):
            return
        self._step(event, subject=digest or "", reason=too_old if event is Event.DESIRED_BELOW_FLOOR else "")

    def _restart_is_pointless(self, digest: str | None) -> bool:
        # After a mere restart a refusal stays: only a new desired state asks again.
        asked = self._asked_anew or self._pending is not None
        return not asked and self.progress.subject == digest and self.progress.state == "refused"

    def _advance(self) -> float:
        actions: dict[DeviceState, Callable[[], float]] = {
            "downloading": self._fetch,
            "verified": self._start_selftest,
            "self-test": self._selftest,
            "trial": self._try,
            "committed": self._finish,
        }
        action = actions.get(self.progress.state)
        return action() if action is not None else IDLE_S

    def _fetch(self) -> float:
        outcome = self._arrival.attempt(self.progress.subject)
        if outcome.reason != self.waiting_for and outcome.event is None:
            self.waiting_for = outcome.reason
            if outcome.reason:
                LOG.warning("download waits: %s", outcome.reason)
            self._outside.changed()
        if outcome.event is None:
            return outcome.wait_s
        self.waiting_for = ""
        self._step(outcome.event, reason=outcome.reason)
        return 0.0

    def _start_selftest(self) -> float:
        try:
            self.store.open_slot(self.progress.subject)
        except ArtifactError as err:
            self._step(Event.DAMAGED, reason=str(err))
            return 0.0
        self._step(Event.SELFTEST_STARTED)
        return 0.0

    def _selftest(self) -> float:
        result = self._outside.selftest(self.progress.subject)
        if self._outside.stopped():
            return 0.0
        known = self.progress.subject == self.store.pointer("previous")
        if result.crashed:
            self._step(Event.CRASHED, reason=result.reason)
        elif not result.ok:
            self._step(Event.SELFTEST_FAILED, reason=f"self-test failed: {result.reason}")
        else:
            # The good model before this one proved itself here already, and going back must not take as long as going forward.
            self._step(Event.SELFTEST_KNOWN if known else Event.SELFTEST_OK, reason=result.reason)
        return 0.0

    def _try(self) -> float:
        trial = self._models.trial
        if trial is None:
            return self._begin_trial()
        verdict, reason = trial.verdict(time.monotonic())
        if verdict is TrialVerdict.RUNNING:
            return TRIAL_LOOK_S
        if verdict is TrialVerdict.OK:
            self._step(Event.TRIAL_OK, reason=reason)
        elif verdict is TrialVerdict.REJECTED:
            self._step(Event.TRIAL_REJECTED, reason=f"trial failed: {reason}")
        else:
            self._step(Event.CRASHED, reason=f"trial timed out: {reason}")
        return 0.0

    def _begin_trial(self) -> float:
        try:
            candidate = open_model(self.store, self.progress.subject, self._config)
        except EdgefleetError as err:
            self._step(Event.CRASHED, reason=str(err))
            return 0.0
        self._models.begin_trial(candidate, against(self._models.running, candidate, self._policy(), time.monotonic()))
        return TRIAL_LOOK_S

    def _finish(self) -> float:
        if self._switch_is_due():
            self._commit()
        return IDLE_S

    def _switch_is_due(self) -> bool:
        return self.progress.state == "committed" and self._models.running_digest() != self.progress.subject

    def _commit(self) -> None:
        subject, candidate = self.progress.subject, self._models.candidate
        try:
            ready = candidate if candidate is not None and candidate.bundle.digest == subject else None
            scorer = ready or open_model(self.store, subject, self._config)
        except EdgefleetError as err:
            if isinstance(err, StorageError):
                raise
            self._step(Event.DAMAGED, reason=f"the committed model cannot be opened: {err}")
            return
        self.store.note_release(subject, self.director.release_of(subject))
        self.store.commit(subject)
        self._models.install(scorer)
        self._outside.tell("committed", self.progress.reason, subject)
        self._outside.changed()
        self.store.sweep()

    def _policy(self) -> TrialPolicy:
        wanted = self.director.wanted()
        return wanted.trial if wanted is not None and wanted.bundle_digest == self.progress.subject else TrialPolicy()

    def _step(self, event: Event, *, subject: str = "", reason: str = "") -> None:
        before = self.progress
        after = step(before, event, subject=subject, reason=reason, attempts=self._policy().attempts)
        if after == before:
            return
        self.journal.note(event.name, after)
        self.progress = after
        LOG.info("%s: %s -> %s %s %s", event.name, before.state, after.state, after.subject[:12], after.reason)
        if before.state == "trial" and after.state not in ("trial", "committed"):
            self._models.end_trial()
        if after.state in ("refused", "quarantined", "rolled-back") and after.state != before.state:
            self._outside.tell(after.state, after.reason, after.subject)
        if before.state in WORKING and after.state == "idle":
            self._outside.tell("withdrawn", f"given up in state {before.state}; the running model goes on", before.subject)
        self._outside.changed()
        if after.state not in WORKING and after.state != "committed":
            self.store.clear("trial")
            self.store.sweep()

    def _storage(self, problem: str) -> None:
        if problem and problem != self.storage_problem:
            LOG.error("%s", problem)
            self._outside.tell("storage", problem, self.progress.subject)
        if problem != self.storage_problem:
            self.storage_problem = problem
            self._outside.changed()
