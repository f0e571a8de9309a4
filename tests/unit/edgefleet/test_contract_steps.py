"""The list of primitives: what it computes, what it refuses, and its JSON."""

import json
from typing import Any

import msgspec
import numpy as np
import pytest

from edgefleet.errors import ArtifactError, InputError
from edgefleet.steps import Steps, Trace


def of(trace: Trace, last: int | None = None) -> Steps:
    ops = tuple(trace.ops[: (len(trace.ops) if last is None else last + 1)])
    width = ops[-1].shape[-1]
    return Steps(ops, tuple(f"c{i}" for i in range(width)), (0,) * width)


def halved_and_shifted() -> Steps:
    trace = Trace([3])
    trace.add(trace.mul(0, np.float32(0.5)), np.array([0, 1, np.nan], np.float32))
    return of(trace)


def test_steps_compute_what_they_say() -> None:
    assert np.array_equal(halved_and_shifted().run(np.array([[2.0, 4.0, 6.0]])), [[1.0, 3.0, np.nan]], equal_nan=True)


def test_a_long_batch_is_cleaned_as_its_rows_are() -> None:
    trace = Trace([4, 3])
    trace.concat([0, trace.where(trace.lt(0, np.float32(0)), np.float32(0), 0)])
    steps = of(trace)
    x = np.random.default_rng(0).standard_normal((30_000, 4, 3)).astype(np.float32)

    whole = steps.run(x)

    assert np.array_equal(whole[20_000:20_050], np.concatenate([steps.run(x[i : i + 1]) for i in range(20_000, 20_050)]))


def test_no_rows_give_no_rows_of_the_right_shape() -> None:
    assert halved_and_shifted().run(np.empty((0, 3))).shape == (0, 3)


def test_rows_of_another_shape_are_refused() -> None:
    with pytest.raises(InputError, match=r"\[4\] do not fit .* expected \[3\]"):
        halved_and_shifted().run(np.zeros((2, 4)))


def test_counting_edges_treats_missing_as_below_all() -> None:
    trace = Trace([1])
    trace.count_le(0, [0.0, 1.0, 2.0])

    assert of(trace).run(np.array([[np.nan], [-1], [0], [1.5], [np.inf]])).ravel().tolist() == [0, 0, 1, 2, 3]


def test_identity_returns_the_rows_and_knows_that_it_is_one() -> None:
    steps = Steps.identity([2, 3], ["a", "b", "c"])

    assert steps.is_identity
    assert steps.names == ("a", "b", "c")
    assert steps.sources == [0, 1, 2, 0, 1, 2]
    assert steps.input_shape == steps.output_shape == (2, 3)
    assert np.array_equal(steps.run(np.ones((4, 2, 3))), np.ones((4, 2, 3)))


def test_equal_operations_are_written_once() -> None:
    trace = Trace([2])

    assert trace.isnan(0) == trace.isnan(0)
    assert trace.add(0, np.float32(1)) == trace.add(0, np.float32(1))
    assert len(trace.ops) == 4


def test_json_is_read_back_to_the_same_bytes_and_answers() -> None:
    steps = halved_and_shifted()
    again = Steps.from_json(steps.to_json())
    x = np.random.default_rng(1).standard_normal((50, 3)).astype(np.float32)

    assert again.to_json() == steps.to_json()
    assert np.array_equal(again.run(x), steps.run(x), equal_nan=True)
    assert (again.names, again.column_sources) == (steps.names, steps.column_sources)


def test_constants_survive_json_to_the_last_bit() -> None:
    hard = np.array([0.1, 1 / 3, np.inf, -np.inf, np.nan, 1e-45, -0.0], np.float32)
    trace = Trace([7])
    trace.add(0, hard)
    stored = Steps.from_json(of(trace).to_json()).ops[1].values

    assert stored is not None
    assert stored.tobytes() == hard.tobytes()


GOLDEN = (
    b'{\n "column_sources": [\n  0\n ],\n "format_version": 1,\n "names": [\n  "c0"\n ],\n "ops": [\n'
    b'  {\n   "kind": "input",\n   "numbers": [\n    1\n   ]\n  },\n'
    b'  {\n   "kind": "const",\n   "values": "AAAAPw=="\n  },\n'
    b'  {\n   "args": [\n    0,\n    1\n   ],\n   "kind": "mul"\n  }\n ]\n}\n'
)


def test_the_stored_form_is_the_one_that_devices_in_the_field_read() -> None:
    trace = Trace([1])
    trace.mul(0, np.float32(0.5))

    assert of(trace).to_json() == GOLDEN
    assert Steps.from_json(GOLDEN).run(np.array([[4.0]])).tolist() == [[2.0]]


def stored(**changes: Any) -> bytes:
    return msgspec.json.encode({**json.loads(GOLDEN), **changes})


def operation(place: int, **changes: Any) -> bytes:
    document = json.loads(GOLDEN)
    document["ops"][place].update(changes)
    return msgspec.json.encode(document)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no valid list"),
        (GOLDEN[:-20], "no valid list"),
        (b"\xff" * 10, "no valid list"),
        (b"[" * 100_000, "no valid list"),
        (b" " * (16 * 1024 * 1024 + 1), "exceed the limit of 16777216"),
        (stored(format_version=2), "format version 2 is unknown"),
        (stored(more=1), "no valid list"),
        (stored(names=["a", "b"]), "2 names"),
        (stored(column_sources=[1]), "not one of the 1 inputs"),
        (stored(ops=[]), "first operation"),
        (stored(ops=json.loads(GOLDEN)["ops"][:2]), "no float32 column"),
        (stored(ops=json.loads(GOLDEN)["ops"][1:]), "do not stand before it"),
        (stored(ops=json.loads(GOLDEN)["ops"][:1] * 20_001), "limit of 20000"),
        (operation(2, kind="divide"), "unknown kind"),
        (operation(2, args=[0, 2]), "do not stand before it"),
        (operation(2, args=[0, -1]), "do not stand before it"),
        (operation(2, args=[0]), "do not stand before it"),
        (operation(2, kind="isnan", args=[0]), "no float32 column"),
        (operation(2, kind="where", args=[0, 0, 1]), "condition of `where`"),
        (operation(2, kind="take", args=[0], numbers=[1]), "do not fit"),
        (operation(2, kind="take", args=[1], numbers=[0]), "no rows to work on"),
        (operation(2, kind="rows", args=[0], numbers=[0, 2]), "do not fit"),
        (operation(2, kind="reshape", args=[0], numbers=[2]), "do not fit"),
        (operation(2, kind="lookup", args=[0], values="AAAAPw==", values_shape=[1]), "do not fit"),
        (operation(0, numbers=[0]), "is empty or exceeds"),
        (operation(0, numbers=[1, 1, 1, 1, 1]), "is empty or exceeds"),
        (operation(0, numbers=[1 << 40]), "is empty or exceeds"),
        (operation(1, values="AAA"), "operation 1 are damaged"),
        (operation(1, values="AAAAPw==", values_shape=[2]), "operation 1 are damaged"),
        (operation(1, values="AAAAPw==", values_shape=[-1, -1]), "operation 1 are damaged"),
        (operation(1, values=None), "values are missing"),
    ],
)
def test_a_damaged_list_is_refused_in_one_sentence(content: bytes, message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        Steps.from_json(content)


def test_edges_that_do_not_rise_are_refused() -> None:
    with pytest.raises(ArtifactError, match="do not fit"):
        Trace([1]).count_le(0, [1.0, 1.0])


def test_shapes_that_do_not_fit_are_refused() -> None:
    trace = Trace([4, 3])

    with pytest.raises(ArtifactError, match="do not fit each other"):
        trace.add(0, np.zeros(2))
    with pytest.raises(ArtifactError, match="need one rank"):
        trace.add(0, np.zeros((1, 4, 3)))
    with pytest.raises(ArtifactError, match="cannot be joined"):
        trace.concat([0, trace.rows(0, 0, 2)])


def test_a_list_that_would_fill_the_memory_is_refused_before_it_runs() -> None:
    trace = Trace([1 << 21])
    for i in range(40):
        trace.add(i if i == 0 else len(trace.ops) - 1, np.float32(1))

    with pytest.raises(ArtifactError, match=r"one row takes .* intermediate values"):
        of(trace)
