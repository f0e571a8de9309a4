"""The numbers of the rollout rule against worked values, and their guarantees against simulation and exact sums."""

import doctest
import itertools
import math
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet.errors import ConfigError
from fleet_server.rollout import betting, bounds, eprocess, experiment, posterior
from fleet_server.rollout.betting import wealth
from fleet_server.rollout.bounds import devices_needed, proves, share_at_most, upper_bound
from fleet_server.rollout.eprocess import e_value, mean_evidence
from fleet_server.rollout.posterior import History, bad_probability, silence_prior

# (failures, devices): evidence against 5 %, upper bound at 90 %
WORKED = {
    (0, 0): (1.0, 1.0),
    (0, 1): (0.808943, 0.9),
    (1, 1): (4.63008, 1.0),
    (2, 2): (40.6886, 1.0),
    (2, 5): (6.33226, 0.753364),
    (3, 5): (65.9132, 0.887765),
    (0, 20): (0.278550, 0.108749),
    (4, 20): (6.53501, 0.360662),
    (5, 20): (27.5010, 0.414890),
    (0, 44): (0.154444, 0.050986),
    (0, 45): (0.151426, 0.049881),
    (1, 77): (0.114912, 0.049577),
    (5, 100): (0.250930, 0.090771),
    (12, 100): (13.2034, 0.172633),
    (14, 100): (88.6412, 0.195038),
    (0, 200): (0.0223916, 0.011447),
    (40, 500): (12.0688, 0.097841),
    (60, 1000): (0.447422, 0.070796),
}
LEAST_DEVICES = {
    0.01: (230, 388, 531, 667, 926),
    0.02: (114, 194, 265, 333, 462),
    0.05: (45, 77, 105, 132, 184),
    0.1: (22, 38, 52, 65, 91),
    0.2: (11, 18, 25, 32, 45),
}
BAD = {
    (0, 0): 0.1, (0, 1): 0.082389, (1, 1): 0.689655, (0, 5): 0.049318, (1, 5): 0.400449, (1, 10): 0.225032, (2, 20): 0.377856,
    (3, 40): 0.329971, (4, 80): 0.173889, (8, 80): 0.837874, (5, 160): 0.067226,
}  # fmt: skip
WARNINGS = {(2, 2): 74.3637, (2, 5): 12.1610, (3, 10): 27.0581, (4, 20): 26.3310, (5, 40): 11.7543, (7, 77): 8.71758, (8, 77): 26.0791}


@pytest.mark.parametrize(
    "module", [betting, bounds, eprocess, experiment, posterior], ids=lambda module: module.__name__.rpartition(".")[2]
)
def test_the_examples_in_the_docstrings_are_true(module: ModuleType) -> None:
    result = doctest.testmod(module)

    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize("counts", WORKED)
def test_evidence_and_bound_have_their_worked_values(counts: tuple[int, int]) -> None:
    evidence, bound = WORKED[counts]

    assert e_value(*counts, 0.05) == pytest.approx(evidence, rel=5e-6)
    assert upper_bound(*counts, 0.9) == pytest.approx(bound, abs=5e-7)


@pytest.mark.parametrize("limit", LEAST_DEVICES)
def test_a_promotion_needs_so_many_devices(limit: float) -> None:
    assert tuple(devices_needed(k, limit, 0.9) for k in (0, 1, 2, 3, 5)) == LEAST_DEVICES[limit]


@pytest.mark.parametrize("counts", WARNINGS)
def test_the_early_warning_has_its_worked_values(counts: tuple[int, int]) -> None:
    assert e_value(*counts, 0.03) == pytest.approx(WARNINGS[counts], rel=5e-6)


@pytest.mark.parametrize("counts", BAD)
def test_the_posterior_has_its_worked_values(counts: tuple[int, int]) -> None:
    assert bad_probability(*counts) == pytest.approx(BAD[counts], abs=5e-7)


@given(limit=st.floats(0.001, 0.5), share=st.floats(0, 1))
def test_no_share_up_to_the_limit_makes_the_evidence_grow_on_average(limit: float, share: float) -> None:
    truth = share * limit

    expected = truth * e_value(1, 1, limit) + (1 - truth) * e_value(0, 1, limit)

    assert expected <= 1 + 1e-9


def test_a_release_at_its_limit_is_stopped_in_at_most_one_of_twenty_rollouts_however_often_one_looks() -> None:
    runs, devices, limit = 2_000, 400, 0.05
    failed = np.random.default_rng(1).random((runs, devices)) < limit
    table = np.array([[e_value(k, max(n, k), limit) >= 20 for n in range(devices + 1)] for k in range(61)])
    counts = np.minimum(failed.cumsum(axis=1), 60)

    ever = table[counts, np.arange(1, devices + 1)].any(axis=1).mean()

    assert 0.005 < ever <= 0.05  # it can stop something, and never more than it may


def test_a_flawless_release_is_never_evidence_against_itself() -> None:
    assert all(e_value(0, n, 0.05) <= 1 + 1e-12 for n in range(2_000))


@given(counts=st.integers(0, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), limit=st.sampled_from([0.01, 0.05, 0.2]))
def test_one_more_failure_never_weakens_the_evidence_nor_lowers_the_bound(counts: tuple[int, int], limit: float) -> None:
    k, n = counts

    assert e_value(k + 1, n + 1, limit) >= e_value(k, n + 1, limit)
    assert upper_bound(k + 1, n + 1, 0.9) >= upper_bound(k, n + 1, 0.9)
    assert not (proves(k + 1, n + 1, limit, 0.9) and not proves(k, n + 1, limit, 0.9))


@pytest.mark.parametrize(("n", "p"), [(1, 0.5), (17, 0.05), (200, 0.3), (400, 0.9)])
def test_binomial_tails_are_those_of_exact_sums(n: int, p: float) -> None:
    exact = list(itertools.accumulate(math.comb(n, j) * p**j * (1 - p) ** (n - j) for j in range(n + 1)))

    assert [share_at_most(k, n, p) for k in range(n + 1)] == pytest.approx(exact, abs=1e-12)


def test_a_million_devices_are_counted_without_underflow() -> None:
    assert share_at_most(50_000, 1_000_000, 0.05) == pytest.approx(0.5, abs=0.01)
    assert upper_bound(50_000, 1_000_000, 0.9) == pytest.approx(0.05 + 1.2816 * math.sqrt(0.05 * 0.95 / 1e6), abs=1e-5)


def test_history_is_used_from_five_releases_on_and_never_teaches_that_bad_is_normal() -> None:
    assert History(4, 9, 900).prior() == (1.0, 99.0)
    assert History(5, 9, 299).prior() == (1.0, 99.0)
    assert History(5, 9, 300).prior() == pytest.approx((9.0, 291.0))
    assert History(9, 500, 1_000).prior() == pytest.approx((12.0, 288.0))
    assert History(9, 0, 9_000).prior() == pytest.approx((1.0, 299.0))


def test_missing_devices_are_judged_against_what_the_controls_miss() -> None:
    assert bad_probability(5, 20, silence_prior(0.25)) < 0.1 < 0.9 < bad_probability(5, 20, silence_prior(0.0))


@pytest.mark.parametrize(
    ("differences", "value"),
    [
        ([], 1.0),
        ([0.1], 1.1281818),
        ([0.1] * 10, 5.1215845),
        ([0.0] * 10, 0.7472819),
        ([0.5, -0.5] * 5, 0.51321865),
        ([0.08] * 50, 8166.641),
        ([0.15] * 20, 788.90965),
        ([0.02] * 50, 1.0),
    ],
)
def test_a_gambler_wins_what_the_worked_values_say(differences: list[float], value: float) -> None:
    assert wealth(differences, 0.02, 0.2) == pytest.approx(value, rel=5e-7)


def test_a_plan_foresees_how_many_devices_show_a_slowdown_of_a_fifth() -> None:
    pair = 0.10 * math.sqrt(1.5)  # of a device against the mean of two controls

    needed = betting.devices_to_see(math.log(1.2), pair, math.log(1.05), 0.4, 100 * 6 * 8)

    assert needed == pytest.approx(39, abs=1)
    assert betting.devices_to_see(math.log(1.05), pair, math.log(1.05), 0.4, 4_800) == math.inf


def test_more_power_needs_more_devices_and_none_below_a_half_is_planned() -> None:
    asked = (math.log(1.2), 0.10 * math.sqrt(1.5), math.log(1.05), 0.4, 4_800)

    half, four_fifths = betting.devices_to_see(*asked), betting.devices_to_see(*asked, power=0.8)

    assert (half, four_fifths) == pytest.approx((39, 44), abs=1)
    with pytest.raises(ConfigError, match=r"power 0\.4"):
        betting.devices_to_see(*asked, power=0.4)


def test_stakes_go_on_where_a_stored_sum_stood() -> None:
    whole = betting.log_wealths([0.1, -0.05, 0.3, 0.02], 0.02, 0.2)

    assert betting.log_wealths([0.1, -0.05], 0.02, 0.2) + betting.log_wealths([0.3, 0.02], 0.02, 0.2) == pytest.approx(whole)


def test_arms_are_shared_out_as_asked() -> None:
    devices = [f"dev-{i:04d}" for i in range(10_000)]

    assert sum(experiment.arm("exp-1", device) for device in devices) == 5_033
    assert sum(experiment.arm("exp-1", device, (0.8, 0.1, 0.1)) == 1 for device in devices) == 1_019


@pytest.mark.parametrize(("n", "half"), [(100, 0.645333), (400, 0.303545), (1_000, 0.195352)])
def test_the_interval_of_an_experiment_has_its_worked_width(n: int, half: float) -> None:
    assert experiment.half_width(n, 4 / n) == pytest.approx(half, abs=5e-7)


def test_an_experiment_needs_so_many_devices_for_its_resolution() -> None:
    assert [experiment.devices_needed(resolution, 1.0) for resolution in (0.5, 0.3, 0.2, 0.1)] == [155, 410, 952, 4_262]


@pytest.mark.parametrize(
    ("k", "n", "value"), [(50, 100, 0.706224), (65, 100, 6.83535), (5_200, 10_000, 274.133), (5_250, 10_000, 23_682.4)]
)
def test_arms_that_did_not_get_their_share_are_found(k: int, n: int, value: float) -> None:
    assert experiment.ratio_evidence(k, n) == pytest.approx(value, rel=5e-6)


@pytest.mark.parametrize(
    "asked",
    [
        lambda: e_value(3, 2, 0.05),
        lambda: e_value(math.nan, 2, 0.05),
        lambda: e_value(0, math.inf, 0.05),
        lambda: e_value(0, 2, 1.0),
        lambda: upper_bound(-1, 2, 0.9),
        lambda: upper_bound(0, 2, 1.0),
        lambda: bad_probability(3, 2),
        lambda: silence_prior(1.0),
        lambda: wealth([math.nan], 0.02, 0.2),
        lambda: wealth([0.1], 0.2, 0.2),
        lambda: mean_evidence([(0.5, 1.0), (0.4, 1.0)]),
        lambda: experiment.arm("s", "d", (0.5, 0.6)),
        lambda: experiment.half_width(0, 1.0),
        lambda: experiment.ratio_evidence(3, 2),
        lambda: betting.devices_to_see(0.1, 0.1, 0.2, 0.1, 100),
        lambda: experiment.devices_needed(0, 1),
    ],
)
def test_numbers_that_cannot_be_are_refused_by_name(asked: object) -> None:
    with pytest.raises(ConfigError, match=r"\d|nan|inf"):
        asked()  # type: ignore[operator]


@pytest.mark.parametrize("confidence", [0.5, 0.8, 0.9, 0.999_999])
@pytest.mark.parametrize(("failures", "devices"), [(0, 1), (0, 77), (1, 2), (6, 95), (76, 77), (999, 100_000), (99_998, 100_000)])
def test_at_the_bound_so_few_failures_are_as_likely_as_the_confidence_leaves(failures: int, devices: int, confidence: float) -> None:
    bound = upper_bound(failures, devices, confidence)

    # Next to 1 a float leaves nine digits or less of what is missing to it, and the share is steep there.
    assert share_at_most(failures, devices, bound) == pytest.approx(1 - confidence, rel=1e-5)
