"""The rows that the store's benchmark inserts at once are those that the ingest writes one report at a time."""

from pathlib import Path
from typing import Any

import sqlalchemy as sa

from benchmarks import rollout_store
from benchmarks.rollout_rows import ROWS
from fleet_server.rollout import Rollout
from fleet_server.rollout.groups import Timing
from fleet_server.services import Services
from fleet_server.store import evidence_sites, members
from fleet_server.store.members import Member
from fleet_server.store.tables import (
    ROLLOUT_CELL,
    ROLLOUT_GROUP,
    ROLLOUT_MEMBER,
    ROLLOUT_REGION,
    ROLLOUT_SITE,
    ROLLOUT_SUM,
)

DEVICES = 400
SUMMED = (ROLLOUT_MEMBER, ROLLOUT_SUM, ROLLOUT_CELL, ROLLOUT_GROUP, ROLLOUT_SITE, ROLLOUT_REGION)


def rows_of(services: Services) -> dict[str, list[tuple[Any, ...]]]:
    with services.db.read() as connection:
        return {
            table.name: [tuple(row) for row in connection.execute(sa.select(table).order_by(*table.primary_key.columns))]
            for table in SUMMED
        }


def ask_by_the_ingest(connection: sa.Connection, rollout: Rollout, device_ids: list[str], at: int) -> None:
    for device_id in device_ids:
        members.note_assigned(connection, rollout.rollout_id, device_id, None, 1, at)


def begin_by_the_ingest(connection: sa.Connection, rollout: Rollout, began: dict[str, int]) -> None:
    for device_id, at in began.items():
        member = Member(rollout.rollout_id, device_id, rollout.bundle_digest, 1, by_evidence=True)
        members.note_began(connection, member, at)
        members.note_committed(connection, member, at)
        members.note_attested(connection, member, at)
        members.note_rows(connection, device_id, rollout.project, rollout.bundle_digest, ROWS, at)


def test_rows_inserted_at_once_are_those_of_the_ingest(tmp_path: Path) -> None:
    at_once, one_by_one = (rollout_store.open_server(tmp_path / name) for name in ("once", "each"))
    rollout_store.fill(at_once.db, DEVICES)
    rollout_store.fill(one_by_one.db, DEVICES, ask=ask_by_the_ingest, begin=begin_by_the_ingest)
    expected, found = rows_of(one_by_one), rows_of(at_once)
    assert sum(row[ROLLOUT_MEMBER.c.keys().index("proven_at")] is not None for row in expected[ROLLOUT_MEMBER.name]) > 100
    assert found == expected
    at_once.db.close()
    one_by_one.db.close()


def test_a_look_at_a_group_reads_the_devices_of_its_site_and_not_those_of_a_wave(tmp_path: Path) -> None:
    services = rollout_store.open_server(tmp_path / "looks")
    rollout = rollout_store.fill(services.db, 1_000)
    asked: list[tuple[str, Any]] = []
    with services.db.write() as connection:
        sa.event.listen(connection, "before_cursor_execute", lambda _c, _u, text, values, *_: asked.append((text, values)))
        assert evidence_sites.come_due(connection, rollout, services.clock()) > 0
        counts = [one for one in asked if one[0].startswith("SELECT count(*)")]
        plans = [str(connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", values).all()) for text, values in counts]
    assert plans
    assert all("ix_rollout_member_site" in plan and "ix_rollout_member_order" not in plan for plan in plans)
    services.db.close()


def test_a_region_is_told_by_a_sample_of_its_controls(tmp_path: Path) -> None:
    services = rollout_store.open_server(tmp_path / "regions")
    rollout = rollout_store.fill(services.db, 3_000)
    with services.db.write() as connection:
        looks = evidence_sites._Looks(connection, rollout)
        row = connection.execute(sa.select(ROLLOUT_GROUP).limit(1)).one()
        timing = Timing.of(rollout.policy)
        found = looks.controls(evidence_sites._group(row, timing), timing, False, region=row.region)
    assert (found.seen, found.unheard) == (evidence_sites.REGION_SAMPLE, 0)
    services.db.close()
