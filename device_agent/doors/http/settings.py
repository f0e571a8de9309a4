"""What the HTTP door may be told: where it listens, who may ask, and its limits."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

MIB: Final = 1024 * 1024


@dataclass(frozen=True)
class Limits:
    """Bounds of one door; memory is about `bodies_bytes` for requests, and while one is decoded up to ten times its body.

    Attributes:
        connections: Open at once, and threads; the longest idle one makes room, else the newcomer is answered 503.
        head_bytes: Request line and headers.
        body_bytes: One request's body, before and after decompression.
        bodies_bytes: Bodies of all requests being read or answered.
        elements: Values of one request's tensors or cells.
        explained_rows: Rows of one request for explanations, which cost far more than answers.
        receive_s: For a request to arrive, and for an answer to be taken.
        idle_s: Between two requests of a connection.
        work_s: For scoring one request; what is left then is shed.
    """

    connections: int = 32
    head_bytes: int = 16_384
    body_bytes: int = 8 * MIB
    bodies_bytes: int = 32 * MIB
    elements: int = MIB
    explained_rows: int = 256
    receive_s: float = 10.0
    idle_s: float = 60.0
    work_s: float = 10.0


@dataclass(frozen=True)
class HttpSettings:
    """Where the door listens; beyond this machine only with certificate, key and token.

    Attributes:
        port: TCP port, 0 for a free one.
        host: Address to bind.
        tls_cert: PEM certificate (chain), or None for plain HTTP.
        tls_key: Its PEM key, not encrypted.
        token_file: File with the bearer token that every request must bring, or None.
        limits: Bounds.
    """

    port: int
    host: str = "127.0.0.1"
    tls_cert: Path | None = None
    tls_key: Path | None = None
    token_file: Path | None = None
    limits: Limits = field(default_factory=Limits)
