"""Intervals against numbers that can be checked by hand."""

import pytest

from edgefleet.intervals import Z_ONE_SIDED, wilson


def test_wilson_gives_the_textbook_interval() -> None:
    # Newcombe (1998), Statistics in Medicine 17, 857, table I: 81 of 263.
    low, high = wilson(81, 263)

    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)


def test_wilson_of_nothing_knows_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("n", [1, 30, 720])
def test_wilson_ends_are_exact_at_none_and_all(n: int) -> None:
    assert wilson(0, n)[0] == 0.0
    assert wilson(n, n)[1] == 1.0


def test_wilson_at_full_success_is_not_certain() -> None:
    # By hand: with p = 1 the interval is [1 / (1 + z^2 / n), 1] = [1 / (1 + 2.7055 / 30), 1].
    assert wilson(30, 30, Z_ONE_SIDED)[0] == pytest.approx(1 / (1 + 1.6448536269514722**2 / 30), abs=1e-12)
