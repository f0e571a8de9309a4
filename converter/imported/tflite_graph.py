"""An imported TFLite file with our ends: `inputs` [n, F] float32 in, `margin` and, for classifiers, `probabilities` out.

Its own operators are not touched. Integers at its ends are met with QUANTIZE and DEQUANTIZE. Our ends are written by TensorFlow as files of
their own and joined to it (`splice.py`). Where it takes one row at a time, the batch is opened if the opened file answers rows together as
it does one by one; else it stays one row at a time, which devices know.
"""

from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from converter.calibrators import parse_calibrator
from converter.imported.batches import Opening, first_that_works
from converter.imported.signature import columns_of, graph_signature, row_sides
from converter.imported.splice import Splice
from converter.imported.tflite_file import LiteFile, open_tflite
from converter.to_tflite.flat import operator_names
from converter.to_tflite.graph import piece_of
from converter.to_tflite.meanings import shares
from converter.to_tflite.probabilities import calibrated, pair
from converter.to_tflite.steps import run_in_tensorflow
from edgefleet.package import ModelPackage
from edgefleet.signature import Signature

CALIBRATOR_NAME: Final = "calibrator.json"


def wrapped_tflite(package: ModelPackage) -> bytes:
    """The file of a package whose model is a .tflite file, its cleaning steps in front of it.

    Raises:
        VerdictError: It cannot be wrapped; why.
        ArtifactError: A file of the package is damaged.
    """
    signature = graph_signature(package)
    file = open_tflite(package.read(package.index.model), signature)
    sides = row_sides(signature, int(np.prod(package.steps().output_shape)))
    front = _front(package, signature, sides)
    tail = _tail(package, signature, file, sides if front is None else [int(np.prod(sides))])

    def assembled(opening: Opening) -> bytes:
        return _assembled(file, package, front, tail, opening)

    return first_that_works(assembled, file.batch, package, _asked)


def _asked(content: bytes, x: NDArray[np.float32]) -> Any:
    """Margins of rows at once."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter: Any = Interpreter(model_content=content, num_threads=1)
    (details,) = interpreter.get_input_details()
    if len(x) != int(details["shape"][0]):
        interpreter.resize_tensor_input(details["index"], x.shape)
    interpreter.allocate_tensors()
    margin = interpreter.get_signature_runner().get_output_details()["margin"]["index"]
    interpreter.set_tensor(details["index"], x)
    interpreter.invoke()
    return np.array(interpreter.get_tensor(margin))


def _front(package: ModelPackage, signature: Signature, sides: list[int]) -> bytes | None:
    """Rows to the file's tensor (`model`), and as a row of numbers where the tail compares with it (`rows`); None: nothing to do."""
    import tensorflow as tf

    steps = package.steps()
    values = int(np.prod(sides))
    if steps.is_identity and sides == list(steps.output_shape):
        return None

    def front(inputs: Any) -> dict[str, Any]:
        cleaned = run_in_tensorflow(steps, inputs)
        # Not the same tensor twice: the file's own input takes the place of the first.
        found = {"model": tf.reshape(cleaned, (-1, *sides))}
        if signature.meaning == "reconstruction":
            found["rows"] = tf.reshape(cleaned, (-1, values))
        return found

    return piece_of(front, {"inputs": steps.input_shape})


def _tail(package: ModelPackage, signature: Signature, file: LiteFile, row: list[int]) -> bytes:
    """The file's output (`raw`), what its last softmax or sigmoid reads (`end`) and the row (`rows`, of shape `row`) to our outputs."""
    import tensorflow as tf

    index, meaning = package.index, signature.meaning
    classes = len(index.classes) if index.task == "classification" else 0
    values = int(np.prod(package.steps().output_shape))
    columns = columns_of(signature, classes, values)
    takes = {"raw": _sides(file, file.raw)} | ({"end": _sides(file, file.end)} if file.end >= 0 else {})
    takes |= {"rows": tuple(row)} if meaning == "reconstruction" else {}

    def tail(**given: Any) -> dict[str, Any]:
        raw = tf.reshape(given["raw"], (-1, columns))
        if meaning == "reconstruction":
            return {"margin": tf.reduce_mean(tf.square(raw - tf.reshape(given["rows"], (-1, columns))), axis=1, keepdims=True)}
        if meaning in ("value", "score"):
            return {"margin": raw * np.float32(signature.sign)}
        answers = _classified(raw, given.get("end"), columns)
        if CALIBRATOR_NAME in index.files:
            calibrator = parse_calibrator(msgspec.json.decode(package.read(CALIBRATOR_NAME)), classes)
            answers["probabilities"] = calibrated(calibrator, answers["margin"], answers["probabilities"])
        return answers

    def _classified(raw: Any, end: Any, columns: int) -> dict[str, Any]:
        answers = shares(raw, meaning)
        if end is not None:
            answers["margin"] = tf.reshape(end, (-1, columns))
            if meaning == "sigmoid" and not _is_stored(file):
                answers["probabilities"] = pair(answers["margin"])
        return answers

    return piece_of(tail, takes)


def _assembled(file: LiteFile, package: ModelPackage, front: bytes | None, tail: bytes, opening: Opening) -> bytes:
    splice = Splice(file.model)
    if opening == "mended":
        _mend(splice, file.batch)
    shape = [int(side) for side in package.steps().input_shape]
    stored, inputs = _is_stored_tensor(file, file.input), file.input
    rows = inputs
    if stored or front is not None:
        inputs = rows = splice.float_tensor([1, *shape], "inputs")
    if front is not None:
        target = splice.float_tensor([int(side) for side in file.tensor(file.input).shape], "front:model") if stored else file.input
        rows = splice.piece(front, {"inputs": inputs, "model": target}, front=True).get("rows", inputs)
    else:
        target = inputs
    if stored:
        splice.stored(target, file.input)
    known = {"raw": splice.real(file.raw), "rows": rows} | ({"end": splice.real(file.end)} if file.end >= 0 else {})
    outputs = splice.piece(tail, known, front=False)
    named: dict[str, int] = {name: outputs[name] for name in ("margin", "probabilities") if name in outputs}
    return splice.finished(inputs, shape, named, open_batch=opening != "one row")


def _mend(splice: Splice, batch: int) -> None:
    """Let reshapes to one row (a constant first side as large as the batch) take any number of rows."""
    from ai_edge_litert import schema_py_generated as schema

    kinds = operator_names(splice.model)
    for operator in splice.graph.operators:
        if kinds[operator.opcodeIndex] != "RESHAPE":
            continue
        options = operator.builtinOptions
        if len(operator.inputs) > 1 and int(operator.inputs[1]) >= 0:
            old = splice.graph.tensors[int(operator.inputs[1])]
            data = splice.model.buffers[old.buffer].data
            sides = np.frombuffer(bytes(data), "<i4") if data is not None and old.type == schema.TensorType.INT32 else np.zeros(0, "<i4")
            if len(sides) > 1 and int(sides[0]) == batch and -1 not in sides:
                operator.inputs = [int(operator.inputs[0]), splice.constant(np.array([-1, *sides[1:]], "<i4"))]
        if options is not None and options.newShape is not None and len(options.newShape) > 1:
            told = [int(side) for side in options.newShape]
            if told[0] == batch and -1 not in told:
                options.newShape = [-1, *told[1:]]


def _sides(file: LiteFile, number: int) -> tuple[int, ...]:
    return tuple(int(side) for side in file.tensor(number).shape[1:])


def _is_stored_tensor(file: LiteFile, number: int) -> bool:
    from ai_edge_litert import schema_py_generated as schema

    return bool(file.tensor(number).type != schema.TensorType.FLOAT32)


def _is_stored(file: LiteFile) -> bool:
    """Whether the file's answer is rounded to integers, which the logits alone would not show."""
    return _is_stored_tensor(file, file.raw) or _is_stored_tensor(file, file.end)
