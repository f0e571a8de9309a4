"""Statistics windows: checked against the release they speak of, folded in memory, written once per batch.

Merging is addition, so windows may come in any order; that each counts once is the business of the record's key.
"""

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import sqlalchemy as sa

from edgefleet import latency
from edgefleet.errors import InputError
from edgefleet.messages import Telemetry, WindowBody, decode
from edgefleet.reference import BINS
from edgefleet.statistics import InputStatistics
from fleet_server.ingest import comparisons
from fleet_server.ingest.comparisons import MAX_ROWS
from fleet_server.ingest.fleet_facts import FleetFacts, ReleaseFacts
from fleet_server.store import members, statistics
from fleet_server.store import totals as running_totals

LATENCY_BUCKETS: Final = 40


@dataclass
class Folded:
    """What the windows of one batch add up to.

    Attributes:
        pending: (device, project, reference digest) -> statistics and number of windows that no drift round has seen.
        totals: (device, project) -> what its windows add to the totals.
        rows: (device, project, bundle digest) -> rows answered by that bundle.
    """

    pending: dict[tuple[str, str, str], tuple[InputStatistics, int]] = field(default_factory=dict)
    totals: dict[tuple[str, str], running_totals.Added] = field(default_factory=dict)
    rows: dict[tuple[str, str, str], int] = field(default_factory=dict)


def fold(facts: FleetFacts, device_id: str, record: Telemetry, folded: Folded) -> None:
    """Add one window.

    Raises:
        ArtifactError: The body or its statistics are malformed.
        InputError: They do not fit the release that they name.
    """
    body = decode(WindowBody, record.body)
    release = facts.release(body.bundle_digest)
    if release is None or release.project != record.project:
        raise InputError(f"window of {device_id}: bundle {body.bundle_digest[:12]!r} is no release of project {record.project!r} here")
    counted = InputStatistics.from_bytes(body.statistics)
    _check(device_id, body, counted, release)
    key = (device_id, record.project, release.reference_digest)
    known = folded.pending.get(key)
    folded.pending[key] = (counted, 1) if known is None else (known[0].merge(counted), known[1] + 1)
    added = folded.totals.setdefault((device_id, record.project), running_totals.Added())
    added.add(body, min(max(record.end_at, 0), 1 << 62))
    run = (device_id, record.project, body.bundle_digest)
    folded.rows[run] = folded.rows.get(run, 0) + body.answered


def write(connection: sa.Connection, folded: Folded, at: int) -> None:
    """Write what was folded."""
    for (device_id, project, reference_digest), (counted, windows) in sorted(folded.pending.items(), key=lambda item: item[0]):
        statistics.add_pending(connection, device_id, project, reference_digest, counted, windows)
    for (device_id, project), added in sorted(folded.totals.items()):
        running_totals.add(connection, device_id, project, added)
    for (device_id, project, bundle_digest), rows in sorted(folded.rows.items()):
        members.note_rows(connection, device_id, project, bundle_digest, rows, at)


def _check(device_id: str, body: WindowBody, counted: InputStatistics, release: ReleaseFacts) -> None:
    if counted.reference_digest != release.reference_digest:
        raise InputError(f"window of {device_id}: counted in the bins of reference {counted.reference_digest[:12]}, not of its bundle's")
    if counted.counts.shape != (release.counted, release.cells):
        raise InputError(f"window of {device_id}: {counted.counts.shape} cells, the bundle has {(release.counted, release.cells)}")
    if not (np.isfinite(counted.total).all() and np.isfinite(counted.squares).all()):
        raise InputError(f"window of {device_id}: a sum of its statistics is not finite")
    counts = [
        *body.classes,
        *body.scores,
        *body.latency_us,
        *body.latency_eighths[1:],
        *body.rejected.values(),
        body.answered,
        counted.rows,
    ]
    if min(counts) < 0 or max(counts) > MAX_ROWS:
        raise InputError(f"window of {device_id}: a count is outside 0 to {MAX_ROWS}")
    if latency.from_wire(body.latency_eighths) is None:
        raise InputError(
            f"window of {device_id}: {len(body.latency_eighths)} numbers are no latency histogram of {latency.BUCKETS} buckets"
        )
    comparisons.check(device_id, body, release)
    lengths = (len(body.classes), len(body.scores))
    # Regression and anomaly models have no classes and no score bins.
    if lengths[0] not in (0, release.classes) or lengths[1] not in (0, BINS) or len(body.latency_us) > LATENCY_BUCKETS:
        raise InputError(
            f"window of {device_id}: {lengths[0]} classes, {lengths[1]} score bins, {len(body.latency_us)} latency buckets do not fit"
        )
