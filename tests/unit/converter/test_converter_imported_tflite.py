"""TFLite files made elsewhere: wrapped, they answer as they did; what cannot be wrapped is refused by name."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from converter import convert
from converter.imported.answers import answers_of_graph
from converter.imported.tflite_file import form_of, open_tflite
from converter.recipes import possible
from converter.to_tflite.flat import read_model, write_model
from device_agent.runtime.tflite import LiteSession
from device_agent.scorer import Scorer
from edgefleet.errors import EdgefleetError
from edgefleet.package import ModelPackage
from edgefleet.signature import Signature, Tensor
from edgefleet.steps import Steps, Trace
from tests.unit.converter.converter_children import call_all, in_child
from tests.unit.converter.converter_imported import imported_package
from tests.unit.converter.lite_made_elsewhere import FEATURES, rows

pytestmark = pytest.mark.keras
X = rows()
# Of probabilities: the file's own numbers in float64 against float32 ones behind it.
SAME = 2e-7
# Name: task, classes, target that the file is already.
WRAPPED: dict[str, tuple[Any, int, str]] = {
    "softmax": ("classification", 3, "tflite-fp32"),
    "fp16": ("classification", 3, "tflite-fp16"),
    "dynamic": ("classification", 3, "tflite-int8-dynamic"),
    "int8-ends": ("classification", 3, "tflite-int8"),
    "uint8-ends": ("classification", 3, "tflite-int8"),
    "float-ends": ("classification", 3, "tflite-int8"),
    "sigmoid": ("classification", 2, "tflite-fp32"),
    "logits": ("classification", 3, "tflite-fp32"),
    "value": ("regression", 0, "tflite-fp32"),
    "autoencoder": ("anomaly", 0, "tflite-fp32"),
    "window": ("classification", 3, "tflite-fp32"),
    "window-autoencoder": ("anomaly", 0, "tflite-fp32"),
    "one-row": ("classification", 3, "tflite-fp32"),
    "recurrent": ("classification", 3, "tflite-fp32"),
}
QUICK = ("softmax", "int8-ends", "one-row")
WINDOWS = ("window", "window-autoencoder", "recurrent")


@dataclass(frozen=True)
class Elsewhere:
    """Files, their packages, and the wrapped graphs."""

    files: dict[str, bytes]
    packages: dict[str, ModelPackage]
    graphs: dict[str, bytes]


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Elsewhere:
    return made(tmp_path_factory.mktemp("lite"), ["softmax", "int8-ends", "one-row"], ["whole-numbers", "no-weights"])


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Elsewhere:
    return made(tmp_path_factory.mktemp("others"), [name for name in WRAPPED if name not in QUICK], [])


def made(folder: Path, names: list[str], refused: list[str]) -> Elsewhere:
    in_child(["-m", "tests.unit.converter.lite_made_elsewhere", str(folder), *names, *refused])
    files = {path.stem: path.read_bytes() for path in folder.glob("*.tflite")}
    packages = {}
    for name in names:
        task, classes, _ = WRAPPED[name]
        x = X.reshape(-1, 1, FEATURES).repeat(4, axis=1) if name in WINDOWS else X
        packages[name] = imported_package(folder / f"p-{name}", files[name], "tflite", x, task, classes)
    if "softmax" in names:
        packages["cleaned"] = imported_package(folder / "p-cleaned", files["softmax"], "tflite", X, steps=halved(), calibrator=SHARPER)
    jobs = [{"package": str(p.folder), "target": "wrapped", "result": str(folder / f"{name}.wrapped")} for name, p in packages.items()]
    done = call_all("converter.to_tflite.make:make", jobs, folder)
    assert not [entry for entry in done if "refused" in entry]
    return Elsewhere(files, packages, {name: (folder / f"{name}.wrapped").read_bytes() for name in packages})


SHARPER = b'{"kind": "temperature", "slope": 0.5}'


def halved() -> bytes:
    trace = Trace((FEATURES,))
    trace.mul(0, np.full(FEATURES, 0.5, np.float32))
    return Steps(tuple(trace.ops), tuple(f"x{i}" for i in range(FEATURES)), tuple(range(FEATURES))).to_json()


def raw_rows(package: ModelPackage) -> NDArray[np.float32]:
    return package.rows("parity").x[:200]


@pytest.mark.parametrize("name", QUICK)
def test_a_wrapped_file_answers_rows_as_the_file_itself(elsewhere: Elsewhere, name: str) -> None:
    check_same(elsewhere, name)


@pytest.mark.conversions
@pytest.mark.parametrize("name", [name for name in WRAPPED if name not in QUICK])
def test_every_other_kind_of_file_answers_rows_as_the_file_itself_too(others: Elsewhere, name: str) -> None:
    check_same(others, name)


def check_same(elsewhere: Elsewhere, name: str) -> None:
    package = elsewhere.packages[name]
    x = raw_rows(package)

    margin, probabilities = LiteSession(elsewhere.graphs[name]).run(x)
    original = answers_of_graph(package, x)

    size = max(1.0, float(np.abs(original.margin).max()))
    assert np.abs(margin - original.margin).max() <= 1e-6 * size
    assert probabilities.shape == original.probabilities.shape
    assert np.abs(probabilities - original.probabilities).max(initial=0) < SAME
    assert [form_of(read_model(content)) for content in (elsewhere.files[name], elsewhere.graphs[name])] == [WRAPPED[name][2]] * 2


def test_the_files_own_operators_and_constants_are_not_touched(elsewhere: Elsewhere) -> None:
    before, after = (read_model(content) for content in (elsewhere.files["int8-ends"], elsewhere.graphs["int8-ends"]))

    own = [bytes(buffer.data) for buffer in before.buffers if buffer.data is not None and len(buffer.data) > 100]
    kept = {bytes(buffer.data) for buffer in after.buffers if buffer.data is not None}

    assert own
    assert set(own) <= kept


@pytest.mark.parametrize("name", ["one-row", "softmax"])
def test_the_batch_is_opened_where_rows_together_are_answered_as_alone(elsewhere: Elsewhere, name: str) -> None:
    assert batch_of(elsewhere.graphs[name]) == -1


@pytest.mark.conversions
def test_a_loop_over_one_row_stays_at_one_row(others: Elsewhere) -> None:
    assert batch_of(others.graphs["recurrent"]) == 1


def batch_of(graph: bytes) -> int:
    return int(LiteSession(graph).raw.get_input_details()[0]["shape_signature"][0])


def test_cleaning_steps_and_a_calibrator_stand_in_front_and_behind(elsewhere: Elsewhere) -> None:
    _, probabilities = LiteSession(elsewhere.graphs["cleaned"]).run(X[:200])

    shares = LiteSession(elsewhere.graphs["softmax"]).run(X[:200] / np.float32(2))[1].astype(np.float64)
    roots = np.sqrt(np.maximum(shares, 1e-6))
    assert np.abs(probabilities - roots / roots.sum(axis=1, keepdims=True)).max() < 1e-6


def targets(package: ModelPackage) -> list[str]:
    return [target for target, reason in possible(package) if reason is None]


def test_an_integer_file_is_possible_as_what_it_is_and_a_float_one_as_all_that_it_may_become(elsewhere: Elsewhere) -> None:
    reasons = dict(possible(elsewhere.packages["int8-ends"]))

    assert targets(elsewhere.packages["int8-ends"]) == ["tflite-int8"]
    assert targets(elsewhere.packages["softmax"]) == [
        "tflite-fp32", "tflite-fp16", "tflite-int8", "tflite-int8-dynamic", "tflite-int8-weights", "tflite-int16x8",
    ]  # fmt: skip
    assert "the file is tflite-int8 already" in str(reasons["tflite-fp32"])
    assert "not turned into ONNX" in str(reasons["onnx-fp32"])
    assert "not written as C" in str(reasons["c"])


def test_a_file_without_weights_has_nothing_to_quantize(elsewhere: Elsewhere, tmp_path: Path) -> None:
    package = imported_package(tmp_path / "package", elsewhere.files["no-weights"], "tflite", X, "regression", 0)

    reasons = dict(possible(package))

    assert reasons["tflite-fp32"] is None
    assert "there is nothing to quantize" in str(reasons["tflite-int8"])
    assert "half precision would make nothing smaller" in str(reasons["tflite-fp16"])


def custom(content: bytes, name: bytes) -> bytes:
    """The file with its first operator replaced by one of that name."""
    from ai_edge_litert import schema_py_generated as schema

    model = read_model(content)
    code = model.operatorCodes[0]
    code.builtinCode, code.deprecatedBuiltinCode, code.customCode = schema.BuiltinOperator.CUSTOM, schema.BuiltinOperator.CUSTOM, name
    return write_model(model)


@pytest.mark.parametrize(
    ("name", "changed", "words"),
    [
        ("softmax", lambda content: custom(content, b"FlexErf"), r"needs the TensorFlow operator 'Erf', which devices do not have"),
        ("softmax", lambda content: custom(content, b"Wizardry"), r"needs the operator custom Wizardry, which is not built into LiteRT"),
        ("whole-numbers", lambda content: content, r"takes int32, a device's interface is float32"),
        ("softmax", lambda content: content[:40], r"is damaged"),
        ("softmax", lambda content: b"nothing" + content, r"are no TFLite file"),
    ],
)
def test_what_no_device_could_run_is_refused_by_name(
    elsewhere: Elsewhere, name: str, changed: Callable[[bytes], bytes], words: str
) -> None:
    content = elsewhere.files[name]
    model = read_model(content)
    ends = [model.subgraphs[0].tensors[int(i[0])].name.decode() for i in (model.subgraphs[0].inputs, model.subgraphs[0].outputs)]
    signature = Signature(kind="tflite", inputs=[Tensor(name=ends[0], shape=[1, FEATURES])], output=ends[1], meaning="value")

    with pytest.raises(EdgefleetError, match=words):
        open_tflite(changed(content), signature)


@pytest.mark.conversions
def test_every_possible_variant_of_an_imported_float_file_is_proven_and_in_the_bundle(elsewhere: Elsewhere, tmp_path: Path) -> None:
    bundle = convert(elsewhere.packages["softmax"], output=tmp_path / "bundle")

    names = [variant.name for variant in bundle.manifest.variants]
    assert names == ["tflite-fp32", "tflite-fp16", "tflite-int8", "tflite-int8-dynamic", "tflite-int8-weights"]
    assert bundle.manifest.mlflow is not None


@pytest.mark.conversions
@pytest.mark.parametrize("name", ["float-ends", "dynamic", "fp16"])
def test_a_file_that_is_small_already_is_scored_as_it_is_behind_a_float_interface(others: Elsewhere, name: str, tmp_path: Path) -> None:
    package = others.packages[name]
    bundle = convert(package, output=tmp_path / "bundle")

    assert targets(package) == [variant.name for variant in bundle.manifest.variants] == [WRAPPED[name][2]]
    x = raw_rows(package)
    with Scorer.open(tmp_path / "bundle") as scorer:
        assert np.abs(scorer.score_batch(x).probabilities - answers_of_graph(package, x).probabilities).max() < SAME
