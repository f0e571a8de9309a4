"""Graphs that say the same are the same bytes, whatever names and copies their maker happened to choose."""

import numpy as np
import onnxruntime
import pytest
from onnx import GraphProto, ModelProto, TensorProto, checker, helper

from converter.to_onnx.canonical import canonical


def loop(state: str, given_out: str, *, names: str = "") -> GraphProto:
    """Running sums of the inputs: a loop whose state is also what it gives out; one of the two is a copy of the other."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", [f"{names}go"], [f"{names}on"]),
            helper.make_node("Gather", ["inputs", f"{names}i"], [f"{names}row"]),
            helper.make_node("Add", [f"{names}sum", f"{names}row"], [f"{names}added"]),
            helper.make_node("Identity", [f"{names}added"], [f"{names}copied"]),
        ],
        f"{names}body",
        [
            helper.make_tensor_value_info(f"{names}i", TensorProto.INT64, []),
            helper.make_tensor_value_info(f"{names}go", TensorProto.BOOL, []),
            helper.make_tensor_value_info(f"{names}sum", TensorProto.FLOAT, []),
        ],
        [
            helper.make_tensor_value_info(f"{names}on", TensorProto.BOOL, []),
            helper.make_tensor_value_info(names + state, TensorProto.FLOAT, []),
            helper.make_tensor_value_info(names + given_out, TensorProto.FLOAT, []),
        ],
    )
    constants = [
        helper.make_tensor(f"{names}rows", TensorProto.INT64, [], [3]),
        helper.make_tensor(f"{names}yes", TensorProto.BOOL, [], [True]),
        helper.make_tensor(f"{names}zero", TensorProto.FLOAT, [], [0.0]),
    ]
    reads = [f"{names}rows", f"{names}yes", f"{names}zero"]
    return helper.make_graph(
        [helper.make_node("Loop", reads, [f"{names}last", "margin"], body=body)],
        "sums",
        [helper.make_tensor_value_info("inputs", TensorProto.FLOAT, [3])],
        [helper.make_tensor_value_info("margin", TensorProto.FLOAT, [3])],
        constants,
    )


def in_canonical_form(graph: GraphProto) -> ModelProto:
    nodes, constants = canonical(graph, ["margin"])
    fresh = helper.make_graph(nodes, "same", graph.input, graph.output, constants)
    return helper.make_model(fresh, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


VARIANTS = [("added", "copied"), ("copied", "added"), ("added", "added"), ("copied", "copied")]


@pytest.mark.parametrize(("state", "given_out"), VARIANTS)
def test_a_state_that_is_also_given_out_is_the_same_bytes_whichever_is_the_copy(state: str, given_out: str) -> None:
    first = in_canonical_form(loop("added", "copied"))
    model = in_canonical_form(loop(state, given_out, names="other_"))
    checker.check_model(model, full_check=True)

    assert model.SerializeToString(deterministic=True) == first.SerializeToString(deterministic=True)


@pytest.mark.parametrize(("state", "given_out"), VARIANTS)
def test_the_graph_answers_what_it_answered(state: str, given_out: str) -> None:
    session = onnxruntime.InferenceSession(
        in_canonical_form(loop(state, given_out)).SerializeToString(), providers=["CPUExecutionProvider"]
    )

    (sums,) = session.run(["margin"], {"inputs": np.asarray([1.0, 2.0, 4.0], np.float32)})

    assert sums.tolist() == [1.0, 3.0, 7.0]
