"""Which operators a graph may hold: read from the files themselves, held against the list, and refused by name."""

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto, defs, helper

from converter.to_onnx.graphs import describe
from converter.to_tflite.flat import checked_operators
from edgefleet.errors import ArtifactError
from edgefleet.graphs import check_graph
from edgefleet.graphs.allowed import LITERT_NUMBERS, ONNX
from edgefleet.graphs.onnx_file import onnx_operators
from edgefleet.graphs.tflite_file import tflite_operators
from edgefleet.graphs.wire import Budget, fields
from tests.unit.edgefleet.flat_graphs import INT32, Loop, Writer, dense_graph

WEIGHTS = np.arange(15, dtype=np.float32).reshape(5, 3)


def model(*nodes: NodeProto, constants: tuple[TensorProto, ...] = (), **more: Any) -> ModelProto:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 5]) for name in ("inputs", "margin")]
    graph = helper.make_graph(list(nodes), "g", ends[:1], ends[1:], list(constants))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, **more)


def plain() -> ModelProto:
    return model(helper.make_node("Relu", ["inputs"], ["margin"]))


def branch(*nodes: NodeProto) -> NodeProto:
    inner = helper.make_graph(list(nodes), "inner", [], [helper.make_tensor_value_info("b", TensorProto.FLOAT, None)])
    return helper.make_node("If", ["inputs"], ["margin"], then_branch=inner, else_branch=inner)


def external(location: str = "weights.bin") -> TensorProto:
    tensor = helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0])
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def check_onnx(made: ModelProto) -> list[str]:
    return check_graph(made.SerializeToString(), "onnxruntime", "m.onnx")


def test_operators_are_those_that_the_onnx_package_finds_inner_graphs_included() -> None:
    inner = branch(helper.make_node("Erf", ["inputs"], ["b"]))
    made = model(inner, helper.make_node("Add", ["margin", "margin"], ["x"]), helper.make_node("Sin", ["x"], ["y"]))

    found = onnx_operators(made.SerializeToString(), "m.onnx")

    assert sorted(name for _, name in found) == describe(made.SerializeToString())[0] == ["Add", "Erf", "If", "Sin"]


@pytest.mark.parametrize(
    ("node", "named"),
    [
        (helper.make_node("Scan", ["a"], ["c"]), "'Scan'"),
        (branch(helper.make_node("Erf", ["inputs"], ["b"])), "'If'"),
        (helper.make_node("RandomNormal", [], ["c"], shape=[1]), "'RandomNormal'"),
        (helper.make_node("Relu", ["a"], ["c"], domain="com.evil"), "'com.evil.Relu'"),
        (helper.make_node("FusedMatMul", ["a"], ["c"], domain="com.microsoft"), "'com.microsoft.FusedMatMul'"),
        (helper.make_node("ZipMap", ["a"], ["c"], domain="ai.onnx.ml"), "'ai.onnx.ml.ZipMap'"),
        (helper.make_node("", ["a"], ["c"]), "''"),
    ],
    ids=["scan", "branch", "random", "own domain", "microsoft", "maps", "nameless"],
)
def test_an_operator_that_is_not_on_the_list_is_named_with_file_and_remedy(node: NodeProto, named: str) -> None:
    with pytest.raises(ArtifactError, match=rf"m\.onnx: operator {named} is not on the list .* convert it again"):
        check_onnx(model(helper.make_node("Relu", ["inputs"], ["margin"]), node))


def test_a_loop_is_found_however_deep_it_lies() -> None:
    node = helper.make_node("Scan", ["a"], ["b"]).SerializeToString()
    for _ in range(3000):  # protobuf's own reader stops at 100
        graph = wrapped(1, node)
        node = wrapped(4, b"Relu") + wrapped(5, wrapped(1, b"body") + wrapped(6, graph))

    with pytest.raises(ArtifactError, match="'Scan'"):
        check_graph(wrapped(7, wrapped(1, node)), "onnxruntime", "m.onnx")


def test_of_a_name_given_twice_both_are_read() -> None:
    node = wrapped(4, b"Scan") + wrapped(4, b"Relu")
    with pytest.raises(ArtifactError, match="'Scan'"):
        check_graph(wrapped(7, wrapped(1, node)), "onnxruntime", "m.onnx")


def test_the_standard_domain_has_two_names() -> None:
    assert check_onnx(model(helper.make_node("Relu", ["inputs"], ["margin"], domain="ai.onnx"))) == ["Relu"]


def looping(count: TensorProto | None, *more: NodeProto, first: str = "count", inner: tuple[NodeProto, ...] = ()) -> ModelProto:
    """A Loop over `inputs` with that count of turns."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Add", ["x", "x"], ["y"]), *inner],
        "body",
        [
            helper.make_tensor_value_info(name, kind, shape)
            for name, kind, shape in (("i", TensorProto.INT64, []), ("go", TensorProto.BOOL, []), ("x", TensorProto.FLOAT, [None, 5]))
        ],
        [helper.make_tensor_value_info("go_on", TensorProto.BOOL, []), helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 5])],
    )
    loop = helper.make_node("Loop", [first, "", "inputs"], ["margin"], body=body)
    return model(*more, loop, constants=() if count is None else (count,))


def turns(count: int, raw: bool = False, kind: int = TensorProto.INT64, name: str = "count") -> TensorProto:
    return helper.make_tensor(name, kind, [], count.to_bytes(8, "little", signed=True) if raw else [count], raw=raw)


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("count", [0, 12, 300, 65_536])
def test_a_loop_with_a_constant_count_is_let_through_and_turns_so_often(count: int, raw: bool) -> None:
    import onnxruntime

    content = looping(turns(count, raw)).SerializeToString()

    assert check_graph(content, "onnxruntime", "m.onnx") == ["Add", "Identity", "Loop"]
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    answer = session.run(None, {"inputs": np.full((1, 5), 2.0**-20, np.float32)})[0]
    assert answer[0, 0] == (2.0 ** (count - 20) if count < 100 else np.inf)


def _twice() -> ModelProto:
    made = looping(turns(5))
    made.graph.initializer.append(turns(2**62))
    return made


def _two_graphs() -> bytes:
    """Readers of protocol buffers join both: the count of the one and the loop of the other."""
    return bytes(looping(None).SerializeToString() + model(constants=(turns(5),)).SerializeToString())


def _given() -> ModelProto:
    made = looping(turns(5))
    made.graph.input.append(helper.make_tensor_value_info("count", TensorProto.INT64, []))
    return made


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (looping(turns(65_537)), "turns up to 65537 times, more than 65536"),
        (looping(turns(2**62, raw=True)), "turns up to 4611686018427387904 times"),
        (looping(turns(-1, raw=True)), "no constant of the file"),
        (looping(turns(5), first=""), "no constant of the file"),
        (looping(turns(5, name="other")), "no constant of the file"),
        (looping(turns(5, kind=TensorProto.INT32)), "no constant of the file"),
        (looping(None, helper.make_node("Cast", ["inputs"], ["count"], to=TensorProto.INT64)), "no constant of the file"),
        (looping(turns(5), helper.make_node("Cast", ["inputs"], ["count"], to=TensorProto.INT64)), "no constant of the file"),
        (_twice(), "no constant of the file"),
        (_given(), "no constant of the file"),
        (looping(turns(5), inner=(helper.make_node("Loop", ["count", "", "x"], ["z"]),)), "inside another loop"),
    ],
    ids=["long", "endless", "negative", "none", "unknown", "int32", "from the row", "made twice", "given twice", "an input", "nested"],
)
def test_a_loop_whose_count_is_no_small_constant_is_refused_with_the_reason(made: ModelProto, why: str) -> None:
    with pytest.raises(ArtifactError, match=rf"m\.onnx: operator 'Loop' may run without end: .*{why}"):
        check_onnx(made)


def test_a_file_of_two_graphs_is_refused() -> None:
    assert len(ModelProto.FromString(_two_graphs()).graph.initializer) == 1
    with pytest.raises(ArtifactError, match="holds 2 graphs"):
        check_graph(_two_graphs(), "onnxruntime", "m.onnx")


def wrapped(number: int, content: bytes) -> bytes:
    """A field of bytes."""
    size, length = len(content), b""
    while size > 0x7F:
        length += bytes([size & 0x7F | 0x80])
        size >>= 7
    tag = number << 3 | 2
    return (bytes([tag]) if tag < 0x80 else bytes([tag & 0x7F | 0x80, tag >> 7])) + length + bytes([size]) + content


def _with_function() -> ModelProto:
    made = plain()
    made.functions.append(FunctionProto(name="f", domain="d"))
    return made


def _with_training() -> ModelProto:
    made = plain()
    made.training_info.add()
    return made


def _constant_node() -> ModelProto:
    return model(helper.make_node("Constant", [], ["c"], value=external("/etc/passwd")))


def _sparse() -> ModelProto:
    made = plain()
    made.graph.sparse_initializer.append(SparseTensorProto(values=external(), dims=[1]))
    return made


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: model(constants=(external("../../secret"),)), "external data"),
        (_constant_node, "external data"),
        (_sparse, "external data"),
        (_with_function, "functions"),
        (_with_training, "training graph"),
    ],
    ids=["initializer", "constant", "sparse", "functions", "training"],
)
def test_what_reaches_outside_the_graph_is_refused(make: Callable[[], ModelProto], said: str) -> None:
    with pytest.raises(ArtifactError, match=said):
        check_onnx(make())


def test_onnxruntimes_own_format_is_refused_whatever_else_the_bytes_are() -> None:
    content = wrapped(2, b"\x00\x00ORTM") + plain().SerializeToString()

    assert (ModelProto.FromString(content).producer_name, content[4:8]) == ("\x00\x00ORTM", b"ORTM")
    with pytest.raises(ArtifactError, match="onnxruntime's own format"):
        check_graph(content, "onnxruntime", "m.onnx")
    assert check_graph(wrapped(2, b"ORTM") + plain().SerializeToString(), "onnxruntime", "m.onnx") == ["Relu"]


def test_every_beginning_of_a_file_is_read_or_refused_and_nothing_else() -> None:
    content = model(branch(helper.make_node("Erf", ["inputs"], ["b"])), constants=(external(),)).SerializeToString()
    for kept in range(len(content)):
        with pytest.raises(ArtifactError, match=r"m\.onnx"):
            check_graph(content[:kept], "onnxruntime", "m.onnx")


def test_numbers_of_fields_are_those_of_the_format() -> None:
    wanted: list[tuple[Any, str, int]] = [
        (ModelProto, "graph", 7), (ModelProto, "functions", 25), (ModelProto, "training_info", 20), (GraphProto, "node", 1),
        (GraphProto, "initializer", 5), (GraphProto, "sparse_initializer", 15), (NodeProto, "op_type", 4), (NodeProto, "domain", 7),
        (NodeProto, "attribute", 5), (AttributeProto, "t", 5), (AttributeProto, "g", 6), (AttributeProto, "tensors", 10),
        (AttributeProto, "graphs", 11), (AttributeProto, "sparse_tensor", 22), (AttributeProto, "sparse_tensors", 23),
        (TensorProto, "external_data", 13), (TensorProto, "data_location", 14), (SparseTensorProto, "values", 1),
        (SparseTensorProto, "indices", 2),
    ]  # fmt: skip
    assert [message.DESCRIPTOR.fields_by_name[name].number for message, name, _ in wanted] == [number for _, _, number in wanted]


def test_every_message_that_can_hold_a_graph_or_a_tensor_is_walked() -> None:
    """A field that a later ONNX adds and that leads to nodes or tensors must not be passed over."""
    kinds = {"GraphProto", "NodeProto", "AttributeProto", "TensorProto", "SparseTensorProto"}
    messages: list[Any] = [ModelProto, GraphProto, NodeProto, AttributeProto, SparseTensorProto]
    fields_of = [(message.DESCRIPTOR.name, field) for message in messages for field in message.DESCRIPTOR.fields]
    walked = {(name, field.name) for name, field in fields_of if field.message_type is not None and field.message_type.name in kinds}
    assert walked == {
        ("ModelProto", "graph"), ("GraphProto", "node"), ("GraphProto", "initializer"), ("GraphProto", "sparse_initializer"),
        ("NodeProto", "attribute"), ("AttributeProto", "t"), ("AttributeProto", "g"), ("AttributeProto", "tensors"),
        ("AttributeProto", "graphs"), ("AttributeProto", "sparse_tensor"), ("AttributeProto", "sparse_tensors"),
        ("SparseTensorProto", "values"), ("SparseTensorProto", "indices"),
    }  # fmt: skip


def test_trees_of_millions_of_numbers_are_passed_over_quickly_and_read_right() -> None:
    values = b"\x3d\x00\x00\x80\x3f" * 6_000_000
    words = (wrapped(9, b"BRANCH_LEQ") + wrapped(9, b"LEAF") + wrapped(9, b"BRANCH_GT")) * 1000
    node = wrapped(4, b"TreeEnsembleRegressor") + wrapped(7, b"ai.onnx.ml") + wrapped(5, words + values + b"\x40\x80\x01" * 1000)

    assert check_graph(wrapped(7, wrapped(1, node)), "onnxruntime", "m.onnx") == ["TreeEnsembleRegressor"]


def test_the_count_of_fields_is_bounded() -> None:
    content = b"\x08\x01" * 11
    with pytest.raises(ArtifactError, match="fields in the graph"):
        list(fields(content, 0, len(content), Budget("m.onnx", left=10)))


def test_no_operator_on_the_list_but_loop_holds_a_graph_draws_numbers_or_is_unknown_to_onnx() -> None:
    for domain, name in ONNX:
        schema = defs.get_schema(name, domain=domain)
        kinds = set() if name == "Loop" else {attribute.type for attribute in schema.attributes.values()}
        assert not kinds & {defs.OpSchema.AttrType.GRAPH, defs.OpSchema.AttrType.GRAPHS}, name
        assert not name.startswith("Random")


def test_numbers_of_tflite_operators_are_those_of_the_schema() -> None:
    from ai_edge_litert import schema_py_generated as schema

    assert {name: getattr(schema.BuiltinOperator, name) for name in LITERT_NUMBERS.values()} == {
        name: number for number, name in LITERT_NUMBERS.items()
    }
    refused = {"CUSTOM", "DELEGATE", "IF", "CALL", "CALL_ONCE", "STABLEHLO_WHILE", "VAR_HANDLE", "HASHTABLE", "RANDOM_UNIFORM", "RANGE"}
    assert not refused & set(LITERT_NUMBERS.values())


def test_operators_of_a_tflite_file_are_those_that_the_converter_finds() -> None:
    graph = dense_graph(WEIGHTS)
    assert check_graph(graph, "litert", "m.tflite") == checked_operators(graph) == ["FULLY_CONNECTED", "SOFTMAX"]


@pytest.mark.parametrize(
    ("number", "own_name", "named"),
    [(118, None, "number 118"), (32, b"FlexErf", "custom FlexErf"), (32, b"evil", "custom evil"), (146, None, "number 146")],
)
def test_a_tflite_operator_that_is_not_on_the_list_is_named(number: int, own_name: bytes | None, named: str) -> None:
    writer = Writer()
    graph = writer.subgraph()
    x, y = writer.tensor(graph, "x", [1, 2]), writer.tensor(graph, "y", [1, 2])
    writer.operator(graph, number, [x], [y])
    writer.model.operatorCodes[0].customCode = own_name
    graph.inputs, graph.outputs = [x], [y]

    with pytest.raises(ArtifactError, match=rf"m\.tflite: operator '{named}' is not on the list"):
        check_graph(writer.content(), "litert", "m.tflite")


def test_every_beginning_of_a_tflite_file_is_read_or_refused_and_nothing_else() -> None:
    content = dense_graph(WEIGHTS)
    read = []
    for kept in range(len(content)):
        with contextlib.suppress(ArtifactError):
            read.append(check_graph(content[:kept], "litert", "m.tflite"))

    assert all(names == ["FULLY_CONNECTED", "SOFTMAX"] for names in read)
    assert len(read) < len(content) / 2


def test_a_file_that_points_at_one_table_a_million_times_is_refused_in_time() -> None:
    writer = Writer()
    graph = writer.subgraph()
    x, y = writer.tensor(graph, "x", [1, 2]), writer.tensor(graph, "y", [1, 2])
    for _ in range(3000):
        writer.operator(graph, 28, [x], [y])
    graph.inputs, graph.outputs = [x], [y]
    writer.model.subgraphs = [graph] * 3000
    content = shared_subgraphs(writer, graph)

    with pytest.raises(ArtifactError, match="parts in the graph"):
        tflite_operators(content, "m.tflite")


def shared_subgraphs(writer: Writer, graph: Any, times: int = 3000) -> bytes:
    """The file with a vector of subgraphs whose entries all point at the same one."""
    import flatbuffers  # type: ignore[import-untyped]  # ships no types

    schema, builder = writer.schema, flatbuffers.Builder(1024)
    one = graph.Pack(builder)
    codes = [code.Pack(builder) for code in writer.model.operatorCodes]
    schema.ModelStartOperatorCodesVector(builder, len(codes))
    for code in reversed(codes):
        builder.PrependUOffsetTRelative(code)
    codes_at = builder.EndVector()
    schema.ModelStartSubgraphsVector(builder, times)
    for _ in range(times):
        builder.PrependUOffsetTRelative(one)
    subgraphs_at = builder.EndVector()
    schema.ModelStart(builder)
    schema.ModelAddOperatorCodes(builder, codes_at)
    schema.ModelAddSubgraphs(builder, subgraphs_at)
    builder.Finish(schema.ModelEnd(builder), b"TFL3")
    return bytes(builder.Output())


@pytest.mark.parametrize("where", ["offset", "external", "options"])
def test_weights_outside_a_tflite_graph_are_refused(where: str) -> None:
    writer = Writer()
    graph = writer.subgraph()
    x, y = writer.tensor(graph, "x", [1, 2]), writer.tensor(graph, "y", [1, 2])
    operator = writer.operator(graph, 28, [x], [y])
    if where == "offset":
        writer.model.buffers[0].offset, writer.model.buffers[0].size = 64, 4096
    elif where == "external":
        graph.tensors[0].externalBuffer = 7
    else:
        operator.largeCustomOptionsOffset, operator.largeCustomOptionsSize = 64, 4096

    with pytest.raises(ArtifactError, match="outside the graph"):
        check_graph(writer.as_the_schema_packs_it(), "litert", "m.tflite")


def test_a_loop_that_counts_to_a_constant_is_let_through_and_runs() -> None:
    from ai_edge_litert.interpreter import Interpreter

    content = Loop(limit=5).content()

    assert check_graph(content, "litert", "m.tflite") == ["ADD", "LESS", "WHILE"]
    run = Interpreter(model_content=content).get_signature_runner()
    assert run(inputs=np.array([[1.0, 2.0]], np.float32))["result"].tolist() == [[32.0, 64.0]]


def test_a_limit_and_a_step_that_the_loop_only_hands_on_are_constants_too() -> None:
    loop = Loop()
    writer, limit = loop.writer, loop.writer.constant(loop.main, np.array(9, np.int32))
    end = writer.tensor(loop.main, "end", [], INT32)
    loop.loop.inputs, loop.loop.outputs = [*loop.loop.inputs, limit], [*loop.loop.outputs, end]
    given, same = writer.tensor(loop.condition, "limit", [], INT32), writer.tensor(loop.body, "limit", [], INT32)
    loop.condition.inputs, loop.less.inputs = [*loop.condition.inputs, given], [loop.condition.inputs[0], given]
    loop.body.inputs, loop.body.outputs = [*loop.body.inputs, same], [*loop.body.outputs, same]

    assert "WHILE" in check_graph(loop.content(), "litert", "m.tflite")


def _no_step(loop: Loop) -> None:
    loop.add.inputs = [loop.body.inputs[0], loop.body.inputs[0]]


def _clipped(loop: Loop) -> None:
    loop.add_options.fusedActivationFunction = 3  # RELU6: the counter stays at 6


def _overwritten(loop: Loop) -> None:
    loop.writer.operator(loop.body, 41, [loop.add.outputs[0], loop.step], [loop.add.outputs[0]])


def _limit_grows(loop: Loop) -> None:
    loop.writer.operator(loop.condition, 0, [loop.condition.inputs[0], loop.limit], [loop.limit])


def _limit_from_row(loop: Loop) -> None:
    loop.less.inputs = [loop.condition.inputs[0], loop.condition.inputs[1]]


def _start_from_row(loop: Loop) -> None:
    loop.main.inputs = [*loop.main.inputs, loop.loop.inputs[0]]


def _nested(loop: Loop) -> None:
    loop.writer.operator(loop.body, 119, loop.body.inputs, loop.body.outputs, ("WhileOptions", loop.loop_options))


def _no_body(loop: Loop) -> None:
    loop.loop_options.bodySubgraphIndex = 9


def _not_counted(loop: Loop) -> None:
    loop.body.outputs = [loop.body.inputs[0], loop.body.outputs[1]]


def _same_twice(loop: Loop) -> None:
    loop.body.inputs = [loop.body.inputs[0]] * 2


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (_no_step, "no counter"), (_clipped, "no counter"), (_overwritten, "no counter"), (_limit_grows, "no counter"),
        (_limit_from_row, "no counter"), (_start_from_row, "no counter"), (_nested, "another loop"), (_no_body, "body is missing"),
        (_not_counted, "no counter"), (_same_twice, "do not fit"),
    ],
)  # fmt: skip
def test_a_loop_that_may_not_end_is_refused_with_the_reason(change: Callable[[Loop], None], why: str) -> None:
    loop = Loop()
    change(loop)
    with pytest.raises(ArtifactError, match=rf"m\.tflite: operator 'WHILE' may run without end: .*{why}"):
        check_graph(loop.content(), "litert", "m.tflite")


@pytest.mark.parametrize(
    ("limit", "step", "start", "why"),
    [(70_000, 1, 0, "turns up to 70000 times"), (5, 0, 0, "no counter"), (5, -1, 0, "no counter"), (5, 1, -(2**31), "no counter")],
)
def test_a_loop_that_counts_too_far_or_the_wrong_way_is_refused(limit: int, step: int, start: int, why: str) -> None:
    with pytest.raises(ArtifactError, match=why):
        check_graph(Loop(limit, step, start).content(), "litert", "m.tflite")


def test_a_loop_in_larger_steps_is_counted_in_turns() -> None:
    assert "WHILE" in check_graph(Loop(limit=130_000, step=2).content(), "litert", "m.tflite")
