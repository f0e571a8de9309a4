"""The telemetry spool: append-only segments beside SQLite in four settings, with the same records.

For each: records a second of `put`, system calls and bytes written per record, calls that wait for the disk (counted by strace where it is
installed, -1 where not), bytes on disk, and the time from opening after a SIGKILL to the first record that could be sent. Every store is
first seen to give back what was put before the kill; one that lost a record is an error, not a figure.
"""

import argparse
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from benchmarks.figures import Figure, show
from device_agent.telemetry.spool import Spool
from device_agent.update.disk import Disk

BODY_BYTES: Final = 600  # a window of five inputs, see docs/device.md
SYNC_EVERY: Final = 100  # records between two syncs: the agent syncs every two seconds, whatever came


class Store(Protocol):
    """What is compared."""

    def put(self, i: int, body: bytes) -> None:
        """Store a record so that kill -9 does not take it."""

    def sync(self) -> None:
        """Make all records survive a power cut."""

    def count(self) -> int:
        """Records that could be sent."""

    def first(self) -> bytes:
        """Body of the oldest record."""


class Segments:
    """The spool of the agent."""

    def __init__(self, folder: Path, _setting: str) -> None:
        self._spool = Spool(folder, 1, 1 << 30, Disk())

    def put(self, i: int, body: bytes) -> None:
        """Append."""
        self._spool.put("window", "tiny", "d" * 64, i, i + 1, body)

    def sync(self) -> None:
        """One fsync of the segment and one of the folder."""
        self._spool.sync()

    def count(self) -> int:
        """From the index in memory."""
        return len(self._spool)

    def first(self) -> bytes:
        """As it goes out."""
        return self._spool.to_send()[0][1]


class Sqlite:
    """One table, a transaction a record; `setting` is journal mode and synchronous."""

    def __init__(self, folder: Path, setting: str) -> None:
        mode, synchronous = setting.split("-")
        self._db = sqlite3.connect(folder / "spool.db", isolation_level=None)
        self._db.execute(f"PRAGMA journal_mode={mode}")
        self._db.execute(f"PRAGMA synchronous={synchronous}")
        columns = "boot INTEGER, seq INTEGER, kind TEXT, project TEXT, model TEXT, start_at INTEGER, end_at INTEGER, body BLOB"
        self._db.execute(f"CREATE TABLE IF NOT EXISTS t ({columns}, PRIMARY KEY (boot, seq)) WITHOUT ROWID")

    def put(self, i: int, body: bytes) -> None:
        """Insert and commit."""
        self._db.execute("INSERT INTO t VALUES (1, ?, 'window', 'tiny', ?, ?, ?, ?)", (i + 1, "d" * 64, i, i + 1, body))

    def sync(self) -> None:
        """A checkpoint, which is what makes a WAL durable when commits do not wait."""
        self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def count(self) -> int:
        """By the table."""
        return int(self._db.execute("SELECT count(*) FROM t").fetchone()[0])

    def first(self) -> bytes:
        """By the key."""
        return bytes(self._db.execute("SELECT body FROM t ORDER BY boot, seq LIMIT 1").fetchone()[0])


STORES: Final[dict[str, tuple[Callable[[Path, str], Store], str]]] = {
    "segments": (Segments, ""),
    "sqlite wal, normal": (Sqlite, "WAL-NORMAL"),
    "sqlite wal, full": (Sqlite, "WAL-FULL"),
    "sqlite rollback journal, full": (Sqlite, "DELETE-FULL"),
    "sqlite wal, off": (Sqlite, "WAL-OFF"),
}


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.spool", description="The telemetry spool beside SQLite.")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--records", type=int, default=2000, help="records each (default 2000)")
    parser.add_argument("--dir", type=Path, help="folder on the disk to measure (default: a temporary one)")
    parser.add_argument("--write", nargs=2, metavar=("STORE", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write:
        write_and_die(options.write[0], Path(options.write[1]), options.records)
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(dir=options.dir) as folder:
        for name in STORES:
            figures += measure(name, Path(folder) / name.replace(" ", "-"), options.records)
    show(figures, options.json)


def measure(name: str, folder: Path, records: int) -> list[Figure]:
    """Figures of one store."""
    folder.mkdir()
    made, setting = STORES[name]
    store, before = made(folder, setting), _written()
    start = time.perf_counter()
    for i in range(records):
        store.put(i, _body(i))
        if i % SYNC_EVERY == SYNC_EVERY - 1:
            store.sync()
    taken_s, after = time.perf_counter() - start, _written()
    size_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    fresh = folder.with_name(f"{folder.name}-killed")
    waits = write_in_child(name, fresh, records)
    start = time.perf_counter()
    again = made(fresh, setting)
    first = again.first()
    opened_ms = 1e3 * (time.perf_counter() - start)
    if _body(0) not in first or again.count() != records:
        raise SystemExit(f"{name}: {again.count()} of {records} records were there after the kill")
    return [
        Figure(f"{name}: put", records / taken_s, "1/s", None, records),
        Figure(f"{name}: write calls per record", (after[0] - before[0]) / records, "calls", None, records),
        Figure(f"{name}: bytes written per record", (after[1] - before[1]) / records, "bytes", None, records),
        Figure(f"{name}: waits for the disk per 100 records", 100 * waits / records if waits >= 0 else -1, "calls", None, records),
        Figure(f"{name}: bytes on disk per record", size_bytes / records, "bytes", None, records),
        Figure(f"{name}: open after kill -9", opened_ms, "ms", None, 1),
    ]


def write_in_child(name: str, folder: Path, records: int) -> int:
    """Let a child write the same records and die of SIGKILL; how often it waited for the disk, -1 without strace."""
    folder.mkdir()
    command = [sys.executable, "-m", "benchmarks.spool", "--records", str(records), "--write", name, str(folder)]
    log = folder.with_suffix(".strace")
    if shutil.which("strace"):
        command = ["strace", "-f", "-e", "trace=fsync,fdatasync", "-o", str(log), *command]
    subprocess.run(command, check=False)
    return sum("sync(" in line for line in log.read_text().splitlines()) if log.exists() else -1


def write_and_die(name: str, folder: Path, records: int) -> None:
    """In the child: write, then be killed without any goodbye."""
    made, setting = STORES[name]
    store = made(folder, setting)
    for i in range(records):
        store.put(i, _body(i))
        if i % SYNC_EVERY == SYNC_EVERY - 1:
            store.sync()
    os.kill(os.getpid(), signal.SIGKILL)


def _body(i: int) -> bytes:
    return i.to_bytes(4, "little") * (BODY_BYTES // 4)


def _written() -> tuple[int, int]:
    """(write calls, bytes given to write) of this process so far; zeros where the kernel does not tell."""
    try:
        lines = Path("/proc/self/io").read_text().splitlines()
    except OSError:
        return 0, 0
    numbers = {name: int(value) for name, _, value in (line.partition(": ") for line in lines)}
    return numbers["syscw"], numbers["wchar"]


if __name__ == "__main__":
    main()
