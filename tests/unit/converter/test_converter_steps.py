"""Cleaning in onnxruntime and in LiteRT: the same values as numpy, whatever the batch, and one file with the model."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from converter.to_onnx.graphs import finish
from converter.to_onnx.steps import merge, steps_to_onnx
from edgefleet.errors import VerdictError
from edgefleet.steps import Steps
from tests.unit.trainer.cleaning_cases import ROWS, WINDOWS, all_cases, row_case, window_case

CASES = [*ROWS, *WINDOWS]


def case(name: str, **settings: Any) -> Any:
    return row_case(name, **settings) if name in ROWS else window_case(name, **settings)


def session(model: Any, optimise: bool = True) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("name", CASES)
def test_onnxruntime_computes_numpys_values_in_a_batch_and_one_by_one(name: str) -> None:
    cleaning = case(name)
    want = cleaning.steps.run(cleaning.x)
    graph = steps_to_onnx(cleaning.steps)
    onnx.checker.check_model(graph, full_check=True)

    for optimise in (True, False):
        runtime = session(graph, optimise)
        batch = runtime.run(None, {"inputs": cleaning.x})[0]
        single = np.concatenate([runtime.run(None, {"inputs": cleaning.x[i : i + 1]})[0] for i in range(200)])

        assert np.array_equal(batch, want, equal_nan=True)
        assert np.array_equal(single, want[:200], equal_nan=True)


def test_only_operators_of_the_standard_domain_are_written() -> None:
    graphs = [steps_to_onnx(case(name).steps) for name in CASES]

    assert {node.domain for graph in graphs for node in graph.graph.node} == {""}
    assert not {node.op_type for graph in graphs for node in graph.graph.node} & {"Div", "Log", "Sqrt", "Min", "Max", "ReduceMean", "Clip"}


def sums(width: int) -> Any:
    """A model: margin = probabilities = the sum of its columns."""
    nodes = [helper.make_node("MatMul", ["inputs", "ones"], ["margin"]), helper.make_node("Identity", ["margin"], ["probabilities"])]
    ones = numpy_helper.from_array(np.ones((width, 1), np.float32), "ones")
    return onnx.load_from_string(finish(nodes, [ones], features=width, margins=1, classes=1))


def test_a_model_behind_its_steps_answers_raw_rows_as_it_answers_cleaned_ones() -> None:
    cleaning = case("everything")
    model = sums(cleaning.steps.output_shape[0])

    merged = merge(cleaning.steps, model)

    want = session(model).run(None, {"inputs": cleaning.steps.run(cleaning.x)})
    got = session(merged).run(None, {"inputs": cleaning.x})
    assert [value.name for value in merged.graph.output] == ["margin", "probabilities"]
    assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(want, got, strict=True))


def test_merging_twice_gives_the_same_bytes() -> None:
    cleaning = case("everything")
    graphs = [merge(cleaning.steps, sums(cleaning.steps.output_shape[0])).SerializeToString(deterministic=True) for _ in range(2)]

    assert graphs[0] == graphs[1]


def test_identity_leaves_the_model_as_it_is() -> None:
    model = sums(4)

    assert merge(Steps.identity([4]), model) is model


def test_a_model_of_another_width_is_refused() -> None:
    with pytest.raises(VerdictError, match=r"takes .*99.*, the cleaning steps give \[8\]"):
        merge(case("everything").steps, sums(99))


# TensorFlow in a process of its own: it warns when imported, and its threads would stay for all other tests.
CONVERT = """
import sys
from pathlib import Path
import tensorflow as tf
from converter.to_tflite.steps import run_in_tensorflow
from edgefleet.steps import Steps
for path in Path(sys.argv[1]).glob("*.json"):
    steps = Steps.from_json(path.read_bytes())
    spec = tf.TensorSpec((None, *steps.input_shape), tf.float32)
    function = tf.function(lambda x: run_in_tensorflow(steps, x)).get_concrete_function(spec)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    path.with_suffix(".tflite").write_bytes(converter.convert())
"""


@pytest.fixture(scope="module")
def lite_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lite")
    for name, cleaning in all_cases().items():
        (folder / f"{name}.json").write_bytes(cleaning.steps.to_json())
    done = subprocess.run([sys.executable, "-c", CONVERT, str(folder)], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


def lite(path: Path, x: NDArray[np.float32], *, builtin: bool = False) -> NDArray[np.float32]:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    kernels = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES if builtin else OpResolverType.AUTO
    interpreter = Interpreter(model_path=str(path), num_threads=1, experimental_op_resolver_type=kernels)
    place = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(place, x.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(place, x)
    interpreter.invoke()
    return np.array(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]), np.float32)


@pytest.mark.keras
@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_litert_computes_numpys_values_in_a_batch_and_one_by_one(name: str, lite_files: Path) -> None:
    cleaning = case(name, n=300)
    want = cleaning.steps.run(cleaning.x)
    path = lite_files / f"{name}.tflite"

    batch = lite(path, cleaning.x)
    single = np.concatenate([lite(path, cleaning.x[i : i + 1]) for i in range(30)])

    assert np.array_equal(batch, want, equal_nan=True)
    assert np.array_equal(single, want[:30], equal_nan=True)


# Arithmetic on missing values is outside the guarantee: these kernels make numbers of them.
ARITHMETIC_ON_MISSING = {"log-sqrt-missing", "unit"}


@pytest.mark.keras
@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CASES if name not in ARITHMETIC_ON_MISSING])
def test_litert_without_its_fast_kernels_computes_numpys_values_too(name: str, lite_files: Path) -> None:
    cleaning = case(name, n=300)

    assert np.array_equal(lite(lite_files / f"{name}.tflite", cleaning.x, builtin=True), cleaning.steps.run(cleaning.x), equal_nan=True)
