"""Real models by others, through `edgefleet import` and `edgefleet convert`: MLPerf Tiny, one-op TFLite models, the ONNX model zoo's MNIST.

Their samples are few, so rows are made of them, and labels are what the float file answers: what is proven is that a bundle answers as the
file does, not that the file is right.
"""

import csv
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from converter.building import Built
from converter.comparing import Comparison, Drop
from converter.conversion import Proof
from converter.gates import Golden, Limits, judge
from converter.imported.answers import answers_of_graph
from converter.isolate import run_isolated
from converter.parity import Cost
from converter.recipes import RECIPES, possible
from converter.targets import Made
from converter.workshop import Graph
from device_agent.runtime.tflite import open_interpreter
from device_agent.scorer import Scorer
from edgefleet.cli.convert import convert as convert_command
from edgefleet.cli.importing import import_command
from edgefleet.intervals import Z_ONE_SIDED, Z_TWO_SIDED
from edgefleet.package import ModelPackage

Rows = NDArray[np.float32]
DATA = Path(os.environ.get("EDGEFLEET_PUBLIC_DATA", Path(__file__).parents[3] / "shared" / "data"))
TINY, GOLDEN, MNIST = DATA / "mlperf_tiny", DATA / "tflite_golden", DATA / "mnist_onnx"
KWS = "Down,Go,Left,No,Off,On,Right,Stop,Up,Yes,Silence,Unknown"
ON = 5  # the class of the one sample
ONE_OP = sorted(path.name.split("_golden_")[0] for path in GOLDEN.glob("*_golden_*.csv"))
COUNT = 640  # half of them are parity rows: with none of 320 answered otherwise, a drop of 1 point is refuted


def needs(folder: Path) -> Path:
    if not folder.is_dir():
        pytest.skip(f"the public data set {folder.name} is not in {DATA}; EDGEFLEET_PUBLIC_DATA names the folder")
    return folder


def answers_of(path: Path, x: Rows) -> NDArray[np.float64]:
    """A file's own answers [n, ...] to real rows, by the device's interpreter, integers included."""
    interpreter = open_interpreter(path.read_bytes())
    (takes,), (gives,) = interpreter.get_input_details(), interpreter.get_output_details()
    found = []
    for row in x:
        interpreter.set_tensor(takes["index"], stored(row.reshape(takes["shape"]), takes))
        interpreter.invoke()
        found.append(real(interpreter.get_tensor(gives["index"])[0], gives))
    return np.stack(found)


def stored(values: Rows, details: dict[str, Any]) -> NDArray[Any]:
    if details["dtype"] == np.float32:
        return values
    scale, zero = details["quantization"]
    return np.asarray(np.clip(np.round(values / scale + zero), -128, 127).astype(details["dtype"]))


def real(values: NDArray[Any], details: dict[str, Any]) -> NDArray[np.float64]:
    scale, zero = details["quantization"]
    return (values.astype(np.float64) - zero) * scale if scale else values.astype(np.float64)


def csv_values(path: Path, details: dict[str, Any]) -> NDArray[Any]:
    """A golden file's integers in a tensor's shape and type."""
    values = np.array([int(text) for text in path.read_text().replace("\n", ",").split(",") if text.strip()], np.int64)
    return values.reshape(details["shape"]).astype(details["dtype"])


@pytest.mark.parametrize("name", ONE_OP or ["add0"])
def test_a_one_op_integer_model_is_answered_bit_for_bit_on_the_devices_interpreter(name: str) -> None:
    needs(GOLDEN)
    interpreter = open_interpreter((GOLDEN / f"{name}.tflite").read_bytes())
    for place, details in enumerate(interpreter.get_input_details()):
        (file,) = GOLDEN.glob(f"{name}_input{place}_*.csv")
        interpreter.set_tensor(details["index"], csv_values(file, details))

    interpreter.invoke()

    (details,) = interpreter.get_output_details()
    (file,) = GOLDEN.glob(f"{name}_golden_*.csv")
    assert np.array_equal(interpreter.get_tensor(details["index"]), csv_values(file, details))


def test_all_sixteen_one_op_models_were_found() -> None:
    needs(GOLDEN)

    assert len(ONE_OP) == 16


def imported(folder: Path, model: Path, x: Rows, label: list[str], task: str, *arguments: str) -> ModelPackage:
    """`edgefleet import`, with a goal that the labels' origin makes easy, and without an explanation."""
    columns = [f"x{i}" for i in range(x.shape[1])]
    with (folder / "sample.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow([*columns, "answer"])
        writer.writerows([*(repr(float(value)) for value in row), answer] for row, answer in zip(x, label, strict=True))
    project = folder / "project"
    project.mkdir()
    metric = {"classification": 'metric = "accuracy"\nminimum = 0.5', "anomaly": 'metric = "auc"\nminimum = 0.5'}
    goal = metric.get(task, 'metric = "rmse"\nmaximum = 10.0')
    tables = f'[schema]\nnumbers = {json.dumps(columns)}\n[search]\ncandidates = ["linear"]\n[explain]\nmethod = "none"\n'
    (project / "project.toml").write_text(
        f'[goal]\nquestion = "What does the file answer?"\nname = "elsewhere"\ntask = "{task}"\n{goal}\n'
        f'[data]\nsource = "sample.csv"\nlabel = "answer"\n{tables}'
    )
    output = folder / "package"
    command = [str(model), "--data", str(folder / "sample.csv"), "--project", str(project), "--output", str(output), *arguments]
    # Classes that the file rarely answers to made rows have few of them.
    command += ["--override-gate", "G2", "--reason", "rows are made of one sample"]
    done = CliRunner().invoke(import_command, command)
    assert done.exit_code == 0, done.output[-2000:] + str(done.exception)[-2000:]
    return ModelPackage.open(output)


def converted(package: ModelPackage, *targets: str) -> dict[str, Any]:
    """`edgefleet convert`; its report by target."""
    command = [str(package.folder), "--output", str(package.folder.parent / "bundle"), "--no-cache", "--json"]
    done = CliRunner().invoke(convert_command, [*command, *(word for target in targets for word in ("--target", target))])
    assert done.exit_code == 0, done.output[-2000:] + str(done.exception)[-2000:]
    report: dict[str, Any] = {entry["name"]: entry for entry in json.loads(done.stdout)["variants"]}
    return report


def keywords() -> Rows:
    """The one sample, as the real numbers that it stands for, and rows around it."""
    sample = (np.load(TINY / "kws_samples.npy").astype(np.float32).reshape(1, -1) - 83) * np.float32(0.58470291)
    noise = np.random.default_rng(0).normal(0, 8, (COUNT, sample.shape[1])) * (np.arange(COUNT) > 0)[:, None]
    found: Rows = (sample + noise).astype(np.float32)
    return found


def pictures() -> Rows:
    """Smooth pictures of whole numbers 0..255; the source has none but zeros."""
    low = np.random.default_rng(1).uniform(0, 255, (COUNT, 4, 4, 3))
    return np.asarray(np.kron(low, np.ones((1, 8, 8, 1))).round().astype(np.float32).reshape(COUNT, -1), np.float32)


def sounds() -> tuple[Rows, NDArray[np.int64]]:
    """Windows of the normal sound, and of the same machine 3 dB louder as strange ones."""
    frames = np.fromfile(TINY / "ad01_normal_id_01_00000000.bin", "<f4").reshape(200, 128)
    windows = np.stack([frames[i : i + 5].reshape(-1) for i in range(196)]).astype(np.float32)
    return np.concatenate([windows, windows + np.float32(3)]), np.repeat([0, 1], 196)


@pytest.mark.conversions
@pytest.mark.parametrize(("name", "form"), [("kws_fp32", "tflite-int8-dynamic"), ("kws_int8", "tflite-int8")])
def test_keyword_spotting_goes_in_and_answers_on_for_its_sample(name: str, form: str, tmp_path: Path) -> None:
    needs(TINY)
    x = keywords()
    names = KWS.split(",")
    label = [names[place] for place in answers_of(TINY / "kws_fp32.tflite", x).argmax(axis=1)]

    package = imported(tmp_path, TINY / f"{name}.tflite", x, label, "classification", "--classes", KWS)
    report = converted(package)

    # The file that is called float has int8 weights.
    assert [target for target, reason in possible(package) if reason is None] == [form] == list(report)
    assert report[form]["kept"]
    with Scorer.open(tmp_path / "bundle") as scorer:
        score = scorer.score(x[0])
    assert (score.label, scorer.bundle.manifest.classes[ON]) == ("On", "On")
    assert score.score == pytest.approx(1.0, abs=1e-4)


@pytest.mark.conversions
@pytest.mark.parametrize(("name", "form"), [("ic_fp32", "tflite-fp32"), ("ic_int8", "tflite-int8")])
def test_image_classification_goes_in_and_is_answered_as_the_file_answers(name: str, form: str, tmp_path: Path) -> None:
    needs(TINY)
    x = pictures()
    label = [str(place) for place in answers_of(TINY / "ic_fp32.tflite", x).argmax(axis=1)]

    package = imported(tmp_path, TINY / f"{name}.tflite", x, label, "classification", "--classes", "0,1,2,3,4,5,6,7,8,9")
    report = converted(package, form)

    assert report[form]["kept"]
    with Scorer.open(tmp_path / "bundle") as scorer:
        found = scorer.score_batch(x[:64]).probabilities
    exact = answers_of(TINY / f"{name}.tflite", x[:64])
    # Divided by their sum: that of 8-bit shares is not quite 1.
    assert np.abs(found - exact / exact.sum(axis=1, keepdims=True)).max() < 1e-6


@pytest.mark.conversions
@pytest.mark.parametrize(("name", "form", "mean"), [("ad01_fp32", "tflite-fp32", 9.707), ("ad01_int8", "tflite-int8", 10.265)])
def test_anomaly_detection_goes_in_and_its_score_is_the_published_error(name: str, form: str, mean: float, tmp_path: Path) -> None:
    needs(TINY)
    x, strange = sounds()

    package = imported(tmp_path, TINY / f"{name}.tflite", x, [str(one) for one in strange], "anomaly")
    report = converted(package, form)

    assert report[form]["kept"]
    with Scorer.open(tmp_path / "bundle") as scorer:
        scores = scorer.score_batch(x[strange == 0]).margins[:, 0]
    assert scores.mean() == pytest.approx(mean, abs=1e-3)


@pytest.mark.conversions
def test_the_published_integer_detector_fails_the_gates_against_the_float_one(tmp_path: Path) -> None:
    needs(TINY)
    x, strange = sounds()
    label = [str(one) for one in strange]
    (tmp_path / "float").mkdir()
    (tmp_path / "integer").mkdir()
    package = imported(tmp_path / "float", TINY / "ad01_fp32.tflite", x, label, "anomaly")
    other = imported(tmp_path / "integer", TINY / "ad01_int8.tflite", x, label, "anomaly")
    job = {"package": str(other.folder), "target": "tflite-int8", "result": str(tmp_path / "int8.tflite")}
    run_isolated("converter.to_tflite.make:make", job, timeout_s=200)
    parity, golden = (answers_of_graph(package, package.rows(kind).x) for kind in ("parity", "golden"))
    proof = Proof(package, Limits(), tmp_path)

    graph = Graph((tmp_path / "int8.tflite").read_bytes(), Made(), {})
    report = proof.judge(RECIPES["tflite-int8"], graph, Built({}, {}, parity, golden))

    verdicts = {gate.gate: gate.verdict for gate in report.gates}
    assert not report.kept
    assert (verdicts["C1"], verdicts["C2"], verdicts["C3"]) == ("fail", "fail", "fail")
    both = [answers_of_graph(one, x[strange == 0]).margin[:, 0] for one in (package, other)]
    assert np.corrcoef(both[0], both[1])[0, 1] == pytest.approx(0.955, abs=1e-3)


def published(kind: str) -> NDArray[np.float64]:
    with (TINY / f"ad01_published_tflite_{kind}.csv").open() as stream:
        return np.array([float(row[1]) for row in csv.reader(stream) if row and row[0].isdigit()])


def test_the_published_areas_of_the_integer_detector_fail_a_gate_of_one_point() -> None:
    needs(TINY)
    before, after = published("result"), published("quant_fullint_micro_result")
    drop, error = (before - after).mean(), (before - after).std(ddof=1) / 2  # four machines
    one, two = Z_ONE_SIDED * error, Z_TWO_SIDED * error
    overall = Drop("four machines", 4, drop, drop - one, drop + one, (drop - two, drop + two))
    found = Comparison("anomaly", 4, 0, 4, 4, 4, 0.0, 0.0, "roc_auc", after.mean(), before.mean(), overall, [])

    gates = judge(RECIPES["tflite-int8"], found, Golden(0.0, 0), Cost(0, 0, 0, 0, 0, 0), 0, Limits())

    (gate,) = [gate for gate in gates if gate.gate == "C3"]
    assert (round(before.mean(), 3), round(after.mean(), 3)) == (0.876, 0.842)
    assert (gate.verdict, gate.limit) == ("fail", 0.01)
    assert overall.high < 0.05


def test_a_fused_recurrent_file_that_keeps_its_state_is_refused_by_name(tmp_path: Path) -> None:
    from tests.unit.converter.converter_imported import imported_package

    needs(GOLDEN)
    x = np.random.default_rng(0).uniform(0, 1, (620, 784)).astype(np.float32)
    package = imported_package(tmp_path / "package", (GOLDEN / "trained_lstm.tflite").read_bytes(), "tflite", x, classes=10)

    reasons = dict(possible(package))

    assert "keeps states from row to row" in str(reasons["tflite-fp32"])


@pytest.mark.conversions
@pytest.mark.parametrize("form", ["float", "int8"])
def test_the_sine_of_hello_world_is_scored_as_by_the_file(form: str, tmp_path: Path) -> None:
    needs(GOLDEN)
    x = np.linspace(0, 2 * np.pi, COUNT).astype(np.float32)[:, None]
    target = {"float": "tflite-fp32", "int8": "tflite-int8"}[form]

    package = imported(tmp_path, GOLDEN / f"hello_world_{form}.tflite", x, [repr(float(y)) for y in np.sin(x[:, 0])], "regression")
    report = converted(package, target)

    assert report[target]["kept"]
    with Scorer.open(tmp_path / "bundle") as scorer:
        found = scorer.score_batch(x).margins
    assert np.array_equal(found, answers_of(GOLDEN / f"hello_world_{form}.tflite", x).astype(np.float32))
    assert np.abs(found[:, 0] - np.sin(x[:, 0])).max() < {"float": 0.051, "int8": 0.126}[form]


@pytest.mark.conversions
def test_the_model_zoos_mnist_keeps_its_test_vector_and_takes_any_number_of_rows(tmp_path: Path) -> None:
    import onnx

    folder = needs(MNIST) / "test_data_set_0"
    image, expected = (onnx.numpy_helper.to_array(onnx.load_tensor(str(folder / f"{name}_0.pb"))) for name in ("input", "output"))
    rng = np.random.default_rng(0)
    moved = [np.roll(image[0, 0], (dy, dx), (0, 1)).reshape(-1) for dy, dx in rng.integers(-6, 7, (COUNT, 2))]
    x = np.concatenate([image.reshape(1, -1), np.stack(moved[1:]) * rng.uniform(0.5, 1, (COUNT - 1, 1))]).astype(np.float32)
    label = [str(place) for place in onnx_answers(MNIST / "model.onnx", x).argmax(axis=1)]

    package = imported(tmp_path, MNIST / "model.onnx", x, label, "classification", "--classes", "0,1,2,3,4,5,6,7,8,9")
    report = converted(package)

    assert report["onnx-fp32"]["kept"]
    with Scorer.open(tmp_path / "bundle", "onnx-fp32") as scorer:
        score = scorer.score(x[0])
        batch = scorer.session.get_inputs()[0].shape[0]
        margins = scorer.session.run(["margin"], {"inputs": x[:1]})[0]
    assert (score.label, batch) == ("2", "n")
    # README of the data: 1e-5 of the largest logit.
    assert np.abs(margins - expected).max() <= 1e-5 * np.abs(expected).max()


def onnx_answers(path: Path, x: Rows) -> Rows:
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: row.reshape(1, 1, 28, 28)})[0] for row in x])
