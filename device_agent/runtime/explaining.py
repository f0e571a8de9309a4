"""An explanation as a graph: what a program without this agent loads beside the model, run here to see that it says the same.

The graph takes the model's raw rows `inputs` and answers `contributions` [n, F] or [n, F, K] and `base` [K]; see `Variant.explain_graph`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from device_agent.runtime import Matrix, load_error
from edgefleet.errors import ArtifactError
from edgefleet.quiet import quiet_load

_NAMES = ("contributions", "base")


@dataclass(frozen=True)
class ExplanationGraph:
    """A loaded graph; make it with `ExplanationGraph.open`."""

    runtime: str
    ask: Callable[[Matrix], tuple[Any, Any]]

    @classmethod
    def open(cls, runtime: str, graph: bytes) -> "ExplanationGraph":
        """Load a graph whose bytes are already verified.

        Args:
            runtime: `onnxruntime` or `litert`.
            graph: Its bytes.

        Raises:
            ArtifactError: The runtime refuses it, or it has other outputs.
        """
        if runtime not in ("onnxruntime", "litert"):
            raise ArtifactError(f"explanations as graphs run on onnxruntime and litert, not on {runtime!r}")
        try:
            with quiet_load():
                return cls(runtime, _onnx(graph) if runtime == "onnxruntime" else _litert(graph))
        except ArtifactError:
            raise
        except Exception as err:  # runtimes raise kinds of their own
            raise load_error(runtime, graph, err) from err

    def explain(self, rows: Matrix) -> tuple[Matrix, Matrix]:
        """(contributions [n, F, K], base [K]) of rows [n, ...] as the model takes them.

        Raises:
            ArtifactError: The runtime fails on them.
        """
        try:
            contributions, base = self.ask(np.ascontiguousarray(rows, np.float32))
        except Exception as err:
            raise ArtifactError(f"the explanation's graph fails on {len(rows)} rows: {str(err)[:200]}; convert again") from err
        base = np.asarray(base, np.float32).reshape(-1)
        return np.asarray(contributions, np.float32).reshape(len(rows), -1, len(base)), base


def _onnx(graph: bytes) -> Callable[[Matrix], tuple[Any, Any]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    _check([output.name for output in session.get_outputs()])
    return lambda rows: tuple(session.run(list(_NAMES), {session.get_inputs()[0].name: rows}))


def _litert(graph: bytes) -> Callable[[Matrix], tuple[Any, Any]]:
    from device_agent.runtime.tflite import Interpreter

    interpreter = Interpreter(model_content=graph, num_threads=1)
    interpreter.allocate_tensors()
    named = interpreter.get_signature_list()
    if len(named) != 1:
        raise ArtifactError(f"the explanation's graph has {len(named)} signatures, expected one that names its outputs; convert again")
    outputs = interpreter.get_signature_runner(next(iter(named))).get_output_details()
    _check(list(outputs))
    source = int(interpreter.get_input_details()[0]["index"])
    asked = {"rows": 1}

    def ask(rows: Matrix) -> tuple[Any, Any]:
        if asked["rows"] != len(rows):
            interpreter.resize_tensor_input(source, rows.shape)
            interpreter.allocate_tensors()
            asked["rows"] = len(rows)
        interpreter.set_tensor(source, rows)
        interpreter.invoke()
        contributions, base = (interpreter.get_tensor(int(outputs[name]["index"])) for name in _NAMES)
        return contributions, base

    return ask


def _check(outputs: list[str]) -> None:
    if not set(_NAMES) <= set(outputs):
        raise ArtifactError(f"the explanation's graph has outputs {', '.join(outputs)[:120] or 'none'}, expected {', '.join(_NAMES)}")
