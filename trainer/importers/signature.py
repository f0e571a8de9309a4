"""What a model file of foreign origin says of itself, and what goes to its child process; how it is called: `edgefleet.signature`."""

from typing import Any

import msgspec

from edgefleet.signature import Tensor


class Description(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a model file says of itself.

    Attributes:
        inputs: Its inputs; empty for scikit-learn.
        outputs: Its outputs; of scikit-learn the methods that it has.
        classes: Names of its classes as text, where the file knows them.
        columns: Names of the columns that it was fitted on, where the file knows them.
        features: Number of columns that it was fitted on, where the file knows it.
        family: See `trainer.candidates.fitted.Fitted.family`; also `onnx`, `tflite`, `pipeline`.
        versions: Library versions that opened it.
    """

    inputs: list[Tensor] = []
    outputs: list[Tensor] = []
    classes: list[str] | None = None
    columns: list[str] | None = None
    features: int | None = None
    family: str
    versions: dict[str, str] = {}


def plain(value: Any) -> dict[str, Any]:
    """A struct as plain values."""
    result: dict[str, Any] = msgspec.to_builtins(value)
    return result
