"""Training rows to windows: what the device's ring would hold at each row, and nothing that it could not.

The first rows of every group give no window, as a device that starts is warming up. With `rate_s` rows go through the device's own grid.
"""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgefleet.errors import ConfigError, InputError
from edgefleet.grid import Grid
from trainer.settings import Window

MAX_WINDOWS_BYTES: Final = 4 * 1024**3


def make_windows(
    x: NDArray[np.float32], group: NDArray[Any] | None, time: NDArray[np.float64] | None, window: Window
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Windows of consecutive rows of a group, in the order of their last rows.

    Args:
        x: [n, F] raw rows; those of a group in the order of time, groups may be mixed.
        group: [n] what rows share, or None: all rows are one group.
        time: [n] seconds; needed with `rate_s`.
        window: How long, how often, on which grid.

    Returns:
        [m, T, F] windows, oldest row first, and [m] the row whose label each window has: its last one; with `rate_s` the last one that
        arrived for its last grid point. Grid points for which nothing arrived have no label and end no window.

    Raises:
        ConfigError: Impossible settings, or the windows would need more than 4 GiB.
        InputError: Rows of a group are not in the order of time.
    """
    if window.rows < 1 or window.stride < 1:
        raise ConfigError(f"cleaning.window: rows is {window.rows} and stride {window.stride}; both are at least 1")
    if window.rate_s is not None and time is None:
        raise ConfigError(f"cleaning.window.rate_s is {window.rate_s}, but data.time names no column; name it or leave rate_s out")
    parts = list(_grid_windows(x, group, time, window) if window.rate_s is not None and time is not None else _plain(x, group, window))
    ends = np.concatenate([last for _, last in parts]) if parts else np.empty(0, np.int64)
    needed = len(ends) * window.rows * x.shape[1] * 4
    if needed > MAX_WINDOWS_BYTES:
        remedy = f"set cleaning.window.stride to {window.stride * -(-needed // MAX_WINDOWS_BYTES)} or more"
        raise ConfigError(f"{len(ends)} windows of {window.rows} rows need {needed} bytes, the limit is {MAX_WINDOWS_BYTES}; {remedy}")
    windows = np.concatenate([views for views, _ in parts]) if parts else np.empty((0, window.rows, x.shape[1]), np.float32)
    order = np.argsort(ends, kind="stable")
    return np.ascontiguousarray(windows[order], np.float32), ends[order]


def _groups(n: int, group: NDArray[Any] | None) -> list[NDArray[np.int64]]:
    """Row numbers of each group, in order."""
    if group is None:
        return [np.arange(n)]
    _, number = np.unique(group, return_inverse=True)
    order = np.argsort(number, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(number[order])) + 1) if n else []


def _plain(x: NDArray[np.float32], group: NDArray[Any] | None, window: Window) -> Iterator[tuple[NDArray[Any], NDArray[np.int64]]]:
    for rows in _groups(len(x), group):
        if len(rows) >= window.rows:
            yield _every(x[rows], window)[:: window.stride], rows[window.rows - 1 :: window.stride]


def _every(x: NDArray[np.float32], window: Window) -> NDArray[np.float32]:
    """[n - T + 1, T, F] view of all windows."""
    return np.lib.stride_tricks.sliding_window_view(x, window.rows, axis=0).transpose(0, 2, 1)


def _grid_windows(
    x: NDArray[np.float32], group: NDArray[Any] | None, time: NDArray[np.float64], window: Window
) -> Iterator[tuple[NDArray[Any], NDArray[np.int64]]]:
    for rows in _groups(len(x), group):
        if len(late := np.flatnonzero(np.diff(time[rows]) < 0)):
            here, before = int(rows[late[0] + 1]), int(rows[late[0]])
            raise InputError(
                f"row {here} has the time {time[here]}, before row {before} of its group ({time[before]}); sort the rows by time"
            )
        for values, last in _stretches(x, rows, time, window):
            ends = np.arange(window.rows - 1, len(values))
            labelled = ends[last[ends] >= 0][:: window.stride]
            if len(labelled):
                yield _every(values, window)[labelled - (window.rows - 1)], last[labelled]


def _stretches(
    x: NDArray[np.float32], rows: NDArray[np.int64], time: NDArray[np.float64], window: Window
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """Grid rows without a reset between them, and for each the last row that arrived for it, -1 where none did."""
    assert window.rate_s is not None  # noqa: S101  # the caller saw to it
    grid = Grid(x.shape[1], window.rate_s, window.hold, window.reset_after)
    values: list[list[float]] = []
    last: list[int] = []
    newest = -1
    for i in rows:
        for _, row in grid.push(float(time[i]), x[i].tolist()):
            if row is None:
                yield _stretch(values, last, x.shape[1])
                values, last = [], []
            else:
                values.append(row)
                last.append(newest)
            newest = -1
        newest = int(i)
    # The last grid point stays open: on the device it would be answered only when its time has passed.
    yield _stretch(values, last, x.shape[1])


def _stretch(values: list[list[float]], last: list[int], width: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    return np.array(values, np.float32).reshape(-1, width), np.array(last, np.int64)
