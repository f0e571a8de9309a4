"""A port that is free stays so until a server that is slow to start has bound it."""

import socket
from pathlib import Path

from edgefleet.ports import FIRST_PORT, LAST_PORT, free_port

RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
LINUX_DEFAULT = 32_768


def test_a_free_port_is_none_that_the_system_gives_to_outgoing_connections() -> None:
    first = int(RANGE.read_text().split()[0]) if RANGE.is_file() else LINUX_DEFAULT
    # A system that is set to give out our ports too cannot be served better than by chance.
    least = first if first > LAST_PORT else 65_536

    assert all(FIRST_PORT <= free_port() < least for _ in range(50))


def test_a_free_port_can_be_bound_and_is_not_given_out_while_it_is() -> None:
    taken = [socket.create_server(("127.0.0.1", free_port())) for _ in range(20)]
    try:
        ports = {one.getsockname()[1] for one in taken}

        assert len(ports) == 20
        assert not ports & {free_port() for _ in range(200)}
    finally:
        for one in taken:
            one.close()
