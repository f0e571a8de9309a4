"""The fleet as a whole: halt every rollout on every device, lift that, look."""

from flask import Blueprint, Response

from fleet_server import queries
from fleet_server.api.wire import Why, parse, reply
from fleet_server.auth import require_actor, requires, services_of_request
from fleet_server.halting import halt_fleet, lift_halt

API = Blueprint("api-fleet", __name__)


@API.get("/fleet/halt")
@requires("viewer")
def get_halt() -> Response:
    """Whether the fleet is halted, who knows it, and what waits for the lift."""
    services = services_of_request()
    return reply(queries.halt(services.db, services.config.fleet))


@API.post("/fleet/halt")
@requires("operator")
def halt() -> Response:
    """Stop every rollout on every device, also with the server dead afterwards."""
    return reply(halt_fleet(services_of_request(), reason=parse(Why).reason, actor=require_actor()))


@API.post("/fleet/lift")
@requires("operator")
def lift() -> Response:
    """Let rollouts go on; the answer lists what was waiting, rollbacks first."""
    return reply(lift_halt(services_of_request(), reason=parse(Why).reason, actor=require_actor()))
