"""A rollout before anything happens: who comes when, how long it takes, what it would do to a bad release. Changes nothing."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
import numpy as np
import sqlalchemy as sa

from edgefleet.spans import span
from fleet_server import enlisting, origins
from fleet_server.drafts import draft_of
from fleet_server.origins import Origins
from fleet_server.queries.chances import chance_view, need_views
from fleet_server.queries.errors import NotFoundError
from fleet_server.read_plan import AwakeView, PlannedWaveView, PlanView
from fleet_server.rollout import Policy, RolloutState, parse_policy, policy_digest
from fleet_server.rollout.approval import Superseded, approvers, plan_digest, plan_parts
from fleet_server.rollout.cautions import Selected as Whom
from fleet_server.rollout.cautions import cautions, refuse_hopeless
from fleet_server.rollout.flipflop import Answer
from fleet_server.rollout.foresight import Awake, Chance, WaveTime, budget_s, chances, chances_unanimous, wave_times
from fleet_server.rollout.membership import Candidate
from fleet_server.rollout.opening_hours import Hours
from fleet_server.rollout.outline import Outline, outline, plan_salt, plan_seed
from fleet_server.rollout.planner import RUNS
from fleet_server.rollout.policy import plan_waves
from fleet_server.rollout.posterior import History
from fleet_server.scheduler.changing import waiting_at_first
from fleet_server.selecting import remarks
from fleet_server.selection import Document, Selection, document_of, read_document, written
from fleet_server.store import Database, held_back, past_rollouts, rollouts
from fleet_server.store.awake import awake
from fleet_server.store.evidence_members import Selected
from fleet_server.store.moments import to_micros
from fleet_server.store.rollouts import Stored
from fleet_server.store.tables import RELEASE


@dataclass(frozen=True)
class _Read:
    """One snapshot of what a plan depends on."""

    release: sa.Row[Any]
    selection: Selection
    selected: list[Selected]
    came_from: Origins
    superseded: list[Superseded]
    earlier: int
    history: History
    heard: Awake | None
    hours: Hours
    told: list[str]


def plan(
    db: Database, now: datetime, *, release_id: str, policy: dict[str, Any], selection: Document, with_devices: bool = False
) -> PlanView:
    """The plan of a rollout that nobody has created.

    Args:
        db: The database.
        now: When it would be started, aware UTC.
        release_id: What would be rolled out.
        policy: As in a policy file.
        selection: Which devices: labels that a device must have, or an expression; empty: all of the project.
        with_devices: Whether device ids are named.

    Raises:
        NotFoundError: No such release.
        ConfigError: The policy is not valid, selects nobody, or no release could complete it.
        ConflictError: The bundle failed before on everybody who is selected.
    """
    parsed = parse_policy(policy)
    read = _read(db, now, release_id, parsed, read_document(selection))
    wanted = document_of(read.selection)
    candidates = [one.candidate for one in read.selected]
    salt = plan_salt(read.release.bundle_digest, parsed, wanted, read.earlier)
    planned = origins.ordered(outline(parsed, candidates, salt, read.history), read.selected, read.came_from)
    if planned.course is not None:
        refuse_hopeless(planned.course)
    times = _times(parsed, planned, now, read)
    sites = Counter(one.site for one in candidates)
    kind = planned.course.rule.kind if planned.course is not None else "unanimous"
    return PlanView(
        digest=_digest(read, parsed, wanted, salt, planned, now),
        project=read.release.project,
        release=read.release.version,
        release_id=release_id,
        policy_name=parsed.name,
        policy_digest=policy_digest(parsed),
        selection=written(read.selection),
        rule=kind,
        limit=None if planned.course is None else planned.course.rule.limit,
        sentence=_sentence(read, planned, times, kind),
        devices=len(read.selected),
        held_back=len(planned.held_back),
        sites=len([site for site in sites if site]),
        waves=_waves(candidates, planned, times, with_devices),
        duration_s=times[-1].done_s,
        awake=None if read.heard is None else AwakeView(list(read.heard.shares), read.heard.days, read.heard.devices),
        chances=[chance_view(one) for one in _chances(planned, salt)],
        runs=RUNS,
        needs=[] if planned.course is None else need_views(parsed.gates, planned.course.sizes, len(read.selected)),
        cautions=[*read.told, *_cautions(planned, read, sites, times)],
        held_back_ids=list(planned.held_back) if with_devices else [],
    )


def _read(db: Database, now: datetime, release_id: str, policy: Policy, wanted: Selection) -> _Read:
    with db.read() as connection:
        release = connection.execute(sa.select(RELEASE).where(RELEASE.c.release_id == release_id)).first()
        if release is None:
            raise NotFoundError("release", release_id)
        reached = enlisting.reached(connection, release, policy, wanted)
        device_ids = reached.device_ids
        chosen = enlisting.selected(connection, policy, device_ids, held_back.too_often(connection, release.project))
        held = _holders(connection, release.project, device_ids)
        ended = held if policy.on_conflict == "supersede" else {}
        came_from = origins.of(connection, release.project, sorted(ended), "")
        return _Read(
            release=release,
            selection=reached.selection,
            selected=origins.marked(chosen, came_from),
            came_from=came_from,
            superseded=[
                Superseded(one.rollout.rollout_id, one.rollout.state.value, one.rollout.wave, one.version) for one, _ in ended.values()
            ],
            earlier=rollouts.of_release(connection, release_id),
            history=past_rollouts.history(connection, release.project),
            heard=awake(connection, release.project, device_ids, to_micros(now)),
            hours=enlisting.hours(connection, policy, device_ids),
            told=[
                *_approvals(policy),
                *remarks(connection, release.project, reached.selection),
                *_left_out(reached.left_out),
                *_changed_lately(waiting_at_first(connection, release.project, release_id, policy, device_ids, now), now),
                *(_taken(policy, *one) for one in held.values()),
            ],
        )


def _holders(connection: sa.Connection, project: str, device_ids: Sequence[str]) -> dict[str, tuple[Stored, int]]:
    """Rollouts that are not over and own some of the devices, with how many."""
    owners = Counter(rollouts.owners(connection, project, device_ids).values())
    found = {rollout_id: (rollouts.load(connection, rollout_id), held) for rollout_id, held in sorted(owners.items())}
    return {
        rollout_id: (stored, held)
        for rollout_id, (stored, held) in found.items()
        if stored is not None and stored.rollout.state is not RolloutState.ABORTED
    }


def _approvals(policy: Policy) -> list[str]:
    count = policy.approvals
    return [f"Before its start {approvers(count)} other than its creator must approve it (approvals = {count})."] if count else []


def _left_out(devices: int) -> list[str]:
    if devices == 1:
        return ["1 of the selected devices is left out: the bundle failed on it before."]
    return [f"{devices} of the selected devices are left out: the bundle failed on them before."] if devices else []


def _changed_lately(waiting: Mapping[str, Answer], now: datetime) -> list[str]:
    """What it means for a plan that devices were changed a short while ago, or to and fro."""
    until = [answer.again_at for answer in waiting.values() if answer.again_at is not None]
    to_and_fro = len(waiting) - len(until)
    found = []
    if until:
        begin = span((max(until) - now).total_seconds())
        found.append(
            f"{_devices_were(len(until))} changed a short while ago and may begin only later, the last one in {begin} "
            "(activation_gap_s); the times of this plan do not count with that."
        )
    if to_and_fro:
        found.append(
            f"{_devices_were(to_and_fro)} changed between these two releases twice in seven days: a third time pauses the rollout."
        )
    return found


def _devices_were(count: int) -> str:
    return "1 of these devices was" if count == 1 else f"{count} of these devices were"


def _taken(policy: Policy, stored: Stored, held: int) -> str:
    """What another rollout's devices mean for this plan."""
    what = {
        "refuse": "nothing can be created before that is over",
        "queue": "this one waits for it",
        "supersede": "the start of this one ends it",
    }[policy.on_conflict]
    return f"{held} of these devices belong to rollout {stored.rollout.rollout_id}, which is {stored.rollout.state.value}: {what}."


def _digest(read: _Read, policy: Policy, wanted: Document, salt: str, planned: Outline, now: datetime) -> str:
    """What an approval of the rollout would name, if it were created now."""
    waves = planned.waves if planned.course is None else ()
    rollout = draft_of(read.release, policy, salt, now, "", waves=waves, course=planned.course)
    membership = None if planned.membership is None else msgspec.json.encode(planned.membership).decode()
    return plan_digest(plan_parts(rollout, wanted, membership=membership, superseded=read.superseded))


def _times(policy: Policy, planned: Outline, now: datetime, read: _Read) -> tuple[WaveTime, ...]:
    if planned.course is not None:
        site = {one.candidate.device_id: one.candidate.site for one in read.selected}
        sites = (Counter(site[device_id] for device_id in wave) for wave in planned.waves)
        # From its beginning to its commit a device takes its trial at least.
        least = [budget_s(counted, policy.site_budget, policy.trial.soak_s) for counted in sites]
        return wave_times(planned.course, policy.deadline_s, now, read.heard, read.hours, least)
    found: list[WaveTime] = []
    opens_s = 0.0
    for number, wave in enumerate(plan_waves(policy, sum(len(one) for one in planned.waves)), start=1):
        done_s = opens_s + max(wave.dwell_s, policy.trial.soak_s + policy.soak_s)
        found.append(WaveTime(number, opens_s, 0.0, wave.dwell_s, 0.0, done_s))
        opens_s = done_s
    return tuple(found)


def _chances(planned: Outline, salt: str) -> tuple[Chance, ...]:
    """Seeded from the plan: the same plan foretells the same numbers."""
    if planned.course is None:
        added = [len(wave) for wave in planned.waves]
        return chances_unanimous(added, np.random.default_rng(plan_seed(salt, added)))
    return chances(planned.course, np.random.default_rng(plan_seed(salt, planned.course.sizes)))


def _cautions(planned: Outline, read: _Read, sites: Mapping[str, int], times: Sequence[WaveTime]) -> list[str]:
    if planned.course is None:
        return [
            "Every device must be ok: one that fails or stays silent stops the rollout, and no rate of failures is judged. "
            "For more than a few devices use evidence = 'auto'."
        ]
    whom = Whom(len(read.selected), len(planned.held_back), sites, read.heard, read.hours)
    return list(cautions(planned.course, whom, times))


def _waves(selected: Sequence[Candidate], planned: Outline, times: Sequence[WaveTime], with_devices: bool) -> list[PlannedWaveView]:
    strata = {one.device_id: one.stratum for one in selected}
    found: list[PlannedWaveView] = []
    reached = 0
    for time, wave in zip(times, planned.waves, strict=True):
        reached += len(wave)
        counts = sorted(Counter(strata[device_id] for device_id in wave).items())
        found.append(
            PlannedWaveView(
                number=time.number,
                devices=reached,
                adds=len(wave),
                strata=counts,
                opens_s=time.opens_s,
                opening_s=time.opening_s,
                dwell_s=time.dwell_s,
                asleep_s=time.asleep_s,
                done_s=time.done_s,
                device_ids=list(wave) if with_devices else [],
            )
        )
    return found


def _sentence(read: _Read, planned: Outline, times: Sequence[WaveTime], kind: str) -> str:
    begun = sum(len(wave) for wave in planned.waves)
    waves = "1 wave" if len(planned.waves) == 1 else f"{len(planned.waves)} waves"
    held = f", {len(planned.held_back)} are held back" if planned.held_back else ""
    limit = "" if planned.course is None else f", limit {100 * planned.course.rule.limit:.3g} % failures"
    return (
        f"{read.release.project} {read.release.version} to {begun} devices in {waves}{held}; rule {kind}{limit}; "
        f"done after {span(times[-1].done_s)} at the earliest."
    )
