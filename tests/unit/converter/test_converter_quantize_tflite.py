"""TFLite files as integers: only products, convolutions and poolings behind float cleaning, with float32 ends."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from converter.quantize import tflite
from converter.quantize.graphs import answers_of
from converter.quantize.make import make
from converter.quantize.mixed import sensitivity
from converter.quantize.tflite import layers_of
from converter.targets import Job
from edgefleet.errors import VerdictError
from edgefleet.package import ModelPackage, Rows, write_package
from tests.unit.converter.converter_packages import PARITY, digits, package

pytestmark = pytest.mark.keras

STATIC = ["tflite-int8", "tflite-int16x8"]
TARGETS = [*STATIC, "tflite-int8-dynamic", "tflite-int8-weights"]

# In a process of its own: TensorFlow's threads would stay for all other tests.
MAKE = """
import sys
import keras, numpy as np, tensorflow as tf
from sklearn.datasets import load_digits
from converter.to_tflite.graph import to_tflite
tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)
keras.utils.set_random_seed(0)
x, y = load_digits(return_X_y=True)
layers = keras.layers

def put(name, margin_of, shape, epochs=10):
    inputs = keras.Input(shape, name="inputs")
    margin = margin_of(inputs)
    model = keras.Model(inputs, margin)
    model.compile(keras.optimizers.Adam(3e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x[:1000].astype("float32").reshape(-1, *shape), y[:1000], epochs=epochs, verbose=0)
    def answer(rows):
        # An imputer as the cleaning steps write it.
        rows = tf.where(tf.not_equal(rows, rows), tf.zeros_like(rows), rows) if name == "imputed" else rows
        margin = model(rows)
        return {"margin": margin, "probabilities": tf.nn.softmax(margin)}
    open(f"{sys.argv[1]}/{name}.tflite", "wb").write(to_tflite(answer, shape))

def conv(x):
    x = layers.Reshape((8, 8, 1))(layers.Rescaling(1 / 16)(x))
    x = layers.MaxPooling2D()(layers.Conv2D(8, 3, padding="same", activation="relu")(x))
    x = layers.Flatten()(layers.Conv2D(16, 3, activation="relu")(x))
    return layers.Dense(10)(layers.Dense(48, activation="relu")(x))

def dense(*sides):
    def margin(x):
        x = layers.Rescaling(1 / 16)(x)
        for side in sides:
            x = layers.Dense(side, activation="relu")(x)
        return layers.Dense(10)(x)
    return margin

def lstm(x):
    return layers.Dense(10)(layers.LSTM(16)(layers.Rescaling(1 / 16)(x)))

def windows(x):
    x = layers.Conv1D(16, 3, activation="relu")(layers.Rescaling(1 / 16)(x))
    return layers.Dense(10)(layers.Dense(32, activation="relu")(layers.Flatten()(layers.Conv1D(16, 3, activation="relu")(x))))

put("conv", conv, (64,))
put("imputed", dense(48), (64,), 4)
put("tiny", dense(16), (64,), 2)
put("wide", dense(320, 300), (64,), 4)
put("lstm", lstm, (8, 8), 4)
put("windows", windows, (8, 8))
"""


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tflite")
    done = subprocess.run([sys.executable, "-c", MAKE, str(folder)], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    flat = package(folder / "rows", "model.keras", b"", "keras", "logit")
    x, y = digits()
    rows = Rows(x[:300].reshape(-1, 8, 8), y[:300], np.full(300, "all"), np.arange(300).astype(str)).to_bytes()
    files = {name: flat.read(name) for name in flat.index.files}
    schema = msgspec.json.encode(flat.inputs()[:8])
    index = msgspec.structs.replace(flat.index, window_rows=8, shape=[8], files={})
    write_package(folder / "window-rows", index, {**files, "rows/calibration.npz": rows, "schema.json": schema})
    return folder


def job(graphs: Path, name: str, target: str, **changes: Any) -> dict[str, Any]:
    rows = graphs / ("window-rows" if name in ("lstm", "windows") else "rows")
    asked = Job(package=str(rows), target=target, result=str(graphs / f"{name}-{target}"), source=str(graphs / f"{name}.tflite"), **changes)
    document: dict[str, Any] = msgspec.to_builtins(asked)
    return document


def both(graphs: Path, name: str, target: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Probabilities of the float graph and of the target's."""
    x = digits()[0][PARITY]
    x = x.reshape(-1, 8, 8) if name in ("lstm", "windows") else x
    exact, found = (answers_of((graphs / file).read_bytes(), False, x)["probabilities"] for file in (f"{name}.tflite", f"{name}-{target}"))
    return exact, found


# Mean errors: the gate is 1e-2, research saw 4e-3 at most.
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", ["conv", "windows"])
def test_integers_take_at_most_three_fifths_of_the_bytes_and_cost_at_most_one_point(name: str, target: str, graphs: Path) -> None:
    make(job(graphs, name, target))

    exact, found = both(graphs, name, target)
    truth = digits()[1][PARITY]
    assert (graphs / f"{name}-{target}").stat().st_size <= 0.6 * (graphs / f"{name}.tflite").stat().st_size
    assert (exact.argmax(axis=1) == truth).mean() - (found.argmax(axis=1) == truth).mean() <= 0.01
    assert np.abs(exact - found).mean() < 4e-3


@pytest.mark.parametrize("target", TARGETS)
def test_a_hundred_thousand_weights_take_at_most_three_tenths_of_the_bytes(target: str, graphs: Path) -> None:
    made = make(job(graphs, "wide", target))

    exact, found = both(graphs, "wide", target)
    assert (graphs / f"wide-{target}").stat().st_size <= 0.3 * (graphs / "wide.tflite").stat().st_size
    assert (exact.argmax(axis=1) == found.argmax(axis=1)).mean() >= 0.99
    assert made["facts"]["quantized_layers"] == 3


@pytest.mark.parametrize("target", TARGETS)
def test_the_same_graph_and_rows_give_the_same_bytes(target: str, graphs: Path) -> None:
    make(job(graphs, "conv", target))
    first = (graphs / f"conv-{target}").read_bytes()

    make(job(graphs, "conv", target))

    assert (graphs / f"conv-{target}").read_bytes() == first


def test_integer_files_keep_a_float_interface_with_names_and_an_open_batch(graphs: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter

    make(job(graphs, "conv", "tflite-int8"))

    interpreter = Interpreter(model_content=(graphs / "conv-tflite-int8").read_bytes())
    names = interpreter.get_signature_list()["serving_default"]
    (entry,) = interpreter.get_input_details()
    assert (names["inputs"], sorted(names["outputs"])) == (["inputs"], ["margin", "probabilities"])
    assert list(entry["shape_signature"]) == [-1, 64]
    assert {details["dtype"] for details in (entry, *interpreter.get_output_details())} == {np.float32}
    assert any(tensor["dtype"] == np.int8 for tensor in interpreter.get_tensor_details())


def test_a_row_alone_is_answered_as_among_others(graphs: Path) -> None:
    make(job(graphs, "conv", "tflite-int8"))
    x, content = digits()[0][PARITY][:10], (graphs / "conv-tflite-int8").read_bytes()

    single = np.concatenate([answers_of(content, False, row[None])["margin"] for row in x])

    assert np.array_equal(answers_of(content, False, x)["margin"], single)


def test_a_thousand_weights_take_at_most_three_fifths_of_the_bytes(graphs: Path) -> None:
    graph = (graphs / "tiny.tflite").read_bytes()
    x, _ = digits()
    integers = tflite.quantized(graph, "tflite-int8", [layer.name for layer in layers_of(graph)], x[:200])
    assert len(integers) <= 0.60 * len(graph)
    assert tflite.answers_of(integers, x[:3])["probabilities"].shape == (3, 10)


@pytest.mark.parametrize("target", STATIC)
def test_recurrent_layers_are_not_calibrated_but_refused(target: str, graphs: Path) -> None:
    with pytest.raises(VerdictError, match=r"recurrent layers \(WHILE\) cannot be calibrated"):
        make(job(graphs, "lstm", target))


def test_recurrent_layers_get_integer_products_and_keep_a_float_state(graphs: Path) -> None:
    make(job(graphs, "lstm", "tflite-int8-dynamic"))

    exact, found = both(graphs, "lstm", "tflite-int8-dynamic")
    assert (graphs / "lstm-tflite-int8-dynamic").stat().st_size < 0.9 * (graphs / "lstm.tflite").stat().st_size
    assert np.abs(exact - found).mean() < 4e-3
    assert (exact.argmax(axis=1) == found.argmax(axis=1)).mean() > 0.98


def test_sensitivity_names_layers_that_can_be_kept_float(graphs: Path) -> None:
    found = sensitivity(job(graphs, "conv", "tflite-int8", calibration_rows=64))

    errors = {layer["name"]: layer["error"] for layer in found["layers"]}
    assert list(errors.values()) == sorted(errors.values(), reverse=True)
    assert set(errors) == {layer.name for layer in layers_of((graphs / "conv.tflite").read_bytes())}
    make(job(graphs, "conv", "tflite-int8"))
    all_integer, size = both(graphs, "conv", "tflite-int8"), (graphs / "conv-tflite-int8").stat().st_size
    made = make(job(graphs, "conv", "tflite-int8", keep_float=list(errors)[:2]))
    exact, mixed = both(graphs, "conv", "tflite-int8")
    assert np.abs(exact - mixed).mean() < np.abs(all_integer[0] - all_integer[1]).mean()
    assert (graphs / "conv-tflite-int8").stat().st_size > size
    assert made["facts"]["float_layers"] == list(errors)[:2]


@pytest.mark.parametrize("target", ["tflite-int8", "tflite-int8-dynamic"])
@pytest.mark.parametrize("name", ["imputed", "conv"])
def test_integers_take_missing_values_only_behind_an_imputer(name: str, target: str, graphs: Path, tmp_path: Path) -> None:
    base = ModelPackage.open(graphs / "rows")
    files = {file: base.read(file) for file in base.index.files}
    schema = msgspec.json.encode([msgspec.structs.replace(column, missing=True) for column in base.inputs()])
    open_rows = write_package(tmp_path / "p", msgspec.structs.replace(base.index, files={}), {**files, "schema.json": schema})

    made = make({**job(graphs, name, target), "package": str(open_rows.folder)})

    assert made["takes_missing"] is (name == "imputed")


def test_a_file_without_weights_that_can_be_integer_is_refused(graphs: Path) -> None:
    make(job(graphs, "conv", "tflite-int8"))
    integer = {**job(graphs, "conv", "tflite-int8"), "source": str(graphs / "conv-tflite-int8"), "result": str(graphs / "twice")}

    with pytest.raises(VerdictError, match="no operator with float weights that can be integer"):
        make(integer)


SCALED = """
import sys
import numpy as np, tensorflow as tf
from converter.to_tflite.graph import to_tflite
mean, factor, weight = np.load(sys.argv[1] + "/layer.npy")
def answer(rows):
    return {"margin": tf.matmul((rows - mean) * factor, weight[:, None])}
open(sys.argv[1] + "/scaled.tflite", "wb").write(to_tflite(answer, (4,)))
"""


@pytest.mark.conversions
def test_columns_of_very_different_size_are_scaled_before_they_become_integers(tmp_path: Path) -> None:
    size = np.array([1e4, 1.0, 1e-3, 30.0], np.float32)
    np.save(tmp_path / "layer.npy", np.stack([5 * size, 1 / size, np.array([1, -1, 1, 0.5], np.float32)]))
    done = subprocess.run([sys.executable, "-c", SCALED, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    graph = (tmp_path / "scaled.tflite").read_bytes()
    x = (np.random.default_rng(0).normal(5, 1, (400, 4)) * size).astype(np.float32)
    exact = tflite.answers_of(graph, x)["margin"]

    for target in TARGETS:
        got = tflite.answers_of(tflite.quantized(graph, target, [layer.name for layer in layers_of(graph)], x), x)["margin"]

        # A column rounded in the unit of the largest would be lost: an error of about its deviation, 1.
        assert np.abs(got - exact).max() < 0.1, target
