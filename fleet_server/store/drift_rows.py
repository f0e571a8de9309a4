"""Drift as rows: a detector's state per device, and alarms with a beginning and an end."""

import contextlib
from dataclasses import dataclass

import msgspec
import sqlalchemy as sa

from edgefleet.errors import ArtifactError
from fleet_server.drift import DriftState
from fleet_server.drift.contrast import DriftWord
from fleet_server.store.tables import DRIFT_ALARM, DRIFT_STATE
from fleet_server.store.upsert import add_to


@dataclass(frozen=True)
class Alarm:
    """An open alarm."""

    alarm_id: int
    device_id: str
    project: str
    reference_digest: str
    features: list[str]
    opened_at: int


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What the last round said about one device, for people.

    Attributes:
        state: alarm | watching | quiet | too-few.
        features: [F] one word each.
        contrast: [F] in reference standard deviations.
        evidence: e-value of the device; `feature_evidence` [F] of each feature.
    """

    state: DriftWord
    features: list[DriftWord]
    contrast: list[float]
    evidence: float
    feature_evidence: list[float]


def has_open_alarm(connection: sa.Connection, device_id: str, project: str) -> bool:
    """Whether the device drifts as far as we know."""
    where = (DRIFT_ALARM.c.device_id == device_id, DRIFT_ALARM.c.project == project, DRIFT_ALARM.c.cleared_at.is_(None))
    return connection.execute(sa.select(DRIFT_ALARM.c.alarm_id).where(*where)).first() is not None


def open_alarms(connection: sa.Connection, project: str | None = None) -> dict[str, Alarm]:
    """Open alarms by device."""
    query = sa.select(DRIFT_ALARM).where(DRIFT_ALARM.c.cleared_at.is_(None))
    if project is not None:
        query = query.where(DRIFT_ALARM.c.project == project)
    rows = connection.execute(query.order_by(DRIFT_ALARM.c.opened_at))
    return {
        row.device_id: Alarm(
            row.alarm_id, row.device_id, row.project, row.reference_digest, msgspec.json.decode(row.features, type=list[str]), row.opened_at
        )
        for row in rows
    }


def open_alarm(connection: sa.Connection, device_id: str, project: str, reference_digest: str, features: list[str], at: int) -> None:
    """Begin an alarm."""
    values = {"device_id": device_id, "project": project, "reference_digest": reference_digest, "opened_at": at}
    connection.execute(sa.insert(DRIFT_ALARM).values(**values, features=msgspec.json.encode(features).decode()))


def clear_alarm(connection: sa.Connection, alarm_id: int, why: str, at: int) -> None:
    """End an alarm."""
    connection.execute(sa.update(DRIFT_ALARM).where(DRIFT_ALARM.c.alarm_id == alarm_id).values(cleared_at=at, cleared_why=why[:200]))


def states(connection: sa.Connection, project: str, reference_digest: str) -> dict[str, DriftState]:
    """Detector states by device; one that cannot be read starts anew."""
    where = (DRIFT_STATE.c.project == project, DRIFT_STATE.c.reference_digest == reference_digest)
    found: dict[str, DriftState] = {}
    for row in connection.execute(sa.select(DRIFT_STATE.c.device_id, DRIFT_STATE.c.state).where(*where)):
        with contextlib.suppress(ArtifactError):
            found[row.device_id] = DriftState.from_bytes(row.state)
    return found


def save_state(
    connection: sa.Connection, *, device_id: str, project: str, state: DriftState, reading: Reading, counted: tuple[int, int], at: int
) -> None:
    """Keep a detector's state and its reading.

    Args:
        connection: A write transaction.
        device_id: The device.
        project: Its project.
        state: After the round.
        reading: Of the round.
        counted: Windows and rows that this round used up.
        at: Time of the round.
    """
    key = {"project": project, "reference_digest": state.reference_digest, "device_id": device_id}
    text = msgspec.json.encode(reading).decode()
    row = key | {"state": state.to_bytes(), "reading": text, "windows": counted[0], "rows": counted[1], "round_at": at}
    add_to(connection, DRIFT_STATE, row, ["windows", "rows"])


def move_alarm(connection: sa.Connection, alarm_id: int, reference_digest: str, features: list[str]) -> None:
    """The device drifts under another reference now; it is the same alarm for people."""
    values = {"reference_digest": reference_digest, "features": msgspec.json.encode(features).decode()}
    connection.execute(sa.update(DRIFT_ALARM).where(DRIFT_ALARM.c.alarm_id == alarm_id).values(**values))
