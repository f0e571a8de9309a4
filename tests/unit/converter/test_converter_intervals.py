"""Intervals against numbers that can be checked by hand or by enumeration."""

import math

import pytest

from converter.intervals import paired_drop
from edgefleet.intervals import Z_ONE_SIDED


def test_without_a_disagreement_the_rule_of_three_bounds_what_may_be_hidden() -> None:
    low, high = paired_drop(0, 0, 300)

    # The probability of seeing none of 300 at a rate of 1 % is 4.9 %: 300 rows are what one point needs.
    assert (low, high) == (-0.01, 0.01)
    assert math.isclose(0.99**300, 0.049, abs_tol=1e-3)


def test_a_better_variant_has_a_negative_drop() -> None:
    low, high = paired_drop(worse=0, better=20, n=720)

    assert low < -20 / 720 < high < 0


def test_bounds_become_wider_with_each_disagreement_even_when_they_cancel() -> None:
    widths = [paired_drop(k, k, 720)[1] for k in range(1, 30)]

    assert widths == sorted(widths)


@pytest.mark.parametrize(("rate_worse", "rate_better"), [(0.02, 0.01), (0.05, 0.05), (0.10, 0.02)])
def test_the_upper_bound_covers_the_true_drop_about_as_often_as_it_says(rate_worse: float, rate_better: float) -> None:
    n = 200
    covered = 0.0
    for worse in range(60):
        for better in range(60):
            rest = n - worse - better
            log_p = math.lgamma(n + 1) - math.lgamma(worse + 1) - math.lgamma(better + 1) - math.lgamma(rest + 1)
            log_p += worse * math.log(rate_worse) + better * math.log(rate_better) + rest * math.log(1 - rate_worse - rate_better)
            if paired_drop(worse, better, n, Z_ONE_SIDED)[1] >= rate_worse - rate_better:
                covered += math.exp(log_p)

    assert covered > 0.93  # nominal 0.95; a score-like interval may miss it by a little where counts are small
