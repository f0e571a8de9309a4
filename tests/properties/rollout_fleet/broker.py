"""A broker that is down, loses, keeps back, doubles and reorders, with the little memory of MQTT: the last retained message of a topic."""

from collections.abc import Callable
from dataclasses import dataclass, field

from edgefleet.topics import parse_device_topic
from fleet_server.ingest.inbox import Incoming

_REMEMBERED = 12  # old messages that may come again


@dataclass
class Broker:
    """Between the server's processes and the devices.

    Attributes:
        up: False: nobody is connected.
        fate: Of messages to the devices that are published next, in turn: `ok`, `lost` (never arrives, not confirmed),
            `unconfirmed` (arrives, the confirmation does not); used up from the left, then all is well.
        retained: Device -> the last desired state.
        sent: Every desired state that the broker ever took, in order, as (device, payload).
        uplink: Messages of devices that wait for the ingest.
        delivered: The last ones that arrived, which may arrive again.
    """

    up: bool = True
    fate: list[str] = field(default_factory=list)
    retained: dict[str, bytes] = field(default_factory=dict)
    sent: list[tuple[str, bytes]] = field(default_factory=list)
    uplink: list[Incoming] = field(default_factory=list)
    delivered: list[Incoming] = field(default_factory=list)
    on_publish: Callable[[str, bytes], None] = lambda _device, _payload: None

    def take(self, topic: str, payload: bytes) -> bool:
        """A message of the server; whether it is confirmed."""
        fate = self.fate.pop(0) if self.fate else "ok"
        if not self.up or fate == "lost":
            return False
        if topic.endswith("/halt"):
            return fate == "ok"  # devices obey it by themselves; here the servers do
        device_id, leaf = parse_device_topic(topic)
        if leaf == "desired":
            self.on_publish(device_id, payload)
            if payload:
                self.retained[device_id] = payload
                self.sent.append((device_id, payload))
            else:
                self.retained.pop(device_id, None)  # an empty retained message takes the old one away
        return fate == "ok"

    def remember(self, messages: list[Incoming]) -> None:
        """Keep what arrived, for a broker that delivers it once more."""
        self.delivered = [*self.delivered, *messages][-_REMEMBERED:]


class Link:
    """One relay's connection; its process may die between two messages."""

    def __init__(self, broker: Broker, may_die: Callable[[], None]) -> None:
        self._broker, self._may_die = broker, may_die

    @property
    def connected(self) -> bool:
        """Whether the broker is there."""
        return self._broker.up

    def publish_all(self, messages: list[tuple[str, bytes]], timeout_s: float) -> list[bool]:
        """Publish one after the other."""
        assert timeout_s > 0
        confirmed = []
        for topic, payload in messages:
            self._may_die()
            confirmed.append(self._broker.take(topic, payload))
            self._may_die()
        return confirmed
