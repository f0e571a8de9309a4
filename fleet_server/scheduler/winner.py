"""The winner of an experiment becomes the draft of a rollout whose first wave is the winning arm: it runs the release already."""

import itertools
from dataclasses import replace
from datetime import datetime

import msgspec
import sqlalchemy as sa

from edgefleet.errors import ConfigError
from fleet_server.drafts import new_id
from fleet_server.rollout import Rollout, RolloutState
from fleet_server.rollout.policy import plan_waves
from fleet_server.store import experiment_rows, members, rollouts
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
    rollout = replace(
        experiment,
        rollout_id=new_id(experiment.project, experiment.release_counter),
        state=RolloutState.DRAFT,
        waves=waves_of_winner(experiment),
        policy=msgspec.structs.replace(experiment.policy, baseline=experiment.policy.baseline or plan.baseline_release),
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
    rollouts.insert(connection, rollout, {} if stored is None else stored.selection, to_micros(now))
    # The first wave runs the release already: what it goes back to is what arm A runs.
    members.note_previous(connection, rollout.rollout_id, rollout.waves[0], plan.baseline_release)
    experiment_rows.note_winner(connection, experiment.rollout_id, rollout.rollout_id)
    return rollout


def waves_of_winner(experiment: Rollout) -> tuple[tuple[str, ...], ...]:
    """Wave 1: devices of arm B that were given the release; then all others, as large as the policy's waves say."""
    plan = experiment.experiment
    everybody = [device_id for batch in experiment.waves for device_id in batch]
    first = [d for d in experiment.members if plan is not None and plan.arm(experiment.salt, d) == 1]
    rest = [d for d in everybody if d not in set(first)]
    ends = [wave.devices for wave in plan_waves(experiment.policy, len(everybody)) if wave.devices > len(first)]
    ordered, begins = [*first, *rest], [0, len(first), *ends]
    return tuple(tuple(ordered[a:b]) for a, b in itertools.pairwise(begins) if b > a)
