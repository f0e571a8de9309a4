"""The addresses of the page: each view parses, calls one query or use-case, and returns. Rules and questions live elsewhere."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final, get_args

from flask import Blueprint, Request, Response, abort, g, make_response, redirect, render_template, request, url_for
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as AnyResponse

from edgefleet.errors import EdgefleetError, InputError
from fleet_server.auth import MAY, Actor
from fleet_server.errors import UnauthorizedError, status_of
from fleet_server.page.assets import Assets
from fleet_server.page.device_views import add_device_views
from fleet_server.page.devices_filter import select
from fleet_server.page.group_views import add_group_views
from fleet_server.page.live import Feed, TooManyViewersError
from fleet_server.page.plan_views import add_plan_views
from fleet_server.page.security import acting_operator, check_form, for_roles, form_limit, local_path, protect
from fleet_server.page.source import ActionName, Source
from fleet_server.selection import Group, written

OPEN: Final = frozenset({"page.login", "page.sign_in", "page.asset"})
STREAMS: Final = frozenset({"page.live", "page.asset"})
LOG_LINES: Final = 200
MAX_GROUPS: Final = 20  # that the devices' screen offers; any other may be typed
MAX_REASON: Final = 500
MAX_DIGEST: Final = 64
BEFORE_START: Final = frozenset({"draft", "approved"})
MAX_BROWSER_NAME: Final = 64


def create_views(source: Source, assets: Assets, feed: Feed, clock: Callable[[], datetime]) -> Blueprint:  # noqa: C901  # a list of small views
    """The blueprint `page`."""
    page = Blueprint("page", __name__, template_folder="templates")

    @page.before_request
    def guard() -> AnyResponse | None:
        g.page_now = clock()
        g.page_actor, g.page_seq = None, 0
        if request.endpoint == "page.asset":
            return None
        if request.method == "POST":
            request.max_content_length = form_limit(request.endpoint)
            check_form(request)
        g.page_actor = source.actor(request)
        if request.endpoint not in STREAMS:
            # Read before the view's own query: what changes in between is then fetched again, never missed.
            g.page_seq = feed.position()
        if request.endpoint in OPEN or _may(g.page_actor, "viewer"):
            return None
        if request.endpoint == "page.live" or _fragment():
            return Response("Sign in first.", 401)
        return redirect(url_for("page.login", next=request.path), 303)

    @page.context_processor
    def shared() -> dict[str, Any]:
        # The application may have refused before the guard above ran: its message is shown by this page too.
        actor = g.get("page_actor")
        return {
            "actor": actor,
            "may_act": _may(actor, "operator"),
            "now": g.get("page_now") or clock(),
            "seq": g.get("page_seq", 0),
            "fragment": _fragment(),
            "halt": source.halt() if _may(actor, "viewer") else None,
            "assets": assets.digest,
        }

    page.after_request(protect)

    @page.get("/")
    @for_roles("viewer")
    def overview() -> str:
        return render_template("overview.html", view=source.overview(g.page_now))

    @page.get("/rollouts")
    @for_roles("viewer")
    def rollouts() -> str:
        return render_template("rollouts.html", rows=source.rollouts(g.page_now))

    add_plan_views(page, source)

    @page.get("/rollouts/<rollout_id>")
    @for_roles("viewer")
    def rollout(rollout_id: str) -> str:
        view = source.rollout(rollout_id, g.page_now)
        approval = source.approvals(rollout_id) if view.state in BEFORE_START else None
        return render_template("rollout.html", view=view, approval=approval)

    @page.get("/rollouts/<rollout_id>/approve")
    @for_roles("viewer")
    def look_at_plan(rollout_id: str) -> str:
        return render_template("approve.html", view=source.rollout(rollout_id, g.page_now), approval=source.approvals(rollout_id))

    @page.post("/rollouts/<rollout_id>/approve")
    @for_roles("operator")
    def approve(rollout_id: str) -> AnyResponse:
        actor = acting_operator("approve")
        note = request.form.get("note", "").strip()
        source.approve(rollout_id, digest=request.form.get("digest", "")[:MAX_DIGEST], note=note, actor=actor)
        return redirect(url_for("page.rollout", rollout_id=rollout_id), 303)

    @page.get("/rollouts/<rollout_id>/<action>")
    @for_roles("viewer")
    def confirm(rollout_id: str, action: str) -> str:
        view = source.rollout(rollout_id, g.page_now)
        chosen = next((one for one in view.actions if one.name == action), None)
        return render_template("confirm.html", view=view, action=chosen or abort(404))

    @page.post("/rollouts/<rollout_id>/<action>")
    @for_roles("operator")
    def act(rollout_id: str, action: str) -> AnyResponse:
        actor = acting_operator()
        version, reason = _action_form()
        source.act(rollout_id, _action(action), version=version, reason=reason, actor=actor)
        return redirect(url_for("page.rollout", rollout_id=rollout_id), 303)

    @page.get("/devices")
    @for_roles("viewer")
    def devices() -> str:
        question, state = request.args.get("q", ""), request.args.get("state", "")
        groups = source.groups()
        names = sorted({name for _, name in groups})[:MAX_GROUPS]
        chosen = select(source.devices(g.page_now), question, state, request.args.get("page", 1, type=int), groups)
        return render_template("devices.html", chosen=chosen, groups=[(name, written(Group(name))) for name in names])

    @page.get("/devices/<device_id>")
    @for_roles("viewer")
    def device(device_id: str) -> str:
        return render_template("device.html", view=source.device(device_id, g.page_now))

    add_device_views(page, source)
    add_group_views(page, source)

    @page.get("/releases")
    @for_roles("viewer")
    def releases() -> str:
        return render_template("releases.html", rows=source.releases())

    @page.get("/drift")
    @for_roles("viewer")
    def drift() -> str:
        return render_template("drift.html", view=source.drift(request.args.get("project"), g.page_now))

    @page.get("/events")
    @for_roles("viewer")
    def events() -> str:
        return render_template("events.html", rows=source.events(LOG_LINES), limit=LOG_LINES)

    @page.get("/login")
    @for_roles()
    def login() -> str:
        return render_template("login.html", target=local_path(request.args.get("next", "/")), refusal="")

    @page.post("/login")
    @for_roles()
    def sign_in() -> AnyResponse:
        target = local_path(request.form.get("next", "/"))
        response = redirect(target, 303)
        try:
            source.sign_in(request.form.get("token", "").strip()[:500], _flask(response))
        except UnauthorizedError as err:
            return make_response(render_template("login.html", target=target, refusal=str(err)), 401)
        return response

    @page.post("/logout")
    @for_roles("viewer")
    def logout() -> AnyResponse:
        response = redirect(url_for("page.login"), 303)
        source.sign_out(request, _flask(response))
        return response

    @page.get("/live")
    @for_roles("viewer")
    def live() -> Response:
        asked = Request(request.environ)  # outlives this view
        name = request.args.get("browser", "")[:MAX_BROWSER_NAME]
        try:
            viewer = feed.connect(request.headers.get("Last-Event-ID"), name, lambda: _may(source.actor_now(asked), "viewer"))
        except TooManyViewersError as err:
            return Response(f"{err}\n", 503, {"Retry-After": "10"}, content_type="text/plain")
        return Response(viewer, content_type="text/event-stream", headers={"X-Accel-Buffering": "no"})

    @page.get("/assets/<digest>/<name>")
    @for_roles()
    def asset(digest: str, name: str) -> Response:
        if digest != assets.digest or name not in assets.files:
            abort(404)
        content, kind = assets.files[name]
        return Response(content, content_type=kind, headers={"Cache-Control": "public, max-age=31536000, immutable"})

    @page.errorhandler(EdgefleetError)
    def refused(err: EdgefleetError) -> AnyResponse:
        status = status_of(err)
        # A refused action is the asker's to solve, not a fault of the server.
        return _message(409 if status == 500 and request.method == "POST" else status, str(err))

    @page.errorhandler(HTTPException)
    def failed(err: HTTPException) -> AnyResponse:
        return _message(err.code or 500, err.description or "This page does not exist.")

    return page


def _may(actor: Actor | None, role: str) -> bool:
    return actor is not None and role in MAY[actor.role]


def _fragment() -> bool:
    return request.headers.get("X-Fragment") == "main"


def _message(status: int, text: str) -> AnyResponse:
    return make_response(render_template("message.html", status=status, text=text, acted=request.method == "POST"), status)


def _flask(response: AnyResponse) -> Response:
    if not isinstance(response, Response):
        raise TypeError(f"Flask answered with a {type(response).__name__}")
    return response


def _action(name: str) -> ActionName:
    names: tuple[ActionName, ...] = get_args(ActionName)
    known = next((one for one in names if one == name), None)
    return known or abort(404)


def _action_form() -> tuple[int, str]:
    version, reason = request.form.get("version", ""), request.form.get("reason", "").strip()
    if not (version.isascii() and version.isdigit() and len(version) < 16):
        raise InputError("The form does not say which state of the rollout it was made for. Nothing was done. Open the rollout again.")
    if not reason or len(reason) > MAX_REASON:
        raise InputError(
            f"A reason of 1 to {MAX_REASON} characters is needed, it is kept in the log; this one has {len(reason)}. Nothing was done."
        )
    return int(version), reason
