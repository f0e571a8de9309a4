"""Devices: enrol, list, look."""

import msgspec
from flask import Blueprint, Response, request

from edgefleet.errors import InputError
from fleet_server import queries, usecases
from fleet_server.api.wire import MAX_HOURS, MAX_LIMIT, Body, number, parse, reply
from fleet_server.auth import require_actor, requires, services_of_request
from fleet_server.queries.observed import PERIOD_HOURS

API = Blueprint("api-devices", __name__)


class Enrolment(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /devices."""

    device_id: str
    project: str
    public_key: str
    labels: dict[str, str] = msgspec.field(default_factory=dict)


@API.post("/devices")
@requires("operator")
def enroll() -> Response:
    """Let a device into the fleet; the answer holds its token and password, once."""
    body = parse(Enrolment)
    enrolled = usecases.enroll_device(
        services_of_request(),
        device_id=body.device_id,
        project=body.project,
        public_key=body.public_key,
        labels=body.labels,
        actor=require_actor(),
    )
    return reply(enrolled, 201)


@API.get("/devices")
@requires("viewer")
def list_devices() -> Response:
    """Devices by id: ?project=, ?label=key=value, ?limit=, ?after=<last id of the page before>."""
    services = services_of_request()
    rows = queries.devices(
        services.db,
        services.clock(),
        project=request.args.get("project"),
        label=_label(request.args.get("label")),
        limit=number("limit", 500, 1, MAX_LIMIT),
        after=request.args.get("after", "")[:64],
    )
    return reply(rows)


@API.get("/devices/<device_id>")
@requires("viewer")
def get_device(device_id: str) -> Response:
    """One device with its log, drift, newest explanation, load, and what it observed in the last ?hours= (24)."""
    services = services_of_request()
    hours = number("hours", PERIOD_HOURS, 1, MAX_HOURS)
    return reply(queries.device(services.db, device_id, services.clock(), hours))


def _label(text: str | None) -> tuple[str, str] | None:
    if text is None:
        return None
    key, equals, value = text.partition("=")
    if not (key and equals and value):
        raise InputError(f"label {text[:80]!r} is not understood; use key=value")
    return key, value
