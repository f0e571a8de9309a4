"""One row on the device: its way into the ring, past the shared rules, and the words of a refusal."""

import numpy as np
import pytest

from device_agent.checks import RowChecks
from edgefleet.errors import RowRejected
from edgefleet.manifest import Input

NAN, INF = float("nan"), float("inf")
INPUTS = [
    Input(name="hot", low=0.1, high=10.0, range_policy="reject", unit="C"),
    Input(name="cut", low=-1.0, high=1.0, range_policy="clip", missing=True),
    Input(name="free", low=0.0, high=1.0, missing=True),
    Input(name="kind", kind="category", categories=["a", "b"]),
]
SCRATCH = 2


def opened(integer_variant: str | None = None) -> tuple[RowChecks, np.ndarray]:
    ring = np.zeros((SCRATCH + 1, 4), np.float32)
    return RowChecks(INPUTS, ring, integer_variant), ring


def admit(checks: RowChecks, row: list[float]) -> int:
    checks.parse(row, 0)
    return checks.admit(0)


def refusal(row: list[float], integer_variant: str | None = None) -> str:
    checks, _ = opened(integer_variant)
    with pytest.raises(RowRejected) as refused:
        admit(checks, row)
    return str(refused.value)


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ([11, 0, 0, 0], "input 'hot': 11.0 is not accepted (range); expected 0.1 to 10 (C)"),
        ([1, 0, -INF, 0], "input 'free': -inf is not accepted (infinite); expected a finite float32"),
        ([NAN, 0, 0, 0], "input 'hot': a missing value is not accepted (missing); expected a number (C)"),
        ([1, 0, 0, NAN], "input 'kind': a missing value is not accepted (missing); expected a number"),
        ([1, 0, 0, 2], "input 'kind': 2.0 is not accepted (category); expected a category's index, -1 (unseen) to 1"),
    ],
)
def test_a_refusal_names_input_value_and_limit(row: list[float], sentence: str) -> None:
    assert refusal(row) == sentence


def test_a_variant_that_takes_no_missing_value_refuses_it_by_its_name() -> None:
    sentence = "a value: variant onnx-int8 cannot represent a missing one"

    assert refusal([1, NAN, 0, 0], "onnx-int8") == f"input 'cut': a missing value is not accepted (missing); expected {sentence}"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ([11, INF, 0, 0.5], "category"),
        ([NAN, INF, 0, 0], "infinite"),
        ([11, 0, 0, NAN], "missing"),
        ([11, 5, 5, 0], "range"),
    ],
)
def test_of_several_faults_the_gravest_is_named_wherever_it_stands(row: list[float], reason: str) -> None:
    assert f"({reason})" in refusal(row)


@pytest.mark.parametrize("row", [[1, 0, 0, 0], [1, 0, 5, -1], [1, NAN, 0, 1], [1, NAN, 0.5, 1], [1, 1, 1, 1]])
def test_a_row_that_nothing_moves_is_given_from_its_own_slot(row: list[float]) -> None:
    checks, ring = opened()

    checks.parse(row, 1)

    assert checks.admit(1) == 1
    assert np.array_equal(ring[1], np.array(row, np.float32), equal_nan=True)


def test_a_clipped_row_is_given_from_the_scratch_row_and_the_ring_keeps_what_came() -> None:
    checks, ring = opened()

    assert admit(checks, [1, 7, NAN, 1]) == SCRATCH
    assert np.array_equal(ring[SCRATCH], np.array([1, 1, NAN, 1], np.float32), equal_nan=True)
    assert np.array_equal(ring[0], np.array([1, 7, NAN, 1], np.float32), equal_nan=True)


@pytest.mark.parametrize("integer_variant", [None, "onnx-int8"])
def test_rows_one_by_one_and_as_a_batch_meet_the_same_fate(integer_variant: str | None) -> None:
    hard = np.array([NAN, INF, -1, 0, 0.1, 0.5, 1, 2, 11], np.float32)
    x = np.random.default_rng(5).choice(hard, (2000, 4), p=[0.1, 0.05, 0.05, 0.2, 0.1, 0.1, 0.2, 0.1, 0.1])
    checks, ring = opened(integer_variant)

    parsed, unparsed = checks.parse_rows(x)
    admitted, refused = checks.admit_rows(parsed)

    batch = {at: str(error) for at, error in (refused | unparsed).items()}
    single: dict[int, str] = {}
    for at, row in enumerate(x):
        try:
            checks.parse(row, 0)
            assert np.array_equal(ring[checks.admit(0)], admitted[at], equal_nan=True)
        except RowRejected as err:
            single[at] = str(err)
    assert single == batch
    assert 200 < len(batch) < 1900  # both fates are tried


def test_a_batch_that_nothing_clips_is_not_copied() -> None:
    checks = RowChecks(INPUTS[2:3], np.zeros((2, 1), np.float32))
    x = np.array([[5], [0]], np.float32)

    admitted, refused = checks.admit_rows(x)

    assert admitted is x
    assert refused == {}
