"""A rollout that nobody has started yet, of a release: by a person, after an experiment, or back from late failures."""

import secrets
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from fleet_server.rollout import Policy, Rollout, RolloutState
from fleet_server.rollout.course import Course
from fleet_server.rollout.experiment_plan import Experiment


def draft_of(
    release: sa.Row[Any],
    policy: Policy,
    salt: str,
    now: datetime,
    created_by: str,
    *,
    waves: tuple[tuple[str, ...], ...] = (),
    course: Course | None = None,
    experiment: Experiment | None = None,
    reason: str = "",
) -> Rollout:
    """The engine's value of a rollout of which no wave is open, under an id of its own.

    Args:
        release: Row of the release.
        policy: As accepted.
        salt: Of the order of its devices.
        now: Aware UTC.
        created_by: A person's name, or the engine's.
        waves: Device ids that each wave adds; empty of a rollout by evidence.
        course: Of a rollout by evidence.
        experiment: Of an A/B experiment.
        reason: Why there is one, where no person planned it.
    """
    return Rollout(
        rollout_id=new_id(release.project, release.counter, experiment=experiment is not None),
        project=release.project,
        release_id=release.release_id,
        bundle_digest=release.bundle_digest,
        release_counter=release.counter,
        state=RolloutState.DRAFT,
        waves=waves,
        wave=0,
        opened_at=(),
        promoted_at=(),
        policy=policy,
        salt=salt,
        created_at=now,
        created_by=created_by,
        last_reason=reason,
        changed_at=now if reason else None,
        course=course,
        experiment=experiment,
    )


def new_id(project: str, release_counter: int, *, experiment: bool = False) -> str:
    """An id that no other rollout has: what it is, of which project, of which of its releases."""
    return f"{'x' if experiment else 'r'}-{project[:32]}-{release_counter}-{secrets.token_hex(3)}"
