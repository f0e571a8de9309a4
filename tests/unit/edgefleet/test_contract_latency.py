"""Latency histograms: quantiles within the stated error of what was measured, sums whatever the order, old form and wire form exact."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefleet import latency

nanoseconds = st.lists(st.one_of(st.integers(0, 10_000), st.integers(0, 4 * 10**12)), max_size=60)


@pytest.mark.parametrize("name", ["uniform", "lognormal", "two humps", "constant", "pareto"])
@pytest.mark.parametrize("fraction", [0.5, 0.95, 0.99])
def test_a_quantile_is_within_the_stated_error_of_the_measured_one(name: str, fraction: float) -> None:
    rng = np.random.default_rng(3)
    drawn = {
        "uniform": rng.uniform(1e3, 1e6, 5000),
        "lognormal": rng.lognormal(10, 1, 5000) + 1e3,
        "two humps": np.concatenate([rng.normal(20e3, 1e3, 4900), rng.normal(9e6, 1e5, 100)]),
        "constant": np.full(5000, 17_123.0),
        "pareto": rng.pareto(1.1, 5000) * 5e3 + 1e3,
    }[name].astype(np.int64)

    found = latency.quantile_us(latency.count_latencies(drawn.tolist()), fraction)

    measured = np.quantile(drawn, fraction, method="inverted_cdf") / 1000
    assert found == pytest.approx(measured, rel=latency.QUANTILE_ERROR_FRACTION)


@settings(deadline=None)
@given(nanoseconds, nanoseconds)
def test_counting_is_additive_and_the_wire_form_is_read_back(a: list[int], b: list[int]) -> None:
    both = latency.count_latencies(a) + latency.count_latencies(b)

    np.testing.assert_array_equal(both, latency.count_latencies(a + b))
    np.testing.assert_array_equal(latency.from_wire(latency.to_wire(both)), both)
    octaves = [0] * latency.OCTAVES
    for ns in a + b:
        octaves[min(max(ns // 1000, 1).bit_length() - 1, latency.OCTAVES - 1)] += 1
    assert latency.power_of_two(both) == np.trim_zeros(octaves, "b")


@settings(deadline=None)
@given(st.lists(st.integers(0, 10**9), max_size=32))
def test_the_form_of_older_devices_keeps_its_counts_per_octave(octaves: list[int]) -> None:
    assert latency.power_of_two(latency.spread(octaves)) == np.trim_zeros(octaves, "b")


@given(st.lists(st.integers(-(2**70), 2**70), max_size=300))
def test_any_numbers_are_a_histogram_or_none_and_never_an_exception(wire: list[int]) -> None:
    counts = latency.from_wire(wire)

    assert counts is None or len(counts) == latency.BUCKETS
