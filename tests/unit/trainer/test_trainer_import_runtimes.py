"""Foreign models answer through our child process as they do in their own library."""

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import skops.io
from numpy.typing import NDArray

from edgefleet.errors import ArtifactError, InputError
from edgefleet.signature import Signature, Tensor
from trainer.importers.outputs import choose_output, meant
from trainer.importers.runtimes import open_file
from trainer.importers.signature import Description
from trainer.opened import foreign_predict, in_child, run_in_child

X = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
Y = np.where(X[:, 0] + X[:, 1] > 0, "up", np.where(X[:, 2] > 0, "mid", "down"))
# Keras' own: its arrays do not know numpy 2's copy argument.
KERAS_WARNING = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")
DATA = Path(os.environ.get("EDGEFLEET_PUBLIC_DATA", Path(__file__).parents[4] / "shared" / "data"))


def skops_of(path: Path, model: Any) -> Path:
    path.write_bytes(skops.io.dumps(model))
    return path


def opened(
    kind: str, path: Path, task: Any, x: NDArray[np.float32] = X, **changes: Any
) -> tuple[Description, Signature, NDArray[np.float64]]:
    """What the import does: describe and run in children, choose, answer."""
    description = msgspec.convert(in_child("trainer.importers.runtimes:describe", {"kind": kind, "path": str(path)}, path), Description)
    bare = Signature(kind=kind, inputs=description.inputs, table=description.columns is not None, **changes)  # type: ignore[arg-type]
    chosen = choose_output(description, run_in_child(path, bare, x), task, x[0].size)
    signature = msgspec.structs.replace(bare, output=chosen.output, meaning=chosen.meaning, sign=chosen.sign)
    return description, signature, foreign_predict(path, signature)(x)


def test_a_scikit_learn_pipeline_answers_its_own_probabilities_with_its_own_class_names(tmp_path: Path) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y)

    description, signature, answers = opened("skops", skops_of(tmp_path / "m.skops", model), "classification")

    assert (description.classes, description.family, description.features) == (["down", "mid", "up"], "pipeline", 4)
    assert signature.meaning == "probabilities"
    assert np.array_equal(answers, model.predict_proba(X))


def test_a_model_fitted_on_a_table_gets_a_table_with_its_texts(tmp_path: Path) -> None:
    import pandas
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    table = pandas.DataFrame({"size": X[:, 0], "colour": np.where(X[:, 1] > 0, "red", "blue")})
    encode = make_column_transformer((OneHotEncoder(sparse_output=False), ["colour"]), remainder="passthrough")
    model = make_pipeline(encode, RandomForestClassifier(10, random_state=0)).fit(table, Y)
    raw = np.column_stack([X[:, 0], X[:, 1] > 0]).astype(np.float32)  # colour as its index: blue 0, red 1

    _, _, answers = opened(
        "skops", skops_of(tmp_path / "m.skops", model), "classification", raw, columns=["size", "colour"], categories=[[], ["blue", "red"]]
    )

    assert np.array_equal(answers, model.predict_proba(table))


def test_scores_of_an_isolation_forest_are_turned_so_that_strange_rows_score_higher(tmp_path: Path) -> None:
    from sklearn.ensemble import IsolationForest

    model = IsolationForest(random_state=0).fit(X)
    rows = np.vstack([X[:50], [[50.0, 50, 50, 50]]]).astype(np.float32)

    _, _, answers = opened("skops", skops_of(tmp_path / "m.skops", model), "anomaly", rows)

    assert answers.argmax() == 50
    assert np.array_equal(answers, -model.score_samples(rows))


def test_a_model_of_labels_only_is_refused_with_the_way_out(tmp_path: Path) -> None:
    from sklearn.svm import LinearSVC

    path = skops_of(tmp_path / "m.skops", LinearSVC().fit(X, Y))

    with pytest.raises(InputError, match=r"answers labels only, no probabilities.*wrap it in"):
        opened("skops", path, "classification")


@pytest.mark.parametrize("function", [json.loads, partial(json.loads, strict=True)], ids=["plain", "partial"])
def test_a_skops_file_with_a_type_that_could_run_code_is_not_opened(tmp_path: Path, function: Callable[..., Any]) -> None:
    from sklearn.preprocessing import FunctionTransformer

    path = skops_of(tmp_path / "m.skops", FunctionTransformer(function))

    with pytest.raises(ArtifactError, match=r"holds the type '.*json.*loads', which is not opened"):
        opened("skops", path, "regression")


def test_histogram_boosting_with_sets_of_categories_is_opened(tmp_path: Path) -> None:
    from sklearn.ensemble import HistGradientBoostingClassifier

    x = np.random.default_rng(0).integers(0, 4, (200, 3)).astype(np.float32)
    model = HistGradientBoostingClassifier(max_iter=5, categorical_features=[0]).fit(x, x[:, 0] % 2)

    _, _, answers = opened("skops", skops_of(tmp_path / "m.skops", model), "classification", x)

    assert np.array_equal(answers, model.predict_proba(x))


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Any, Path]]:
    """Fits a scikit-learn model and writes it as ONNX by scikit-learn's own converter."""
    import skl2onnx

    def make(model: Any, y: Any, **options: Any) -> tuple[Any, Path]:
        fitted = model.fit(X) if y is None else model.fit(X, y)
        path = tmp_path_factory.mktemp("onnx") / "model.onnx"
        path.write_bytes(skl2onnx.to_onnx(fitted, X[:1], target_opset={"": 17, "ai.onnx.ml": 3}, **options).SerializeToString())
        return fitted, path

    return make


@pytest.mark.parametrize("zipmap", [True, False])
def test_an_onnx_classifier_with_text_classes_answers_its_probabilities(converted: Callable[..., tuple[Any, Path]], zipmap: bool) -> None:
    from sklearn.ensemble import RandomForestClassifier

    model = RandomForestClassifier(10, random_state=0)
    fitted, path = converted(model, Y, options={id(model): {"zipmap": zipmap}})

    description, signature, answers = opened("onnx", path, "classification")

    assert description.classes == ["down", "mid", "up"]
    assert signature.meaning == "probabilities"
    # float32 sums of ten trees against float64 ones.
    assert np.allclose(answers, fitted.predict_proba(X), rtol=0, atol=1e-6)


def test_a_dictionary_a_row_names_the_classes_in_the_order_in_which_it_is_read(tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("Softmax", ["x"], ["shares"], axis=1),
        helper.make_node("ZipMap", ["shares"], ["answer"], domain="ai.onnx.ml", classlabels_strings=["wet", "dry"]),
    ]
    one_row = helper.make_map_type_proto(TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    ends = (
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])],
        [helper.make_value_info("answer", helper.make_sequence_type_proto(one_row))],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    path = tmp_path / "model.onnx"
    path.write_bytes(helper.make_model(helper.make_graph(nodes, "g", *ends), opset_imports=opsets, ir_version=8).SerializeToString())

    description, run = open_file("onnx", path)
    answers = run(np.array([[5, 0]], np.float32), Signature(kind="onnx", inputs=description.inputs, columns=["a", "b"]))["answer"]

    assert description.classes is not None
    assert description.classes[int(answers.argmax())] == "wet"


def test_an_onnx_regression_answers_its_value(converted: Callable[..., tuple[Any, Path]]) -> None:
    from sklearn.linear_model import Ridge

    fitted, path = converted(Ridge(), X[:, 0] * 3 - X[:, 1])

    _, signature, answers = opened("onnx", path, "regression")

    assert signature.meaning == "value"
    assert np.allclose(answers, fitted.predict(X), rtol=0, atol=1e-4)


def test_an_onnx_isolation_forest_scores_strange_rows_higher(converted: Callable[..., tuple[Any, Path]]) -> None:
    from sklearn.ensemble import IsolationForest

    _, path = converted(IsolationForest(n_estimators=20, random_state=0), None)
    rows = np.vstack([X[:50], [[50.0, 50, 50, 50]]]).astype(np.float32)

    _, signature, answers = opened("onnx", path, "anomaly", rows)

    assert (signature.output, signature.sign) == ("scores", -1.0)
    assert answers.argmax() == 50


def test_too_many_columns_are_refused_with_both_numbers(converted: Callable[..., tuple[Any, Path]]) -> None:
    from sklearn.linear_model import Ridge

    _, path = converted(Ridge(), X[:, 0])

    with pytest.raises(ArtifactError, match="the model takes 4 numbers a row, the data have 6"):
        opened("onnx", path, "regression", np.zeros((3, 6), np.float32))


@pytest.mark.parametrize("share", [0.2, 0.9, 0.999])
def test_a_truncated_onnx_file_is_an_artefact_error(converted: Callable[..., tuple[Any, Path]], tmp_path: Path, share: float) -> None:
    from sklearn.ensemble import RandomForestClassifier

    whole = converted(RandomForestClassifier(10, random_state=0), Y)[1].read_bytes()
    path = tmp_path / "model.onnx"
    path.write_bytes(whole[: int(share * len(whole))])

    with pytest.raises(ArtifactError, match=r"model\.onnx"):
        opened("onnx", path, "classification")


def output(name: str, values: Any, **tensor: Any) -> tuple[Description, dict[str, NDArray[Any]]]:
    return Description(outputs=[Tensor(name=name, **tensor)], family="onnx"), {name: np.asarray(values)}


@pytest.mark.parametrize(
    ("values", "meaning"),
    [
        ([[0.2, 0.8], [0.9, 0.1]], "probabilities"),
        ([[0.2, 0.7], [0.9, 0.1]], "logits"),
        ([[0.2], [0.9]], "sigmoid"),
        ([-1.5, 0.9], "logit"),
    ],
)
def test_what_the_numbers_mean_is_told_by_their_range_and_sum(values: Any, meaning: str) -> None:
    assert choose_output(*output("out", values), "classification", 4).meaning == meaning


def test_labels_alone_are_refused_and_so_are_two_values_of_a_regression() -> None:
    with pytest.raises(InputError, match="labels, no probabilities"):
        choose_output(*output("out", [0.0, 1.0]), "classification", 4)
    with pytest.raises(InputError, match="exactly one must be a single number"):
        choose_output(*output("out", [[0.1, 1.0]]), "regression", 4)
    with pytest.raises(InputError, match="no output of the model is a finite number"):
        choose_output(*output("out", [np.nan, 1.0]), "regression", 4)
    with pytest.raises(InputError, match="no output of the model is a finite number"):
        choose_output(*output("label", [0, 1], dtype="int64"), "classification", 4)


def test_meanings_become_probabilities_that_sum_to_one() -> None:
    x = np.zeros((2, 4), np.float32)
    logits = np.array([[1000.0, 999.0], [0.0, 0.0]])

    softmax = meant(logits, Signature(kind="onnx", meaning="logits"), x)
    logistic = meant(np.array([[1000.0], [-1000.0]]), Signature(kind="onnx", meaning="logit"), x)

    assert softmax[0, 0] == pytest.approx(1 / (1 + np.exp(-1)))
    assert softmax.sum(axis=1).tolist() == [1.0, 1.0]
    assert logistic.tolist() == [[0.0, 1.0], [1.0, 0.0]]


def shared(name: str) -> Path:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{path} is not on this machine")
    return path


def test_the_model_zoos_mnist_answers_its_own_test_vector() -> None:
    import onnx

    folder = shared("mnist_onnx")
    x, y = (onnx.numpy_helper.to_array(onnx.load_tensor(folder / "test_data_set_0" / f"{name}_0.pb")) for name in ("input", "output"))

    _, signature, answers = opened("onnx", folder / "model.onnx", "classification", np.repeat(x.reshape(1, 784), 3, axis=0))

    assert signature.meaning == "logits"  # opset 8, a batch of one, initializers among the inputs
    assert answers.argmax(axis=1).tolist() == [int(y.argmax())] * 3


@pytest.mark.parametrize(("name", "least"), [("kws_fp32", 0.9999), ("kws_int8", 0.996)])
def test_mlperf_tinys_keyword_model_hears_on_in_its_sample(name: str, least: float) -> None:
    folder = shared("mlperf_tiny")
    stored = np.load(folder / "kws_samples.npy").astype(np.float32).reshape(-1, 490)

    _, signature, answers = opened("tflite", folder / f"{name}.tflite", "classification", (stored - 83) * np.float32(0.58470291))

    assert signature.meaning == "probabilities"
    assert answers.argmax() == 5
    assert answers.max() >= least


@pytest.mark.parametrize(("name", "published"), [("ad01_fp32", 9.707), ("ad01_int8", 10.265)])
def test_mlperf_tinys_autoencoder_scores_a_normal_machine_as_measured_by_hand(name: str, published: float) -> None:
    folder = shared("mlperf_tiny")
    frames = np.fromfile(folder / "ad01_normal_id_01_00000000.bin", "<f4").reshape(200, 128)
    windows = np.stack([frames[i : i + 5].ravel() for i in range(196)])

    _, signature, answers = opened("tflite", folder / f"{name}.tflite", "anomaly", windows)

    assert signature.meaning == "reconstruction"
    assert answers.mean() == pytest.approx(published, abs=1e-3)  # the data's README gives three digits


@pytest.mark.parametrize("kept", [0.3, 0.95])
def test_a_truncated_tflite_file_takes_only_its_child_down(tmp_path: Path, kept: float) -> None:
    whole = shared("mlperf_tiny/kws_fp32.tflite").read_bytes()
    path = tmp_path / "model.tflite"
    path.write_bytes(whole[: int(kept * len(whole))])

    with pytest.raises(ArtifactError, match=r"model\.tflite: the model could not be opened and run in a child process"):
        opened("tflite", path, "classification", np.zeros((1, 490), np.float32))


@pytest.mark.keras
@KERAS_WARNING
@pytest.mark.parametrize(("units", "activation", "meaning"), [(3, "softmax", "probabilities"), (1, "sigmoid", "sigmoid")])
def test_a_keras_file_answers_as_keras_does(tmp_path: Path, units: int, activation: str, meaning: str) -> None:
    import keras

    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(units, activation)])
    model.save(tmp_path / "model.keras")

    description, signature, answers = opened("keras", tmp_path / "model.keras", "classification")
    own = np.asarray(model(X, training=False))

    assert (description.family, signature.meaning) == ("keras", meaning)
    # The same weights, in batches of another size.
    assert np.allclose(answers[:, -1], own[:, -1], rtol=0, atol=1e-6)


@pytest.mark.keras
@KERAS_WARNING
def test_a_keras_file_with_a_lambda_layer_is_refused_because_it_is_code(tmp_path: Path) -> None:
    import keras

    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Lambda(lambda x: x * 2), keras.layers.Dense(1)])
    model.save(tmp_path / "model.keras")

    with pytest.raises(ArtifactError, match=r"(?i)lambda"):
        open_file("keras", tmp_path / "model.keras")
