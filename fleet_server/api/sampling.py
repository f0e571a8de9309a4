"""Rows that may leave devices: the operator's orders, and the rows that came. Looking at rows takes an operator: they are no statistics."""

from datetime import datetime

import msgspec
from flask import Blueprint, Response

from fleet_server import queries
from fleet_server.api.wire import MAX_LIMIT, Body, number, parse, reply
from fleet_server.auth import require_actor, requires, services_of_request
from fleet_server.sampling import Whom, order_sampling, stop_sampling

API = Blueprint("api-sampling", __name__)


class Devices(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /sampling/stop: devices by id, or a project and labels of which a device must carry all."""

    device_ids: list[str] = msgspec.field(default_factory=list)
    project: str = ""
    selection: dict[str, str] | str = ""


class Order(Devices, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /sampling; `until_at` is ISO 8601 with a time zone."""

    rows_per_hour: float
    until_at: datetime
    redact: list[str] = msgspec.field(default_factory=list)
    bytes_per_day: int = 1_000_000


@API.post("/sampling")
@requires("operator")
def order() -> Response:
    """Allow devices to send rows, in the place of any order before; the answer is the orders, one per device."""
    body = parse(Order)
    ordered = order_sampling(
        services_of_request(),
        _whom(body),
        rows_per_hour=body.rows_per_hour,
        redact=body.redact,
        bytes_per_day=body.bytes_per_day,
        until=body.until_at,
        actor=require_actor(),
    )
    return reply(ordered)


@API.post("/sampling/stop")
@requires("operator")
def stop() -> Response:
    """Take orders back; the answer names the devices that had one."""
    return reply({"stopped": stop_sampling(services_of_request(), _whom(parse(Devices)), actor=require_actor())})


@API.get("/sampling")
@requires("viewer")
def list_orders() -> Response:
    """Orders that are in force, by device."""
    services = services_of_request()
    return reply(queries.sampling(services.db, services.clock()))


@API.get("/devices/<device_id>/samples")
@requires("operator")
def samples(device_id: str) -> Response:
    """Rows that came from a device as they came in there, newest first: ?limit=."""
    return reply(queries.sampled_rows(services_of_request().db, device_id, number("limit", 100, 1, MAX_LIMIT)))


def _whom(body: Devices) -> Whom:
    return Whom(body.device_ids, body.project, body.selection)
