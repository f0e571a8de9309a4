"""What devices of a rollout do differently from their controls, what is shown beside it, and labels that became known."""

from datetime import datetime

from flask import Blueprint, Response

from fleet_server import queries
from fleet_server.api.wire import Body, parse, reply
from fleet_server.auth import require_actor, requires, services_of_request
from fleet_server.labelling import report_labelled

API = Blueprint("api-comparisons", __name__)


class Labelled(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Counts of one period, whose name is `rows_at`; `baseline_*` are of another model on the same rows."""

    bundle_digest: str
    rows: int
    right: int
    rows_at: datetime
    baseline_digest: str = ""
    baseline_right: int = 0


@API.post("/devices/<device_id>/labelled")
@requires("operator")
def labelled(device_id: str) -> Response:
    """Tell how many answers of a device were right; the same period told again replaces what was told before."""
    body = parse(Labelled)
    report_labelled(
        services_of_request(),
        device_id,
        bundle_digest=body.bundle_digest,
        rows=body.rows,
        right=body.right,
        rows_at=body.rows_at,
        baseline_digest=body.baseline_digest,
        baseline_right=body.baseline_right,
        actor=require_actor(),
    )
    return reply({"device_id": device_id, "rows": body.rows})


@API.get("/rollouts/<rollout_id>/comparisons")
@requires("viewer")
def get_comparisons(rollout_id: str) -> Response:
    """Each gate with its evidence, its devices, those left out and why; and input drift and attribution beside them, which do not vote."""
    services = services_of_request()
    gates = queries.comparisons(services.db, rollout_id)
    return reply({"gates": gates, "beside": queries.beside(services.db, rollout_id, services.clock())})
