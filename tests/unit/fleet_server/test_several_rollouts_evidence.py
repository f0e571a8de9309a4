"""Several rollouts at once, by evidence: hold-back over many rollouts, controls, and devices that come and go; by the decision's number."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from fleet_server import enlisting, usecases
from fleet_server.halting import halt_fleet, lift_halt
from fleet_server.rollout.pacing import Window
from fleet_server.scheduler import sharing, trickle
from fleet_server.scheduler.loop import Scheduler
from fleet_server.store import activations, devices, evidence_members, exposure, held_back, late_failures, latecomers, links, rollouts
from fleet_server.store.facts import read
from fleet_server.store.moments import to_micros
from fleet_server.store.tables import DEVICE, DEVICE_LABEL, ROLLOUT, ROLLOUT_MEMBER, ROLLOUT_SUM
from tests.unit.fleet_server.evidence_world import POLICY, Fleet, act, asked, now_us, open_fleet, start, value
from tests.unit.fleet_server.server_world import OPERATOR, PROJECT, World, make_bundle
from tests.unit.fleet_server.test_evidence_rollouts import fleet_of, until, wave_of

WEEK_S = timedelta(days=7).total_seconds()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    opened = World.open(tmp_path / "data")
    yield opened
    opened.close()


def test_decision_02_a_device_waits_until_its_dwell_in_another_models_rollout_is_over(world: World, tmp_path: Path) -> None:
    fleet, _ = fleet_of(world, tmp_path, 30)
    fleet.tick(6)
    exposed = asked(world, fleet.bundle)
    assert all(world.devices[device_id].running == fleet.bundle.digest for device_id in exposed)

    def busy(at: int) -> set[str]:
        with world.services.db.read() as connection:
            return evidence_members.busy_elsewhere(connection, "r-of-another-model", sorted(world.devices), at)

    assert busy(now_us(world)) == exposed  # committed, and within the 120 s of the wave's dwell
    assert busy(now_us(world) + 200_000_000) == set()


def test_decision_03_a_device_that_another_rollout_exposes_is_no_control(world: World, tmp_path: Path) -> None:
    fleet, rollout_id = fleet_of(world, tmp_path, 30)
    fleet.tick(3)
    exposed = asked(world, fleet.bundle)
    assert exposed

    def controls(of: str, at: int) -> set[str]:
        with world.services.db.read() as connection:
            return set(connection.scalars(sa.select(DEVICE.c.device_id).where(~exposure.elsewhere(DEVICE.c.device_id, of, at))))

    assert controls("r-another", now_us(world)) == set(world.devices) - exposed
    assert controls(rollout_id, now_us(world)) == set(world.devices)  # its own exposure is its own matter
    assert controls("r-another", now_us(world) + int(1e6 * 1_000)) == set(world.devices)  # a dwell of 120 s and a soak of 40 s later


def test_decision_12_the_hold_back_follows_a_week_after_the_completion(world: World, tmp_path: Path) -> None:
    fleet, rollout_id = fleet_of(world, tmp_path, 60, hold_back={"fraction": 0.2})
    assert until(fleet, rollout_id, "completed") == "completed"
    held = {device_id for device_id, wave in wave_of(world, rollout_id).items() if wave == 0}
    assert len(held) == 12
    assert asked(world, fleet.bundle) == set(world.devices) - held

    world.clock.move(WEEK_S - 60.0)
    fleet.tick(2)
    assert asked(world, fleet.bundle) & held == set()
    world.clock.move(60.0)
    fleet.tick(8)

    assert asked(world, fleet.bundle) == set(world.devices)
    assert value(world, rollout_id).state.value == "completed"


def follows(world: World, tmp_path: Path, bad: int) -> tuple[Fleet, str, set[str]]:
    """A rollout a week after its completion, three followers at once: (fleet, id, who was held back); it fails on `bad` of these."""
    baseline = world.push(make_bundle(tmp_path / "baseline", "baseline"), "0")
    fleet, rollout_id = fleet_of(world, tmp_path, 60, hold_back={"fraction": 0.2}, baseline=baseline)
    assert until(fleet, rollout_id, "completed") == "completed"
    with world.services.db.read() as connection:
        query = sa.select(ROLLOUT_MEMBER.c.device_id).where(ROLLOUT_MEMBER.c.rollout_id == rollout_id, ROLLOUT_MEMBER.c.wave == 0)
        held = list(connection.scalars(query.order_by(ROLLOUT_MEMBER.c.place)))
    fleet.bad = set(held[:bad]).__contains__
    world.clock.move(WEEK_S)
    fleet.tick(10)
    return fleet, rollout_id, set(held)


def late_of(world: World, rollout_id: str) -> late_failures.Late:
    completed_at = value(world, rollout_id).changed_at
    assert completed_at is not None
    with world.services.db.read() as connection:
        return late_failures.of_rollout(connection, rollout_id, to_micros(completed_at))


def discard_the_draft(world: World, rollout_id: str) -> str:
    """A person has looked; the draft's sentence."""
    with world.services.db.read() as connection:
        (draft,) = links.linked_to(connection, rollout_id, "late-rollback")
    sentence = value(world, draft).last_reason
    assert act(world, draft, "abort").state == "discarded"
    return sentence


def sums_are_those_of_the_rows(world: World, rollout_id: str) -> None:
    with world.services.db.read() as connection:
        member = ROLLOUT_MEMBER.c
        rows = sa.select(member.wave, sa.func.count(member.counter), sa.func.count(member.began_at), sa.func.count(member.failed_at))
        found = {row[0]: tuple(row[1:]) for row in connection.execute(rows.where(member.rollout_id == rollout_id).group_by(member.wave))}
        total = ROLLOUT_SUM.c
        kept = sa.select(total.wave, sa.func.sum(total.assigned), sa.func.sum(total.begun), sa.func.sum(total.failed))
        told = {row[0]: tuple(row[1:]) for row in connection.execute(kept.where(total.rollout_id == rollout_id).group_by(total.wave))}
    assert found == told


def test_decision_11_a_hold_back_on_which_the_release_fails_is_late_evidence_and_nobody_else_follows(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trickle, "AT_ONCE", 3)
    fleet, rollout_id, held = follows(world, tmp_path, bad=12)

    late = late_of(world, rollout_id)
    assert (late.devices, late.failed, late.latecomers, len(late.failed_latecomers)) == (40, (), 11, 3)
    assert asked(world, fleet.bundle) & held == set(late.failed_latecomers)
    sums_are_those_of_the_rows(world, rollout_id)
    assert "of those that took it on afterwards 3 of 11 (27.3%)" in discard_the_draft(world, rollout_id)
    fleet.tick(30)
    # Three more follow and fail: from then on the evidence is there, whatever a person did with the draft.
    assert asked(world, fleet.bundle) & held == set(late_of(world, rollout_id).failed_latecomers)
    assert len(late_of(world, rollout_id).failed_latecomers) == 6


def test_decision_12_one_failure_keeps_the_others_waiting_until_a_person_discards_the_rollback(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trickle, "AT_ONCE", 3)
    fleet, rollout_id, held = follows(world, tmp_path, bad=1)
    assert len(asked(world, fleet.bundle) & held) == 3

    discard_the_draft(world, rollout_id)
    fleet.tick(30)

    assert asked(world, fleet.bundle) & held == held
    late = late_of(world, rollout_id)
    assert (late.devices, late.latecomers, len(late.failed_latecomers)) == (40, 20, 1)
    sums_are_those_of_the_rows(world, rollout_id)
    with world.services.db.read() as connection:
        told = {device_id: committed_at for device_id, committed_at, _ in latecomers.of_rollout(connection, rollout_id)}
    assert {device_id for device_id in held if told[device_id] is not None} == held - set(late.failed_latecomers)


def test_decision_11_a_late_failure_is_in_the_sums_as_in_the_rows(world: World, tmp_path: Path) -> None:
    fleet, rollout_id = fleet_of(world, tmp_path, 30)
    assert until(fleet, rollout_id, "completed") == "completed"
    device = world.devices[sorted(device_id for device_id, wave in wave_of(world, rollout_id).items() if wave == 1)[0]]
    world.clock.move(43_200.0)

    world.receive(device.reported("rolled-back", fleet.bundle.digest, "crashed 12 h later"))
    fleet.tick(2)

    assert late_of(world, rollout_id).failed == (device.device_id,)
    sums_are_those_of_the_rows(world, rollout_id)
    assert value(world, rollout_id).state.value == "completed"


@pytest.mark.conversions  # a slow proof, for the second stage
def test_decision_12_the_hold_back_follows_within_the_windows_and_the_budget_of_its_site(world: World, tmp_path: Path) -> None:
    fleet, rollout_id = fleet_of(world, tmp_path, 60, hold_back={"fraction": 0.2}, sites=2)
    assert until(fleet, rollout_id, "completed") == "completed"
    held = {device_id for device_id, wave in wave_of(world, rollout_id).items() if wave == 0}
    with world.services.db.write() as connection:
        stored = rollouts.load(connection, rollout_id)
        assert stored is not None
        policy = msgspec.structs.replace(stored.rollout.policy, windows=(Window(start="00:00", end="01:00"),), site_budget=2)
        assert rollouts.save(connection, stored, replace(stored.rollout, policy=policy), world.clock())

    world.clock.move(WEEK_S)
    fleet.dark = held  # whoever is asked does not answer yet
    assert 1 <= world.clock().hour < 23
    fleet.tick(8)
    assert asked(world, fleet.bundle) & held == set()  # at noon, and no device says what its own clock is

    with world.services.db.write() as connection:
        zone = f"-{world.clock().hour:02}:00"  # by their own clocks it is after midnight
        connection.execute(sa.insert(DEVICE_LABEL), [{"key": "time-zone", "value": zone, "device_id": one} for one in sorted(held)])
    fleet.tick(14)
    followed = Counter(int(device_id[1:]) % 2 for device_id in asked(world, fleet.bundle) & held)
    assert followed == {0: 2, 1: 2}

    fleet.dark = set()
    fleet.tick(20)
    assert len(asked(world, fleet.bundle) & held) > 4


@pytest.mark.conversions  # a slow proof, for the second stage
def test_decision_12_a_device_that_a_later_rollout_owns_does_not_follow_an_earlier_one(world: World, tmp_path: Path) -> None:
    fleet, rollout_id = fleet_of(world, tmp_path, 60, hold_back={"fraction": 0.2})
    assert until(fleet, rollout_id, "completed") == "completed"
    newer = world.push(make_bundle(tmp_path / "newer", "two"), "2")
    usecases.create_rollout(world.services, release_id=newer, policy=POLICY, selection={}, actor=OPERATOR)
    before = asked(world, fleet.bundle)

    world.clock.move(WEEK_S)
    fleet.tick(4)

    assert asked(world, fleet.bundle) == before


def test_decision_12_who_was_held_back_twice_in_a_row_is_not_held_back_again(world: World, tmp_path: Path) -> None:
    release_id = world.push(make_bundle(tmp_path / "bundle"))
    open_fleet(world, 80)
    held: list[set[str]] = []
    for _ in range(3):
        policy = POLICY | {"hold_back": {"fraction": 0.5}}
        view = usecases.create_rollout(world.services, release_id=release_id, policy=policy, selection={}, actor=OPERATOR)
        held.append({device_id for device_id, wave in wave_of(world, view.rollout_id).items() if wave == 0})
        with world.services.db.write() as connection:
            connection.execute(sa.update(ROLLOUT).values(state="completed"))
            connection.execute(sa.update(ROLLOUT_MEMBER).values(active=False))
        world.clock.move(1.0)
    twice = held[0] & held[1]
    assert len(twice) > 5

    assert held[2] & twice == set()
    with world.services.db.read() as connection:
        assert held_back.too_often(connection, PROJECT) == held[1] & held[2]


def test_decision_18_a_device_that_leaves_before_it_was_asked_is_dropped_and_one_that_began_stays_in_the_evidence(
    world: World, tmp_path: Path
) -> None:
    fleet, rollout_id = fleet_of(world, tmp_path, 60, selection={"hardware": "a"})
    fleet.tick(3)
    began = sorted(asked(world, fleet.bundle))[0]
    waiting = sorted(set(wave_of(world, rollout_id)) - asked(world, fleet.bundle))[0]
    before = exposed_of(world, rollout_id)

    for device_id in (began, waiting):
        leave(world, device_id)

    assert exposed_of(world, rollout_id) == before > 0
    assert began in wave_of(world, rollout_id)
    assert waiting not in wave_of(world, rollout_id)


def test_decision_18_a_device_that_comes_while_a_rollout_waits_to_supersede_another_is_in_both(world: World, tmp_path: Path) -> None:
    _, first = fleet_of(world, tmp_path, 20)
    second = make_bundle(tmp_path / "second", "two")
    policy = POLICY | {"on_conflict": "supersede"}
    view = usecases.create_rollout(world.services, release_id=world.push(second, "2"), policy=policy, selection={}, actor=OPERATOR)

    world.enroll("newcomer", tmp_path, site="s1", hardware="a", region="eu")

    assert "newcomer" in wave_of(world, first)
    assert "newcomer" in wave_of(world, view.rollout_id)
    act(world, view.rollout_id, "start")
    with world.services.db.read() as connection:
        assert rollouts.owned(connection, view.rollout_id) == set(world.devices)


def exposed_of(world: World, rollout_id: str) -> int:
    with world.services.db.read() as connection:
        tally = read(connection, value(world, rollout_id), world.clock()).tally
    assert tally is not None
    return tally.exposed


def leave(world: World, device_id: str) -> None:
    with world.services.db.write() as connection:
        devices.set_labels(connection, device_id, {"site": "s1", "hardware": "b", "region": "eu"})
        enlisting.follow(connection, PROJECT, device_id, world.clock())


def test_decision_13_a_site_budget_holds_over_two_rollouts(world: World, tmp_path: Path) -> None:
    fleet, first = fleet_of(world, tmp_path, 40, selection={"hardware": "a"}, sites=1, site_budget=3)
    second = make_bundle(tmp_path / "second", "two")
    start(world, world.push(second, "2"), {"hardware": "b"}, site_budget=3)

    with world.services.db.read() as connection:
        assert evidence_members.in_activation(connection, ["s0"]) == {"s0": 3}
    assert (len(asked(world, fleet.bundle)), len(asked(world, second))) == (2, 1)  # alone, the second would ask two as well
    assert value(world, first).wave == 1


def test_decision_13_an_older_rollout_takes_the_budget_of_a_site_before_a_later_one(world: World, tmp_path: Path) -> None:
    fleet, first = fleet_of(world, tmp_path, 40, selection={"hardware": "a"}, sites=1, site_budget=2)
    second = make_bundle(tmp_path / "second", "two")
    later = start(world, world.push(second, "2"), {"hardware": "b"}, site_budget=2)
    assert (len(asked(world, fleet.bundle)), len(asked(world, second))) == (2, 0)

    with world.services.db.read() as connection:
        of_later, of_first = (sharing.taken(connection, value(world, one), ["s0"], world.clock()) for one in (later, first))

    assert (of_first["s0"], of_later["s0"]) == (2, 2)
    assert sharing.wish_of(value(world, first)).approved_at <= sharing.wish_of(value(world, later)).approved_at


def test_decision_09_devices_that_must_wait_do_not_hold_up_those_behind_them(world: World, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    release_id = world.push(bundle)
    open_fleet(world, 40)
    policy = POLICY | {"activation_gap_s": 86_400.0, "waves": [20, "100%"]}
    view = usecases.create_rollout(world.services, release_id=release_id, policy=policy, selection={}, actor=OPERATOR)
    with world.services.db.write() as connection:
        first = [one.device_id for one in evidence_members.unasked(connection, replace(value(world, view.rollout_id), wave=1), 7)]
        for device_id in first:
            at = now_us(world)
            activations.note(connection, device_id, PROJECT, before=None, after="r-other", rollout_id="r-other", forward=True, at=at)

    act(world, view.rollout_id, "start")
    Fleet(world, bundle).tick()

    assert len(asked(world, bundle)) == 5
    assert asked(world, bundle) & set(first) == set()


@pytest.mark.conversions  # a slow proof, for the second stage
def test_decision_13_going_back_keeps_the_budget_of_a_site_too(world: World, tmp_path: Path) -> None:
    fleet, first = fleet_of(world, tmp_path, 60, sites=2, hold_back={"fraction": 0.0, "least": 0})
    assert until(fleet, first, "completed") == "completed"
    old = fleet.bundle
    newer = make_bundle(tmp_path / "newer", "two")
    fleet.bundle = newer
    rollout_id = start(world, world.push(newer, "2"), site_budget=2)
    until(fleet, rollout_id, "completed", ticks=40)
    running = {device_id for device_id in asked(world, newer) if world.devices[device_id].running == newer.digest}
    assert len(running) >= 8

    act(world, rollout_id, "roll-back")
    most = 0
    for _ in range(40):
        told = {device_id for device_id in asked(world, old) if world.devices[device_id].running == newer.digest}
        most = max([most, *Counter(int(device_id[1:]) % 2 for device_id in told).values()])
        fleet.tick()

    assert most == 2
    assert {world.devices[device_id].running for device_id in running} == {old.digest}
    assert value(world, rollout_id).state.value == "rolled-back"


def on_the_newer(world: World, tmp_path: Path) -> tuple[Fleet, str]:
    """Twelve devices of one site that went from one release to the next by evidence, and the rollout that brought the newer."""
    quick: dict[str, Any] = {"waves": ["100%"], "pace": {"first": 12, "every_s": 60.0, "growth": 2.0}}
    fleet, first = fleet_of(world, tmp_path, 12, sites=1, **quick, dwell_s=[0.0])
    assert until(fleet, first, "completed") == "completed"
    fleet.bundle = make_bundle(tmp_path / "newer", "two")
    rollout_id = start(world, world.push(fleet.bundle, "2"), **quick, dwell_s=[10_000.0])
    fleet.tick(2)
    assert {device.running for device in world.devices.values()} == {fleet.bundle.digest}
    return fleet, rollout_id


@pytest.mark.conversions  # a slow proof, for the second stage
def test_decision_07_by_evidence_too_a_way_back_that_fails_on_a_device_pauses_and_a_person_may_go_on(world: World, tmp_path: Path) -> None:
    fleet, rollout_id = on_the_newer(world, tmp_path)
    act(world, rollout_id, "roll-back")
    fleet.dark = {"d00003", "d00004"}
    fleet.tick()
    device = world.devices["d00003"]
    wanted = world.desired("d00003")
    assert wanted is not None

    world.receive(device.reported("quarantined", wanted.bundle_digest, "self-test failed"))
    Scheduler(world.services, None).decide_due()

    assert value(world, rollout_id).state.value == "paused-rb"
    assert "the way back failed on 1 of 2 devices: d00003" in value(world, rollout_id).last_reason
    act(world, rollout_id, "resume")
    fleet.tick()
    assert value(world, rollout_id).state.value == "rolling-back"


@pytest.mark.conversions  # a slow proof, for the second stage
def test_decision_13_a_paused_way_back_sends_nobody_else_and_goes_on_within_the_budget(world: World, tmp_path: Path) -> None:
    fleet, rollout_id = on_the_newer(world, tmp_path)
    with world.services.db.write() as connection:
        stored = rollouts.load(connection, rollout_id)
        assert stored is not None
        policy = msgspec.structs.replace(stored.rollout.policy, site_budget=2)
        assert rollouts.save(connection, stored, replace(stored.rollout, policy=policy), world.clock())
    running = asked(world, fleet.bundle)
    assert len(running) == 12

    act(world, rollout_id, "roll-back")
    fleet.dark = set(world.devices)
    act(world, rollout_id, "pause")
    fleet.tick(3)
    assert len(asked(world, fleet.bundle)) == 10

    act(world, rollout_id, "resume")
    fleet.dark = set()
    fleet.tick(20)
    assert value(world, rollout_id).state.value == "rolled-back"
    assert asked(world, fleet.bundle) == set()


def test_after_a_long_pause_no_more_devices_begin_at_once_than_the_next_batch(world: World, tmp_path: Path) -> None:
    fleet, rollout_id = fleet_of(world, tmp_path, 300, waves=[20, "100%"])
    fleet.tick(2)
    assert len(asked(world, fleet.bundle)) == 5
    act(world, rollout_id, "pause")
    world.clock.move(86_400.0)
    fleet.tick()

    act(world, rollout_id, "resume")
    fleet.tick(2)
    batch = next_batch(world, rollout_id)
    assert len(asked(world, fleet.bundle)) == batch
    fleet.tick(12)

    assert len(asked(world, fleet.bundle)) > batch  # and it goes on by itself


def test_after_a_long_pause_the_last_part_of_wave_1_still_waits_for_its_rest(world: World, tmp_path: Path) -> None:
    fleet, rollout_id = fleet_of(
        world, tmp_path, 150, waves=[90, "100%"], rest_s=1_000.0, pace={"first": 60, "every_s": 60.0, "growth": 2.0}
    )
    fleet.tick(2)
    assert len(asked(world, fleet.bundle)) == 60
    act(world, rollout_id, "pause")
    world.clock.move(86_400.0)
    fleet.tick()

    act(world, rollout_id, "resume")
    fleet.tick(3)
    # Three quarters of 90 began only now.
    assert len(asked(world, fleet.bundle)) == 68
    world.clock.move(1_000.0)
    fleet.tick(2)

    assert len(asked(world, fleet.bundle)) == 90


def test_after_a_fleet_halt_batches_go_on_where_they_were(world: World, tmp_path: Path) -> None:
    fleet, rollout_id = fleet_of(world, tmp_path, 300)
    fleet.tick(2)
    halt_fleet(world.services, reason="fire", actor=OPERATOR)
    world.clock.move(86_400.0)
    fleet.tick(3)
    assert len(asked(world, fleet.bundle)) == 5
    lift_halt(world.services, reason="out", actor=OPERATOR)
    fleet.tick(1)
    assert len(asked(world, fleet.bundle)) == 5  # 20 s of the 60 had passed, and 10 more now

    fleet.tick(6)

    assert len(asked(world, fleet.bundle)) == next_batch(world, rollout_id)


def next_batch(world: World, rollout_id: str) -> int:
    """Devices after the batch that follows the first five."""
    course = value(world, rollout_id).course
    assert course is not None
    return course.batch_after(5)
