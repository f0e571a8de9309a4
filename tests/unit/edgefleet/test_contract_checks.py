import numpy as np
import pytest

from device_agent.checks import RowChecks
from edgefleet.checks import REASONS, Checks
from edgefleet.errors import InputError
from edgefleet.manifest import Input

NAN, INF = np.nan, np.inf
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


def test_the_device_refuses_the_same_rows_for_the_same_first_reason() -> None:
    rng = np.random.default_rng(0)
    hard = np.array([NAN, INF, -INF, -1, 0, 0.1, 0.5, 1, 1.5, 2, 10, 11, 3e38], np.float32)
    x = rng.choice(hard, (4000, 4))
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
