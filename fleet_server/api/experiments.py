"""A/B experiments: plan, look, stop. Starting, pausing and resuming one is done as with any rollout, by the same id."""

from typing import Any

from flask import Blueprint, Response

from fleet_server import queries, usecases
from fleet_server.api.wire import Body, parse, reply
from fleet_server.auth import require_actor, requires, services_of_request
from fleet_server.experiments import create_experiment

API = Blueprint("api-experiments", __name__)


class Plan(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /experiments: `release_id` is arm B's; `plan` holds the fields of an experiment, `policy` those of a policy or null."""

    release_id: str
    plan: dict[str, Any]
    policy: dict[str, Any] | None = None
    selection: dict[str, str] | str = ""


class Stop(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /experiments/<id>/stop: the version that the person saw."""

    version: int
    reason: str = ""


@API.post("/experiments")
@requires("operator")
def create() -> Response:
    """Plan an experiment; nothing happens before it is started."""
    body = parse(Plan)
    view = create_experiment(
        services_of_request(),
        release_id=body.release_id,
        plan=body.plan,
        policy=body.policy,
        selection=body.selection,
        actor=require_actor(),
    )
    return reply(view, 201, etag=str(view.version))


@API.get("/experiments")
@requires("viewer")
def list_experiments() -> Response:
    """The newest experiments, newest first."""
    services = services_of_request()
    return reply(queries.experiments(services.db, services.clock()))


@API.get("/experiments/<experiment_id>")
@requires("viewer")
def get_experiment(experiment_id: str) -> Response:
    """One experiment; its `version` is what an action must name."""
    services = services_of_request()
    return reply(queries.experiment(services.db, experiment_id, services.clock()))


@API.post("/experiments/<experiment_id>/stop")
@requires("operator")
def stop(experiment_id: str) -> Response:
    """End it without an answer: arm B goes back to what it ran before."""
    body, services = parse(Stop), services_of_request()
    seen = queries.experiment(services.db, experiment_id, services.clock())
    action = "abort" if seen.state in ("draft", "approved") else "roll-back"
    usecases.rollout_action(services, experiment_id, action, version=body.version, reason=body.reason, actor=require_actor())
    return reply(queries.experiment(services.db, experiment_id, services.clock()))
