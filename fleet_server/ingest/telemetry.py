"""Telemetry records: stored once by (device, boot, sequence, start), then used by kind; what cannot be used is set aside, not a gap."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from edgefleet.errors import EdgefleetError, InputError
from edgefleet.messages import AttestationBody, EventBody, ExplanationBody, PayloadBody, Telemetry, decode
from edgefleet.players import MAX_SEGMENTS
from edgefleet.topics import device_topic
from fleet_server.ingest import attestation, windows
from fleet_server.ingest.fleet_facts import FleetFacts
from fleet_server.ingest.inbox import Effects
from fleet_server.store import aside, journal
from fleet_server.store.tables import TELEMETRY
from fleet_server.store.upsert import insert_new

LOG = logging.getLogger(__name__)
SET_ASIDE: Final = "set-aside"
_LARGEST_MOMENT: Final = 1 << 62

Key = tuple[str, str, int]


@dataclass(frozen=True)
class Record:
    """One decoded envelope and who sent it."""

    device_id: str
    boot: str
    message: Telemetry

    @property
    def key(self) -> Key:
        """Its identity."""
        return self.device_id, self.boot, self.message.seq


def store(connection: sa.Connection, facts: FleetFacts, records: Sequence[Record], at: int, effects: Effects) -> dict[tuple[str, str], int]:
    """Store the records that are not there yet and use them.

    Returns:
        By (device, boot) the highest `oldest_seq` of all records, old and new.
    """
    oldest: dict[tuple[str, str], int] = {}
    distinct: dict[Key, Record] = {}
    for record in records:
        owner = (record.device_id, record.boot)
        oldest[owner] = max(oldest.get(owner, 1), record.message.oldest_seq)
        distinct.setdefault(record.key, record)
    stored = insert_new(connection, TELEMETRY, [_row(record, at) for record in distinct.values()], ("device_id", "boot", "seq"))
    folded = windows.Folded()
    for key, record in distinct.items():
        if key in stored:
            _use(connection, facts, record, at, effects, folded)
    windows.write(connection, folded, at)
    return oldest


def _row(record: Record, at: int) -> dict[str, Any]:
    message = record.message
    return {
        "device_id": record.device_id,
        "boot": record.boot,
        "seq": message.seq,
        "start_at": _moment(message.start_at),
        "end_at": _moment(message.end_at),
        "kind": message.kind,
        "project": message.project[:64],
        "model_digest": message.model_digest[:64],
        "received_at": at,
        "body": message.body,
    }


def _moment(micros: int) -> int:
    # A device without a clock says absurd things; its record still counts, its time does not.
    return min(max(micros, 0), _LARGEST_MOMENT)


def _use(connection: sa.Connection, facts: FleetFacts, record: Record, at: int, effects: Effects, folded: windows.Folded) -> None:
    try:
        project = facts.project(record.device_id)
        if record.message.project != project:
            raise InputError(
                f"telemetry of {record.device_id} names project {record.message.project[:80]!r}, it is enrolled for {project!r}"
            )
        if record.message.kind == "window":
            windows.fold(facts, record.device_id, record.message, folded)
            effects.topics |= {f"device:{record.device_id}", "devices"}
        else:
            _USES[record.message.kind](connection, facts, record, at, effects)
        effects.dirty.add((record.device_id, project))
    except EdgefleetError as err:
        LOG.warning("telemetry of %s, sequence %d set aside: %s", record.device_id, record.message.seq, err)
        where = (TELEMETRY.c.device_id == record.device_id, TELEMETRY.c.boot == record.boot, TELEMETRY.c.seq == record.message.seq)
        connection.execute(sa.update(TELEMETRY).where(*where).values(kind=SET_ASIDE, body=b""))
        aside.put(connection, topic=device_topic(record.device_id, "t"), payload=record.message.body, reason=str(err), at=at)
        effects.aside += 1


def _use_attestation(connection: sa.Connection, facts: FleetFacts, record: Record, at: int, effects: Effects) -> None:
    attestation.store(connection, facts, record.device_id, decode(AttestationBody, record.message.body), at)
    effects.topics |= {"devices", "releases", "overview", f"device:{record.device_id}"}


def _use_explanation(connection: sa.Connection, facts: FleetFacts, record: Record, _at: int, effects: Effects) -> None:
    body = decode(ExplanationBody, record.message.body)
    release = facts.release(body.bundle_digest)
    if release is None or len(body.contributions) != release.features:
        expected = "no release of that bundle" if release is None else f"{release.features} inputs"
        raise InputError(
            f"explanation of bundle {body.bundle_digest[:12]} with {len(body.contributions)} contributions: there is {expected}"
        )
    if len(body.segments) > MAX_SEGMENTS or any(len(moved) != release.features for moved in body.segments):
        raise InputError(
            f"explanation of bundle {body.bundle_digest[:12]} with {len(body.segments)} time segments, some of another length than "
            f"{release.features}: expected at most {MAX_SEGMENTS} of one number for each input"
        )
    moment = _moment(record.message.end_at)
    journal.explanation(connection, record.device_id, record.message.project, body.bundle_digest, moment, record.message.body)
    effects.topics |= {"explanations", "overview", "drift", f"device:{record.device_id}"}


def _use_event(connection: sa.Connection, _facts: FleetFacts, record: Record, _at: int, effects: Effects) -> None:
    journal.device_event(connection, record.device_id, _moment(record.message.start_at), decode(EventBody, record.message.body))
    effects.topics.add(f"device:{record.device_id}")


def _use_payload(_connection: sa.Connection, facts: FleetFacts, record: Record, _at: int, effects: Effects) -> None:
    """A sampled row is only kept, with the raw telemetry and as long as that; a bundle that is not known here is refused."""
    body = decode(PayloadBody, record.message.body)
    release = facts.release(body.bundle_digest)
    if release is None or len(body.row) > release.features:
        raise InputError(f"payload of bundle {body.bundle_digest[:12]} with {len(body.row)} inputs fits no release here")
    effects.topics.add(f"device:{record.device_id}")


_Use = Callable[[sa.Connection, FleetFacts, Record, int, Effects], None]
_USES: Final[dict[str, _Use]] = {
    "attestation": _use_attestation,
    "explanation": _use_explanation,
    "event": _use_event,
    "payload": _use_payload,
}
