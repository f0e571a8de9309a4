"""People and their tokens: list, add, remove; for admins."""

from flask import Blueprint, Response

from fleet_server.api.wire import Body, Why, parse, reply
from fleet_server.auth import TOKEN_DAYS, require_actor, requires, services_of_request
from fleet_server.people import PersonRole, add_person, people_of, remove_person

API = Blueprint("api-people", __name__)


class Add(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /people."""

    name: str
    role: PersonRole
    reason: str
    days: float = TOKEN_DAYS


@API.get("/people")
@requires("admin")
def list_people() -> Response:
    """Everybody who has a valid token; no token is shown."""
    services = services_of_request()
    return reply(people_of(services.db, services.now_us()))


@API.post("/people")
@requires("admin")
def add() -> Response:
    """Add a person; the answer holds the token, this once."""
    body = parse(Add)
    added = add_person(services_of_request(), body.name, role=body.role, reason=body.reason, actor=require_actor(), days=body.days)
    return reply(added, 201)


@API.post("/people/<name>/remove")
@requires("admin")
def remove(name: str) -> Response:
    """End a person's token and sessions at once."""
    remove_person(services_of_request(), name, reason=parse(Why).reason, actor=require_actor())
    return reply({"name": name})
