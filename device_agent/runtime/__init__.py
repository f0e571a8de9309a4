"""The runtimes that a device may have, behind one small interface.

A session takes float32 rows, or windows of rows, and gives margins and probabilities, found by the names of the graph's outputs. Single
rows run through rows of the caller's own ring that are bound once, so that writing a row into the ring is the only copy. The package
refuses to guess: a graph without an output `margin`, or with another type than float32, is an `ArtifactError`. It hashes nothing; callers
verify bytes first, because a graph with one flipped bit loads and answers wrongly more often than it fails.

A session is not safe for threads; `device_agent.scorer` holds the lock. Read `onnx.py` next, then `tflite.py`.
"""

import functools
import importlib
import importlib.util
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from edgefleet.errors import ArtifactError, MissingPartError
from edgefleet.quiet import quiet_load

RUNTIMES: Final = ("onnxruntime", "litert")
_MODULES: Final = {"onnxruntime": "onnx", "litert": "tflite"}
_PACKAGES: Final = {"onnxruntime": ("onnxruntime",), "litert": ("ai_edge_litert", "tflite_runtime")}
_broken: Final[set[str]] = set()
MAX_ERROR_CHARACTERS: Final = 200

Matrix = NDArray[np.float32]


class Session(Protocol):
    """One loaded graph.

    Attributes:
        raw: The bare runtime object (an onnxruntime InferenceSession or a LiteRT Interpreter).
        runtime: `onnxruntime` or `litert`.
        shape: Of one row that the graph takes: (F,), or (T, F) for windows of T rows, oldest first.
        features: Columns F.
        margins: Columns K of the margin.
        classes: Columns of the probabilities, 0 when the graph has none.
    """

    raw: Any
    runtime: str
    shape: tuple[int, ...]
    features: int
    margins: int
    classes: int

    def run(self, rows: Matrix) -> tuple[Matrix, Matrix]:
        """Answer rows [n, *shape] float32: (margin [n, K], probabilities [n, classes]), both the caller's own."""
        ...

    def bind(self, rows: Matrix, answers: Matrix) -> Sequence[Callable[[], object]]:
        """Bind a ring once: the i-th of the results answers row i of `rows` into row i of `answers` when it is called.

        Args:
            rows: [slots, *shape] float32; must stay where it is as long as the result is used, as must the other.
            answers: [slots, K + classes], in one piece: margin, then probabilities.
        """
        ...

    def close(self) -> None:
        """Let go of the graph."""
        ...


def available_runtimes() -> list[str]:
    """Names of the runtimes that are installed here, in the order of `RUNTIMES`, without those that `loads` found to be broken.

    None is imported: each takes 10 to 20 MB, and a device needs one.
    """
    return [name for name in RUNTIMES if _is_installed(name) and name not in _broken]


@functools.cache
def loads(name: str) -> bool:
    """Whether an installed runtime can be imported; that is done here."""
    try:
        with quiet_load():
            importlib.import_module(f"device_agent.runtime.{_MODULES[name]}")
    except Exception:  # a broken installation raises anything (ImportError, OSError of a library, AttributeError); to us it is absent
        _broken.add(name)
        return False
    return True


def open_runtime(runtime: str, graph: bytes) -> Session:
    """Load a graph whose bytes are already verified.

    Args:
        runtime: `onnxruntime` or `litert`.
        graph: The graph's bytes.

    Raises:
        ArtifactError: The runtime refuses the graph, or its inputs and outputs are not what a bundle promises.
        MissingPartError: The runtime is not installed.
    """
    if runtime not in RUNTIMES:
        raise ArtifactError(f"runtime {runtime!r} is unknown; this agent knows {', '.join(RUNTIMES)}; upgrade it")
    if runtime not in available_runtimes() or not loads(runtime):
        extra = "onnx" if runtime == "onnxruntime" else "tflite"
        raise MissingPartError(f"the runtime {runtime} is not installed: pip install 'edgefleet[{extra}]'")
    if runtime == "onnxruntime":
        from device_agent.runtime.onnx import OnnxSession

        return OnnxSession(graph)
    from device_agent.runtime.tflite import LiteSession

    return LiteSession(graph)


def row_shape(shape: Sequence[object], what: str) -> tuple[int, ...]:
    """Shape of one row, from that of a graph's input: [n, features] or [n, window rows, features], n whatever it is.

    Raises:
        ArtifactError: Of another rank, or with a size that is not fixed.
    """
    sizes = tuple(int(size) for size in shape[1:] if isinstance(size, int | np.integer) and size > 0)
    if len(shape) not in (2, 3) or len(sizes) != len(shape) - 1:
        raise ArtifactError(f"the graph takes {what[:120]}; a bundle's graph takes one float32 [n, features] or [n, rows, features]")
    return sizes


@functools.cache
def _is_installed(name: str) -> bool:
    return any(importlib.util.find_spec(package) is not None for package in _PACKAGES[name])


def load_error(runtime: str, graph: bytes, err: Exception) -> ArtifactError:
    """A foreign load error as ours; texts of runtimes can be thousands of lines, so they are cut."""
    text = " ".join(str(err).split())[:MAX_ERROR_CHARACTERS]
    return ArtifactError(f"{runtime} cannot load a graph of {len(graph)} bytes: {text or type(err).__name__}; convert or fetch it again")
