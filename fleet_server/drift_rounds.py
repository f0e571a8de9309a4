"""Drift rounds: every so often the pending statistics of each reference go through the drift rule; alarms begin and end.

One round of one reference is one transaction: states, readings, alarms and their log entries belong together. Statistics that the rule
did not use (too few rows, too few peers) go on being merged until it can.
"""

import logging
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from edgefleet.errors import EdgefleetError
from edgefleet.manifest import Manifest, parse_manifest
from edgefleet.reference import Reference
from edgefleet.statistics import InputStatistics
from fleet_server import audit
from fleet_server.drift import DriftAlarm, DriftOutcome, DriftPolicy, DriftState, cleared_by, run_round
from fleet_server.releases.blobs import BlobStore
from fleet_server.services import Services
from fleet_server.store import changes, drift_rows, looks, rollouts, statistics
from fleet_server.store.moments import from_micros, to_micros
from fleet_server.store.tables import RELEASE, REPORTED

LOG = logging.getLogger(__name__)

ACTOR: Final = "drift"
MAX_REFERENCE_BYTES: Final = 64 * 1024 * 1024
_NAMED: Final = 4


@dataclass(frozen=True)
class Subject:
    """What one round is about.

    Attributes:
        inputs: Names of the features, in order.
    """

    project: str
    reference: Reference
    inputs: list[str]


@dataclass(frozen=True)
class _Round:
    connection: sa.Connection
    subject: Subject
    policy: DriftPolicy
    now: datetime


def run_rounds(services: Services) -> int:
    """One round of every reference that has pending statistics; the number of rounds that went through."""
    now = services.clock()
    with services.db.read() as connection:
        waiting = sorted(statistics.pending(connection))
    done = 0
    for project, reference_digest in waiting:
        try:
            subject = load_subject(services, project, reference_digest)
            with services.db.write() as connection:
                _run_one(_Round(connection, subject, services.config.drift_policy, now))
            done += 1
        except EdgefleetError as err:
            # The others must not wait for a reference that cannot be read; what is pending stays.
            LOG.warning("drift round of %s, reference %s: %s", project, reference_digest[:12], err)
    return done


def load_subject(services: Services, project: str, reference_digest: str) -> Subject:
    """The reference with its feature names.

    Raises:
        NotFoundError: The file is not here.
        ArtifactError: It cannot be read.
    """
    manifest = manifest_of(services, project, reference_digest)
    content = read_reference(services.blobs, reference_digest)
    inputs = manifest.counted if manifest is not None else []
    reference = Reference.from_bytes(content)
    names = inputs if len(inputs) == reference.features else [f"input {f}" for f in range(reference.features)]
    return Subject(project, reference, names)


def manifest_of(services: Services, project: str, reference_digest: str) -> Manifest | None:
    """The newest release of the project with that reference."""
    with services.db.read() as connection:
        query = sa.select(RELEASE.c.manifest).where(RELEASE.c.project == project).order_by(RELEASE.c.counter.desc())
        for content in connection.scalars(query):
            manifest = parse_manifest(content)
            if manifest.reference_digest == reference_digest:
                return manifest
    return None


def read_reference(blobs: BlobStore, reference_digest: str) -> bytes:
    """The reference file; its name is its sha256."""
    return blobs.read(reference_digest, MAX_REFERENCE_BYTES)


def _run_one(this: _Round) -> None:
    connection, subject = this.connection, this.subject
    digest = subject.reference.digest
    counted = {one.device_id: one for one in statistics.pending(connection).get((subject.project, digest), [])}
    running = _running_references(connection, subject.project)
    for device_id in [d for d in counted if running.get(d, digest) != digest]:
        # It has moved on to another reference: what it counted for this one is no news of it any more.
        statistics.drop_pending(connection, device_id, subject.project, digest)
        del counted[device_id]
    present = sorted({*counted, *(d for d, reference in running.items() if reference == digest)})
    empty = InputStatistics.empty(subject.reference)
    pending = {d: counted[d].statistics if d in counted else empty for d in present}
    states, outcomes = run_round(drift_rows.states(connection, subject.project, digest), pending, subject.reference, this.policy, this.now)
    at = to_micros(this.now)
    alarms = drift_rows.open_alarms(connection, subject.project)
    for device_id, outcome in sorted(outcomes.items()):
        used = (counted[device_id].windows, counted[device_id].statistics.rows) if outcome.used else (0, 0)
        reading = _reading(outcome, this.policy)
        drift_rows.save_state(
            connection, device_id=device_id, project=subject.project, state=states[device_id], reading=reading, counted=used, at=at
        )
        _settle_alarm(this, device_id, states[device_id], alarms.get(device_id))
    statistics.close_round(connection, subject.project, digest, [d for d, outcome in outcomes.items() if outcome.used], at)
    changes.touch(connection, at, "drift")


def _running_references(connection: sa.Connection, project: str) -> dict[str, str]:
    """Device -> reference of the bundle that it says it runs."""
    query = (
        sa.select(REPORTED.c.device_id, RELEASE.c.manifest, RELEASE.c.bundle_digest)
        .join(RELEASE, sa.and_(RELEASE.c.bundle_digest == REPORTED.c.bundle_digest, RELEASE.c.project == project))
        .where(REPORTED.c.project == project)
    )
    references: dict[str, str] = {}
    found: dict[str, str] = {}
    for row in connection.execute(query):
        if row.bundle_digest not in references:
            references[row.bundle_digest] = parse_manifest(row.manifest).reference_digest
        found[row.device_id] = references[row.bundle_digest]
    return found


def _reading(outcome: DriftOutcome, policy: DriftPolicy) -> drift_rows.Reading:
    return drift_rows.Reading(
        state=outcome.state,
        features=outcome.feature_states(policy),
        contrast=outcome.contrast.tolist(),
        evidence=outcome.evidence,
        feature_evidence=outcome.feature_evidence.tolist(),
    )


def _settle_alarm(this: _Round, device_id: str, state: DriftState, known: drift_rows.Alarm | None) -> None:
    """Open, move or clear the device's alarm so that it says what the detector says."""
    connection, digest, at = this.connection, this.subject.reference.digest, to_micros(this.now)
    if state.alarm is not None:
        features = [this.subject.inputs[f] for f in state.alarm.features]
        if known is None:
            drift_rows.open_alarm(connection, device_id, this.subject.project, digest, features, at)
            _say(
                this,
                device_id,
                "drift-alarm",
                f"{device_id} differs from its peers in {_names(features)}; evidence {state.alarm.evidence:.3g}",
            )
        elif (known.reference_digest, known.features) != (digest, features):
            drift_rows.move_alarm(connection, known.alarm_id, digest, features)
        return
    if known is None:
        return
    if known.reference_digest == digest:
        why = f"no sign of drift in {this.policy.clear_rounds} rounds"
    elif cleared_by(DriftAlarm(known.reference_digest, from_micros(known.opened_at), 0, 0.0, ()), state, this.policy):
        why = f"the release it runs now knows these inputs: no sign of drift in {this.policy.clear_rounds} rounds"
    else:
        return
    drift_rows.clear_alarm(connection, known.alarm_id, why, at)
    _say(this, device_id, "drift-clear", f"{device_id}: {why}")


def _say(this: _Round, device_id: str, action: str, detail: str) -> None:
    at = to_micros(this.now)
    audit.record(this.connection, at, actor=ACTOR, action=action, subject=("device", device_id), detail=detail)
    changes.touch(this.connection, at, "drift", "overview", "devices", f"device:{device_id}")
    rollouts.mark_due(this.connection, [(device_id, this.subject.project)], looks.at_once(at))


def _names(features: list[str]) -> str:
    more = len(features) - _NAMED
    return ", ".join(features[:_NAMED]) + (f" and {more} more" if more > 0 else "") or "no single input"
