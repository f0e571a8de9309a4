"""Single rows on their way to a model of windows: each group (machine) has its own last rows, and a gap empties them.

A window is T consecutive good rows of one group. A refused row is a gap as silence is: what follows it waits for T rows again, because no
answer may stand on rows that did not follow each other. A line that cannot be read tells no group, and ends no window.
Memory: 8 x T x F bytes a group, 16 MiB in all.
"""

import base64
from typing import Final

import numpy as np
from numpy.typing import NDArray

from device_agent.row_window import RowWindow
from edgefleet.errors import InputError, RowRejected

Matrix = NDArray[np.float32]
MAX_GROUPS: Final = 10_000
_MAX_BYTES: Final = 16 * 1024 * 1024

# A group's last rows as they are kept in a journal: time of the last one, float32 bytes in base64.
Kept = dict[str, tuple[float, str]]


class Windows:
    """The last rows of every group.

    Args:
        window_rows: Rows T of a window.
        features: Values F of a row.
        max_gap_s: Longest time between two rows of a window, None for any; a step back in time always is a gap where times are known.
    """

    def __init__(self, window_rows: int, features: int, max_gap_s: float | None = None) -> None:
        self.shape = (window_rows, features)
        self._max_gap_s = max_gap_s
        self._groups: dict[str, RowWindow] = {}
        self._last: dict[str, float] = {}
        self._limit = max(1, min(MAX_GROUPS, _MAX_BYTES // (8 * window_rows * features)))

    def push(self, row: Matrix, group: str = "", time_s: float | None = None) -> Matrix | None:
        """Add a good row [F]; the window [T, F] that ends with it, None while it is warming up.

        Raises:
            RowRejected: One group more than fit.
        """
        window = self._groups.get(group)
        if window is None:
            if len(self._groups) >= self._limit:
                raise RowRejected(None, f"group {group[:40]!r}", f"at most {self._limit} groups of rows in one run", "count")
            window = self._groups[group] = RowWindow(*self.shape)
        if time_s is not None:
            last = self._last.get(group)
            if last is not None and not 0 <= time_s - last <= (float("inf") if self._max_gap_s is None else self._max_gap_s):
                window.clear()
            self._last[group] = time_s
        return window.push(row)

    def broken(self, group: str) -> None:
        """A row of the group was refused: what comes next does not follow what came before."""
        if (window := self._groups.get(group)) is not None:
            window.clear()

    def waiting(self, group: str) -> str:
        """`warming_up, n of T`."""
        return self._groups[group].warming_up

    def keep(self) -> Kept:
        """All that is known, for a journal."""
        return {
            group: (self._last.get(group, 0.0), base64.b64encode(window.kept().tobytes()).decode())
            for group, window in self._groups.items()
        }

    def restore(self, kept: Kept, timed: bool) -> None:
        """Go on from a journal.

        Raises:
            InputError: It holds other rows than this model's.
        """
        for group, (last, text) in kept.items():
            values = np.frombuffer(base64.b64decode(text), np.float32)
            if len(values) % self.shape[1] or len(values) > self.shape[0] * self.shape[1]:
                raise InputError(f"the journal keeps {len(values)} values of group {group[:40]!r}, no rows of {self.shape[1]}; start anew")
            window = self._groups[group] = RowWindow(*self.shape)
            for row in values.reshape(-1, self.shape[1]):
                window.push(row)
            if timed:
                self._last[group] = last
