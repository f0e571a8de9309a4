"""Releases: push, list, look, and the floor below which none is given to a device."""

from flask import Blueprint, Response

from fleet_server import queries, usecases
from fleet_server.api.wire import Body, parse, reply
from fleet_server.auth import require_actor, requires, services_of_request
from fleet_server.flooring import floor_of, raise_floor

API = Blueprint("api-releases", __name__)


class Push(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /releases; `manifest` is manifest.json's text, byte for byte: its sha256 is the bundle's digest."""

    project: str
    version: str
    manifest: str
    note: str = ""


@API.post("/releases")
@requires("operator")
def push() -> Response:
    """Take a bundle whose files were uploaded as a release; the same push again gives the same release."""
    body = parse(Push)
    release = usecases.push_release(
        services_of_request(),
        project=body.project,
        version=body.version,
        manifest=body.manifest.encode(),
        note=body.note,
        actor=require_actor(),
    )
    return reply(release, 201)


@API.get("/releases")
@requires("viewer")
def list_releases() -> Response:
    """All releases, newest first."""
    return reply(queries.releases(services_of_request().db))


@API.get("/releases/<release_id>")
@requires("viewer")
def get_release(release_id: str) -> Response:
    """One release."""
    return reply(queries.release(services_of_request().db, release_id))


class Raise(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /projects/<project>/floor: the oldest release that may still be given to a device."""

    release_id: str
    reason: str


@API.get("/projects/<project>/floor")
@requires("viewer")
def get_floor(project: str) -> Response:
    """The release floor of a project, how many devices are to run something below it, and how many keep it."""
    return reply(floor_of(services_of_request(), project))


@API.post("/projects/<project>/floor")
@requires("operator")
def post_floor(project: str) -> Response:
    """Raise the release floor; it is never lowered. Rollouts of older releases are paused."""
    body = parse(Raise)
    return reply(raise_floor(services_of_request(), project, release_id=body.release_id, reason=body.reason, actor=require_actor()))
