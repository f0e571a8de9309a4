"""A process that is killed while it writes telemetry: forks one writer per kill, so that imports are paid once.

Arguments: work folder, kills. Each writer says after every `put` which sequence number it was given; the parent kills it with SIGKILL after
some of them, opens the spool again and prints one JSON object: what the writer said last, what is there, what was dropped.
"""

import json
import os
import random
import signal
import sys
from pathlib import Path

from device_agent.telemetry.spool import Spool
from device_agent.update.disk import Disk
from edgefleet.messages import Acked, Telemetry, decode


def write_for_ever(folder: Path, boot: int, limit_bytes: int, told: int) -> None:
    """Put records of changing sizes, and sync now and then."""
    spool = Spool(folder, boot, limit_bytes, Disk())
    i = 0
    while True:
        seq = spool.put("event", "tiny", "", i, i, bytes([i % 251]) * (1 + i * 37 % 900))
        os.write(told, seq.to_bytes(8, "little"))
        i += 1
        if i % 50 == 0:
            spool.sync()


def found(folder: Path, limit_bytes: int) -> tuple[dict[int, list[int]], int]:
    """By boot the sequence numbers that are sent, in their order, and how many records were dropped; each with the bytes that were put."""
    spool = Spool(folder, 1 << 62, limit_bytes, Disk())
    seen: dict[int, list[int]] = {}
    while messages := spool.to_send():
        for key, content in messages:
            message = decode(Telemetry, content)
            i = message.seq - 1
            assert message.body == bytes([i % 251]) * (1 + i * 37 % 900), message.seq
            seen.setdefault(message.boot, []).append(message.seq)
            spool.mark_sent(key)
        spool.acknowledge(Acked(stored=[(boot, seqs[-1]) for boot, seqs in seen.items()]))
    return seen, spool.dropped


def main() -> None:
    """Kill, look, print."""
    work, kills = Path(sys.argv[1]), int(sys.argv[2])
    rng = random.Random(11)  # noqa: S311  # when to kill, no secret
    for kill in range(kills):
        folder, limit_bytes = work / str(kill), (1 << 24, 60_000)[kill % 2]
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            write_for_ever(folder, kill + 1, limit_bytes, writing)
        os.close(writing)
        wanted, said = rng.randrange(1, 1500), 0
        while said < wanted:
            said = int.from_bytes(os.read(reading, 8), "little")
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        while rest := os.read(reading, 8):
            said = int.from_bytes(rest, "little")
        os.close(reading)
        seen, dropped = found(folder, limit_bytes)
        sys.stdout.write(json.dumps({"said": said, "seen": seen.get(kill + 1, []), "dropped": dropped}) + "\n")


if __name__ == "__main__":
    main()
