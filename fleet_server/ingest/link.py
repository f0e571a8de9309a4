"""The server's connection to the broker: one session that survives restarts, acknowledgements by hand.

MQTT 5 where the broker speaks it, else 3.1.1: asked once, before the first connection. paho's thread only puts messages into a bounded
queue; the ingest worker acknowledges them after its commit. When the queue is full paho's thread waits, so that the broker keeps what we
cannot hold. A broker that is away is tried again for ever.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Final, Literal

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from edgefleet.messages import MAX_MESSAGE_BYTES
from edgefleet.topics import all_devices, marker_topic
from fleet_server.broker_probe import spoken_version
from fleet_server.config import ServerConfig, parse_broker_url
from fleet_server.ingest.inbox import Incoming

LOG = logging.getLogger(__name__)

LEAVES: Final = ("t", "reported", "presence", "hb")
SESSION_EXPIRY_S: Final = 300
RECEIVE_MAXIMUM: Final = 1_000
QUEUE_LIMIT: Final = 5_000
KEEPALIVE_S: Final = 60
_PUT_TIMEOUT_S: Final = 0.5
_PROBE_TIMEOUT_S: Final = 2.0
_PROBE_PERIOD_S: Final = 1.0


class Link:
    """A broker connection that is always either there or being tried.

    Attributes:
        on_connected: Called in paho's thread after each (re)connect; set it before `start`, and return quickly.
    """

    def __init__(self, config: ServerConfig, broker_url: str) -> None:
        self._host, self._port = parse_broker_url(broker_url)
        self._config, self._marker = config, marker_topic(config.fleet)
        self.on_connected: Callable[[], None] = lambda: None
        self._inbox: queue.Queue[Incoming] = queue.Queue(QUEUE_LIMIT)
        self._session = 0
        self._connected = threading.Event()
        self._stopping = threading.Event()
        self._published = threading.Condition()
        # Message id -> whether the broker took it; False is a refusal, which is the last word on that id too.
        self._answered: dict[int, bool] = {}
        # Message ids come again after 65,535 publishes: an answer that nobody waits for must not be one to a later message.
        self._unwaited: set[int] = set()
        # None until the broker has answered for the first time.
        self._client: mqtt.Client | None = None
        self._opener = threading.Thread(target=self._open, name="broker-opener", daemon=True)

    @property
    def connected(self) -> bool:
        """Whether the broker accepted us and our subscriptions were sent."""
        return self._connected.is_set()

    @property
    def connection(self) -> int | None:
        """Number of the connection that is there, None while there is none."""
        return self._session if self.connected else None

    def start(self) -> None:
        """Connect in the background and go on trying; never raises because the broker is away."""
        self._opener.start()

    def stop(self) -> None:
        """Disconnect and end paho's thread; the session stays at the broker until it expires."""
        self._stopping.set()
        if self._opener.is_alive():
            self._opener.join()
        if self._client is not None:
            self._client.disconnect()
            self._client.loop_stop()

    def receive(self, limit: int, linger_s: float, wait_s: float) -> list[Incoming]:
        """Up to `limit` messages: waits `wait_s` for the first, then `linger_s` for more."""
        batch: list[Incoming] = []
        deadline = time.monotonic() + wait_s
        while len(batch) < limit:
            left_s = deadline - time.monotonic()
            try:
                batch.append(self._inbox.get(timeout=left_s) if left_s > 0 else self._inbox.get_nowait())
            except queue.Empty:
                break
            if len(batch) == 1:
                deadline = time.monotonic() + linger_s
        return batch

    def acknowledge(self, messages: list[Incoming]) -> None:
        """Tell the broker that these are stored; messages of an earlier connection come again by themselves."""
        for message in messages:
            if self._client is not None and message.session == self._session and message.qos:
                self._client.ack(message.mid, message.qos)

    def publish(self, topic: str, payload: bytes) -> None:
        """Publish retained at QoS 1 without waiting; lost if the broker is away, for what is repeated anyway."""
        self._publish_unwaited(topic, payload, retain=True)

    def mark(self, payload: bytes) -> None:
        """Publish a marker to ourselves at QoS 1, not retained; one that is lost is followed by another."""
        self._publish_unwaited(self._marker, payload, retain=False)

    def publish_all(self, messages: list[tuple[str, bytes]], timeout_s: float) -> list[bool]:
        """Publish retained at QoS 1; for each message whether the broker confirmed it in time."""
        mids: list[int | None] = []
        for topic, payload in messages:
            client = self._client if self.connected else None
            info = client.publish(topic, payload, qos=1, retain=True) if client is not None else None
            mids.append(info.mid if info is not None and info.rc == mqtt.MQTT_ERR_SUCCESS else None)
            if info is not None and info.rc == mqtt.MQTT_ERR_NO_CONN:
                self._forget(info.mid)  # paho sends it after all, once it is connected again
        expected = {mid for mid in mids if mid is not None}
        with self._published:
            # Refused ones are waited for as well: they come again at once, and would come all the time.
            self._published.wait_for(lambda: all(map(self._took, expected)) or not self.connected, timeout=timeout_s)
            sure = [mid is not None and self._took(mid) for mid in mids]
        for mid in expected:
            self._forget(mid)
        return sure

    def _took(self, mid: int) -> bool:
        return self._answered.get(mid, False)

    def _publish_unwaited(self, topic: str, payload: bytes, *, retain: bool) -> None:
        if self._client is not None and self.connected:
            info = self._client.publish(topic, payload, qos=1, retain=retain)
            if info.rc in (mqtt.MQTT_ERR_SUCCESS, mqtt.MQTT_ERR_NO_CONN):
                self._forget(info.mid)

    def _forget(self, mid: int) -> None:
        """Wait no more for a message: the broker's answer is dropped, whether it came already or comes yet."""
        with self._published:
            if self._answered.pop(mid, None) is None:
                self._unwaited.add(mid)

    def _open(self) -> None:
        while not self._stopping.is_set():
            version = spoken_version(self._host, self._port, _PROBE_TIMEOUT_S)
            if version is not None:
                break
            LOG.warning("broker %s:%d does not answer; trying again", self._host, self._port)
            self._stopping.wait(_PROBE_PERIOD_S)
        else:
            return
        client = self._make_client(self._config, version)
        if version == 5:
            client.connect_async(self._host, self._port, keepalive=KEEPALIVE_S, clean_start=False, properties=_connect_properties())
        else:
            LOG.warning("broker %s:%d speaks MQTT 3.1.1 only: refusals of the access list will be silent", self._host, self._port)
            client.connect_async(self._host, self._port, keepalive=KEEPALIVE_S)
        self._client = client
        client.loop_start()

    def _make_client(self, config: ServerConfig, version: Literal[5, 4]) -> mqtt.Client:
        # A stable id keeps the session, and with it what devices sent while we were away.
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"fleet-server-{config.fleet}-0",
            clean_session=None if version == 5 else False,
            protocol=mqtt.MQTTv5 if version == 5 else mqtt.MQTTv311,
            manual_ack=True,
        )
        client.suppress_exceptions = True
        client.max_inflight_messages_set(RECEIVE_MAXIMUM)
        client.max_queued_messages_set(QUEUE_LIMIT)
        client.reconnect_delay_set(min_delay=1, max_delay=30)
        if config.broker_username is not None:
            client.username_pw_set(config.broker_username, config.broker_password())
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_connect_fail = self._on_connect_fail
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        return client

    def _on_connect(
        self, client: mqtt.Client, _data: Any, flags: mqtt.ConnectFlags, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        if reason.is_failure:
            LOG.error("broker %s:%d refuses us: %s; check user, password and access list", self._host, self._port, reason)
            return
        # The receive window is ours to choose, the session only tells what the broker still holds for us.
        LOG.info("broker %s:%d is connected, session %s", self._host, self._port, "kept" if flags.session_present else "new")
        self._session += 1
        options: Any = SubscribeOptions(qos=1) if client.protocol == mqtt.MQTTv5 else 1
        client.subscribe([(all_devices(leaf), options) for leaf in LEAVES])
        # By itself: a broker that refuses it must not refuse the devices with it.
        client.subscribe([(self._marker, options)])
        self._connected.set()
        self.on_connected()

    def _on_disconnect(
        self, _client: mqtt.Client, _data: Any, _flags: mqtt.DisconnectFlags, reason: ReasonCode, _properties: Properties | None
    ) -> None:
        with self._published:
            self._connected.clear()
            self._published.notify_all()
        if not self._stopping.is_set():
            LOG.warning("broker %s:%d went away (%s); trying again", self._host, self._port, reason)

    def _on_connect_fail(self, _client: mqtt.Client, _data: Any) -> None:
        LOG.warning("broker %s:%d does not answer; trying again", self._host, self._port)

    def _on_publish(self, _client: mqtt.Client, _data: Any, mid: int, reason: ReasonCode, _properties: Properties | None) -> None:
        if reason.is_failure:
            LOG.error("broker refuses a publish: %s; check the server's access list", reason)
        with self._published:
            if mid in self._unwaited:
                self._unwaited.remove(mid)
            else:
                self._answered[mid] = not reason.is_failure
                self._published.notify_all()

    def _on_message(self, _client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
        # What is too large for any message of ours is not held in full: ingest puts it aside by its size.
        payload = bytes(message.payload[: MAX_MESSAGE_BYTES + 1])
        incoming = Incoming(message.topic, payload, message.retain, message.qos, message.mid, self._session, message.dup)
        while not self._stopping.is_set():
            try:
                self._inbox.put(incoming, timeout=_PUT_TIMEOUT_S)
                return
            except queue.Full:
                continue


def _connect_properties() -> Properties:
    # paho builds the names of properties at run time, so its types do not know them.
    properties: Any = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = SESSION_EXPIRY_S
    properties.ReceiveMaximum = RECEIVE_MAXIMUM
    checked: Properties = properties
    return checked
