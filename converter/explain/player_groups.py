"""Which inputs enter a coalition together: each its own, but for images, whose pixels are grouped into patches."""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

# More players cost more evaluations and, in an image, say less each.
MAX_PATCHES: Final = 32


def players_for(shape: Sequence[int], inputs: int, window_rows: int = 1) -> NDArray[np.intp]:
    """[inputs] player of each input.

    Args:
        shape: Of one row's tensor as the package says: (height, width) or (height, width, channels) for an image that is flattened in this
            order, anything else for plain columns.
        inputs: Number of raw inputs.
        window_rows: Above 1, the inputs are channels of a window, and each is a player with all its values.

    >>> players_for((4, 4), 16).reshape(4, 4).tolist() == np.arange(16).reshape(4, 4).tolist()
    True
    >>> players_for((8, 8), 64).reshape(8, 8)[:2, :4].tolist()
    [[0, 0, 1, 1], [0, 0, 1, 1]]
    """
    if window_rows > 1 or len(shape) not in (2, 3) or math.prod(shape) != inputs or inputs <= MAX_PATCHES:
        return np.arange(inputs)
    height, width, channels = int(shape[0]), int(shape[1]), int(shape[2]) if len(shape) == 3 else 1
    side = 1
    while math.ceil(height / side) * math.ceil(width / side) > MAX_PATCHES:
        side += 1
    across = math.ceil(width / side)
    patches = (np.arange(height)[:, None] // side) * across + np.arange(width)[None, :] // side
    return np.repeat(patches.ravel(), channels)
