"""What the fleet says: drift, explained predictions, the log."""

from flask import Blueprint, Response, request

from fleet_server import queries
from fleet_server.api.wire import MAX_HOURS, MAX_LIMIT, number, reply
from fleet_server.auth import requires, services_of_request
from fleet_server.queries.observed import PERIOD_HOURS

API = Blueprint("api-observations", __name__)


@API.get("/overview")
@requires("viewer")
def overview() -> Response:
    """What needs a person now, and the fleet in a few numbers."""
    services = services_of_request()
    return reply(queries.overview(services.db, services.clock()))


@API.get("/drift")
@requires("viewer")
def drift() -> Response:
    """Drift of ?project= (or of the first project); null when there is no project."""
    services = services_of_request()
    return reply(queries.drift(services.db, request.args.get("project"), services.clock(), services.config.drift_policy))


@API.get("/observed")
@requires("viewer")
def observed() -> Response:
    """Comparisons, shares and explanations in sums, of ?device= or of all devices of ?project=, in the last ?hours= (24)."""
    services = services_of_request()
    return reply(
        queries.observed(
            services.db,
            services.clock(),
            project=request.args.get("project"),
            device_id=request.args.get("device"),
            hours=number("hours", PERIOD_HOURS, 1, MAX_HOURS),
        )
    )


@API.get("/explanations")
@requires("viewer")
def explanations() -> Response:
    """Explained predictions, newest first: ?project=, ?device=, ?limit=."""
    return reply(
        queries.explanations(
            services_of_request().db,
            project=request.args.get("project"),
            device_id=request.args.get("device"),
            limit=number("limit", 20, 1, MAX_LIMIT),
        )
    )


@API.get("/events")
@requires("viewer")
def events() -> Response:
    """The log after ?after=<number>, oldest first, as {"seq", "at", "actor", "action", "detail"}."""
    found = queries.events(services_of_request().db, after=number("after", 0, 0, 1 << 62), limit=number("limit", 200, 1, MAX_LIMIT))
    return reply(
        [
            {"seq": seq, "at": line.at, "actor": line.actor, "action": line.action, "detail": line.detail, "facts": line.facts}
            for seq, line in found
        ]
    )
