"""Several rollouts at once: the decisions over a database and a scheduler, each by its number; as pure rules: test_several_rollouts.py."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from fleet_server import queries, usecases
from fleet_server.approving import approvals_of, approve_rollout
from fleet_server.auth import Actor
from fleet_server.errors import ConflictError
from fleet_server.halting import halt_fleet, lift_halt
from fleet_server.scheduler.changing import held_up
from fleet_server.store import evidence_members, links, looks, rollouts
from fleet_server.store.tables import ACTIVATION, ASSIGNMENT, DESIRED, ROLLOUT, ROLLOUT_MEMBER
from tests.unit.fleet_server.server_world import OPERATOR, POLICY, MadeBundle, World, make_bundle
from tests.unit.fleet_server.steered import complete, start, tick, wanting

AT_ONCE = ["100%"]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    opened = World.open(tmp_path / "data")
    for number in range(6):
        device = opened.enroll(f"d{number}", tmp_path, site="hall")
        opened.receive(device.presence(), device.heartbeat())
    yield opened
    opened.close()


class Bundles:
    """Releases by number: 1, 2, 3 ..."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world, self.folder = world, folder
        self.made: dict[int, MadeBundle] = {}
        self.releases: dict[int, str] = {}

    def __getitem__(self, number: int) -> MadeBundle:
        if number not in self.made:
            self.made[number] = make_bundle(self.folder / f"b{number}", str(number))
            self.releases[number] = self.world.push(self.made[number], str(number))
        return self.made[number]

    def release(self, number: int) -> str:
        return self.releases[number] if self[number] else ""


@pytest.fixture
def bundles(world: World, tmp_path: Path) -> Bundles:
    return Bundles(world, tmp_path)


def plan(world: World, release_id: str, selection: dict[str, str] | None = None, **changes: Any) -> str:
    policy = POLICY | changes
    view = usecases.create_rollout(world.services, release_id=release_id, policy=policy, selection=selection or {}, actor=OPERATOR)
    return view.rollout_id


def act(world: World, rollout_id: str, action: str) -> None:
    version = queries.rollout(world.services.db, rollout_id, world.clock()).version
    usecases.rollout_action(world.services, rollout_id, action, version=version, reason="", actor=OPERATOR)
    tick(world)


def state(world: World, rollout_id: str) -> str:
    return queries.rollout(world.services.db, rollout_id, world.clock()).state


def install_all(world: World, bundle: MadeBundle) -> None:
    for device_id in sorted(wanting(world, bundle)):
        if world.devices[device_id].running != bundle.digest:
            world.receive(*world.devices[device_id].install(bundle))
    tick(world)


def owned(world: World, rollout_id: str) -> set[str]:
    with world.services.db.read() as connection:
        return rollouts.owned(connection, rollout_id)


def test_decision_01_a_queued_rollout_starts_by_itself_once_its_devices_are_free(world: World, bundles: Bundles) -> None:
    first = start(world, bundles.release(1))
    second = plan(world, bundles.release(2), on_conflict="queue")
    act(world, second, "start")
    assert state(world, second) == "draft"
    assert (len(owned(world, first)), len(owned(world, second))) == (6, 0)
    assert wanting(world, bundles[2]) == set()

    complete(world, first, bundles[1])
    tick(world, 1.0)

    assert state(world, second) == "running"
    assert len(wanting(world, bundles[2])) == 1
    assert len(owned(world, second)) == 6


def test_decision_01_what_waits_for_its_devices_says_for_whose_and_whether_somebody_has_started_it(world: World, bundles: Bundles) -> None:
    first = start(world, bundles.release(1))
    queued, ending = plan(world, bundles.release(2), on_conflict="queue"), plan(world, bundles.release(2), on_conflict="supersede")

    def missing(rollout_id: str) -> str:
        return queries.rollout(world.services.db, rollout_id, world.clock()).missing

    assert missing(queued) == f"A person starts it. Then it is queued behind {first}."
    assert missing(ending) == f"A person starts it. Its start ends {first}."
    act(world, queued, "start")
    assert missing(queued) == f"Started by olga: it is queued behind {first}, and begins by itself once its devices are free."
    act(world, first, "abort")
    tick(world, 1.0)
    assert state(world, queued) == "running"
    assert missing(ending) == f"A person starts it. Its start ends {queued}."


def test_decision_01_a_queued_rollout_that_nobody_started_waits_for_a_person(world: World, bundles: Bundles) -> None:
    first = start(world, bundles.release(1))
    second = plan(world, bundles.release(2), on_conflict="queue")

    complete(world, first, bundles[1])
    tick(world, 1.0)
    assert state(world, second) == "draft"
    act(world, second, "start")

    assert state(world, second) == "running"


def test_decision_01_a_rollout_that_waits_for_its_devices_can_be_discarded(world: World, bundles: Bundles) -> None:
    start(world, bundles.release(1))
    second = plan(world, bundles.release(2), on_conflict="queue")

    offered = queries.rollout(world.services.db, second, world.clock()).actions
    assert {one.name: one.refused for one in offered}["abort"] == ""
    act(world, second, "abort")

    assert state(world, second) == "discarded"


def test_decision_01_a_queued_rollout_waits_for_whoever_took_its_devices_meanwhile(world: World, bundles: Bundles) -> None:
    first = start(world, bundles.release(1))
    second = plan(world, bundles.release(2), on_conflict="queue")
    act(world, second, "start")
    # The first one ends, and another is created before the scheduler has looked at the queue.
    version = queries.rollout(world.services.db, first, world.clock()).version
    usecases.rollout_action(world.services, first, "abort", version=version, reason="", actor=OPERATOR)
    third = plan(world, bundles.release(3))
    tick(world)
    assert (state(world, second), len(owned(world, third))) == ("draft", 6)

    act(world, third, "abort")
    tick(world)

    assert state(world, second) == "running"
    assert len(owned(world, second)) == 6


def test_decision_01_two_rollouts_that_want_one_device_leave_one_row_that_owns_it(world: World, bundles: Bundles) -> None:
    start(world, bundles.release(1))
    plan(world, bundles.release(2), on_conflict="queue")
    plan(world, bundles.release(3), on_conflict="supersede")

    with world.services.db.read() as connection:
        active = sa.select(ROLLOUT_MEMBER.c.device_id).where(ROLLOUT_MEMBER.c.active == sa.true())
        assert sorted(connection.scalars(active)) == sorted(world.devices)


def test_decision_02_a_device_that_another_model_changes_waits_and_is_asked_afterwards(world: World, bundles: Bundles) -> None:
    rollout_id = start(world, bundles.release(1), waves=AT_ONCE)
    with world.services.db.read() as connection:
        assert evidence_members.busy_elsewhere(connection, "r-of-another-model", sorted(world.devices), world.services.now_us()) == set(
            world.devices
        )

    install_all(world, bundles[1])

    with world.services.db.read() as connection:
        assert evidence_members.busy_elsewhere(connection, "r-of-another-model", sorted(world.devices), world.services.now_us()) == set()
    assert len(owned(world, rollout_id)) == 6


def test_decision_04_devices_of_the_superseded_rollout_keep_its_release_until_the_later_one_reaches_them(
    world: World, bundles: Bundles
) -> None:
    first = start(world, bundles.release(1), waves=[3, "100%"])
    install_all(world, bundles[1])
    reached = wanting(world, bundles[1])
    assert len(reached) == 3
    second = plan(world, bundles.release(2), on_conflict="supersede")
    assert state(world, first) == "running"

    act(world, second, "start")

    assert state(world, first) == "superseded"
    (asked,) = wanting(world, bundles[2])
    assert wanting(world, bundles[1]) == reached - {asked}
    assert asked in reached  # wave 1 holds a device that comes from the superseded rollout
    facts = queries.rollout(world.services.db, second, world.clock()).waves[0].members
    assert [member.progress for member in facts] == ["not-begun"]  # no evidence is inherited


def test_decision_05_the_fix_of_an_aborted_rollout_begins_with_the_devices_that_it_harmed(world: World, bundles: Bundles) -> None:
    complete(world, start(world, bundles.release(1)), bundles[1])
    bad = start(world, bundles.release(2), waves=[3, "100%"])
    harmed = sorted(wanting(world, bundles[2]))[1]
    world.receive(*world.devices[harmed].fail(bundles[2]))
    tick(world)
    act(world, bad, "abort")

    fix = usecases.create_rollout(
        world.services, release_id=bundles.release(3), policy=POLICY, selection={}, actor=OPERATOR, fixes=bad
    ).rollout_id
    act(world, fix, "start")

    assert wanting(world, bundles[3]) == {harmed}
    with world.services.db.read() as connection:
        assert links.others(connection, fix, "fixes") == [bad]


def test_decision_06_a_device_goes_back_past_a_release_that_was_never_completed_there(world: World, bundles: Bundles) -> None:
    complete(world, start(world, bundles.release(1)), bundles[1])
    half = start(world, bundles.release(2), waves=AT_ONCE)
    install_all(world, bundles[2])
    newer = plan(world, bundles.release(3), on_conflict="supersede", waves=AT_ONCE)
    act(world, newer, "start")
    install_all(world, bundles[3])
    assert state(world, half) == "superseded"

    act(world, newer, "roll-back")

    assert wanting(world, bundles[1]) == set(world.devices)
    assert wanting(world, bundles[2]) == set()


def test_decision_06_a_device_with_nothing_to_go_back_to_keeps_what_it_runs_and_a_person_is_told(world: World, bundles: Bundles) -> None:
    start(world, bundles.release(1), waves=AT_ONCE)
    install_all(world, bundles[1])
    newer = plan(world, bundles.release(2), on_conflict="supersede", waves=AT_ONCE)
    act(world, newer, "start")
    install_all(world, bundles[2])

    act(world, newer, "roll-back")
    assert all(world.desired(device_id) is None for device_id in world.devices)
    assert [e.action for e in queries.recent_events(world.services.db)].count("go-keep") == 6
    tick(world, POLICY["hold_s"] + 1)

    assert state(world, newer) == "paused-rb"


def test_decision_06_devices_that_ran_nothing_before_go_back_to_the_baseline_of_the_policy(world: World, bundles: Bundles) -> None:
    rollout_id = start(world, bundles.release(2), waves=AT_ONCE, baseline=bundles.release(1))
    install_all(world, bundles[2])
    (roll_back,) = [one for one in queries.rollout(world.services.db, rollout_id, world.clock()).actions if one.name == "roll-back"]
    assert not roll_back.refused

    act(world, rollout_id, "roll-back")

    assert wanting(world, bundles[1]) == set(world.devices)


def test_decision_07_a_rollback_that_fails_on_a_device_pauses_and_gives_nobody_the_release_again(world: World, bundles: Bundles) -> None:
    complete(world, start(world, bundles.release(1)), bundles[1])
    rollout_id = start(world, bundles.release(2), waves=AT_ONCE)
    install_all(world, bundles[2])
    act(world, rollout_id, "roll-back")
    for device_id in world.devices:
        world.desired(device_id)

    world.receive(world.devices["d0"].reported("quarantined", bundles[1].digest, "self-test failed"))
    tick(world)

    assert state(world, rollout_id) == "paused-rb"
    assert wanting(world, bundles[2]) == set()


def test_decision_08_going_forward_again_after_a_rollback_takes_a_new_approval_and_a_higher_counter(world: World, bundles: Bundles) -> None:
    complete(world, start(world, bundles.release(1)), bundles[1])
    rollout_id = start(world, bundles.release(2), waves=AT_ONCE)
    install_all(world, bundles[2])
    act(world, rollout_id, "roll-back")
    install_all(world, bundles[1])
    assert state(world, rollout_id) == "rolled-back"
    before = desired_counters(world)
    again = plan(world, bundles.release(3), waves=AT_ONCE, approvals=1)

    with pytest.raises(ConflictError, match="0 of 1 approvals"):
        act(world, again, "start")
    digest = approvals_of(world.services.db, again).digest
    approve_rollout(world.services, again, digest=digest, actor=Actor("anna", "admin"))
    act(world, again, "start")

    assert all(desired_counters(world)[device_id] > counter for device_id, counter in before.items())


def test_decision_08_a_device_that_quarantined_a_release_is_a_failure_of_the_next_rollout_of_it(world: World, bundles: Bundles) -> None:
    complete(world, start(world, bundles.release(1)), bundles[1])
    bad = start(world, bundles.release(2), waves=AT_ONCE)
    world.receive(*world.devices["d0"].fail(bundles[2]))
    tick(world)
    act(world, bad, "abort")

    again = start(world, bundles.release(2), waves=AT_ONCE)
    world.desired("d0")
    world.receive(world.devices["d0"].reported("quarantined", bundles[2].digest, "failed here before"))
    tick(world)

    assert state(world, again) == "paused"


def test_decision_09_the_third_change_to_and_fro_pauses_the_rollout_until_a_person_goes_on(world: World, bundles: Bundles) -> None:
    complete(world, start(world, bundles.release(1)), bundles[1])
    first = start(world, bundles.release(2), waves=AT_ONCE)
    install_all(world, bundles[2])
    act(world, first, "roll-back")
    install_all(world, bundles[1])

    again = start(world, bundles.release(2), waves=AT_ONCE)
    assert state(world, again) == "paused"
    assert wanting(world, bundles[2]) == set()
    assert "flip-flop" in queries.rollout(world.services.db, again, world.clock()).sentence

    act(world, again, "resume")
    assert state(world, again) == "running"
    assert wanting(world, bundles[2]) == set(world.devices)


def test_decision_09_a_device_is_not_changed_again_before_its_day_is_over(world: World, bundles: Bundles) -> None:
    complete(world, start(world, bundles.release(1)), bundles[1])
    rollout_id = start(world, bundles.release(2), waves=AT_ONCE, activation_gap_s=3_600.0, hold_s=10_000.0)
    assert wanting(world, bundles[2]) == set()
    with world.services.db.read() as connection:
        stored = rollouts.load(connection, rollout_id)
        assert stored is not None
        waiting = held_up(connection, stored.rollout, sorted(world.devices), world.clock())
    assert {answer.word for answer in waiting.values()} == {"wait"}

    world.receive(*[device.heartbeat() for device in world.devices.values()])
    tick(world, 3_600.0)
    act(world, rollout_id, "pause")
    act(world, rollout_id, "resume")

    assert wanting(world, bundles[2]) == set(world.devices)


def test_decision_10_a_device_that_slept_through_a_rollout_its_rollback_and_the_next_sees_only_the_last(
    world: World, bundles: Bundles
) -> None:
    complete(world, start(world, bundles.release(1)), bundles[1])
    first = start(world, bundles.release(2), waves=AT_ONCE)
    act(world, first, "roll-back")
    install_all(world, bundles[1])
    tick(world)
    assert state(world, first) == "rolled-back"
    start(world, bundles.release(3), waves=AT_ONCE)

    with world.services.db.read() as connection:
        waiting = connection.scalar(sa.select(sa.func.count()).select_from(DESIRED).where(DESIRED.c.device_id == "d5"))
    assert waiting == 1
    wanted = world.desired("d5")
    assert wanted is not None
    assert wanted.bundle_digest == bundles[3].digest


def test_decision_13_devices_of_a_late_rollback_count_for_their_site_too(world: World, bundles: Bundles) -> None:
    complete(world, start(world, bundles.release(1)), bundles[1])
    rollout_id = start(world, bundles.release(2), waves=AT_ONCE)
    complete(world, rollout_id, bundles[2])
    tick(world, 60.0)
    world.receive(world.devices["d0"].reported("rolled-back", bundles[2].digest, "crashed 12 h later"))
    tick(world)
    with world.services.db.read() as connection:
        (draft,) = links.linked_to(connection, rollout_id, "late-rollback")

    act(world, draft, "start")

    with world.services.db.read() as connection:
        assert evidence_members.in_activation(connection, ["hall"]) == {"hall": 6}


def test_decision_11_failures_after_the_completion_draft_a_linked_rollback_and_leave_the_state_final(
    world: World, bundles: Bundles
) -> None:
    complete(world, start(world, bundles.release(1)), bundles[1])
    rollout_id = start(world, bundles.release(2), waves=AT_ONCE)
    complete(world, rollout_id, bundles[2])
    tick(world, 60.0)

    world.receive(world.devices["d0"].reported("rolled-back", bundles[2].digest, "crashed 12 h later"))
    tick(world)

    assert state(world, rollout_id) == "completed"
    with world.services.db.read() as connection:
        (draft,) = links.linked_to(connection, rollout_id, "late-rollback")
    view = queries.rollout(world.services.db, draft, world.clock())
    assert (view.state, view.release.version) == ("draft", "1")
    assert any("1 of 6 devices (16.7%) failed after the completion" in event.detail for event in view.events)
    assert owned(world, draft) == set()
    plan(world, bundles.release(3))  # the draft keeps nobody from planning something better

    world.receive(world.devices["d1"].reported("rolled-back", bundles[2].digest, "crashed too"))
    tick(world)
    with world.services.db.read() as connection:
        assert links.linked_to(connection, rollout_id, "late-rollback") == [draft]
        stored = rollouts.load(connection, draft)
    assert stored is not None
    assert stored.rollout.last_reason.startswith("2 of 6 devices")


def test_decision_11_the_rollback_starts_by_itself_only_if_the_policy_says_so_and_the_evidence_is_there(
    world: World, bundles: Bundles
) -> None:
    complete(world, start(world, bundles.release(1)), bundles[1])
    rollout_id = start(world, bundles.release(2), waves=AT_ONCE, on_late_evidence="start")
    complete(world, rollout_id, bundles[2])
    tick(world, 60.0)

    world.receive(world.devices["d0"].reported("rolled-back", bundles[2].digest, "crashed"))
    tick(world)
    with world.services.db.read() as connection:
        (draft,) = links.linked_to(connection, rollout_id, "late-rollback")
    assert state(world, draft) == "draft"  # one failure of six is no evidence of 20

    world.receive(world.devices["d1"].reported("rolled-back", bundles[2].digest, "crashed"))
    world.receive(world.devices["d2"].reported("rolled-back", bundles[2].digest, "crashed"))
    tick(world)

    assert (state(world, draft), state(world, rollout_id)) == ("running", "completed")
    assert wanting(world, bundles[1]) == set(world.devices)


def test_decision_11_a_late_rollback_takes_no_device_from_a_rollout_that_came_later(world: World, bundles: Bundles) -> None:
    complete(world, start(world, bundles.release(1)), bundles[1])
    first = start(world, bundles.release(2), waves=AT_ONCE, on_late_evidence="start")
    complete(world, first, bundles[2])
    tick(world, 60.0)
    later = start(world, bundles.release(3), waves=[1, "100%"])
    kept = sorted(wanting(world, bundles[2]))
    assert len(kept) == 5

    for device_id in kept[:4]:
        world.receive(world.devices[device_id].reported("rolled-back", bundles[2].digest, "crashed"))
    tick(world)

    with world.services.db.read() as connection:
        (draft,) = links.linked_to(connection, first, "late-rollback")
    assert (state(world, draft), state(world, later)) == ("draft", "running")
    assert wanting(world, bundles[1]) == set()
    events = queries.rollout(world.services.db, draft, world.clock()).events
    assert any(later in event.detail and "does not start by itself" in event.detail for event in events)


def test_decision_13_the_devices_of_a_site_are_counted_over_all_rollouts(world: World, bundles: Bundles) -> None:
    start(world, bundles.release(1), waves=[4, "100%"])

    with world.services.db.read() as connection:
        assert evidence_members.in_activation(connection, ["hall"]) == {"hall": 4}


def test_decision_13_of_rollouts_that_are_due_one_that_goes_back_is_looked_at_first(world: World, bundles: Bundles, tmp_path: Path) -> None:
    world.enroll("e0", tmp_path, line="two")
    complete(world, start(world, bundles.release(1)), bundles[1])
    forward = plan(world, bundles.release(2), selection={"site": "hall"})
    back = plan(world, bundles.release(3), selection={"line": "two"})
    for rollout_id in (forward, back):
        act(world, rollout_id, "start")
    install_all(world, bundles[3])
    act(world, back, "roll-back")
    with world.services.db.write() as connection:
        connection.execute(sa.update(ROLLOUT).where(ROLLOUT.c.rollout_id == forward).values(due_at=1))
        connection.execute(sa.update(ROLLOUT).where(ROLLOUT.c.rollout_id == back).values(due_at=2))

        assert looks.claim(connection, "somebody", world.services.now_us(), 1_000_000) == back


def test_of_two_rollouts_with_news_the_one_that_has_waited_longer_comes_first(world: World, bundles: Bundles, tmp_path: Path) -> None:
    world.enroll("e0", tmp_path, line="two")
    one, other = plan(world, bundles.release(1), selection={"site": "hall"}), plan(world, bundles.release(2), selection={"line": "two"})
    at, lease_us = world.services.now_us(), 1_000_000
    for waited in ((one, other), (other, one)):
        with world.services.db.write() as connection:
            for age, rollout_id in enumerate(waited):
                looks.look_at(connection, rollout_id, None)
                looks.bring_forward(connection, [rollout_id], looks.at_once(at - 10 + age))
                looks.bring_forward(connection, [rollout_id], looks.at_once(at))  # more news changes nothing
            assert looks.claim(connection, "somebody", at, lease_us) == waited[0]
            looks.release_claim(connection, waited[0], "somebody")


def test_decision_14_an_approval_is_void_once_the_rollout_that_it_supersedes_has_moved(world: World, bundles: Bundles) -> None:
    first = start(world, bundles.release(1))
    second = plan(world, bundles.release(2), on_conflict="supersede", approvals=1)
    digest = approvals_of(world.services.db, second).digest
    approve_rollout(world.services, second, digest=digest, actor=Actor("anna", "operator"))

    act(world, first, "pause")

    with pytest.raises(ConflictError, match="anna approved an older plan, and since then changed: the rollout that it supersedes"):
        act(world, second, "start")
    with pytest.raises(ConflictError, match="you looked at plan"):
        approve_rollout(world.services, second, digest=digest, actor=Actor("ben", "operator"))
    assert state(world, first) == "paused"
    fresh = approvals_of(world.services.db, second).digest
    approve_rollout(world.services, second, digest=fresh, actor=Actor("anna", "operator"))
    act(world, second, "start")
    assert (state(world, first), state(world, second)) == ("superseded", "running")


def test_decision_17_a_halt_beats_a_rollback_and_the_rollback_is_first_when_it_is_lifted(world: World, bundles: Bundles) -> None:
    complete(world, start(world, bundles.release(1)), bundles[1])
    rollout_id = start(world, bundles.release(2), waves=AT_ONCE)
    install_all(world, bundles[2])
    halt_fleet(world.services, reason="fire", actor=OPERATOR)
    act(world, rollout_id, "roll-back")
    tick(world, 5.0)
    assert wanting(world, bundles[1]) == set()

    lifted = lift_halt(world.services, reason="out", actor=OPERATOR)
    assert next(row.rollout_id for row in lifted.pending) == rollout_id
    assert lifted.pending[0].is_rollback
    tick(world)

    assert wanting(world, bundles[1]) == set(world.devices)


def desired_counters(world: World) -> dict[str, int]:
    with world.services.db.read() as connection:
        return {row.device_id: row.counter for row in connection.execute(sa.select(ASSIGNMENT.c.device_id, ASSIGNMENT.c.counter))}


def test_each_change_of_what_a_device_should_run_is_kept_once(world: World, bundles: Bundles) -> None:
    complete(world, start(world, bundles.release(1)), bundles[1])

    with world.services.db.read() as connection:
        rows = connection.execute(sa.select(ACTIVATION.c.device_id, ACTIVATION.c.from_release, ACTIVATION.c.to_release)).all()

    assert sorted(row.device_id for row in rows) == sorted(world.devices)
    assert {(row.from_release, row.to_release) for row in rows} == {("", bundles.release(1))}
