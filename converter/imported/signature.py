"""How an imported model is called: what signature.json of a package says; the trainer's `importers.signature` writes it."""

from typing import Final, Literal

import msgspec
import numpy as np

from edgefleet.errors import ArtifactError, VerdictError
from edgefleet.package import ModelPackage

SIGNATURE_NAME: Final = "signature.json"
Meaning = Literal["probabilities", "logits", "sigmoid", "logit", "value", "score", "reconstruction"]


class Tensor(msgspec.Struct, frozen=True, kw_only=True):
    """An input of a graph.

    Attributes:
        name: Its name.
        shape: Its shape; None where the graph leaves a side open.
        dtype: numpy's name of its element type; `text` for strings.
        scale: Of a quantized tensor: real value = scale * (stored - zero_point); 0: not quantized.
        zero_point: See `scale`.
    """

    name: str
    shape: list[int | None] = []
    dtype: str = "float32"
    scale: float = 0.0
    zero_point: int = 0


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    """How to call the model.

    Attributes:
        inputs: Its inputs; a single one takes the whole row.
        output: Name of the output that is read.
        meaning: What the output is: `probabilities` [n, classes], `logits` [n, classes], `sigmoid` or `logit` [n] or [n, 1] of the
            second class, `value`, anomaly `score`, or `reconstruction` of the input (its mean squared error is the score).
        columns: Input names, in raw column order.
        categories: Categories of each input, empty for numbers.
        table: Whether a scikit-learn model wants a table with named columns, and texts where there are categories.
        sign: -1 where the score is larger for ordinary rows.
    """

    inputs: list[Tensor] = []
    output: str = ""
    meaning: Meaning = "value"
    columns: list[str] = []
    categories: list[list[str]] = []
    table: bool = False
    sign: float = 1.0


def signature_of(package: ModelPackage) -> Signature | None:
    """The package's signature; None where it has none, because the trainer made its model.

    Raises:
        ArtifactError: Damaged.
    """
    if SIGNATURE_NAME not in package.index.files:
        return None
    try:
        return msgspec.json.decode(package.read(SIGNATURE_NAME), type=Signature)
    except msgspec.DecodeError as err:
        raise ArtifactError(f"{SIGNATURE_NAME}: {str(err)[:200]}; import the model again") from err


def graph_signature(package: ModelPackage) -> Signature:
    """The signature of a package whose model is an .onnx or .tflite file.

    Raises:
        ArtifactError: Missing or damaged.
        VerdictError: The graph does not take a whole row as one input of numbers.
    """
    signature = signature_of(package)
    if signature is None:
        raise ArtifactError(f"{package.folder}: {package.index.model!r} without {SIGNATURE_NAME} cannot be called; import the model again")
    inputs = signature.inputs
    texts = [tensor.name for tensor in inputs if tensor.dtype == "text"]
    if texts:
        raise VerdictError(f"the graph's input {texts[0][:60]!r} takes texts, devices give numbers; encode them in front of the model")
    if len(inputs) != 1:
        named = ", ".join(tensor.name for tensor in inputs[:8])
        raise VerdictError(f"the graph takes {len(inputs)} inputs ({named[:120]}), a device gives one row; export it with a single input")
    return signature


def row_sides(signature: Signature, values: int) -> list[int]:
    """Sides of one row inside the graph's input, so that they hold `values` numbers.

    Raises:
        VerdictError: They cannot.
    """
    shape = signature.inputs[0].shape
    sides = shape[1:] if shape else [None]
    known = int(np.prod([side for side in sides if side is not None], dtype=np.int64))
    unknown = sides.count(None)
    if (unknown == 0 and known != values) or unknown > 1 or (unknown == 1 and values % max(known, 1)):
        takes = "x".join("?" if side is None else str(side) for side in sides)
        raise VerdictError(f"the graph takes {takes} numbers a row, the package's rows have {values}; import it with its own columns")
    return [values // known if side is None else side for side in sides]


def columns_of(signature: Signature, classes: int, values: int) -> int:
    """Numbers that the chosen output holds for one row.

    Args:
        signature: Whose `meaning` is asked.
        classes: Of the package.
        values: Numbers of one row that the graph takes.
    """
    if signature.meaning == "reconstruction":
        return values
    return classes if signature.meaning in ("probabilities", "logits") else 1
