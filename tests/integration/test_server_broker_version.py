"""The server's link speaks whatever the broker speaks: MQTT 5 with Mosquitto, 3.1.1 with the broker in the iotcore wheel."""

import time
from pathlib import Path

import pytest

from edgefleet.messages import Heartbeat, encode
from edgefleet.ports import free_port
from edgefleet.topics import device_topic
from fleet_server.broker import SERVER_USER, open_broker
from fleet_server.broker_probe import spoken_version
from fleet_server.config import ServerConfig
from fleet_server.ingest.link import Link

DEADLINE_S = 20.0


def test_a_port_where_nobody_listens_speaks_no_version() -> None:
    assert spoken_version("127.0.0.1", free_port(), 1.0) is None


@pytest.mark.broker
@pytest.mark.parametrize(("kind", "version"), [("mosquitto", 5), ("iotcore", 4)])
def test_the_link_connects_receives_and_publishes(tmp_path: Path, kind: str, version: int) -> None:
    (tmp_path / "password").write_text("secret")
    with open_broker(kind, tmp_path / "broker", "secret") as broker:
        host, _, port = broker.url.removeprefix("mqtt://").partition(":")
        assert spoken_version(host, int(port), 5.0) == version
        config = ServerConfig(
            data_dir=tmp_path, broker_url=broker.url, broker_username=SERVER_USER, broker_password_file=tmp_path / "password"
        )
        link = Link(config, broker.url)
        link.start()
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
