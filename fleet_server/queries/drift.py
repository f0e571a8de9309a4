"""Drift: which input, where, how sure; and the histograms behind it."""

from datetime import datetime
from typing import Any, Final

import msgspec
import numpy as np
import sqlalchemy as sa

from fleet_server.drift import DriftPolicy
from fleet_server.queries.histograms import draw
from fleet_server.queries.observed import within
from fleet_server.read_drift import DriftDevice, DriftView, FeatureDrift, Histogram
from fleet_server.store import Database, devices, drift_rows, references, statistics
from fleet_server.store.drift_rows import Alarm, Reading
from fleet_server.store.moments import from_micros
from fleet_server.store.tables import DEVICE, DRIFT_STATE, RELEASE

MAX_HISTOGRAMS: Final = 6
_RANK: Final = {"alarm": 0, "watching": 1, "too-few": 2, "quiet": 3}


def drift(db: Database, project: str | None, now: datetime, policy: DriftPolicy | None = None) -> DriftView | None:
    """Drift of one project, of the first one (alarms first, then by name) when none is named; None when there is no project.

    Args:
        db: The database.
        project: Its name.
        now: Aware UTC.
        policy: For the alarm limit that is shown; the default's when None.
    """
    with db.read() as connection:
        chosen = project if project is not None else _first_project(connection)
        return None if chosen is None else _view(connection, chosen, (policy or DriftPolicy()).alarm, now)


def of_device(connection: sa.Connection, project: str, device_id: str) -> tuple[DriftDevice, list[Histogram]] | None:
    """Drift of one device under the reference that was judged last, with its histograms; None before its first round."""
    row = connection.execute(_newest(project).where(DRIFT_STATE.c.device_id == device_id).limit(1)).first()
    if row is None:
        return None
    labels = devices.labels_of(connection, [device_id])
    return _device(connection, row, labels.get(device_id, {}), drift_rows.open_alarms(connection, project).get(device_id))


def _first_project(connection: sa.Connection) -> str | None:
    alarms = drift_rows.open_alarms(connection)
    if alarms:
        return min(alarm.project for alarm in alarms.values())
    names = sa.union(sa.select(DEVICE.c.project), sa.select(RELEASE.c.project)).order_by("project")
    return connection.execute(names.limit(1)).scalar()


def _newest(project: str) -> sa.Select[Any]:
    return sa.select(DRIFT_STATE).where(DRIFT_STATE.c.project == project).order_by(DRIFT_STATE.c.round_at.desc(), DRIFT_STATE.c.device_id)


def _view(connection: sa.Connection, project: str, limit: float, now: datetime) -> DriftView:
    labels = devices.labels_of(connection)
    alarms = drift_rows.open_alarms(connection, project)
    found: dict[str, tuple[DriftDevice, list[Histogram]]] = {}
    as_of: datetime | None = None
    for row in connection.execute(_newest(project)).all():
        if row.device_id not in found:
            as_of = as_of or from_micros(row.round_at)
            found[row.device_id] = _device(connection, row, labels.get(row.device_id, {}), alarms.get(row.device_id))
    ranked = sorted(found.values(), key=lambda item: (_RANK[item[0].state], -item[0].evidence, item[0].device_id))
    return DriftView(
        project=project,
        sentence=_sentence([device for device, _ in ranked]),
        detail=_detail([device for device, _ in ranked], alarms, limit),
        alarm_limit=limit,
        devices=[device for device, _ in ranked],
        histograms=[(device.device_id, one) for device, drawn in ranked for one in drawn],
        as_of=as_of,
        observed=within(connection, now, project, None),
    )


def _device(
    connection: sa.Connection, row: sa.Row[Any], labels: dict[str, str], alarm: Alarm | None
) -> tuple[DriftDevice, list[Histogram]]:
    reading = msgspec.json.decode(row.reading, type=Reading)
    cells = references.get(connection, row.project, row.reference_digest)
    names = cells.names if cells is not None else [f"input {f}" for f in range(len(reading.features))]
    values = zip(names, reading.contrast, reading.feature_evidence, reading.features, strict=True)
    features = [FeatureDrift(feature=name, contrast=contrast, evidence=evidence, state=state) for name, contrast, evidence, state in values]
    # The strongest evidence first; where there is none yet, the largest contrast.
    order = sorted(range(len(features)), key=lambda f: (_RANK[features[f].state], -features[f].evidence, -abs(features[f].contrast)))
    device = DriftDevice(
        device_id=row.device_id,
        labels=labels,
        # An alarm of an earlier reference stays open until the device has shown that it is over.
        state="alarm" if alarm is not None else reading.state,
        windows=row.windows,
        rows=row.rows,
        evidence=reading.evidence,
        features=[features[f] for f in order],
        alarmed_at=None if alarm is None else from_micros(alarm.opened_at),
    )
    recent = statistics.recent(connection, row.device_id, row.project, row.reference_digest)
    if recent is None or cells is None or recent.counts.shape != np.shape(cells.counts):
        return device, []
    return device, [draw(cells, recent, f) for f in order[:MAX_HISTOGRAMS]]


def _sentence(found: list[DriftDevice]) -> str:
    alarmed = sorted((device for device in found if device.state == "alarm"), key=lambda device: device.device_id)
    if alarmed:
        names = ", ".join(device.device_id for device in alarmed[:4]) + (f" and {len(alarmed) - 4} more" if len(alarmed) > 4 else "")
        return f"Drift alarm: {names} {'differs' if len(alarmed) == 1 else 'differ'} from {'its' if len(alarmed) == 1 else 'their'} peers."
    if not found:
        return "No drift round has run yet."
    if all(device.state == "too-few" for device in found):
        return "Too few devices to compare: a round needs at least five peers."
    watching = sum(device.state == "watching" for device in found)
    if watching:
        return f"No drift alarm; {watching} of {len(found)} devices are being watched."
    return f"No drift: {len(found)} devices do not differ from their peers."


def _detail(found: list[DriftDevice], alarms: dict[str, Alarm], limit: float) -> str:
    lines = [
        f"{device.device_id}: {', '.join(alarms[device.device_id].features[:5]) or 'no single input'} "
        f"({len(alarms[device.device_id].features)} inputs, evidence {device.evidence:.3g}, limit {limit:,.0f})"
        for device in found
        if device.device_id in alarms
    ]
    if lines:
        return "; ".join(lines[:4]) + "."
    rows = sum(device.rows for device in found)
    return f"{rows:,} rows judged; an alarm needs evidence of {limit:,.0f}." if found else "It runs when devices have sent enough rows."
