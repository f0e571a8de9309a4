"""Groups of devices: list, make, change, forget."""

from flask import Blueprint, Response, request

from fleet_server.api.wire import Body, Why, parse, reply
from fleet_server.auth import require_actor, requires, services_of_request
from fleet_server.grouping import groups_of, remove_group, set_group

API = Blueprint("api-groups", __name__)


class GroupBody(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of PUT /projects/<project>/groups/<name>."""

    selection: dict[str, str] | str
    reason: str


@API.get("/groups")
@requires("viewer")
def list_groups() -> Response:
    """Groups with how many devices each selects now: ?project=."""
    return reply(groups_of(services_of_request().db, request.args.get("project")))


@API.put("/projects/<project>/groups/<name>")
@requires("operator")
def put_group(project: str, name: str) -> Response:
    """Make a group, or change whom it means; rollouts that were planned with it go on as planned."""
    body = parse(GroupBody)
    view = set_group(services_of_request(), project, name, selection=body.selection, reason=body.reason, actor=require_actor())
    return reply(view)


@API.post("/projects/<project>/groups/<name>/remove")
@requires("operator")
def post_remove(project: str, name: str) -> Response:
    """Forget a group; rollouts that were planned with it go on as planned."""
    remove_group(services_of_request(), project, name, reason=parse(Why).reason, actor=require_actor())
    return reply({"project": project, "name": name})
