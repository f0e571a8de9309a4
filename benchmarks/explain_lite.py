"""Exact TreeSHAP as a TFLite graph for `benchmarks.explain`: TensorFlow writes it in a process of its own, LiteRT runs it here."""

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converter.explain.treeshap import Compiled

Matrix = NDArray[np.float32]


def writer() -> ProcessPoolExecutor:
    """One process that keeps TensorFlow; a context manager."""
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))


def graph_of(pool: ProcessPoolExecutor, compiled: Compiled, features: int) -> bytes:
    """The TFLite file that a bundle would hold."""
    return pool.submit(_written, compiled, features).result()


def _written(compiled: Compiled, features: int) -> bytes:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from converter.explain.treeshap_tflite import treeshap_in_tensorflow
    from converter.to_tflite.graph import to_tflite

    return to_tflite(treeshap_in_tensorflow(compiled, features, missing=False), (features,))


def explained_by(graph: bytes) -> Callable[[Matrix], NDArray[Any]]:
    """The graph as a function of one row, on one thread."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=graph, num_threads=1)
    interpreter.allocate_tensors()
    (given,) = interpreter.get_input_details()
    # A signature's runner would take twice the time of the three calls.
    place = interpreter.get_signature_runner("serving_default").get_output_details()["contributions"]["index"]

    def explained(row: Matrix) -> NDArray[Any]:
        interpreter.set_tensor(given["index"], row[None])
        interpreter.invoke()
        found: NDArray[Any] = interpreter.get_tensor(place)
        return found

    return explained
