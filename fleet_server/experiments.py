"""Plan an A/B experiment: which devices, which arms, what ends it. From then on it is a rollout, started and rolled back like one."""

import hashlib
import secrets
from datetime import datetime
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from edgefleet.errors import ConfigError
from fleet_server import queries
from fleet_server.auth import Actor
from fleet_server.drafts import draft_of
from fleet_server.queries import NotFoundError
from fleet_server.read_compared import ExperimentView
from fleet_server.releases.floor import refuse_below
from fleet_server.rollout import Policy, Rollout, parse_policy
from fleet_server.rollout.experiment import FIRST_LOOK
from fleet_server.rollout.experiment_plan import Experiment, batches
from fleet_server.rollout.limits import refuse_unknown
from fleet_server.scheduler import claiming
from fleet_server.scheduler.steering import note_action
from fleet_server.scheduler.winner import planned_by_evidence
from fleet_server.selecting import resolved
from fleet_server.selection import Document, groups_in, meant, read_document
from fleet_server.services import Services
from fleet_server.store import groups, rollouts, selecting, stays
from fleet_server.store.moments import to_micros
from fleet_server.store.tables import RELEASE, REPORTED

# What arm B's devices are given, and what the winner's rollout goes by, when nothing else is said.
DEFAULT_POLICY: Final[dict[str, Any]] = {
    "name": "experiment",
    "waves": ["50%", "100%"],
    "soak_s": 3_600.0,
    "soak_rows": 0,
    "deadline_s": 86_400.0,
    "hold_s": 7 * 86_400.0,
    "on_abort": "roll-back",
}
_BATCH: Final = 500


def create_experiment(
    services: Services,
    *,
    release_id: str,
    plan: dict[str, Any],
    policy: dict[str, Any] | None,
    selection: Document,
    actor: Actor,
) -> ExperimentView:
    """Plan an experiment over the selected devices that run the baseline; nothing happens until it is started.

    Args:
        services: The server's parts.
        release_id: Release of arm B.
        plan: Fields of `Experiment`; `baseline_release` is the release of arm A.
        policy: Of the trial on devices and of the winner's rollout, which goes by its evidence, waves, pace and windows; None: the default.
        selection: Which devices: labels that a device must have, or an expression; empty: all of the project.
        actor: Who plans it.

    Raises:
        NotFoundError: No such release.
        ConfigError: The plan or the policy is not valid, or too few devices run the baseline to tell anything.
        ConflictError: A device belongs to a rollout that is not over, or a release lies below the release floor.
    """
    parsed = parse_plan(plan)
    rules = parse_policy(dict(DEFAULT_POLICY) if policy is None else policy)
    asked = read_document(selection)
    now = services.clock()
    with services.db.write() as connection:
        treatment, baseline = (_release(connection, one) for one in (release_id, parsed.baseline_release))
        if treatment.project != baseline.project or treatment.release_id == baseline.release_id:
            raise ConfigError(f"{release_id} and {parsed.baseline_release} must be two releases of one project")
        for arm in (treatment, baseline):
            refuse_below(connection, arm.project, arm.release_id, arm.counter, "no experiment can be made")
        wanted = resolved(connection, treatment.project, asked)
        selected = selecting.select_ids(connection, treatment.project, wanted)
        # A device on which arm B's bundle failed before would never be given it, and count for arm B all the same.
        refusing = stays.refusing(connection, treatment.bundle_digest)
        willing = [device_id for device_id in selected if device_id not in refusing]
        device_ids = _running(connection, treatment.project, baseline.bundle_digest, willing)
        if len(device_ids) < FIRST_LOOK:
            seen = f"{len(device_ids)} of {len(selected)} selected devices run {baseline.version}"
            raise ConfigError(f"{seen}; with fewer than {FIRST_LOOK} no difference can be told")
        # It neither waits nor takes over, whatever the policy says of the winner's rollout; devices of an aborted one are free.
        claiming.at_creation(
            connection, services, treatment.project, device_ids, msgspec.structs.replace(rules, on_conflict="refuse"), "experiment"
        )
        rollout = _rollout(treatment, rules, parsed, device_ids, actor, now)
        in_arm = [device_id for device_id in device_ids if parsed.arm(rollout.salt, device_id) == 1]
        planned_by_evidence(connection, rollout, wanted, in_arm)  # refused now, not when it has won
        rollouts.insert(connection, rollout, wanted, to_micros(now))
        groups.plan_with(connection, rollout.rollout_id, groups_in(asked))
        versus = f"{treatment.version} against {baseline.version}"
        detail = f"experiment on {parsed.metric}: {versus} on {len(device_ids)} devices ({meant(asked, wanted)})"
        note_action(connection, rollout, "create", actor.name, detail, now)
    return queries.experiment(services.db, rollout.rollout_id, now)


def parse_plan(document: dict[str, Any]) -> Experiment:
    """Read a plan from a parsed TOML or JSON document.

    Raises:
        ConfigError: An unknown or missing key, a value of the wrong kind or outside its limits.
    """
    refuse_unknown("experiment", document, Experiment)
    if "ending" in document:
        raise ConfigError("experiment: 'ending' is what comes out; leave it away")
    try:
        return msgspec.convert(document, Experiment)
    except msgspec.ValidationError as err:
        raise ConfigError(f"experiment: {str(err)[:300]}") from err


def _rollout(release: sa.Row[Any], policy: Policy, plan: Experiment, device_ids: list[str], actor: Actor, now: datetime) -> Rollout:
    salt = secrets.token_hex(8)
    ordered = sorted(device_ids, key=lambda device_id: hashlib.sha256(f"{salt}|batch|{device_id}".encode()).digest())
    return draft_of(release, policy, salt, now, actor.name, waves=batches(ordered), experiment=plan)


def _release(connection: sa.Connection, release_id: str) -> sa.Row[Any]:
    row = connection.execute(sa.select(RELEASE).where(RELEASE.c.release_id == release_id)).first()
    if row is None:
        raise NotFoundError("release", release_id)
    return row


def _running(connection: sa.Connection, project: str, digest: str, device_ids: list[str]) -> list[str]:
    """Those that run a bundle, by their own report."""
    found: list[str] = []
    for start in range(0, len(device_ids), _BATCH):
        piece = device_ids[start : start + _BATCH]
        where = (REPORTED.c.project == project, REPORTED.c.bundle_digest == digest, REPORTED.c.device_id.in_(piece))
        found += connection.scalars(sa.select(REPORTED.c.device_id).where(*where))
    return sorted(found)
