"""LiteRT: one thread, default delegates, three calls with cached indices.

Tensor views are slower than copies here, and a held view makes `invoke` raise; the signature runner takes twice the time. Batches have an
interpreter of their own, because resizing the input of the single-row one back and forth would cost 17 us each time.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from device_agent.runtime import Matrix, load_error, row_shape
from edgefleet.errors import ArtifactError
from edgefleet.quiet import quiet_load

try:
    from ai_edge_litert.interpreter import Interpreter
except ImportError:  # the predecessor, where only it has wheels
    from tflite_runtime.interpreter import Interpreter

__all__ = ["Interpreter", "LiteSession"]


class LiteSession:
    """A LiteRT graph; see `device_agent.runtime.Session`."""

    runtime = "litert"

    def __init__(self, graph: bytes) -> None:
        self._graph = graph
        self._batch: Any = None
        self._batch_rows = 0
        try:
            with quiet_load():
                self.raw: Any = open_interpreter(graph)
            inputs, outputs = self.raw.get_input_details(), _named_outputs(self.raw)
        except ArtifactError:
            raise
        except Exception as err:  # foreign kinds: ValueError, RuntimeError, and what numpy makes of damaged tables
            raise load_error("litert", graph, err) from err
        one = len(inputs) == 1 and inputs[0]["dtype"] == np.float32
        shapes = ", ".join(f"{i['name']} {np.dtype(i['dtype'])} {list(i['shape'])}" for i in inputs)
        self.shape = row_shape(inputs[0].get("shape_signature", inputs[0]["shape"]) if one else (), shapes or "nothing")
        self.features = self.shape[-1]
        self.input = int(inputs[0]["index"])
        self.outputs = [int(outputs[name]["index"]) for name in ("margin", "probabilities") if name in outputs]
        # A fixed batch of 1 (recurrent graphs) cannot be resized: rows go one by one.
        self._one_by_one = int(inputs[0].get("shape_signature", inputs[0]["shape"])[0]) != -1
        widths = [_width(name, outputs[name]) for name in ("margin", "probabilities") if name in outputs]
        self.margins, self.classes = widths[0], widths[1] if len(widths) > 1 else 0

    def run(self, rows: Matrix) -> tuple[Matrix, Matrix]:
        """Answer rows [n, *shape]."""
        count = len(rows)
        margin, probabilities = np.zeros((count, self.margins), np.float32), np.zeros((count, self.classes), np.float32)
        if self._one_by_one or count < 2:
            for i in range(count):
                self._answer(self.raw, rows[i : i + 1], margin[i : i + 1], probabilities[i : i + 1])
        else:
            self._answer(self._resized(count), rows, margin, probabilities)
        return margin, probabilities

    def bind(self, rows: Matrix, answers: Matrix) -> list[Callable[[], object]]:
        """Views of every row of a ring; see `device_agent.runtime.Session`."""
        if not _has_inner_calls(self.raw, self.input, rows[-1:], self.outputs[0]):
            parts = list(zip(self.outputs, (answers[:, : self.margins], answers[:, self.margins :]), strict=False))
            return [partial(_run_public, self.raw, self.input, rows[i : i + 1], parts, i) for i in range(len(rows))]
        size = answers.strides[0]
        ring = answers.data.cast("B")
        return [_inner_run(self.raw, self.input, rows[i : i + 1], self.outputs, ring[i * size : (i + 1) * size]) for i in range(len(rows))]

    def close(self) -> None:
        """Let go of the graph."""
        self.raw = self._batch = None

    def _answer(self, raw: Any, rows: Matrix, margin: Matrix, probabilities: Matrix) -> None:
        raw.set_tensor(self.input, np.ascontiguousarray(rows, np.float32))
        raw.invoke()
        margin[:] = raw.get_tensor(self.outputs[0])
        if self.classes:
            probabilities[:] = raw.get_tensor(self.outputs[1])

    def _resized(self, count: int) -> Any:
        if self._batch is None or self._batch_rows != count:
            self._batch_rows = 0  # stays 0 when the allocation fails
            self._batch = self._batch or Interpreter(model_content=self._graph, num_threads=1)
            self._batch.resize_tensor_input(self.input, [count, *self.shape])
            self._batch.allocate_tensors()
            self._batch_rows = count
        return self._batch


def open_interpreter(graph: bytes) -> Any:
    """The bare interpreter that a session uses: one thread, default delegates, tensors allocated."""
    interpreter = Interpreter(model_content=graph, num_threads=1)
    interpreter.allocate_tensors()
    return interpreter


def _run_public(raw: Any, index: int, row: Matrix, parts: list[tuple[int, Matrix]], slot: int) -> None:
    raw.set_tensor(index, row)
    raw.invoke()
    for output, part in parts:
        part[slot] = raw.get_tensor(output)


def _inner_run(raw: Any, index: int, row: Matrix, outputs: list[int], answer: memoryview) -> Callable[[], object]:
    """What runs the model on a row [1, *shape] and writes the answer's bytes."""
    first, rest = outputs[0], outputs[1:]

    def run() -> None:
        inner = raw._interpreter  # held no longer than this call: the public `invoke` refuses to run while somebody holds it
        inner.SetTensor(index, row)
        inner.Invoke()
        found = inner.GetTensor(first, 0).tobytes()
        for output in rest:
            found += inner.GetTensor(output, 0).tobytes()
        answer[:] = found  # as bytes: half the time of an assignment of arrays, and refused when it is another number of them

    return run


def _has_inner_calls(interpreter: Any, index: int, row: Matrix, output: int) -> bool:
    """Whether what the public methods hand on to is where it was in the versions known; on a small model they are a sixth of the time."""
    try:
        inner = interpreter._interpreter
        inner.SetTensor(index, row)
        inner.Invoke()
        inner.GetTensor(output, 0)
    except Exception:  # another version's methods, or a graph that cannot run, which says so when it is asked for a row
        return False
    return True


def _named_outputs(interpreter: Any) -> dict[str, Any]:
    signatures = interpreter.get_signature_list()
    if len(signatures) != 1:
        raise ArtifactError(
            f"the graph has {len(signatures)} signatures; a bundle's graph has one that names its outputs; convert it again"
        )
    outputs = interpreter.get_signature_runner(next(iter(signatures))).get_output_details()
    if "margin" not in outputs:
        raise ArtifactError(f"the graph has outputs {', '.join(outputs)[:120] or 'none'}; a bundle's graph has `margin`; convert it again")
    return dict(outputs)


def _width(name: str, details: dict[str, Any]) -> int:
    if details["dtype"] != np.float32 or len(details["shape"]) != 2:
        raise ArtifactError(f"output {name!r} is {np.dtype(details['dtype'])} {list(details['shape'])}, expected float32 [n, columns]")
    return int(details["shape"][1])
