"""Models logged by MLflow itself, in an environment without edgefleet, imported as their user would."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgefleet.package import ModelPackage
from tests.integration import foreign
from trainer.opened import open_predict

pytestmark = [pytest.mark.foreign, pytest.mark.timeout(1800)]

# The first names the environment; mlflow alone does not bring what its scikit-learn users have.
USER = ("mlflow-skinny==3.17.2", "scikit-learn==1.9.1", "pandas==3.1.1", "skops==0.16.0", "skl2onnx==1.20.0", "onnx==1.23.2",
        "onnxruntime==1.32.0", "protobuf==6.33.6")  # fmt: skip

LOG = """
import sys, json, pathlib
import numpy as np, pandas as pd, mlflow.sklearn, mlflow.onnx, skl2onnx
from sklearn.datasets import load_wine
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.linear_model import LogisticRegression

folder = pathlib.Path(sys.argv[1])
wine = load_wine(as_frame=True)
x, y = wine.data, np.array(["red", "rose", "white"])[wine.target]
forest = RandomForestClassifier(30, random_state=0).fit(x, y)
pipe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(x.to_numpy(), y)
trusted = ["numpy.dtype", "sklearn.tree._tree.Tree"]
options = {"pip_requirements": ["scikit-learn"], "signature": mlflow.models.infer_signature(x, y), "input_example": x.head(2)}
mlflow.sklearn.save_model(forest, folder / "skops", serialization_format="skops", skops_trusted_types=trusted, **options)
mlflow.sklearn.save_model(pipe, folder / "pickle", serialization_format="cloudpickle", pip_requirements=["scikit-learn"])
graph = skl2onnx.to_onnx(pipe, x.to_numpy().astype(np.float32)[:1], target_opset={"": 17, "ai.onnx.ml": 3})
mlflow.onnx.save_model(graph, folder / "onnx", pip_requirements=["onnx"])
x.assign(kind=y).to_csv(folder / "wine.csv", index=False)
float32 = x.astype(np.float32)
np.save(folder / "forest.npy", forest.predict_proba(float32))
np.save(folder / "pipe.npy", pipe.predict_proba(float32.to_numpy()))
"""


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    python = foreign.environment(tmp_path_factory.mktemp("foreign"), *USER)
    folder = tmp_path_factory.mktemp("logged")
    foreign.run(python, LOG, str(folder), env={"MLFLOW_DISABLE_TELEMETRY": "true"})
    return folder


def imported(source: Path, data: Path, output: Path, *more: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "edgefleet", "import", str(source), "--data", str(data), "--output", str(output), "--json", *more]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize(("flavour", "answers", "bound"), [("skops", "forest", 1e-12), ("onnx", "pipe", 1e-5)])
def test_a_logged_model_answers_in_its_package_as_in_mlflow(logged: Path, tmp_path: Path, flavour: str, answers: str, bound: float) -> None:
    done = imported(logged / flavour, logged / "wine.csv", tmp_path / "package", "--label", "kind", "--minimum", "0.8", "--name", "wine")

    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    table = np.loadtxt(logged / "wine.csv", delimiter=",", skiprows=1, usecols=range(13), dtype=np.float32)
    own = open_predict(ModelPackage.open(tmp_path / "package"))(table).probabilities
    assert own is not None
    assert document["classes"] == ["red", "rose", "white"]
    assert np.abs(own - np.load(logged / f"{answers}.npy")).max() <= bound  # the graph computes in float32


def test_a_cloudpickle_is_refused_with_both_ways_out(logged: Path, tmp_path: Path) -> None:
    done = imported(logged / "pickle", logged / "wine.csv", tmp_path / "package", "--label", "kind")

    assert done.returncode == 3
    assert "can run any code and is never opened; save it with skops" in done.stderr
    assert "mlflow.onnx.log_model" in done.stderr
    assert not (tmp_path / "package").exists()


def test_the_imported_forest_converts_to_a_bundle(logged: Path, tmp_path: Path) -> None:
    done = imported(logged / "skops", logged / "wine.csv", tmp_path / "package", "--label", "kind", "--minimum", "0.8", "--name", "wine")
    assert done.returncode == 0, done.stderr

    command = [sys.executable, "-m", "edgefleet", "convert", str(tmp_path / "package"), "--output", str(tmp_path / "bundle"), "--json"]
    converted = subprocess.run(command, capture_output=True, text=True, timeout=600)

    assert converted.returncode == 0, converted.stderr[-2000:]
    assert (tmp_path / "bundle" / "manifest.json").is_file()


KERAS = """
import os, sys, pathlib
os.environ.update(MLFLOW_DISABLE_TELEMETRY="true", TF_CPP_MIN_LOG_LEVEL="3")
import numpy as np, keras, importlib
folder = pathlib.Path(sys.argv[1])
keras.utils.set_random_seed(0)
model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2, "softmax")])
model.set_weights([np.array([[-4, 4], [0, 0], [0, 0]], np.float32), np.zeros(2, np.float32)])
importlib.import_module("mlflow." + sys.argv[2]).save_model(model, str(folder / "model"), pip_requirements=["keras"])
"""


@pytest.mark.keras
@pytest.mark.parametrize("flavour", ["keras", "tensorflow"])
def test_a_keras_model_logged_by_mlflow_is_imported(tmp_path: Path, flavour: str) -> None:
    # Our own environment plays the user's: it has the Keras that wrote the model, and MLflow.
    program = subprocess.run([sys.executable, "-c", KERAS, str(tmp_path), flavour], capture_output=True, text=True, timeout=300)
    assert program.returncode == 0, program.stderr[-2000:]
    x = np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32)
    lines = [f"{row[0]},{row[1]},{row[2]},{int(row[0] > 0)}" for row in x.tolist()]
    (tmp_path / "rows.csv").write_text("\n".join(["a,b,c,answer", *lines]) + "\n")

    done = imported(
        tmp_path / "model", tmp_path / "rows.csv", tmp_path / "package", "--label", "answer", "--minimum", "0.9", "--name", "net"
    )

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["metric"]["value"] == 1.0
    assert ModelPackage.open(tmp_path / "package").index.family == "keras"
