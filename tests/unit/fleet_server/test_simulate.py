"""The virtual fleet: its counts are those of a plain recount, its availability is as declared, and the engine stops what it must."""

from collections import Counter

import numpy as np
import pytest

from fleet_server.rollout.plans import default_course, default_policy
from fleet_server.simulate.availability import Availability
from fleet_server.simulate.cells import Cells
from fleet_server.simulate.controls import Controls
from fleet_server.simulate.drawn import Devices
from fleet_server.simulate.outages import SiteOutages
from fleet_server.simulate.run import ordered, simulate, world
from fleet_server.simulate.scene import BEHAVIOURS, PER_DAY, PER_HOUR, SCENES, Behaviour, Scene

SOAK = 4


def history(scene: str, devices: int = 300, ticks: int = 200, seed: int = 1) -> tuple[Availability, np.ndarray]:
    availability = Availability(np.random.default_rng(seed), devices, SCENES[scene], ticks)
    return availability, np.array([availability.tick(number) for number in range(ticks)])


@pytest.mark.parametrize("scene", ["churn", "all together"])
def test_increments_give_the_counts_of_a_recount(scene: str) -> None:
    availability, seen = history(scene)
    cells = Cells(availability.site, availability.zone, len(seen), SOAK)
    for number, heard in enumerate(seen):
        cells.tick(number, heard)
        if number % 41 != 40:
            continue
        for cell in range(number + 1):
            live = seen[cell]
            again = seen[cell + SOAK + 1 : number + 1].any(axis=0)
            assert np.array_equal(cells.live[cell], np.bincount(availability.site[live], minlength=availability.sites))
            assert np.array_equal(cells.unheard[cell], np.bincount(availability.site[live & ~again], minlength=availability.sites))


def test_about_one_in_six_devices_is_away_by_churn() -> None:
    _, seen = history("churn", devices=4_000, ticks=2 * PER_DAY)

    # 77 % on 97 %, 20 % on 35 %, 3 % on .3 % of their time
    assert seen.mean() == pytest.approx(0.77 * 72 / 74.2 + 0.2 * 6 / 17 + 0.03 * 2 / 722, abs=0.02)


def test_broker_outages_silence_everybody_for_their_hours() -> None:
    _, seen = history("broker down", ticks=PER_DAY * 3)

    assert 3 * 4 * PER_HOUR <= (~seen.any(axis=1)).sum() <= 4 * 4 * PER_HOUR  # four of four hours each, which may overlap


def test_a_site_goes_off_as_a_whole() -> None:
    availability, seen = history("site outages", devices=2_000, ticks=4 * PER_DAY)
    large = availability.site == 0

    assert ((~seen[:, large]).all(axis=1)).sum() >= 6 * PER_HOUR or ((~seen[:, availability.site == 1]).all(axis=1)).sum() >= 6 * PER_HOUR


def test_the_same_seed_tells_the_same_story() -> None:
    one, again, other = (simulate(300, SCENES["churn"], BEHAVIOURS["10 %"], seed) for seed in (1, 1, 2))

    assert one == again != other


@pytest.mark.parametrize("devices", [8, 20, 45, 100, 300, 1_500])
def test_every_size_of_fleet_has_waves_that_rise_to_everybody(devices: int) -> None:
    course = default_course(devices)

    assert devices * 0.95 - 1 < course.sizes[-1] <= devices  # the rest are controls
    assert course.rule.kind == "posterior"
    assert len(course.dwell_s) == len(course.sizes)


def test_large_fleets_are_judged_by_the_bound() -> None:
    course = default_course(10_000)

    assert course.rule.kind == "bound"
    assert course.sizes == (95, 475, 2_375, 9_500)
    assert default_course(2_000).sizes == (77, 95, 475, 1_900)


def test_good_releases_are_completed_and_bad_ones_harm_a_handful_of_devices() -> None:
    good = [simulate(2_000, SCENES["churn"], BEHAVIOURS["1 %"], seed) for seed in range(2)]
    bad = [simulate(2_000, SCENES["churn"], BEHAVIOURS["50 %"], seed) for seed in range(8)]

    assert [outcome.stopped for outcome in good] == [""] * 2
    assert all(outcome.stopped for outcome in bad)
    assert np.median([outcome.harmed for outcome in bad]) <= 3


def test_a_model_that_alone_fails_is_found_by_the_strata() -> None:
    found = [simulate(2_000, SCENES["churn"], BEHAVIOURS["one model in a hundred"], seed) for seed in range(4)]

    assert Counter(outcome.stopped for outcome in found)[""] == 0
    assert max(outcome.harmed for outcome in found) <= 11


def test_devices_that_go_dark_are_stopped_before_they_are_many() -> None:
    found = [simulate(2_000, SCENES["churn"], Behaviour("dark", 0.3, "dark"), seed) for seed in range(4)]

    assert all(outcome.stopped for outcome in found)
    assert max(outcome.harmed for outcome in found) <= 45


def test_a_fleet_that_is_never_heard_is_not_called_done() -> None:
    deaf = Scene("deaf", broker_hours=14 * 24)

    outcome = simulate(300, deaf, BEHAVIOURS["1 %"], 1)

    assert outcome.stopped in ("paused", "stuck")
    assert outcome.exposed < 300


def test_a_release_that_takes_sites_down_is_stopped_although_controls_of_those_sites_excuse_it() -> None:
    found = [simulate(2_000, SCENES["churn"], Behaviour("sites", 0.5, "site"), seed) for seed in range(4)]

    assert [outcome.stopped for outcome in found] == ["paused"] * 4
    assert all("sites went dark within two hours of their first device" in outcome.reason for outcome in found)
    # All devices of a dark site are harmed, whether they began or not.
    assert all(outcome.harmed > outcome.exposed for outcome in found)


def test_an_outage_of_our_own_broker_is_not_held_against_the_sites_that_begin_then() -> None:
    away = Scene("broker", broker_hours=4)

    found = [simulate(2_000, away, BEHAVIOURS["0.5 %"], seed) for seed in range(3)]

    assert [outcome.stopped for outcome in found] == [""] * 3


def test_sites_gone_dark_are_those_of_a_recount() -> None:
    availability, order = Availability(np.random.default_rng(1), 300, SCENES["churn"], 60), np.arange(300)
    controls = Controls(availability, order[60:], order[:60], 0, 60, SOAK)
    outages = SiteOutages(availability.sites, controls, SOAK)
    dark = {0, 3, 4}
    for number in range(40):
        heard = availability.tick(number)
        if number > 20:
            heard &= ~np.isin(availability.site, list(dark))
        controls.tick(number, heard)
        if number == 20:
            outages.begin(number, np.arange(6))
        outages.tick(number, None)

    sites, out, share = outages.counts(39)

    assert (sites, out) == (6, len(dark))
    assert share < 0.1  # the nine other sites were there all the time


def test_releases_that_fail_on_more_devices_fail_on_those_of_the_smaller_ones_too() -> None:
    availability = Availability(np.random.default_rng(1), 500, SCENES["churn"], 10)
    few, many = (Devices.draw(np.random.default_rng(2), availability, Behaviour("b", failing)).bad for failing in (0.1, 0.3))

    assert few.sum() < many.sum()
    assert not (few & ~many).any()


def test_the_first_wave_is_one_percent_of_those_that_are_not_held_back_and_has_every_model() -> None:
    order, course = ordered(10_000, SCENES["churn"], 1, 14, default_policy())

    assert order.sizes == course.sizes == (95, 475, 2_375, 10_000 - len(order.held))
    model = Devices.draw(np.random.default_rng([1, 2]), world(10_000, SCENES["churn"], 1, 14), BEHAVIOURS["1 %"]).model
    assert min(np.bincount(model[order.devices[:95]], minlength=6)) >= 10
