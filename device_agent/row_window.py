"""The last T rows of one source, put together to a window without copying it for each row.

A mirrored ring: every row is written at j and at j + T of [2T, F], so that the last T rows, oldest first, are always one contiguous view.
The answer is a function of those T rows only: after a gap the owner calls `clear`, and rows are waited for again.
Memory: 8 x T x F bytes.
"""

import numpy as np
from numpy.typing import NDArray

from device_agent.runtime import Matrix
from edgefleet.errors import ConfigError, InputError


class RowWindow:
    """Rows of one source (one machine, one sensor); not safe for threads.

    Args:
        window_rows: Rows T of a window, at least 1.
        features: Values F of a row, at least 1.

    Attributes:
        filled: Rows of the window that are there, 0 to T.
    """

    def __init__(self, window_rows: int, features: int) -> None:
        if window_rows < 1 or features < 1:
            raise ConfigError(f"a window of {window_rows} rows of {features} values is none; expected at least 1 of each")
        self.window_rows, self.features, self.filled = window_rows, features, 0
        self._next = 0
        self._rows: Matrix = np.zeros((2 * window_rows, features), np.float32)

    def push(self, row: NDArray[np.float32]) -> Matrix | None:
        """Add a row [F]; returns the window [T, F], or None while fewer than T rows came (`warming_up` tells how many).

        The window is a view that stays as it is until the next `push`.

        Raises:
            InputError: A row of another shape; nothing is added.
        """
        if row.shape != (self.features,):
            raise InputError(f"a row of shape {row.shape} is no part of a window of {self.features} values a row")
        self._rows[self._next] = self._rows[self._next + self.window_rows] = row
        self._next = (self._next + 1) % self.window_rows
        self.filled = min(self.filled + 1, self.window_rows)
        return self._rows[self._next : self._next + self.window_rows] if self.filled == self.window_rows else None

    @property
    def warming_up(self) -> str:
        """`warming_up, n of T` while there is no window, else ""."""
        return "" if self.filled == self.window_rows else f"warming_up, {self.filled} of {self.window_rows}"

    def kept(self) -> Matrix:
        """[filled, F] the rows that are there, oldest first, as a copy: pushed again, they bring another window to the same place."""
        end = self._next + self.window_rows
        return self._rows[end - self.filled : end].copy()

    def clear(self) -> None:
        """Forget all rows: what comes next does not follow them in time."""
        self.filled = self._next = 0
