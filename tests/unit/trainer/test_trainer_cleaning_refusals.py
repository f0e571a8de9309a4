"""What cannot be compiled is said at `data check`, in sentences with place, value and remedy."""

from typing import Any

import pytest

from edgefleet.manifest import Input
from tests.unit.trainer.cleaning_cases import ENCODED, FEATURES, INPUTS, ROWS, WINDOWS, step
from trainer.cleaning import refusals
from trainer.settings import Cleaning, Window

MANY = [Input(name="town", kind="category", categories=[f"t{i}" for i in range(65)]), Input(name="n")]


@pytest.mark.parametrize("name", [*ROWS, *WINDOWS])
def test_every_case_that_compiles_is_not_refused(name: str) -> None:
    window, steps = WINDOWS[name] if name in WINDOWS else (None, ROWS[name])

    assert refusals(Cleaning(steps=steps, window=window), INPUTS) == []


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([step("scale", "laod")], "cleaning.steps[0] (scale): column 'laod' does not stand here; did you mean 'load'?"),
        ([step("scale", "zzz")], "column 'zzz' does not stand here; at this place there are load, flow, pressure, steady, colour, size"),
        ([step("drop", "load"), step("scale", "load")], "cleaning.steps[1] (scale): column 'load' does not stand here"),
        ([step("one_hot", "colour"), step("impute", "colour")], "column 'colour' does not stand here"),
        ([step("scale", "colour")], "column 'colour' is a category, not a number; encode a category with ordinal first"),
        ([step("log", "load.missing")], "column 'load.missing' does not stand here"),
        ([step("indicator", "load"), step("log", "load.missing")], "column 'load.missing' is a flag, not a number"),
        ([step("one_hot", "load")], "column 'load' is a number, not a category"),
        ([step("impute", "colour")], "column 'colour' is a category and cannot take 'median'; use most_frequent or one of its categories"),
        ([step("impute", "load", value="much")], "cannot take 'much'; use median, mean, zero, most_frequent or a finite number"),
        ([step("impute", "load", value="nan")], "cannot take 'nan'"),
        ([step("impute", "load"), step("indicator", "load")], "put the indicator in front of impute"),
        ([step("indicator", "load"), step("indicator", "load")], "two columns named 'load.missing'"),
        ([step("clip", "load")], "low is None and high None; give at least one finite number"),
        ([step("clip", "load", low=2.0, high=1.0)], "low is 2.0 and high 1.0"),
        ([step("clip", "load", low=0.0, high=99.0, quantile=True)], "as quantiles they are shares from 0 to 1"),
        ([step("unit", "load", factor=0.0)], "factor is 0.0"),
        ([step("drop")], "'*' would drop every column; name the columns"),
        ([step("drop", *[c.name for c in INPUTS])], "no column is left for the model"),
        ([step("scale", "load", "load")], "each once"),
        ([step("one_hot"), step("one_hot")], "cleaning.steps[1] (one_hot): '*' fits no column at this place"),
    ],
)
def test_a_step_that_cannot_be_compiled_is_named_with_its_remedy(steps: list[Any], message: str) -> None:
    found = refusals(Cleaning(steps=steps), INPUTS)

    assert len(found) == 1
    assert message in found[0]


def test_more_than_64_one_hot_columns_are_refused_with_ordinal_as_the_way_out() -> None:
    assert (
        "has 65 categories, one_hot makes at most 64 columns; use ordinal" in refusals(Cleaning(steps=[step("one_hot", "town")]), MANY)[0]
    )
    assert refusals(Cleaning(steps=[step("ordinal", "town")]), MANY) == []


def test_every_error_is_found_in_one_pass() -> None:
    steps = [step("scale", "nope"), step("clip", "load"), step("one_hot", "flow")]

    assert [text[:16] for text in refusals(Cleaning(steps=steps), INPUTS)] == [f"cleaning.steps[{i}]"[:16] for i in range(3)]


@pytest.mark.parametrize(
    ("window", "steps", "message"),
    [
        (Window(rows=0), [], "rows is 0; expected 1 to 4096"),
        (Window(rows=5000), [], "rows is 5000; expected 1 to 4096"),
        (Window(rows=4, features=["last"], lags=[4]), [], "lags has 4, but a window of 4 rows holds lags from 1 to 3; lengthen the window"),
        (Window(rows=4, features=["last", "last"]), [], "name each thing once"),
        (Window(rows=4, features=["mean"]), ENCODED[:3], "feature mean cannot compute with the category 'size'"),
        (Window(rows=4, features=["mean"]), ENCODED[:4], "feature mean cannot compute with 'size', which may be missing; add impute"),
    ],
)
def test_a_window_that_cannot_be_compiled_is_named_with_its_remedy(window: Window, steps: list[Any], message: str) -> None:
    assert any(text.startswith("cleaning.window: ") and message in text for text in refusals(Cleaning(steps=steps, window=window), INPUTS))


def test_on_a_grid_every_value_may_be_missing_whatever_the_schema_says() -> None:
    inputs, features = [Input(name="a")], FEATURES

    assert refusals(Cleaning(window=Window(rows=4, features=features)), inputs) == []
    assert "'a', which may be missing" in refusals(Cleaning(window=Window(rows=4, features=features, rate_s=1.0)), inputs)[0]
