import math

import numpy as np
import pytest

from device_agent.checks import RowChecks
from edgefleet.checks import REASONS, Checks
from edgefleet.errors import InputError
from edgefleet.manifest import Input

NAN, INF = np.nan, np.inf
HARD = np.array([NAN, INF, -INF, -1, 0, 0.1, 0.5, 1, 1.5, 2, 10, 11, 3e38], np.float32)
INPUTS = [
    Input(name="hot", low=0.1, high=10.0, range_policy="reject"),
    Input(name="cut", low=-1.0, high=1.0, range_policy="clip", missing=True),
    Input(name="free", low=0.0, high=1.0, missing=True),
    Input(name="kind", kind="category", categories=["a", "b"]),
]


def judge(*rows: list[float]) -> list[list[str]]:
    codes = Checks(INPUTS).judge(np.array(rows, np.float32)).codes
    return [[REASONS[code] for code in row] for row in codes]


def test_every_value_gets_its_reason() -> None:
    assert judge([1, 0, 0, 0], [11, 2, 2, -1], [NAN, NAN, NAN, NAN], [INF, -INF, INF, INF], [1, 0, 0, 2], [1, 0, 0, 0.5]) == [
        ["ok", "ok", "ok", "ok"],
        ["range", "outside", "outside", "unseen"],
        ["missing", "ok", "ok", "missing"],
        ["infinite", "infinite", "infinite", "category"],
        ["ok", "ok", "ok", "category"],
        ["ok", "ok", "ok", "category"],
    ]


def test_a_value_on_the_limit_rounded_to_float32_is_inside() -> None:
    assert judge([0.1, 0, 0, 0])[0][0] == "ok"
    assert judge([float(np.nextafter(np.float32(0.1), np.float32(0))), 0, 0, 0])[0][0] == "range"


def test_counted_values_refuse_no_row() -> None:
    judgement = Checks(INPUTS).judge(np.array([[1, 5, 5, -1], [0, 0, 0, 0]], np.float32))

    assert judgement.refused.tolist() == [False, True]
    assert judgement.refusals() == 1
    assert judgement.counted(3) == {"unseen": 1}
    assert judgement.counted(1) == {"outside": 1}
    assert judgement.first(10) == [(1, 0)]


def test_first_names_at_most_as_many_as_asked_in_row_order() -> None:
    judgement = Checks(INPUTS).judge(np.full((4, 4), INF, np.float32))

    assert judgement.refusals() == 16
    assert judgement.first(5) == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0)]


def test_clip_moves_only_inputs_whose_policy_is_clip_and_keeps_missing_values() -> None:
    x = np.array([[11, 2, 2, 0], [1, NAN, -3, 1]], np.float32)

    Checks(INPUTS).clip(x)

    assert x[:, 1].tolist()[0] == 1
    assert np.isnan(x[1, 1])
    assert x[:, [0, 2]].tolist() == [[11, 2], [1, -3]]


def test_rows_of_another_width_are_refused() -> None:
    with pytest.raises(InputError, match=r"shape \(2, 3\) do not fit 4 inputs"):
        Checks(INPUTS).judge(np.zeros((2, 3), np.float32))


def reason(column: Input, value: float) -> str:
    """The rules once more, value by value, in plain Python."""
    low, high = (None if limit is None else float(np.float32(limit)) for limit in (column.low, column.high))
    if math.isnan(value):
        return "ok" if column.missing else "missing"
    if column.kind == "category":
        return "unseen" if value == -1 else "ok" if value in range(len(column.categories)) else "category"
    if math.isinf(value):
        return "infinite"
    beyond = (low is not None and value < low) or (high is not None and value > high)
    return ("range" if column.range_policy == "reject" else "outside") if beyond else "ok"


def test_a_table_of_many_blocks_is_judged_like_its_values_one_by_one() -> None:
    at = np.random.default_rng(2).integers(0, len(HARD), (70_001, 4))  # more than four blocks of 65,536 values

    judgement = Checks(INPUTS).judge(HARD[at])

    expected = np.array([[REASONS.index(reason(column, float(value))) for column in INPUTS] for value in HARD])
    assert np.array_equal(judgement.codes, expected[at, np.arange(4)])
    refuses = (judgement.codes != REASONS.index("ok")) & (judgement.codes < REASONS.index("outside"))
    assert np.array_equal(judgement.refused, refuses.any(axis=1))
    assert judgement.refusals() == refuses.sum()


def test_a_row_alone_has_the_codes_that_it_has_in_a_table() -> None:
    x = np.random.default_rng(3).choice(HARD, (500, 4))
    checks = Checks(INPUTS)

    alone = [checks.judge(x[at : at + 1]).codes for at in range(len(x))]

    assert np.array_equal(np.concatenate(alone), checks.judge(x).codes)


def test_a_table_without_rows_has_no_codes() -> None:
    judgement = Checks(INPUTS).judge(np.empty((0, 4), np.float32))

    assert (judgement.codes.shape, judgement.refused.shape, judgement.refusals()) == ((0, 4), (0,), 0)


def test_values_that_must_be_present_are_missing_whatever_the_schema_allows() -> None:
    checks = Checks(INPUTS, present=[False, True, False, True])

    codes = checks.judge(np.full((1, 4), NAN, np.float32)).codes

    assert [REASONS[code] for code in codes[0]] == ["ok", "missing", "ok", "missing"]
    assert [checks.expected(at).endswith(" or nothing") for at in range(4)] == [True, False, True, False]


def test_limits_of_a_category_are_its_indices_whatever_range_it_declares() -> None:
    checks = Checks([Input(name="kind", kind="category", categories=["a", "b", "c"], low=0.0, high=1.0, range_policy="clip")])
    x = np.array([[2], [-1], [3]], np.float32)

    codes = checks.judge(x).codes[:, 0]
    checks.clip(x)

    assert [REASONS[code] for code in codes] == ["ok", "unseen", "category"]
    assert x[:, 0].tolist() == [2, -1, 3]


def test_clip_leaves_an_infinity_where_nothing_is_clipped() -> None:
    x = np.array([[INF, 0, -INF, 0]], np.float32)

    Checks(INPUTS).clip(x)

    assert x.tolist() == [[INF, 0, -INF, 0]]


def test_what_lies_within_the_admitted_limits_is_neither_refused_nor_clipped() -> None:
    x = np.random.default_rng(4).choice(HARD, (4000, 4))
    x[:, 3] = 1
    checks = Checks(INPUTS)
    clipped = x.copy()

    checks.clip(clipped)
    admitted = ((x >= checks.admit_low) & (x <= checks.admit_high)).all(axis=1)

    acted = checks.judge(x).refused | ~((clipped == x) | np.isnan(x)).all(axis=1)
    assert np.array_equal(admitted, ~acted & ~np.isnan(x).any(axis=1))


def test_the_device_refuses_the_same_rows_for_the_same_first_reason() -> None:
    rng = np.random.default_rng(0)
    x = rng.choice(HARD, (4000, 4))
    device = RowChecks(INPUTS, np.empty((2, 4), np.float32))

    judgement = Checks(INPUTS).judge(x)
    parsed, unparsed = device.parse_rows(x)
    _, refused = device.admit_rows(parsed)

    theirs = {row: error.reason for row, error in (refused | unparsed).items()}
    assert set(np.flatnonzero(judgement.refused).tolist()) == set(theirs)
    for row, reason in theirs.items():
        assert reason in {REASONS[code] for code in judgement.codes[row]}


def test_the_device_clips_to_the_same_bits() -> None:
    x = np.random.default_rng(1).normal(0, 2, (500, 1)).astype(np.float32)
    inputs = [Input(name="a", low=-0.3, high=0.7, range_policy="clip")]
    device = RowChecks(inputs, np.empty((2, 1), np.float32))

    theirs, _ = device.admit_rows(x.copy())
    Checks(inputs).clip(x)

    assert np.array_equal(x, theirs)
