"""The quick look at a row and the thorough one never disagree: what fits is admitted as it is, bit for bit."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_agent.checks import RowChecks
from edgefleet.errors import RowRejected
from edgefleet.manifest import Input

_LARGEST = float(np.finfo(np.float32).max)
INPUTS = [
    Input(name="free"),
    Input(name="limited", low=0.0, high=1.0, range_policy="reject"),
    Input(name="cut", low=-2.0, high=2.0, range_policy="clip", missing=True),
    Input(name="watched", low=-1.0, high=1.0),
]
NAMES = [column.name for column in INPUTS]
special = st.sampled_from([0.0, -0.0, 1.0, -2.0, 2.0, math.nan, math.inf, -math.inf, _LARGEST, -_LARGEST, 1e-45, 1.0000001])
number = st.one_of(special, st.floats(-3, 3, width=32), st.floats(width=32))
row = st.tuples(number, number, number, number)


def thorough(checks: RowChecks, given_row: object, slot: int) -> int | str:
    try:
        checks.parse(given_row, slot)
        return checks.admit(slot)
    except RowRejected as err:
        return err.reason


@settings(deadline=None, max_examples=300)
@given(row, st.sampled_from(["float32", "float64", "list", "mapping"]), st.booleans())
def test_what_fits_is_admitted_as_it_is(values: tuple[float, ...], way: str, no_missing: bool) -> None:
    quick, slow = np.zeros((3, 4), np.float32), np.zeros((3, 4), np.float32)
    named = "tflite-int8" if no_missing else None
    given_row: object = dict(zip(NAMES, values, strict=True)) if way == "mapping" else list(values)
    if way.startswith("float"):
        given_row = np.array(values, way)
    fits = RowChecks(INPUTS, quick, named).fits(given_row, 1)
    judged = thorough(RowChecks(INPUTS, slow, named), given_row, 1)
    if fits:
        assert judged == 1
        assert quick[1].tobytes() == slow[1].tobytes()
    elif not any(math.isnan(value) for value in values) and 0.0 not in values:  # those two may take the thorough way
        assert judged != 1


UNUSUAL: list[object] = [[1.0] * 3, [1.0] * 5, ["1"] * 4, [None] * 4, "abcd", 3, None, np.array(["a"] * 4), {"free": 1}, np.zeros((1, 4))]
SHAPES: list[tuple[int, ...]] = [(1, 4), (4, 1), (4, 4), (1,), (), (0,), (3,), (4, 0)]


@pytest.mark.parametrize("bad", [*UNUSUAL, *(np.zeros(shape, np.float32) for shape in SHAPES)])
def test_what_is_no_usual_row_does_not_fit(bad: object) -> None:
    assert not RowChecks(INPUTS, np.zeros((3, 4), np.float32)).fits(bad, 0)


def test_a_mapping_with_a_name_too_many_does_not_fit() -> None:
    given_row = dict.fromkeys([*NAMES, "stranger"], 0.5)
    checks = RowChecks(INPUTS, np.zeros((3, 4), np.float32))
    assert not checks.fits(given_row, 0)
    assert checks.fits(dict.fromkeys(NAMES, 0.5), 0)


def test_a_model_of_one_input_takes_lists_and_mappings() -> None:
    ring = np.zeros((3, 1), np.float32)
    checks = RowChecks(INPUTS[:1], ring)
    assert checks.fits([2.5], 0)
    assert thorough(checks, {"free": 3.5}, 1) == 1
    assert ring[:2, 0].tolist() == [2.5, 3.5]
