"""The MQTT link of a device: one client that stays up, or comes back, whatever the broker does.

MQTT 5 first, 3.1.1 when that is refused. Callbacks do nothing but put the latest payload per topic into a mailbox, so that they can neither
block nor kill the network thread; nothing here waits for a publish; what must arrive is spooled and freed by the server's own `acked`.
A watchdog replaces a network thread that died, because paho goes on claiming to be connected.
"""

import contextlib
import logging
import random
import threading
import time
from typing import Any, Final

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from device_agent.config import Identity
from edgefleet.messages import MAX_MESSAGE_BYTES, Presence, encode
from edgefleet.topics import HALT, device_topic

LOG = logging.getLogger(__name__)

KEEPALIVE_S: Final = 300
WILL_DELAY_S: Final = 30
SESSION_EXPIRY_S: Final = 7 * 86_400
RECEIVE_MAXIMUM: Final = 20
MAX_QUEUED: Final = 80
RETRY_CAP_S: Final = 300
WATCH_S: Final = 1.0
UNANSWERED_WHEN_PROVEN: Final = 3
# A broker may send us what our own limit refuses; beyond this it is not even read (MQTT 5 only).
MAX_PACKET_BYTES: Final = 16 * 1024 * 1024
_DOWN: Final = ("desired", "acked")


class Mailbox:
    """The latest payload per topic: bounded by construction, and right for retained, level-triggered messages.

    Attributes:
        oversized_bytes: Size of the last message that was dropped unread per topic, because it exceeded the limit of all messages.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._latest: dict[str, bytes] = {}
        self.oversized_bytes: dict[str, int] = {}

    def put(self, leaf: str, payload: bytes) -> None:
        """Keep the payload in the place of an older one; one that is too large is only remembered by its size."""
        with self._condition:
            if len(payload) > MAX_MESSAGE_BYTES:
                self.oversized_bytes[leaf] = len(payload)
            else:
                self._latest[leaf] = payload
            self._condition.notify_all()

    def take(self, leaf: str) -> bytes | None:
        """Take the payload out, None when nothing came."""
        with self._condition:
            return self._latest.pop(leaf, None)

    def take_oversized(self, leaf: str) -> int:
        """Size of a message that was too large, 0 when there was none."""
        with self._condition:
            return self.oversized_bytes.pop(leaf, 0)

    def has(self, leaf: str) -> bool:
        """Whether something waits."""
        with self._condition:
            return leaf in self._latest or leaf in self.oversized_bytes

    def wait(self, leaf: str, timeout_s: float, *others: str) -> bool:
        """Wait until something is there for one of the leaves, or the time is over, or anything came, or `wake` was called."""
        with self._condition:
            if not any(map(self.has, (leaf, *others))):
                self._condition.wait(timeout_s)
            return any(map(self.has, (leaf, *others)))

    def wake(self) -> None:
        """Let everybody who waits look around."""
        with self._condition:
            self._condition.notify_all()


class Link:
    """Connection of one device to its broker.

    Args:
        identity: Who connects, and where.
        boot: Random number of this start, told in the presence message.
        spread_s: The first retry after a loss waits uniformly up to this, so that a fleet does not return in one second.
        rng: Source of that randomness.

    Attributes:
        mailbox: What came in.
        generation: Counts successful connects; a change means: resend what is outstanding.
        refusals: Publishes that the broker refused by reason code.
    """

    def __init__(self, identity: Identity, boot: int, spread_s: float, rng: random.Random) -> None:
        self._identity, self._boot, self._spread, self._rng = identity, boot, spread_s, rng
        self.mailbox = Mailbox()
        self.generation = 0
        self.refusals = 0
        self.restarted_threads = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._connected = threading.Event()
        self._protocol = mqtt.MQTTv5
        self._proven = False
        self._refused = False
        self._unanswered, self._changes, self._change_protocol = 0, 0, False
        self._client = self._make_client()
        self._watch = threading.Thread(target=self._watchdog, name="mqtt-watchdog", daemon=True)

    def start(self) -> None:
        """Begin to connect; returns at once, whether the broker is there or not."""
        self._connect()
        self._watch.start()

    @property
    def connected(self) -> bool:
        """Whether the broker accepted us and no loss was noticed since; a publish may still be lost."""
        return self._connected.is_set()

    @property
    def threads_alive(self) -> bool:
        """Whether the watchdog, which keeps the network thread alive, is."""
        return self._watch.is_alive()

    def publish(self, leaf: str, payload: bytes, *, retain: bool = False) -> bool:
        """Hand a message to the network thread; False when it did not take it. True is no proof of arrival."""
        if not self.connected:
            return False
        with self._lock:
            info = self._client.publish(device_topic(self._identity.device_id, leaf), payload, qos=1, retain=retain)
        return info.rc == mqtt.MQTT_ERR_SUCCESS

    def close(self) -> None:
        """Say that we go, then go; the will is not sent."""
        self._stop.set()
        if self.connected:
            info = self._client.publish(self._topic("presence"), encode(Presence(state="offline", boot=self._boot)), qos=1, retain=True)
            if info.rc == mqtt.MQTT_ERR_SUCCESS:
                with contextlib.suppress(RuntimeError, ValueError):
                    info.wait_for_publish(2.0)
        self._client.disconnect()
        self._client.loop_stop()
        if self._watch.is_alive():
            self._watch.join(5.0)

    def _make_client(self) -> mqtt.Client:
        identity = self._identity
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=identity.device_id, protocol=self._protocol)
        # Without this the first exception in a callback ends the network thread for good.
        client.suppress_exceptions = True
        client.max_queued_messages_set(MAX_QUEUED)
        client.max_inflight_messages_set(RECEIVE_MAXIMUM)
        client.reconnect_delay_set(*self._delays())
        if identity.mqtt_username:
            client.username_pw_set(identity.mqtt_username, identity.mqtt_password)
        lost = encode(Presence(state="lost", boot=self._boot))
        properties = None
        if self._protocol == mqtt.MQTTv5:
            properties = Properties(PacketTypes.WILLMESSAGE)  # type: ignore[no-untyped-call]
            properties.WillDelayInterval = WILL_DELAY_S
        client.will_set(self._topic("presence"), lost, qos=1, retain=True, properties=properties)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        return client

    def _connect(self) -> None:
        identity = self._identity
        if self._protocol == mqtt.MQTTv5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            # Without an expiry MQTT 5 forgets the session at the disconnect, whatever clean_start says.
            properties.SessionExpiryInterval = SESSION_EXPIRY_S
            properties.ReceiveMaximum = RECEIVE_MAXIMUM
            properties.MaximumPacketSize = MAX_PACKET_BYTES
            self._client.connect_async(
                identity.broker_host,
                identity.broker_port,
                keepalive=KEEPALIVE_S,
                clean_start=mqtt.MQTT_CLEAN_START_FIRST_ONLY,
                properties=properties,
            )
        else:
            self._client.connect_async(identity.broker_host, identity.broker_port, keepalive=KEEPALIVE_S)
        self._client.loop_start()

    # The callbacks run in the network thread: short, no wait.
    def _on_connect(self, client: mqtt.Client, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        self._unanswered = 0
        if reason.is_failure:
            LOG.warning("broker %s:%s refuses us: %s", self._identity.broker_host, self._identity.broker_port, reason)
            self._refused = True
            self._change_protocol = "protocol" in str(reason).lower()
            return
        self._proven = True
        # Every time: after a restart of the broker the session and its subscriptions may be gone.
        client.subscribe([(topic, 1) for topic in (HALT, *map(self._topic, _DOWN))])
        client.publish(self._topic("presence"), encode(Presence(state="online", boot=self._boot)), qos=1, retain=True)
        self.generation += 1
        self._connected.set()
        self.mailbox.wake()
        LOG.info("connected to %s:%s", self._identity.broker_host, self._identity.broker_port)

    def _on_disconnect(self, client: mqtt.Client, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        was = self._connected.is_set()
        self._connected.clear()
        if not was and not self._refused:
            # The broker hung up before any answer: that is what some do that do not know MQTT 5.
            self._unanswered += 1
            self._change_protocol = self._unanswered >= (UNANSWERED_WHEN_PROVEN if self._proven else 1)
        self._refused = False
        client.reconnect_delay_set(*self._delays())
        if was and not self._stop.is_set():
            LOG.warning("connection to the broker lost (%s); scoring goes on, telemetry is spooled", reason)

    def _on_message(self, client: mqtt.Client, userdata: Any, message: mqtt.MQTTMessage) -> None:
        leaf = message.topic.rpartition("/")[2]
        if message.topic == HALT or (leaf in _DOWN and message.topic == self._topic(leaf)):
            self.mailbox.put(leaf, bytes(message.payload))

    def _on_publish(self, client: mqtt.Client, userdata: Any, mid: int, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self.refusals += 1

    def _watchdog(self) -> None:
        while not self._stop.wait(WATCH_S):
            thread = self._client._thread  # no public way to see that the loop died
            dead = thread is None or not thread.is_alive()
            if not (dead or self._change_protocol):
                continue
            if self._change_protocol:
                self._stop.wait(self._rng.uniform(0.0, min(2.0**self._changes - 1.0, RETRY_CAP_S)))
                self._changes = min(self._changes + 1, 10)
                self._protocol = mqtt.MQTTv311 if self._protocol == mqtt.MQTTv5 else mqtt.MQTTv5
                LOG.info("trying MQTT %s", "5" if self._protocol == mqtt.MQTTv5 else "3.1.1")
            elif dead:
                self.restarted_threads += 1
                LOG.warning("the network thread died; a new one is started")
            self._replace_client()

    def _replace_client(self) -> None:
        with self._lock:
            old = self._client
            self._connected.clear()
            self._change_protocol = False
            with contextlib.suppress(Exception):  # whatever is left of the old client must not keep us from a new one
                old.disconnect()
                old.loop_stop()
            self._client = self._make_client()
            if not self._stop.is_set():
                self._connect()

    def _delays(self) -> tuple[Any, int]:
        # paho doubles the first delay without jitter; a random first one spreads the whole series. Fractions of a second are fine with it.
        first = self._rng.uniform(0.05, max(self._spread, 0.1))
        return first, max(RETRY_CAP_S, int(first) + 1)

    def _topic(self, leaf: str) -> str:
        return device_topic(self._identity.device_id, leaf)


def now_us() -> int:
    """Microseconds UTC of the wall clock: for messages only, never for a timer."""
    return time.time_ns() // 1000
