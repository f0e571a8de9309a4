"""TFLite files as flatbuffers: operators told and refused, tables of trees, halves; and cores that no package of ours has."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter.cores import Trees
from converter.ensembles import Ensemble, Tree
from converter.to_tflite.flat import checked_operators, read_model, write_model
from converter.to_tflite.half import half
from converter.to_tflite.trees import tables_of
from edgefleet.errors import ArtifactError, VerdictError
from tests.unit.converter.converter_children import in_child, lite

# One file with a large product, and the errors of cores that are hard on float32.
MAKE = """
import json, sys
from dataclasses import replace
from pathlib import Path
import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from converter.cores import Core, Dense, Distance, Kernel, Layers
from converter.cores.pipelines import pipeline_core
from converter.cores.reading import core_of_estimator
from converter.cores.running import margins_of
from converter.to_tflite.core import core_in_tensorflow
from converter.to_tflite.graph import to_tflite
from edgefleet.steps import Steps
from tests.unit.converter.converter_children import lite

folder, rng, errors = Path(sys.argv[1]), np.random.default_rng(0), {}

def graph(core, shape, missing=False):
    return to_tflite(core_in_tensorflow(core, Steps.identity(shape), missing=missing)[0], shape)

def error(core, x, missing=False):
    got = lite(graph(core, x.shape[1:], missing), x)["margin"]
    return float(np.abs(got - margins_of(core, x.reshape(len(x), -1))).max())

layers = Dense(rng.normal(0, 1, (40, 16)), np.zeros(16), "tanh"), Dense(rng.normal(0, 1, (16, 1)), np.zeros(1))
wide = Core(Layers(layers), 40, 1, 0, "none")
(folder / "wide.tflite").write_bytes(graph(wide, (40,)))
errors["window"] = error(wide, rng.normal(0, 1, (50, 8, 5)).astype(np.float32))

x = rng.normal(0, 1, (2000, 6)).astype(np.float32)
far = x + np.float32(1e5)
ridge = core_of_estimator(Ridge().fit(far.astype(float), x[:, 0] - 2 * x[:, 1]), "linear", "regression")
errors["far, as it is"] = error(ridge, far)
errors["far, centred"] = error(replace(ridge, head=replace(ridge.head, center=far.mean(axis=0).astype(np.float32))), far)
mean = far.astype(float).mean(axis=0)
errors["far distance"] = error(Core(Distance(mean, rng.normal(0, 1, (6, 6))), 6, 1, 0, "none"), far)
gaps = x.copy(); gaps[::3, 2] = np.nan
errors["filled distance"] = error(Core(Distance(np.zeros(6), np.eye(6), np.full(6, 0.5)), 6, 1, 0, "none"), gaps, True)

# 1500 support vectors, first those of one class, then those of the other: sums of thousands whose difference counts.
dual = np.concatenate([-rng.uniform(0, 10, 750), rng.uniform(0, 10, 750)])[:, None]
kernel = Kernel(np.zeros(6), np.ones(6), rng.normal(0, 1, (1500, 6)), dual, np.zeros(1), 0.1)
errors["kernel"] = error(Core(kernel, 6, 1, 0, "none"), x) / float(np.abs(dual).sum())
narrow = Kernel(np.zeros(6), np.ones(6), x[:300].astype(float), dual[600:900], np.zeros(1), 40.0)
errors["narrow kernel"] = error(Core(narrow, 6, 1, 0, "none"), x) / float(np.abs(dual[600:900]).sum())

codes = x.copy()
codes[:, 0], codes[:, 3] = rng.integers(0, 40, 2000), rng.integers(0, 7, 2000)
codes[rng.random(codes.shape) < 0.05] = np.nan
label = ((codes[:, 0] % 3 == 1) ^ (codes[:, 3] > 3) ^ (x[:, 1] > 0)).astype(int)
model = HistGradientBoostingClassifier(max_iter=40, categorical_features=[0, 3], random_state=0)
model.fit(codes[:1500].astype(float), label[:1500])
asked = codes.copy()
asked[:100, 0], asked[100:200, 3], asked[200:300, 0] = 77, -1, 3.5
core = core_of_estimator(model, "hist_boosting")
answers = lite(graph(core, (6,), True), asked)["probabilities"]
errors["categories"] = float(np.abs(answers - model.predict_proba(asked.astype(float))).max())

model = make_pipeline(SimpleImputer(), StandardScaler(), Ridge()).fit(gaps.astype(float), x[:, 2])
core = pipeline_core(model, 6)
errors["has a front"] = core.front is not None
errors["pipeline"] = float(np.abs(lite(graph(core, (6,), True), gaps)["margin"][:, 0] - model.predict(gaps.astype(float))).max())
print(json.dumps(errors))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("files")
    (made / "errors.json").write_text(in_child(["-c", MAKE, str(made)]))
    return made


@pytest.fixture(scope="module")
def errors(folder: Path) -> dict[str, float]:
    found: dict[str, float] = json.loads((folder / "errors.json").read_text())
    return found


@pytest.fixture(scope="module")
def wide(folder: Path) -> bytes:
    return (folder / "wide.tflite").read_bytes()


@pytest.mark.keras
def test_windows_are_laid_flat_in_front_of_a_core(errors: dict[str, float]) -> None:
    assert errors["window"] < 1e-5


@pytest.mark.keras
def test_columns_far_from_zero_keep_their_digits_where_a_core_is_centred(errors: dict[str, float]) -> None:
    assert errors["far, centred"] < 1e-5 < errors["far, as it is"]
    assert errors["far distance"] < 1e-5


@pytest.mark.keras
def test_a_distance_fills_missing_values_itself(errors: dict[str, float]) -> None:
    assert errors["filled distance"] < 1e-6


@pytest.mark.keras
def test_sums_over_many_support_vectors_keep_seven_digits_of_their_largest_part(errors: dict[str, float]) -> None:
    # Added up class by class the same vectors lose some 3e-7.
    assert errors["kernel"] < 2e-8
    assert errors["narrow kernel"] < 1e-7


@pytest.mark.keras
def test_splits_by_sets_take_known_unseen_negative_broken_and_missing_categories(errors: dict[str, float]) -> None:
    assert errors["categories"] < 1e-6


@pytest.mark.keras
def test_an_imported_pipeline_fills_gaps_inside_the_graph(errors: dict[str, float]) -> None:
    assert errors["has a front"]
    assert errors["pipeline"] < 1e-6


@pytest.mark.keras
def test_a_file_written_again_answers_the_same_and_its_constants_are_aligned(wide: bytes) -> None:
    x = np.random.default_rng(1).normal(0, 1, (20, 40)).astype(np.float32)

    again = write_model(read_model(wide))

    assert np.array_equal(lite(again, x)["margin"], lite(wide, x)["margin"])
    large = [bytes(buffer.data) for buffer in read_model(again).buffers if buffer.data is not None and len(buffer.data) > 100]
    assert large
    assert [again.index(content) % 16 for content in large] == [0] * len(large)


@pytest.mark.keras
def test_a_half_file_keeps_small_constants_and_answers_nearly_the_same(wide: bytes) -> None:
    x = np.random.default_rng(1).normal(0, 1, (20, 40)).astype(np.float32)

    small = half(wide)

    assert len(small) < len(wide) - 900
    assert 0 < np.abs(lite(small, x)["margin"] - lite(wide, x)["margin"]).max() < 2e-2
    assert checked_operators(small) == ["DEQUANTIZE", "FULLY_CONNECTED", "TANH"]


@pytest.mark.keras
def test_a_weight_that_half_precision_cannot_hold_is_refused_by_its_size(wide: bytes) -> None:
    model = read_model(wide)
    largest = max((buffer for buffer in model.buffers if buffer.data is not None), key=lambda buffer: len(buffer.data))
    weights = np.frombuffer(bytes(largest.data), "<f4").copy()
    weights[0] = 70000
    largest.data = np.frombuffer(weights.tobytes(), np.uint8)

    with pytest.raises(VerdictError, match="a weight of 70000 is above 65504"):
        half(write_model(model))


@pytest.mark.keras
@pytest.mark.parametrize(
    ("number", "custom", "words"),
    [
        (32, b"FlexErf", "the TensorFlow operator 'Erf', which devices do not have"),
        (32, b"Sorcery", "the operator custom Sorcery, which is not built into LiteRT"),
        (142, None, r"weights outside the file \(VAR_HANDLE\)"),
        (143, None, r"weights outside the file \(READ_VARIABLE\)"),
    ],
)
def test_operators_that_devices_do_not_have_are_refused_by_name(wide: bytes, number: int, custom: Any, words: str) -> None:
    model = read_model(wide)
    code = model.operatorCodes[0]
    code.builtinCode, code.deprecatedBuiltinCode, code.customCode = number, min(number, 127), custom

    with pytest.raises(VerdictError, match=words):
        checked_operators(write_model(model))


def test_bytes_that_are_no_tflite_file_are_refused() -> None:
    with pytest.raises(ArtifactError, match="no TFLite file"):
        read_model(b"GIF89a, surely")
    with pytest.raises(ArtifactError, match="damaged"):
        read_model(b"\xff\xff\xff\x7fTFL3")


def chain(depth: int) -> Tree:
    """A tree whose right child is always a leaf."""
    inner = np.arange(2 * depth + 1) % 2 == 0
    inner[-1] = False
    at = np.arange(2 * depth + 1)
    return Tree(
        left=np.where(inner, at + 2, -1),
        right=np.where(inner, at + 1, -1),
        feature=np.zeros(len(at), np.int64),
        threshold=np.linspace(1, 0, len(at)).astype(np.float32),
        missing_left=np.ones(len(at), bool),
        cover=np.ones(len(at)),
        value=at[:, None].astype(np.float64),
    )


def test_trees_too_deep_or_too_large_are_refused_with_their_numbers() -> None:
    with pytest.raises(VerdictError, match="a tree is 65 levels deep, the limit for TFLite is 64"):
        tables_of(Ensemble([chain(65)], np.zeros(1), 1))
    with pytest.raises(VerdictError, match=r"1000 trees with 4001000 nodes take \d+ bytes, the limit is 67108864"):
        tables_of(Ensemble([chain(2000)] * 1000, np.zeros(1), 1))


def test_children_stand_beside_each_other_and_leaves_point_at_themselves() -> None:
    tables = tables_of(Ensemble([chain(3), chain(1)], np.zeros(1), 1))

    leaf = np.isnan(tables.threshold)
    assert tables.roots.tolist() == [0, 7]
    assert (tables.left[leaf] == np.flatnonzero(leaf)).all()
    assert sorted([*tables.left[~leaf].tolist(), *(tables.left[~leaf] + 1).tolist()]) == [1, 2, 3, 4, 5, 6, 8, 9]
    assert tables.depth == 3


def test_trees_of_several_columns_are_filled_up_to_equal_numbers() -> None:
    one = chain(1)
    parts = one.left, one.right, one.feature, one.threshold, one.missing_left, one.cover
    first, second = (Tree(*parts, one.value * np.eye(2)[column]) for column in (0, 1))

    tables = tables_of(Trees(Ensemble([first, second, first], np.zeros(2), 1)).ensemble)

    assert (tables.group, len(tables.roots)) == (2, 4)
    assert tables.value.shape[1] == 1
