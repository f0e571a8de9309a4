"""Simulated experiments and changes of a model: formulas are those that a server keeps in sums, and error rates are promised."""

import numpy as np
import pytest

from edgefleet.errors import ConfigError
from fleet_server.rollout.by_experiment import PAIRS_AT
from fleet_server.rollout.comparisons import COMPARISONS, Wealth, compare
from fleet_server.rollout.experiment import FIRST_LOOK
from fleet_server.rollout.experiment_plan import Experiment
from fleet_server.rollout.experiment_sums import Sums
from fleet_server.simulate.arms import ended, interval, pair_evidence, ratio_alarms, simulate_experiments
from fleet_server.simulate.models import CHANGES, differences, paused_after
from fleet_server.simulate.run import simulate
from fleet_server.simulate.scene import BEHAVIOURS, SCENES


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_whole_rows_give_the_numbers_of_the_sums_after_every_device(seed: int) -> None:
    rng = np.random.default_rng(seed)
    arm = rng.random(260) < 0.5
    values = rng.normal(3.0, 0.5, 260) + 0.2 * arm
    difference, half = interval(values, arm)
    evidence = pair_evidence(values, arm)

    sums = Sums()
    for i, (value, mine) in enumerate(zip(values, arm, strict=True)):
        sums = sums.with_value(int(mine), float(value))
        if min(one.n for one in sums.arms) > 1:
            assert sums.difference == pytest.approx(difference[i], rel=1e-9)
            assert sums.half(0.05) == pytest.approx(half[i], rel=1e-9)
        assert sums.evidence == pytest.approx(evidence[i], rel=1e-9)
    assert sums.pairs > 90


def test_without_a_difference_few_experiments_have_a_winner_although_each_device_is_a_look() -> None:
    # 300 experiments: 5 % and three standard errors of it would be 9 %; the promise is 5 %, 1.3 % are measured.
    found = simulate_experiments(300, 1_500, effect=0.0, seed=11)
    skewed = simulate_experiments(150, 1_500, effect=0.0, seed=12, metric="skewed")

    assert sum(one.ending != "" for one in found) <= 0.05 * 300
    assert sum(one.ending != "" for one in skewed) <= 0.05 * 150


def test_a_difference_of_three_tenths_of_a_deviation_is_found_by_a_thousand_devices() -> None:
    found = simulate_experiments(100, 1_000, effect=0.3, seed=13)

    assert sum(one.ending == "winner B" for one in found) >= 85
    assert not [one for one in found if one.ending == "winner A"]


def test_an_experiment_ends_without_a_difference_only_when_the_interval_fits_the_resolution() -> None:
    rng = np.random.default_rng(5)
    arm = rng.random(3_000) < 0.5
    values = rng.normal(0, 1, 3_000)

    found = ended(values, arm, resolution=0.3)

    assert found.ending == "no difference"
    difference, half = interval(values, arm)
    fits = np.flatnonzero((np.abs(difference) + half <= 0.3) & (np.arange(3_000) >= FIRST_LOOK - 1))
    assert found.devices == fits[0] + 1
    assert pair_evidence(values, arm)[found.devices - 1] < PAIRS_AT


def test_the_ratio_check_is_silent_on_fair_arms_and_finds_unfair_ones() -> None:
    assert sum(at > 0 for at in ratio_alarms(500, 5_000, 0.5, seed=1)) <= 2
    assert all(at > 0 for at in ratio_alarms(50, 10_000, 0.6, seed=1))


def test_a_value_that_is_no_number_never_enters_the_sums() -> None:
    for wrong in (float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="finite"):
            Sums().with_value(1, wrong)
        with pytest.raises(ConfigError, match="finite"):
            Sums().with_value(1, 0.0, {"memory": (wrong,)})


def test_equal_numbers_on_all_devices_are_no_evidence_and_no_division_by_zero() -> None:
    sums = Sums()
    for i in range(200):
        sums = sums.with_value(i % 2, 0.5)

    assert (sums.evidence, sums.difference, sums.half(0.05)) == (1.0, 0.0, 0.0)


def test_arms_keep_their_devices_whatever_the_share_grows_to() -> None:
    plan = Experiment(baseline_release="a", metric="memory", better="lower", resolution=0.1, guardrails=("p95 latency",))
    ids = [f"dev-{i:04d}" for i in range(10_000)]

    assert sum(plan.arm("exp-1", d) for d in ids) == 5_033


def test_a_release_that_changes_nothing_is_hardly_ever_paused() -> None:
    for name in ("nothing changed", "everybody 8 % slower"):
        stops = [paused_after(np.random.default_rng([7, seed]), CHANGES[name], 200) for seed in range(60)]
        assert not any(stops)  # 0 of 1,000 were measured


@pytest.mark.parametrize(
    ("change", "devices"),
    [("20 % slower", 77), ("memory + 15 %", 77), ("class rate + 3 points", 120), ("2 points less accurate", 300), ("8 % disagree", 300)],
)
def test_a_change_of_the_model_pauses_after_so_many_devices(change: str, devices: int) -> None:
    stops = [paused_after(np.random.default_rng([8, seed]), CHANGES[change], devices) for seed in range(30)]

    assert sum(at > 0 for at in stops) >= 28


def test_looks_after_every_device_give_the_verdict_of_the_engine() -> None:
    change = CHANGES["20 % slower"]
    stop = paused_after(np.random.default_rng([9, 1]), change, 100)
    drawn = differences(np.random.default_rng([9, 1]), change, 100)

    for devices, pauses in ((stop - 1, False), (stop, True)):
        stakes = {name: Wealth.start(gate).after(gate, drawn[name][:devices].tolist()) for name, gate in COMPARISONS.items()}
        assert compare(stakes, devices).pauses is pauses


def test_the_virtual_fleet_is_paused_for_a_slower_model_and_completed_for_a_good_one() -> None:
    good, slow = (simulate(300, SCENES["churn"], BEHAVIOURS["0.5 %"], 1, change=CHANGES[n]) for n in ("nothing changed", "20 % slower"))
    plain = simulate(300, SCENES["churn"], BEHAVIOURS["0.5 %"], 1)

    assert (good.stopped, plain.stopped) == ("", "")
    assert plain.hours <= good.hours <= plain.hours + 4 * 6  # each of at most six waves waits for rows of its last devices
    assert slow.stopped == "paused"
    assert "p95 latency" in slow.reason
    assert slow.exposed < good.exposed
