"""What a variant is compared by: classes with ties and thresholds, values in their spread, scores by their area."""

import numpy as np
import pytest
from numpy.typing import NDArray

from converter.comparing import Answers, Comparison, Truth, answered_class, compare, golden_failures, spread_of
from converter.originals import Original

Floats = NDArray[np.float64]


def of_classes(truth: Floats, single: Floats, label: list[int], slices: list[str], threshold: float | None = None) -> Comparison:
    known = Truth("classification", Original(truth, truth), np.array(label), np.array(slices), threshold)
    return compare(known, Answers(single, single.copy()), 0.0)


def of_values(task: str, values: Floats, variant: Floats, label: Floats, slices: list[str] | None = None) -> Comparison:
    original = Original(np.empty((len(values), 0)), values[:, None])
    names = np.array(slices or ["all"] * len(values))
    known = Truth(task, original, label, names, spread=spread_of(task, original))  # type: ignore[arg-type]
    return compare(known, Answers(variant[:, None], variant[:, None]), 0.1)


def test_comparison_counts_ties_refusals_and_pairs() -> None:
    truth = np.array([[0.9, 0.1], [0.5, 0.5 - 1e-7], [0.2, 0.8], [0.7, 0.3]])
    single = np.array([[0.9, 0.1], [0.5 - 1e-7, 0.5], [0.6, 0.4], [np.nan, np.nan]])

    result = of_classes(truth, single, [0, 0, 1, 0], ["a", "a", "b", "b"])

    assert (result.n, result.refused, result.agreed) == (3, 1, 1)
    assert (result.outside_ties, result.agreed_outside_ties) == (2, 1)
    assert result.value == pytest.approx(1 / 3)
    assert result.value_original == 1.0
    assert [(drop.name, drop.worse) for drop in result.slices] == [("a", 1), ("b", 1)]


def test_a_batch_that_answers_otherwise_than_its_rows_do_alone_disagrees() -> None:
    truth = np.array([[0.9, 0.1], [0.2, 0.8]])
    known = Truth("classification", Original(truth, truth), np.array([0, 1]), np.array(["a", "a"]))

    result = compare(known, Answers(truth, truth[:, ::-1]), 0.0)

    assert result.agreed == 0
    assert result.max_error == pytest.approx(0.8)
    assert result.mean_error == 0


def test_a_threshold_decides_the_class_and_its_neighbourhood_is_the_tie() -> None:
    shares = np.array([[0.75, 0.25], [0.85, 0.15], [0.8, 0.2]])

    assert answered_class(shares, 0.2, 1).tolist() == [1, 0, 1]
    result = of_classes(shares, np.array([[0.79, 0.21], [0.79, 0.21], [0.800001, 0.199999]]), [1, 0, 1], ["a"] * 3, 0.2)
    assert (result.agreed, result.outside_ties, result.agreed_outside_ties) == (1, 2, 1)


def test_errors_of_values_are_in_units_of_their_spread() -> None:
    values = np.array([0.0, 100.0, 200.0, 300.0])
    spread = float(values.std())

    result = of_values("regression", values, values + spread * np.array([0.0, 0.05, 0.2, 0.0]), values)

    assert result.max_error == pytest.approx(0.2)
    assert result.agreed == 3


def test_the_drop_of_a_regression_is_the_relative_growth_of_its_error_with_an_honest_interval() -> None:
    rng = np.random.default_rng(0)
    target = rng.normal(0, 1, 4000)
    values = target + rng.normal(0, 0.5, 4000)

    worse = of_values("regression", values, values + rng.normal(0, 0.25, 4000), target)
    same = of_values("regression", values, values + rng.normal(0, 0.005, 4000), target)

    assert worse.overall is not None
    assert same.overall is not None
    expected = np.sqrt(0.5**2 + 0.25**2) / 0.5 - 1
    assert worse.overall.low < expected < worse.overall.high
    assert abs(same.overall.value) < same.overall.high < 0.01


def test_the_drop_of_scores_is_their_area_and_slices_without_both_kinds_are_left_out() -> None:
    rng = np.random.default_rng(1)
    strange = (np.arange(2000) % 10 == 0).astype(int)
    scores = rng.normal(0, 1, 2000) + 2 * strange
    names = ["ordinary" if i % 10 else "mixed" for i in range(2000)]

    result = of_values("anomaly", scores, scores + rng.normal(0, 2, 2000), strange, names)

    assert result.overall is not None
    assert result.value_original is not None
    assert result.value is not None
    assert result.value_original - result.value == pytest.approx(result.overall.value)
    assert result.overall.low > 0.02
    assert result.slices == []


def test_a_refused_golden_row_counts_as_an_infinite_error() -> None:
    truth = np.array([[0.9, 0.1]])
    known = Truth("classification", Original(truth, truth), np.array([0]), np.array(["a"]))

    assert golden_failures(known, Answers(np.full((1, 2), np.nan), truth), 0.2)[0] == np.inf


def test_golden_labels_are_judged_by_the_threshold_that_the_device_uses() -> None:
    shares = np.array([[0.9, 0.1], [0.55, 0.45]])
    known = Truth("classification", Original(shares, shares), np.array([0, 1]), np.array(["a", "a"]), threshold=0.3)
    variant = np.array([[0.65, 0.35], [0.45, 0.55]])

    assert golden_failures(known, Answers(variant, variant), 0.2)[1] == 1


def test_a_slice_that_the_original_answers_to_its_last_bits_has_no_relative_error_to_compare() -> None:
    rng = np.random.default_rng(4)
    target = np.concatenate([np.zeros(100), rng.normal(10, 3, 300)])
    values = np.concatenate([np.full(100, 1e-12), target[100:] + rng.normal(0, 1, 300)])
    variant = values + rng.normal(0, 1e-3, 400)

    result = of_values("regression", values, variant, target, ["dry"] * 100 + ["wet"] * 300)

    assert [drop.name for drop in result.slices] == ["wet"]


def test_a_variant_that_happens_to_be_exactly_right_has_lost_all_error_and_finite_bounds() -> None:
    target = np.random.default_rng(0).normal(0, 1, 50)

    result = of_values("regression", target + 0.25, target, target)

    assert result.overall is not None
    assert (result.overall.value, result.overall.low, result.overall.high) == (-1.0, -1.0, -1.0)
