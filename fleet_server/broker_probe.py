"""Whether an MQTT broker answers: a CONNACK, whatever it says, is an answer; an open socket is not."""

import socket
from typing import Final

# MQTT 3.1.1 CONNECT, clean session, keepalive 5 s, client id "probe".
_CONNECT_311: Final = b"\x10\x11\x00\x04MQTT\x04\x02\x00\x05\x00\x05probe"
_CONNACK: Final = 0x20


def answers_connect(host: str, port: int, timeout_s: float) -> bool:
    """Whether a broker at host:port answers a CONNECT within `timeout_s`; a refusal counts as an answer."""
    try:
        with socket.create_connection((host, port), timeout=timeout_s) as stream:
            stream.sendall(_CONNECT_311)
            return stream.recv(4)[:1] == bytes([_CONNACK])
    except OSError:
        return False
