"""ONNX graphs in half precision and integers: size, agreement, which nodes are touched, and what a missing value meets."""

import functools
import warnings
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from converter.cores.reading import core_of
from converter.quantize.graphs import answers_of, open_source
from converter.quantize.make import make, takes_missing, why_not
from converter.quantize.mixed import sensitivity
from converter.quantize.onnx_layers import read_onnx
from converter.quantize.onnx_static import scale_of
from converter.targets import Job
from converter.to_onnx.core import core_to_onnx
from edgefleet.errors import ConfigError, VerdictError
from edgefleet.manifest import Input
from edgefleet.package import ModelPackage, Rows, write_package
from tests.unit.converter.converter_packages import PARITY, digits, fitted, package, tree_package
from trainer.cleaning import compile_steps
from trainer.settings import Cleaning, CleaningStep

TARGETS = ["onnx-fp16", "onnx-int8", "onnx-int8-dynamic"]


@functools.cache
def network(hidden: tuple[int, ...]) -> bytes:
    import skops.io
    from sklearn.neural_network import MLPClassifier

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # stops before it converges, which the digits do not need
        model = fitted(MLPClassifier(hidden, max_iter=25, random_state=0))
    model._optimizer = None
    return bytes(skops.io.dumps(model))


def job(folder: Path, target: str, hidden: tuple[int, ...] = (64, 32), **changes: Any) -> dict[str, Any]:
    """A package and its float graph, and what the writer is asked."""
    if not (folder / "p").exists():
        one = package(folder / "p", "model.skops", network(hidden), "mlp", "logit")
        (folder / "float.onnx").write_bytes(core_to_onnx(core_of(one), one.steps()))
    asked = Job(package=str(folder / "p"), target=target, result=str(folder / target), source=str(folder / "float.onnx"), **changes)
    document: dict[str, Any] = msgspec.to_builtins(asked)
    return document


def both(folder: Path, target: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Probabilities of the float graph and of the target's."""
    x = digits()[0][PARITY]
    exact, found = (answers_of((folder / name).read_bytes(), True, x)["probabilities"] for name in ("float.onnx", target))
    return exact, found


# Bytes as a share of the float file and least agreement. The dynamic scale spans all 797 rows: it rounds most and may turn a tie.
@pytest.mark.parametrize(
    ("target", "share", "agreement"), [("onnx-fp16", 0.51, 1.0), ("onnx-int8", 0.27, 1.0), ("onnx-int8-dynamic", 0.26, 0.995)]
)
def test_a_large_network_takes_half_or_a_quarter_of_the_bytes_and_answers_the_same_classes(
    target: str, share: float, agreement: float, tmp_path: Path
) -> None:
    make(job(tmp_path, target, (512, 512)))

    exact, found = both(tmp_path, target)
    assert (tmp_path / target).stat().st_size < share * (tmp_path / "float.onnx").stat().st_size
    assert (found.argmax(axis=1) == exact.argmax(axis=1)).mean() >= agreement


@pytest.mark.parametrize(
    ("target", "share", "mean"), [("onnx-fp16", 0.55, 1e-4), ("onnx-int8", 0.5, 4e-3), ("onnx-int8-dynamic", 0.5, 4e-3)]
)
def test_a_small_network_is_smaller_and_near_the_float_one(target: str, share: float, mean: float, tmp_path: Path) -> None:
    make(job(tmp_path, target))

    exact, found = both(tmp_path, target)
    assert (tmp_path / target).stat().st_size < share * (tmp_path / "float.onnx").stat().st_size
    assert np.abs(exact - found).mean() < mean
    assert (found.argmax(axis=1) == exact.argmax(axis=1)).mean() > 0.99


@pytest.mark.parametrize("target", ["onnx-fp16", "onnx-int8"])
def test_a_row_alone_is_answered_as_among_others(target: str, tmp_path: Path) -> None:
    make(job(tmp_path, target))
    x = digits()[0][PARITY][:20]

    content = (tmp_path / target).read_bytes()
    single = [answers_of(content, True, row[None])["margin"][0] for row in x]
    assert np.allclose(answers_of(content, True, x)["margin"], single, atol=1e-4)


@pytest.mark.parametrize("target", TARGETS)
def test_the_same_graph_and_rows_give_the_same_bytes(target: str, tmp_path: Path) -> None:
    make(job(tmp_path, target))
    first = (tmp_path / target).read_bytes()

    made = make(job(tmp_path, target))

    assert (tmp_path / target).read_bytes() == first
    assert made["opset"] == 17
    assert made["operators"] == sorted({node.op_type for node in read_onnx(first).graph.node})


def test_inputs_and_outputs_stay_float32_by_name(tmp_path: Path) -> None:
    for target in TARGETS:
        make(job(tmp_path, target))
        graph = read_onnx((tmp_path / target).read_bytes()).graph
        ends = [(value.name, value.type.tensor_type.elem_type) for value in (*graph.input, *graph.output)]
        assert ends == [("inputs", 1), ("margin", 1), ("probabilities", 1)]


def test_a_layer_that_is_kept_float_has_its_float_weights_and_is_named_in_the_facts(tmp_path: Path) -> None:
    made = make(job(tmp_path, "onnx-int8", keep_float=["dense0"]))

    kept = {tensor.name for tensor in read_onnx((tmp_path / "onnx-int8").read_bytes()).graph.initializer}
    assert "weight0" in kept
    assert "weight1" not in kept
    assert (made["facts"]["float_layers"], made["facts"]["quantized_layers"]) == (["dense0"], 2)


def test_a_layer_that_is_not_there_cannot_be_kept_float(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no layer 'dense9' to keep float; the graph has dense0, dense1, margin"):
        make(job(tmp_path, "onnx-int8", keep_float=["dense9"]))


def test_every_layer_kept_float_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VerdictError, match="every layer is kept float"):
        make(job(tmp_path, "onnx-int8", keep_float=["dense0", "dense1", "margin"]))


def test_calibration_rows_are_limited_and_told(tmp_path: Path) -> None:
    made = make(job(tmp_path, "onnx-int8", calibration_rows=100))

    assert made["facts"]["calibration"]["rows"] == 100
    assert sum(made["facts"]["calibration"]["strata"].values()) == 100


def test_the_most_damaged_layer_comes_first_and_keeping_it_float_helps_most(tmp_path: Path) -> None:
    found = sensitivity(job(tmp_path, "onnx-int8"))

    names = [layer["name"] for layer in found["layers"]]
    errors = [layer["error"] for layer in found["layers"]]
    left = {}
    for name in (names[0], names[-1]):
        make(job(tmp_path, "onnx-int8", keep_float=[name]))
        exact, changed = both(tmp_path, "onnx-int8")
        left[name] = float(np.abs(exact - changed).mean())
    assert sorted(names) == ["dense0", "dense1", "margin"]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] > 0
    assert left[names[0]] < left[names[-1]]


def test_trees_are_refused_by_family_and_by_their_graph(tmp_path: Path) -> None:
    from sklearn.tree import DecisionTreeClassifier

    trees = tree_package(tmp_path / "p", fitted(DecisionTreeClassifier(max_depth=4, random_state=0)))
    (tmp_path / "float.onnx").write_bytes(core_to_onnx(core_of(trees)))
    index = msgspec.structs.replace(trees.index, family="pipeline", files={})
    unknown = write_package(tmp_path / "q", index, {name: trees.read(name) for name in trees.index.files})

    for target in TARGETS:
        assert why_not(trees, target) == "trees are not quantized: thresholds would move; limit depth or count instead"
        asked = Job(package=str(unknown.folder), target=target, result=str(tmp_path / target), source=str(tmp_path / "float.onnx"))
        with pytest.raises(VerdictError, match="trees are not quantized: thresholds would move"):
            make(msgspec.to_builtins(asked))


def with_missing(folder: Path, steps: list[CleaningStep]) -> ModelPackage:
    """A linear model over rows of which every fifth lacks a value."""
    import skops.io
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(5)
    x = rng.normal(0, 1, (300, 96)).astype(np.float32)
    label = (x[:, 0] > 0).astype(np.int64)
    x[::5, 1] = np.nan
    inputs = [Input(name=f"x{i}", missing=i == 1) for i in range(96)]
    cleaning = compile_steps(Cleaning(steps=steps), inputs, x)
    model = LogisticRegression().fit(np.nan_to_num(cleaning.run(x)).astype(np.float64), label)
    base = package(folder / "base", "model.skops", skops.io.dumps(model), "linear", "log-odds")
    files = {
        **{name: base.read(name) for name in base.index.files},
        "schema.json": msgspec.json.encode(inputs),
        "steps.json": cleaning.to_json(),
        "rows/calibration.npz": Rows(x, label, np.full(300, "all"), np.arange(300).astype(str)).to_bytes(),
    }
    return write_package(folder / "p", msgspec.structs.replace(base.index, classes=["no", "yes"], shape=[96], files={}), files)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("imputed", [True, False])
def test_missing_values_are_taken_only_where_an_imputer_stands_in_front(target: str, imputed: bool, tmp_path: Path) -> None:
    steps = [CleaningStep(step="impute", columns=["x1"])] if imputed else [CleaningStep(step="unit", columns=["x0"], factor=2.0)]
    one = with_missing(tmp_path, steps)
    source = open_source(core_to_onnx(core_of(one), one.steps()), target)

    assert takes_missing(one, source, source.names) is imputed


def test_an_integer_network_that_would_grow_is_refused_with_both_sizes(tmp_path: Path) -> None:
    one = with_missing(tmp_path, [CleaningStep(step="impute", columns=["x1"])])
    (tmp_path / "float.onnx").write_bytes(core_to_onnx(core_of(one), one.steps()))

    asked = Job(package=str(one.folder), target="onnx-int8", result=str(tmp_path / "r"), source=str(tmp_path / "float.onnx"))
    with pytest.raises(VerdictError, match=r"onnx-int8 would take \d+ bytes instead of \d+"):
        make(msgspec.to_builtins(asked))


def test_a_weight_too_large_for_half_precision_is_refused(tmp_path: Path) -> None:
    from onnx import numpy_helper

    asked = job(tmp_path, "onnx-fp16")
    model = read_onnx((tmp_path / "float.onnx").read_bytes())
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "weight0")
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1e6), "weight0"))
    (tmp_path / "float.onnx").write_bytes(model.SerializeToString())

    with pytest.raises(VerdictError, match="above 65504, the largest of half precision"):
        make(asked)


def test_convolutions_become_integer_and_half_precise(tmp_path: Path) -> None:
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(1)
    shapes = {"k": (8, 1, 3, 3), "kb": (8,), "w": (10, 512), "b": (10,)}
    constants = [numpy_helper.from_array(rng.normal(0, 0.2, shape).astype(np.float32), name) for name, shape in shapes.items()]
    constants += [numpy_helper.from_array(np.array(sides), name) for name, sides in (("image", [-1, 1, 8, 8]), ("flat", [-1, 512]))]
    nodes = [
        helper.make_node("Reshape", ["inputs", "image"], ["x"]),
        helper.make_node("Conv", ["x", "k", "kb"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Reshape", ["r", "flat"], ["f"]),
        helper.make_node("Gemm", ["f", "w", "b"], ["margin"], transB=1),
        helper.make_node("Softmax", ["margin"], ["probabilities"]),
    ]
    widths = {"inputs": 64, "margin": 10, "probabilities": 10}
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", width]) for name, width in widths.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    for target, largest in (("onnx-int8", 0.2), ("onnx-fp16", 5e-3)):
        asked = job(tmp_path, target)
        (tmp_path / "float.onnx").write_bytes(model.SerializeToString())

        made = make(asked)

        x = digits()[0][PARITY]
        exact, found = (answers_of((tmp_path / name).read_bytes(), True, x)["margin"] for name in ("float.onnx", target))
        assert made["facts"]["quantized_layers"] == 2
        # Of the spread of the margins: one step of 255 in each of two layers and their weights.
        assert np.abs(exact - found).max() < largest * exact.std()


def test_the_scale_spans_zero_exactly_and_survives_ranges_without_width() -> None:
    for low, high in ((0.0, 0.0), (2.0, 3.0), (-1e-45, 0.0), (-7.0, -2.0), (-1.0, 1e30)):
        entry = scale_of(low, high)
        assert -128 <= entry.zero <= 127
        assert entry.scale > 0
        assert float(entry.scale) * (127 - entry.zero) >= high * (1 - 1e-6)
