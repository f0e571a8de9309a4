"""The scorer over LiteRT, with graphs that the real converter wrote in a child process."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from device_agent import Scorer
from device_agent.runtime import open_runtime
from edgefleet.errors import ArtifactError
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

model = Model()
for name, function in (("many", model.serve), ("single", model.one)):
    tf.saved_model.save(model, folder + "/" + name, signatures={"serving_default": function})
    converter = tf.lite.TFLiteConverter.from_saved_model(folder + "/" + name)
    open(folder + "/" + name + ".tflite", "wb").write(converter.convert())
bare = tf.lite.TFLiteConverter.from_concrete_functions([model.serve.get_concrete_function()])
open(folder + "/nameless.tflite", "wb").write(bare.convert())
"""


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with weights.npy, many.tflite (any batch), single.tflite (batch 1), nameless.tflite (no signature)."""
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
