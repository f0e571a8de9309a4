"""Whether an MQTT broker answers, and in which version: a CONNACK, whatever it says, is an answer; an open socket is not."""

import socket
from typing import Final, Literal

# CONNECT packets with a clean session, keepalive 5 s and client id "probe": MQTT 3.1.1 (level 4) and MQTT 5 (with empty properties).
_CONNECT_311: Final = b"\x10\x11\x00\x04MQTT\x04\x02\x00\x05\x00\x05probe"
_CONNECT_5: Final = b"\x10\x12\x00\x04MQTT\x05\x02\x00\x05\x00\x00\x05probe"
_CONNACK: Final = 0x20
_LONGEST_311_ANSWER: Final = 2  # flags and return code; an answer in MQTT 5 has properties behind them


def answers_connect(host: str, port: int, timeout_s: float) -> bool:
    """Whether a broker at host:port answers a CONNECT within `timeout_s`; a refusal counts as an answer."""
    return _connack_length(host, port, timeout_s, _CONNECT_311) is not None


def spoken_version(host: str, port: int, timeout_s: float) -> Literal[5, 4] | None:
    """The newest protocol level that the broker answers in: 5, else 4 (MQTT 3.1.1), or None when it does not answer.

    Silence to the question for 5 may be a broker that knows it not, or one that is slow while it starts: after an answer in 3.1.1 it is
    asked once more, because the answer holds for as long as the server runs.
    """
    for _ in range(2):
        length = _connack_length(host, port, timeout_s, _CONNECT_5)
        if length is not None and length > _LONGEST_311_ANSWER:
            return 5
        if not answers_connect(host, port, timeout_s):
            return None
        if length is not None:
            break
    return 4


def _connack_length(host: str, port: int, timeout_s: float, connect: bytes) -> int | None:
    """Remaining length of the CONNACK, or None when none came."""
    try:
        with socket.create_connection((host, port), timeout=timeout_s) as stream:
            stream.sendall(connect)
            answer = stream.recv(64)
    except OSError:
        return None
    return answer[1] if len(answer) > 1 and answer[0] == _CONNACK else None
