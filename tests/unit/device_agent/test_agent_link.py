"""The link against real brokers: it comes back, it falls back, and its network thread cannot be killed."""

import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest

from device_agent.config import load_identity
from device_agent.connection import Link, Mailbox
from device_agent.telemetry.spool import Spool
from device_agent.update.disk import Disk
from edgefleet.messages import MAX_MESSAGE_BYTES, Acked, Presence, decode
from edgefleet.ports import free_port
from tests.unit.device_agent.agent_world import Fleet, enroll, eventually, mosquitto


@contextmanager
def linked(folder: Path, url: str) -> Iterator[Link]:
    link = Link(load_identity(enroll(folder, broker_url=url).folder), 7, 0.2, random.Random(1))  # noqa: S311  # jitter
    link.start()
    try:
        yield link
    finally:
        link.close()


@pytest.mark.broker
def test_it_connects_with_mqtt_5_says_online_and_hears_desired(tmp_path: Path) -> None:
    with mosquitto(tmp_path / "b") as (url, port, _), Fleet(port) as fleet, linked(tmp_path / "d", url) as link:
        eventually("online", lambda: fleet.presence() == "online")
        fleet.publish("desired", b"hello")

        assert eventually("desired", lambda: link.mailbox.take("desired")) == b"hello"
        assert link._client.protocol == mqtt.MQTTv5


@pytest.mark.broker
def test_a_broker_that_comes_late_and_goes_and_comes_back_is_found_again(tmp_path: Path) -> None:
    port = free_port()
    with linked(tmp_path / "d", f"mqtt://127.0.0.1:{port}") as link:
        assert not link.publish("hb", b"x")
        with mosquitto(tmp_path / "b", port):
            eventually("first connection", lambda: link.connected)
        eventually("loss", lambda: not link.connected)
        with mosquitto(tmp_path / "b2", port), Fleet(port) as fleet:
            eventually("second connection", lambda: link.connected)
            fleet.publish("desired", b"again")

            assert eventually("subscription", lambda: link.mailbox.take("desired")) == b"again"
            assert link.generation == 2


@pytest.mark.broker
def test_a_broker_that_speaks_only_3_1_1_is_spoken_to_in_it(tmp_path: Path) -> None:
    port = free_port()
    code = f"from iotcore.iotcore import IotCoreBroker; IotCoreBroker(listen='127.0.0.1', port={port}).run_forever()"
    broker = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with linked(tmp_path / "d", f"mqtt://127.0.0.1:{port}") as link, Fleet(port) as fleet:
            eventually("connection", lambda: link.connected, 60.0)
            fleet.publish("desired", b"old protocol")

            assert eventually("desired", lambda: link.mailbox.take("desired"), 60.0) == b"old protocol"
            assert link._client.protocol == mqtt.MQTTv311
    finally:
        broker.kill()
        broker.wait()


@pytest.mark.broker
def test_a_network_thread_that_died_is_replaced(tmp_path: Path) -> None:
    with mosquitto(tmp_path / "b") as (url, _, _), linked(tmp_path / "d", url) as link:
        eventually("connection", lambda: link.connected)
        link._client.loop_stop()

        eventually("a new thread", lambda: link.restarted_threads == 1 and link.connected)
        assert link.publish("hb", b"x")


@pytest.mark.broker
def test_a_closed_link_says_offline_and_its_will_is_not_sent(tmp_path: Path) -> None:
    with mosquitto(tmp_path / "b") as (url, port, _), Fleet(port) as fleet:
        with linked(tmp_path / "d", url) as link:
            eventually("connection", lambda: link.connected)
        states = [decode(Presence, payload).state for leaf, payload in fleet.got if leaf == "presence"]
        eventually("offline", lambda: fleet.presence() == "offline")
        assert "lost" not in states


@pytest.mark.broker
def test_what_is_spooled_while_the_broker_is_away_arrives_once_it_is_back_and_is_freed_only_by_acked(tmp_path: Path) -> None:
    port = free_port()
    spool = Spool(tmp_path / "spool", 7, 1_000_000, Disk())
    for i in range(60):
        spool.put("event", "tiny", "", i, i, b"x")

    with linked(tmp_path / "d", f"mqtt://127.0.0.1:{port}") as link, mosquitto(tmp_path / "b", port), Fleet(port) as fleet:
        fleet.acknowledging = False
        eventually("connection", lambda: link.connected and fleet.client.is_connected())
        pump(link, spool)
        eventually("twenty records", lambda: len(fleet.telemetry()) == 20)
        unacknowledged = len(spool)

        fleet.acknowledging = True
        spool.resend()
        eventually("an empty spool", lambda: pump(link, spool) and len(spool) == 0)

    assert unacknowledged == 60
    assert {record.seq for record in fleet.telemetry()} == set(range(1, 61))


def pump(link: Link, spool: Spool) -> bool:
    if (payload := link.mailbox.take("acked")) is not None:
        spool.acknowledge(decode(Acked, payload))
    for key, message in spool.to_send():
        if link.publish("t", message):
            spool.mark_sent(key)
    return True


def test_the_mailbox_keeps_the_latest_and_only_the_size_of_what_is_too_large() -> None:
    mailbox = Mailbox()
    mailbox.put("desired", b"1")
    mailbox.put("desired", b"2")
    mailbox.put("acked", b"x" * (MAX_MESSAGE_BYTES + 1))

    assert (mailbox.take("desired"), mailbox.take("desired"), mailbox.take("acked")) == (b"2", None, None)
    assert mailbox.take_oversized("acked") == MAX_MESSAGE_BYTES + 1


def test_who_waits_at_the_mailbox_is_woken_by_a_message() -> None:
    mailbox = Mailbox()
    timer = threading.Timer(0.05, mailbox.put, ("desired", b"x"))
    timer.start()

    assert mailbox.wait("desired", 20.0)
    timer.join()
