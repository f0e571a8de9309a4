"""A fleet halt over a real broker, with a real server that dies and a real agent that is killed: nothing begins until the lift."""

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from device_agent.health import Health, read_health
from edgefleet.desired import DesiredModel, DesiredPayload, TrialPolicy, sign_desired
from edgefleet.errors import EdgefleetError
from edgefleet.halt import HaltPayload, sign_halt
from edgefleet.messages import Halt, decode, encode
from edgefleet.signing import SigningKey
from edgefleet.topics import HALT, device_topic
from fleet_server.broker import SERVER_USER, Broker, open_broker
from tests.integration.test_device_told import QUICK, Fleet, agent, install
from tests.unit.device_agent.agent_world import PROJECT, eventually, make_bundle, weights

pytestmark = [pytest.mark.broker, pytest.mark.slow]

PRESS = "press"
SERVER = (SERVER_USER, "server-secret")


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with open_broker("mosquitto", tmp_path / "broker", "server-secret") as opened:
        yield opened


@pytest.fixture
def fleet(tmp_path: Path, broker: Broker) -> Iterator[Fleet]:
    made = Fleet(tmp_path, broker)
    yield made
    if made.server.alive():
        made.server.end(signal.SIGTERM)


@contextmanager
def connected(broker: Broker, user: str, password: str) -> Iterator[mqtt.Client]:
    host, _, port = broker.url.removeprefix("mqtt://").partition(":")
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=f"test-{user}")
    client.username_pw_set(user, password)
    client.connect(host, int(port))
    client.loop_start()
    try:
        yield client
    finally:
        client.disconnect()
        client.loop_stop()


def retained_halt(broker: Broker) -> Halt:
    found: list[bytes] = []
    with connected(broker, *SERVER) as client:
        client.on_message = lambda _client, _data, message: found.append(bytes(message.payload))
        client.subscribe(HALT, 1)
        return decode(Halt, eventually("the retained halt", lambda: found[-1] if found else None))


def publish(broker: Broker, topic: str, content: bytes, who: tuple[str, str] = SERVER) -> None:
    with connected(broker, *who) as client:
        client.publish(topic, content, qos=1, retain=True).wait_for_publish(10)


def health(folder: Path) -> Health | None:
    try:
        return read_health(folder)
    except EdgefleetError:
        return None


def seen(folder: Path, what: str) -> None:
    eventually(f"halt in the agent's health: {what!r}", lambda: (now := health(folder)) is not None and what in now.halt, 60.0)


def scored(folder: Path) -> int:
    found = health(folder)
    return 0 if found is None else found.rows


def refused(folder: Path) -> int:
    found = health(folder)
    return 0 if found is None else found.halts_refused


def test_a_halt_stops_every_device_with_the_server_dead_and_only_a_newer_document_lifts_it(
    tmp_path: Path, broker: Broker, fleet: Fleet
) -> None:
    old, new = make_bundle(tmp_path / "old", weights(1)), make_bundle(tmp_path / "new", weights(1) * 1.01)
    folder = tmp_path / PRESS
    fleet.client.enroll_into(folder, PRESS, {"site": "hall"}, project=PROJECT)
    director = SigningKey.load_or_create(fleet.server.data / "director.key")
    with agent(folder):
        install(fleet, tmp_path / "old", "1")
        release = fleet.client.push(tmp_path / "new", "2")
        planned = fleet.client.create_rollout(release["release_id"], QUICK, {"site": "hall"})

        halted = fleet.command("fleet", "halt", "--reason", "fire in the hall", "--json")
        assert halted["halted"]
        eventually("the device knows", lambda: fleet.command("fleet", "status", "--json")["devices_know"] == 1, 60.0)
        with pytest.raises(EdgefleetError, match="the fleet is halted since"):
            fleet.client.start_rollout(planned["rollout_id"], planned["version"])
        first_halt = retained_halt(broker)
        fleet.command("fleet", "lift", "--reason", "out")
        lift = retained_halt(broker)
        eventually("lifted", lambda: (now := health(folder)) is not None and not now.halt, 60.0)
        fleet.command("fleet", "halt", "--reason", "fire again")
        seen(folder, "fire again")
        fleet.server.end(signal.SIGKILL)

    # The server is dead, and somebody who owns its key tells the device to change all the same; a killed agent comes back to it.
    model = DesiredModel(
        bundle_digest=new.digest, release="2", release_counter=2, rollout="o", nonce="n", trial=TrialPolicy(soak_s=0, soak_rows=5)
    )
    wish = DesiredPayload(format_version=1, fleet="fleet", device=PRESS, epoch=1, counter=10_000, issued_at=1, models={PROJECT: model})
    publish(broker, device_topic(PRESS, "desired"), encode(sign_desired(wish, director)))
    stranger = SigningKey.load_or_create(tmp_path / "stranger.key")
    lie = HaltPayload(format_version=1, fleet="fleet", epoch=1, counter=1 << 61, issued_at=1, halted=False, reason="all is well")
    identity = json.loads((folder / "identity.json").read_bytes())
    with agent(folder):
        seen(folder, "fire again")
        # An old lift that the broker's owner sends again, a stranger's, one that is no message: each is refused and counted.
        hostile = (encode(lift), encode(sign_halt(lie, stranger)), b"\xff" * 5_000)
        for count, content in enumerate(hostile, start=1):
            publish(broker, HALT, content)
            eventually(f"refusal {count}", partial(lambda wanted: refused(folder) >= wanted, count), 60.0)
        rows = scored(folder)
        eventually("scoring goes on", lambda: scored(folder) > rows + 20, 60.0)
        now = health(folder)
        assert now is not None
        assert (now.running, now.subject in ("", old.digest)) == (old.digest, True)
        assert "fire again" in now.halt

        # A device cannot lift for the others: the broker's access control lets it only read the topic.
        publish(broker, HALT, encode(first_halt))
        with_rights = retained_halt(broker)
        publish(broker, HALT, encode(lift), (identity["mqtt_username"], identity["mqtt_password"]))
        assert retained_halt(broker) == with_rights

    # The server comes back over its data, at another address, and lifts: the newest wish of the director is obeyed now.
    fleet.client = fleet.server.start()
    assert fleet.command("fleet", "status", "--json")["halted"]
    with agent(folder, "--mirror", fleet.client.url):
        seen(folder, "fire again")
        fleet.command("fleet", "lift", "--reason", "put out")
        eventually("the new model runs", lambda: (now := health(folder)) is not None and now.running == new.digest, 90.0)
    assert fleet.ask("SELECT count(*) FROM event WHERE action = 'fleet-halt'") == [(2,)]
