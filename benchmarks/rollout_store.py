"""What a rollout by evidence costs the server as its fleet grows: what is decided and shown reads sums, not devices.

`python -m benchmarks.rollout_store` makes fleets of 1,000, 10,000 and 100,000 devices in SQLite databases, opens all waves of a rollout but
the last, lets nearly all of their devices begin (`rollout_rows.py`), and measures in processor time: the read of all facts with the
engine's decision, one sign of life, one report that a device began, the look at one group of a site, one look of the scheduler, the page,
and a look on the way back, which takes up to two hundred devices. It
fails when a decision takes more than `DECIDE_MS`, or more than `GROWTH` times as long over the largest fleet as over the smallest.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from benchmarks.rollout_rows import ask_all, begin_all
from edgefleet.signing import SigningKey
from fleet_server import queries
from fleet_server.config import ServerConfig
from fleet_server.releases.blobs import BlobStore
from fleet_server.rollout import Rollout, RolloutState, decide
from fleet_server.rollout.membership import Candidate
from fleet_server.rollout.outline import outline
from fleet_server.rollout.plans import default_policy
from fleet_server.scheduler.steering import settle
from fleet_server.selection import EVERYBODY
from fleet_server.services import Services
from fleet_server.store import Database, devices, evidence_members, evidence_sites, evidence_sums, facts, rollouts
from fleet_server.store.evidence_members import Selected
from fleet_server.store.moments import to_micros
from fleet_server.store.tables import DEVICE, DEVICE_LABEL, RELEASE, ROLLOUT_MEMBER

START: Final = datetime(2026, 1, 5, tzinfo=UTC)
DEVICES_PER_SITE: Final = 100
SIZES: Final = (1_000, 10_000, 100_000)
REPEATS: Final = 100
GROUPS: Final = 5  # looked at in one go
SPARE: Final = 50  # asked, and not begun yet
HOURS: Final = 20  # in which all others began
DECIDE_MS: Final = 5.0
GROWTH: Final = 2.0
ROLLOUT_ID: Final = "r"


@dataclass(frozen=True)
class Costs:
    """Median milliseconds of processor time."""

    decide: float
    sign_of_life: float
    report: float
    group: float
    look: float
    page: float
    back: float


def main() -> int:
    """Print the table; 1 when a limit is exceeded."""
    print(f"{'devices':>9} {'sites':>6} " + " ".join(f"{field.name:>14}" for field in fields(Costs)) + "   ms; made in s")
    found = []
    for count in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            services = open_server(Path(folder))
            begun = time.monotonic()
            rollout = fill(services.db, count)
            made = time.monotonic() - begun
            costs = measure(services, rollout)
            services.db.close()
        found.append(costs)
        shown = " ".join(f"{getattr(costs, field.name):>14.2f}" for field in fields(Costs))
        print(f"{count:>9,} {count // DEVICES_PER_SITE:>6,} {shown}   {made:.0f}", flush=True)
    slowest, growth = max(one.decide for one in found), found[-1].decide / found[0].decide
    print(f"decide: {slowest:.2f} ms (limit {DECIDE_MS:g} ms); {growth:.1f} x from the smallest to the largest fleet (limit {GROWTH:g} x)")
    return int(slowest > DECIDE_MS or growth > GROWTH)


def open_server(folder: Path) -> Services:
    """The parts of a server over a fresh database, without its web page and its broker; its clock stands two days after the start."""
    config = ServerConfig(data_dir=folder)
    director = SigningKey.load_or_create(folder / "director.key")
    now = START + timedelta(days=2)
    return Services(Database.open(folder), config, director, BlobStore(folder / "blobs", config.max_blob_bytes), clock=lambda: now)


def measure(services: Services, rollout: Rollout) -> Costs:
    """Costs over the fleet that `fill` made."""
    db, now = services.db, services.clock()
    at, spare = to_micros(now), _spare(db, rollout)
    with db.write() as connection:
        group = _timed(lambda _: evidence_sites.come_due(connection, rollout, now, GROUPS), 5) / GROUPS
        # The controls are heard again at the first look, so that the groups are due an hour later.
        for hours in (0, 2):
            while evidence_sites.come_due(connection, rollout, now + timedelta(hours=hours), limit=5_000):
                pass
    with db.read() as connection:
        decided = _timed(lambda _: decide(rollout, facts.read(connection, rollout, now), now))
    page = _timed(lambda _: (queries.rollouts(db, now), queries.explain(db, ROLLOUT_ID, now)), 10)
    with db.write() as connection:
        heard = _timed(lambda i: evidence_sums.heard(connection, [spare[i % len(spare)]], at + i))
        told = _timed(lambda i: evidence_sums.began(connection, ROLLOUT_ID, spare[i], at), len(spare))
    # Looks ask devices, so they come last; a paused rollout that goes back asks two hundred devices a look.
    look = _timed(lambda _: settle(services, ROLLOUT_ID), 20)
    with db.write() as connection:
        stored = rollouts.load(connection, ROLLOUT_ID)
        assert stored is not None  # noqa: S101  # it was inserted
        rollouts.save(connection, stored, replace(stored.rollout, state=RolloutState.ROLLING_BACK), now)
    return Costs(decided, heard, told, group, look, page, _timed(lambda _: settle(services, ROLLOUT_ID), 3))


def fill(db: Database, count: int, *, ask: Callable[..., None] = ask_all, begin: Callable[..., None] = begin_all) -> Rollout:
    """A rollout over so many devices with all waves open but the last; all of their devices have begun, but for `SPARE`.

    Args:
        db: Fresh.
        count: Devices.
        ask: Gives devices the release, as `ask_all` does.
        begin: Lets them begin, as `begin_all` does.
    """
    ids = [f"d{number:06d}" for number in range(count)]
    policy = default_policy()
    chosen = [Candidate(one, f"model-{i % 6}", f"site-{i // DEVICES_PER_SITE}") for i, one in enumerate(ids)]
    planned = outline(policy, chosen, "salt")
    assert planned.course is not None  # noqa: S101  # the default policy is by evidence
    assert planned.membership is not None  # noqa: S101
    wave = len(planned.course.sizes) - 1
    course = planned.course
    for number in range(1, wave + 1):
        course = course.opened(number, START)
    value = Rollout(
        ROLLOUT_ID, "p", "rel", "d" * 64, 2, RolloutState.RUNNING, (), wave, (START,) * wave, (START,) * (wave - 1), policy, "salt", START,
        "b", course=course, changed_at=START,
    )  # fmt: skip
    opened = [one for wave_ids in planned.waves[:wave] for one in wave_ids]
    begun = opened[: len(opened) - SPARE]
    every_us = HOURS * 3_600_000_000 // len(begun)
    at, later = to_micros(START), to_micros(START + timedelta(days=2))
    with db.write() as connection:
        _enrol(connection, chosen)
        rollouts.insert(connection, value, EVERYBODY, 0)
        evidence_members.insert(connection, value, planned.membership, [Selected(one, f"r{i // 50_000}") for i, one in enumerate(chosen)])
        devices.seen(connection, dict.fromkeys(ids, at))
        ask(connection, value, opened, at)
        begin(connection, value, {one: at + i * every_us for i, one in enumerate(begun)})
    for start in range(0, len(ids), 5_000):
        piece = ids[start : start + 5_000]
        with db.write() as connection:
            devices.seen(connection, dict.fromkeys(piece, later))
            evidence_sums.heard(connection, piece, later)
    return value


def _enrol(connection: sa.Connection, chosen: Sequence[Candidate]) -> None:
    own = {"project": "p", "public_key": "0" * 64, "enrolled_at": 0, "enrolled_by": "b"}
    connection.execute(sa.insert(DEVICE), [own | {"device_id": one.device_id} for one in chosen])
    labels = [
        {"device_id": one.device_id, "key": key, "value": value}
        for one in chosen
        for key, value in (("hardware", one.stratum), ("site", one.site))
    ]
    connection.execute(sa.insert(DEVICE_LABEL), labels)
    for release_id, digest in (("rel", "d" * 64), ("old", "0" * 64)):
        release = {"release_id": release_id, "project": "p", "version": release_id, "counter": len(release_id) + ord(release_id[0])}
        release |= {
            "bundle_digest": digest,
            "manifest": b"",
            "gates": "[]",
            "size_bytes": 0,
            "note": "",
            "created_at": 0,
            "created_by": "b",
        }
        connection.execute(sa.insert(RELEASE).values(**release))


def _spare(db: Database, rollout: Rollout) -> Sequence[str]:
    with db.read() as connection:
        waiting = (
            ROLLOUT_MEMBER.c.rollout_id == rollout.rollout_id,
            ROLLOUT_MEMBER.c.counter.is_not(None),
            ROLLOUT_MEMBER.c.cell.is_(None),
        )
        return list(connection.scalars(sa.select(ROLLOUT_MEMBER.c.device_id).where(*waiting)))


def _timed(work: Callable[[int], Any], repeats: int = REPEATS) -> float:
    """Median milliseconds of processor time: the database runs in this process."""
    taken = []
    for number in range(repeats):
        start = time.process_time()
        work(number)
        taken.append(1e3 * (time.process_time() - start))
    return statistics.median(taken)


if __name__ == "__main__":
    sys.exit(main())
