"""Cleaning is fitted on training rows, does what its words say, and leaves out what trees do not need."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgefleet.errors import ConfigError, InputError
from edgefleet.manifest import Input
from edgefleet.steps import Steps
from tests.unit.trainer.cleaning_cases import ROWS, WINDOWS, hard_rows, row_case, step, window_case
from trainer.cleaning import compile_steps, float32_warnings
from trainer.settings import Cleaning, Window

NUMBERS = [Input(name="a", missing=True), Input(name="b", missing=True), Input(name="c")]
NAN = float("nan")


def fitted(*steps: Any, x: Any, inputs: list[Input] = NUMBERS, window: Window | None = None, monotone: bool = True) -> Steps:
    return compile_steps(Cleaning(steps=list(steps), window=window), inputs, np.array(x, np.float32), monotone=monotone)


def column(steps: Steps, x: Any, name: str) -> list[float]:
    return [float(v) for v in steps.run(np.array(x, np.float32))[..., steps.names.index(name)]]


TRAIN = [[1, NAN, 0], [2, 10, 1], [6, 10, 2], [NAN, 40, 3]]


@pytest.mark.parametrize(
    ("value", "a", "b"), [("median", 2, 10), ("mean", 3, 20), ("zero", 0, 0), ("most_frequent", 1, 10), ("-7.5", -7.5, -7.5)]
)
def test_impute_puts_the_training_rows_value_where_one_is_missing(value: str, a: float, b: float) -> None:
    steps = fitted(step("impute", value=value), x=TRAIN)

    assert steps.run(np.array([[NAN, NAN, 5], [9, 9, 9]])).tolist() == [[a, b, 5], [9, 9, 9]]


def test_a_category_named_like_a_statistic_is_imputed_by_its_name() -> None:
    inputs = [Input(name="kind", kind="category", categories=["low", "mean", "high"], missing=True)]

    steps = fitted(step("impute", "kind", value="mean"), x=[[0], [0], [2]], inputs=inputs)

    assert steps.run(np.array([[NAN]])).tolist() == [[1]]


def test_constants_come_from_what_the_earlier_steps_made() -> None:
    steps = fitted(step("impute", "a", value="zero"), step("scale", "a"), x=TRAIN)

    values = np.array([1, 2, 6, 0])
    assert column(steps, TRAIN, "a") == pytest.approx(((values - values.mean()) / values.std()).tolist(), rel=1e-6)


def test_the_indicator_is_taken_before_impute_and_named_after_its_input() -> None:
    steps = fitted(step("indicator"), step("impute"), x=TRAIN)

    assert steps.names == ("a", "a.missing", "b", "b.missing", "c")
    assert steps.sources == [0, 0, 1, 1, 2]
    assert column(steps, TRAIN, "a.missing") == [0, 0, 0, 1]


def test_clip_keeps_missing_values_missing() -> None:
    steps = fitted(step("clip", "a", low=1.5, high=4.0), x=TRAIN)

    assert np.array_equal(column(steps, TRAIN, "a"), [1.5, 2, 4, NAN], equal_nan=True)
    assert column(steps, TRAIN, "c") == [0, 1, 2, 3]


def test_clip_by_quantiles_takes_them_from_the_training_rows() -> None:
    x = np.arange(303, dtype=np.float32).reshape(101, 3)
    steps = fitted(step("clip", "a", low=0.1, high=0.5, quantile=True), x=x)

    assert column(steps, [[-5, 0, 0], [999, 0, 0]], "a") == [30, 150]


def test_unit_multiplies_then_adds() -> None:
    steps = fitted(step("unit", "c", factor=1.8, offset=32), x=TRAIN)

    assert column(steps, [[0, 0, 100]], "c") == [pytest.approx(212, rel=1e-7)]


def logarithm_rows() -> NDArray[np.float32]:
    values = np.concatenate([np.geomspace(1e-6, 1e9, 60_000), np.linspace(0, 20, 60_000)]).astype(np.float32)
    return np.sort(values)[:, None]


def test_log_is_log1p_within_two_millionths_and_never_falls() -> None:
    x = logarithm_rows()
    z = fitted(step("log"), x=x, inputs=[Input(name="a")]).run(x)

    assert np.max(np.abs(z - np.log1p(x.astype(np.float64)))) < 2.1e-6  # measured 2.0e-6 in the research
    assert np.all(np.diff(z[:, 0]) >= 0)


def test_sqrt_is_right_to_one_unit_in_the_last_place_and_never_falls() -> None:
    x = logarithm_rows()
    z = fitted(step("sqrt"), x=x, inputs=[Input(name="a")]).run(x)

    exact = np.sqrt(x.astype(np.float64)).astype(np.float32)
    assert np.max(np.abs(z - exact) / np.spacing(exact)) <= 1
    assert np.all(np.diff(z[:, 0]) >= 0)


def test_what_a_device_sees_below_zero_or_beyond_the_table_has_a_decided_logarithm_and_root() -> None:
    train = [[0.0], [5.0]]
    x = [[-3.0], [3e38], [NAN]]

    log = fitted(step("log"), x=train, inputs=[Input(name="a")]).run(np.array(x))[:, 0]
    root = fitted(step("sqrt"), x=train, inputs=[Input(name="a")]).run(np.array(x))[:, 0]

    assert log[0] == 0
    assert log[1] == pytest.approx(40 * np.log(2), abs=1e-5)
    assert np.isnan(log[2])
    assert np.array_equal(root, [0, 2.0**30, NAN], equal_nan=True)


def test_log_of_all_columns_takes_those_that_are_never_negative_in_training() -> None:
    steps = fitted(step("log"), x=[[1, -1, 3], [0, 5, 4], [2, 2, 2]])

    assert column(steps, [[1, 1, 1]], "b") == [1]
    assert column(steps, [[1, 1, 1]], "a") == [pytest.approx(np.log(2), abs=1e-5)]


def test_a_constant_column_is_only_centred() -> None:
    steps = fitted(step("scale"), x=[[5, 1, 0.1], [5, 2, 0.1], [5, 3, 0.1]])

    assert column(steps, [[5, 2, 0.1], [6, 2, 0.1]], "a") == [0, 1]
    assert column(steps, [[5, 2, 0.1]], "c") == [pytest.approx(0, abs=1e-7)]


CATEGORY = [Input(name="n"), Input(name="k", kind="category", categories=["x", "y", "z"], missing=True)]


def test_one_hot_makes_a_column_a_category_and_unseen_or_missing_ones_are_zero_everywhere() -> None:
    steps = fitted(step("one_hot"), x=[[1, 0], [2, 1]], inputs=CATEGORY)

    assert steps.names == ("n", "k=x", "k=y", "k=z")
    assert steps.sources == [0, 1, 1, 1]
    assert steps.run(np.array([[7, 1], [7, -1], [7, NAN]]))[:, 1:].tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 0]]


def test_ordinal_makes_unseen_categories_missing_and_impute_can_follow() -> None:
    steps = fitted(step("ordinal"), step("impute", "k", value="9"), x=[[1, 0], [2, 1]], inputs=CATEGORY)

    assert column(steps, [[0, 2], [0, -1], [0, NAN]], "k") == [2, 9, 9]


def test_the_most_frequent_category_is_a_known_one() -> None:
    steps = fitted(step("impute", "k", value="most_frequent"), x=[[0, -1], [0, -1], [0, 2], [0, NAN]], inputs=CATEGORY)

    assert column(steps, [[0, NAN], [0, -1]], "k") == [2, -1]


def test_every_feature_is_numpys_over_the_window() -> None:
    x = np.random.default_rng(0).standard_normal((200, 11, 3)).astype(np.float32)
    features: Any = ["last", "mean", "variance", "min", "max", "range", "difference"]
    steps = fitted(x=x, inputs=[Input(name=n) for n in "abc"], window=Window(rows=11, features=features, lags=[4]))
    z = {name: steps.run(x)[:, i].astype(np.float64) for i, name in enumerate(steps.names)}
    b = x[:, :, 1].astype(np.float64)

    assert np.array_equal(z["b.last"], b[:, -1])
    assert np.array_equal(z["b.lag4"], b[:, -5])
    assert np.array_equal(z["b.max"], b.max(1))
    assert np.array_equal(z["b.min"], b.min(1))
    # Float32 sums of eleven values of size one: a few units in the last place.
    assert np.allclose(z["b.mean"], b.mean(1), rtol=0, atol=1e-6)
    assert np.allclose(z["b.variance"], b.var(1), rtol=1e-5, atol=0)
    assert np.allclose(z["b.range"], b.max(1) - b.min(1), rtol=1e-6, atol=0)
    assert np.allclose(z["b.difference"], b[:, -1] - b[:, 0], rtol=1e-6, atol=1e-6)
    assert [steps.sources[steps.names.index(name)] for name in ("a.mean", "b.lag4", "c.range")] == [0, 1, 2]


def test_variance_of_a_large_pressure_is_not_lost_in_float32() -> None:
    x = (101_325 + 0.3 * np.random.default_rng(1).standard_normal((500, 32, 1))).astype(np.float32)
    steps = fitted(x=x, inputs=[Input(name="p")], window=Window(rows=32, features=["variance"]))
    want = x[:, :, 0].astype(np.float64).var(1)

    assert np.max(np.abs(steps.run(x)[:, 0] / want - 1)) < 2e-3  # one pass in float32 is wrong by 100 %


def test_missing_count_counts_the_raw_window_although_it_is_filled() -> None:
    x = [[[NAN, 1, 1], [2, 1, 1], [NAN, 1, 1], [NAN, 1, 1]]]
    window = Window(rows=4, fill=True, features=["last", "missing_count"])
    steps = fitted(step("impute"), x=x, window=window)

    assert column(steps, x, "a.missing_count") == [3]
    assert column(steps, x, "a.last") == [2]


def test_fill_takes_the_last_value_before_and_leaves_the_first_ones_to_impute() -> None:
    x = [[[NAN, 1, 1], [2, 1, 1], [NAN, 1, 1], [NAN, 1, 1], [5, 1, 1], [NAN, 1, 1]]]
    steps = fitted(x=x, window=Window(rows=6, fill=True))

    assert np.array_equal(steps.run(np.array(x))[0, :, 0], [NAN, 2, 2, 2, 5, 5], equal_nan=True)
    assert steps.output_shape == (6, 3)
    assert steps.sources == [0, 1, 2] * 6


def test_nothing_declared_is_the_identity_with_the_inputs_names() -> None:
    rows = fitted(x=TRAIN)
    windows = fitted(x=[TRAIN], window=Window(rows=4))

    assert rows.is_identity
    assert windows.is_identity
    assert rows.names == windows.names == ("a", "b", "c")


@pytest.mark.parametrize("name", ["log", "scale", "everything"])
def test_trees_split_the_same_rows_without_the_monotone_steps(name: str) -> None:
    full, lean = row_case(name, monotone=True), row_case(name, monotone=False)
    z, short = full.steps.run(full.x).astype(np.float64), lean.steps.run(lean.x).astype(np.float64)

    assert full.steps.names == lean.steps.names
    assert len(lean.steps.ops) < len(full.steps.ops)
    for i in range(z.shape[1]):
        known = ~np.isnan(short[:, i])
        assert np.array_equal(known, ~np.isnan(z[:, i]))
        assert np.all(np.diff(z[known, i][np.argsort(short[known, i], kind="stable")]) >= 0)


def test_a_monotone_step_stays_where_a_later_limit_is_written_in_its_unit() -> None:
    train = [[1, 1, 1], [20, 2, 3], [3, 3, 9]]
    for later in (step("clip", "a", high=1.0), step("impute", "a", value="0.5"), step("unit", "a", factor=2.0)):
        steps = fitted(step("log", "a"), later, x=train, monotone=False)
        assert np.array_equal(steps.run(np.array(train)), fitted(step("log", "a"), later, x=train).run(np.array(train)))
    assert fitted(step("log", "a"), step("clip", "b", high=1.0), x=train, monotone=False).run(np.array(train))[1, 0] == 20


def test_a_logarithm_stays_in_front_of_a_windows_mean_and_goes_in_front_of_its_maximum() -> None:
    x = np.abs(hard_rows(40)[:, :1].reshape(10, 4, 1)) + 1
    x[np.isnan(x)] = 1
    mean, largest = (
        fitted(step("log"), x=x, inputs=[Input(name="a")], window=Window(rows=4, features=[f]), monotone=False) for f in ("mean", "max")
    )

    assert any(op.kind == "lookup" for op in mean.ops)
    assert not any(op.kind == "lookup" for op in largest.ops)


@pytest.mark.parametrize("name", [*ROWS, *WINDOWS])
def test_equal_declarations_and_rows_give_equal_bytes(name: str) -> None:
    make = row_case if name in ROWS else window_case

    assert make(name).steps.to_json() == make(name).steps.to_json()
    assert Steps.from_json(make(name).steps.to_json()).to_json() == make(name).steps.to_json()


@pytest.mark.parametrize(
    ("steps", "x", "message"),
    [
        (
            [step("log", "b")],
            [[1, -0.5, 1]],
            r"cleaning\.steps\[0\] \(log\): column 'b' has the training value -0\.5, the least allowed is 0",
        ),
        ([step("sqrt")], [[-1, -1, -1]], r"every column has negative training values"),
        ([step("impute", "a")], [[NAN, 1, 1]], r"column 'a' is missing in every training row; drop it"),
        ([step("scale", "nope")], [[1, 1, 1]], r"column 'nope' does not stand here"),
    ],
)
def test_what_the_rows_do_not_allow_is_refused_with_the_remedy(steps: list[Any], x: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        fitted(*steps, x=x)


@pytest.mark.parametrize("x", [np.zeros((0, 3)), np.zeros((4, 2)), np.zeros((2, 4, 3)), np.array([[np.inf, 0, 0]])])
def test_rows_that_do_not_fit_or_are_infinite_are_refused(x: Any) -> None:
    with pytest.raises(InputError, match="cleaning is fitted on training rows of shape"):
        fitted(step("impute"), x=x)


def test_epoch_seconds_are_warned_about_and_sensors_are_not() -> None:
    rng = np.random.default_rng(0)
    clock = 1.7e9 + np.arange(5000.0)
    x = np.stack([clock, clock - 1.7e9, rng.lognormal(0, 3, 5000), rng.integers(0, 2, 5000), np.full(5000, NAN)], axis=1)
    warnings = float32_warnings(x, ["at", "since", "sensor", "flag", "nothing"])

    assert len(warnings) == 1
    assert warnings[0].startswith("column 'at': 49")
    assert "steps of 128" in warnings[0]
    assert "smallest difference 1)" in warnings[0]
