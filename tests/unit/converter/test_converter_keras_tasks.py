"""Networks of every task, shape and origin: the graphs answer what the trainer's own readers answer."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter.originals import Original
from edgefleet.graphs import check_graph
from edgefleet.package import ModelPackage
from tests.unit.converter.converter_children import call_all, in_child, lite
from tests.unit.converter.converter_networks import IMPORTED, OWN

pytestmark = [pytest.mark.keras, pytest.mark.conversions]

TARGETS = ["onnx-fp32", "tflite-fp32", "tflite-fp16"]
RECURRENT = ("lstm", "gru", "flat-lstm", "bidirectional")


def convert(folder: Path, names: list[str], results: str) -> dict[str, dict[str, Any]]:
    jobs = []
    for name in names:
        (folder / results / name).mkdir(parents=True)
        rows = {kind: str(folder / name / "rows" / f"{kind}.npz") for kind in ("parity", "golden")}
        jobs.append({"package": str(folder / name), "targets": TARGETS, "folder": str(folder / results / name), "rows": rows})
    return dict(zip(names, call_all("converter.to_tflite.make:make_networks", jobs, folder / results), strict=True))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("networks")
    in_child(["-m", "tests.unit.converter.converter_networks", str(made)])
    return made


@pytest.fixture(scope="module")
def done(folder: Path) -> dict[str, dict[str, Any]]:
    return convert(folder, [*OWN, *IMPORTED], "first")


def run(target: str, path: str, x: Any) -> dict[str, Any]:
    import onnxruntime

    graph = Path(path).read_bytes()
    if target.startswith("tflite"):
        return lite(graph, x)
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, {"inputs": x}), strict=True))


@pytest.mark.parametrize("name", [*OWN, *IMPORTED])
def test_the_originals_answers_are_those_of_the_trainers_reader(folder: Path, done: dict[str, dict[str, Any]], name: str) -> None:
    with np.load(folder / f"{name}.npz") as stored:
        want = stored["answers"]

    original = Original.from_file(Path(done[name]["answers"]["parity"]))

    assert len(original.margin) == len(original.probabilities) == 300
    found = original.probabilities if want.ndim == 2 else original.margin[:, 0]
    assert np.abs(found - want).max() < 2e-6 * max(1.0, float(np.abs(want).max()))


@pytest.mark.parametrize("target", ["onnx-fp32", "tflite-fp32"])
@pytest.mark.parametrize("name", [*OWN, *IMPORTED])
def test_a_float_graph_answers_what_the_network_answers(folder: Path, done: dict[str, dict[str, Any]], name: str, target: str) -> None:
    assert target not in done[name]["failed"]
    package = ModelPackage.open(folder / name)
    original = Original.from_file(Path(done[name]["answers"]["parity"]))

    answers = run(target, done[name]["files"][target], package.rows("parity").x)

    assert sorted(answers) == (["margin", "probabilities"] if package.index.classes else ["margin"])
    assert np.abs(answers["margin"] - original.margin).max() < 1e-5 * max(1.0, float(np.abs(original.margin).max()))
    if package.index.classes:
        assert np.abs(answers["probabilities"] - original.probabilities).max() < 1e-5


@pytest.mark.parametrize("name", ["dense", "value", "autoencoder", "image", "conv1d", "lstm", "gru"])
def test_half_precision_is_smaller_and_near(folder: Path, done: dict[str, dict[str, Any]], name: str) -> None:
    original = Original.from_file(Path(done[name]["answers"]["parity"]))
    whole, small = (Path(done[name]["files"][target]) for target in ("tflite-fp32", "tflite-fp16"))

    answers = lite(small.read_bytes(), ModelPackage.open(folder / name).rows("parity").x)

    assert small.stat().st_size < 0.97 * whole.stat().st_size
    if "probabilities" in answers:
        assert np.abs(answers["probabilities"] - original.probabilities).max() < 5e-3
    assert np.abs(answers["margin"] - original.margin).max() < 5e-3 * float(np.ptp(original.margin))


def test_loops_take_one_row_at_a_time_and_all_others_any_number(done: dict[str, dict[str, Any]]) -> None:
    from ai_edge_litert.interpreter import Interpreter

    batches = {}
    for name, made in done.items():
        interpreter = Interpreter(model_content=Path(made["files"]["tflite-fp32"]).read_bytes(), num_threads=1)
        batches[name] = int(interpreter.get_input_details()[0]["shape_signature"][0])

    assert {name for name, batch in batches.items() if batch == 1} == set(RECURRENT)
    assert {batch for name, batch in batches.items() if name not in RECURRENT} == {-1}


def test_operators_are_told_and_built_in(done: dict[str, dict[str, Any]]) -> None:
    told = {(name, target): made["operators"] for name, one in done.items() for target, made in one["made"].items()}

    files = {(name, target): Path(path).read_bytes() for name, one in done.items() for target, path in one["files"].items()}
    read = {key: check_graph(graph, "onnxruntime" if key[1].startswith("onnx") else "litert", key[1]) for key, graph in files.items()}
    assert read == told
    assert "WHILE" in told["gru", "tflite-fp32"]
    assert "Loop" in told["gru", "onnx-fp32"]
    assert "LSTM" in told["lstm", "onnx-fp32"]
    assert not [name for names in told.values() for name in names if name.startswith(("custom", "VAR_", "READ_"))]


def test_a_calibrator_is_part_of_every_graph_and_the_card_says_so(done: dict[str, dict[str, Any]]) -> None:
    notes = {target: made["notes"] for target, made in done["calibrated"]["made"].items()}

    assert notes == {target: ["The calibrator is part of the graph."] for target in TARGETS}


def test_a_second_process_writes_the_same_bytes(folder: Path, done: dict[str, dict[str, Any]]) -> None:
    names = ["gru", "lstm", "conv1d", "calibrated", "columns"]

    again = convert(folder, names, "second")

    different = [
        (name, target)
        for name in names
        for target, path in again[name]["files"].items()
        if Path(path).read_bytes() != Path(done[name]["files"][target]).read_bytes()
    ]
    assert different == []


def test_one_target_alone_is_the_file_of_all_together(folder: Path, done: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    job = {"package": str(folder / "dense"), "target": "tflite-fp16", "result": str(tmp_path / "alone")}

    (made,) = call_all("converter.to_tflite.make:make", [job], tmp_path / "jobs")

    assert (tmp_path / "alone").read_bytes() == Path(done["dense"]["files"]["tflite-fp16"]).read_bytes()
    assert made == done["dense"]["made"]["tflite-fp16"]
