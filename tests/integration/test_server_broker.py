"""The whole server as a process with a real Mosquitto: simulated devices over the network, a rollout to its end, kills in between."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edgefleet.client import FleetClient
from edgefleet.messages import Acked, decode
from edgefleet.signing import PublicKey, SigningKey
from edgefleet.topics import device_topic
from fleet_server.broker import SERVER_USER, Broker, find_mosquitto, open_broker
from fleet_server.ingest.inbox import Incoming
from tests.unit.fleet_server.server_world import POLICY, PROJECT, MadeBundle, SimulatedDevice, make_bundle

T = TypeVar("T")


def wait_for(what: str, look: Callable[[], T | None], seconds: float = 60.0) -> T:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        threading.Event().wait(0.05)
    raise AssertionError(f"{what} did not come in {seconds} s")


class NetworkDevice:
    """A simulated device with a real connection, a real spool in memory, and the real acknowledgement rule."""

    def __init__(self, folder: Path, rules: SimulatedDevice) -> None:
        self.rules = rules
        identity = json.loads((folder / "identity.json").read_text())
        host, _, port = identity["broker_url"].removeprefix("mqtt://").partition(":")
        self.acked: dict[int, int] = {}
        self.spool: dict[int, Incoming] = {}
        self.installed = threading.Event()
        self._bundles: dict[str, MadeBundle] = {}
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=rules.device_id, protocol=mqtt.MQTTv5)
        self._client.username_pw_set(identity["mqtt_username"], identity["mqtt_password"])
        self._client.on_connect = self._on_connect
        self._client.on_message = self._on_message
        self._client.reconnect_delay_set(1, 2)
        self._client.connect_async(host, int(port))
        self._client.loop_start()

    def knows(self, bundle: MadeBundle) -> None:
        self._bundles[bundle.digest] = bundle

    def send(self, *messages: Incoming) -> None:
        for message in messages:
            if message.topic.endswith("/t"):
                self.spool[self.rules.seq] = message
            self._client.publish(message.topic, message.payload, qos=1, retain=message.topic.endswith(("/reported", "/presence")))

    def send_surely(self, *messages: Incoming) -> None:
        """Send, and wait for the broker's word that it has them."""
        for message in messages:
            self._client.publish(message.topic, message.payload, qos=1).wait_for_publish(60.0)

    def resend(self) -> None:
        for message in list(self.spool.values()):
            self._client.publish(message.topic, message.payload, qos=1)

    def acked_beyond(self, seq: int) -> bool:
        return self.acked.get(self.rules.boot, 0) > seq

    def emptied(self) -> bool:
        """Whether everything is acknowledged; what is not is sent again."""
        self.resend()
        return not self.spool

    def connected(self) -> bool:
        return self._client.is_connected()

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _on_connect(self, client: mqtt.Client, *_: Any) -> None:
        client.subscribe([(device_topic(self.rules.device_id, "desired"), 1), (device_topic(self.rules.device_id, "acked"), 1)])
        self.send(self.rules.presence())

    def _on_message(self, _client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
        if message.topic.endswith("/acked"):
            self.acked |= dict(decode(Acked, bytes(message.payload)).stored)
            for seq in [seq for seq in self.spool if seq <= self.acked.get(self.rules.boot, 0)]:
                del self.spool[seq]
            return
        if not message.payload:
            return  # the broker forgets what it kept for this device
        wanted = self.rules.obey(bytes(message.payload))
        bundle = self._bundles.get(wanted.bundle_digest) if wanted is not None else None
        if bundle is not None and self.rules.running != bundle.digest:
            said = self.rules.install(bundle)
            self.send(*said)
            for _ in range(3):
                self.send(self.rules.window(bundle))
            self.installed.set()


class ServerProcess:
    """`edgefleet serve` as a child, with its log in a file."""

    def __init__(self, folder: Path, arguments: list[str]) -> None:
        self.data = folder / "data"
        self.log = folder / "server.log"
        self._arguments = [sys.executable, "-m", "edgefleet", "serve", "--data", str(self.data), *arguments]
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> FleetClient:
        (self.data / "server.json").unlink(missing_ok=True)
        with self.log.open("ab") as output:
            self._child = subprocess.Popen(self._arguments, stdout=output, stderr=output)
        document = wait_for(f"the server; its log: {self.log}", self._ready, 60.0)
        return FleetClient(document["url"], (self.data / "admin.token").read_text().strip())

    def end(self, number: signal.Signals) -> int:
        assert self._child is not None
        os.kill(self._child.pid, number)
        return self._child.wait(90)

    def alive(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def _ready(self) -> dict[str, Any] | None:
        assert self.alive(), self.log.read_text()
        try:
            return dict(json.loads((self.data / "server.json").read_bytes()))
        except OSError:
            return None


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with open_broker("mosquitto", tmp_path / "broker", "server-secret") as opened:
        yield opened


@pytest.fixture
def server(tmp_path: Path, broker: Broker) -> Iterator[ServerProcess]:
    password = tmp_path / "password"
    password.write_text("server-secret\n")
    arguments = ["--port", "0", "--broker", broker.url, "--broker-user", SERVER_USER, "--broker-password-file", str(password)]
    arguments += ["--mosquitto-passwords", str(broker.passwords), "--mosquitto-pid-file", str(broker.pid_file), "--poll-seconds", "0.2"]
    process = ServerProcess(tmp_path, arguments)
    yield process
    if process.alive():
        process.end(signal.SIGKILL)


def enroll(client: FleetClient, folder: Path, device_id: str) -> NetworkDevice:
    client.enroll_into(folder, device_id, {"site": "north"}, project=PROJECT)
    identity = json.loads((folder / "identity.json").read_text())
    key = SigningKey.load_or_create(folder / "device.key")
    return NetworkDevice(folder, SimulatedDevice(device_id, key, PublicKey(identity["director_key"]), identity["fleet"]))


QUICK = POLICY | {"waves": [1, "100%"], "soak_s": 0.5, "soak_rows": 20}


@pytest.mark.broker
@pytest.mark.slow
def test_a_rollout_reaches_every_device_over_a_real_broker(tmp_path: Path, server: ServerProcess) -> None:
    client = server.start()
    bundle = make_bundle(tmp_path / "bundle")
    devices = [enroll(client, tmp_path / f"d{n}", f"d{n}") for n in range(3)]
    try:
        for device in devices:
            device.knows(bundle)
        wait_for("all connections", lambda: sum(d["connected"] for d in client.devices()) == 3)
        release = client.push(bundle.folder, "1", "first")
        rollout = client.create_rollout(release["release_id"], QUICK, {"site": "north"})
        client.start_rollout(rollout["rollout_id"], rollout["version"])
        # Soak is judged by a sign of life after it.
        view = wait_for("the end", lambda: ended(client, rollout["rollout_id"], devices))
        assert view["state"] == "completed"
        assert {d["attested_digest"] for d in client.devices()} == {bundle.digest}
        wait_for("the acknowledgements", lambda: all(not device.spool for device in devices))
        assert [device.acked[device.rules.boot] for device in devices] == [device.rules.seq for device in devices]
    finally:
        for device in devices:
            device.close()
    assert server.end(signal.SIGTERM) == 0
    assert not (server.data / "server.json").exists()


def test_a_removed_device_is_cut_off_from_the_broker_and_nothing_of_it_is_retained(
    tmp_path: Path, server: ServerProcess, broker: Broker
) -> None:
    client = server.start()
    bundle = make_bundle(tmp_path / "bundle")
    device, other = (enroll(client, tmp_path / name, name) for name in ("device-0", "device-1"))
    retained: dict[str, bytes] = {}
    host, _, port = broker.url.removeprefix("mqtt://").partition(":")
    watcher = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="watcher", protocol=mqtt.MQTTv5)
    watcher.username_pw_set(SERVER_USER, "server-secret")
    watcher.on_message = lambda _client, _data, message: retained.update({message.topic: bytes(message.payload)})
    try:
        device.knows(bundle)
        other.knows(bundle)
        release = client.push(bundle.folder, "1")
        rollout = client.create_rollout(release["release_id"], POLICY | {"waves": ["100%"]})
        client.start_rollout(rollout["rollout_id"])
        wait_for("the release on both devices", lambda: device.installed.is_set() and other.installed.is_set())
        wait_for("their rows", lambda: client.device("device-0")["device"]["rows_total"])
        watcher.connect(host, int(port))
        watcher.loop_start()
        watcher.subscribe("ef/v1/d/device-0/#")
        wait_for("what the broker keeps of it", lambda: {topic.rpartition("/")[2] for topic in retained} >= {"desired", "reported"})

        client.remove_device("device-0", "scrapped")

        wait_for("that nothing is kept", lambda: not any(retained.values()))
        wait_for("the end of its connection", lambda: not device.connected())
        assert other.connected()
        assert client.device("device-0")["device"]["removed_at"] is not None
        assert [row["device_id"] for row in client.devices()] == ["device-1"]
    finally:
        watcher.loop_stop()
        device.close()
        other.close()


def ended(client: FleetClient, rollout_id: str, devices: list[NetworkDevice]) -> dict[str, Any] | None:
    """The rollout once it is over; each look makes every device send a heartbeat."""
    for device in devices:
        device.send(device.rules.heartbeat())
    view = client.rollout(rollout_id)
    return view if view["state"] in ("completed", "paused", "aborted") else None


@pytest.mark.broker
@pytest.mark.slow
def test_nothing_that_was_acknowledged_is_lost_when_the_server_is_killed(tmp_path: Path, server: ServerProcess) -> None:
    client = server.start()
    bundle = make_bundle(tmp_path / "bundle")
    client.push(bundle.folder, "1")
    device = enroll(client, tmp_path / "d0", "d0")
    try:
        wait_for("the connection", lambda: client.devices()[0]["connected"])
        for killed in (0, 100, 200):
            for _ in range(100):
                device.send(device.rules.window(bundle, rows=1))
            wait_for("an acknowledgement", partial(device.acked_beyond, killed))
            server.end(signal.SIGKILL)
            client = server.start()
            device.resend()
        wait_for("the empty spool", device.emptied)
        assert client.devices()[0]["rows_total"] == 300
    finally:
        device.close()


@pytest.mark.broker
def test_what_a_device_sent_before_it_died_is_no_life_after_the_absence_of_the_server(tmp_path: Path, server: ServerProcess) -> None:
    client = server.start()
    bundle = make_bundle(tmp_path / "bundle")
    client.push(bundle.folder, "1")
    dies, lives = (enroll(client, tmp_path / name, name) for name in ("dies", "lives"))

    def seen(device_id: str) -> datetime:
        return datetime.fromisoformat(client.device(device_id)["device"]["last_seen_at"])

    def heard_again() -> datetime:
        lives.send(lives.rules.heartbeat())
        return seen("lives")

    def scored(device_id: str) -> int:
        return int(client.device(device_id)["device"]["rows_total"])

    try:
        wait_for("both connections", lambda: sum(device["connected"] for device in client.devices()) == 2)
        dies.send(dies.rules.window(bundle, rows=1))
        wait_for("its first rows", lambda: scored("dies") == 1)
        assert server.end(signal.SIGTERM) == 0
        away_since = datetime.now(UTC)
        # The broker has confirmed them: it holds them for the server.
        dies.send_surely(dies.rules.window(bundle, rows=1), dies.rules.presence(), dies.rules.heartbeat())
        dies.close()

        client = server.start()
        returned_at = datetime.now(UTC)
        wait_for("what the broker held", lambda: scored("dies") == 2)

        wait_for("the other one's sign of life", lambda: heard_again() >= returned_at or None)
        assert seen("dies") <= away_since
    finally:
        dies.close()
        lives.close()


@pytest.mark.broker
@pytest.mark.slow
def test_the_server_serves_while_the_broker_is_away_and_publishes_when_it_is_back(
    tmp_path: Path, broker: Broker, server: ServerProcess
) -> None:
    broker.stop()
    client = server.start()
    bundle = make_bundle(tmp_path / "bundle")
    release = client.push(bundle.folder, "1")
    device = enroll(client, tmp_path / "d0", "d0")
    device.knows(bundle)
    rollout = client.create_rollout(release["release_id"], QUICK)
    assert client.start_rollout(rollout["rollout_id"], rollout["version"])["state"] == "running"

    # What the broker kept is gone, as after a broken disk: the server fills it again.
    (tmp_path / "broker" / "mosquitto.db").unlink(missing_ok=True)
    with (tmp_path / "broker" / "again.log").open("wb") as log:
        again = subprocess.Popen(
            [find_mosquitto() or "mosquitto", "-c", str(tmp_path / "broker" / "mosquitto.conf")], stdout=log, stderr=log
        )
    try:
        assert device.installed.wait(60)
        assert wait_for("the report", lambda: client.devices()[0]["attested_digest"]) == bundle.digest
    finally:
        device.close()
        again.terminate()
        again.wait(60)
