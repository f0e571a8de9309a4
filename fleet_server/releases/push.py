"""Taking a release in: manifest valid, every file here, one number per project."""

import io
import secrets
from typing import Final

import msgspec
import sqlalchemy as sa

from edgefleet.digests import sha256_hex
from edgefleet.errors import InputError
from edgefleet.graphs import check_declared
from edgefleet.manifest import Manifest, parse_manifest
from edgefleet.reference import Reference, cell_count
from fleet_server import audit
from fleet_server.errors import ConflictError
from fleet_server.releases.gate_lines import GateLine
from fleet_server.services import Services
from fleet_server.store import changes, references
from fleet_server.store.tables import RELEASE

MAX_GATES_BYTES: Final = 1_048_576
MAX_REFERENCE_BYTES: Final = 64 * 1024 * 1024
MAX_NOTE: Final = 2_000
MAX_VERSION: Final = 64
GATES_NAME: Final = "gates.json"


def store_release(services: Services, *, project: str, version: str, manifest: bytes, note: str, actor: str) -> str:
    """Check and keep a release; pushing the same bundle again under the same version gives the same release.

    Returns:
        The release id.

    Raises:
        ArtifactError: The manifest is not valid, or names an operator that no device is given.
        InputError: Another project, a version or a note that is too long, or files that have not arrived.
        ConflictError: The version is taken by another bundle, or the bundle is there under another version.
    """
    parsed = parse_manifest(manifest)
    check_declared(parsed)
    _check(services, parsed, project, version, note)
    digest, at = sha256_hex(manifest), services.now_us()
    reference = _reference(services, parsed)
    gates = _gates(services, parsed)
    # The manifest is also a file, so that a device fetches it like every other one.
    services.blobs.put(digest, io.BytesIO(manifest), len(manifest))
    with services.db.write() as connection:
        known = _known(connection, project, version, digest)
        if known is not None:
            return known
        counter = int(connection.scalar(sa.select(sa.func.max(RELEASE.c.counter)).where(RELEASE.c.project == project)) or 0) + 1
        release_id = f"{project[:40]}-{counter}-{secrets.token_hex(3)}"
        connection.execute(
            sa.insert(RELEASE).values(
                release_id=release_id,
                project=project,
                version=version,
                counter=counter,
                bundle_digest=digest,
                manifest=manifest,
                gates=gates,
                size_bytes=sum(entry.size_bytes for entry in parsed.files.values()),
                note=note,
                created_at=at,
                created_by=actor,
            )
        )
        references.put(connection, project, parsed, reference)
        audit.record(
            connection, at, actor=actor, action="push", subject=("release", release_id), detail=f"{project} {version}, bundle {digest[:12]}"
        )
        changes.touch(connection, at, "releases", "overview")
    return release_id


def _check(services: Services, manifest: Manifest, project: str, version: str, note: str) -> None:
    if manifest.project != project:
        raise InputError(f"the bundle is of project {manifest.project!r}, the release names {project[:80]!r}; push it to its own project")
    if not version or len(version) > MAX_VERSION or not version.isprintable():
        raise InputError(f"version {version[:80]!r} is not accepted: 1 to {MAX_VERSION} printable characters")
    if len(note) > MAX_NOTE:
        raise InputError(f"the note has {len(note)} characters, the limit is {MAX_NOTE}")
    absent = [name for name, entry in manifest.files.items() if not services.blobs.has(entry.sha256)]
    if absent:
        raise InputError(
            f"{len(absent)} of {len(manifest.files)} files have not arrived ({', '.join(absent[:3])}): upload them first, then push"
        )


def _known(connection: sa.Connection, project: str, version: str, digest: str) -> str | None:
    same = sa.or_(RELEASE.c.version == version, RELEASE.c.bundle_digest == digest)
    for row in connection.execute(sa.select(RELEASE).where(RELEASE.c.project == project, same)):
        if row.version == version and row.bundle_digest == digest:
            return str(row.release_id)
        if row.version == version:
            raise ConflictError(f"version {version!r} of {project} is bundle {row.bundle_digest[:12]} already; choose another version")
        raise ConflictError(f"this bundle is release {row.version!r} of {project} already; roll that one out")
    return None


def _reference(services: Services, manifest: Manifest) -> Reference:
    """The reference statistics: drift is judged against them, so a bundle whose reference cannot be read is no release."""
    content = services.blobs.read(manifest.reference_digest, MAX_REFERENCE_BYTES)
    reference = Reference.from_bytes(content)
    expected = (len(manifest.counted), cell_count(manifest.inputs))
    if reference.counts.shape != expected:
        raise InputError(f"reference statistics have {reference.counts.shape} cells, the manifest's inputs need {expected}; convert again")
    return reference


def _gates(services: Services, manifest: Manifest) -> str:
    entry = manifest.files.get(GATES_NAME)
    if entry is None:
        return "[]"
    content = services.blobs.read(entry.sha256, MAX_GATES_BYTES)
    try:
        lines = msgspec.json.decode(content, type=list[GateLine])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as err:
        raise InputError(f"{GATES_NAME} of the bundle is not a list of gates: {str(err)[:200]}; convert the package again") from err
    return msgspec.json.encode(lines).decode()
