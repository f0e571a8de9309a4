"""What real agents tell over a real broker and a real server shows: rows only with both keys, a candidate's comparison, load."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from edgefleet.client import FleetClient, Json
from fleet_server.broker import SERVER_USER, Broker, open_broker
from tests.integration.test_server_broker import ServerProcess
from tests.unit.device_agent.agent_world import PROJECT, eventually, make_bundle, weights
from tests.unit.fleet_server.server_world import POLICY

ROOT = Path(__file__).resolve().parents[2]
RATE = 3600.0
QUICK = POLICY | {
    "waves": ["100%"],
    "soak_s": 0.2,
    "soak_rows": 1,
    "trial": {"soak_s": 0.0, "soak_rows": 1, "timeout_s": 60.0, "min_agreement": 0.8},
}
WILLING, UNWILLING = "willing", "unwilling"

pytestmark = [pytest.mark.broker, pytest.mark.slow]


class Fleet:
    """A server process on a broker, and what its database says."""

    def __init__(self, folder: Path, broker: Broker) -> None:
        password = folder / "password"
        password.write_text("server-secret\n")
        arguments = ["--port", "0", "--broker", broker.url, "--broker-user", SERVER_USER, "--broker-password-file", str(password)]
        arguments += ["--mosquitto-passwords", str(broker.passwords), "--mosquitto-pid-file", str(broker.pid_file), "--poll-seconds", "0.2"]
        self.server = ServerProcess(folder, arguments)
        self.client: FleetClient = self.server.start()

    def ask(self, question: str, *values: object) -> list[Any]:
        with closing(sqlite3.connect(self.server.data / "fleet.db")) as connection:
            return connection.execute(question, values).fetchall()

    def rows(self, device_id: str) -> int:
        """Rows that the device has scored, by its windows that arrived."""
        return int(self.client.device(device_id)["device"]["rows_total"])

    def payloads(self, device_id: str) -> int:
        return int(self.ask("SELECT count(*) FROM telemetry WHERE device_id = ? AND kind = 'payload'", device_id)[0][0])

    def obeys(self, device_id: str) -> bool:
        """Whether the device has said that it holds the desired state that was issued last."""
        question = "SELECT r.counter = d.desired_counter FROM reported r JOIN device d USING (device_id) WHERE d.device_id = ?"
        found = self.ask(question, device_id)
        return bool(found and found[0][0])

    def settled(self, device_id: str, more: int = 40) -> None:
        """Wait until the device obeys and has scored that many rows since."""
        eventually(f"{device_id} obeys", lambda: self.obeys(device_id), 60.0)
        start = self.rows(device_id)
        eventually(f"{device_id} scores", lambda: self.rows(device_id) >= start + more, 60.0)

    def completed(self, rollout_id: str) -> bool:
        """Whether every device of the rollout runs its release, and has said so with its key."""
        return bool(self.client.rollout(rollout_id)["state"] == "completed")

    def command(self, *arguments: str) -> Any:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "EDGEFLEET_SERVER": self.client.url}
        environment["EDGEFLEET_TOKEN_FILE"] = str(self.server.data / "admin.token")
        command = [sys.executable, "-m", "edgefleet", *arguments]
        result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout) if "--json" in arguments else result.stdout


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with open_broker("mosquitto", tmp_path / "broker", "server-secret") as broker:
        made = Fleet(tmp_path, broker)
        yield made
        made.server.end(signal.SIGTERM)


@contextmanager
def agent(folder: Path, *arguments: str) -> Iterator[None]:
    """`edgefleet agent run` over a sensor file that grows by 25 rows a second, until the block ends."""
    sensor = folder / "sensor.ndjson"
    sensor.touch()
    feed = "import json, random, sys, time\nwhile True:\n    with open(sys.argv[1], 'a') as f:\n"
    feed += "        f.write(json.dumps({f'f{i}': random.gauss(0, 1) for i in range(5)}) + '\\n')\n    time.sleep(0.04)\n"
    command = [sys.executable, "-m", "edgefleet", "agent", "run", "--dir", str(folder), "--sensor", str(sensor)]
    command += ["--window-seconds", "0.5", "--heartbeat-seconds", "0.5", "--explain-every", "2", *arguments]
    with (folder / "agent.log").open("w") as log:
        child = subprocess.Popen(command, stderr=log, env={**os.environ, "PYTHONPATH": str(ROOT)})
        feeder = subprocess.Popen([sys.executable, "-c", feed, str(sensor)])
        try:
            yield
        finally:
            feeder.kill()
            feeder.wait(60)
            child.send_signal(signal.SIGTERM)
            assert child.wait(90) == 0, (folder / "agent.log").read_text()


def install(fleet: Fleet, folder: Path, version: str) -> None:
    release = fleet.client.push(folder, version)
    rollout = fleet.client.create_rollout(release["release_id"], QUICK, {"site": "hall"})
    fleet.client.start_rollout(rollout["rollout_id"], rollout["version"])
    eventually(f"rollout of release {version}", partial(fleet.completed, rollout["rollout_id"]), 90.0)


def test_rows_leave_a_device_only_while_both_keys_are_turned(tmp_path: Path, fleet: Fleet) -> None:
    make_bundle(tmp_path / "bundle", weights(1))
    for name in (WILLING, UNWILLING):
        fleet.client.enroll_into(tmp_path / name, name, {"site": "hall"}, project=PROJECT)
    with agent(tmp_path / WILLING, "--allow-rows-per-hour", str(RATE), "--redact", "f4"), agent(tmp_path / UNWILLING):
        install(fleet, tmp_path / "bundle", "1")

        # The device's key alone, and the operator's key alone.
        ordered = fleet.command("devices", "sampling", UNWILLING, "--rate", str(RATE), "--json")
        assert [one["device_id"] for one in ordered] == [UNWILLING]
        fleet.settled(WILLING)
        fleet.settled(UNWILLING)
        assert (fleet.payloads(WILLING), fleet.payloads(UNWILLING)) == (0, 0)

        # Both keys.
        fleet.command(
            "devices", "sampling", "--project", PROJECT, "--select", "site=hall", "--rate", str(RATE), "--redact", "f3", "--until", "1h"
        )
        eventually("sampled rows", lambda: fleet.payloads(WILLING) >= 3, 60.0)
        found: list[Json] = fleet.client.samples(WILLING)
        assert {tuple(sorted(one["row"])) for one in found} == {("f0", "f1", "f2")}
        assert all(one["score"] is not None and one["release"] == "1" for one in found)
        assert fleet.payloads(UNWILLING) == 0
        shown = fleet.command("devices", "show", WILLING)
        assert "f3 held back" in shown
        assert "processor" in shown
        assert "what the answers of release 1 rested on" in shown

        # Off again: what was under way arrives, and then no more.
        stopped = fleet.command("devices", "sampling", WILLING, UNWILLING, "--off", "--json")
        assert stopped == {"stopped": [UNWILLING, WILLING]}
        fleet.settled(WILLING, 10)
        last = fleet.payloads(WILLING)
        fleet.settled(WILLING, 100)  # 4 s of rows, at a rate of one a second until now
        assert (fleet.payloads(WILLING), fleet.payloads(UNWILLING)) == (last, 0)

        view = fleet.client.device(WILLING)
        assert view["load"]["rss_bytes"] > 1_000_000
        assert view["sampling"] is None
        assert view["observed"]["sampled_rows"] == last
        (explained,) = view["observed"]["attribution"]
        assert explained["rows"] > 10
        assert sum(one["share"] for one in explained["inputs"]) == pytest.approx(1.0)
    actions = [line["action"] for line in fleet.client.events(limit=500)]
    assert (actions.count("sample-rows"), actions.count("stop-rows")) == (3, 2)


@pytest.mark.conversions  # a slow proof, for the second stage
def test_a_candidate_that_listened_during_its_trial_is_compared_on_the_server(tmp_path: Path, fleet: Fleet) -> None:
    old, new = make_bundle(tmp_path / "old", weights(1)), make_bundle(tmp_path / "new", weights(1) * 1.2)
    fleet.client.enroll_into(tmp_path / WILLING, WILLING, {"site": "hall"}, project=PROJECT)
    with agent(tmp_path / WILLING):
        install(fleet, tmp_path / "old", "1")
        install(fleet, tmp_path / "new", "2")

        def compared() -> Json | None:
            found = fleet.client.device(WILLING)["observed"]["shadow"]
            return found[0] if found else None

        view = eventually("the comparison", compared, 60.0)
    assert (view["running_digest"], view["shadow_digest"]) == (old.digest, new.digest)
    assert (view["running_release"], view["shadow_release"]) == ("1", "2")
    missed = view["running_failed"] + view["shadow_failed"] + view["both_failed"] + view["shed"]
    assert view["offered"] == view["compared"] + missed
    assert view["compared"] >= 10
    assert view["agreement"] == 1.0  # larger weights answer with the same class, only surer
    assert view["difference_mean"] > 0
