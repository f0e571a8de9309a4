"""Which values enter a coalition together: each input its own, but for images (patches) and windows (channels x time segments)."""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgefleet.players import MAX_PLAYERS, segmented, segments_for

MAX_PATCHES: Final = MAX_PLAYERS


def players_for(shape: Sequence[int], inputs: int, window_rows: int = 1, segments: int | None = None) -> NDArray[np.intp]:
    """[F] player of each input, or [T, F] player of each value of a window in more than one time segment.

    Of a window, player = segment x F + channel, the oldest segment first (`edgefleet.players`); with one segment a channel is one player
    with all its values, which is [F].

    Args:
        shape: Of one row's tensor as the package says: (height, width) or (height, width, channels) for an image that is flattened in this
            order, anything else for plain columns.
        inputs: Number of raw inputs F.
        window_rows: Rows T of a window; above 1, the inputs are its channels.
        segments: Time segments of a window; None takes as many as `MAX_PATCHES` players allow.

    >>> players_for((4, 4), 16).reshape(4, 4).tolist() == np.arange(16).reshape(4, 4).tolist()
    True
    >>> players_for((8, 8), 64).reshape(8, 8)[:2, :4].tolist()
    [[0, 0, 1, 1], [0, 0, 1, 1]]
    >>> players_for((5, 2), 2, window_rows=5, segments=2).tolist()
    [[0, 1], [0, 1], [0, 1], [2, 3], [2, 3]]
    """
    if window_rows > 1:
        cut = segments_for(window_rows, inputs) if segments is None else segments
        return segmented(window_rows, inputs, cut) if cut > 1 else np.arange(inputs)
    if len(shape) not in (2, 3) or math.prod(shape) != inputs or inputs <= MAX_PATCHES:
        return np.arange(inputs)
    height, width, channels = int(shape[0]), int(shape[1]), int(shape[2]) if len(shape) == 3 else 1
    side = 1
    while math.ceil(height / side) * math.ceil(width / side) > MAX_PATCHES:
        side += 1
    across = math.ceil(width / side)
    patches = (np.arange(height)[:, None] // side) * across + np.arange(width)[None, :] // side
    return np.repeat(patches.ravel(), channels)
