"""Explained predictions, newest first."""

import sqlalchemy as sa

from edgefleet.errors import ArtifactError
from edgefleet.manifest import Manifest, parse_manifest
from edgefleet.messages import ExplanationBody, decode
from fleet_server.read_models import ExplanationView
from fleet_server.store import Database
from fleet_server.store.moments import from_micros
from fleet_server.store.tables import EXPLANATION, RELEASE


def explanations(db: Database, *, project: str | None = None, device_id: str | None = None, limit: int = 20) -> list[ExplanationView]:
    """Explained predictions, newest first."""
    with db.read() as connection:
        return newest(connection, project=project, device_id=device_id, limit=limit)


def newest(
    connection: sa.Connection, *, project: str | None = None, device_id: str | None = None, limit: int = 20
) -> list[ExplanationView]:
    """The same in the caller's snapshot."""
    query = (
        sa.select(EXPLANATION, RELEASE.c.version, RELEASE.c.manifest)
        .join(RELEASE, sa.and_(RELEASE.c.bundle_digest == EXPLANATION.c.bundle_digest, RELEASE.c.project == EXPLANATION.c.project))
        .order_by(EXPLANATION.c.at.desc(), EXPLANATION.c.seq.desc())
        .limit(limit)
    )
    if project is not None:
        query = query.where(EXPLANATION.c.project == project)
    if device_id is not None:
        query = query.where(EXPLANATION.c.device_id == device_id)
    views: list[ExplanationView] = []
    for row in connection.execute(query):
        try:
            body = decode(ExplanationBody, row.body)
        except ArtifactError:
            continue  # stored by a version that wrote another form; ingest has checked what it stored itself
        views.append(_view(row.device_id, row.version, row.at, body, parse_manifest(row.manifest)))
    return views


def _view(device_id: str, version: str, at: int, body: ExplanationBody, manifest: Manifest) -> ExplanationView:
    return ExplanationView(
        device_id=device_id,
        release=version,
        at=from_micros(at),
        label=body.label,
        score=body.score,
        margin=body.margin,
        base=body.base,
        method=body.method,
        gap=body.gap,
        names=[column.name for column in manifest.inputs],
        contributions=body.contributions,
        error=body.error,
        shape=manifest.shape,
        segments=body.segments,
    )
