"""How often devices may be changed: those that must wait are asked later."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import sqlalchemy as sa

from fleet_server.rollout import Policy, Rollout
from fleet_server.rollout.flipflop import DAY, WEEK, Answer, may_change
from fleet_server.store import activations, assignments, floors, stays
from fleet_server.store.moments import to_micros
from fleet_server.store.tables import EVENT


def held_up(connection: sa.Connection, rollout: Rollout, device_ids: Sequence[str], now: datetime) -> dict[str, Answer]:
    """Devices that must not get the rollout's release now, with why; empty for nearly all rollouts."""
    if rollout.release_counter < (floor := floors.counter_of(connection, rollout.project)):
        return dict.fromkeys(
            device_ids, Answer("wait", f"the release floor is {floor}, this release has counter {rollout.release_counter}")
        )
    history = activations.of_devices(connection, rollout.project, device_ids, to_micros(now - WEEK))
    assigned = assignments.current(connection, rollout.project, sorted(history))
    policy = rollout.policy
    # The device would refuse it; it is not asked, also when its word came after the plan was made.
    refusing = stays.refusing(connection, rollout.bundle_digest, device_ids)
    found = {device_id: Answer("wait", "this bundle failed on the device before") for device_id in refusing}
    gap = gap_of(policy, rollout.course is not None)
    for device_id, changes in history.items():
        has = assigned.get(device_id, ("", ""))[0]
        if has == rollout.release_id:
            continue
        answer = may_change(changes, has, rollout.release_id, now, emergency=policy.emergency, gap=gap)
        if answer.word != "begin" and device_id not in found:
            found[device_id] = answer
    to_and_fro = any(answer.word == "flip-flop" for answer in found.values())
    if to_and_fro and _resumed_over(connection, rollout.rollout_id):
        return {device_id: answer for device_id, answer in found.items() if answer.word != "flip-flop"}
    return found


def waiting_at_first(
    connection: sa.Connection, project: str, release_id: str, policy: Policy, device_ids: Sequence[str], now: datetime
) -> dict[str, Answer]:
    """Of the devices of a plan, those that its rollout could not ask now because they were changed lately, with why.

    Who has the release already waits for nothing.
    """
    history = activations.of_devices(connection, project, device_ids, to_micros(now - WEEK))
    assigned = assignments.current(connection, project, sorted(history))
    gap = gap_of(policy, policy.evidence != "unanimous")
    has = {device_id: assigned.get(device_id, ("", ""))[0] for device_id in history}
    answers = {
        device_id: may_change(changes, has[device_id], release_id, now, emergency=policy.emergency, gap=gap)
        for device_id, changes in history.items()
        if has[device_id] != release_id
    }
    return {device_id: answer for device_id, answer in answers.items() if answer.word != "begin"}


def gap_of(policy: Policy, by_evidence: bool) -> timedelta:
    """Time in which a device is changed once: a day, unless the policy says otherwise or names every device."""
    if policy.activation_gap_s is not None:
        return timedelta(seconds=policy.activation_gap_s)
    return DAY if by_evidence else timedelta(0)


def _resumed_over(connection: sa.Connection, rollout_id: str) -> bool:
    """Whether a person has seen that devices go to and fro, and let the rollout go on all the same."""
    mine = (EVENT.c.subject_kind == "rollout", EVENT.c.subject == rollout_id)
    seen = sa.select(sa.func.min(EVENT.c.seq)).where(*mine, EVENT.c.action == "pause", EVENT.c.detail.contains("flip-flop"))
    paused = connection.scalar(seen)
    if paused is None:
        return False
    resumed = sa.select(EVENT.c.seq).where(*mine, EVENT.c.action == "resume", EVENT.c.seq > paused)
    return connection.execute(resumed.limit(1)).first() is not None
