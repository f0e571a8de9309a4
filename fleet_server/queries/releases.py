"""Releases: what is in the field, what may go."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

import msgspec
import sqlalchemy as sa

from edgefleet.manifest import parse_manifest
from fleet_server.queries.errors import NotFoundError
from fleet_server.read_models import ReleaseRow
from fleet_server.read_registry import RegistryNote
from fleet_server.releases.gate_lines import GateLine
from fleet_server.store import Database, champions
from fleet_server.store.moments import from_micros
from fleet_server.store.tables import ATTESTATION, RELEASE


def releases(db: Database) -> list[ReleaseRow]:
    """All releases, newest first."""
    with db.read() as connection:
        rows = connection.execute(sa.select(RELEASE).order_by(RELEASE.c.created_at.desc(), RELEASE.c.counter.desc()))
        attested, noted = attested_devices(connection), registry_notes(connection)
        return [to_row(row, attested, noted) for row in rows]


def release(db: Database, release_id: str) -> ReleaseRow:
    """One release.

    Raises:
        NotFoundError: There is none of that id.
    """
    with db.read() as connection:
        return one(connection, release_id)


def one(connection: sa.Connection, release_id: str) -> ReleaseRow:
    """One release in the caller's snapshot."""
    row = connection.execute(sa.select(RELEASE).where(RELEASE.c.release_id == release_id)).first()
    if row is None:
        raise NotFoundError("release", release_id)
    return to_row(row, attested_devices(connection), registry_notes(connection))


def attested_devices(connection: sa.Connection) -> dict[tuple[str, str], int]:
    """(project, bundle digest) -> devices whose last attestation names it."""
    query = sa.select(ATTESTATION.c.project, ATTESTATION.c.bundle_digest, sa.func.count()).group_by(
        ATTESTATION.c.project, ATTESTATION.c.bundle_digest
    )
    return {(project, digest): count for project, digest, count in connection.execute(query)}


def registry_notes(connection: sa.Connection) -> dict[str, RegistryNote]:
    """Release id -> where it stands in MLflow, for those of which that is known."""
    found: dict[str, RegistryNote] = {}
    for known in champions.registered(connection).values():
        if known.release_id is not None:
            found[known.release_id] = RegistryNote(known.name, known.version, _moment(known.registered_at), "", None)
        if known.waiting_release_id is not None:
            note = found.get(known.waiting_release_id, RegistryNote("", "", None, "", None))
            found[known.waiting_release_id] = replace(note, trouble=known.trouble, tried_at=_moment(known.trouble_at))
    return found


def versions(connection: sa.Connection) -> dict[tuple[str, str], str]:
    """(project, bundle digest) -> version."""
    rows = connection.execute(sa.select(RELEASE.c.project, RELEASE.c.bundle_digest, RELEASE.c.version))
    return {(row.project, row.bundle_digest): row.version for row in rows}


def to_row(row: sa.Row[tuple[object, ...]], attested: Mapping[tuple[str, str], int], noted: Mapping[str, RegistryNote]) -> ReleaseRow:
    """A release as people see it."""
    values = row._mapping
    manifest = parse_manifest(values["manifest"])
    gates = msgspec.json.decode(values["gates"], type=list[GateLine])
    return ReleaseRow(
        release_id=values["release_id"],
        project=values["project"],
        version=values["version"],
        counter=values["counter"],
        bundle_digest=values["bundle_digest"],
        created_at=from_micros(values["created_at"]),
        note=values["note"],
        variants=[variant.name for variant in manifest.variants],
        size_bytes=values["size_bytes"],
        attested_devices=attested.get((values["project"], values["bundle_digest"]), 0),
        gates=[(gate.gate if gate.variant is None else f"{gate.gate} {gate.variant}", gate.verdict, gate.sentence) for gate in gates],
        overrides=[(override.gate, override.reason) for override in manifest.overrides],
        registry=noted.get(values["release_id"]),
    )


def _moment(micros: int | None) -> datetime | None:
    return None if micros is None else from_micros(micros)
