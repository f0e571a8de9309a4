"""What the list of groups costs a server: how many devices each of many groups selects now, over a large fleet.

`python -m benchmarks.groups` makes a project of 100,000 devices with five labels and 500 groups of six kinds in an SQLite database (or in
the empty database of the URL that it is given), counts all groups as the command, the API and the page do, and compares every count with
the database's own count of that one selection. It fails when a count differs, or when the list takes longer than `LIMIT_S`.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from fleet_server.grouping import groups_of
from fleet_server.selection import read_selection
from fleet_server.store import Database, groups, selecting
from fleet_server.store.groups import StoredGroup
from fleet_server.store.moments import to_micros
from fleet_server.store.tables import DEVICE, DEVICE_LABEL

PROJECT: Final = "p"
DEVICES: Final = 100_000
GROUPS: Final = 500
DEVICES_PER_SITE: Final = 100
REPEATS: Final = 5
BATCH: Final = 20_000
LIMIT_S: Final = 1.0


def main(arguments: list[str]) -> int:
    """Print the figures; 1 when a count is wrong or the list takes too long."""
    if arguments:
        return measure(Database(arguments[0]))
    with tempfile.TemporaryDirectory() as folder:
        return measure(Database(f"sqlite:///{Path(folder) / 'fleet.db'}"))


def measure(db: Database, devices: int = DEVICES, count: int = GROUPS) -> int:
    """Fill the empty database, print the figures, and close it; 1 when a count is wrong or the list takes too long."""
    db.upgrade()
    with db.write() as connection:
        _fill(connection, devices, count)
    with db.write() as connection:
        connection.execute(sa.text("ANALYZE"))
    taken = []
    for _ in range(REPEATS):
        begun = time.monotonic()
        views = groups_of(db)
        taken.append(time.monotonic() - begun)
    with db.read() as connection:
        begun = time.monotonic()
        expected = {view.name: selecting.count(connection, PROJECT, read_selection(view.selection)) for view in views}
        alone = time.monotonic() - begun
    wrong = [view.name for view in views if view.devices != expected[view.name]]
    wrong += [] if len(views) == count else ["the number of groups"]
    db.close()
    print(f"{len(views)} groups, {devices:,} devices, {db.url.partition(':')[0]}: {statistics.median(taken):.2f} s (limit {LIMIT_S:g} s);")
    print(f"first {taken[0]:.2f} s, quickest {min(taken):.2f} s; one query for each group {alone:.1f} s; counts that differ: {len(wrong)}")
    return int(bool(wrong) or statistics.median(taken) > LIMIT_S)


def _fill(connection: sa.Connection, devices: int, count: int) -> None:
    """The devices, their labels and the groups."""
    own = {"project": PROJECT, "public_key": "0" * 64, "enrolled_at": 0, "enrolled_by": "b"}
    for start in range(0, devices, BATCH):
        numbers = range(start, min(start + BATCH, devices))
        # One of a hundred was removed; its labels stay.
        rows: list[dict[str, Any]] = [own | {"device_id": _id(one), "removed_at": 1 if one % 100 == 99 else None} for one in numbers]
        connection.execute(sa.insert(DEVICE), rows)
        labels = [{"device_id": _id(one), "key": key, "value": value} for one in numbers for key, value in _labels(one)]
        connection.execute(sa.insert(DEVICE_LABEL), labels)
    at = to_micros(datetime(2026, 1, 5, tzinfo=UTC))
    for number in range(count):
        groups.put(
            connection,
            StoredGroup(PROJECT, f"g{number:03d}", _selection(number, devices), at, "b", "for the benchmark"),
        )


def _id(number: int) -> str:
    return f"d{number:06d}"


def _labels(number: int) -> Iterator[tuple[str, str]]:
    yield "hardware", f"model-{number % 6}"
    yield "site", f"site-{number // DEVICES_PER_SITE}"
    yield "region", f"region-{number // DEVICES_PER_SITE % 8}"
    yield "serial", f"s{number * 7919 % 1_000_003}"
    if number % 50 == 0:
        yield "retired", "2026"


def _selection(number: int, devices: int) -> str:
    sites = devices // DEVICES_PER_SITE
    site = f"site-{number * 37 % sites}"
    model, other = f"model-{number % 6}", f"model-{(number + 3) % 6}"
    kinds = (
        f"site in ({site}, site-{number * 11 % sites}, site-{number % sites})",
        f"hardware = {model} and site = {site}",
        f"region = region-{number % 8} and hardware not in ({model}, {other})",
        f"device({', '.join(_id((number * 101 + step) % devices) for step in range(20))})",
        f"site != {site} and not has(retired)",
        f"region = region-{number % 8} and (hardware = {model} or device({_id(number % devices)})) and site not in ({site}, site-7)",
    )
    return kinds[number % len(kinds)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
