"""The signature of a package with an imported model (`edgefleet.signature`), and how rows and answers of its graph are laid out."""

import numpy as np

from edgefleet.errors import ArtifactError, VerdictError
from edgefleet.package import ModelPackage
from edgefleet.signature import SIGNATURE_NAME, Signature, parse_signature


def signature_of(package: ModelPackage) -> Signature | None:
    """The package's signature; None where it has none, because the trainer made its model.

    Raises:
        ArtifactError: Damaged.
    """
    if SIGNATURE_NAME not in package.index.files:
        return None
    return parse_signature(package.read(SIGNATURE_NAME))


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
    if known == 0 or (unknown == 0 and known != values) or unknown > 1 or (unknown == 1 and values % known):
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
