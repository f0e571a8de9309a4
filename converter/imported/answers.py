"""The answers of an imported .onnx or .tflite file to a package's rows: what every variant of it is compared with.

The untouched file is run by ONNX Runtime or LiteRT, as many rows at a time as it takes. What its last softmax or sigmoid is computed of,
which becomes the margin, is read from a copy that has it as one more output. Called in a child process only.
"""

from collections.abc import Callable
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from converter.calibrators import calibrate
from converter.imported.onnx_file import open_onnx
from converter.imported.signature import columns_of, graph_signature, row_sides
from converter.imported.tflite_file import keeps_state, open_tflite, scale_of
from converter.originals import Original
from edgefleet.errors import VerdictError
from edgefleet.package import ModelPackage
from edgefleet.signature import Signature, Tensor

CALIBRATOR_NAME: Final = "calibrator.json"
_ROWS_AT_ONCE: Final = 256
_LEAST_SHARE: Final = 1e-12
Floats = NDArray[np.float64]
# Rows in the file's own form and type -> (its output, what its last softmax or sigmoid reads, or None).
Run = Callable[[NDArray[Any]], tuple[Floats, Floats | None]]


def answers_of_graph(package: ModelPackage, x: NDArray[np.float32]) -> Original:
    """Answers to raw rows.

    Args:
        package: Whose model is an .onnx or .tflite file.
        x: [n, features] or [n, rows, features].

    Raises:
        VerdictError: The file cannot be called with a device's rows, or its answer to a row depends on the rows before it.
    """
    signature, content = graph_signature(package), package.read(package.index.model)
    run, batch = (_onnx if package.index.family == "onnx" else _tflite)(content, signature)
    z = package.steps().run(x)
    values = int(np.prod(z.shape[1:]))
    raw, end = _in_pieces(run, stored(z.reshape(len(z), *row_sides(signature, values)), signature.inputs[0]), batch)
    columns = columns_of(signature, len(package.index.classes), values)
    original = _meant(signature, raw.reshape(len(z), columns), None if end is None else end.reshape(len(z), columns), z)
    if CALIBRATOR_NAME not in package.index.files:
        return original
    document = msgspec.json.decode(package.read(CALIBRATOR_NAME), type=dict[str, Any])
    return Original(calibrate(document, original.probabilities), original.margin)


def stored(values: NDArray[np.float32], tensor: Tensor) -> NDArray[Any]:
    """Real values as the file's input stores them."""
    kind = np.dtype(tensor.dtype)
    if kind.kind == "f":
        return values.astype(kind)
    info = np.iinfo(kind)
    real = np.nan_to_num(values.astype(np.float64), nan=0.0) / (tensor.scale or 1.0) + tensor.zero_point
    return np.asarray(np.clip(np.round(real), info.min, info.max).astype(kind))


def check_memory(package: ModelPackage) -> None:
    """Ask the same row again behind others, where the file has tensors that outlive an answer.

    Raises:
        VerdictError: It is answered otherwise.
    """
    signature, content = graph_signature(package), package.read(package.index.model)
    if package.index.family != "tflite" or not keeps_state(open_tflite(content, signature).model):
        return
    run, batch = _tflite(content, signature)
    z = package.steps().run(package.rows("golden").x[:8])
    rows = stored(z.reshape(len(z), *row_sides(signature, int(np.prod(z.shape[1:])))), signature.inputs[0])
    first, again = _in_pieces(run, rows[:1], batch)[0], _in_pieces(run, np.concatenate([rows, rows[:1]]), batch)[0][-1:]
    if not np.array_equal(first, again, equal_nan=True):
        raise VerdictError(
            "the file keeps states from row to row (fused recurrent layers), so that a row's answer depends on the rows before it; "
            "export it with whole windows as rows"
        )


def _in_pieces(run: Run, rows: NDArray[Any], batch: int | None) -> tuple[Floats, Floats | None]:
    """As many rows at a time as the file takes; the last piece is filled up with its last row where the batch is fixed."""
    size = batch or _ROWS_AT_ONCE
    raws, ends = [], []
    for at in range(0, len(rows), size):
        piece = rows[at : at + size]
        lacking = size - len(piece) if batch else 0
        raw, end = run(np.concatenate([piece, np.repeat(piece[-1:], lacking, axis=0)]) if lacking else piece)
        raws.append(raw[: len(piece)])
        ends += [] if end is None else [end[: len(piece)]]
    return np.concatenate(raws), np.concatenate(ends) if ends else None


def _onnx(content: bytes, signature: Signature) -> tuple[Run, int | None]:
    import onnxruntime

    file = open_onnx(content, signature)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4

    def session(graph: bytes) -> Any:
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    plain, name = session(content), signature.inputs[0].name
    watched = session(_with_output(file.model, file.end)) if file.end else None

    def run(rows: NDArray[Any]) -> tuple[Floats, Floats | None]:
        value = plain.run([signature.output], {name: rows})[0]
        if isinstance(value, list):  # one dictionary a row: class to probability
            value = [[entry[key] for key in sorted(entry)] for entry in value]
        end = None if watched is None else np.asarray(watched.run([file.end], {name: rows})[0], np.float64)
        return np.asarray(value, np.float64), end

    return run, file.batch


def _with_output(model: Any, name: str) -> bytes:
    from onnx import helper

    wider = type(model)()
    wider.CopyFrom(model)
    del wider.graph.output[:]
    wider.graph.output.append(helper.make_empty_tensor_value_info(name))
    return bytes(wider.SerializeToString())


def _tflite(content: bytes, signature: Signature) -> tuple[Run, int | None]:
    from ai_edge_litert.interpreter import Interpreter

    from converter.to_tflite.flat import write_model

    file = open_tflite(content, signature)
    place = next(i for i, number in enumerate(file.model.subgraphs[0].outputs) if int(number) == file.raw)
    scales = scale_of(file.tensor(file.raw)), scale_of(file.tensor(file.end)) if file.end >= 0 else None
    batch = file.batch

    def opened(graph: bytes) -> Any:
        interpreter: Any = Interpreter(model_content=graph, num_threads=1)
        interpreter.allocate_tensors()
        return interpreter

    plain, watched, last = opened(content), None, 0
    if file.end >= 0:
        outputs = [*file.model.subgraphs[0].outputs, file.end]
        file.model.subgraphs[0].outputs, file.model.signatureDefs, last = outputs, None, len(outputs) - 1
        watched = opened(write_model(file.model))

    def asked(interpreter: Any, rows: NDArray[Any], output: int, scale: tuple[float, int] | None) -> Floats:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], rows)
        interpreter.invoke()
        value = np.asarray(interpreter.get_tensor(interpreter.get_output_details()[output]["index"]), np.float64)
        return value if scale is None else (value - scale[1]) * scale[0]

    def run(rows: NDArray[Any]) -> tuple[Floats, Floats | None]:
        return asked(plain, rows, place, scales[0]), None if watched is None else asked(watched, rows, last, scales[1])

    return run, batch


def _meant(signature: Signature, raw: Floats, end: Floats | None, z: NDArray[np.float32]) -> Original:
    """Probabilities and margin of the chosen output; in float64."""
    meaning, nothing = signature.meaning, np.empty((len(raw), 0))
    if meaning == "reconstruction":
        apart = np.square(raw - z.reshape(len(z), -1).astype(np.float64))
        return Original(nothing, apart.mean(axis=1, keepdims=True))
    if meaning in ("value", "score"):
        return Original(nothing, raw * signature.sign)
    if meaning == "logits":
        powers = np.exp(raw - raw.max(axis=1, keepdims=True))
        return Original(powers / powers.sum(axis=1, keepdims=True), raw)
    if meaning in ("sigmoid", "logit"):
        second = raw if meaning == "sigmoid" else 0.5 * (1 + np.tanh(0.5 * raw))
        odds = raw if meaning == "logit" else end if end is not None else _log(second) - _log(1 - second)
        return Original(np.concatenate([1 - second, second], axis=1), odds)
    positive = np.maximum(raw, 0)
    probabilities = positive / np.maximum(positive.sum(axis=1, keepdims=True), _LEAST_SHARE)
    return Original(probabilities, _log(probabilities) if end is None else end)


def _log(shares: Floats) -> Floats:
    return np.asarray(np.log(np.maximum(shares, _LEAST_SHARE)))
