"""ONNX Runtime: one thread, CPU, ring rows bound once.

I/O binding shares the numpy memory with the runtime in both directions, which is 0.6 of the time of a plain `run` on small models.
A binding costs about 10 us and 2 kB once.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import onnxruntime

from device_agent.runtime import Matrix, load_error, row_shape
from edgefleet.errors import ArtifactError
from edgefleet.quiet import quiet_load

_FLOAT = "tensor(float)"
# The operator of dynamic int8 takes the activation's scale over the whole batch: the same row alone and among others answers differently.
_BATCH_DEPENDENT = b"DynamicQuantizeLinear"
# In a quantized graph the fusion of MatMul and Add hides the product from the integer kernels: it then runs in float, and its weights are
# turned into floats again for every row (digits, two convolutions: 21 us a row with it, 15 us without, fp32 12 us).
_QUANTIZED = b"QuantizeLinear"
_HIDES_PRODUCTS = "MatMulAddFusion"


class OnnxSession:
    """An ONNX graph; see `device_agent.runtime.Session`."""

    runtime = "onnxruntime"

    def __init__(self, graph: bytes) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1  # a pool's spinning threads steal a small device's core
        options.log_severity_level = 4
        try:
            with quiet_load():
                self.raw: Any = onnxruntime.InferenceSession(
                    graph,
                    options,
                    providers=["CPUExecutionProvider"],
                    disabled_optimizers=[_HIDES_PRODUCTS] if _QUANTIZED in graph else None,
                )
        except Exception as err:  # foreign kinds: RuntimeError, ValueError, UnicodeDecodeError, its own
            raise load_error("onnxruntime", graph, err) from err
        inputs, outputs = self.raw.get_inputs(), {o.name: o for o in self.raw.get_outputs()}
        one = len(inputs) == 1 and inputs[0].type == _FLOAT
        self.shape = row_shape(inputs[0].shape if one else (), ", ".join(f"{i.name} {i.type} {i.shape}" for i in inputs) or "nothing")
        self.features = self.shape[-1]
        if "margin" not in outputs:
            raise ArtifactError(
                f"the graph has outputs {', '.join(outputs)[:120] or 'none'}; a bundle's graph has `margin`; convert it again"
            )
        self.input = str(inputs[0].name)
        self.outputs = [name for name in ("margin", "probabilities") if name in outputs]
        for name in self.outputs:
            if outputs[name].type != _FLOAT:
                raise ArtifactError(f"output {name!r} is {outputs[name].type}, expected {_FLOAT}; convert the package again")
        self._bound: list[object] = []
        self._one_by_one = inputs[0].shape[0] == 1 or _BATCH_DEPENDENT in graph
        try:
            answers = self.raw.run(self.outputs, {self.input: np.zeros((1, *self.shape), np.float32)})
        except Exception as err:
            raise load_error("onnxruntime", graph, err) from err
        if any(a.ndim != 2 or len(a) != 1 for a in answers):
            raise ArtifactError(f"one row answers {[a.shape for a in answers]}, expected [1, columns] for each output; convert it again")
        self.margins = int(answers[0].shape[1])
        self.classes = int(answers[1].shape[1]) if len(answers) > 1 else 0

    def run(self, rows: Matrix) -> tuple[Matrix, Matrix]:
        """Answer rows [n, *shape]."""
        if self._one_by_one and len(rows) > 1:
            parts = [self.run(rows[i : i + 1]) for i in range(len(rows))]
            return np.concatenate([m for m, _ in parts]), np.concatenate([p for _, p in parts])
        if len(rows) == 0:
            return np.zeros((0, self.margins), np.float32), np.zeros((0, self.classes), np.float32)
        answers = self.raw.run(self.outputs, {self.input: np.ascontiguousarray(rows, np.float32)})
        return answers[0], answers[1] if len(answers) > 1 else np.zeros((len(rows), 0), np.float32)

    def bind(self, rows: Matrix, answers: Matrix) -> list[Callable[[], object]]:
        """Bind every row of a ring; see `device_agent.runtime.Session`."""
        calls: list[Callable[[], object]] = []
        parts = (rows, answers[:, : self.margins], answers[:, self.margins :])
        for i in range(len(rows)):
            binding = self.raw.io_binding()
            values = [onnxruntime.OrtValue.ortvalue_from_numpy(array[i : i + 1]) for array in parts]
            binding.bind_ortvalue_input(self.input, values[0])
            for name, value in zip(self.outputs, values[1:], strict=False):
                binding.bind_ortvalue_output(name, value)
            if i == 0:
                inner = _inner_run(self.raw, binding, values[0])
            # A binding holds bare pointers into the values, and they into the arrays: all of it must stay.
            if inner is None:
                self._bound.append((binding, values))
                calls.append(partial(self.raw.run_with_iobinding, binding))
            else:  # without the wrappers in Python, whose dictionaries take more than what they wrap
                self._bound.append([value._ortvalue for value in values])
                calls.append(partial(inner, binding._iobinding, None))
        return calls

    def close(self) -> None:
        """Let go of the graph."""
        self.raw = None
        self._bound.clear()


def _inner_run(session: Any, binding: Any, value: Any) -> Callable[[object, object], object] | None:
    """What runs a bound row, None where a version of the runtime has it otherwise.

    The public method looks at each call whether a WebGPU graph is being captured, which takes longer than a small model. What it then calls
    is tried here once.
    """
    try:
        inner: Callable[[object, object], object] = session._sess.run_with_iobinding
        inner(binding._iobinding, None)
        value._ortvalue  # noqa: B018  # asked for whether it is there
    except (AttributeError, TypeError):
        return None
    return inner
