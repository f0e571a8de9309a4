"""Gates that compare devices: what they find, what they let pass, and what they refuse to read."""

import math

import numpy as np
import pytest

from edgefleet.errors import ConfigError
from fleet_server.rollout.betting import wealth as single
from fleet_server.rollout.comparisons import COMPARISONS, PAUSE_AT, Wealth, compare

LATENCY, BINS = COMPARISONS["p95 latency"], COMPARISONS["score bins"]


def seen(name: str, differences: np.ndarray) -> Wealth:
    gate = COMPARISONS[name]
    rows = np.atleast_2d(differences).reshape(-1, gate.columns)
    return Wealth.start(gate).after(gate, rows.tolist())


def pairs(seed: int, devices: int, mean: float, deviation: float) -> np.ndarray:
    """Differences of a device against the mean of two controls of its own."""
    rng = np.random.default_rng(seed)
    return np.asarray(mean + rng.normal(0, deviation, devices) - rng.normal(0, deviation / math.sqrt(2), devices))


def all_same(seed: int, devices: int) -> dict[str, Wealth]:
    rng = np.random.default_rng(seed)
    return {
        "shadow agreement": seen("shadow agreement", rng.beta(1.8, 58.2, devices)),
        "label metric": seen("label metric", rng.normal(0, 0.03, devices)),
        "p95 latency": seen("p95 latency", pairs(seed, devices, 0.0, 0.1)),
        "memory": seen("memory", pairs(seed + 1, devices, 0.0, 0.05)),
        "class rate": seen("class rate", pairs(seed + 2, devices, 0.0, 0.02)),
        "score bins": seen("score bins", np.stack([pairs(seed + 10 + i, devices, 0.0, 0.015) for i in range(10)], axis=1)),
    }


def test_a_release_that_changes_nothing_pauses_no_rollout() -> None:
    assert not any(compare(all_same(seed, 300), 300).pauses for seed in range(100))


def test_a_fifth_more_latency_is_found_by_the_first_wave() -> None:
    found = [
        compare(all_same(seed, 77) | {"p95 latency": seen("p95 latency", pairs(seed, 77, math.log(1.2), 0.1))}, 77) for seed in range(50)
    ]

    assert sum(one.pauses for one in found) >= 49
    assert {one.worst for one in found if one.pauses} == {"p95 latency"}


@pytest.mark.parametrize("way", [1.0, -1.0])
def test_a_class_that_becomes_rarer_is_as_bad_as_one_that_becomes_more_frequent(way: float) -> None:
    assert seen("class rate", pairs(3, 200, way * 0.03, 0.02)).evidence > 600
    assert seen("p95 latency", pairs(3, 200, -0.3, 0.1)).evidence < 1  # faster is no fault


def test_a_shift_of_scores_shows_in_the_bins_it_moves() -> None:
    change = np.zeros((300, 10))
    change[:, 0], change[:, 9] = -0.03, 0.03

    assert seen("score bins", change + np.random.default_rng(1).normal(0, 0.012, change.shape)).evidence > 600


def test_mean_of_all_gates_decides_so_that_one_alone_needs_six_times_as_much() -> None:
    lonely = {"memory": seen("memory", np.full(60, 0.11))}
    evidence = lonely["memory"].evidence

    assert compare(lonely, 60).evidence == pytest.approx((evidence + 5) / 6)
    assert compare(lonely, 60).pauses is ((evidence + 5) / 6 >= PAUSE_AT)


def test_wealth_goes_on_where_it_was_stored() -> None:
    differences = pairs(5, 40, 0.05, 0.1)
    halves = Wealth.start(LATENCY).after(LATENCY, differences[:20, None].tolist()).after(LATENCY, differences[20:, None].tolist())

    assert halves.evidence == pytest.approx(seen("p95 latency", differences).evidence)
    assert halves.evidence == pytest.approx(single(differences, LATENCY.tolerance, LATENCY.clip))
    assert halves.devices == 40


def test_a_wave_waits_until_four_fifths_of_it_have_been_compared() -> None:
    few, enough = ({"memory": seen("memory", np.zeros(n))} for n in (79, 80))

    assert compare(few, 100).immature == ("memory",)
    assert compare(enough, 100).immature == ()
    assert compare({"memory": Wealth.start(COMPARISONS["memory"])}, 0).immature == ("memory",)


def test_without_gates_nothing_is_judged() -> None:
    assert compare({}, 10) == compare({}, 0)
    assert not compare({}, 10).pauses


def test_evidence_beyond_every_float_is_still_a_number() -> None:
    assert math.isfinite(seen("shadow agreement", np.full(5_000, 0.5)).evidence)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda: seen("memory", np.array([math.nan])), "memory|difference"),
        (lambda: Wealth.start(BINS).after(BINS, [[0.1] * 9]), "expected 10"),
        (lambda: compare({"mood": Wealth.start(LATENCY)}, 3), "mood"),
    ],
)
def test_numbers_that_no_gate_can_read_are_refused(made: object, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        made()  # type: ignore[operator]
