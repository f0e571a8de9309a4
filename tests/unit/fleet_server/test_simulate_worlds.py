"""Batteries, messages that come twice or late, windows, budgets, late joiners: the virtual server counts and asks as the real one."""

import itertools
from collections import Counter
from dataclasses import replace
from datetime import timedelta

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefleet.errors import ConfigError
from fleet_server.rollout.engine import apply, decide
from fleet_server.rollout.model import Facts
from fleet_server.rollout.pacing import Rate, Ready, Window, begin
from fleet_server.rollout.plans import default_course, default_policy
from fleet_server.rollout.policy import Policy
from fleet_server.rollout.tally import Tally
from fleet_server.simulate.asking import Asking, first_in_budget
from fleet_server.simulate.availability import Availability
from fleet_server.simulate.batteries import Batteries
from fleet_server.simulate.drawn import Order
from fleet_server.simulate.ledger import Ledger
from fleet_server.simulate.run import START, ordered, simulate, world
from fleet_server.simulate.scene import BEHAVIOURS, PER_DAY, PER_HOUR, SCENES, TICK_S, Behaviour, Scene
from fleet_server.simulate.steered import started
from fleet_server.simulate.wire import Wire, Word

DEVICES, TICKS, SOAK, DEADLINE = 60, 24, 4, 8
CHURN = SCENES["churn"]


def policy(**changes: object) -> Policy:
    return msgspec.structs.replace(default_policy(), **changes)


def ledger(seed: int = 1) -> tuple[Ledger, Availability]:
    availability = Availability(np.random.default_rng(seed), DEVICES, CHURN, TICKS)
    order = Order(np.arange(10, DEVICES), np.arange(10), (40, 50), np.repeat([1, 2], [40, 10]))
    return Ledger(np.arange(DEVICES) % 6, availability, order, TICKS, SOAK, DEADLINE), availability


def numbers(tally: Tally) -> tuple[object, ...]:
    quiet = tally.quiet
    silence = (quiet.exposed, quiet.silent, quiet.silent_baseline, quiet.due, quiet.missing, quiet.missing_baseline, quiet.sites.tolist())
    return (dict(tally.strata), silence, tally.dwelled, tally.dwelled_failed, tally.heard_after_dwell, tally.sites_exposed, tally.sites_out)


messages = st.lists(
    st.tuples(st.integers(0, TICKS - 1), st.integers(10, 49), st.sampled_from([Word.BEGAN, Word.FAILED])), min_size=1, max_size=80
)


@settings(max_examples=25, deadline=None)
@given(messages=messages, rng=st.randoms(use_true_random=False))
def test_messages_that_come_again_and_in_another_order_give_the_same_counts_and_the_same_decisions(messages, rng) -> None:  # type: ignore[no-untyped-def]
    by_tick = [[(device, word) for at, device, word in messages if at == number] for number in range(TICKS)]
    (plain, availability), (disturbed, _) = ledger(), ledger()
    course = msgspec.structs.replace(default_course(50), sizes=(40, 50), dwell_s=(3_600.0, 0.0))
    rollouts = [started(default_policy(), course, START) for _ in range(2)]
    so_far: list[tuple[int, Word]] = []
    for number, told in enumerate(by_tick):
        so_far += told
        again = told + (rng.choices(so_far, k=5) if so_far else [])
        rng.shuffle(again)
        heard = availability.tick(number)
        seen = []
        for i, (server, row) in enumerate(((plain, told), (disturbed, again))):
            server.alive(number, heard)
            for device, word in row:
                server.told(number, word, np.array([device]))
            server.close(number)
            tally, now = server.tally(number, 40, PER_HOUR, 40), START + timedelta(seconds=TICK_S * (number + 1))
            action = decide(rollouts[i], Facts(devices={}, tally=tally), now)
            rollouts[i] = rollouts[i] if action is None else apply(rollouts[i], action, now)
            seen.append((numbers(tally), action and (action.kind, action.reason)))
        assert seen[0] == seen[1]


def test_who_fails_has_begun_and_counts_once_however_often_it_is_said() -> None:
    server, availability = ledger()
    server.alive(0, availability.tick(0))
    for word in (Word.FAILED, Word.BEGAN, Word.FAILED):
        server.told(0, word, np.array([12, 12]))
    server.close(0)

    assert Counter({name: (one.exposed, one.failed) for name, one in server.tally(0, 40, 4, 40).strata.items()}) == {"model-0": (1, 1)}


@pytest.mark.parametrize("release", ["1 %", "10 %", "10 % dark"])
def test_copies_of_all_messages_change_no_rollout(release: str) -> None:
    twice = replace(CHURN, duplicate_fraction=1.0)

    assert simulate(300, twice, BEHAVIOURS[release], 3) == simulate(300, CHURN, BEHAVIOURS[release], 3)


def test_every_message_arrives_late_ones_behind_younger_ones_and_none_while_the_broker_is_down() -> None:
    wire = Wire(np.random.default_rng(1), Scene("bad", duplicate_fraction=0.3, late_fraction=0.3, late_h=1.0))
    arrived: list[tuple[int, int, int]] = []
    for number in range(50):
        if number < 40:
            wire.send(number, Word.ALIVE, np.arange(100) + 100 * number)
        got = [int(one) for _, devices in wire.arrive(number, broker_up=not 10 <= number < 14) for one in devices]
        arrived += [(number, one // 100, one) for one in got]

    counts = Counter(one for _, _, one in arrived)
    assert len(counts) == 4_000
    assert 0.25 < sum(count == 2 for count in counts.values()) / 4_000 < 0.35
    assert {number for number, _, _ in arrived}.isdisjoint(range(10, 14))
    assert all(sent <= number <= sent + PER_HOUR or sent < 14 for number, sent, _ in arrived)
    assert any(later < earlier for (_, earlier, _), (_, later, _) in itertools.pairwise(arrived))


def test_a_release_that_fails_is_stopped_and_a_good_one_completed_although_a_fifth_of_the_messages_is_late() -> None:
    found = [simulate(300, SCENES["reordering"], Behaviour("b", failing), 1).stopped for failing in (0.0, 0.5)]

    assert found[0] == ""
    assert found[1] in ("paused", "aborted")


def test_batteries_are_never_fuller_than_full_and_a_flat_device_is_not_up_until_it_has_charged() -> None:
    site = np.repeat(np.arange(20), 20)
    batteries = Batteries(np.random.default_rng(2), site, 20)
    was_flat = np.zeros(400, bool)
    for number in range(20 * PER_DAY):
        before = batteries.charge
        up, willing = batteries.tick(np.full(20, number))
        assert 0.0 <= batteries.charge.min() <= batteries.charge.max() <= 1.0
        assert not up[before < 0.1].any()
        assert willing[batteries.charge >= 0.4].all()
        was_flat |= batteries.charge < 0.1

    assert was_flat.any()


def test_devices_on_batteries_are_heard_less_and_unequally_between_sites() -> None:
    def by_site(scene: Scene) -> np.ndarray:
        availability = Availability(np.random.default_rng(1), 2_000, scene, 4 * PER_DAY)
        heard = np.mean([availability.tick(number) for number in range(4 * PER_DAY)], axis=0)
        return np.bincount(availability.site, heard) / np.bincount(availability.site)

    steady, battery = by_site(CHURN), by_site(Scene("all", battery_fraction=1.0))

    assert battery.mean() < 0.75 * steady.mean()
    assert battery.std() > 1.5 * steady.std()


def test_a_device_whose_battery_is_too_low_does_not_begin() -> None:
    availability = Availability(np.random.default_rng(1), 300, Scene("all", battery_fraction=1.0), PER_DAY)
    up = np.mean([availability.tick(number) for number in range(PER_DAY)])

    assert availability.willing is not None
    assert 0.0 < up < 1.0
    assert not availability.willing.all()
    assert simulate(300, Scene("all", battery_fraction=1.0), BEHAVIOURS["0.5 %"], 1).stopped == ""


@given(
    sites=st.lists(st.integers(0, 3), max_size=30),
    room=st.integers(0, 12),
    budget=st.none() | st.integers(1, 4),
    busy=st.lists(st.integers(0, 5), min_size=4, max_size=4),
)
def test_whole_rows_are_asked_as_the_real_scheduler_asks_one_by_one(
    sites: list[int], room: int, budget: int | None, busy: list[int]
) -> None:
    ready = [Ready(str(i), str(site), None) for i, site in enumerate(sites)]
    activated = {str(site): count for site, count in enumerate(busy)}

    chosen, _ = begin(ready, most={"pace": room}, site_budget=budget, in_activation=activated)

    assert first_in_budget(np.array(sites, np.int64), room, budget, np.array(busy)).tolist() == [int(one) for one in chosen]


@pytest.mark.parametrize(("scene", "release", "seed"), [("churn", "10 %", 2), ("day and night", "1 %", 1)])
def test_windows_that_are_always_open_change_no_rollout(scene: str, release: str, seed: int) -> None:
    plain, open_ = (simulate(2_000, SCENES[scene], BEHAVIOURS[release], seed, policy=policy(windows=one)) for one in ((), (Window(),)))

    assert plain == open_


def asked_over(scene: Scene, rules: Policy, devices: int = 300, ticks: int = 3 * PER_DAY) -> tuple[Asking, Availability, Order, list[int]]:
    availability = world(devices, scene, 1, 14)
    order, course = ordered(devices, scene, 1, 14, rules)
    asking, (server, _) = Asking(order, rules, availability), ledger()
    course, counts = course.opened(1, START), []
    for number in range(ticks):
        course = asking.course(course, number)
        asking.ask(number, START + timedelta(seconds=TICK_S * (number + 1)), course, len(course.sizes), server)
        counts.append(len(asking.asked))
    return asking, availability, order, counts


def test_devices_are_asked_in_their_windows_by_their_own_clocks_only() -> None:
    rules = policy(windows=(Window(start="22:00", end="05:00"),))

    asking, availability, _, counts = asked_over(CHURN, rules)

    assert counts[-1] == len(set(asking.asked)) > 50
    for number, more in enumerate(np.diff([0, *counts])):
        clocks = [availability.local_time(number, zone) for zone in (0, 1)]
        assert more == 0 or any(rules.windows[0].holds(clock) for clock in clocks)


@pytest.mark.parametrize(("per_hour", "ticks", "most"), [(6.0, 4, 6), (0.25, 16, 1)])
def test_a_rate_is_no_faster_after_the_hours_outside_the_windows(per_hour: float, ticks: int, most: int) -> None:
    rules = policy(windows=(Window(start="22:00", end="05:00"),), rate=Rate(per_hour=per_hour))

    _, _, _, counts = asked_over(CHURN, rules)

    assert max(later - before for before, later in zip([0, *counts], counts[ticks - 1 :], strict=False)) == most
    assert counts[-1] > 2


def test_a_window_makes_a_rollout_longer_and_an_emergency_does_not_wait_for_it() -> None:
    night = (Window(start="22:00", end="02:00"),)
    plain, held, urgent = (
        simulate(300, CHURN, BEHAVIOURS["0.5 %"], 1, policy=one).hours
        for one in (policy(), policy(windows=night), policy(windows=night, emergency=True))
    )

    assert urgent == plain < held


def test_a_budget_that_no_site_reaches_changes_no_rollout() -> None:
    assert simulate(300, CHURN, BEHAVIOURS["1 %"], 1, policy=policy(site_budget=300)) == simulate(300, CHURN, BEHAVIOURS["1 %"], 1)


def test_who_is_enrolled_later_is_asked_when_it_is_there_in_its_wave_or_never_as_the_policy_says() -> None:
    scene = SCENES["late joiners"]
    _, availability, order, counts = asked_over(scene, policy(), ticks=5 * PER_DAY)
    joined_at = availability.joined_at
    assert joined_at is not None
    late = np.flatnonzero(joined_at > 0)

    assert counts[-1] == len(order.devices)
    assert np.isin(late, np.concatenate([order.devices, order.held])).all()
    assert (np.diff(order.wave) >= 0).all()
    _, _, left_out, fewer = asked_over(scene, policy(late_joiners="ignore"), ticks=5 * PER_DAY)
    assert not np.isin(late, np.concatenate([left_out.devices, left_out.held])).any()
    assert fewer[-1] == len(left_out.devices) < counts[-1]


def test_a_wave_that_grows_takes_the_next_devices_of_the_order() -> None:
    availability, rules = world(2_000, CHURN, 1, 14), policy()
    order, course = ordered(2_000, CHURN, 1, 14, rules)
    asking, course = Asking(order, rules, availability), course.opened(1, START)

    grown = course.grown_to(1, course.larger(1), START)
    asking.grow(1, course, grown.sizes[0], 0)

    assert course.sizes == (77, 95, 475, 1_900)
    assert asking.course(grown, 0).sizes == grown.sizes == (154, 475, 1_900)


def test_a_fleet_that_grows_while_the_release_goes_out_is_completed() -> None:
    outcome = simulate(300, SCENES["late joiners"], BEHAVIOURS["0.5 %"], 1)

    assert outcome.stopped == ""
    assert outcome.exposed > 240 * 0.7


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"battery_fraction": 1.5}, "battery_fraction = 1.5 is no share"),
        ({"late_fraction": float("nan")}, "late_fraction = nan is no share"),
        ({"late_h": 49.0}, "late_h = 49.0 is outside 0 to 48 hours"),
        ({"joiner_fraction": 0.95}, "leaves hardly a fleet"),
    ],
)
def test_a_scene_outside_its_limits_is_refused(values: dict[str, float], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Scene("odd", **values)  # type: ignore[arg-type]
