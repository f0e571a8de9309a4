"""Telemetry of the whole agent over a real broker: what leaves the device, what kill -9 costs, what the device says about itself."""

import json
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from device_agent.agent import Agent
from device_agent.config import AgentConfig
from device_agent.health import problems
from device_agent.telemetry.payload import PayloadSettings
from device_agent.telemetry.spool import Spool
from device_agent.update.disk import Disk
from edgefleet.desired import PayloadOrder
from edgefleet.messages import Acked, EventBody, Heartbeat, PayloadBody, WindowBody, decode, encode
from edgefleet.statistics import InputStatistics
from tests.unit.device_agent.agent_world import (
    PROJECT,
    eventually,
    make_bundle,
    rows,
    weights,
)
from tests.unit.device_agent.whole_agent import COMMAND, ENVIRONMENT, Surrounded, surrounded

pytestmark = pytest.mark.broker


@dataclass
class World(Surrounded):
    """A device with a release that it may fetch."""

    digest: str

    def counted(self) -> int:
        return sum(decode(WindowBody, record.body).answered for record in self.fleet.telemetry("window"))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with surrounded(tmp_path) as one:
        bundle = make_bundle(tmp_path / "bundle", weights(1))
        one.blobs.add(bundle)

        def listens() -> bool:
            one.fleet.publish("hb", encode(Heartbeat(boot=0, at=0, running={})), retain=False)
            return one.fleet.last("hb") is not None

        # What is sent before the server has subscribed would come again only after half a minute.
        eventually("the server listens", listens)
        yield World(one.folder, one.blobs, one.fleet, one.enrolled, bundle.digest)


@contextmanager
def agent(world: World, **changes: Any) -> Iterator[Agent]:
    settings: dict[str, Any] = {"window_s": 3600.0, "window_rows": 10**6, "heartbeat_s": 0.3, "selftest_timeout_s": 60.0} | changes
    running = Agent(AgentConfig(dir=world.enrolled.folder, **settings))
    running.start()
    try:
        yield running
    finally:
        running.close()


def commit(world: World, running: Agent) -> None:
    """Feed the trial with zeros until the release is committed."""

    def there() -> bool:
        if running._models.running or running._models.candidate:
            running.score([0.0] * 5)
        return world.state() == "committed" and running.running_digest == world.digest

    eventually("commit", there, 60.0)


def forms(value: float) -> list[bytes]:
    """How a float32 that came in could stand in a message: binary in both orders and widths, or as text."""
    return [struct.pack(f, value) for f in ("<f", ">f", "<d", ">d")] + [f"{value:.6g}"[:7].encode()]


def test_no_value_of_a_row_leaves_the_device_until_operator_and_device_both_allow_it(world: World) -> None:
    marked = np.random.default_rng(4).uniform(1.0, 2.0, (40, 5)).astype(np.float32)
    with agent(world, explain_every=4, explain_cpu_fraction=1.0, payload=PayloadSettings(3600, ("f4",))) as running:
        world.want(world.digest)
        commit(world, running)
        for row in ([-49.0] * 5, [49.0] * 5, *marked.tolist()):  # the ends of a window are no secret: minimum and maximum are told
            running.score(row)
        for bad in ([1.23456789e30, 0, 0, 0, 0], {"f0": "Mr Smith"}):
            with pytest.raises(Exception, match="is not accepted"):
                running.score(bad)
        running._reports.flush()
        eventually("window", lambda: world.counted() >= 42)
        eventually("explanations", lambda: len(world.fleet.telemetry("explanation")) >= 10)
        before = b"".join(payload for _, payload in world.fleet.got)

        world.want(world.digest, sampling=PayloadOrder(rows_per_hour=3600, redact=["f3"]))
        eventually("the operator's word", lambda: running._updater.director.payload and running._updater.director.payload.sampling)
        row = marked[0].tolist()
        eventually("a sampled row", lambda: running.score(row) and world.fleet.telemetry("payload"))

    for value in [*marked.ravel().tolist(), 1.23456789e30]:
        assert not [form for form in forms(value) if form in before], value
    assert b"Smith" not in before
    allowed = world.fleet.telemetry("payload")[0].body
    assert [form for form in forms(row[0]) if form in allowed]  # the search above would have found it
    body = decode(PayloadBody, allowed)
    assert body.row == dict(zip(["f0", "f1", "f2"], row[:3], strict=True))
    assert body.bundle_digest == world.digest


def test_explanations_are_summed_in_the_window_within_their_budget(world: World) -> None:
    with agent(world, explain_every=1, explain_cpu_fraction=0.05) as running:
        world.want(world.digest)
        commit(world, running)
        for row in rows(400):
            running.score(row)
    eventually("window", lambda: world.counted() >= 400)

    found = [decode(WindowBody, record.body).attribution for record in world.fleet.telemetry("window")]
    sums = [one for one in found if one is not None]
    explained, skipped = sum(one.rows for one in sums), sum(one.skipped for one in sums)
    assert explained >= 1
    assert explained + skipped >= 399  # the last one may still be owed
    assert skipped > explained
    assert all(len(one.total) == len(one.absolute) == 5 for one in sums if one.rows)
    assert all(a >= abs(t) > 0 for one in sums if one.rows for a, t in zip(one.absolute, one.total, strict=True))


def test_the_device_tells_its_load_and_how_far_its_clock_is_off(world: World) -> None:
    with agent(world) as running:
        eventually("connected", lambda: running._link.connected)
        world.fleet.publish("acked", encode(Acked(stored=[], at=time.time_ns() // 1000 + 90_000_000)))

        def told() -> Heartbeat | None:
            beat = world.fleet.said(Heartbeat, "hb")
            return beat if beat is not None and beat.load is not None and beat.load.clock_offset_ms is not None else None

        load = eventually("a heartbeat with the offset", told).load
        health = running._reports.health()

    assert load is not None
    assert 60_000 < (load.clock_offset_ms or 0) <= 90_000
    assert load.rss_bytes > 10**7
    assert (load.disk_free_bytes or 0) > 0
    assert (health.versions["numpy"], health.clock_jumps) == (np.__version__, 0)


def test_a_backlog_of_an_earlier_start_trickles_after_the_reconnect_and_arrives_whole(world: World) -> None:
    spool = Spool(world.enrolled.folder / "spool", 5, 1_000_000, Disk())
    for i in range(150):
        spool.put("event", PROJECT, "", i, i, encode(EventBody(name="old", detail=str(i))))
    start_s = time.monotonic()
    with agent(world, send_records_per_s=50.0):
        eventually("the backlog", lambda: len({record.seq for record in world.fleet.telemetry() if record.boot == 5}) == 150)
        taken_s = time.monotonic() - start_s

    # 20 records may go in advance, the rest at 50 a second.
    assert taken_s >= (150 - 21) / 50
    assert [event.detail for event in world.events("old")][:3] == ["0", "1", "2"]


def test_rows_that_a_snapshot_holds_survive_kill_9_and_are_counted_once(world: World) -> None:
    sensor = world.folder / "sensor"
    sensor.touch()
    options = [
        "run",
        "--dir",
        str(world.enrolled.folder),
        "--sensor",
        str(sensor),
        "--keep-seconds",
        "0.3",
        "--heartbeat-seconds",
        "0.5",
    ]
    world.want(world.digest)

    def start(*more: str) -> "subprocess.Popen[bytes]":
        return subprocess.Popen([*COMMAND, *options, *more], stderr=subprocess.DEVNULL, env=ENVIRONMENT)

    fed = [0]

    def feed(n: int) -> None:
        fed[0] += n
        with sensor.open("a") as stream:
            stream.writelines(json.dumps([round(float(v), 3) for v in row]) + "\n" for row in rows(n))

    def health() -> dict[str, Any]:
        path = world.enrolled.folder / "health.json"
        return dict(json.loads(path.read_bytes())) if path.exists() else {}

    def told() -> int:
        said = health()
        return int(said["rows"] + said["rejected"] + said["unanswered"])

    def committed() -> bool:
        feed(5)
        return world.state() == "committed"

    first = start("--from-start")
    try:
        eventually("commit", committed, 60.0)
        feed(300)
        eventually("scored and kept", lambda: health().get("rows_not_kept") == 0 and told() == fed[0], 60.0)
        answered = health()["rows"]
    finally:
        first.kill()
        first.wait()
    second = start()
    try:
        eventually("recovered", lambda: world.counted() > 0, 60.0)
    finally:
        second.terminate()
        code = second.wait(90)

    assert code == 0
    seen = [InputStatistics.from_bytes(decode(WindowBody, record.body).statistics).rows for record in world.fleet.telemetry("window")]
    assert len(seen) == 1
    assert seen[0] == answered >= 300
    assert world.events("window-rows-lost") == []


def test_an_attestation_that_the_disk_refuses_is_made_again_and_counts_as_no_loss(world: World) -> None:
    full = [False]

    def before(operation: str, path: Path) -> None:
        if full[0] and path.suffix == ".seg":
            raise OSError(28, "No space left on device")

    running = Agent(AgentConfig(dir=world.enrolled.folder, heartbeat_s=0.3, selftest_timeout_s=60.0), Disk(before))
    running.start()
    try:
        world.want(world.digest)
        commit(world, running)
        eventually("the first", lambda: world.fleet.telemetry("attestation"))
        dropped, attester = running._spool.dropped, running._reports._attester
        assert attester is not None
        full[0] = True
        for _ in range(2):
            attester._next_s = 0.0  # due at once
            eventually("another try", lambda: attester._next_s > 0.0)
        assert running._spool.dropped == dropped
        full[0] = False
        attester._next_s = 0.0
        eventually("it is told once there is room", lambda: len(world.fleet.telemetry("attestation")) == 2)
    finally:
        running.close()


@pytest.mark.parametrize(("ahead_s", "said"), [(0.0, []), (-60.0, ["60 s old"]), (3600.0, ["3600 s in the future"])])
def test_a_sign_of_life_is_stale_also_when_the_clock_was_set_back_since(ahead_s: float, said: list[str], world: World) -> None:
    now_us = 1_800_000_000_000_000
    with agent(world) as running:
        health = msgspec.structs.replace(running._reports.health(), at=now_us + round(ahead_s * 1e6), stopped_threads=[])

    assert [words in problem for words, problem in zip(said, problems(health, now_us), strict=True)] == [True] * len(said)


YEAR_NS = 365 * 86_400 * 10**9


def test_a_clock_that_jumps_years_ahead_and_back_is_told_and_no_row_is_lost_or_counted_twice(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(times: int) -> bool:
        return len(world.events("clock-jumped")) == times

    jumped, real = [0], time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() + jumped[0])
    with agent(world, window_s=0.3) as running:
        world.want(world.digest)
        commit(world, running)
        for i, jump in enumerate((5 * YEAR_NS, -9 * YEAR_NS, 4 * YEAR_NS)):
            jumped[0] += jump
            for row in rows(50):
                running.score(row)
            eventually("the jump is told", partial(told, i + 1))
        answered = running._models.rows
        eventually("every row", lambda: world.counted() == answered)

        eventually("the status counts the jumps", lambda: running._reports.health().clock_jumps == 3)
        assert running._stopped_threads() == []
    spans = [(record.start_at, record.end_at) for record in world.fleet.telemetry("window")]
    assert all(start <= end for start, end in spans)
    assert max(end - start for start, end in spans) < 3600 * 10**6  # no window spans a jump
    assert world.counted() == answered
