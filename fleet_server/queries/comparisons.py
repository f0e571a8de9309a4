"""The comparisons of a rollout as they stand, and what is shown beside them without a vote: input drift and attribution."""

from collections import Counter
from datetime import datetime
from typing import Final

import msgspec
import numpy as np
import sqlalchemy as sa

from fleet_server.queries.errors import NotFoundError
from fleet_server.queries.observed import within
from fleet_server.read_compared import BesideView, ComparisonView
from fleet_server.read_observed import AttributionView
from fleet_server.rollout import Rollout
from fleet_server.rollout.behaviour import summary
from fleet_server.rollout.clips import said
from fleet_server.rollout.comparisons import COMPARISONS
from fleet_server.store import Database, comparison_rows, drift_rows, members, rollouts
from fleet_server.store.comparison_rows import GIVEN, LEFT_OUT, UNREADABLE
from fleet_server.store.tables import COMPARISON, DEVICE, RELEASE, ROLLOUT_MEMBER

MAX_NAMED: Final = 20


def comparisons(db: Database, rollout_id: str) -> list[ComparisonView]:
    """Each gate of the rollout's policy; empty where devices are not compared (every device must prove itself there).

    Raises:
        NotFoundError: There is no such rollout.
    """
    with db.read() as connection:
        value = _rollout(connection, rollout_id)
        if value.course is None:
            return []
        stakes = comparison_rows.wealth(connection, rollout_id, value.policy.gates.compare)
        return [_view(connection, value, name, one.evidence) for name, one in stakes.items()]


def beside(db: Database, rollout_id: str, now: datetime) -> BesideView:
    """Input drift and overlap of attributions: for the eyes of a person, never for the verdict.

    Raises:
        NotFoundError: There is no such rollout.
    """
    with db.read() as connection:
        value = _rollout(connection, rollout_id)
        given = (ROLLOUT_MEMBER.c.rollout_id == rollout_id, ROLLOUT_MEMBER.c.began_at.is_not(None))
        exposed = set(connection.scalars(sa.select(ROLLOUT_MEMBER.c.device_id).where(*given)))
        here = (DEVICE.c.project == value.project, DEVICE.c.removed_at.is_(None))
        everybody = int(connection.scalar(sa.select(sa.func.count()).select_from(DEVICE).where(*here)) or 0)
        alarmed = set(drift_rows.open_alarms(connection, value.project))
        overlap = _overlap(connection, value, now)
    drifting, others = len(alarmed & exposed), everybody - len(exposed)
    told = "attributions were not told by both releases" if overlap is None else f"{100 * overlap:.0f} % of the attribution is as before"
    sentence = f"{drifting} of {len(exposed)} devices with the release drift, {len(alarmed - exposed)} of {others} others; {told}."
    return BesideView(len(exposed), drifting, others, len(alarmed - exposed), overlap, sentence)


def overlap_of(ours: AttributionView, theirs: AttributionView) -> float | None:
    """Sum over inputs of the smaller share of mean absolute contributions: 1 = the answers rest on the same inputs to the same degree."""
    mine, other = ({one.feature: one.mean_absolute for one in view.inputs} for view in (ours, theirs))
    names = sorted({*mine, *other})
    a, b = (np.array([shares.get(name, 0.0) for name in names]) for shares in (mine, other))
    if not (a.sum() > 0 and b.sum() > 0):
        return None
    return float(np.minimum(a / a.sum(), b / b.sum()).sum())


def _rollout(connection: sa.Connection, rollout_id: str) -> Rollout:
    stored = rollouts.load(connection, rollout_id)
    if stored is None:
        raise NotFoundError("rollout", rollout_id)
    return stored.rollout


def _view(connection: sa.Connection, value: Rollout, name: str, evidence: float) -> ComparisonView:
    gate = COMPARISONS[name]
    rows = connection.execute(sa.select(COMPARISON).where(COMPARISON.c.rollout_id == value.rollout_id, COMPARISON.c.gate == name)).all()
    given = [msgspec.json.decode(row.differences, type=list[float]) for row in rows if row.state == GIVEN]
    unreadable = sorted((row.device_id, row.reason) for row in rows if row.state == UNREADABLE)
    return ComparisonView(
        gate=name,
        evidence=evidence,
        devices=len(given),
        mean=summary(np.mean(given, axis=0).tolist()) if given else None,
        tolerance=gate.tolerance,
        left_out=dict(Counter(row.reason for row in rows if row.state == LEFT_OUT).most_common(MAX_NAMED)),
        unreadable=dict(unreadable[:MAX_NAMED]),
        difference=f"{gate.difference} ({said(value, name)})",
    )


def _overlap(connection: sa.Connection, value: Rollout, now: datetime) -> float | None:
    before = members.most_had(connection, value.rollout_id)
    if before is None:
        return None
    digest = connection.scalar(sa.select(RELEASE.c.bundle_digest).where(RELEASE.c.release_id == before))
    told = {view.bundle_digest: view for view in within(connection, now, value.project, None).attribution}
    return overlap_of(told[value.bundle_digest], told[digest]) if value.bundle_digest in told and digest in told else None
