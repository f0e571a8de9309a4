"""Every form of explanation on the device: closed form, student, sampling with players, windows and a budget; damaged files are refused."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from device_agent.explain import open_explainer
from device_agent.explanation import Matrix
from device_agent.sampled import SampledExplainer
from edgefleet.errors import ArtifactError
from edgefleet.package import npz_bytes
from edgefleet.steps import Steps
from edgefleet.steps.trace import Trace

Arrays = dict[str, NDArray[Any]]


def linear(columns: int = 1) -> Arrays:
    weight = np.array([[1.0, -1.0], [2.0, 0.5], [-3.0, 1.0]])[:, :columns]
    return {"method": np.array("linear"), "weight": weight, "mean": np.array([1.0, 0.0, -1.0]), "base": np.array([0.25, 4.0])[:columns]}


def student() -> Arrays:
    """Two inputs, the second with a flag for a gap; phi = own terms + one hidden unit that gives player 0 what exceeds 1 of input 0."""
    return {
        "method": np.array("amortised"),
        "values": np.array(2),
        "numbers": np.array([0, 1]),
        "mean": np.array([0.0, 10.0], np.float32),
        "rate": np.array([1.0, 0.5], np.float32),
        "coded": np.array([1]),
        "codes": np.array([np.nan], np.float32),
        "limit": np.array(3.0, np.float32),
        "base": np.array([0.5]),
        "first": np.array([[1.0], [0.0], [0.0]], np.float32),
        "first_bias": np.array([-1.0], np.float32),
        "second": np.array([[[1.0, 0.0]]], np.float32),
        "second_bias": np.array([[0.0, 0.0]], np.float32),
        "own": np.array([[2.0, 4.0, -7.0]], np.float32),
        "error": np.array([[0.1, 0.2]]),
        "rest": np.array([[0.25, 0.75]]),
    }


def opened(arrays: Arrays, names: tuple[str, ...], columns: int = 1) -> Any:
    return open_explainer(npz_bytes(arrays), str(arrays["method"]), names, columns)


def no_model(rows: Matrix) -> Matrix:
    raise AssertionError("this form asks no model")


def test_a_linear_margin_is_explained_by_weight_times_distance_to_the_mean() -> None:
    row = np.array([2, 1, 1], np.float32)
    explainer = opened(linear(), ("a", "b", "c"))

    second, first = (explainer.explain(row, index, margin, no_model) for index, margin in ((1, -2.75), (0, 2.75)))

    np.testing.assert_array_equal(second.contributions, [1, 2, -6])
    assert (second.base, second.gap, second.method) == (0.25, 0.0, "linear")
    assert second.error is not None
    assert not second.error.any()
    np.testing.assert_array_equal(first.contributions, [-1, -2, 6])
    assert (first.base, first.gap) == (-0.25, 0.0)


def test_each_class_of_a_linear_model_has_its_own_weights() -> None:
    found = opened(linear(2), ("a", "b", "c"), 2).explain(np.array([2, 1, 1], np.float32), 1, 0.0, no_model)

    np.testing.assert_array_equal(found.contributions, [-1, 0.5, 2])
    assert found.base == 4.0


def test_a_linear_model_behind_steps_is_explained_by_its_raw_inputs() -> None:
    trace = Trace((2,))
    first = trace.take(0, [0])
    trace.concat([first, trace.f32(trace.isnan(first)), trace.take(0, [1])])
    steps = Steps(tuple(trace.ops), ("a", "a missing", "b"), (0, 0, 1))
    arrays = linear() | {"steps_0": np.frombuffer(steps.to_json(), np.uint8)}

    found = opened(arrays, ("a", "b")).explain(np.array([2, 1], np.float32), None, 0.0, no_model)

    np.testing.assert_array_equal(found.contributions, [1, -6])


@pytest.mark.parametrize(
    "change",
    [
        {"weight": np.zeros((2, 1))},
        {"mean": np.zeros(2)},
        {"base": np.zeros(2)},
        {"weight": np.full((3, 1), np.nan)},
        {"shift": np.zeros(2)},
        {"error": np.zeros((1, 2))},
        {"error": np.full((1, 3), np.inf)},
        {"rounding": np.array("fixed"), "grid": np.array([0.0, -1.0, 1.0, 0.0])},
        {"rounding": np.array("fixed"), "grid": np.array([0.5, 1.0, -1.0, 0.0])},
        {"rounding": np.array("fixed"), "grid": np.array([0.5, np.nan, 1.0, 0.0])},
        {"rounding": np.array("fixed"), "grid": np.zeros(3)},
        {"rounding": np.array("later"), "grid": np.zeros(4)},
        {"rounding": np.array("span")},
        {"steps_0": np.frombuffer(b"{}", np.uint8)},
        {"steps_0": np.zeros(3)},
        {"steps_0": np.frombuffer(Steps.identity((4,)).to_json(), np.uint8)},
    ],
)
def test_a_linear_file_that_does_not_fit_is_refused(change: Arrays) -> None:
    with pytest.raises(ArtifactError):
        opened(linear() | change, ("a", "b", "c"))


def test_an_integer_linear_model_is_explained_by_its_columns_as_it_rounds_them() -> None:
    arrays = linear() | {"shift": np.array([1.0, 0, 0]), "rounding": np.array("fixed"), "grid": np.array([0.5, -2.0, 2.0, 0.0])}
    arrays |= {"error": np.array([[0.1, 0.2, 0.3]])}

    # (2.3 - 1) is 1.5 in steps of 0.5, 0.2 is none, -9 is cut at -2; weights 1, 2, -3, means 1, 0, -1.
    found = opened(arrays, ("a", "b", "c")).explain(np.array([2.3, 0.2, -9], np.float32), None, 4.0, no_model)

    np.testing.assert_allclose(found.contributions, [0.5, 0, 3])
    assert found.error is not None
    np.testing.assert_array_equal(found.error, [0.1, 0.2, 0.3])
    assert found.gap == pytest.approx(4.0 - 0.25 - 3.5)  # what the answer's own rounding did


def test_steps_over_a_rows_own_span_are_counted_anew_for_each_row() -> None:
    arrays = linear() | {"mean": np.zeros(3), "rounding": np.array("span"), "grid": np.zeros(4)}
    explainer = opened(arrays, ("a", "b", "c"))

    found = [explainer.explain(np.array(row, np.float32), None, 0.0, no_model) for row in ([255, 0.4, 0], [510, 0.4, 1.2], [0, 0, 0])]

    np.testing.assert_allclose([one.contributions for one in found], [[255, 0, 0], [510, 0, -6], [0, 0, 0]])


def test_a_student_adds_own_terms_and_hidden_units_and_shares_the_rest() -> None:
    explainer = opened(student(), ("a", "b"))

    # Input 0: own 2 x 2, hidden max(0, 2 - 1) = 1. Input 1: (12 - 10) / 2 = 1, own 4. Together 9, and 9.5 - .5 = 9: no rest.
    found = explainer.explain(np.array([2, 12], np.float32), None, 9.5, no_model)
    np.testing.assert_allclose(found.contributions, [5, 4])
    # A rest of 4 goes in the shares .25 and .75.
    found = explainer.explain(np.array([2, 12], np.float32), None, 13.5, no_model)
    np.testing.assert_allclose(found.contributions, [6, 7])
    assert (found.base, found.method) == (0.5, "amortised")
    np.testing.assert_array_equal(found.error, [0.1, 0.2])
    assert abs(found.gap) < 1e-12


def test_a_student_sees_a_gap_as_a_flag_and_far_values_at_its_limit() -> None:
    explainer = opened(student(), ("a", "b"))

    # Input 1 missing: the number counts 0, the flag -7. Input 0 of 100 counts 3: own 6, hidden 2.
    found = explainer.explain(np.array([100, np.nan], np.float32), None, 1.5, no_model)

    np.testing.assert_allclose(found.contributions, [8, -7])


def test_a_gap_that_no_training_row_had_counts_as_an_ordinary_value() -> None:
    arrays = student() | {"coded": np.zeros(0, np.int64), "codes": np.zeros(0, np.float32)}
    arrays |= {"first": arrays["first"][:2], "own": arrays["own"][:, :2]}

    found = opened(arrays, ("a", "b")).explain(np.array([2, np.nan], np.float32), None, 5.5, no_model)

    np.testing.assert_allclose(found.contributions, [5, 0])


def test_a_students_first_class_of_two_has_the_negative() -> None:
    found = opened(student(), ("a", "b")).explain(np.array([2, 12], np.float32), 0, -9.5, no_model)

    np.testing.assert_allclose(found.contributions, [-5, -4])
    assert found.base == -0.5


@pytest.mark.parametrize(
    "change",
    [
        {"values": np.array(3)},
        {"values": np.array(1)},
        {"numbers": np.array([0, 2])},
        {"numbers": np.array([0, -1])},
        {"coded": np.array([0.5])},
        {"codes": np.zeros(2, np.float32)},
        {"first": np.zeros((2, 1), np.float32)},
        {"second": np.zeros((1, 1, 3), np.float32)},
        {"own": np.zeros((1, 2), np.float32)},
        {"rest": np.array([[np.inf, 0.0]])},
        {"error": np.zeros((2, 2))},
        {"base": np.zeros(2)},
        {"limit": np.array(np.nan)},
        {"players": np.array([0, 2])},
        {"players": np.array([0.0, 1.0])},
        {"players": np.array([-1, 0])},
    ],
)
def test_a_student_that_does_not_fit_is_refused(change: Arrays) -> None:
    with pytest.raises(ArtifactError):
        opened(student() | change, ("a", "b"))


def test_sampling_a_window_replaces_a_channel_in_all_its_rows() -> None:
    background = np.zeros((2, 3, 2), np.float32)
    row = np.array([[1, 10], [2, 20], [3, 30]], np.float32)
    seen: list[Matrix] = []

    def model(rows: Matrix) -> Matrix:
        seen.append(rows)
        return np.asarray(rows.sum(axis=(1, 2))[:, None], np.float32)

    found = SampledExplainer(background, ("u", "v")).explain(row, None, 66.0, model)

    np.testing.assert_allclose(found.contributions, [6, 60])
    assert {tuple(one[:, 0]) for one in np.concatenate(seen)} == {(0.0, 0.0, 0.0), (1.0, 2.0, 3.0)}


def test_inputs_of_one_player_share_its_contribution_and_its_error_bar() -> None:
    players = np.array([0, 0, 1, 1])
    explainer = SampledExplainer(np.zeros((1, 4), np.float32), ("a", "b", "c", "d"), players=players)

    found = explainer.explain(np.array([1, 3, 5, 7], np.float32), None, 0.0, lambda x: x[:, :1] * x[:, 2:3] + x[:, 1:2])

    # Two players: 3 alone and 8 together with the other, which has 5 of the product: (3 + 8 - 0) / 2 and (0 + 5) / 2 are exact in one pair.
    np.testing.assert_allclose(found.contributions, [5.5 / 2, 5.5 / 2, 2.5 / 2, 2.5 / 2])
    assert found.error is not None
    np.testing.assert_allclose(found.error, 0, atol=1e-6)


def test_a_budget_cuts_pairs_first_and_then_background_rows() -> None:
    asked: list[int] = []

    def model(rows: Matrix) -> Matrix:
        asked.append(len(rows))
        return np.asarray(rows.sum(axis=1, keepdims=True), np.float32)

    background, row = np.zeros((16, 11), np.float32), np.ones(11, np.float32)
    names = tuple(f"x{i}" for i in range(11))
    errors = []
    for budget in (4 * 20 * 16, 2 * 20 * 16, 20 * 3):
        asked.clear()
        errors.append(SampledExplainer(background, names, budget=budget).explain(row, None, 11.0, model).error)
        assert sum(asked) <= budget + 2 * 16  # nobody and everybody are asked once more

    assert [error is None for error in errors] == [False, True, True]
    with pytest.raises(ArtifactError, match="group the inputs"):
        SampledExplainer(background, names, budget=19)


def test_a_method_of_a_later_agent_is_refused_by_name() -> None:
    with pytest.raises(ArtifactError, match="this agent knows linear, treeshap, amortised and sampled"):
        open_explainer(npz_bytes({"method": np.array("oracle")}), "oracle", ("a",), 1)


def categorical_leaf() -> Arrays:
    """One leaf of value 1 on a path of one column whose category must be 2 or 5, which half of the training rows had."""
    return {
        "method": np.array("treeshap"),
        "base": np.array([0.5]),
        "features": np.array(1),
        "depths": np.array([1]),
        "feat_1": np.array([[0]], np.int32),
        "lo_1": np.array([[-np.inf]], np.float32),
        "hi_1": np.array([[np.inf]], np.float32),
        "missing_1": np.array([[True]]),
        "z_1": np.array([[0.5]], np.float32),
        "value_1": np.array([[1.0]], np.float32),
        "category_1": np.array([[0]], np.int32),
        "category_values": np.array([2.0, 3.0, 5.0], np.float32),
        "category_sets": np.packbits(np.array([[True, False, True, False]]), axis=1),
    }


@pytest.mark.parametrize(
    ("value", "inside"), [(2.0, True), (3.0, False), (5.0, True), (4.0, False), (99.0, False), (-1.0, False), (np.nan, True)]
)
def test_a_category_is_inside_when_the_set_names_it_and_a_gap_when_the_path_takes_gaps(value: float, inside: bool) -> None:
    found = opened(categorical_leaf(), ("kind",)).explain(np.array([value], np.float32), None, 0.0, no_model)

    assert found.contributions.tolist() == [0.5 if inside else -0.5]


@pytest.mark.parametrize(
    "change",
    [
        {"category_1": np.array([[1]], np.int32)},
        {"category_1": np.array([[0.0]])},
        {"category_1": np.array([[0, 0]], np.int32)},
        {"category_values": np.array([2.0, 2.0, 5.0], np.float32)},
        {"category_values": np.arange(9, dtype=np.float32)},
        {"category_sets": np.array([[True]])},
    ],
)
def test_sets_of_categories_that_do_not_fit_are_refused(change: Arrays) -> None:
    with pytest.raises(ArtifactError):
        opened(categorical_leaf() | change, ("kind",))


@pytest.mark.parametrize("by_rate", [False, True])
def test_rows_too_small_for_a_step_of_float32_are_explained_as_zeros(by_rate: bool) -> None:
    arrays = linear() | {"rounding": np.array("span"), "grid": np.array([0.0, 0.0, 0.0, float(by_rate)])}

    found = opened(arrays, ("a", "b", "c")).explain(np.array([1e-44, 0, -1e-40], np.float32), None, 0.25, no_model)

    np.testing.assert_array_equal(
        found.contributions, opened(linear(), ("a", "b", "c")).explain(np.zeros(3), None, 0, no_model).contributions
    )


@pytest.mark.parametrize("by_rate", [0.0, 1.0])
def test_rows_beyond_the_range_of_an_integer_variant_are_cut_at_its_ends_without_a_warning(by_rate: float) -> None:
    arrays = linear() | {"rounding": np.array("fixed"), "grid": np.array([0.1, -2.0, 2.0, by_rate])}

    found = opened(arrays, ("a", "b", "c")).explain(np.array([3e38, -3e38, 0], np.float32), None, 0.0, no_model)

    np.testing.assert_array_equal(found.contributions, [1.0, -4.0, -3.0])
