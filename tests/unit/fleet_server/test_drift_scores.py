from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
from numpy.typing import NDArray

from edgefleet.errors import InputError
from edgefleet.manifest import Input
from edgefleet.reference import build_reference
from edgefleet.statistics import InputStatistics
from fleet_server.drift import design_effect, score_scale, window_scores
from fleet_server.drift.scores import MAX_SCORE, cell_scores
from tests.unit.fleet_server.drift_world import inputs, normal_reference


def _statistics(rows: list[list[float]], train: list[list[float]]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    reference = build_reference(np.array(train, np.float32), inputs(len(train[0])), block_rows=2)
    window = InputStatistics.empty(reference)
    window.update(np.array(rows, np.float32), reference)
    return window_scores(window, reference)


def test_the_scores_of_the_reference_itself_are_about_zero_with_unit_scale() -> None:
    reference = normal_reference()
    same = replace(InputStatistics.empty(reference), rows=2000, counts=reference.counts)
    scores, present = window_scores(same, reference)
    assert np.abs(scores).max() < 0.01  # ten equal cells: the mid quantiles cancel but for the odd row
    assert present.tolist() == [2000] * 64
    middles = [NormalDist().inv_cdf((2 * i + 1) / 20) for i in range(10)]
    assert score_scale(reference) == pytest.approx(float(np.std(middles)), abs=1e-3)  # one row of 2,000 may fall beside its decile


def test_a_shift_of_one_sigma_is_a_score_of_about_one() -> None:
    reference = normal_reference()
    window = InputStatistics.empty(reference)
    window.update((np.random.default_rng(1).normal(size=(4000, 64)) + 1).astype(np.float32), reference)
    cuts = [NormalDist(mu=1).cdf(NormalDist().inv_cdf(i / 10)) if 0 < i < 10 else float(i > 0) for i in range(11)]
    middles = [NormalDist().inv_cdf((2 * i + 1) / 20) for i in range(10)]
    expected = float(np.dot(np.diff(cuts), middles))  # 0.84: the outer cells are wide
    # Rows above the training maximum score more than the last decile's middle (1 % of rows, 0.85 each), and deciles of 2,000 rows wobble.
    assert float(window_scores(window, reference)[0].mean()) == pytest.approx(expected, abs=0.04)


def test_missing_values_are_left_out_of_the_mean_and_counted_out() -> None:
    nan = float("nan")
    scores, present = _statistics([[0.0], [nan], [nan]], [[0.0], [0.0], [1.0], [1.0]])
    assert scores[0] == pytest.approx(-0.6745, abs=1e-4)
    assert present[0] == 1


def test_a_feature_without_any_value_has_no_score() -> None:
    scores, present = _statistics([[float("nan")]], [[0.0], [1.0]])
    assert np.isnan(scores[0])
    assert present[0] == 0


def test_a_constant_feature_scores_zero_whatever_comes() -> None:
    scores, _ = _statistics([[9.0], [-9.0]], [[3.0], [3.0], [3.0]])
    assert scores[0] == 0.0


def test_an_unseen_category_has_no_place_in_the_order() -> None:
    reference = build_reference(
        np.array([[0], [1], [1], [2]], np.float32), [Input(name="c", kind="category", categories=["a", "b", "c"])], block_rows=2
    )
    window = InputStatistics.empty(reference)
    window.update(np.array([[-1], [1]], np.float32), reference)
    scores, present = window_scores(window, reference)
    assert scores[0] == pytest.approx(0.0)
    assert present[0] == 1


def test_values_outside_the_reference_have_the_largest_score_and_not_more() -> None:
    table = cell_scores(normal_reference())
    assert np.abs(table).max() == pytest.approx(MAX_SCORE)
    assert (table[:, -2:] == 0).all()


def test_statistics_of_another_reference_are_refused() -> None:
    with pytest.raises(InputError, match="cannot be scored"):
        window_scores(InputStatistics.empty(normal_reference(seed=3)), normal_reference())


def test_independent_rows_have_a_design_effect_near_one() -> None:
    effect = design_effect(normal_reference())
    assert effect.min() >= 1.0
    assert float(np.median(effect)) < 1.5  # the largest of two noisy estimates from 40 and 10 stretches


def test_rows_that_follow_each_other_have_a_large_design_effect() -> None:
    rng, rho = np.random.default_rng(0), 0.9
    rows = np.zeros((4000, 2))
    for t in range(1, len(rows)):
        rows[t] = rho * rows[t - 1] + np.sqrt(1 - rho**2) * rng.normal(size=2)
    effect = design_effect(build_reference(rows.astype(np.float32), inputs(2), block_rows=50))
    assert effect.min() > 8.0  # theory: (1 + rho) / (1 - rho) = 19


def test_without_windows_the_design_effect_is_one() -> None:
    reference = build_reference(np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32), inputs(3), block_rows=500)
    assert design_effect(reference).tolist() == [1.0, 1.0, 1.0]


def _levels(rng: np.random.Generator, rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Eight groups, one after the other, at levels of their own."""
    return rows + np.repeat(rng.normal(size=8), len(rows) // 8)[:, None]


def test_the_level_of_a_group_is_no_autocorrelation() -> None:
    rng = np.random.default_rng(0)
    rows = _levels(rng, rng.normal(size=(4000, 2))).astype(np.float32)
    grouped = build_reference(rows, inputs(2), block_rows=50, block_group=np.repeat(np.arange(8), 10))
    assert design_effect(build_reference(rows, inputs(2), block_rows=50)).min() > 8.0
    assert design_effect(grouped).max() < 1.5  # 72 degrees of freedom know a variance to 17 %


def test_rows_that_follow_each_other_within_groups_have_a_large_design_effect() -> None:
    rng, rho = np.random.default_rng(0), 0.9
    rows = np.zeros((4000, 2))
    for t in range(1, len(rows)):
        rows[t] = rho * rows[t - 1] + np.sqrt(1 - rho**2) * rng.normal(size=2)
    reference = build_reference(rows.astype(np.float32), inputs(2), block_rows=50, block_group=np.repeat(np.arange(8), 10))
    assert design_effect(reference).min() > 8.0  # theory: 19


def test_groups_of_one_window_say_nothing_of_autocorrelation() -> None:
    rng = np.random.default_rng(0)
    rows = _levels(rng, rng.normal(size=(400, 2))).astype(np.float32)
    reference = build_reference(rows, inputs(2), block_rows=5, block_group=np.arange(80))
    assert design_effect(reference).tolist() == [1.0, 1.0]
