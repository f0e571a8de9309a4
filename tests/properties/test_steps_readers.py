"""Any list of primitives means the same to numpy and to onnxruntime, and survives its JSON."""

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from converter.to_onnx.steps import steps_to_onnx
from edgefleet.errors import ArtifactError
from edgefleet.steps import Steps, Trace

COLUMNS, ROWS = 3, 4
# Inside the guarantee: magnitudes that six multiplications of each other neither overflow nor push under the normal numbers.
numbers = st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.1, 1 / 3, 2.5, -7.25, 1234.5, 1e-3, 16777217.0])
values = st.one_of(numbers, st.just(float("nan")))


def rising(draw: st.DrawFn) -> list[float]:
    return sorted({float(np.float32(v)) for v in draw(st.lists(numbers, min_size=1, max_size=6))} - {0.0}) or [0.5]


def grow(draw: st.DrawFn, trace: Trace, node: int, window: bool) -> int:
    """One random operation on a node, giving a float32 node of any shape."""
    shape = trace.shape(node)
    constant = np.array(draw(st.lists(numbers, min_size=shape[-1], max_size=shape[-1])), np.float32)
    kind = draw(st.sampled_from(["arithmetic", "select", "flag", "missing", "take", "join", "table", "halves", "turn"]))
    if kind == "arithmetic":
        return draw(st.sampled_from([trace.add, trace.sub, trace.mul]))(node, constant)
    if kind == "select":
        return trace.where(trace.lt(node, constant), constant, node)
    if kind == "flag":
        return trace.f32(trace.eq(node, constant))
    if kind == "missing":
        return trace.where(trace.isnan(node), constant, node)
    if kind == "take":
        return trace.take(node, draw(st.lists(st.integers(0, shape[-1] - 1), min_size=1, max_size=5)))
    if kind == "join":
        return trace.concat([node, trace.mul(node, np.float32(-1))]) if shape[-1] < 20 else node
    if kind == "table":
        edges = rising(draw)
        return trace.lookup(trace.count_le(node, edges), np.arange(len(edges) + 1) * 0.7)
    if kind == "turn" or not window or len(shape) == 1 or shape[0] == 1:
        return trace.reshape(node, (int(np.prod(shape)),))
    half = shape[0] // 2
    rest = trace.rows(node, half, 2 * half)
    return trace.stack([trace.add(trace.rows(node, 0, half), rest), rest]) if draw(st.booleans()) else rest


@st.composite
def step_lists(draw: st.DrawFn) -> Steps:
    window = draw(st.booleans())
    trace = Trace([ROWS, COLUMNS] if window else [COLUMNS])
    node = 0
    for _ in range(draw(st.integers(1, 6))):
        node = grow(draw, trace, node, window)
    ops = tuple(trace.ops[: node + 1])
    width = ops[-1].shape[-1]
    return Steps(ops, tuple(f"c{i}" for i in range(width)), (0,) * width)


@st.composite
def steps_and_rows(draw: st.DrawFn) -> tuple[Steps, NDArray[np.float32]]:
    steps = draw(step_lists())
    size = int(np.prod(steps.input_shape))
    rows = draw(st.lists(st.lists(values, min_size=size, max_size=size), min_size=1, max_size=5))
    return steps, np.array(rows, np.float32).reshape(-1, *steps.input_shape)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(steps_and_rows())
def test_numpy_and_onnxruntime_agree_on_any_list_and_any_row(drawn: tuple[Steps, NDArray[np.float32]]) -> None:
    steps, x = drawn
    runtime = onnxruntime.InferenceSession(steps_to_onnx(steps).SerializeToString(), providers=["CPUExecutionProvider"])

    assert np.array_equal(runtime.run(None, {"inputs": x})[0], steps.run(x), equal_nan=True)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(steps_and_rows())
def test_a_rows_answer_does_not_depend_on_the_others_and_survives_json(drawn: tuple[Steps, NDArray[np.float32]]) -> None:
    steps, x = drawn
    again = Steps.from_json(steps.to_json())

    assert again.to_json() == steps.to_json()
    assert np.array_equal(np.concatenate([again.run(x[i : i + 1]) for i in range(len(x))]), steps.run(x), equal_nan=True)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(step_lists(), st.data())
def test_damaged_json_is_refused_by_name_or_still_a_list_that_runs(steps: Steps, data: st.DataObject) -> None:
    content = bytearray(steps.to_json())
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(32, 126))

    try:
        damaged = Steps.from_json(bytes(content))
    except ArtifactError:
        return
    assert damaged.run(np.zeros((2, *damaged.input_shape), np.float32)).shape == (2, *damaged.output_shape)


def test_the_lists_drawn_here_use_every_primitive() -> None:
    seen: set[str] = set()

    @settings(max_examples=150, deadline=None, derandomize=True, database=None)
    @given(step_lists())
    def look(steps: Steps) -> None:
        seen.update(op.kind for op in steps.ops)

    look()
    if (
        missing := {"add", "sub", "mul", "eq", "lt", "isnan", "where", "f32", "take", "concat", "rows", "stack", "reshape", "count_le"}
        - seen
    ):
        pytest.fail(f"never drawn: {sorted(missing)}")
