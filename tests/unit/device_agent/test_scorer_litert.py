"""The scorer over LiteRT, with graphs that the real converter wrote in a child process."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from device_agent import Scorer
from device_agent.runtime import open_runtime
from edgefleet.errors import ArtifactError
from edgefleet.manifest import OutlierNote
from edgefleet.package import npz_bytes
from tests.unit.device_agent.bundles import FEATURES, Made, numbers, training_rows, write_bundle

pytestmark = [pytest.mark.keras, pytest.mark.slow]

# The alphabetical order of the outputs differs from the order in which the function names them.
_BUILD = """
import sys
import numpy as np
import tensorflow as tf

folder = sys.argv[1]
weights = tf.constant(np.load(folder + "/weights.npy"))

class Model(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None, 5], tf.float32, name="inputs")])
    def serve(self, inputs):
        margin = tf.matmul(inputs, weights)
        return {"probabilities": tf.nn.softmax(margin), "margin": margin}

    @tf.function(input_signature=[tf.TensorSpec([1, 5], tf.float32, name="inputs")])
    def one(self, inputs):
        return self.serve(inputs)

    @tf.function(input_signature=[tf.TensorSpec([None, 3, 5], tf.float32, name="inputs")])
    def windows(self, inputs):
        return self.serve(tf.reduce_sum(inputs * tf.constant([[1.0], [2.0], [4.0]]), axis=1))

    @tf.function(input_signature=[tf.TensorSpec([1, 3, 5], tf.float32, name="inputs")])
    def window(self, inputs):
        return self.windows(inputs)

    @tf.function(input_signature=[tf.TensorSpec([None, 5], tf.float32, name="inputs")])
    def detector(self, inputs):
        return {"margin": tf.reduce_sum(inputs, axis=1, keepdims=True)}

model = Model()
functions = {"many": model.serve, "single": model.one, "windows": model.windows, "window": model.window, "detector": model.detector}
for name, function in functions.items():
    tf.saved_model.save(model, folder + "/" + name, signatures={"serving_default": function})
    converter = tf.lite.TFLiteConverter.from_saved_model(folder + "/" + name)
    open(folder + "/" + name + ".tflite", "wb").write(converter.convert())
bare = tf.lite.TFLiteConverter.from_concrete_functions([model.serve.get_concrete_function()])
open(folder + "/nameless.tflite", "wb").write(bare.convert())
"""


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with weights.npy and graphs: many (any batch), single (batch 1), windows and window (of 3 rows), nameless, detector."""
    folder = tmp_path_factory.mktemp("litert")
    np.save(folder / "weights.npy", np.random.default_rng(3).normal(size=(FEATURES, 3)).astype(np.float32))
    done = subprocess.run([sys.executable, "-c", _BUILD, str(folder)], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


def _bundle(graphs: Path, folder: Path, name: str) -> Made:
    x, _ = training_rows()
    explainer = npz_bytes({"method": np.array("sampled"), "background": x[:16]})
    graph = (graphs / f"{name}.tflite").read_bytes()
    return write_bundle(
        folder,
        graph,
        x,
        numbers(),
        ["a", "b", "c"],
        ("sampled", explainer),
        variant="tflite-fp32",
        runtime="litert",
        model=np.load(graphs / "weights.npy"),
    )


@pytest.mark.parametrize("name", ["many", "single"])
def test_single_rows_and_batches_answer_what_the_weights_say(graphs: Path, tmp_path: Path, name: str) -> None:
    made = _bundle(graphs, tmp_path, name)
    with Scorer.open(made.folder, ring_rows=8) as scorer:
        singles = [scorer.score(row) for row in made.x[:50]]
        batch = scorer.score_batch(made.x[:50])
        window = scorer.take_window(1)
        variant = scorer.variant
    margins = made.x[:50] @ made.model
    # Float32 sums of five products.
    np.testing.assert_allclose([s.margins for s in singles], margins, atol=1e-5)
    np.testing.assert_allclose(batch.margins, margins, atol=1e-5)
    assert [s.index for s in singles] == batch.index.tolist() == margins.argmax(axis=1).tolist()
    np.testing.assert_allclose(batch.probabilities.sum(axis=1), 1, atol=1e-6)
    assert variant.model_digest == singles[0].digest
    assert window is not None
    assert window.body.answered == 100


@pytest.mark.parametrize("name", ["many", "single"])
def test_a_sampled_explanation_through_litert_is_the_linear_closed_form(graphs: Path, tmp_path: Path, name: str) -> None:
    made = _bundle(graphs, tmp_path, name)
    with Scorer.open(made.folder) as scorer:
        answer = scorer.score(made.x[40], explain=True)
        again = scorer.score(made.x[40], explain=True)
    assert answer.explanation is not None
    assert again.explanation is not None
    assert answer.index is not None
    want = made.model[:, answer.index] * (made.x[40] - made.x[:16].mean(axis=0))
    np.testing.assert_allclose(answer.explanation.contributions, want, atol=1e-5)
    np.testing.assert_array_equal(answer.explanation.contributions, again.explanation.contributions)
    assert abs(answer.explanation.gap) < 1e-5


@pytest.mark.parametrize("name", ["windows", "window"])
def test_windows_one_by_one_and_in_batches_answer_what_the_weights_say(graphs: Path, tmp_path: Path, name: str) -> None:
    x, _ = training_rows()
    background = npz_bytes({"method": np.array("sampled"), "background": np.stack([x[i : i + 3] for i in range(16)])})
    made = write_bundle(
        tmp_path,
        (graphs / f"{name}.tflite").read_bytes(),
        x,
        numbers(),
        ["a", "b", "c"],
        ("sampled", background),
        variant="tflite-fp32",
        runtime="litert",
        changes={"window_rows": 3},
    )
    windows = np.stack([x[i : i + 3] for i in range(20)])
    with Scorer.open(made.folder, ring_rows=8) as scorer:
        singles = [scorer.score(window).margins for window in windows]
        lists = scorer.score_batch(windows.tolist())
        batch = scorer.score_batch(windows)
        explained = scorer.score(windows[0], explain=True).explanation
    want = np.einsum("ntf,t,fk->nk", windows, [1.0, 2.0, 4.0], np.load(graphs / "weights.npy"))
    # Float32 sums of fifteen products, with values up to about 50.
    for answers in (np.array(singles), batch.margins, lists.margins):
        np.testing.assert_allclose(answers, want, atol=5e-5)
    assert explained is not None
    assert len(explained.contributions) == FEATURES
    assert abs(explained.gap) < 1e-4


def test_an_outlier_detector_runs_beside_the_model(graphs: Path, tmp_path: Path) -> None:
    detector = (graphs / "detector.tflite").read_bytes()
    note = OutlierNote(threshold=3.0, files={"litert": "outlier.tflite"}, method="mahalanobis")
    made = write_bundle(
        tmp_path,
        (graphs / "many.tflite").read_bytes(),
        training_rows()[0],
        numbers(),
        ["a", "b", "c"],
        variant="tflite-fp32",
        runtime="litert",
        extra={"outlier.tflite": detector},
        changes={"outlier": note},
    )
    rows = [[0.0] * 5, [3.5, 0, 0, 0, 0]]
    with Scorer.open(made.folder) as scorer:
        single, batch = [scorer.score(row).outlier for row in rows], scorer.score_batch(rows)
    assert single == [False, True]
    assert batch.outlier is not None
    assert batch.outlier.tolist() == [False, True]


def test_outputs_are_found_by_name_and_a_graph_without_names_is_refused(graphs: Path) -> None:
    with pytest.raises(ArtifactError, match="0 signatures"):
        open_runtime("litert", (graphs / "nameless.tflite").read_bytes())


def test_a_truncated_graph_is_an_artifact_error(graphs: Path) -> None:
    whole = (graphs / "many.tflite").read_bytes()
    with pytest.raises(ArtifactError, match="litert cannot load"):
        open_runtime("litert", whole[: len(whole) // 2])


def test_loading_and_scoring_print_nothing(graphs: Path, tmp_path: Path) -> None:
    made = _bundle(graphs, tmp_path, "many")
    script = f"""
from device_agent import Scorer
scorer = Scorer.open({str(made.folder)!r})
scorer.score([0.0] * 5)
scorer.score_batch([[0.0] * 5] * 3)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
