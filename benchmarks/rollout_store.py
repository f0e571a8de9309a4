"""What a decision about a rollout by evidence costs the server: it reads sums, not devices.

`python -m benchmarks.rollout_store` makes fleets of 1,000, 10,000 and 100,000 devices in a SQLite database, opens all waves of a rollout
but the last, lets their devices begin by the functions that the ingest calls, and measures: the read of all facts with the engine's
decision, one sign of life, one report.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from fleet_server.rollout import Rollout, RolloutState, decide
from fleet_server.rollout.membership import Candidate
from fleet_server.rollout.outline import outline
from fleet_server.rollout.plans import default_policy
from fleet_server.store import Database, devices, evidence_members, evidence_sites, evidence_sums, facts, rollouts
from fleet_server.store.evidence_members import Selected
from fleet_server.store.moments import to_micros
from fleet_server.store.tables import DEVICE, RELEASE, ROLLOUT_MEMBER

START = datetime(2026, 1, 5, tzinfo=UTC)
DEVICES_PER_SITE = 100
SIZES = (1_000, 10_000, 100_000)
REPEATS = 200
BEGUN = 5_000  # devices that begin one by one; what is measured does not depend on it


def main() -> None:
    """Print the table."""
    print(f"{'devices':>9} {'sites':>6} {'facts + decide ms':>18} {'one sign of life ms':>20} {'one report ms':>14}")
    for count in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            db = Database.open(Path(folder))
            print(row(db, count), flush=True)
            db.close()


def row(db: Database, count: int) -> str:
    """One line: a fleet of so many devices, all of them begun but a few."""
    rollout = fill(db, count)
    now = START + timedelta(days=2)
    spare = _spare(db, rollout)
    with db.write() as connection:
        # The controls are heard again at the first look, so that the groups are due an hour later.
        for hours in (0, 2):
            while evidence_sites.come_due(connection, rollout, now + timedelta(hours=hours), limit=5_000):
                pass
    with db.read() as connection:
        decided = _timed(lambda _: decide(rollout, facts.read(connection, rollout, now), now))
    at = to_micros(now)
    with db.write() as connection:
        heard = _timed(lambda i: evidence_sums.heard(connection, [spare[i % len(spare)]], at + i))
        told = _timed(lambda i: evidence_sums.began(connection, rollout.rollout_id, spare[i], at), len(spare))
    return f"{count:>9,} {count // DEVICES_PER_SITE:>6,} {decided:>18.2f} {heard:>20.2f} {told:>14.2f}"


def fill(db: Database, count: int) -> Rollout:
    """A rollout over so many devices with all waves open but the last; some of their devices have not begun."""
    ids = [f"d{number:06d}" for number in range(count)]
    policy = default_policy()
    chosen = [Candidate(one, f"model-{i % 6}", f"site-{i // DEVICES_PER_SITE}") for i, one in enumerate(ids)]
    planned = outline(policy, chosen, "salt")
    assert planned.course is not None  # noqa: S101
    assert planned.membership is not None  # noqa: S101
    wave = len(planned.course.sizes) - 1
    course = planned.course
    for number in range(1, wave + 1):
        course = course.opened(number, START)
    value = Rollout(
        "r", "p", "rel", "d" * 64, 2, RolloutState.RUNNING, (), wave, (START,) * wave, (START,) * (wave - 1), policy, "salt", START, "b",
        course=course, changed_at=START,
    )  # fmt: skip
    with db.write() as connection:
        key = "0" * 64
        rows = [{"device_id": one, "project": "p", "public_key": key, "enrolled_at": 0, "enrolled_by": "b"} for one in ids]
        connection.execute(sa.insert(DEVICE), rows)
        release = {
            "release_id": "rel",
            "project": "p",
            "version": "1",
            "counter": 2,
            "bundle_digest": "d" * 64,
            "manifest": b"",
            "gates": "[]",
        }
        connection.execute(sa.insert(RELEASE).values(**release, size_bytes=0, note="", created_at=0, created_by="b"))
        rollouts.insert(connection, value, {}, 0)
        evidence_members.insert(connection, value, planned.membership, [Selected(one, f"r{i // 50_000}") for i, one in enumerate(chosen)])
        devices.seen(connection, dict.fromkeys(ids, to_micros(START)))
        asked = sa.update(ROLLOUT_MEMBER).where(ROLLOUT_MEMBER.c.wave.between(1, wave)).values(counter=1, assigned_at=to_micros(START))
        connection.execute(asked)
        evidence_members.rebuild_sums(connection, "r")
    begin = [one for wave_ids in planned.waves[:wave] for one in wave_ids][: min(BEGUN, sum(map(len, planned.waves[:wave])) - 50)]
    for start in range(0, len(begin), 2_000):
        with db.write() as connection:
            for i, one in enumerate(begin[start : start + 2_000], start):
                at = to_micros(START) + i * 60_000_000 * 60 * 20 // max(len(begin), 1)
                connection.execute(sa.update(ROLLOUT_MEMBER).where(ROLLOUT_MEMBER.c.device_id == one).values(began_at=at))
                evidence_sums.began(connection, "r", one, at)
    with db.write() as connection:
        devices.seen(connection, dict.fromkeys(ids, to_micros(START + timedelta(days=2))))
        for start in range(0, len(ids), 5_000):
            evidence_sums.heard(connection, ids[start : start + 5_000], to_micros(START + timedelta(days=2)))
    return value


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
    main()
