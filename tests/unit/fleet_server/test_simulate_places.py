"""Places of a site that sleepers give back: in the virtual fleet as in the real scheduler, and never more devices than the budget."""

import itertools
import random
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import sqlalchemy as sa

from fleet_server.ingest.inbox import Incoming
from fleet_server.rollout.plans import default_policy
from fleet_server.scheduler.loop import Scheduler
from fleet_server.simulate.asking import Asking
from fleet_server.simulate.availability import Availability
from fleet_server.simulate.cells import Ints
from fleet_server.simulate.drawn import Devices, Order
from fleet_server.simulate.fleet import VirtualFleet
from fleet_server.simulate.ledger import Ledger
from fleet_server.simulate.run import START, ordered, simulate
from fleet_server.simulate.run import world as virtual_world
from fleet_server.simulate.scene import PER_DAY, SCENES, TICK_S, Behaviour, Scene
from fleet_server.simulate.steered import Steered, started
from fleet_server.simulate.wire import Wire, Word
from fleet_server.store.tables import ROLLOUT_MEMBER
from tests.unit.fleet_server.evidence_world import asked, open_fleet, start, value
from tests.unit.fleet_server.server_world import MadeBundle, World, make_bundle
from tests.unit.fleet_server.test_places_given_back import parked

SITES, EACH, ROUNDS = 5, 3, 14
DEVICES = SITES * EACH
CHURN, GOOD = SCENES["churn"], Behaviour("good", 0.0)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    opened = World.open(tmp_path / "data")
    yield opened
    opened.close()


def real_name(device: int) -> str:
    """Virtual sites take the numbers in rows, `open_fleet` one after the other."""
    return f"d{device % EACH * SITES + device // EACH:05d}"


class Sleepers:
    """Devices that wake and fall asleep, some for long; some wait with the release, and some that begin fall asleep before they say so."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)  # noqa: S311  # a test's draw
        self.up = [self.rng.random() < 0.4 for _ in range(DEVICES)]
        self.stays = [self.rng.choice([0.7, 0.9]) for _ in range(DEVICES)]
        self.began: set[int] = set()

    def tick(self, asking: Ints) -> list[int]:
        """Devices that are heard after those who could have begun."""
        self.up = [up if self.rng.random() < stays else not up for up, stays in zip(self.up, self.stays, strict=True)]
        begin = {int(one) for one in asking if self.up[one] and self.rng.random() < 0.75} - self.began
        self.began |= begin
        for one in begin:
            self.up[one] = self.rng.random() < 0.4
        return [one for one in range(DEVICES) if self.up[one]]


class Both:
    """The same rollout of a real server and of a virtual one, budget 1: who is asked, and who gave his place back."""

    def __init__(self, world: World, bundle: MadeBundle) -> None:
        self.world, self.bundle = world, bundle
        release_id = world.push(bundle)
        open_fleet(world, DEVICES, sites=SITES)
        calm: dict[str, Any] = {"hold_s": 1e6, "dwell_s": [1e6], "soak_s": 1.5 * TICK_S, "hold_back": {"fraction": 0.0}}
        rule, pace = {"warn_at": 1e9, "abort_at": 1e9}, {"first": DEVICES, "every_s": float(TICK_S), "growth": 2.0}
        changes: dict[str, Any] = {"waves": ["100%"], "site_budget": 1, "deadline_s": 2.5 * TICK_S, "rule": rule, "pace": pace}
        self.rollout_id = start(world, release_id, **(calm | changes))
        numbers = {real_name(device): device for device in range(DEVICES)}
        with world.services.db.read() as connection:
            query = sa.select(ROLLOUT_MEMBER.c.device_id).order_by(ROLLOUT_MEMBER.c.wave, ROLLOUT_MEMBER.c.place)
            in_order = np.array([numbers[device_id] for device_id in connection.scalars(query)])
        availability = Availability(np.random.default_rng(1), DEVICES, Scene("small sites", large_site=DEVICES, small_site=EACH), ROUNDS)
        order = Order(in_order, in_order[:0], (DEVICES,), np.ones(DEVICES, np.int64))
        self.asking = Asking(order, value(world, self.rollout_id).policy, availability)
        self.ledger = Ledger(np.zeros(DEVICES, np.int64), availability, order, ROUNDS, 2, 3)

    def decide(self, number: int) -> None:
        Scheduler(self.world.services, None).decide_due()
        real = value(self.world, self.rollout_id)
        assert real.state.value in ("running", "soaking")
        assert real.course is not None
        self.asking.ask(number, self.world.clock(), real.course, real.wave, self.ledger)

    def receive(self, number: int, heard: list[int], began: set[int]) -> None:
        for one in began:
            if not self.world.devices[real_name(one)].counter:
                self.world.desired(real_name(one))  # it obeys what it was told last, heard or not
        told = np.array([one for one in heard if one in began], np.int64)
        self.world.receive(*(self._said(one, began) for one in heard))
        self.ledger.alive(number, np.isin(np.arange(DEVICES), heard))
        self.ledger.told(number, Word.BEGAN, told)
        self.ledger.close(number)

    def _said(self, one: int, began: set[int]) -> Incoming:
        device = self.world.devices[real_name(one)]
        if one not in began:
            return device.heartbeat()
        if self.ledger.began[one] < 0:
            return device.reported("downloading", self.bundle.digest)
        self.world.desired(device.device_id)
        device.running = self.bundle.digest
        return device.reported("committed", self.bundle.digest)

    @property
    def real(self) -> tuple[set[str], set[str]]:
        """Devices whose document asks for the release, and those that gave their place back."""
        return asked(self.world, self.bundle), parked(self.world)

    @property
    def virtual(self) -> tuple[set[str], set[str]]:
        asks = {real_name(int(one)) for one in self.asking.asking}
        return asks, {real_name(int(one)) for one in self.asking.asked} - asks


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.rollouts) for seed in range(2, 13))])
def test_sleepers_give_their_places_back_and_are_asked_anew_when_the_real_scheduler_says_so(
    world: World, tmp_path: Path, seed: int
) -> None:
    both, devices = Both(world, make_bundle(tmp_path / "bundle")), Sleepers(seed)
    aside: list[set[str]] = [set()]
    for number in range(ROUNDS):
        both.decide(number)
        assert both.virtual == both.real
        world.clock.move(100.0)
        both.receive(number, devices.tick(both.asking.asking), devices.began)
        world.clock.move(100.0)
        both.decide(number)
        assert both.virtual == both.real
        world.clock.move(TICK_S - 200.0)
        aside.append(both.real[1])

    in_turn = list(itertools.pairwise(aside))
    assert sum(len(later - before) for before, later in in_turn) > 2
    assert sum(len(before - later) for before, later in in_turn) > 1


class Story:
    """A good release over 300 virtual devices."""

    def __init__(self, scene: Scene, budget: int) -> None:
        rules, days = msgspec.structs.replace(default_policy(), site_budget=budget), 14
        self.availability = virtual_world(300, scene, 1, days)
        devices = Devices.draw(np.random.default_rng([1, 2]), self.availability, GOOD)
        order, course = ordered(300, scene, 1, days, rules)
        soak, deadline = (int(seconds / TICK_S) for seconds in (rules.soak_s, rules.deadline_s))
        self.ledger = Ledger(devices.model, self.availability, order, days * PER_DAY, soak, deadline)
        self.fleet = VirtualFleet(devices, self.availability, GOOD, self.ledger, Wire(np.random.default_rng([1, 4]), scene))
        self.asking = Asking(order, rules, self.availability)
        self.steered = Steered(started(rules, course, START), order, self.ledger, None, self.asking)

    def tick(self, number: int) -> Ints:
        """What is asked, done and decided; devices of which the release was asked."""
        now, away = START + timedelta(seconds=TICK_S * (number + 1)), self.availability.server_away(number)
        given = self.steered.given if away else self.steered.give(number, now)
        self.fleet.advance(number, given, last_wave=self.steered.in_last_wave, server_away=away)
        if not away:
            self.steered.decide(number, now)
        return given


@pytest.mark.parametrize(("scene", "budget"), [("churn", 1), ("everything", 2), ("server away", 1)])
def test_never_are_more_devices_of_a_site_changed_than_its_budget_while_sleepers_give_their_places_back(scene: str, budget: int) -> None:
    story, busiest, aside = Story(SCENES[scene], budget), 0, 0
    for number in range(4 * PER_DAY):
        story.tick(number)
        # Whoever has begun changes, whether his document asks or not.
        changing = np.union1d(story.asking.asking, story.ledger.devices)
        busiest = max(busiest, int(story.ledger.in_activation(changing).max()))
        aside = max(aside, len(story.asking.asked) - len(story.asking.asking))

    assert busiest == budget
    assert aside > 1


def test_who_gave_his_place_back_does_not_begin_before_he_is_asked_anew() -> None:
    story, begun, woken = Story(CHURN, 1), 0, 0
    for number in range(4 * PER_DAY):
        aside = np.setdiff1d(story.asking.asked, story.asking.asking)
        given = story.tick(number)
        began = story.ledger.devices[begun:]
        assert np.isin(began, given).all()
        begun, woken = begun + len(began), woken + int(np.isin(aside, story.asking.asking).sum())

    assert woken > 0


def test_a_site_whose_sleepers_held_all_its_places_goes_on_after_the_deadline() -> None:
    outcome = simulate(300, CHURN, GOOD, 1, policy=msgspec.structs.replace(default_policy(), site_budget=1))

    assert outcome.stopped == ""
    assert outcome.exposed > 270
