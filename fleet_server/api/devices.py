"""Devices: enrol, list, look, relabel, remove, lift a quarantine."""

import msgspec
from flask import Blueprint, Response, request

from edgefleet.errors import InputError
from fleet_server import queries, relabelling, usecases
from fleet_server.api.wire import MAX_HOURS, MAX_LIMIT, Body, Why, number, parse, reply
from fleet_server.auth import require_actor, requires, services_of_request
from fleet_server.queries.observed import PERIOD_HOURS
from fleet_server.removing import remove_device
from fleet_server.unquarantining import lift_quarantine

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
    """Devices by id: ?project=, ?label=key=value, ?select=expression, ?limit=, ?after=<last id of the page before>."""
    services = services_of_request()
    rows = queries.devices(
        services.db,
        services.clock(),
        project=request.args.get("project"),
        label=_label(request.args.get("label")),
        selection=request.args.get("select", ""),
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


class Labels(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of PUT /devices/<id>/labels; `were`: the labels that the person saw, refused when they are others by now."""

    labels: dict[str, str]
    reason: str
    were: dict[str, str] | None = None


class LabelChange(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of PATCH /devices/<id>/labels."""

    reason: str
    put: dict[str, str] = msgspec.field(default_factory=dict, name="set")
    drop: list[str] = msgspec.field(default_factory=list)


class Lift(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /devices/<id>/unquarantine; `bundle` is a digest, or its first eight characters or more."""

    bundle: str
    reason: str


@API.put("/devices/<device_id>/labels")
@requires("operator")
def replace_labels(device_id: str) -> Response:
    """Replace all labels of a device; the answer holds them."""
    body = parse(Labels)
    after = relabelling.replace_labels(
        services_of_request(), device_id, labels=body.labels, were=body.were, reason=body.reason, actor=require_actor()
    )
    return reply({"device_id": device_id, "labels": after})


@API.patch("/devices/<device_id>/labels")
@requires("operator")
def set_labels(device_id: str) -> Response:
    """Set and drop single labels of a device; the answer holds all of them."""
    body = parse(LabelChange)
    after = relabelling.set_labels(
        services_of_request(), device_id, put=body.put, drop=body.drop, reason=body.reason, actor=require_actor()
    )
    return reply({"device_id": device_id, "labels": after})


@API.post("/devices/<device_id>/remove")
@requires("operator")
def remove(device_id: str) -> Response:
    """Take a device out of the fleet; the answer says what that means in the rollouts that it was in."""
    return reply(remove_device(services_of_request(), device_id, reason=parse(Why).reason, actor=require_actor()))


@API.post("/devices/<device_id>/unquarantine")
@requires("operator")
def unquarantine(device_id: str) -> Response:
    """Let a device try a bundle again that failed there, when it is asked for."""
    body = parse(Lift)
    return reply(lift_quarantine(services_of_request(), device_id, bundle=body.bundle, reason=body.reason, actor=require_actor()))


def _label(text: str | None) -> tuple[str, str] | None:
    if text is None:
        return None
    key, equals, value = text.partition("=")
    if not (key and equals and value):
        raise InputError(f"label {text[:80]!r} is not understood; use key=value")
    return key, value
