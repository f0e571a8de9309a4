"""Rollouts by evidence over the real database, ingest and scheduler, with a clock that tests move."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from edgefleet.errors import ConfigError
from fleet_server import queries, usecases
from fleet_server.scheduler.loop import Scheduler
from fleet_server.store import evidence_members, evidence_tally, looks
from fleet_server.store.tables import ROLLOUT_MEMBER, ROLLOUT_MEMBERSHIP
from tests.unit.fleet_server.evidence_world import POLICY, Fleet, act, asked, open_fleet, start, value
from tests.unit.fleet_server.server_world import OPERATOR, MadeBundle, World, make_bundle

# Two waves, so that a rollout to its end is some thirty ticks.
QUICK: dict[str, Any] = {"waves": ["30%", "100%"], "dwell_s": [60.0, 0.0], "pace": {"first": 20, "every_s": 20.0, "growth": 2.0}}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    opened = World.open(tmp_path / "data")
    yield opened
    opened.close()


def fails(share: float) -> Any:
    """Whether a release fails on a device: always the same devices."""
    return lambda device_id: int(hashlib.sha256(device_id.encode()).hexdigest()[:8], 16) < share * 2**32


def fleet_of(world: World, tmp_path: Path, count: int, **changes: Any) -> tuple[Fleet, str]:
    bundle = make_bundle(tmp_path / "bundle")
    release_id = world.push(bundle)
    open_fleet(world, count, sites=changes.pop("sites", 4))
    fleet = Fleet(world, bundle, changes.pop("bad", lambda _device_id: False))
    fleet.tick()
    return fleet, start(world, release_id, **changes)


def until(fleet: Fleet, rollout_id: str, *states: str, ticks: int = 150) -> str:
    for _ in range(ticks):
        fleet.tick()
        if value(fleet.world, rollout_id).state.value in states:
            break
    return value(fleet.world, rollout_id).state.value


def counts(world: World, rollout_id: str) -> dict[int, evidence_tally.WaveCounts]:
    with world.services.db.read() as connection:
        return evidence_tally.by_wave(connection, rollout_id)


def wave_of(world: World, rollout_id: str) -> dict[str, int]:
    with world.services.db.read() as connection:
        query = sa.select(ROLLOUT_MEMBER.c.device_id, ROLLOUT_MEMBER.c.wave).where(ROLLOUT_MEMBER.c.rollout_id == rollout_id)
        return {row.device_id: row.wave for row in connection.execute(query)}


def waits(world: World, rollout_id: str) -> dict[str, int]:
    with world.services.db.read() as connection:
        return evidence_members.waits(connection, rollout_id)


def test_a_good_release_reaches_300_devices_wave_by_wave_and_spares_the_hold_back(world: World, tmp_path: Path) -> None:
    fleet, rollout_id = fleet_of(world, tmp_path, 300)

    assert until(fleet, rollout_id, "completed", "paused", "aborted") == "completed"

    found, course = counts(world, rollout_id), value(world, rollout_id).course
    assert course is not None
    assert course.rule.kind == "posterior"
    assert found[0].members > 0
    assert found[0].assigned == 0
    assert asked(world, fleet.bundle) == {device_id for device_id, wave in wave_of(world, rollout_id).items() if wave}
    assert sum(wave.proven for wave in found.values()) >= 0.78 * course.sizes[-1]


@pytest.mark.conversions
def test_2500_devices_are_rolled_out_by_the_bound_and_a_tenth_that_fails_is_stopped_in_wave_one(world: World, tmp_path: Path) -> None:
    fleet, bad = fleet_of(world, tmp_path, 2_500, bad=fails(0.1))
    until(fleet, bad, "paused", "aborted", ticks=45)
    # A share that is neither good nor proven bad holds the wave for eight hours at least, then a person is asked.
    world.clock.move(9 * 3_600)
    assert until(fleet, bad, "paused", "aborted", ticks=3) in ("paused", "aborted")
    assert value(world, bad).wave == 1
    act(world, bad, "abort")
    fleet.tick(3)
    fleet.bad, fleet.bundle = lambda _device_id: False, make_bundle(tmp_path / "fix", "two", seed=1)
    good = start(world, world.push(fleet.bundle, "2"))

    assert until(fleet, good, "completed", "paused", "aborted") == "completed"

    course = value(world, good).course
    assert course is not None
    assert course.rule.kind == "bound"
    assert sum(wave.proven for wave in counts(world, good).values()) >= 0.78 * course.sizes[-1]


def test_a_server_that_is_restarted_all_the_time_decides_the_same(tmp_path: Path) -> None:
    told = []
    for name, every in (("still", 0), ("restarted", 4)):
        world = World.open(tmp_path / name / "data")
        fleet, rollout_id = fleet_of(world, tmp_path / name, 40, **QUICK)
        for number in range(40):
            if every and number % every == every - 1:
                world.close()
                reopened = World.open(tmp_path / name / "data")
                reopened.clock.now, reopened.devices = world.clock.now, world.devices
                fleet.world = world = reopened
            fleet.tick()
        rollout = value(world, rollout_id)
        told.append((rollout.state, rollout.opened_at, rollout.promoted_at, rollout.last_reason, counts(world, rollout_id)))
        world.close()

    assert told[0] == told[1]
    assert len(told[0][1]) == 2


def test_a_release_that_fails_on_a_third_of_300_devices_is_stopped_in_wave_one(world: World, tmp_path: Path) -> None:
    fleet, rollout_id = fleet_of(world, tmp_path, 300, bad=fails(0.34))

    assert until(fleet, rollout_id, "completed", "paused", "aborted") in ("paused", "aborted")

    assert value(world, rollout_id).wave == 1
    assert len(asked(world, fleet.bundle)) <= 20


def test_no_more_devices_are_asked_than_the_pace_allows(world: World, tmp_path: Path) -> None:
    fleet, _ = fleet_of(world, tmp_path, 100, waves=[20, "100%"])

    seen = []
    for _ in range(15):
        seen.append(len(asked(world, fleet.bundle)))
        fleet.tick()

    assert sorted(set(seen)) == [5, 10, 20]
    assert seen[:6] == [5] * 6


def test_devices_begin_in_the_order_of_their_wave_and_place(world: World, tmp_path: Path) -> None:
    fleet, rollout_id = fleet_of(world, tmp_path, 300)
    with world.services.db.read() as connection:
        order = sa.select(ROLLOUT_MEMBER.c.device_id).where(ROLLOUT_MEMBER.c.rollout_id == rollout_id, ROLLOUT_MEMBER.c.wave > 0)
        first = list(connection.scalars(order.order_by(ROLLOUT_MEMBER.c.wave, ROLLOUT_MEMBER.c.place).limit(5)))

    assert asked(world, fleet.bundle) == set(first)


def test_a_paused_rollout_asks_nobody_and_goes_on_when_it_is_resumed(world: World, tmp_path: Path) -> None:
    fleet, rollout_id = fleet_of(world, tmp_path, 30, **QUICK)
    act(world, rollout_id, "pause")
    before = asked(world, fleet.bundle)
    fleet.tick(15)
    assert asked(world, fleet.bundle) == before

    act(world, rollout_id, "resume")

    assert until(fleet, rollout_id, "completed") == "completed"


def test_devices_that_go_dark_stop_the_rollout_although_none_of_them_said_that_it_failed(world: World, tmp_path: Path) -> None:
    fleet, rollout_id = fleet_of(world, tmp_path, 200, waves=[20, "100%"])
    for _ in range(30):
        fleet.dark |= {device_id for device_id in asked(world, fleet.bundle) if fails(0.8)(device_id) and device_id in fleet.told}
        fleet.tick()

    state = value(world, rollout_id)
    assert state.state.value in ("paused", "aborted")
    assert state.wave == 1
    assert "silent" in state.last_reason


def test_a_site_that_is_off_with_its_controls_is_no_evidence_against_the_release(world: World, tmp_path: Path) -> None:
    fleet, rollout_id = fleet_of(world, tmp_path, 120, sites=6, **QUICK)
    fleet.tick(2)
    fleet.dark = {device_id for device_id in world.devices if int(device_id[1:]) % 6 == 0}
    fleet.tick(16)
    assert value(world, rollout_id).state.value == "running"
    with world.services.db.read() as connection:
        tally = evidence_tally.read(connection, value(world, rollout_id), world.clock())
    assert tally.quiet.silent == 0

    fleet.dark = set()

    assert until(fleet, rollout_id, "completed", "paused", "aborted") == "completed"


def test_an_abort_takes_the_release_back_from_devices_that_have_not_proved_themselves(world: World, tmp_path: Path) -> None:
    fleet, rollout_id = fleet_of(world, tmp_path, 60, waves=[20, "100%"], hold_back={"fraction": 0.0})
    fleet.tick(8)
    proven = {device_id for device_id in asked(world, fleet.bundle) if device_id in _proven(world, rollout_id)}
    assert 0 < len(proven) < len(asked(world, fleet.bundle))

    act(world, rollout_id, "abort")
    Scheduler(world.services, None).decide_due()

    assert asked(world, fleet.bundle) == proven


@pytest.mark.parametrize("on_abort", ["wave", "keep"])
def test_who_goes_back_after_an_abort_is_what_the_policy_says(world: World, tmp_path: Path, on_abort: str) -> None:
    waves: dict[str, Any] = {"waves": [8, 24, "100%"], "dwell_s": [60.0, 6e4, 0.0], "pace": {"first": 8, "every_s": 60.0}, "rest_s": 0.0}
    fleet, rollout_id = fleet_of(world, tmp_path, 40, on_abort=on_abort, hold_back={"fraction": 0.0}, hold_s=9e5, **waves)
    of = wave_of(world, rollout_id)
    # In wave 2 some sleep from the start.
    fleet.dark = set(sorted(device_id for device_id, wave in of.items() if wave == 2)[:4])
    for _ in range(60):
        if len(_proven(world, rollout_id)) > 14:
            break
        fleet.tick()
    reached, proven = asked(world, fleet.bundle), _proven(world, rollout_id)
    assert value(world, rollout_id).wave == 2
    assert reached & fleet.dark

    act(world, rollout_id, "abort")
    Scheduler(world.services, None).decide_due()

    keep = {"wave": {device_id for device_id in proven if of[device_id] == 1}, "keep": reached - fleet.dark}
    assert asked(world, fleet.bundle) == keep[on_abort]
    assert {of[device_id] for device_id in proven} == {1, 2}


def test_a_rollback_gives_each_device_what_it_ran_before(world: World, tmp_path: Path) -> None:
    everybody: dict[str, Any] = {"waves": ["100%"], "dwell_s": [0.0], "hold_back": {"fraction": 0.0}, "pace": {"first": 30}}
    fleet, first = fleet_of(world, tmp_path, 30, **everybody)
    assert until(fleet, first, "completed") == "completed"
    old = fleet.bundle
    fleet.bundle = make_bundle(tmp_path / "second", "two", seed=1)
    rollout_id = start(world, world.push(fleet.bundle, "2"))
    fleet.tick(12)
    reached = asked(world, fleet.bundle)
    assert reached

    act(world, rollout_id, "roll-back")

    assert until(fleet, rollout_id, "rolled-back") == "rolled-back"
    assert asked(world, fleet.bundle) == set()
    assert {world.devices[device_id].running for device_id in reached} == {old.digest}


def test_an_abort_by_evidence_rolls_all_back_where_the_policy_says_so(world: World, tmp_path: Path) -> None:
    fleet, rollout_id = fleet_of(world, tmp_path, 300, bad=fails(0.6), on_abort="roll-back", rule={"warn_limit": None})

    assert until(fleet, rollout_id, "rolled-back") == "rolled-back"
    assert asked(world, fleet.bundle) == set()


def _proven(world: World, rollout_id: str) -> set[str]:
    with world.services.db.read() as connection:
        shown = (ROLLOUT_MEMBER.c.rollout_id == rollout_id, ROLLOUT_MEMBER.c.proven_at.is_not(None))
        return set(connection.scalars(sa.select(ROLLOUT_MEMBER.c.device_id).where(*shown)))


def test_a_late_device_gets_the_wave_of_its_hash_and_begins_when_that_is_open(world: World, tmp_path: Path) -> None:
    fleet, rollout_id = fleet_of(world, tmp_path, 60, **QUICK)
    before = value(world, rollout_id).course
    for number in range(30):
        world.enroll(f"late{number:02d}", tmp_path, site="s1", hardware="a", region="eu")
    waves, course = wave_of(world, rollout_id), value(world, rollout_id).course
    assert before is not None
    assert course is not None
    late = {device_id: wave for device_id, wave in waves.items() if device_id.startswith("late")}
    assert len(late) == 30
    assert course.sizes[-1] == before.sizes[-1] + sum(wave > 0 for wave in late.values())
    assert {device_id for device_id in asked(world, fleet.bundle) if device_id in late} == set()

    assert until(fleet, rollout_id, "completed") == "completed"

    assert {device_id for device_id in asked(world, fleet.bundle) if device_id in late} == {one for one, wave in late.items() if wave}


def test_a_policy_that_ignores_late_devices_leaves_them_out(world: World, tmp_path: Path) -> None:
    _, rollout_id = fleet_of(world, tmp_path, 20, late_joiners="ignore")
    world.enroll("late", tmp_path, site="s1")

    assert "late" not in wave_of(world, rollout_id)


def test_every_rollout_of_a_release_draws_another_salt(world: World, tmp_path: Path) -> None:
    _, first = fleet_of(world, tmp_path, 20)
    release_id = value(world, first).release_id
    act(world, first, "abort")
    again = usecases.create_rollout(world.services, release_id=release_id, policy=POLICY, selection={}, actor=OPERATOR).rollout_id

    assert value(world, first).salt != value(world, again).salt
    with world.services.db.read() as connection:
        assert connection.scalar(sa.select(sa.func.count(ROLLOUT_MEMBERSHIP.c.salt.distinct()))) == 2


@pytest.mark.parametrize(
    ("selection", "changes", "says"),
    [
        ({"sit": "s1"}, {}, "no device of digits has a label 'sit' (did you mean 'site'?); known labels: hardware, region, site"),
        ({}, {"strata": ["colour"]}, "strata: no device of digits has a label 'colour'"),
        ({"site": "nowhere"}, {}, "the selection matches no device"),
    ],
)
def test_a_selection_that_names_nothing_is_refused_with_what_there_is(
    world: World, tmp_path: Path, selection: dict[str, str], changes: dict[str, Any], says: str
) -> None:
    release_id = world.push(make_bundle(tmp_path / "bundle"))
    open_fleet(world, 10)

    with pytest.raises(ConfigError) as refused:
        usecases.create_rollout(world.services, release_id=release_id, policy=POLICY | changes, selection=selection, actor=OPERATOR)

    assert says in str(refused.value)
    assert queries.rollouts(world.services.db, world.clock()) == []


def test_outside_its_window_no_device_begins_and_the_wait_is_counted(world: World, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    release_id = world.push(bundle)
    for number, zone in enumerate(["+00:00", "+09:00", "Nowhere/Land", ""]):
        labels = {"site": "s", "time-zone": zone} if zone else {"site": "s"}
        world.enroll(f"d{number}", tmp_path, **labels)
    changes: dict[str, Any] = {"windows": [{"start": "20:00", "end": "23:00"}], "waves": ["100%"], "dwell_s": [0.0], "pace": {"first": 9}}

    rollout_id = start(world, release_id, **changes)

    # It is noon in UTC: only where it is 21 o'clock a device begins.
    assert asked(world, bundle) == {"d1"}
    assert waits(world, rollout_id) == {"window": 3}


def test_an_emergency_does_not_wait_for_a_window(world: World, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    release_id = world.push(bundle)
    open_fleet(world, 4)
    changes: dict[str, Any] = {"windows": [{"start": "20:00", "end": "23:00"}], "waves": ["100%"], "dwell_s": [0.0], "pace": {"first": 9}}

    start(world, release_id, **changes, emergency=True)

    assert len(asked(world, bundle)) == 4


def test_a_release_that_takes_its_whole_sites_down_is_stopped(world: World, tmp_path: Path) -> None:
    fleet, rollout_id = fleet_of(world, tmp_path, 300, sites=12, pace={"first": 8, "every_s": 60.0})

    for _ in range(20):
        hit = {int(device_id[1:]) % 12 for device_id, device in world.devices.items() if device.running == fleet.bundle.digest}
        fleet.dark = {device_id for device_id in world.devices if int(device_id[1:]) % 12 in hit}
        fleet.tick()

    assert value(world, rollout_id).state.value == "paused"
    assert "sites went dark within two hours of their first device" in value(world, rollout_id).last_reason
    assert len(asked(world, fleet.bundle)) <= 20


@pytest.mark.conversions  # a slow proof, for the second stage
def test_of_few_sites_one_that_is_dark_holds_the_opening_until_a_person_says_go(world: World, tmp_path: Path) -> None:
    fleet, rollout_id = fleet_of(world, tmp_path, 60, sites=2, waves=[30, "100%"], hold_back={"fraction": 0.0})
    fleet.tick()
    fleet.dark = {device_id for device_id in world.devices if int(device_id[1:]) % 2 == 0}
    fleet.tick(16)
    assert "site out" in waits(world, rollout_id)
    frozen = len(asked(world, fleet.bundle))
    assert frozen < 30
    fleet.tick(8)
    assert len(asked(world, fleet.bundle)) == frozen

    act(world, rollout_id, "pause")
    act(world, rollout_id, "resume")
    fleet.tick(16)

    assert len(asked(world, fleet.bundle)) > frozen
    assert "site out" not in waits(world, rollout_id)


def test_an_outage_of_our_own_broker_takes_no_site_down(world: World, tmp_path: Path) -> None:
    fleet, rollout_id = fleet_of(world, tmp_path, 120, sites=12, **(QUICK | {"waves": ["10%", "100%"]}))
    fleet.tick()
    fleet.dark = set(world.devices)
    fleet.tick(15)
    with world.services.db.read() as connection:
        tally = evidence_tally.read(connection, value(world, rollout_id), world.clock())
    assert tally.sites_out >= 5
    assert tally.sites_out_share == evidence_tally.MOST_OUT
    fleet.dark = set()
    fleet.tick(2)
    world.clock.move(3_600.0)  # who was away with his controls has an hour after they were heard again

    assert until(fleet, rollout_id, "completed", "paused", "aborted", ticks=120) == "completed"


def test_a_site_never_has_more_devices_in_activation_than_its_budget(world: World, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    release_id = world.push(bundle)
    open_fleet(world, 20, sites=4)
    rollout_id = start(world, release_id, waves=["100%"], dwell_s=[0.0], pace={"first": 20}, site_budget=2)
    assert len(asked(world, bundle)) == 8
    assert waits(world, rollout_id) == {"site budget": 12}

    fleet = Fleet(world, bundle)
    fleet.tick()

    # The first eight have committed: two more at each site may begin.
    assert len(asked(world, bundle)) == 16


def test_a_rate_lets_devices_begin_one_after_another(world: World, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    release_id = world.push(bundle)
    open_fleet(world, 20)
    rollout_id = start(world, release_id, waves=["100%"], dwell_s=[0.0], pace={"first": 20}, rate={"per_hour": 60})
    assert len(asked(world, bundle)) == 1
    assert waits(world, rollout_id) == {"rate": 19}

    world.clock.move(180)
    Scheduler(world.services, None).decide_due()

    assert len(asked(world, bundle)) == 4


def asked_look_by_look(world: World, bundle: MadeBundle, *, looks: int, step_s: float) -> list[int]:
    """How many devices are asked to run the bundle, now and after each further look."""
    counts = [len(asked(world, bundle))]
    for _ in range(looks):
        world.clock.move(step_s)
        Scheduler(world.services, None).decide_due()
        counts.append(len(asked(world, bundle)))
    return counts


@pytest.mark.parametrize("standstill_s", [0, 50 * 3_600])
def test_what_the_rate_would_have_let_begin_while_nothing_did_is_not_caught_up_with(
    world: World, tmp_path: Path, standstill_s: int
) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    release_id = world.push(bundle)
    open_fleet(world, 60)
    rollout_id = start(world, release_id, waves=["100%"], dwell_s=[0.0], pace={"first": 60}, rate={"per_hour": 6}, stall_s=9e5)
    act(world, rollout_id, "pause")
    world.clock.move(standstill_s)
    act(world, rollout_id, "resume")

    begun = asked_look_by_look(world, bundle, looks=2 * 60, step_s=60)

    # Six an hour, wherever the hour begins, and at once those of the hour that ends now.
    assert max(later - before for before, later in zip(begun, begun[61:], strict=False)) <= 7
    assert begun[0] <= 7
    assert begun[-1] >= 2 * 6


def test_a_rate_of_one_device_in_ten_hours_is_no_faster_after_a_standstill(world: World, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    release_id = world.push(bundle)
    open_fleet(world, 60)
    rollout_id = start(world, release_id, waves=["100%"], dwell_s=[0.0], pace={"first": 60}, rate={"per_hour": 0.1}, stall_s=9e6)
    act(world, rollout_id, "pause")
    world.clock.move(100 * 3_600)
    act(world, rollout_id, "resume")

    begun = asked_look_by_look(world, bundle, looks=4 * 30, step_s=900)

    # Ten hours are 40 looks.
    assert max(later - before for before, later in zip(begun, begun[38:], strict=False)) == 1
    assert begun[-1] - begun[1] == 3


def _turned_round(world: World, tmp_path: Path, *, looks: int = 1, **changes: Any) -> tuple[str, MadeBundle]:
    """Twelve devices that ran an older release have the new one, and a person rolls back."""
    old, new = make_bundle(tmp_path / "old"), make_bundle(tmp_path / "new", "two")
    world.push(old)
    release_id = world.push(new, "2")
    open_fleet(world, 12)
    for device in world.devices.values():
        device.running, device.model = old.digest, old.manifest.variants[0].model_digest
    world.receive(*[device.reported("committed", old.digest) for device in world.devices.values()])
    rollout_id = start(world, release_id, waves=["100%"], dwell_s=[0.0], pace={"first": 20}, **changes)
    for _ in range(looks):
        world.clock.move(61.0)
        Scheduler(world.services, None).decide_due()
    assert len(asked(world, new)) == 12
    act(world, rollout_id, "roll-back")
    return rollout_id, new


def test_a_rollback_goes_at_once_also_when_the_policy_names_a_rate(world: World, tmp_path: Path) -> None:
    _, new = _turned_round(world, tmp_path, rate={"per_hour": 3_600})
    assert asked(world, new) == set()


def test_a_rollback_goes_at_the_rate_where_the_operator_asked_for_it(world: World, tmp_path: Path) -> None:
    rollout_id, new = _turned_round(world, tmp_path, rate={"per_hour": 3_600, "backward": True})
    assert len(asked(world, new)) == 11  # the first one at once

    world.clock.move(4.0)
    mark_due(world, rollout_id)
    assert len(asked(world, new)) == 7
    world.clock.move(60.0)  # and it looks again by itself
    Scheduler(world.services, None).decide_due()
    assert asked(world, new) == set()


def test_a_rollback_at_a_rate_does_not_catch_up_with_the_time_in_which_it_was_paused(world: World, tmp_path: Path) -> None:
    rollout_id, new = _turned_round(world, tmp_path, looks=120, rate={"per_hour": 6, "backward": True}, hold_s=9e5)
    assert len(asked(world, new)) == 11
    act(world, rollout_id, "pause")
    world.clock.move(50 * 3_600)
    act(world, rollout_id, "resume")

    gone = asked_look_by_look(world, new, looks=60, step_s=60)

    assert gone[0] >= 10
    # Six an hour, and the first of the next one.
    assert gone[0] - gone[-1] in (6, 7)


def test_an_emergency_goes_back_at_once_whatever_the_rate_says(world: World, tmp_path: Path) -> None:
    _, new = _turned_round(world, tmp_path, rate={"per_hour": 3_600, "backward": True}, emergency=True)
    assert asked(world, new) == set()


def mark_due(world: World, rollout_id: str) -> None:
    with world.services.db.write() as connection:
        looks.look_at(connection, rollout_id, 0)
    Scheduler(world.services, None).decide_due()


def test_a_failure_after_success_counts_once_however_often_it_is_told(world: World, tmp_path: Path) -> None:
    fleet, rollout_id = fleet_of(world, tmp_path, 60)
    fleet.tick(8)
    device_id = sorted(_proven(world, rollout_id))[0]
    device = world.devices[device_id]
    before = counts(world, rollout_id)[1]
    told = device.fail(fleet.bundle, "crashed in the night")
    device.running = ""

    fleet.receive([*told, *told, device.reported("quarantined", fleet.bundle.digest, "again")])

    after = counts(world, rollout_id)[1]
    assert (after.failed, after.proven, after.begun) == (before.failed + 1, before.proven - 1, before.begun)


def test_a_device_that_claims_a_release_it_was_not_given_counts_for_nothing(world: World, tmp_path: Path) -> None:
    fleet, rollout_id = fleet_of(world, tmp_path, 60)
    liar = world.devices[next(device_id for device_id, wave in wave_of(world, rollout_id).items() if wave > 1)]
    before = counts(world, rollout_id)
    liar.running, liar.model = fleet.bundle.digest, fleet.bundle.manifest.variants[0].model_digest

    fleet.receive([liar.reported("committed", fleet.bundle.digest), liar.window(fleet.bundle), liar.heartbeat()])
    fleet.receive([liar.reported("rolled-back", fleet.bundle.digest, "it failed")])

    assert counts(world, rollout_id) == before


def test_a_device_that_says_it_committed_and_never_signs_promotes_nothing(world: World, tmp_path: Path) -> None:
    fleet, rollout_id = fleet_of(world, tmp_path, 60)
    for _ in range(40):
        world.clock.move(10)
        with world.services.db.read() as connection:
            from fleet_server.store.tables import DESIRED

            desired = {row.device_id: row.message for row in connection.execute(sa.select(DESIRED))}
        said = []
        for device_id, device in world.devices.items():
            if device_id in desired and device_id not in fleet.told:
                device.obey(desired[device_id])
                fleet.told[device_id] = 1
                device.running, device.model = fleet.bundle.digest, fleet.bundle.manifest.variants[0].model_digest
                said += [device.reported("committed", fleet.bundle.digest), device.window(fleet.bundle)]
            said.append(device.heartbeat())
        fleet.receive(said)
        Scheduler(world.services, None).decide_due()

    assert value(world, rollout_id).wave == 1
    assert value(world, rollout_id).promoted_at == ()


def test_the_clock_of_a_device_does_not_move_its_deadline(world: World, tmp_path: Path) -> None:
    fleet, rollout_id = fleet_of(world, tmp_path, 60)
    fleet.tick(2)
    future = 4_102_444_800_000_000
    fleet.receive([device.heartbeat(future) for device in world.devices.values()])
    Scheduler(world.services, None).decide_due()

    with world.services.db.read() as connection:
        tally = evidence_tally.read(connection, value(world, rollout_id), world.clock())
    assert tally.exposed > 0
    assert tally.quiet.due == 0
    assert value(world, rollout_id).promoted_at == ()


def test_a_person_who_resumes_accepts_the_failures_so_far_and_not_as_many_again(world: World, tmp_path: Path) -> None:
    bad: set[str] = set()
    fleet, rollout_id = fleet_of(world, tmp_path, 60, waves=[20, "100%"], hold_back={"fraction": 0.0}, bad=bad.__contains__)
    first = sorted(asked(world, fleet.bundle))
    bad |= set(first[:2])
    fleet.tick()
    assert value(world, rollout_id).state.value == "paused"

    act(world, rollout_id, "resume")
    fleet.tick(9)
    assert value(world, rollout_id).state.value == "running"
    assert len(asked(world, fleet.bundle)) > len(first)

    others = sorted(asked(world, fleet.bundle) - bad)[:3]
    fleet.receive(message for device_id in others for message in world.devices[device_id].fail(fleet.bundle, "crashed later"))
    fleet.tick()
    assert value(world, rollout_id).state.value in ("paused", "aborted")
    assert value(world, rollout_id).promoted_at == ()
