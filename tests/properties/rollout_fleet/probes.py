"""Invariants that are judged by asking what would be: the same decision twice, one failure more, a report less, another order.

What is tried is written in a transaction that is never committed.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

from edgefleet.messages import ProjectState
from fleet_server.approving import refuse_unapproved
from fleet_server.errors import ConflictError
from fleet_server.ingest.batch import store_batch
from fleet_server.ingest.inbox import Incoming
from fleet_server.rollout import Action, ActionKind, RolloutState, decide
from fleet_server.rollout.silence import due_at
from fleet_server.scheduler.steering import LEASE_US, settle
from fleet_server.store import facts, rollouts
from fleet_server.store.moments import to_micros
from fleet_server.store.rollouts import Stored
from fleet_server.store.tables import ATTESTATION, DEVICE_SEEN, REPORTED, ROLLOUT, ROLLOUT_MEMBER
from tests.properties.rollout_fleet.evidence import failures
from tests.properties.rollout_fleet.invariants import STOPPED
from tests.properties.rollout_fleet.kept import keeps, require
from tests.properties.rollout_fleet.process import WhatIf, what_if
from tests.properties.rollout_fleet.stage import Stage

GOOD: Final = frozenset({ActionKind.PROMOTE, ActionKind.COMPLETE})
JUDGED: Final = frozenset({RolloutState.RUNNING, RolloutState.SOAKING, RolloutState.PAUSED})
_SOON: Final = timedelta(seconds=1)  # a sign of life is looked at within this time


def answer(stage: Stage, db: WhatIf, rollout_id: str) -> tuple[Action | None, Stored]:
    """What the engine would do now."""
    with db.read() as connection:
        stored = rollouts.load(connection, rollout_id)
        assert stored is not None
        return decide(stored.rollout, facts.read(connection, stored.rollout, stage.clock()), stage.clock()), stored


def is_good(action: Action | None) -> bool:
    """Whether it promotes."""
    return action is not None and action.kind in GOOD


@keeps(7, "probe", "fleet_server.rollout.engine:decide", "fleet_server.store.rollouts:save", "fleet_server.scheduler.steering:settle")
def decide_is_pure(stage: Stage, rollout_id: str) -> None:
    """`decide` is pure: same (rollout, facts, now) -> same action; calling it twice, or by two schedulers, changes state once."""
    with what_if(stage.shared) as db:
        first, stored = answer(stage, db, rollout_id)
        again, _ = answer(stage, db, rollout_id)
        require(7, first == again, f"{rollout_id}: {first} and then {again}")
    settled = stage.seen.versions[rollout_id]
    if first is None:
        stage.as_server(lambda server: settle(server.services, rollout_id), number=1)
        require(7, stage.seen.versions[rollout_id] == settled, f"{rollout_id}: a second scheduler changed what was settled")
    with what_if(stage.shared) as db, db.write() as connection:
        # Somebody who read the value before it changed must not replace it.
        late = Stored(stored.rollout, stored.version - 1, stored.selection, stored.policy_digest)
        require(7, not rollouts.save(connection, late, stored.rollout, None), f"{rollout_id}: a stale value was saved")


@keeps(8, "probe", "fleet_server.scheduler.steering:settle", "fleet_server.rollout.outlook:next_due")
def judge_tick(stage: Stage, rollout_id: str, actions: int) -> None:
    """`decide` reaches a fixed point: at most 5 x (number of waves + 1) actions for fixed facts and now."""
    one = stage.seen.rollouts.get(rollout_id)
    if one is None or stage.seen.halted:
        return  # while the fleet is halted nothing is decided at all
    require(8, actions <= 5 * (one.wave_count + 1), f"{rollout_id}: {actions} actions for {one.wave_count} waves")
    # Who was just asked may have been the last one that the gates waited for: then the scheduler comes back at once.
    due = stage.eye.value("SELECT due_at FROM rollout WHERE rollout_id = ?", rollout_id)
    comes_back = due is not None and due <= to_micros(stage.clock())
    with what_if(stage.shared) as db:
        action, _ = answer(stage, db, rollout_id)
        require(8, action is None or comes_back, f"{rollout_id}: settled, and still wants {action} (next look: {due})")
    backward = one.changed_at is not None and stage.clock() < one.changed_at
    if one.course is None and one.state in (RolloutState.RUNNING, RolloutState.SOAKING, RolloutState.PAUSED) and not backward:
        failed = failures(stage.seen, one)
        limit = one.policy.max_explicit_failures_before_abort
        require(14, len(failed) <= limit, f"{rollout_id}: {failed} failed, {limit} may, and it is {one.state.value} after the tick")


def nothing_is_overdue(stage: Stage) -> None:
    """After the schedulers looked at what is due, no rollout that nobody works on has something to do."""
    for rollout_id in [] if stage.seen.halted else stage.live():
        leased = stage.eye.value("SELECT lease_until FROM rollout WHERE rollout_id = ?", rollout_id)
        due = stage.eye.value("SELECT due_at FROM rollout WHERE rollout_id = ?", rollout_id)
        if leased is not None and to_micros(stage.clock()) < leased <= to_micros(stage.clock()) + LEASE_US:
            continue
        with what_if(stage.shared) as db:
            action, _ = answer(stage, db, rollout_id)
        soon = due is not None and due <= to_micros(stage.clock() + _SOON)
        require(8, action is None or soon, f"{rollout_id}: {action} is due and nobody will look (next look: {due})")


@keeps(9, "probe", "fleet_server.rollout.gates:evaluate", "fleet_server.rollout.judgement:judge")
def a_failure_is_never_good_news(stage: Stage, rollout_id: str, device_id: str) -> None:
    """Adding a failure to the facts never turns HOLD/PAUSE/ABORT into PROMOTE (monotone)."""
    one, device = stage.seen.rollouts[rollout_id], stage.devices[device_id]
    report = device.report(
        ProjectState(
            bundle_digest=device.running, model_digest="", state="quarantined", reason="it failed", subject_digest=one.bundle_digest
        ),
        quarantined=[one.bundle_digest],
    )
    _never_better(9, stage, rollout_id, lambda db: _store(stage, db, [report]))


@keeps(
    10, "probe", "fleet_server.rollout.evidence:progress", "fleet_server.rollout.silence:Silence", "fleet_server.rollout.hearing:Hearing"
)
def silence_is_never_good_news(stage: Stage, rollout_id: str, device_id: str, what: str) -> None:
    """Removing or delaying reports never turns anything into PROMOTE (silence is never good news)."""
    member = (ROLLOUT_MEMBER.c.rollout_id == rollout_id, ROLLOUT_MEMBER.c.device_id == device_id)
    removals: dict[str, sa.Update | sa.Delete] = {
        "report": sa.delete(REPORTED).where(REPORTED.c.device_id == device_id),
        "attestation": sa.delete(ATTESTATION).where(ATTESTATION.c.device_id == device_id),
        "life": sa.update(DEVICE_SEEN).where(DEVICE_SEEN.c.device_id == device_id).values(seen_at=0),
        "rows": sa.update(ROLLOUT_MEMBER).where(*member).values(rows=0),
        "commit": sa.update(ROLLOUT_MEMBER).where(*member).values(committed_at=None, attested_at=None, rows=0),
    }
    _never_better(10, stage, rollout_id, lambda db: _execute(db, removals[what]))


@keeps(11, "probe", "fleet_server.ingest.reported:store", "fleet_server.ingest.telemetry:store", "fleet_server.ingest.batch:store_batch")
def the_order_of_reports_does_not_matter(stage: Stage, messages: Sequence[Incoming], mixed: Sequence[Incoming]) -> None:
    """Duplicated, reordered, delayed reports give the same final state as in-order single ones.

    A report is a level: the device repeats its present one, so that comes last in both orders.
    """
    present = [device.reported() for device in stage.devices.values()]
    outcomes = []
    for row in (messages, mixed):
        with what_if(stage.shared) as db:
            for piece in (row[: len(row) // 2], row[len(row) // 2 :], present):
                _store(stage, db, piece)
            outcomes.append((_final(db), [answer(stage, db, rollout_id)[0] for rollout_id in stage.live()]))
    require(11, outcomes[0] == outcomes[1], f"in order {outcomes[0]}, mixed {outcomes[1]}")


@keeps(15, "probe", "fleet_server.scheduler.steering:settle", "fleet_server.store.facts:read", "fleet_server.rollout.steps:undecidable")
def what_cannot_be_read_pauses(stage: Stage, rollout_id: str, damage: str, *values: Any) -> None:
    """Any exception, NaN, missing gate result, unknown field in a decision leads to PAUSED with the reason; never to PROMOTE or a loop."""
    before = stage.seen.rollouts[rollout_id]
    promoted, waves = len(before.promoted_at), before.wave
    stage.damage(damage, *values)
    actions = [stage.as_server(lambda server: settle(server.services, rollout_id)) for _ in range(3)]
    after = stage.seen.rollouts[rollout_id]
    require(15, (len(after.promoted_at), after.wave) == (promoted, waves), f"{rollout_id} went on over damaged facts: {after.last_reason}")
    early = before.changed_at is not None and stage.clock() < before.changed_at
    # While the fleet is halted nothing is decided, and nobody is asked.
    if before.state in (RolloutState.RUNNING, RolloutState.SOAKING) and waves and not early and not stage.seen.halted:
        stopped = after.state in (*STOPPED, RolloutState.PAUSED)
        require(15, stopped and "Pause" in after.last_reason, f"{rollout_id} is {after.state.value}: {after.last_reason}")
    require(15, actions[1:] == [0, 0], f"{rollout_id}: {actions} actions, again and again")


def an_edited_plan_is_not_approved(stage: Stage, rollout_id: str) -> None:
    """Part of 19: whoever changes the selection of an approved plan has no approval any more."""
    if not stage.seen.rollouts[rollout_id].policy.approvals:
        return
    with what_if(stage.shared) as db, db.write() as connection:
        edited = sa.update(ROLLOUT).where(ROLLOUT.c.rollout_id == rollout_id).values(selection='{"site": "elsewhere"}')
        connection.execute(edited)
        stored = rollouts.load(connection, rollout_id)
        assert stored is not None
        try:
            refuse_unapproved(connection, stored)
        except ConflictError:
            return
        require(19, False, f"{rollout_id}: the plan was edited, and its approvals still count")


@keeps(26, "probe", "fleet_server.rollout.silence:due_at", "fleet_server.rollout.groups:look")
def a_shared_outage_is_no_silence(heard_s: int, controls_s: Sequence[int], outage_s: tuple[int, int]) -> None:
    """Silence clocks wait for the controls of the same site: an outage shifted in brings no deadline forward and makes nobody silent.

    Nobody: no device that is first heard when its controls are. A sign of life within the outage comes at its end instead.
    """
    began = datetime(2026, 3, 1, tzinfo=UTC)
    start, end = outage_s[0], outage_s[0] + outage_s[1]

    def shifted(at_s: int) -> int:
        return end if start <= at_s < end else at_s

    def due(times: Sequence[int]) -> datetime | None:
        controls = [began + timedelta(seconds=one) for one in times]
        return due_at(began, timedelta(hours=2), timedelta(hours=1), controls)

    without, outage = due(controls_s), due([shifted(one) for one in controls_s])
    require(26, without is not None and outage is not None and outage >= without, f"due at {without}, with an outage at {outage}")
    shares = sum(start <= one < end for one in (*controls_s, heard_s)) == len(controls_s) + 1
    if shares and outage is not None:
        heard = began + timedelta(seconds=shifted(heard_s))
        require(26, heard <= outage, f"heard at {heard} with all its controls, due at {outage}: silent")


def held_mail_is_no_life_of_now(stage: Stage, held: Sequence[Incoming], left_at: int) -> None:
    """Mail that the broker held while no server was there proves life of the moment before the absence, and ends no soak after it."""
    before = _lives(stage)
    stage.receive([replace(message, sent_after=left_at) for message in held])
    for who, moment in _lives(stage).items():
        latest = max(before.get(who) or 0, left_at)
        require(10, moment is None or moment <= latest, f"{who} lived at {moment}, the server had left at {left_at}")


def _lives(stage: Stage) -> dict[str, int | None]:
    """When devices were last alive, and were first heard after their soak."""
    member = ROLLOUT_MEMBER.c
    with stage.shared.read() as connection:
        found = {row.device_id: row.seen_at for row in connection.execute(sa.select(DEVICE_SEEN.c.device_id, DEVICE_SEEN.c.seen_at))}
        soaked = connection.execute(sa.select(member.device_id, member.rollout_id, member.heard_at))
        return found | {f"{row.device_id} in {row.rollout_id}": row.heard_at for row in soaked}


def _never_better(number: int, stage: Stage, rollout_id: str, change: Callable[[WhatIf], None]) -> None:
    with what_if(stage.shared) as db:
        before, _ = answer(stage, db, rollout_id)
        change(db)
        after, _ = answer(stage, db, rollout_id)
        require(number, is_good(before) or not is_good(after), f"{rollout_id}: {before} became {after}")


def _store(stage: Stage, db: WhatIf, messages: Sequence[Incoming]) -> None:
    store_batch(db, messages, to_micros(stage.clock()))


def _execute(db: WhatIf, statement: sa.Update | sa.Delete) -> None:
    with db.write() as connection:
        connection.execute(statement)


def _final(db: WhatIf) -> list[Any]:
    """What reports leave behind."""
    reported = [c for c in REPORTED.c if c.name not in ("state_at", "reported_at")]
    queries = (
        sa.select(ROLLOUT_MEMBER).order_by(ROLLOUT_MEMBER.c.rollout_id, ROLLOUT_MEMBER.c.device_id),
        sa.select(*reported).order_by(REPORTED.c.device_id),
        sa.select(ATTESTATION.c.device_id, ATTESTATION.c.bundle_digest).order_by(ATTESTATION.c.device_id),
    )
    with db.read() as connection:
        return [[tuple(row) for row in connection.execute(query)] for query in queries]
