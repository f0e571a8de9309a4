"""Rollouts: plan, look, act. An action names the version that the person saw; an old one is refused with what happened since."""

from typing import Any

import msgspec
from flask import Blueprint, Response

from edgefleet.errors import InputError
from fleet_server import planning, queries, usecases
from fleet_server.api.wire import Body, parse, reply
from fleet_server.approving import approvals_of, approve_rollout
from fleet_server.auth import require_actor, requires, services_of_request
from fleet_server.rollout.plans import default_policy

API = Blueprint("api-rollouts", __name__)


class Plan(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What would be rolled out to whom.

    Attributes:
        policy: The policy file's TOML as a JSON object; None: the measured defaults for a fleet of that size.
        selection: Labels that a device must have, or an expression; empty: every device of the project.
        fixes: Rollout that was aborted or taken back and that this one mends: devices harmed by it come first. Empty: none.
    """

    release_id: str
    policy: dict[str, Any] | None = None
    selection: dict[str, str] | str = ""
    fixes: str = ""

    @property
    def policy_document(self) -> dict[str, Any]:
        """The policy as a document."""
        document: dict[str, Any] = msgspec.to_builtins(default_policy()) if self.policy is None else self.policy
        return document


class Create(Plan, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /rollouts; `plan` is the digest of the plan that the person looked at, or its first 12 digits or more."""

    plan: str = ""


class DryRun(Plan, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /rollouts/plan; `devices` names the device ids of each wave too."""

    devices: bool = False


class Act(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of an action."""

    version: int
    reason: str = ""


@API.post("/rollouts")
@requires("operator")
def create() -> Response:
    """Plan a rollout; nothing happens before it is started."""
    body = parse(Create)
    view = usecases.create_rollout(
        services_of_request(),
        release_id=body.release_id,
        policy=body.policy_document,
        selection=body.selection,
        actor=require_actor(),
        fixes=body.fixes,
        digest=body.plan,
    )
    return reply(view, 201, etag=str(view.version))


@API.post("/rollouts/plan")
@requires("operator")
def plan() -> Response:
    """What a rollout would do, before there is one; nothing is changed."""
    body = parse(DryRun)
    services = services_of_request()
    found = planning.plan(
        services.db,
        services.clock(),
        release_id=body.release_id,
        policy=body.policy_document,
        selection=body.selection,
        with_devices=body.devices,
    )
    return reply(found)


@API.get("/rollouts")
@requires("viewer")
def list_rollouts() -> Response:
    """The newest rollouts, newest first."""
    services = services_of_request()
    return reply(queries.rollouts(services.db, services.clock()))


@API.get("/rollouts/<rollout_id>")
@requires("viewer")
def get_rollout(rollout_id: str) -> Response:
    """One rollout; its `version` is what an action must name."""
    services = services_of_request()
    return reply(queries.rollout(services.db, rollout_id, services.clock()))


class Approve(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of an approval; `digest` is that of the plan that the person looked at."""

    digest: str
    note: str = ""


@API.get("/rollouts/<rollout_id>/approvals")
@requires("viewer")
def get_approvals(rollout_id: str) -> Response:
    """Who approved, what is missing, and the digest that an approval must name."""
    return reply(approvals_of(services_of_request().db, rollout_id))


@API.post("/rollouts/<rollout_id>/approve")
@requires("operator")
def approve(rollout_id: str) -> Response:
    """Approve the plan of that digest; one that has changed since is refused with what changed."""
    body = parse(Approve)
    return reply(approve_rollout(services_of_request(), rollout_id, digest=body.digest, note=body.note, actor=require_actor()))


@API.get("/rollouts/<rollout_id>/explain")
@requires("viewer")
def explain(rollout_id: str) -> Response:
    """Why it stands where it stands: gates, what would change them, waits, outlook."""
    services = services_of_request()
    return reply(queries.explain(services.db, rollout_id, services.clock()))


@API.get("/rollouts/<rollout_id>/decisions")
@requires("viewer")
def list_decisions(rollout_id: str) -> Response:
    """Every action of the engine with the digest of what it was decided on, oldest first."""
    return reply(queries.decisions_of(services_of_request().db, rollout_id))


@API.get("/rollouts/<rollout_id>/decisions/<version>")
@requires("viewer")
def get_decision(rollout_id: str, version: str) -> Response:
    """What one action was decided on, and what the engine of today would do on the same."""
    if not (version.isascii() and version.isdecimal() and len(version) < 10):
        raise InputError(f"version {version[:20]!r} is no version of a rollout; it is a whole number below 1,000,000,000")
    return reply(queries.decision(services_of_request().db, rollout_id, int(version)))


@API.post("/rollouts/<rollout_id>/<any(start, pause, confirm, resume, abort, 'roll-back'):action>")
@requires("operator")
def act(rollout_id: str, action: str) -> Response:
    """Start, pause, confirm, resume, abort or roll back."""
    body = parse(Act)
    view = usecases.rollout_action(
        services_of_request(), rollout_id, action, version=body.version, reason=body.reason, actor=require_actor()
    )
    return reply(view)
