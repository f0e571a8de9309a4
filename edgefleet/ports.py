"""Free ports on loopback."""

import random
import socket
from typing import Final

# Below what systems give to outgoing connections (Linux from 32768, others from 49152): a port from there is taken by the next connection
# of any process before a server that is still starting binds it.
FIRST_PORT: Final = 20_000
LAST_PORT: Final = 32_767
_TRIES: Final = 50


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody listens on at this moment; bind it soon, and be ready to ask again."""
    draw = random.SystemRandom()
    for port in (*(draw.randint(FIRST_PORT, LAST_PORT) for _ in range(_TRIES)), 0):  # 0: whatever the system finds
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise OSError("127.0.0.1 has no free TCP port; end programs that hold many")
