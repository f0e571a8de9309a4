import numpy as np
import pytest

from trainer import intervals


def test_rows_of_identical_groups_count_once() -> None:
    right = np.repeat([True, False, True, True, False] * 10, 4)
    groups = np.repeat(np.arange(50), 4)

    grouped = intervals.proportion(right, groups)
    alone = intervals.proportion(right[::4])

    # 50 groups of 4 equal rows carry 50 rows' worth; the factor G / (G - 1) takes one more away.
    assert grouped.effective_n == pytest.approx(49.0)
    assert alone.effective_n == 50
    assert grouped.value == alone.value
    assert grouped.low == pytest.approx(alone.low, abs=0.002)


def test_independent_rows_cost_nothing() -> None:
    right = np.random.default_rng(1).random(4000) < 0.9
    groups = np.arange(4000)

    assert intervals.design_effect(right.astype(np.float64), groups) == pytest.approx(4000 / 3999)


def test_all_right_counts_each_group_as_one_row() -> None:
    share = intervals.proportion(np.full(80, True), np.repeat(np.arange(20), 4))

    assert share.effective_n == 20


def test_paired_difference_is_the_formula_by_hand() -> None:
    # 500 rows: 15 right only with the new model, 10 only with the old one. b = 15.5, c = 10.5, n = 502.
    new = np.array([True] * 15 + [False] * 10 + [True] * 475)
    old = np.array([False] * 15 + [True] * 10 + [True] * 475)

    delta = intervals.paired_difference(new, old)

    error = np.sqrt(26 - 25 / 502) / 502
    assert delta.value == pytest.approx(5 / 502)
    assert delta.lower == pytest.approx(5 / 502 - 1.6448536 * error, abs=1e-8)
    assert delta.upper == pytest.approx(5 / 502 + 1.6448536 * error, abs=1e-8)
    assert delta.discordant_fraction == pytest.approx(25 / 500)


@pytest.mark.parametrize("floor", [0.5, 0.85, 0.99])
def test_the_floor_test_is_the_binomial_sum(floor: float) -> None:
    from scipy.stats import binom

    assert intervals.below_floor_p(40, 50, floor) == pytest.approx(float(binom.cdf(40, 50, floor)), rel=1e-10)


def test_the_floor_test_of_all_right_never_rejects() -> None:
    assert intervals.below_floor_p(50, 50, 0.99) == 1.0


def test_exact_bounds_at_the_ends_are_closed() -> None:
    # Clopper and Pearson with k = n: the lower bound is alpha^(1/n).
    lower, upper = intervals.exact_bounds(20, 20)
    assert lower == pytest.approx(0.05 ** (1 / 20))
    assert upper == 1.0
    lower, upper = intervals.exact_bounds(0, 20)
    assert lower == 0.0
    assert upper == pytest.approx(1 - 0.05 ** (1 / 20))
