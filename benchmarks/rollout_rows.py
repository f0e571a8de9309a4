"""Rows of a large rollout in which nearly everybody has begun, inserted at once: what the ingest writes one report at a time.

At 100,000 devices the ingest's own functions take ten minutes. `tests/unit/fleet_server/test_rollout_rows.py` lets both write a small fleet
and compares every row of every table that the sums consist of.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from fleet_server.rollout import Rollout, trial_for
from fleet_server.store import evidence_members
from fleet_server.store.tables import (
    ASSIGNMENT,
    DEVICE,
    REPORTED,
    ROLLOUT,
    ROLLOUT_CELL,
    ROLLOUT_GROUP,
    ROLLOUT_MEMBER,
    ROLLOUT_REGION,
    ROLLOUT_SITE,
)

COUNTER: Final = 1
EPOCH: Final = 1
ROWS: Final = 1_000


def ask_all(connection: sa.Connection, rollout: Rollout, device_ids: Sequence[str], at: int) -> None:
    """Devices were given the release at a moment (microseconds UTC): their member rows, and what is assigned to them."""
    asked = [{"id": one} for one in device_ids]
    member = ROLLOUT_MEMBER.c
    mine = (member.rollout_id == rollout.rollout_id, member.device_id == sa.bindparam("id"))
    connection.execute(sa.update(ROLLOUT_MEMBER).where(*mine).values(counter=COUNTER, assigned_at=at), asked)
    counted = sa.update(DEVICE).where(DEVICE.c.device_id == sa.bindparam("id")).values(desired_counter=COUNTER)
    connection.execute(counted, asked)
    same: dict[str, Any] = {"project": rollout.project, "release_id": rollout.release_id, "rollout_id": rollout.rollout_id}
    same |= {"bundle_digest": rollout.bundle_digest, "counter": COUNTER, "epoch": EPOCH, "nonce": "", "assigned_at": at}
    same["trial"] = msgspec.json.encode(trial_for(rollout.policy, drifting=False)).decode()
    connection.execute(sa.insert(ASSIGNMENT), [same | {"device_id": one} for one in device_ids])
    evidence_members.rebuild_sums(connection, rollout.rollout_id)


def begin_all(connection: sa.Connection, rollout: Rollout, began: Mapping[str, int], *, done: bool = True) -> None:
    """Devices that were asked said that they work on the release, in the order of time; the sums follow.

    Args:
        connection: The transaction.
        rollout: Whose.
        began: Device -> moment, microseconds UTC.
        done: They also committed and attested it, and scored `ROWS` rows; nothing is proven before they are heard again.
    """
    clock = connection.execute(sa.select(ROLLOUT.c.cell_us, ROLLOUT.c.soak_us, ROLLOUT.c.dwell_us).where(_of(ROLLOUT, rollout))).one()
    where = connection.execute(
        sa.select(ROLLOUT_MEMBER.c.device_id, ROLLOUT_MEMBER.c.site, ROLLOUT_MEMBER.c.region).where(_of(ROLLOUT_MEMBER, rollout))
    )
    places = {row.device_id: (row.site, row.region) for row in where}
    groups: dict[tuple[str, int], dict[str, Any]] = {}
    cells: dict[int, int] = {}
    sites: dict[str, dict[str, Any]] = {}
    regions: dict[str, dict[str, Any]] = {}
    members = []
    for device_id, at in sorted(began.items(), key=lambda item: item[1]):
        site, region = places[device_id]
        cell = at // clock.cell_us
        ends = (cell + 1) * clock.cell_us
        shown = {"committed_at": at, "attested_at": at, "rows": ROWS} if done else {}
        begun = {"cell": cell, "counts_from": ends + clock.soak_us, "dwelled_at": ends + (clock.dwell_us or 0)}
        members.append({"id": device_id, "began_at": at, **begun, **shown})
        first = site not in sites
        sites.setdefault(site, {"site": site, "region": region, "exposed": 0})["exposed"] += 1
        here = regions.setdefault(region, {"region": region, "exposed": 0, "sites": 0})
        here["exposed"] += 1
        here["sites"] += first
        cells[cell] = cells.get(cell, 0) + 1
        start = {"site": site, "cell": cell, "region": region, "first": first, "look_at": at, "exposed": 0, "unheard": 0, "unsettled": 0}
        group = groups.setdefault((site, cell), start)
        for name in ("exposed", "unheard", "unsettled"):
            group[name] += 1
    mine = (_of(ROLLOUT_MEMBER, rollout), ROLLOUT_MEMBER.c.device_id == sa.bindparam("id"))
    values: dict[str, Any] = {name: sa.bindparam(f"new_{name}") for name in members[0] if name != "id"}
    named = [{(name if name == "id" else f"new_{name}"): value for name, value in row.items()} for row in members]
    connection.execute(sa.update(ROLLOUT_MEMBER).where(*mine).values(values), named)
    cell_rows = [{"cell": cell, "begun": count} for cell, count in cells.items()]
    tables = ((ROLLOUT_CELL, cell_rows), (ROLLOUT_SITE, [*sites.values()]), (ROLLOUT_REGION, [*regions.values()]))
    for table, rows in (*tables, (ROLLOUT_GROUP, [*groups.values()])):
        connection.execute(sa.insert(table), [row | {"rollout_id": rollout.rollout_id} for row in rows])
    evidence_members.rebuild_sums(connection, rollout.rollout_id)
    if done:
        _report_all(connection, rollout, began)


def _report_all(connection: sa.Connection, rollout: Rollout, began: Mapping[str, int]) -> None:
    same: dict[str, Any] = {
        "project": rollout.project,
        "epoch": EPOCH,
        "counter": COUNTER,
        "bundle_digest": rollout.bundle_digest,
        "model_digest": "",
    }
    same |= {"state": "committed", "reason": "", "attempt": 1, "subject_digest": rollout.bundle_digest}
    connection.execute(
        sa.insert(REPORTED), [same | {"device_id": one, "state_at": at, "reported_at": at} for one, at in sorted(began.items())]
    )


def _of(table: sa.Table, rollout: Rollout) -> sa.ColumnElement[bool]:
    return table.c.rollout_id == rollout.rollout_id
