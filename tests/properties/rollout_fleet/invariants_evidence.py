"""Invariants of rollouts by evidence, and of approvals: hold-back, pace, rate, budget, windows, sums, the numbers of the rule."""

import hashlib
from collections import Counter
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from fleet_server.rollout import ActionKind, Rollout, RolloutState, decide
from fleet_server.rollout.course import Course
from fleet_server.store import facts
from fleet_server.store.moments import to_micros
from tests.properties.rollout_fleet.evidence import open_members
from tests.properties.rollout_fleet.evidence_rule import evidence_against, promotes
from tests.properties.rollout_fleet.invariants import added_entries, changed, forward
from tests.properties.rollout_fleet.kept import COMMIT_CHECKS, keeps, require
from tests.properties.rollout_fleet.process import what_if
from tests.properties.rollout_fleet.seen import MemberRow, Seen
from tests.properties.rollout_fleet.stage import Stage


@keeps(2, "commit", "fleet_server.store.evidence_members:unasked", "fleet_server.rollout.membership:Membership")
def controls_get_nothing_while_it_is_open(stage: Stage, before: Seen, now: Seen) -> None:
    """A hold-back device never gets the new digest while the rollout is open."""
    for device_id, (one, rollout) in forward(before, now).items():
        row = now.members.get((one.rollout_id, device_id))
        held = row is not None and row.wave == 0
        require(2, not held, f"{device_id} is held back and was asked while the rollout is {rollout.state.value}")


@keeps(
    16, "commit", "fleet_server.rollout.pacing:begin", "fleet_server.rollout.course:Course.left", "fleet_server.scheduler.parking:set_aside"
)
def no_faster_than_pace_rate_and_budget(stage: Stage, before: Seen, now: Seen) -> None:
    """The number of devices in activation at any time <= disruption budget, and started per window <= rate. Who was asked, was not heard
    since, and whose document asks no longer holds no place of his site."""
    asked = forward(before, now)
    for rollout in {one.rollout_id: rollout for one, rollout in asked.values()}.values():
        if rollout.course is None:
            continue
        rows = now.members_of(rollout.rollout_id)
        count = sum(row.counter is not None for row in rows.values())
        allowed = _allowed(rollout, rollout.course, stage.clock())
        require(16, count <= allowed, f"{rollout.rollout_id}: {count} devices were asked, {allowed} may")
        budget = rollout.policy.site_budget
        for site in {now.members[rollout.rollout_id, d].site for d, (_, r) in asked.items() if r.rollout_id == rollout.rollout_id}:
            busy = sum(row.site == site and _in_activation(now, key, row) for key, row in now.members.items())
            require(16, budget is None or busy <= budget, f"{busy} devices of {site} are in activation, {budget} may")


@keeps(17, "commit", "fleet_server.rollout.pacing:begin", "fleet_server.rollout.pacing:local_time")
def nobody_begins_outside_its_window(stage: Stage, before: Seen, now: Seen) -> None:
    """No device starts outside its window (device-local time); an unknown time zone means "outside"."""
    for device_id, (_, rollout) in forward(before, now).items():
        windows = rollout.policy.windows
        if not windows or rollout.policy.emergency:
            continue
        try:
            local = stage.clock().astimezone(ZoneInfo(now.zones[device_id]))
        except (KeyError, ZoneInfoNotFoundError):
            require(17, False, f"{device_id} was asked, and nobody knows its time")
            continue
        minute = f"{local:%H:%M}"
        inside = any(window.start <= minute < window.end for window in windows)
        require(17, inside, f"{device_id} was asked at {minute} of its own time, the window is {windows}")


def the_sums_are_those_of_the_rows(stage: Stage, before: Seen, now: Seen) -> None:
    """Part of 13: what is kept by increments is what the rows say."""
    if now.sums is before.sums and now.members is before.members:
        return
    for rollout_id, one in now.rollouts.items():
        if one.course is None:
            continue
        counted: dict[int, list[int]] = {}
        for row in now.members_of(rollout_id).values():
            parts = counted.setdefault(row.wave, [0, 0, 0, 0])
            for place, holds in enumerate((True, row.counter is not None, row.began_at is not None, row.failed_at is not None)):
                parts[place] += holds
        kept = {wave: list(parts) for (r, wave), parts in now.sums.items() if r == rollout_id and any(parts)}
        require(13, kept == counted, f"{rollout_id}: members, asked, begun, failed by wave are {counted}, kept as {kept}")
        silent, exposed = now.silence.get(rollout_id, (0, 0))
        require(13, 0 <= silent <= exposed, f"{rollout_id}: {silent} of {exposed} devices silent")
        was = before.silence.get(rollout_id, (0, 0))
        require(13, exposed >= was[1], f"{rollout_id}: {was[1]} devices were exposed, and now {exposed}")


def membership_is_the_plan(stage: Stage, before: Seen, now: Seen) -> None:
    """Part of 4: wave and place of each member follow from thresholds and the salted hash."""
    if now.members is before.members:
        return
    for rollout_id, plan in now.memberships.items():
        grown = any(entry.subject == rollout_id and entry.action == "extend" for entry in now.entries)
        # Where somebody left, the next in the order move up.
        grown = grown or any(entry.action in ("remove", "relabel") for entry in now.entries)
        for device_id, row in now.members_of(rollout_id).items():
            place = int.from_bytes(hashlib.sha256(f"{plan.salt}|{device_id}".encode()).digest()[:8], "big") >> 1
            require(4, place == row.place, f"{device_id}: place {row.place} is not that of salt and id, {place}")
            wave = plan.wave_of(device_id, row.stratum, row.site)
            fits = row.wave == wave or (grown and 1 <= row.wave < wave)
            require(4, fits, f"{device_id} is in wave {row.wave}, the plan says {wave}")


def a_promotion_has_its_numbers(stage: Stage, before: Seen, now: Seen) -> None:
    """Parts of 5, 12 and 28: the numbers of the rule, from the rows, and the same answer when the stored facts are judged again."""
    for old, new in changed(before, now):
        completed = new.state is RolloutState.COMPLETED and old.state is not RolloutState.COMPLETED
        if old.course is None or not (completed or len(new.promoted_at) > len(old.promoted_at)):
            continue
        at, rows = stage.clock(), now.members_of(new.rollout_id)
        members = open_members(now, old)
        begun = [rows[d] for d in members if rows[d].began_at is not None]
        failed = sum(row.failed_at is not None for row in begun)
        require(12, bool(begun), f"wave {old.wave} was promoted, and nobody has begun")
        unasked = [d for d in members if rows[d].counter is None]
        require(5, not unasked, f"wave {old.wave} was promoted before {unasked} were asked")
        open_s = (at - old.opened_at[-1]).total_seconds()
        require(5, open_s >= old.course.dwell_s[old.wave - 1], f"wave {old.wave} was promoted after {open_s} s")
        due = sum(row.began_at + int(old.policy.deadline_s * 1e6) <= to_micros(at) for row in begun if row.began_at is not None)
        require(5, 2 * due >= len(members), f"wave {old.wave} was promoted when {due} of {len(members)} had had their time")
        # As if everybody who began had had his time: no rule may promote what it would not promote then.
        # What a person accepted by resuming is hers; devices that an earlier rollout harmed say nothing about the others.
        held_against_it = max(failed - old.course.accepted.failures, 0)
        fix = stage.eye.value("SELECT count(*) FROM rollout_link WHERE rollout_id = ?", new.rollout_id)
        enough = bool(fix) or promotes(held_against_it, len(begun), old.course.rule)
        require(5, enough, f"wave {old.wave} was promoted on {failed} failures of {len(begun)}")
        require(5, _again(stage, old, at) is (ActionKind.COMPLETE if completed else ActionKind.PROMOTE), "judged again it is not promoted")
        if completed:
            require(28, new.all_promoted, f"{new.rollout_id} is completed after {len(new.promoted_at)} promotions")
            left_out = [d for d, row in rows.items() if row.wave > 0 and row.counter is None and row.left_at is None]
            require(28, not left_out, f"{new.rollout_id} is completed and {left_out} were never asked")


def evidence_ends_it(stage: Stage, rollout_id: str) -> None:
    """Part of 14, after a tick: what the evidence aborts is aborted; while the fleet is halted nothing is decided at all."""
    one = stage.seen.rollouts.get(rollout_id)
    if stage.seen.halted or one is None or one.course is None or one.wave == 0:
        return
    if one.changed_at is not None and stage.clock() < one.changed_at:
        return
    if one.state in (RolloutState.RUNNING, RolloutState.SOAKING, RolloutState.PAUSED):
        evidence, limit = evidence_against(stage.seen, one, one.course.rule), one.course.rule.abort_at
        require(14, evidence < limit, f"{rollout_id}: evidence {evidence:.4g} of {limit:g}, and it is {one.state.value}")


def an_abort_has_its_numbers(stage: Stage, before: Seen, now: Seen) -> None:
    """Part of 14: the engine aborts on evidence only; silence alone reaches at most a pause in a small fleet."""
    aborted = {entry.subject for entry in added_entries(before, now) if (entry.actor, entry.action) == ("engine", "abort")}
    for rollout_id in aborted:
        one = now.rollouts[rollout_id]
        if one.course is not None:
            failed = sum(row.failed_at is not None for row in now.members_of(rollout_id).values())
            silent, _ = now.silence.get(rollout_id, (0, 0))
            require(14, failed + silent > 0, f"{rollout_id} was aborted, and nobody failed or fell silent")


@keeps(19, "commit", "fleet_server.approving:refuse_unapproved", "fleet_server.rollout.approval:standing")
def approved_by_others_for_this_plan(stage: Stage, before: Seen, now: Seen) -> None:
    """Approval is valid for exactly one plan digest; editing anything clears it; approver != creator; no promoting oneself meanwhile."""
    for old, new in changed(before, now):
        started = old.state in (RolloutState.DRAFT, RolloutState.APPROVED) and new.state is RolloutState.RUNNING
        if started and new.policy.approvals:
            given = Counter(digest for r, who, digest in now.approvals if r == new.rollout_id and who != new.created_by)
            most = max(given.values(), default=0)
            require(
                19, most >= new.policy.approvals, f"{new.rollout_id} started with {most} of {new.policy.approvals} approvals of one plan"
            )
    for rollout_id, who, _ in now.approvals - before.approvals:
        require(19, who != now.rollouts[rollout_id].created_by, f"{who} approved his own plan {rollout_id}")
        require(19, who in stage.may_approve, f"{who} approved and may not")


def _again(stage: Stage, rollout: Rollout, at: datetime) -> ActionKind | None:
    with what_if(stage.shared) as db, db.read() as connection:
        action = decide(rollout, facts.read(connection, rollout, at), at)
    return None if action is None else action.kind


def _allowed(rollout: Rollout, course: Course, at: datetime) -> int:
    """Devices that may have been asked by now: never more new ones than were exposed before the batch, and no more than the rate."""
    size = course.sizes[rollout.wave - 1]
    if course.stage_at is None:
        return 0
    open_s = (at - course.stage_at).total_seconds()
    doubled = course.pace.first if course.exposed_before == 0 else 2 * course.exposed_before
    allowed = min(size, doubled << min(int(open_s // course.pace.every_s), 20))
    if course.rate is not None and course.rate.kind == "constant":
        per_s = course.rate.per_hour / timedelta(hours=1).total_seconds()
        allowed = min(allowed, course.exposed_before + 1 + int(per_s * open_s + 1e-6))
    return allowed


def _in_activation(now: Seen, key: tuple[str, str], row: MemberRow) -> bool:
    if not row.active or row.counter is None or row.committed_at is not None or row.failed_at is not None:
        return False
    rollout_id, device_id = key
    has, rollout = now.assigned.get(device_id), now.rollouts.get(rollout_id)
    # A rollout that cannot be read asks for what it asked for.
    asks = has is not None and (rollout is None or has.release_id == rollout.release_id)
    return row.parked_at is None or asks


COMMIT_CHECKS.extend([the_sums_are_those_of_the_rows, membership_is_the_plan, a_promotion_has_its_numbers, an_abort_has_its_numbers])
