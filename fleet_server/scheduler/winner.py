"""The winner of an experiment becomes the draft of a rollout whose first wave is the winning arm: it runs the release already.

It goes by the evidence that the experiment's policy names; the experiment itself names its devices, whatever that is.
"""

import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import msgspec
import sqlalchemy as sa

from edgefleet.errors import ConfigError
from fleet_server.drafts import new_id
from fleet_server.enlisting import selected
from fleet_server.rollout import Rollout, RolloutState
from fleet_server.rollout.cautions import refuse_hopeless
from fleet_server.rollout.conflicts import stratum_from
from fleet_server.rollout.outline import Outline, all_first, outline, plan_salt
from fleet_server.rollout.policy import plan_waves
from fleet_server.selection import EVERYBODY, Selection, document_of
from fleet_server.store import evidence_members, experiment_rows, members, past_rollouts, rollouts, stays
from fleet_server.store.evidence_members import Selected
from fleet_server.store.moments import to_micros


def draft(connection: sa.Connection, experiment: Rollout, now: datetime) -> Rollout:
    """Plan the rollout of arm B's release to everybody who was in the experiment; a person starts it, or aborts it.

    Args:
        connection: The transaction in which the experiment ended and let go of its devices.
        experiment: Ended, won by arm B.
        now: Aware UTC.

    Raises:
        ConfigError: It is no experiment that arm B has won.
    """
    plan = experiment.experiment
    if plan is None or plan.ending != "winner B":
        raise ConfigError(f"{experiment.rollout_id} is no experiment that arm B has won; only a winner becomes a rollout")
    stored = rollouts.load(connection, experiment.rollout_id)
    experiment = _of_the_fleet(experiment, members.removed(connection, experiment.rollout_id))
    selection = EVERYBODY if stored is None else stored.selection
    policy = msgspec.structs.replace(experiment.policy, baseline=experiment.policy.baseline or plan.baseline_release)
    in_arm = [device_id for device_id in experiment.members if plan.arm(experiment.salt, device_id) == 1]
    planned = planned_by_evidence(connection, experiment, selection, in_arm)
    rollout = replace(
        experiment,
        rollout_id=new_id(experiment.project, experiment.release_counter),
        state=RolloutState.DRAFT,
        waves=waves_of_winner(experiment) if planned is None else (),
        course=None if planned is None else planned.outline.course,
        salt=experiment.salt if planned is None else planned.salt,
        policy=policy,
        wave=0,
        opened_at=(),
        promoted_at=(),
        created_at=now,
        created_by=experiment.created_by,
        hold_since=None,
        last_reason=f"Drafted: experiment {experiment.rollout_id} ended. {experiment.last_reason}",
        changed_at=now,
        paused_for=(),
        accepted=(),
        experiment=None,
    )
    rollouts.insert(connection, rollout, selection, to_micros(now))
    if planned is not None and planned.outline.membership is not None:
        evidence_members.insert(connection, rollout, planned.outline.membership, planned.chosen)
    # The first wave runs the release already: what it goes back to is what arm A runs.
    members.note_previous(connection, rollout.rollout_id, in_arm, plan.baseline_release)
    experiment_rows.note_winner(connection, experiment.rollout_id, rollout.rollout_id)
    return rollout


@dataclass(frozen=True)
class Planned:
    """A winner's rollout by evidence, before it is kept."""

    outline: Outline
    chosen: list[Selected]
    salt: str


def planned_by_evidence(connection: sa.Connection, experiment: Rollout, selection: Selection, in_arm: Sequence[str]) -> Planned | None:
    """Waves and limits over the experiment's devices, those of arm B in wave 1 and never held back; None under `unanimous`.

    Args:
        connection: A transaction.
        experiment: Won, or not even begun: a plan that no release could complete is refused before it costs anything.
        selection: Without groups.
        in_arm: Devices of arm B, which run the release already.

    Raises:
        ConfigError: The policy does not fit so many devices.
    """
    policy = experiment.policy
    if policy.evidence == "unanimous":
        return None
    refusing = stays.refusing(connection, experiment.bundle_digest)
    device_ids = sorted(device_id for batch in experiment.waves for device_id in batch if device_id not in refusing)
    came = set(in_arm) - set(refusing)
    chosen = [_from_arm(one, experiment) if one.candidate.device_id in came else one for one in selected(connection, policy, device_ids)]
    candidates = [one.candidate for one in chosen]
    salt = plan_salt(experiment.bundle_digest, policy, document_of(selection), rollouts.of_release(connection, experiment.release_id))
    planned = outline(policy, candidates, salt, past_rollouts.history(connection, experiment.project))
    planned = all_first(planned, candidates, sorted({one.stratum for one in candidates if one.device_id in came}))
    if planned.course is not None:
        refuse_hopeless(planned.course)
    return Planned(planned, chosen, salt)


def _of_the_fleet(experiment: Rollout, removed: Collection[str]) -> Rollout:
    """The experiment without devices that were taken out of the fleet meanwhile."""
    return replace(experiment, waves=tuple(tuple(d for d in batch if d not in removed) for batch in experiment.waves))


def _from_arm(one: Selected, experiment: Rollout) -> Selected:
    """A device that runs the release is a stratum of its own, and no control."""
    stratum = stratum_from(one.candidate.stratum, experiment.rollout_id, harmed=False)
    return replace(one, candidate=replace(one.candidate, stratum=stratum, never_held=True))


def waves_of_winner(experiment: Rollout) -> tuple[tuple[str, ...], ...]:
    """Wave 1: devices of arm B that were given the release; then all others, as large as the policy's waves say."""
    plan = experiment.experiment
    everybody = [device_id for batch in experiment.waves for device_id in batch]
    first = [d for d in experiment.members if plan is not None and plan.arm(experiment.salt, d) == 1]
    rest = [d for d in everybody if d not in set(first)]
    ends = [wave.devices for wave in plan_waves(experiment.policy, len(everybody)) if wave.devices > len(first)]
    ordered, begins = [*first, *rest], [0, len(first), *ends]
    return tuple(tuple(ordered[a:b]) for a, b in itertools.pairwise(begins) if b > a)
