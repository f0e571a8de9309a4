"""Failures after the completion: a linked rollback is drafted with the numbers, and started only if the policy says so."""

import secrets
from collections import Counter
from dataclasses import replace
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from fleet_server.drafts import draft_of
from fleet_server.errors import ConflictError
from fleet_server.halting import refuse_while_halted
from fleet_server.rollout import Event, Policy, Rollout, RolloutState, apply_person
from fleet_server.rollout.cohorts import assign_waves
from fleet_server.rollout.late_evidence import START_AT, LateFinding, judge_late
from fleet_server.scheduler.assigning import targets_for
from fleet_server.scheduler.claiming import at_start
from fleet_server.scheduler.steering import ENGINE, note_action
from fleet_server.services import Services
from fleet_server.store import assignments, late_failures, links, looks, rollouts
from fleet_server.store.moments import to_micros
from fleet_server.store.rollouts import Stored
from fleet_server.store.tables import LATECOMER, RELEASE, ROLLOUT_MEMBER

_NOT_BEGUN: Final = frozenset({RolloutState.DRAFT, RolloutState.APPROVED})


def look(services: Services, rollout_id: str) -> None:
    """Look at a completed rollout whose devices have news; any other one is left alone. Its own state never changes."""
    now = services.clock()
    with services.db.write() as connection:
        stored = rollouts.load(connection, rollout_id, lock=True)
        if stored is None or stored.rollout.state is not RolloutState.COMPLETED or stored.rollout.changed_at is None:
            return
        looks.look_at(connection, rollout_id, None)
        finding = _finding(connection, stored.rollout, stored.rollout.changed_at)
        if finding.word == "nothing":
            return
        draft = _draft_of(connection, services, stored, finding, now)
        if draft is None:
            return
        if finding.word == "start" and draft.rollout.state is RolloutState.DRAFT and _may_start(connection, services, draft, now):
            started = apply_person(draft.rollout, Event.START.value, finding.sentence, now)
            rollouts.save_and_look(connection, draft, started, now)
            note_action(connection, started, "start", ENGINE, finding.sentence, now)


def nobody_follows(connection: sa.Connection, rollout: Rollout) -> bool:
    """Whether late failures keep the release from those that were held back.

    As long as a rollback stands that no person has discarded, and from evidence of `START_AT` on whatever she did with it.
    """
    if rollout.policy.on_late_evidence == "ignore" or rollout.changed_at is None:
        return False
    made = links.linked_to(connection, rollout.rollout_id, "late-rollback")
    if any(rollouts.state_of(connection, one) != RolloutState.DISCARDED for one in made):
        return True
    return _finding(connection, rollout, rollout.changed_at).evidence >= START_AT


def may_be_discarded(connection: sa.Connection, rollout_id: str) -> bool:
    """Whether a rollback after late failures has not begun, so that a person may still discard it."""
    made = links.linked_to(connection, rollout_id, "late-rollback")
    return any(rollouts.state_of(connection, one) in _NOT_BEGUN for one in made)


def _finding(connection: sa.Connection, rollout: Rollout, completed_at: datetime) -> LateFinding:
    late = late_failures.of_rollout(connection, rollout.rollout_id, to_micros(completed_at))
    return judge_late(
        len(late.failed),
        late.devices,
        limit=rollout.policy.rule.limit,
        on_late=rollout.policy.on_late_evidence,
        failed_latecomers=len(late.failed_latecomers),
        latecomers=late.latecomers,
    )


def _may_start(connection: sa.Connection, services: Services, draft: Stored, now: datetime) -> bool:
    """Whether it has its devices; it never takes them from a rollout that came later, nor begins while the fleet is halted."""
    try:
        refuse_while_halted(connection, services, f"rollout {draft.rollout.rollout_id} waits")
        return at_start(connection, services, draft, ENGINE, now)
    except ConflictError as err:
        note_action(connection, draft.rollout, "late-evidence", ENGINE, f"It does not start by itself: {err}", now)
        return False


def _draft_of(connection: sa.Connection, services: Services, stored: Stored, finding: LateFinding, now: datetime) -> Stored | None:
    """The linked rollback, made when there is none yet; its numbers are those of now as long as it is a draft."""
    known = links.linked_to(connection, stored.rollout.rollout_id, "late-rollback")
    if known:
        draft = rollouts.load(connection, known[0], lock=True)
        if draft is not None and draft.rollout.state is RolloutState.DRAFT and draft.rollout.last_reason != finding.sentence:
            rollouts.save(connection, draft, replace(draft.rollout, last_reason=finding.sentence, changed_at=now), None)
            draft = rollouts.load(connection, known[0])
        return draft
    return _make(connection, stored, finding, now)


def _make(connection: sa.Connection, stored: Stored, finding: LateFinding, now: datetime) -> Stored | None:
    value = stored.rollout
    targets = _targets(connection, value)
    counted = Counter(targets.values())
    if not counted:
        note_action(connection, value, "late-evidence", ENGINE, f"{finding.sentence} No device has a completed release to go back to.", now)
        return None
    release_id = counted.most_common(1)[0][0]
    going = sorted(device_id for device_id, target in targets.items() if target == release_id)
    release = connection.execute(sa.select(RELEASE).where(RELEASE.c.release_id == release_id)).one()
    policy = _policy(value.policy, value.rollout_id)
    salt = secrets.token_hex(8)
    waves = assign_waves(salt, {device_id: {} for device_id in going}, policy)
    draft = draft_of(release, policy, salt, now, ENGINE, waves=waves, reason=finding.sentence)
    at = to_micros(now)
    # Without its devices until it starts: a draft must not keep a person from planning something better.
    rollouts.insert(connection, draft, stored.selection, at, active=False)
    links.add(connection, draft.rollout_id, "late-rollback", (value.rollout_id,), at)
    others = len(targets) - len(going)
    more = f" {others} devices have other releases to go back to and are left out." if others else ""
    detail = f"{finding.sentence} {len(going)} devices would go back to {release.version}.{more}"
    note_action(connection, draft, "create", ENGINE, detail, now)
    note_action(connection, value, "late-evidence", ENGINE, f"{detail} See rollout {draft.rollout_id}.", now)
    return rollouts.load(connection, draft.rollout_id)


def _targets(connection: sa.Connection, rollout: Rollout) -> dict[str, str]:
    """Device -> release that it would go back to, for those that still are to run the release and have one."""
    member = ROLLOUT_MEMBER.c
    later = sa.select(LATECOMER.c.device_id).where(LATECOMER.c.rollout_id == rollout.rollout_id, LATECOMER.c.committed_at.is_not(None))
    committed = sa.or_(member.committed_at.is_not(None), member.device_id.in_(later))
    query = sa.select(member.device_id, member.previous_release).where(member.rollout_id == rollout.rollout_id, committed)
    rows = connection.execute(query.where(member.removed_at.is_(None))).all()
    has = assignments.current(connection, rollout.project, [row.device_id for row in rows])
    still = [row for row in rows if has.get(row.device_id, ("", ""))[0] == rollout.release_id]
    targets = targets_for(connection, rollout, {row.device_id: row.previous_release for row in still})
    return {device_id: target.release_id for device_id, target in targets.items() if target.release_id is not None}


def _policy(policy: Policy, rollout_id: str) -> Policy:
    """To all at once: they ran that release before, and it was completed. Every device must prove itself, and failures are counted."""
    return Policy(
        name=f"rollback of {rollout_id}"[:120],
        waves=("100%",),
        soak_s=policy.soak_s,
        soak_rows=policy.soak_rows,
        deadline_s=policy.deadline_s,
        hold_s=policy.hold_s,
        trial=policy.trial,
        approvals=policy.approvals if policy.on_late_evidence != "start" else 0,
        baseline=policy.baseline,
    )
