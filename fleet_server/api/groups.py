"""Groups of devices: list, make, change, forget."""

from flask import Blueprint, Response, request

from fleet_server.api.wire import MAX_LIMIT, Body, number, parse, reply
from fleet_server.auth import require_actor, requires, services_of_request
from fleet_server.grouping import groups_of, remove_group, set_group

API = Blueprint("api-groups", __name__)


class GroupBody(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of PUT /projects/<project>/groups/<name>; `digest`: of the group that the person saw, refused when it is another by now."""

    selection: dict[str, str] | str
    reason: str
    digest: str = ""


class Removal(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /projects/<project>/groups/<name>/remove; `digest` as above."""

    reason: str
    digest: str = ""


@API.get("/groups")
@requires("viewer")
def list_groups() -> Response:
    """Groups by project and name with how many devices each selects now: ?project=, ?limit=, ?after=<project>/<name> of the page before."""
    project, _, name = request.args.get("after", "").partition("/")
    limit = number("limit", 500, 1, MAX_LIMIT)
    return reply(groups_of(services_of_request().db, request.args.get("project"), after=(project[:64], name[:64]), limit=limit))


@API.put("/projects/<project>/groups/<name>")
@requires("operator")
def put_group(project: str, name: str) -> Response:
    """Make a group, or change whom it means; rollouts that were planned with it go on as planned."""
    body = parse(GroupBody)
    services, actor = services_of_request(), require_actor()
    view = set_group(services, project, name, selection=body.selection, reason=body.reason, actor=actor, digest=body.digest)
    return reply(view)


@API.post("/projects/<project>/groups/<name>/remove")
@requires("operator")
def post_remove(project: str, name: str) -> Response:
    """Forget a group; the answer names the rollouts that are not over and go on as they were planned with it."""
    body = parse(Removal)
    kept = remove_group(services_of_request(), project, name, reason=body.reason, actor=require_actor(), digest=body.digest)
    return reply({"project": project, "name": name, "rollouts": kept})
