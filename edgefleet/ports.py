"""Free ports on loopback."""

import socket


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody listens on at this moment; bind it soon, and be ready to ask again."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
