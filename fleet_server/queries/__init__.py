"""Read models: every question that the page and the API ask of the database, answered in one short read transaction each.

Each function opens its own snapshot, so the numbers of one answer belong together. Nothing here changes anything, and nothing here
decides anything: verdicts and sentences come from `fleet_server.rollout` and `fleet_server.drift`.

Read `fleet_server/read_models.py` next: what the answers hold and what each count means.
"""

from fleet_server.queries.changes import changes_after, newest_change
from fleet_server.queries.comparisons import beside, comparisons
from fleet_server.queries.decisions import decision, decisions_of
from fleet_server.queries.devices import device, devices
from fleet_server.queries.drift import drift
from fleet_server.queries.errors import NotFoundError
from fleet_server.queries.events import events, recent_events
from fleet_server.queries.experiments import experiment, experiments
from fleet_server.queries.explanations import explanations
from fleet_server.queries.halt import halt
from fleet_server.queries.observed import observed
from fleet_server.queries.overview import overview
from fleet_server.queries.planned import last_policy, vocabulary
from fleet_server.queries.projects import projects
from fleet_server.queries.releases import release, releases
from fleet_server.queries.rollouts import explain, rollout, rollouts
from fleet_server.queries.sampling import sampled_rows, sampling

__all__ = [
    "NotFoundError",
    "beside",
    "changes_after",
    "comparisons",
    "decision",
    "decisions_of",
    "device",
    "devices",
    "drift",
    "events",
    "experiment",
    "experiments",
    "explain",
    "explanations",
    "halt",
    "last_policy",
    "newest_change",
    "observed",
    "overview",
    "projects",
    "recent_events",
    "release",
    "releases",
    "rollout",
    "rollouts",
    "sampled_rows",
    "sampling",
    "vocabulary",
]
