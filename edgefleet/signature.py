"""How an imported model is called: signature.json of a package. The trainer's importers write it, trainer and converter call by it."""

from typing import Final, Literal

import msgspec

from edgefleet.errors import ArtifactError

SIGNATURE_NAME: Final = "signature.json"
Meaning = Literal["probabilities", "logits", "sigmoid", "logit", "value", "score", "reconstruction"]


class Tensor(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One input or output of a graph.

    Attributes:
        name: Its name.
        shape: Its shape; None where the graph leaves a side open.
        dtype: numpy's name of its element type; `text` for strings, `maps` for a list of dictionaries.
        scale: Of a quantized tensor: real value = scale * (stored - zero_point); 0: not quantized.
        zero_point: See `scale`.
    """

    name: str
    shape: list[int | None] = []
    dtype: str = "float32"
    scale: float = 0.0
    zero_point: int = 0


class Signature(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to call the model.

    Attributes:
        kind: File format.
        inputs: Its inputs; a single one takes the whole row, several take one column each, by name; none: a matrix or table.
        output: Name of the output that is read.
        meaning: What the output is: `probabilities` [n, classes], `logits` [n, classes], `sigmoid` or `logit` [n] or [n, 1] of the
            second class, `value`, anomaly `score`, or `reconstruction` of the input (its mean squared error is the score).
        classes: Class names in the order of the output's columns.
        columns: Input names, in raw column order.
        categories: Categories of each input, empty for numbers; texts are handed to models that want a table or strings.
        table: Whether a scikit-learn model wants a table with named columns.
        sign: -1 where the score is larger for ordinary rows.
    """

    kind: Literal["skops", "onnx", "tflite", "keras"]
    inputs: list[Tensor] = []
    output: str = ""
    meaning: Meaning = "value"
    classes: list[str] = []
    columns: list[str] = []
    categories: list[list[str]] = []
    table: bool = False
    sign: float = 1.0


def parse_signature(content: bytes) -> Signature:
    """Read signature.json.

    Raises:
        ArtifactError: Damaged.
    """
    try:
        return msgspec.json.decode(content, type=Signature)
    except (msgspec.DecodeError, UnicodeDecodeError) as err:
        raise ArtifactError(f"{SIGNATURE_NAME}: {str(err)[:200]}; import the model again") from err
