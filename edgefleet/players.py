"""Which values of a row enter a coalition together, as explainer files say it: the converter writes this, the device reads it.

Without a time axis: [F], the player of each input, 0 .. P - 1; pixels of a patch share one. Of windows cut into time segments: [T, F], the
player of each value, numbered segment x F + channel, the oldest segment first; so `divmod(player, F)` is (segment, channel).
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgefleet.errors import ArtifactError

# More players cost more evaluations and say less each.
MAX_PLAYERS: Final = 32
MAX_SEGMENTS: Final = 8

Indices = NDArray[np.intp]
Floats = NDArray[np.float64]


def segments_for(window_rows: int, inputs: int) -> int:
    """Time segments of a window: as many as `MAX_PLAYERS` channels x segments, `MAX_SEGMENTS` and its rows allow, at least 1.

    >>> [segments_for(rows, inputs) for rows, inputs in ((32, 4), (32, 3), (5, 1), (64, 20), (64, 100))]
    [8, 8, 5, 1, 1]
    """
    return max(1, min(MAX_SEGMENTS, window_rows, MAX_PLAYERS // max(1, inputs)))


def segmented(window_rows: int, inputs: int, segments: int) -> Indices:
    """[T, F] player of each value: contiguous segments whose lengths differ by at most one row.

    >>> segmented(5, 2, 2).tolist()
    [[0, 1], [0, 1], [0, 1], [2, 3], [2, 3]]
    """
    return segment_of_rows(window_rows, segments)[:, None] * inputs + np.arange(inputs)


def segment_of_rows(window_rows: int, segments: int) -> Indices:
    """[T] segment of each row of a window, the oldest first."""
    return np.arange(window_rows) * segments // window_rows


def rows_back(segment: Indices) -> tuple[tuple[int, int], ...]:
    """(oldest, newest) row of each segment, counted back from the window's newest row, which is 0.

    >>> rows_back(segment_of_rows(5, 2))
    ((4, 2), (1, 0))
    """
    ends = np.cumsum(np.bincount(segment))
    return tuple((int(len(segment) - first), int(len(segment) - end)) for first, end in zip([1, *(ends[:-1] + 1)], ends, strict=True))


def strongest_when(moved: Sequence[float], back: Sequence[tuple[int, int]]) -> str:
    """In words, which segment of one input did most of what the input did.

    Args:
        moved: Contribution of each segment.
        back: Its rows, from `rows_back`.

    >>> strongest_when([0.5, 2.0, -3.0], [(11, 8), (7, 4), (3, 0)])
    'strongest in the newest 4 rows'
    >>> strongest_when([0.5, 2.0, -1.0], [(11, 8), (7, 4), (3, 0)])
    'strongest 4-7 rows ago'
    """
    sign = 1.0 if sum(moved) >= 0 else -1.0
    oldest, newest = back[max(range(len(moved)), key=lambda i: sign * moved[i])]
    if newest == 0:
        return f"strongest in the newest {oldest + 1} rows" if oldest else "strongest in the newest row"
    return f"strongest {newest}-{oldest} rows ago" if oldest > newest else f"strongest {newest} row{'s' if newest > 1 else ''} ago"


def by_segment(values: Floats, inputs: int) -> Floats:
    """[.., S, F] of values [.., P] of the players of a window in segments."""
    return values.reshape(*values.shape[:-1], -1, inputs)


def players_of(players: NDArray[Any] | None, inputs: int) -> Indices:
    """[F] or [T, F] of an explainer file; None is one player for each input.

    Raises:
        ArtifactError: Neither one number for each input nor one for each value of a window; numbers with holes; a player of two channels,
            or segments that are not contiguous, oldest first, and the same for every channel.
    """
    if players is None:
        return np.arange(inputs)
    fits = players.ndim in (1, 2) and players.size > 0 and players.shape[-1] == inputs and players.dtype.kind == "i"
    if not fits or not (_whole(players) if players.ndim == 1 else _follows_segments(players)):
        of = f"{inputs} inputs" if players.ndim < 2 else f"{inputs} channels in time segments"
        raise ArtifactError(f"explainer: its players {list(players.shape)} do not fit {of}; convert again")
    return players.astype(np.intp)


def _whole(players: NDArray[Any]) -> bool:
    found = np.unique(players)
    return np.array_equal(found, np.arange(len(found)))


def _follows_segments(players: NDArray[Any]) -> bool:
    channels = players.shape[1]
    segment = players[:, 0].astype(np.int64) // channels
    steps = np.diff(segment, prepend=0)
    contiguous = segment[0] == 0 and bool(((steps == 0) | (steps == 1)).all())
    return contiguous and np.array_equal(players, segment[:, None] * channels + np.arange(channels))
