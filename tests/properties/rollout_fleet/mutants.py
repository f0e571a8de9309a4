"""Faults that are put into the product on purpose, each with a short story in which an invariant must notice it."""

import contextlib
import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final
from unittest import mock

import sqlalchemy as sa

from fleet_server import approving
from fleet_server.ingest import batch, telemetry
from fleet_server.rollout import Action, ActionKind, Rollout, RolloutState, approval, cohorts, course, engine, evidence, pacing, silence
from fleet_server.rollout.conflicts import Resolution
from fleet_server.rollout.findings import NOBODY
from fleet_server.rollout.gates import Exposure, GateResult
from fleet_server.rollout.pacing import Pace
from fleet_server.rollout.rollback_targets import Target
from fleet_server.scheduler import assigning, by_evidence, claiming, steering
from fleet_server.store import assignments, evidence_members, floors, members, outbox, rollouts, stays, upsert
from fleet_server.store.tables import ROLLOUT_MEMBER
from tests.properties.rollout_fleet import probes, stories
from tests.properties.rollout_fleet.machine import FleetMachine

# The package has a function of that name.
gates: Final[Any] = importlib.import_module("fleet_server.rollout.gates")
Faults = Callable[[FleetMachine], contextlib.AbstractContextManager[Any]]


@dataclass(frozen=True)
class Mutant:
    """A fault.

    Attributes:
        fault: Puts it in, for as long as the context lasts.
        story: Steps of the machine after `begin` in which it shows.
        caught_by: Numbers of the invariants that may notice it first.
        start: Policy, devices and good hours before the story; the fault is not in yet.
    """

    fault: Faults
    story: Callable[[FleetMachine], None]
    caught_by: frozenset[int]
    start: tuple[str, int, int] = ("unanimous", 6, 0)


def _patch(target: Any, name: str, value: Any) -> Faults:
    return lambda _machine: mock.patch.object(target, name, value)


def _off_by_one_wave(_machine: FleetMachine) -> contextlib.AbstractContextManager[Any]:
    wrong = property(lambda self: tuple(d for wave in self.waves[: self.wave + 1] for d in wave))
    return mock.patch.object(Rollout, "members", wrong)


def _evidence_of(words: frozenset[str]) -> Faults:
    """Devices with these words only are the denominator."""
    right: Callable[[Exposure], GateResult] = gates._unanimous

    def wrong(exposure: Exposure) -> GateResult:
        left = {d: said for d, said in exposure.members.items() if said[0] in words}
        return right(replace(exposure, members=left, added=tuple(d for d in exposure.added if d in left) or tuple(left)))

    return _patch(gates, "_unanimous", wrong)


def _nobody_is_enough(_machine: FleetMachine) -> contextlib.AbstractContextManager[Any]:
    right: Callable[[Exposure], GateResult] = gates._unanimous

    def wrong(exposure: Exposure) -> GateResult:
        found = right(exposure)
        return replace(found, verdict="promote") if not exposure.of("ok", "pending", "failed") else found

    return mock.patch.object(gates, "_unanimous", wrong)


def _word(before: str, after: str) -> Faults:
    right = evidence.progress

    def wrong(*arguments: Any) -> tuple[Any, str]:
        word, why = right(*arguments)
        return (after if word == before else word), why

    return _patch(engine, "progress", wrong)


def _no_dwell(_machine: FleetMachine) -> contextlib.AbstractContextManager[Any]:
    right = gates._dwell
    return mock.patch.object(gates, "_dwell", lambda exposure, now: replace(right(exposure, now), verdict="promote"))


def _abort_forgotten(_machine: FleetMachine) -> contextlib.AbstractContextManager[Any]:
    right = rollouts._stored

    def wrong(row: Any) -> rollouts.Stored:
        found = right(row)
        forgotten = found.rollout.state is RolloutState.ABORTED
        return replace(found, rollout=replace(found.rollout, state=RolloutState.RUNNING)) if forgotten else found

    return mock.patch.object(rollouts, "_stored", wrong)


def _publish_first(machine: FleetMachine) -> contextlib.AbstractContextManager[Any]:
    right = outbox.put

    def wrong(connection: Any, topic: str, payload: bytes, at: int) -> None:
        machine.stage.broker.take(topic, payload)
        right(connection, topic, payload, at)

    return mock.patch.object(outbox, "put", wrong)


def _wrong_target(machine: FleetMachine) -> contextlib.AbstractContextManager[Any]:
    other = Target("completed", machine.stage.template.release_ids[3], "somewhere else")
    return mock.patch.object(assigning, "target_of", return_value=other)


def _same_counter(_machine: FleetMachine) -> contextlib.AbstractContextManager[Any]:
    right = assignments._next_counter

    def wrong(connection: Any, device_id: str) -> int:
        return max(right(connection, device_id) - 1, 1)

    return mock.patch.object(assignments, "_next_counter", wrong)


def _no_fence(_machine: FleetMachine) -> contextlib.AbstractContextManager[Any]:
    right = rollouts.save

    def wrong(connection: Any, before: rollouts.Stored, *rest: Any) -> bool:
        now = rollouts.load(connection, before.rollout.rollout_id)
        return right(connection, replace(before, version=before.version if now is None else now.version), *rest)

    return mock.patch.object(rollouts, "save", wrong)


def _seen_anew(_machine: FleetMachine) -> contextlib.AbstractContextManager[Any]:
    def wrong(connection: Any, member: members.Member, column: str, at: int, **values: str) -> bool:
        where = members._key(member.rollout_id, member.device_id)
        connection.execute(sa.update(ROLLOUT_MEMBER).where(*where).values(**{column: at}, **values))
        return True

    return mock.patch.object(members, "_note_once", wrong)


def _every_second_time(_machine: FleetMachine) -> contextlib.AbstractContextManager[Any]:
    calls = iter(range(10_000))

    def wrong(*arguments: Any) -> Any:
        return engine.decide(*arguments) if next(calls) % 2 else None

    return mock.patch.object(probes, "decide", wrong)


def _without_its_clock(rollout: Rollout, *rest: Any) -> Any:
    return engine.decide(replace(rollout, changed_at=None), *rest)


def _any_clock(_machine: FleetMachine) -> contextlib.AbstractContextManager[Any]:
    return mock.patch.object(steering, "decide", _without_its_clock)


def _controls_asked(_machine: FleetMachine) -> contextlib.AbstractContextManager[Any]:
    right = evidence_members.unasked

    def wrong(connection: Any, rollout: Rollout, limit: int) -> Any:
        held = sa.select(ROLLOUT_MEMBER.c.device_id).where(ROLLOUT_MEMBER.c.rollout_id == rollout.rollout_id, ROLLOUT_MEMBER.c.wave == 0)
        return [evidence_members.Unasked(d, "") for d in connection.scalars(held)] + right(connection, rollout, limit)

    return mock.patch.object(evidence_members, "unasked", wrong)


def _counted_twice(_machine: FleetMachine) -> contextlib.AbstractContextManager[Any]:
    right = upsert.insert_new

    def wrong(connection: Any, table: Any, rows: Any, columns: Any) -> set[tuple[Any, ...]]:
        right(connection, table, rows, columns)
        return {tuple(row[name] for name in columns) for row in rows}

    return mock.patch.object(telemetry, "insert_new", wrong)


@contextlib.contextmanager
def _no_window(_machine: FleetMachine) -> Iterator[None]:
    right = pacing.begin
    with mock.patch.object(by_evidence, "begin", lambda ready, **said: right(ready, **(said | {"windows": ()}))):
        yield


def _enough_approvals(_machine: FleetMachine) -> contextlib.AbstractContextManager[Any]:
    right = approval.standing
    return mock.patch.object(approving, "standing", lambda *said: replace(right(*said), missing=""))


def _rows_need_no_counting(_machine: FleetMachine) -> contextlib.AbstractContextManager[Any]:
    right = evidence.progress

    def wrong(device: evidence.DeviceFacts, *rest: Any) -> tuple[Any, str]:
        word, why = right(device, *rest)
        return ("ok" if word == "pending" and device.rows_since_commit == 0 else word), why

    return mock.patch.object(engine, "progress", wrong)


def _a_wave_is_lost(_machine: FleetMachine) -> contextlib.AbstractContextManager[Any]:
    def wrong(rollout: Rollout, action: Action, now: datetime) -> Rollout:
        after = engine.apply(rollout, action, now)
        return replace(after, wave=after.wave - 1) if action.kind is ActionKind.PROMOTE else after

    return mock.patch.object(steering, "apply", wrong)


def _removed_are_left_out(_machine: FleetMachine) -> contextlib.AbstractContextManager[Any]:
    """The denominator shrinks by whoever is removed."""

    def wrong(exposure: Exposure, *rest: Any) -> tuple[GateResult, ...]:
        left = {device_id: said for device_id, said in exposure.members.items() if device_id not in exposure.removed}
        found: tuple[GateResult, ...] = gates.evaluate(replace(exposure, members=left, removed=frozenset()), *rest)
        return found

    return mock.patch.object(engine, "evaluate", wrong)


@contextlib.contextmanager
def _everybody_is_free(machine: FleetMachine) -> Iterator[None]:
    # Without the unique index: it would refuse the rows, which is what it is for.
    machine.stage.eye.execute("DROP INDEX uq_rollout_member_one_active")
    with mock.patch.object(claiming, "resolve", return_value=Resolution("free")):
        yield


MUTANTS: Final[dict[str, Mutant]] = {
    "a promoted wave is closed again": Mutant(_a_wave_is_lost, stories.hours(4), frozenset({3})),
    "one promotion is enough": Mutant(
        _patch(Rollout, "all_promoted", property(lambda self: bool(self.promoted_at))), stories.hours(5), frozenset({28})
    ),
    "a device without rows is proven": Mutant(_rows_need_no_counting, stories.rows_are_lost, frozenset({10}), ("unanimous", 6, 3)),
    "what a broker held is life of now": Mutant(
        _patch(batch, "_moment", lambda _message, at: at), stories.held_mail, frozenset({10}), ("posterior", 6, 2)
    ),
    "a deadline does not wait for the controls": Mutant(
        _patch(silence, "deadline_after", lambda earliest, _back_at: earliest), stories.shared_outage, frozenset({26})
    ),
    "a removed device makes the wave smaller": Mutant(
        _removed_are_left_out, stories.one_asleep_is_removed, frozenset({9}), ("unanimous", 6, 4)
    ),
    "two rollouts take one device": Mutant(_everybody_is_free, lambda m: m.a_person_plans(1, "", 0), frozenset({27})),
    "off-by-one wave": Mutant(_off_by_one_wave, stories.hours(2), frozenset({1})),
    "order without the salt": Mutant(
        _patch(cohorts, "rank", lambda _salt, device_id: device_id.encode()), stories.planned_anew, frozenset({4})
    ),
    "resolved devices are the denominator": Mutant(
        _evidence_of(frozenset({"ok", "failed"})), stories.one_asleep, frozenset({5}), ("unanimous", 6, 4)
    ),
    "pending counts as success": Mutant(_word("pending", "ok"), stories.hours(2), frozenset({5, 12})),
    "silence counts as success": Mutant(_word("not-begun", "ok"), stories.asleep, frozenset({5, 12})),
    "an empty wave passes": Mutant(_nobody_is_enough, stories.asleep, frozenset({5, 12})),
    "promoted before the dwell": Mutant(_no_dwell, stories.hours(4), frozenset({5}), ("unanimous-dwell", 6, 0)),
    "a failure counts as success": Mutant(_word("failed", "ok"), stories.one_fails, frozenset({5, 9, 14}), ("unanimous", 6, 1)),
    "abort forgotten after a restart": Mutant(_abort_forgotten, stories.abort, frozenset({6, 14})),
    "an aborted rollout asks who proves itself": Mutant(
        _patch(steering, "ASKING", frozenset(RolloutState)), stories.proves_itself_late, frozenset({6}), ("unanimous-all", 6, 3)
    ),
    "published before it is saved": Mutant(_publish_first, stories.hours(3), frozenset({21}), ("unanimous", 6, 1)),
    "a counter used twice": Mutant(_same_counter, stories.roll_back_soon, frozenset({21, 22}), ("unanimous-all", 6, 4)),
    "back to another release": Mutant(_wrong_target, stories.roll_back_soon, frozenset({23}), ("unanimous-all", 6, 4)),
    "back below the floor": Mutant(
        _patch(floors, "counter_of", lambda *_a: 0), stories.roll_back_above_the_floor, frozenset({23}), ("unanimous-all", 6, 4)
    ),
    "rolled back before anybody is back": Mutant(
        _patch(engine, "is_back", lambda *_a: True), stories.roll_back_soon, frozenset({24}), ("unanimous-all", 6, 4)
    ),
    "saved over what somebody else did": Mutant(_no_fence, lambda m: m.a_scheduler_decides_one(0), frozenset({7})),
    "decides every second time": Mutant(_every_second_time, stories.asleep_and_ask, frozenset({7})),
    "nobody looks again": Mutant(_patch(steering, "next_due", lambda *_a: None), stories.never_due, frozenset({8})),
    "outcomes are overwritten": Mutant(_seen_anew, stories.one_fails, frozenset({13})),
    "records counted twice": Mutant(_counted_twice, stories.mixed, frozenset({11}), ("unanimous", 6, 3)),
    "a decision that fails goes on": Mutant(
        _patch(steering, "_stop", lambda *_a: None), stories.damaged, frozenset({15}), ("posterior", 6, 2)
    ),
    "a change without a record": Mutant(_patch(steering, "note_action", lambda *_a: None), stories.hours(3), frozenset({20})),
    "a clock that was set back decides": Mutant(_any_clock, stories.set_back, frozenset({25}), ("unanimous", 6, 0)),
    "nobody is asked to confirm": Mutant(
        _patch(course, "asks_at", lambda *_a: NOBODY), stories.until_it_is_judged, frozenset({6}), ("posterior-confirmed", 8, 0)
    ),
    "pace does not count": Mutant(_patch(Pace, "allowed", lambda *_a: 99), stories.hours(2), frozenset({16}), ("posterior", 8, 0)),
    "a place is given away while its document asks": Mutant(
        _patch(assignments, "withdraw", lambda *_a, **_k: 0), stories.the_asked_fall_asleep, frozenset({16}), ("bounded", 8, 0)
    ),
    "a bundle that failed there is asked for again": Mutant(
        _patch(stays, "refusing", lambda *_a: set()), stories.asked_again, frozenset({18}), ("posterior", 6, 1)
    ),
    "windows do not count": Mutant(_no_window, stories.hours(2), frozenset({17}), ("bounded", 8, 0)),
    "controls get the release": Mutant(_controls_asked, stories.hours(2), frozenset({2}), ("posterior-held", 8, 0)),
    "one approval is enough where two are asked for": Mutant(_enough_approvals, stories.approved_once, frozenset({19}), ("approved", 6, 0)),
}
