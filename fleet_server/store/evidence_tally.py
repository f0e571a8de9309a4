"""What the engine judges by, read from the sums: a few queries whatever the number of devices."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from fleet_server.rollout.groups import Timing
from fleet_server.rollout.judgement import OWN_SITES
from fleet_server.rollout.model import Rollout
from fleet_server.rollout.silence import WITHOUT_HISTORY, Silence
from fleet_server.rollout.tally import Stratum, Tally
from fleet_server.store import comparison_rows
from fleet_server.store.moments import to_micros
from fleet_server.store.tables import ROLLOUT_CELL, ROLLOUT_GROUP, ROLLOUT_REGION, ROLLOUT_SITE, ROLLOUT_SUM

MOST_OUT: Final = 0.95  # of sites, by themselves; where all others are out nothing can be told
_ID: Final = sa.bindparam("rollout", type_=sa.String)


def _sum(column: sa.ColumnElement[Any]) -> sa.ColumnElement[int]:
    # PostgreSQL sums whole numbers as decimals.
    return sa.cast(sa.func.sum(column), sa.BigInteger)


def _strata_query() -> sa.Select[Any]:
    sums = [_sum(ROLLOUT_SUM.c[name]).label(name) for name in ("assigned", "begun", "failed", "heard_dwell")]
    query = sa.select(ROLLOUT_SUM.c.stratum, *sums).where(ROLLOUT_SUM.c.rollout_id == _ID)
    return query.group_by(ROLLOUT_SUM.c.stratum).order_by(ROLLOUT_SUM.c.stratum)


# Made once: to make a query takes longer than to run it, and each news of a device asks.
_STRATA: Final = _strata_query()
_REGIONS: Final = sa.select(ROLLOUT_REGION).where(ROLLOUT_REGION.c.rollout_id == _ID).order_by(ROLLOUT_REGION.c.region)
_DWELLED: Final = sa.select(sa.func.sum(ROLLOUT_CELL.c.begun), sa.func.sum(ROLLOUT_CELL.c.failed)).where(
    ROLLOUT_CELL.c.rollout_id == _ID, ROLLOUT_CELL.c.cell <= sa.bindparam("last", type_=sa.BigInteger)
)


@dataclass(frozen=True)
class WaveCounts:
    """Devices of one wave; wave 0 is the hold-back.

    Attributes:
        members: Selected.
        assigned: Of them, given the release.
        begun: Of these, at work on it or done.
        failed: Of these, failed.
        proven: Of these, committed, attested and soaked, and not failed.
    """

    members: int
    assigned: int
    begun: int
    failed: int
    proven: int


def read(connection: sa.Connection, rollout: Rollout, now: datetime) -> Tally:
    """The sums of a rollout by evidence.

    Args:
        connection: One snapshot.
        rollout: With its course.
        now: Aware UTC; how many devices have been exposed for the whole dwell depends on it.

    Raises:
        ConfigError: Sums that contradict each other.
        StorageError: A stake that cannot be read.
    """
    course = rollout.course
    strata = _strata(connection, rollout.rollout_id)
    dwelled, dwelled_failed = _dwelled(connection, rollout, now)
    regions = _regions(connection, rollout.rollout_id)
    judged, out, dark = (int(sum(row._mapping[name] for row in regions)) for name in ("judged", "out", "dark"))
    heard = sum(row.heard_dwell for row in strata)
    return Tally(
        opened=course.sizes[rollout.wave - 1] if course is not None and rollout.wave else 0,
        strata={row.stratum: Stratum(row.begun, row.failed) for row in strata if row.begun or row.failed},
        quiet=_silence(connection, rollout.rollout_id, regions),
        dwelled=dwelled,
        dwelled_failed=dwelled_failed,
        heard_after_dwell=min(heard, dwelled),
        sites_exposed=judged,
        # Of few sites one counts as out only as long as it lasts: the opening waits for it.
        sites_out=out if judged >= OWN_SITES else dark,
        sites_out_share=min(_others_out(connection, rollout.rollout_id) / judged, MOST_OUT) if out and judged else 0.0,
        asked=sum(row.assigned for row in strata),
        wealth=comparison_rows.wealth(connection, rollout.rollout_id, rollout.policy.gates.compare),
    )


def _others_out(connection: sa.Connection, rollout_id: str) -> float:
    """Sum over the sites that went out of the share of others that were out by themselves at that time."""
    group = ROLLOUT_GROUP.c
    return float(connection.scalar(sa.select(sa.func.sum(group.others_out)).where(group.rollout_id == rollout_id, group.out)) or 0.0)


def by_wave(connection: sa.Connection, rollout_id: str) -> dict[int, WaveCounts]:
    """Devices of each wave, from the sums."""
    names = ("members", "assigned", "begun", "failed", "proven")
    sums = [sa.func.sum(ROLLOUT_SUM.c[name]) for name in names]
    query = sa.select(ROLLOUT_SUM.c.wave, *sums).where(ROLLOUT_SUM.c.rollout_id == rollout_id).group_by(ROLLOUT_SUM.c.wave)
    return {wave: WaveCounts(*(int(count) for count in counts)) for wave, *counts in connection.execute(query.order_by(ROLLOUT_SUM.c.wave))}


def assigned(connection: sa.Connection, rollout_id: str) -> int:
    """Devices that were given the release so far."""
    return sum(counts.assigned for counts in by_wave(connection, rollout_id).values())


def _strata(connection: sa.Connection, rollout_id: str) -> list[Any]:
    return list(connection.execute(_STRATA, {"rollout": rollout_id}))


def _dwelled(connection: sa.Connection, rollout: Rollout, now: datetime) -> tuple[int, int]:
    """(exposed for the whole dwell of the open wave, of them failed)."""
    if rollout.course is None or rollout.wave == 0:
        return 0, 0
    since = now - timedelta(seconds=rollout.course.dwell_s[rollout.wave - 1])
    cell_us = int(1e6 * Timing.of(rollout.policy).cell_s)
    last = to_micros(since) // cell_us - 1
    begun, failed = connection.execute(_DWELLED, {"rollout": rollout.rollout_id, "last": last}).one()
    return int(begun or 0), int(failed or 0)


def _regions(connection: sa.Connection, rollout_id: str) -> list[Any]:
    return list(connection.execute(_REGIONS, {"rollout": rollout_id}))


def _silence(connection: sa.Connection, rollout_id: str, regions: list[Any]) -> Silence:
    sites, exposed, due, silent, missing = (sum(row._mapping[name] for row in regions) for name in _TOTALS)
    return Silence(
        exposed=exposed,
        silent=silent,
        silent_baseline=_baseline(regions, due, "silent"),
        due=due,
        missing=missing,
        missing_baseline=_baseline(regions, due, "missing"),
        sites=_sites(connection, rollout_id, sites, exposed) if silent else np.empty((0, 2), np.int64),
    )


_TOTALS: Final = ("sites", "exposed", "due", "silent", "missing")


def _baseline(regions: Iterable[Any], due: int, of: str) -> float:
    """Mean over due devices of the share of controls, a site's own shrunk towards its region's, as in `rollout.silence`."""
    if due == 0:
        return WITHOUT_HISTORY
    total = 0.0
    for row in regions:
        values = row._mapping
        share = values[f"controls_{of}"] / values["controls"] if values["controls"] else WITHOUT_HISTORY
        total += values[f"own_{of}"] + share * values["region_weight"]
    return total / due


def _sites(connection: sa.Connection, rollout_id: str, sites: int, exposed: int) -> NDArray[np.int64]:
    """[S, 2] silent and exposed; sites without a silent device are alike for the verdict, so they are not read one by one."""
    where = (ROLLOUT_SITE.c.rollout_id == rollout_id, ROLLOUT_SITE.c.silent > 0)
    told = [(row.silent, row.exposed) for row in connection.execute(sa.select(ROLLOUT_SITE.c.silent, ROLLOUT_SITE.c.exposed).where(*where))]
    others, rest = sites - len(told), exposed - sum(n for _, n in told)
    if others:
        whole, more = divmod(rest, others)
        told += [(0, whole + 1)] * more + [(0, whole)] * (others - more)
    return np.array(told, np.int64).reshape(-1, 2)
