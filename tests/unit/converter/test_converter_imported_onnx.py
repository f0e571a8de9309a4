"""ONNX graphs made elsewhere: wrapped, they answer as they did; what cannot be wrapped is refused by name."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from converter import convert
from converter.imported.answers import answers_of_graph
from converter.imported.looking import look
from converter.imported.onnx_file import open_onnx
from converter.imported.onnx_graph import wrapped_onnx
from converter.recipes import possible
from device_agent.runtime.onnx import OnnxSession
from device_agent.scorer import Scorer
from edgefleet.errors import ConfigError, EdgefleetError, VerdictError
from edgefleet.package import ModelPackage
from edgefleet.signature import Signature, Tensor
from edgefleet.steps import Steps, Trace
from tests.unit.converter.converter_imported import imported_package, write
from tests.unit.converter.onnx_made_elsewhere import FEATURES, clear_rows, dense, model, one_row_image, rows

# Of probabilities: the file's own numbers in float64 against float32 ones behind it.
SAME = 2e-7


def plain(content: bytes, x: NDArray[Any], **shape: Any) -> list[NDArray[Any]]:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    found: list[NDArray[Any]] = session.run(None, {session.get_inputs()[0].name: x.reshape(-1, *shape["sides"]) if shape else x})
    return found


def test_a_softmax_is_kept_as_the_files_own_and_the_margin_is_what_it_reads(tmp_path: Path) -> None:
    x = rows()
    package = imported_package(tmp_path / "package", dense("Softmax"), "onnx", x)

    session = OnnxSession(wrapped_onnx(package))
    margin, probabilities = session.run(x)

    assert np.array_equal(probabilities, plain(dense("Softmax"), x)[0])
    assert np.array_equal(margin, plain(dense(), x)[0])
    assert (session.features, session.margins, session.classes) == (FEATURES, 3, 3)


@pytest.mark.parametrize(("last", "columns", "classes"), [("", 3, 3), ("", 1, 2), ("Sigmoid", 1, 2)])
def test_logits_one_logit_and_a_sigmoid_become_margin_and_probabilities(tmp_path: Path, last: str, columns: int, classes: int) -> None:
    x = rows()
    package = imported_package(tmp_path / "package", dense(last, columns=columns), "onnx", x, classes=classes)

    margin, probabilities = OnnxSession(wrapped_onnx(package)).run(x)
    original = answers_of_graph(package, x)

    assert np.array_equal(margin, plain(dense(columns=columns), x)[0])
    assert np.abs(probabilities - original.probabilities).max() < SAME
    assert np.array_equal(original.margin.astype(np.float32), margin)


def test_a_scikit_learn_forest_with_a_dictionary_a_row_is_cut_to_its_tensor(tmp_path: Path) -> None:
    import skl2onnx
    from sklearn.ensemble import RandomForestClassifier

    x = rows()
    y = np.where(x[:, 0] > 0.3, "b", np.where(x[:, 1] > 0, "c", "a"))
    forest = RandomForestClassifier(12, max_depth=5, random_state=0).fit(x, y)
    content = skl2onnx.to_onnx(forest, x[:1], target_opset={"": 17, "ai.onnx.ml": 3}).SerializeToString()
    package = imported_package(tmp_path / "package", content, "onnx", x)

    margin, probabilities = OnnxSession(wrapped_onnx(package)).run(x)

    # Twelve trees are added up in float32.
    assert np.abs(probabilities - forest.predict_proba(x)).max() < 1e-6
    assert np.array_equal(margin.argmax(axis=1), probabilities.argmax(axis=1))
    reasons = dict(possible(package))
    assert [target for target, reason in reasons.items() if reason is None] == ["onnx-fp32"]
    assert str(reasons["onnx-int8"]).startswith("trees are not quantized")
    assert "not turned into TFLite" in str(reasons["tflite-fp32"])
    assert "not written as C" in str(reasons["c"])


def test_a_detectors_score_is_turned_so_that_strange_rows_score_higher(tmp_path: Path) -> None:
    import skl2onnx
    from sklearn.ensemble import IsolationForest

    x = rows()
    forest = IsolationForest(n_estimators=20, random_state=0).fit(x)
    content = skl2onnx.to_onnx(forest, x[:1], target_opset={"": 17, "ai.onnx.ml": 3}).SerializeToString()
    package = imported_package(tmp_path / "package", content, "onnx", x, "anomaly")

    margin, _ = OnnxSession(wrapped_onnx(package)).run(x)

    assert np.abs(margin[:, 0] + forest.decision_function(x)).max() < 1e-5


def test_a_reconstruction_is_scored_by_its_mean_squared_error(tmp_path: Path) -> None:
    x = rows()
    package = imported_package(tmp_path / "package", dense(columns=FEATURES), "onnx", x, "anomaly")

    margin, probabilities = OnnxSession(wrapped_onnx(package)).run(x)

    expected = np.square(plain(dense(columns=FEATURES), x)[0].astype(np.float64) - x).mean(axis=1)
    assert np.allclose(margin[:, 0], expected, rtol=1e-5)
    assert probabilities.shape == (len(x), 0)


def test_a_graph_that_takes_doubles_is_given_doubles(tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("MatMul", ["wide", "w"], ["z"]),
        helper.make_node("Cast", ["z"], ["answer"], to=TensorProto.FLOAT),
    ]
    weights = np.random.default_rng(0).normal(size=(FEATURES, 1))
    content = model(nodes, {"w": weights}, ["N", FEATURES], {"answer": ["N", 1]}, kind="DOUBLE", name="wide")
    x = rows()
    package = imported_package(tmp_path / "package", content, "onnx", x, "regression")

    margin, _ = OnnxSession(wrapped_onnx(package)).run(x)

    assert np.array_equal(margin, (x.astype(np.float64) @ weights).astype(np.float32))


def test_an_operator_of_another_domain_may_stand_in_a_branch_alone(tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    def branch(name: str, scale: float) -> Any:
        node = helper.make_node("Scaler", ["inputs"], [name], domain="ai.onnx.ml", offset=[0.0] * FEATURES, scale=[scale] * FEATURES)
        return helper.make_graph([node], f"{name} graph", [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)])

    nodes = [
        helper.make_node("If", ["always"], ["scaled"], then_branch=branch("a", 2.0), else_branch=branch("b", 3.0)),
        helper.make_node("ReduceMean", ["scaled"], ["answer"], axes=[1], keepdims=1),
    ]
    content = model(nodes, {"always": np.array(True)}, ["N", FEATURES], {"answer": ["N", 1]}, domains=["ai.onnx.ml"])
    x = rows()
    package = imported_package(tmp_path / "package", content, "onnx", x, "regression")

    margin, _ = OnnxSession(wrapped_onnx(package)).run(x)

    assert np.allclose(margin[:, 0], 2 * x.mean(axis=1), rtol=0, atol=1e-6)


def test_a_graph_for_one_row_takes_many_where_they_are_answered_as_alone(tmp_path: Path) -> None:
    x = rows()
    package = imported_package(tmp_path / "package", one_row_image(), "onnx", x, classes=4)

    session = OnnxSession(wrapped_onnx(package))

    assert session.raw.get_inputs()[0].shape == ["n", FEATURES]
    alone = np.concatenate([plain(one_row_image(), row, sides=(1, 2, 3))[0] for row in x[:50]])
    assert np.allclose(session.run(x[:50])[0], alone, rtol=0, atol=1e-6)


def test_a_graph_whose_rows_have_a_say_in_each_other_stays_at_one_row(tmp_path: Path) -> None:
    x = rows()
    package = imported_package(tmp_path / "package", one_row_image(mixing=True), "onnx", x, classes=4)

    session = OnnxSession(wrapped_onnx(package))

    assert session.raw.get_inputs()[0].shape == [1, FEATURES]
    alone = np.concatenate([plain(one_row_image(mixing=True), row, sides=(1, 2, 3))[0] for row in x[:50]])
    assert np.array_equal(session.run(x[:50])[0], alone)


def test_a_graph_for_four_rows_and_no_other_number_is_refused_with_the_number(tmp_path: Path) -> None:
    from onnx import helper

    nodes = [helper.make_node("Sub", ["inputs", "fixed"], ["apart"]), helper.make_node("MatMul", ["apart", "w"], ["answer"])]
    constants = {
        "fixed": np.arange(4, dtype=np.float32)[:, None] + np.zeros((4, FEATURES), np.float32),
        "w": np.ones((FEATURES, 3), np.float32),
    }
    content = model(nodes, constants, [4, FEATURES], {"answer": [4, 3]})
    package = imported_package(tmp_path / "package", content, "onnx", rows())

    with pytest.raises(VerdictError, match="takes 4 rows at once and no other number"):
        wrapped_onnx(package)


def test_an_old_opset_is_lifted_and_answers_the_same(tmp_path: Path) -> None:
    x = rows()
    old = dense("Softmax", opset=9)
    package = imported_package(tmp_path / "package", old, "onnx", x)

    wrapped = wrapped_onnx(package)

    assert np.abs(OnnxSession(wrapped).run(x)[1] - plain(old, x)[0]).max() < SAME


def test_cleaning_steps_and_a_calibrator_stand_in_front_and_behind(tmp_path: Path) -> None:
    x = rows()
    trace = Trace((FEATURES,))
    trace.mul(0, np.full(FEATURES, 2.0, np.float32))
    steps = Steps(tuple(trace.ops), tuple(f"x{i}" for i in range(FEATURES)), tuple(range(FEATURES)))
    sharper = b'{"kind": "temperature", "slope": 0.5}'
    package = imported_package(tmp_path / "package", dense("Softmax"), "onnx", x, steps=steps.to_json(), calibrator=sharper)

    _, probabilities = OnnxSession(wrapped_onnx(package)).run(x)

    # By hand: the square root of each share, which is kept at 1e-6 at least.
    roots = np.sqrt(np.maximum(plain(dense("Softmax"), x * 2)[0].astype(np.float64), 1e-6))
    assert np.abs(probabilities - roots / roots.sum(axis=1, keepdims=True)).max() < 1e-6
    assert np.abs(probabilities - answers_of_graph(package, x).probabilities).max() < 1e-6


def named(**changes: Any) -> Signature:
    return Signature(
        **{"kind": "onnx", "inputs": [Tensor(name="inputs", shape=[None, FEATURES])], "output": "answer", "meaning": "logits", **changes}
    )


def with_external(content: bytes) -> bytes:
    import onnx

    changed = onnx.load_from_string(content)
    tensor = changed.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    return bytes(changed.SerializeToString())


def with_external_in_a_function() -> bytes:
    import onnx
    from onnx import helper

    constant = onnx.load_from_string(with_external(dense())).graph.initializer[0]
    body = [helper.make_node("Constant", [], ["w"], value=constant), helper.make_node("MatMul", ["x", "w"], ["y"])]
    function = helper.make_function("own", "F", ["x"], ["y"], body, [helper.make_opsetid("", 17)])
    node = helper.make_node("F", ["inputs"], ["answer"], domain="own")
    whole = onnx.load_from_string(model([node], {}, ["N", FEATURES], {"answer": ["N", 3]}, domains=["own"]))
    whole.functions.append(function)
    return bytes(whole.SerializeToString())


def custom_operator() -> bytes:
    from onnx import helper

    node = helper.make_node("Wizardry", ["inputs"], ["answer"], domain="org.elsewhere")
    return model([node], {}, ["N", FEATURES], {"answer": ["N", 3]}, domains=["org.elsewhere"])


def a_sequence() -> bytes:
    from onnx import TensorProto, helper

    node = helper.make_node("SequenceConstruct", ["inputs"], ["answer"])
    return model([node], {}, ["N", FEATURES], {}, more_outputs=[helper.make_tensor_sequence_value_info("answer", TensorProto.FLOAT, None)])


def whole_numbers() -> bytes:
    from onnx import TensorProto, helper

    return model([helper.make_node("Cast", ["inputs"], ["answer"], to=TensorProto.FLOAT)], {}, ["N", 6], {"answer": ["N", 6]}, kind="INT64")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lambda: with_external(dense()), r"keeps 'w' in a file beside it; save it as one file"),
        (with_external_in_a_function, r"keeps 'w' in a file beside it; save it as one file"),
        (custom_operator, r"the operator org\.elsewhere\.Wizardry, which is not built into ONNX Runtime"),
        (a_sequence, r"the output 'answer' is a sequence_type, not a tensor"),
        (whole_numbers, r"takes int64, devices give float32"),
        (lambda: b"no graph at all", r"is damaged"),
    ],
)
def test_what_no_device_could_run_is_refused_by_name(content: Any, words: str) -> None:
    with pytest.raises(EdgefleetError, match=words):
        open_onnx(content(), named())


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ([Tensor(name="colour", dtype="text")], r"input 'colour' takes texts, devices give numbers"),
        ([Tensor(name="a"), Tensor(name="b")], r"takes 2 inputs \(a, b\), a device gives one row"),
    ],
)
def test_texts_and_several_inputs_are_refused_before_the_file_is_opened(tmp_path: Path, inputs: list[Tensor], words: str) -> None:
    package = write(tmp_path / "package", dense(), "onnx", rows(), "classification", 3, named(inputs=inputs))

    reasons = dict(possible(package))

    assert {reasons["onnx-fp32"], reasons["onnx-int8"]} == {reasons["onnx-fp32"]}
    with pytest.raises(ConfigError, match=words):
        convert(package, ["onnx-fp32"], tmp_path / "bundle")


@pytest.mark.conversions
def test_a_graph_that_is_integer_already_is_wrapped_under_that_name_only(tmp_path: Path) -> None:
    x = clear_rows(lambda some: plain(dense("Softmax", hidden=256), some)[0])
    float_one = imported_package(tmp_path / "float", dense("Softmax", hidden=256), "onnx", x)
    convert(float_one, ["onnx-int8"], tmp_path / "integer")
    content = _as_a_stranger((tmp_path / "integer" / "onnx-int8.onnx").read_bytes())
    package = imported_package(tmp_path / "package", content, "onnx", x)

    reasons = dict(possible(package))
    bundle = convert(package, output=tmp_path / "bundle")

    assert [target for target, reason in reasons.items() if reason is None] == ["onnx-int8"]
    assert "the file is onnx-int8 already" in str(reasons["onnx-fp32"])
    assert [variant.name for variant in bundle.manifest.variants] == ["onnx-int8"]
    with Scorer.open(tmp_path / "bundle") as scorer:
        assert np.abs(scorer.score_batch(x[:64]).probabilities - plain(content, x[:64])[0]).max() < SAME


def _as_a_stranger(content: bytes) -> bytes:
    """Only the probabilities are left as an output."""
    import onnx

    changed = onnx.load_from_string(content)
    kept = [value for value in changed.graph.output if value.name == "probabilities"]
    del changed.graph.output[:]
    changed.graph.output.extend(kept)
    return bytes(changed.SerializeToString())


@pytest.mark.conversions
def test_every_possible_variant_of_an_imported_network_is_proven_and_in_the_bundle(tmp_path: Path) -> None:
    x = clear_rows(lambda some: plain(dense("Softmax", hidden=256), some)[0])
    package = imported_package(tmp_path / "package", dense("Softmax", hidden=256), "onnx", x)

    bundle = convert(package, output=tmp_path / "bundle")

    assert [variant.name for variant in bundle.manifest.variants] == ["onnx-fp32", "onnx-fp16", "onnx-int8", "onnx-int8-dynamic"]
    assert bundle.manifest.mlflow is None
    exact = plain(dense("Softmax", hidden=256), x[:50])[0]
    with Scorer.open(tmp_path / "bundle", "onnx-fp32") as scorer:
        assert np.array_equal(scorer.score_batch(x[:50]).probabilities, exact)


def test_equal_packages_give_equal_graphs(tmp_path: Path) -> None:
    package = imported_package(tmp_path / "package", dense("Softmax"), "onnx", rows())

    assert wrapped_onnx(package) == wrapped_onnx(ModelPackage.open(package.folder))
    assert look({"package": str(package.folder)}) == {"form": "onnx-fp32", "refused": "", "reasons": {}}
