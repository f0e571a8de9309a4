"""The whole agent in one process, with a real broker, a real child for the self-test, and blobs over HTTP."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from device_agent.agent import Agent
from device_agent.config import AgentConfig
from edgefleet.bundle import Bundle
from edgefleet.desired import TrialPolicy
from edgefleet.messages import (
    MAX_MESSAGE_BYTES,
    AttestationBody,
    ExplanationBody,
    Heartbeat,
    Reported,
    WindowBody,
    attestation_payload,
    decode,
)
from edgefleet.signing import SigningKey
from edgefleet.topics import HALT
from tests.unit.device_agent.agent_world import (
    PROJECT,
    Enrolled,
    eventually,
    make_bundle,
    rows,
    weights,
)
from tests.unit.device_agent.whole_agent import Surrounded, surrounded

pytestmark = pytest.mark.broker


@dataclass
class World(Surrounded):
    """A device whose agent runs and follows a sensor's file."""

    agent: Agent = field(init=False)

    def __post_init__(self) -> None:
        self.sensor.touch()
        self.agent = self.make_agent()

    @property
    def sensor(self) -> Path:
        return self.folder / "sensor.ndjson"

    def make_agent(self) -> Agent:
        config = AgentConfig(
            dir=self.enrolled.folder, sensor=self.sensor, window_s=0.3, heartbeat_s=0.3, explain_every=100, selftest_timeout_s=60.0
        )
        return Agent(config)

    def bundle(self, seed: int, **changes: float) -> Bundle:
        made = make_bundle(self.folder / f"bundle-{seed}", weights(abs(seed)) * (1 if seed > 0 else -1), **changes)  # type: ignore[arg-type]
        self.blobs.add(made)
        return made

    def feed(self, n: int, seed: int = 3) -> None:
        with self.sensor.open("a") as stream:
            for row in rows(n, seed):
                stream.write(json.dumps([round(float(v), 4) for v in row]) + "\n")

    def wait_for_state(self, state: str, digest: str) -> Reported:
        def there() -> Reported | None:
            self.feed(5)
            reported = self.reported()
            if reported is None:
                return None
            project = reported.projects[PROJECT]
            return reported if (project.state, project.subject_digest) == (state, digest) else None

        return eventually(f"state {state}, now {self.reported()}", there, 60.0)

    def beats(self, digest: str, *, spooled: int) -> bool:
        """The last heartbeat says this; an earlier one, still under way, may say otherwise."""
        beat = self.fleet.said(Heartbeat, "hb")
        return beat is not None and (beat.running, beat.spooled) == ({PROJECT: digest}, spooled)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with surrounded(tmp_path) as one:
        made = World(one.folder, one.blobs, one.fleet, one.enrolled)
        made.agent.start()
        try:
            yield made
        finally:
            made.agent.close()


def test_a_release_is_fetched_tested_tried_committed_and_attested(world: World) -> None:
    bundle = world.bundle(1)
    world.want(bundle.digest)

    reported = world.wait_for_state("committed", bundle.digest)
    attested = eventually("attestation", lambda: world.fleet.telemetry("attestation"))

    body = decode(AttestationBody, attested[-1].body)
    key = SigningKey.load_or_create(world.enrolled.folder / "device.key").public
    assert key.verifies(body.signature, attestation_payload(body))
    assert (body.bundle_digest, body.nonce) == (bundle.digest, "nonce-1")
    assert reported.projects[PROJECT].bundle_digest == bundle.digest
    assert (reported.epoch, reported.counter) == (1, 1)


def test_the_floor_that_a_device_was_told_is_reported_and_signed(world: World) -> None:
    bundle = world.bundle(1)
    world.want(bundle.digest, floors={PROJECT: 1, "another": 7})

    reported = world.wait_for_state("committed", bundle.digest)
    attested = eventually("attestation", lambda: world.fleet.telemetry("attestation"))

    body = decode(AttestationBody, attested[-1].body)
    assert (reported.floors, body.floors) == ({PROJECT: 1}, {PROJECT: 1})
    assert SigningKey.load_or_create(world.enrolled.folder / "device.key").public.verifies(body.signature, attestation_payload(body))


def test_a_halt_that_is_too_large_is_refused_and_the_server_hears_of_it(world: World) -> None:
    eventually("the first report", world.reported)

    world.fleet.client.publish(HALT, b"x" * (MAX_MESSAGE_BYTES + 1), qos=1)

    eventually("the refusal in `reported`", lambda: (said := world.reported()) is not None and said.halts_refused == 1)


def test_windows_heartbeats_and_explanations_arrive_and_the_spool_empties(world: World) -> None:
    bundle = world.bundle(1)
    world.want(bundle.digest)
    world.wait_for_state("committed", bundle.digest)

    world.feed(120)
    explained = eventually("explanation", lambda: world.fleet.telemetry("explanation"))
    eventually("120 rows in windows", lambda: sum(decode(WindowBody, w.body).answered for w in world.fleet.telemetry("window")) >= 120)
    eventually("a heartbeat of the release with an empty spool", lambda: world.beats(bundle.digest, spooled=0))

    body = decode(ExplanationBody, explained[0].body)
    assert len(body.contributions) == 5
    assert body.row == []


def test_a_disagreeing_candidate_goes_back_by_itself_is_quarantined_and_stays_so(world: World) -> None:
    good, bad = world.bundle(1), world.bundle(-1)
    world.want(good.digest)
    world.wait_for_state("committed", good.digest)

    world.want(bad.digest)
    reported = world.wait_for_state("rolled-back", bad.digest)
    world.want(bad.digest)
    again = world.wait_for_state("quarantined", bad.digest)

    assert "agrees with the running model on" in reported.projects[PROJECT].reason
    assert reported.projects[PROJECT].bundle_digest == good.digest
    assert reported.quarantined == [bad.digest]
    assert again.projects[PROJECT].reason.startswith("failed here before: trial failed")
    assert world.agent.running_digest == good.digest


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        (b"\xff\x00rubbish", "no message of ours"),
        (b"x" * 10_000_000, "10000000 bytes exceed"),
        (b"\x93\x09\xc4\x00\x90", "version 9 is unknown"),
    ],
    ids=["malformed", "10 MB", "other version"],
)
def test_a_wrong_message_on_desired_is_told_and_changes_nothing(world: World, payload: bytes, said: str) -> None:
    good = world.bundle(1)
    world.want(good.digest)
    before = world.wait_for_state("committed", good.digest)

    world.fleet.publish("desired", payload, retain=False)
    event = eventually("an event", lambda: world.events("desired-refused"))[0]

    assert said in event.detail
    after = world.reported()
    assert after is not None
    assert after.counter == before.counter
    assert world.agent.running_digest == good.digest


def test_a_desired_state_of_a_stranger_is_refused(world: World) -> None:
    bundle = world.bundle(1)
    stranger = Enrolled(world.folder, SigningKey.load_or_create(world.folder / "stranger.key"))

    world.fleet.publish("desired", stranger.desired(bundle.digest), retain=False)
    event = eventually("an event", lambda: world.events("desired-refused"))[0]

    assert "not signed by the director key" in event.detail
    assert world.state() == "idle"


def test_after_a_stop_the_device_says_offline_and_the_next_start_scores_at_once(world: World) -> None:
    bundle = world.bundle(1)
    world.want(bundle.digest)
    world.wait_for_state("committed", bundle.digest)

    world.agent.close()
    eventually("offline", lambda: world.fleet.presence() == "offline")
    world.agent = world.make_agent()
    world.agent.start()

    assert world.agent.running_digest == bundle.digest
    assert world.agent.score([0.1] * 5).label in {"low", "mid", "high"}
    eventually("online", lambda: world.fleet.presence() == "online")


def test_a_stop_tells_the_last_state_too(world: World) -> None:
    first = world.bundle(1)
    world.want(first.digest)
    world.wait_for_state("committed", first.digest)
    second = world.bundle(2)
    world.want(second.digest, trial=TrialPolicy(soak_s=0.0, soak_rows=10**6, timeout_s=600.0, agreement_rows=10, min_agreement=0.0))
    world.wait_for_state("trial", second.digest)

    world.agent.close()

    eventually("the interrupted attempt is told as such", lambda: world.state() == "verified")
