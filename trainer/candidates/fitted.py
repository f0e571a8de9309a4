"""What every candidate hands back."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Predict = Callable[[NDArray[np.float32]], NDArray[np.float64]]


@dataclass(frozen=True)
class Fitted:
    """A fitted model and its file.

    Attributes:
        name: Candidate name.
        family: `forest` or `keras`, for the converter.
        margin_kind: What the margin of its graph is.
        model: File name in the package.
        content: Bytes of that file; equal training gives equal bytes.
        predict: x [n, F] float32 to probabilities [n, classes] float64.
        parameters: Settings and sizes, for the record.
        versions: Libraries that made it.
    """

    name: str
    family: str
    margin_kind: str
    model: str
    content: bytes
    predict: Predict
    parameters: dict[str, Any]
    versions: dict[str, str]
