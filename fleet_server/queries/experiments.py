"""Experiments as they stand: arms, interval, what may end them."""

import math
from datetime import datetime

import sqlalchemy as sa

from fleet_server.queries.errors import NotFoundError
from fleet_server.queries.releases import versions
from fleet_server.read_compared import ArmView, ExperimentView, QuestionView
from fleet_server.rollout import Facts, Rollout, gates, view
from fleet_server.rollout.experiment import devices_needed
from fleet_server.rollout.experiment_plan import ARMS, Experiment
from fleet_server.rollout.experiment_sums import Sums
from fleet_server.store import Database, experiment_rows, facts, rollouts
from fleet_server.store.rollouts import Stored
from fleet_server.store.tables import RELEASE, ROLLOUT


def experiment(db: Database, experiment_id: str, now: datetime) -> ExperimentView:
    """One experiment.

    Raises:
        NotFoundError: There is none of that id.
    """
    with db.read() as connection:
        stored = rollouts.load(connection, experiment_id)
        if stored is None or stored.rollout.experiment is None:
            raise NotFoundError("experiment", experiment_id)
        return _view(connection, stored, stored.rollout.experiment, now)


def experiments(db: Database, now: datetime, limit: int = 100) -> list[ExperimentView]:
    """The newest experiments, newest first."""
    with db.read() as connection:
        ids = (
            sa.select(ROLLOUT.c.rollout_id).where(ROLLOUT.c.rollout_id.startswith("x-")).order_by(ROLLOUT.c.created_at.desc()).limit(limit)
        )
        found = [rollouts.load(connection, rollout_id) for rollout_id in connection.scalars(ids).all()]
        return [
            _view(connection, one, one.rollout.experiment, now) for one in found if one is not None and one.rollout.experiment is not None
        ]


def _view(connection: sa.Connection, stored: Stored, plan: Experiment, now: datetime) -> ExperimentView:
    value = stored.rollout
    known = facts.read(connection, value, now)
    sums = known.arms or Sums()
    _, sentence, missing = view(value, known, now)
    half = sums.half(plan.alpha)
    a, b = sums.arms
    deviation = math.sqrt((a.m2 + b.m2) / (a.n + b.n - 2)) if a.n + b.n > 2 else 0.0
    return ExperimentView(
        experiment_id=value.rollout_id,
        project=value.project,
        state=value.state.value,
        version=stored.version,
        ending=plan.ending,
        metric=plan.metric,
        better=plan.better,
        resolution=plan.resolution,
        arms=_arms(connection, value, plan, known, sums),
        difference=sums.difference if min(a.n, b.n) else None,
        half_width=half if math.isfinite(half) else None,
        evidence=sums.evidence,
        devices_needed=devices_needed(plan.resolution, deviation, plan.alpha) if deviation > 0 else None,
        questions=_questions(value, known, now),
        sentence=sentence,
        missing=missing,
        winner_rollout_id=experiment_rows.winner(connection, value.rollout_id),
    )


def _questions(value: Rollout, known: Facts, now: datetime) -> list[QuestionView]:
    return [QuestionView(one.name, one.verdict, one.now, one.limit, one.n, one.sentence) for one in gates(value, known, now)]


def _arms(connection: sa.Connection, value: Rollout, plan: Experiment, known: Facts, sums: Sums) -> list[ArmView]:
    named = versions(connection)
    baseline = connection.scalar(sa.select(RELEASE.c.bundle_digest).where(RELEASE.c.release_id == plan.baseline_release)) or ""
    digests = (baseline, value.bundle_digest)
    arm_of = {device_id: plan.arm(value.salt, device_id) for batch in value.waves for device_id in batch}
    begun = set(value.members)
    found = []
    for number, (name, digest, one) in enumerate(zip(ARMS, digests, sums.arms, strict=True)):
        mine = [device_id for device_id, arm in arm_of.items() if arm == number]
        told = [known.devices[device_id] for device_id in mine if device_id in begun and device_id in known.devices]
        found.append(
            ArmView(
                arm=name,
                release=named.get((value.project, digest), digest[:12]),
                devices=len(mine),
                begun=len(told),
                running=sum(device.running_digest == digest for device in told),
                measured=one.measured,
                delivered=one.delivered,
                n=one.n,
                mean=one.mean if one.n else None,
                deviation=math.sqrt(one.variance) if one.n > 1 else None,
            )
        )
    return found
