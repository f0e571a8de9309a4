"""A device of the field without a model: the agent's own update table, the contract's own messages, and a spool that forgets nothing.

What it truly did (`ever_ran`, `ever_failed`) is the truth that the server's decisions are compared with.
"""

from dataclasses import dataclass, field, replace
from typing import Final

import msgspec

from device_agent.update.lifting import lift
from device_agent.update.plan import WORKING, Event, Progress, judge_desired, step
from edgefleet.desired import Acceptance, DesiredModel, judge_counter, open_desired
from edgefleet.messages import (
    Acked,
    AttestationBody,
    Desired,
    Heartbeat,
    ProjectState,
    Reported,
    Telemetry,
    TelemetryKind,
    attestation_payload,
    decode,
    encode,
)
from edgefleet.signing import PublicKey, SigningKey
from edgefleet.topics import device_topic
from fleet_server.ingest.inbox import Incoming
from tests.unit.fleet_server.server_world import PROJECT

# What a device does between two reports when all goes well.
_TO_TRIAL: Final = (Event.FETCHED, Event.SELFTEST_STARTED, Event.SELFTEST_OK)


@dataclass
class FieldDevice:
    """One device; it obeys, works, talks, lies, sleeps and loses power as it is told.

    Attributes:
        models: Bundle digest -> digest of the variant that it would run.
        spool: Records that the server has not acknowledged, by (boot, seq).
        honest: False once it has said something that is not so; from then on its words prove nothing.
        ever_ran: Bundles that it has truly committed.
        ever_failed: Bundles that truly failed here.
    """

    device_id: str
    key: SigningKey
    director: PublicKey
    fleet: str
    models: dict[str, str]
    boot: int = 1
    seq: int = 0
    online: bool = True
    honest: bool = True
    running: str = ""
    progress: Progress = field(default_factory=Progress)
    stored: tuple[int, int, bytes] | None = None
    wanted: DesiredModel | None = None
    floor: int = 0
    attested_nonce: str = ""
    spool: dict[tuple[int, int], Telemetry] = field(default_factory=dict)
    ever_ran: set[str] = field(default_factory=set)
    ever_failed: set[str] = field(default_factory=set)

    def hear(self, content: bytes) -> None:
        """A desired state arrives, new or old, once or twice."""
        message = decode(Desired, content)
        payload = open_desired(message, self.director, self.fleet, self.device_id)
        if judge_counter(payload, message.payload, self.stored) is not Acceptance.NEW:
            return
        self.stored = (payload.epoch, payload.counter, message.payload)
        self.wanted = payload.models.get(PROJECT)
        digest = None if self.wanted is None else self.wanted.bundle_digest
        lifted = lift(self.progress, payload.lifted)
        # What was lifted has not failed here any more: if it fails again, that is new.
        self.ever_failed -= {known for known, _ in {*lifted.lifted} - {*self.progress.lifted}}
        self.progress = lifted
        self.floor = max(self.floor, payload.floors.get(PROJECT, 0))
        too_old = self.wanted is not None and self.wanted.release_counter < self.floor
        event = judge_desired(self.progress, digest, self.running, below_floor=too_old)
        self._step(event, subject=digest or "", reason="below the floor" if event is Event.DESIRED_BELOW_FLOOR else "")
        self._attest()

    def work(self, *, good: bool) -> None:
        """Go on with what is wanted, as far as the next state that a person would see."""
        if self.progress.state == "downloading":
            for event in _TO_TRIAL:
                # A bundle that ran here before needs no trial.
                known = event is Event.SELFTEST_OK and self.progress.subject in self.ever_ran
                self._step(Event.SELFTEST_KNOWN if known else event)
        elif self.progress.state == "trial":
            self._step(Event.TRIAL_OK if good else Event.TRIAL_REJECTED, reason="" if good else "disagrees with the running model")
        if self.progress.state == "committed" and self.running != self.progress.subject:
            self.running = self.progress.subject
            self.ever_ran.add(self.running)
            self._attest()

    def fail_late(self) -> None:
        """The committed bundle turns out to be damaged, and does not come back."""
        if self.progress.state == "committed" and self.running == self.progress.subject:
            for event in (Event.DAMAGED, Event.FETCHED, Event.SELFTEST_STARTED, Event.SELFTEST_FAILED):
                self._step(event, reason="golden rows disagree" if event is Event.SELFTEST_FAILED else "")

    def lose_power(self) -> None:
        """Starts again: what is on disk stays, an attempt under way counts."""
        self.boot, self.seq = self.boot + 1, 0
        self._step(Event.RESTARTED)

    def score(self, body: bytes) -> None:
        """A window of rows was scored by the running bundle."""
        if self.running:
            self._put("window", body)

    def acknowledged(self, said: Acked) -> None:
        """The server holds these records."""
        for boot, upto in said.stored:
            self.spool = {key: record for key, record in self.spool.items() if key[0] != boot or key[1] > upto}

    def heartbeat(self) -> Incoming:
        return self.message("hb", encode(Heartbeat(boot=self.boot, at=0, running={PROJECT: self.running}, rows=5)))

    def reported(self) -> Incoming:
        state = self.progress.state_while(self.running)
        return self.report(
            ProjectState(
                bundle_digest=self.running,
                model_digest=self.models.get(self.running, ""),
                state=state,
                reason=self.progress.reason,
                subject_digest=self.progress.subject,
            )
        )

    def report(self, said: ProjectState, *, counter: int | None = None, quarantined: list[str] | None = None) -> Incoming:
        """Any report, also one that is not so."""
        epoch, own, _ = self.stored or (1, 0, b"")
        convicted = [digest for digest, _ in self.progress.quarantined][-16:]
        return self.message(
            "reported",
            encode(
                Reported(
                    epoch=epoch,
                    counter=own if counter is None else counter,
                    projects={PROJECT: said},
                    quarantined=convicted if quarantined is None else quarantined,
                )
            ),
        )

    def talk(self) -> list[Incoming]:
        """Everything that it would say now: state, sign of life, the oldest records of its spool."""
        oldest: dict[int, int] = {}
        for boot, seq in self.spool:
            oldest[boot] = min(oldest.get(boot, seq), seq)
        records = [msgspec.structs.replace(record, oldest_seq=oldest[boot]) for (boot, _), record in sorted(self.spool.items())[:8]]
        return [self.reported(), self.heartbeat(), *(self.message("t", encode(record)) for record in records)]

    def attestation(self, **changes: str | int) -> AttestationBody | None:
        """Its signed word for what it runs, None when nothing is asked of it."""
        if self.wanted is None or self.stored is None:
            return None
        body = AttestationBody(
            device=self.device_id,
            epoch=self.stored[0],
            counter=self.stored[1],
            bundle_digest=self.running,
            model_digest=self.models.get(self.running, ""),
            nonce=self.wanted.nonce,
        )
        body = msgspec.structs.replace(body, **changes)
        return msgspec.structs.replace(body, signature=self.key.sign(attestation_payload(body)))

    def put_attestation(self, body: AttestationBody) -> None:
        """Spool a word that was signed."""
        self._put("attestation", encode(body))

    def message(self, leaf: str, payload: bytes) -> Incoming:
        return Incoming(device_topic(self.device_id, leaf), payload, False, 1, 1, 1)

    @property
    def at_work(self) -> bool:
        """Whether an update is under way."""
        return self.progress.state in WORKING

    def _attest(self) -> None:
        if self.wanted is None or self.running != self.wanted.bundle_digest or self.attested_nonce == self.wanted.nonce:
            return
        body = self.attestation()
        if body is not None:
            self.attested_nonce = self.wanted.nonce
            self.put_attestation(body)

    def _put(self, kind: TelemetryKind, body: bytes) -> None:
        self.seq += 1
        self.spool[self.boot, self.seq] = Telemetry(
            boot=self.boot,
            seq=self.seq,
            oldest_seq=1,
            kind=kind,
            project=PROJECT,
            model_digest=self.models.get(self.running, ""),
            start_at=1_000_000,
            end_at=2_000_000,
            body=body,
        )

    def _step(self, event: Event, *, subject: str = "", reason: str = "") -> None:
        attempts = 3 if self.wanted is None else self.wanted.trial.attempts
        before = self.progress
        after = step(before, event, subject=subject, reason=reason, attempts=attempts)
        convicted = {digest for digest, _ in after.quarantined} - {digest for digest, _ in before.quarantined}
        self.ever_failed |= convicted
        self.progress = replace(after)
