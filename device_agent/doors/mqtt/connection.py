"""The door's own connection: MQTT 5 first, 3.1.1 when that is refused; it comes back whatever the broker does.

An arrival is acknowledged by `acknowledge` only, once it was answered: a broker that keeps sessions gives it again to a door that died.
Nothing here waits for a publish; what is on its way out is bounded. Callbacks hand over and return.
"""

import contextlib
import logging
import random
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from device_agent.doors.mqtt.settings import MqttSettings
from edgefleet.errors import ConfigError

LOG = logging.getLogger(__name__)

KEEPALIVE_S: Final = 60
# Long enough for a network that blinks; who asked longer ago has given up.
SESSION_EXPIRY_S: Final = 60
RECEIVE_MAXIMUM: Final = 32
# What is larger than a message may be is still read, and refused with an answer; beyond this it is not even read (MQTT 5 only).
MAX_PACKET_BYTES: Final = 16 * 1024 * 1024
MAX_OUTGOING: Final = 1000
MAX_INFLIGHT: Final = 100
UNANSWERED_WHEN_PROVEN: Final = 3
FIRST_RETRY_S: Final = (0.1, 1.0)
RETRY_CAP_S: Final = 30


@dataclass(frozen=True)
class Arrival:
    """A message as it came; `connection` counts connections, because an acknowledgement belongs to the same one."""

    topic: str
    payload: bytes
    content_type: str | None
    reply_topic: str | None
    correlation: bytes | None
    qos: int
    mid: int
    retained: bool
    connection: int
    arrived_s: float = 0.0


class DoorConnection:
    """Connection of one door.

    Args:
        settings: Where to, as whom, which topics.
        arrived: Called in the network's thread with each message; must return at once.

    Attributes:
        number: Counts connections.
        resumed: Whether the broker still knew the session, and gives again what was not acknowledged.
        refused: Answers that the broker refused to distribute (MQTT 5 only; in 3.1.1 a forbidden topic is silence).

    Raises:
        ConfigError: The file of authorities cannot be used.
    """

    def __init__(self, settings: MqttSettings, arrived: Callable[[Arrival], None]) -> None:
        self._settings, self._arrived = settings, arrived
        self._tls = _tls(settings)
        self.number, self.resumed, self.refused = 0, False, 0
        self._connected = threading.Event()
        self._lock = threading.Condition()
        self._on_the_way = 0
        self._unanswered = 0
        self._closing = False
        self._protocol = mqtt.MQTTv5
        self._change_protocol = self._refused = False
        self._client = self._make_client()

    def start(self) -> None:
        """Begin to connect; returns at once, whether the broker is there or not."""
        self._connect()

    @property
    def connected(self) -> bool:
        """Whether the broker accepted us and no loss was noticed since."""
        return self._connected.is_set()

    def publish(self, topic: str, payload: bytes, content_type: str, correlation: bytes | None) -> bool:
        """Hand an answer over; False when there is no connection or too much is on its way already."""
        with self._lock:
            if not self.connected or self._on_the_way >= MAX_OUTGOING:
                return False
            self._on_the_way += 1
        properties = None
        if self._protocol == mqtt.MQTTv5:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.ContentType = content_type
            if correlation is not None:
                properties.CorrelationData = correlation
        try:
            rc = self._client.publish(topic, payload, qos=self._settings.qos, properties=properties).rc
        except ValueError as err:  # the library's own check of the topic
            LOG.warning("answer not sent: %s", err)
            rc = mqtt.MQTT_ERR_INVAL
        if rc != mqtt.MQTT_ERR_SUCCESS:
            self._sent()
        return rc == mqtt.MQTT_ERR_SUCCESS

    def wait_for_room(self, timeout_s: float) -> None:
        """Wait while half of what may be on its way is; the other half is for those who cannot wait."""
        with self._lock:
            self._lock.wait_for(lambda: self._on_the_way < MAX_OUTGOING // 2 or not self.connected, timeout_s)

    def acknowledge(self, arrival: Arrival) -> None:
        """Tell the broker that the message is done with; of an older connection there is nothing to tell.

        Messages that are shed are acknowledged before older ones that wait; brokers take that, although the standard asks for the order.
        """
        if arrival.qos and arrival.connection == self.number and self.connected:
            self._client.ack(arrival.mid, arrival.qos)

    def comes_again(self, arrival: Arrival) -> bool:
        """Whether the broker delivers this message another time."""
        return arrival.qos > 0 and arrival.connection != self.number and self.resumed

    def look(self) -> None:
        """Mend what the library does not: change the protocol, replace a network thread that died. Call it every second or so."""
        thread = self._client._thread  # no public way to see that the loop died
        dead = thread is None or not thread.is_alive()
        if not (dead or self._change_protocol):
            return
        if self._change_protocol:
            self._protocol = mqtt.MQTTv311 if self._protocol == mqtt.MQTTv5 else mqtt.MQTTv5
            LOG.info("trying MQTT %s", "5" if self._protocol == mqtt.MQTTv5 else "3.1.1")
        self._change_protocol = False
        self._connected.clear()
        with contextlib.suppress(Exception):  # whatever is left of the old client must not keep us from a new one
            self._client.disconnect()
            self._client.loop_stop()
        self._client = self._make_client()
        self._connect()

    def close(self, patience_s: float = 2.0) -> None:
        """Let what is on its way out go, then go."""
        pause = threading.Event()
        waited_s = 0.0
        while self.connected and self._on_the_way and waited_s < patience_s:
            pause.wait(0.02)
            waited_s += 0.02
        self._closing = True
        self._client.disconnect()
        self._client.loop_stop()

    def _make_client(self) -> mqtt.Client:
        settings = self._settings
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=settings.client_id, protocol=self._protocol, manual_ack=True)
        # Without this the first exception in a callback ends the network thread for good.
        client.suppress_exceptions = True
        client.max_queued_messages_set(MAX_OUTGOING)
        client.max_inflight_messages_set(MAX_INFLIGHT)
        first_s: Any = random.uniform(*FIRST_RETRY_S)  # noqa: S311  # jitter: the doors of a broker shall not all come back in one moment
        client.reconnect_delay_set(first_s, RETRY_CAP_S)
        if settings.username:
            client.username_pw_set(settings.username, settings.password)
        if self._tls is not None:
            client.tls_set_context(self._tls)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_disconnect = self._on_disconnect
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        return client

    def _connect(self) -> None:
        settings = self._settings
        if self._protocol == mqtt.MQTTv5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.SessionExpiryInterval = SESSION_EXPIRY_S
            properties.ReceiveMaximum = RECEIVE_MAXIMUM
            properties.MaximumPacketSize = MAX_PACKET_BYTES
            first_only = mqtt.MQTT_CLEAN_START_FIRST_ONLY
            self._client.connect_async(settings.host, settings.port, KEEPALIVE_S, clean_start=first_only, properties=properties)
        else:
            self._client.connect_async(settings.host, settings.port, KEEPALIVE_S)
        self._client.loop_start()

    # The callbacks run in the network's thread: short, no wait.
    def _on_connect(self, client: mqtt.Client, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        settings = self._settings
        self._unanswered = 0
        if reason.is_failure:
            LOG.warning("MQTT door: broker %s:%s refuses us: %s", settings.host, settings.port, reason)
            self._refused = True
            self._change_protocol = "protocol" in str(reason).lower()
            return
        self.resumed = bool(flags.session_present)
        self.number += 1
        with self._lock:
            self._on_the_way = 0  # of QoS 0 nothing is told any more, of QoS 1 only too little is counted
            self._lock.notify_all()
        if self._protocol == mqtt.MQTTv5:
            options = SubscribeOptions(qos=settings.qos, noLocal=True, retainHandling=SubscribeOptions.RETAIN_DO_NOT_SEND)
            client.subscribe(settings.topic_in, options=options)
        else:
            client.subscribe(settings.topic_in, settings.qos)
        self._connected.set()
        LOG.info("MQTT door: listening on %s at %s:%s", settings.topic_in, settings.host, settings.port)

    def _on_subscribe(self, client: mqtt.Client, userdata: Any, mid: int, reasons: Any, properties: Any) -> None:
        for reason in reasons:
            if reason.is_failure:
                LOG.error("MQTT door: the broker does not let us listen on %s: %s", self._settings.topic_in, reason)

    def _on_disconnect(self, client: mqtt.Client, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        was = self._connected.is_set()
        self._connected.clear()
        # A broker that hangs up before any answer may be one that does not know MQTT 5.
        if not was and not self._refused:
            self._unanswered += 1
            self._change_protocol = self._unanswered >= (UNANSWERED_WHEN_PROVEN if self.number else 1)
        self._refused = False
        if was and not self._closing:
            LOG.warning("MQTT door: connection lost (%s)", reason)

    def _on_message(self, client: mqtt.Client, userdata: Any, message: mqtt.MQTTMessage) -> None:
        more: Any = message.properties
        self._arrived(
            Arrival(
                topic=message.topic,
                payload=bytes(message.payload),
                content_type=getattr(more, "ContentType", None),
                reply_topic=getattr(more, "ResponseTopic", None),
                correlation=getattr(more, "CorrelationData", None),
                qos=message.qos,
                mid=message.mid,
                retained=message.retain,
                connection=self.number,
            )
        )

    def _on_publish(self, client: mqtt.Client, userdata: Any, mid: int, reason: Any, properties: Any) -> None:
        self._sent()
        if reason.is_failure:
            self.refused += 1
            level = logging.WARNING if self.refused == 1 else logging.DEBUG  # callers shall not fill a disk
            LOG.log(level, "MQTT door: the broker refused an answer: %s", reason)

    def _sent(self) -> None:
        with self._lock:
            self._on_the_way = max(self._on_the_way - 1, 0)
            self._lock.notify_all()


def _tls(settings: MqttSettings) -> ssl.SSLContext | None:
    if not settings.tls:
        return None
    try:
        return ssl.create_default_context(cafile=None if settings.ca is None else str(settings.ca))
    except (OSError, ssl.SSLError) as err:
        raise ConfigError(f"--mqtt-ca {settings.ca}: not a PEM file of certificates: {str(err)[:120]}") from err
