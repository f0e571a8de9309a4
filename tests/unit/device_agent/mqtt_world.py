"""A caller of the MQTT door, with the protocol version of its choice."""

import json
import socket
import threading
from typing import Any

import msgspec
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from device_agent.doors.answering import Answering
from device_agent.doors.mqtt.door import MqttDoor
from device_agent.doors.mqtt.settings import MqttSettings
from tests.unit.device_agent.agent_world import DEVICE, eventually

IN, OUT, MINE = "plant/rows", "plant/answers", "plant/mine"


def settings(port: int, **changes: Any) -> MqttSettings:
    given: dict[str, Any] = {
        "device_id": DEVICE,
        "host": "127.0.0.1",
        "port": port,
        "tls": False,
        "ca": None,
        "username": "",
        "password": "",
        "topic_in": IN,
        "topic_out": OUT,
        "qos": 1,
    }
    return MqttSettings(**(given | changes))


class Caller:
    """Publishes rows, keeps answers: (topic, bytes, correlation, content type)."""

    def __init__(self, port: int, version: int = 5, topics: tuple[str, ...] = (OUT, MINE), account: tuple[str, str] | None = None) -> None:
        self.version = version
        protocol = MQTTProtocolVersion.MQTTv5 if version == 5 else MQTTProtocolVersion.MQTTv311
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=protocol)
        self.client.max_inflight_messages_set(1000)
        self.got: list[tuple[str, bytes, bytes | None, str | None]] = []
        self.granted = threading.Event()
        self._topics = topics
        if account:
            self.client.username_pw_set(*account)
        self.client.reconnect_delay_set(1, 1)
        self.client.on_socket_open = _without_delay
        self.client.on_connect = self._on_connect
        self.client.on_subscribe = lambda *_: self.granted.set()
        self.client.on_message = self._on_message
        self.client.connect_async("127.0.0.1", port)
        self.client.loop_start()
        assert self.granted.wait(90.0)

    def __enter__(self) -> "Caller":
        return self

    def __exit__(self, *_: object) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def send(self, value: Any, *, topic: str = IN, qos: int = 1, retain: bool = False, **properties: Any) -> None:
        payload = value if isinstance(value, bytes) else json.dumps(value).encode()
        said = None
        if properties:
            said = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            for name, one in properties.items():
                setattr(said, name, one)
        self.client.publish(topic, payload, qos=qos, retain=retain, properties=said)

    def ask(self, value: Any, **more: Any) -> dict[str, Any]:
        """Send, and the next answer that comes."""
        before = len(self.got)
        self.send(value, **more)
        eventually("an answer", lambda: len(self.got) > before)
        return self.read(before)

    def read(self, place: int) -> dict[str, Any]:
        _, payload, _, content_type = self.got[place]
        packed = payload[0] >= 0x80
        if self.version == 5:
            assert content_type == ("application/msgpack" if packed else "application/json")
        found = msgspec.msgpack.decode(payload) if packed else json.loads(payload)
        assert isinstance(found, dict)
        return found

    def _on_connect(self, client: mqtt.Client, *_: Any) -> None:
        client.subscribe([(topic, 1) for topic in self._topics])

    def _on_message(self, _client: mqtt.Client, _: Any, message: mqtt.MQTTMessage) -> None:
        more: Any = message.properties
        correlation, kind = getattr(more, "CorrelationData", None), getattr(more, "ContentType", None)
        self.got.append((message.topic, bytes(message.payload), correlation, kind))


def _without_delay(_client: mqtt.Client, _userdata: Any, sock: Any) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def opened(models: Answering, port: int, **changes: Any) -> MqttDoor:
    """A door that listens."""
    door = MqttDoor(settings(port, **changes), models)
    door.start()
    eventually("the door's connection", lambda: door.connected, 60.0)
    return door


def settled(door: MqttDoor, messages: int) -> None:
    """Wait until the door has counted so many messages; its sums are right at every moment."""

    def enough() -> bool:
        counts = door.counts
        assert counts.offered == counts.scored + counts.shed + sum(counts.rejected.values())
        return counts.messages >= messages

    eventually(f"{messages} messages counted", enough, 90.0)
