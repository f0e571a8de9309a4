"""The server's link speaks whatever the broker speaks: MQTT 5 with Mosquitto, 3.1.1 with the broker in the iotcore wheel."""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edgefleet.messages import Heartbeat, encode
from edgefleet.ports import free_port
from edgefleet.topics import device_topic
from fleet_server.broker import SERVER_USER, open_broker
from fleet_server.broker_probe import spoken_version
from fleet_server.config import ServerConfig
from fleet_server.ingest.inbox import Incoming
from fleet_server.ingest.link import Link

DEADLINE_S = 60.0
HELD = 1_500
PASSWORD = "secret"


def test_a_port_where_nobody_listens_speaks_no_version() -> None:
    assert spoken_version("127.0.0.1", free_port(), 1.0) is None


CONNACK_5, CONNACK_311 = b"\x20\x03\x00\x00\x00", b"\x20\x02\x00\x00"
REFUSAL_311 = b"\x20\x02\x00\x01"


@pytest.mark.parametrize(
    ("answers", "version"),
    [
        ([CONNACK_5], 5),
        ([b"", CONNACK_311, CONNACK_5], 5),
        ([b"", CONNACK_311, b"", CONNACK_311], 4),
        ([REFUSAL_311, CONNACK_311], 4),
        ([b"", b""], None),
    ],
    ids=["knows 5", "slow at first", "never answers in 5", "refuses 5", "never answers"],
)
def test_a_broker_that_was_slow_once_is_not_taken_for_an_old_one(answers: list[bytes], version: int | None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            for content in answers:
                with listener.accept()[0] as asker:
                    asker.recv(64)
                    if content:
                        asker.sendall(content)
                        asker.recv(1)  # until who asked has heard it

        broker = threading.Thread(target=answer)
        broker.start()
        spoken = spoken_version("127.0.0.1", listener.getsockname()[1], DEADLINE_S)
        broker.join()

    assert spoken == version


@pytest.mark.broker
@pytest.mark.parametrize(("kind", "version"), [("mosquitto", 5), ("iotcore", 4)])
def test_the_link_connects_receives_and_publishes(tmp_path: Path, kind: str, version: int) -> None:
    with open_broker(kind, tmp_path / "broker", PASSWORD) as broker:
        host, _, port = broker.url.removeprefix("mqtt://").partition(":")
        assert spoken_version(host, int(port), 5.0) == version
        link = started(tmp_path, broker.url)
        try:
            topic, payload = device_topic("d-1", "hb"), encode(Heartbeat(boot=1, at=1, running={}))
            deadline = time.monotonic() + DEADLINE_S
            while not any(link.publish_all([(topic, payload)], timeout_s=1.0)):
                assert time.monotonic() < deadline, "the link never published"
            received = link.receive(limit=10, linger_s=0.2, wait_s=DEADLINE_S)
            assert {(message.topic, message.payload) for message in received} == {(topic, payload)}
            link.acknowledge(received)
        finally:
            link.stop()


@pytest.mark.broker
def test_a_marker_comes_back_behind_everything_that_the_broker_held(tmp_path: Path) -> None:
    with open_broker("mosquitto", tmp_path / "broker", PASSWORD) as broker:
        first = started(tmp_path, broker.url)
        until(lambda: first.connected)
        first.mark(b"the subscription is there")
        assert first.receive(limit=1, linger_s=0.0, wait_s=DEADLINE_S)
        first.stop()
        held(broker.url)

        second = started(tmp_path, broker.url)
        try:
            until(lambda: second.connected)
            second.mark(b"marker")
            received: list[Incoming] = []
            while not received or received[-1].payload != b"marker":
                batch = second.receive(limit=100, linger_s=0.05, wait_s=DEADLINE_S)
                assert batch, f"no marker behind {len(received)} messages"
                received += batch
                second.acknowledge(batch)
            numbers = [int(message.payload) for message in received if message.topic == device_topic("d-1", "hb")]
            assert numbers == list(range(HELD))
        finally:
            second.stop()


@pytest.mark.broker
def test_a_confirmation_of_a_message_that_nobody_waited_for_confirms_no_later_one(tmp_path: Path) -> None:
    topic = device_topic("d-1", "desired")
    with open_broker("mosquitto", tmp_path / "broker", PASSWORD) as broker:
        link = started(tmp_path, broker.url)
        assert broker.pid_file is not None
        pid = int(broker.pid_file.read_text())
        try:
            until(lambda: link.connected)
            link.mark(b"marker")
            link.publish(topic, b"first")
            # Behind them, so that both are confirmed; their ids are behind us then, and come again after 65,535 messages.
            until(lambda: link.publish_all([(topic, b"second")], DEADLINE_S) == [True])
            assert link._client is not None
            link._client._last_mid = 0
            os.kill(pid, signal.SIGSTOP)

            assert link.publish_all([(topic, b"%d" % number) for number in range(8)], 0.2) == [False] * 8

            os.kill(pid, signal.SIGCONT)
            until(lambda: link.publish_all([(topic, b"last")], DEADLINE_S) == [True])
        finally:
            os.kill(pid, signal.SIGCONT)
            link.stop()


@pytest.mark.broker
def test_a_message_that_the_broker_refused_spoils_no_later_one_of_the_same_id(tmp_path: Path) -> None:
    with open_broker("mosquitto", tmp_path / "broker", PASSWORD) as broker:
        link = started(tmp_path, broker.url)
        try:
            until(lambda: link.connected)
            assert link._client is not None
            link._client._last_mid = before = 100

            assert link.publish_all([("not/allowed", b"%d" % number) for number in range(8)], 0.5) == [False] * 8

            # Their ids come again after 65,535 messages.
            link._client._last_mid = before
            assert link.publish_all([(device_topic("d-1", "desired"), b"%d" % number) for number in range(8)], 5.0) == [True] * 8
        finally:
            link.stop()


def started(folder: Path, url: str) -> Link:
    """The server's link to a broker that knows it by its password; stop it."""
    (folder / "password").write_text(PASSWORD)
    config = ServerConfig(data_dir=folder, broker_url=url, broker_username=SERVER_USER, broker_password_file=folder / "password")
    link = Link(config, url)
    link.start()
    return link


def until(there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not there():
        assert time.monotonic() < deadline
        threading.Event().wait(0.02)


def held(url: str) -> None:
    """More messages than may be on their way at once, for a server that is away."""
    host, _, port = url.removeprefix("mqtt://").partition(":")
    sender = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="d-1", protocol=mqtt.MQTTv5)
    sender.username_pw_set(SERVER_USER, PASSWORD)
    sender.connect(host, int(port))
    sender.loop_start()
    for number in range(HELD):
        last = sender.publish(device_topic("d-1", "hb"), b"%d" % number, qos=1)
    last.wait_for_publish(DEADLINE_S)
    sender.disconnect()
    sender.loop_stop()
