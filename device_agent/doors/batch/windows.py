"""Single rows on their way to a model of windows: each group (machine) has its own last rows, and a gap empties them.

A window is T consecutive good rows of one group. A refused row is a gap as silence is: what follows it waits for T rows again, because no
answer may stand on rows that did not follow each other. A line that cannot be read tells no group, and ends no window.
Memory: 8 x T x F bytes a group, 16 MiB in all.
Where the manifest has a grid, each group has its own: a row is gathered for its grid point, and completes those before it.
"""

import base64
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from device_agent.row_window import RowWindow
from edgefleet.errors import InputError, RowRejected
from edgefleet.grid import Grid, GridRow, Sampling

Matrix = NDArray[np.float32]
MAX_GROUPS: Final = 10_000
_MAX_BYTES: Final = 16 * 1024 * 1024


class KeptGroup(msgspec.Struct, array_like=True):
    """A group as it is kept in a journal.

    Attributes:
        last_s: Time of the last row.
        rows: Float32 bytes of the last rows, in base64.
        grid: Float64 bytes of `Grid.kept`, in base64; "" without one.
    """

    last_s: float
    rows: str
    grid: str = ""


Kept = dict[str, KeptGroup]


class Windows:
    """The last rows of every group.

    Args:
        window_rows: Rows T of a window.
        features: Values F of a row.
        max_gap_s: Longest time between two rows of a window, None for any; a step back in time always is a gap where times are known.
        sampling: The grid on which rows are gathered first, None where they are taken as they come.
    """

    def __init__(self, window_rows: int, features: int, max_gap_s: float | None = None, sampling: Sampling | None = None) -> None:
        self.shape, self.sampling = (window_rows, features), sampling
        self._max_gap_s = max_gap_s
        self._grids: dict[str, Grid] = {}
        self._groups: dict[str, RowWindow] = {}
        self._last: dict[str, float] = {}
        self._limit = max(1, min(MAX_GROUPS, _MAX_BYTES // (8 * window_rows * features)))

    def push(self, row: Matrix, group: str = "", time_s: float | None = None) -> Matrix | None:
        """Add a good row [F]; the window [T, F] that ends with it, None while it is warming up.

        Raises:
            RowRejected: One group more than fit.
        """
        window = self._of(group)
        if time_s is not None:
            last = self._last.get(group)
            if last is not None and not 0 <= time_s - last <= (float("inf") if self._max_gap_s is None else self._max_gap_s):
                window.clear()
            self._last[group] = time_s
        return window.push(row)

    def gather(self, row: Matrix, group: str, time_s: float) -> list[GridRow]:
        """Put a good row [F] on its group's grid; the grid rows that are complete now, of which the first was gathered from rows.

        Raises:
            RowRejected: Its grid point is complete already, its time is none, or one group more than fit.
        """
        assert self.sampling is not None  # noqa: S101  # the caller asks for it
        self._of(group)
        grid = self._grids.get(group)
        if grid is None:
            grid = self._grids[group] = self.sampling.grid(self.shape[1])
        late = grid.late
        try:
            complete = grid.push(time_s, row.tolist())
        except InputError as err:
            raise RowRejected(self.sampling.time, time_s, "seconds since 1970", "type") from err
        if grid.late > late:
            raise RowRejected(self.sampling.time, time_s, "a time whose grid point was not answered before; sort the rows by time", "late")
        return complete

    def broken(self, group: str) -> None:
        """A row of the group was refused: what comes next does not follow what came before."""
        if (window := self._groups.get(group)) is not None:
            window.clear()

    def waiting(self, group: str) -> str:
        """`warming_up, n of T`."""
        return self._groups[group].warming_up

    def keep(self) -> Kept:
        """All that is known, for a journal."""
        grids = {group: _text(grid.kept()) for group, grid in self._grids.items()}
        return {
            group: KeptGroup(self._last.get(group, 0.0), _text(window.kept()), grids.get(group, ""))
            for group, window in self._groups.items()
        }

    def restore(self, kept: Kept, timed: bool) -> None:
        """Go on from a journal.

        Raises:
            InputError: It holds other rows than this model's.
        """
        for group, one in kept.items():
            values = np.frombuffer(base64.b64decode(one.rows), np.float32)
            if len(values) % self.shape[1] or len(values) > self.shape[0] * self.shape[1]:
                raise InputError(f"the journal keeps {len(values)} values of group {group[:40]!r}, no rows of {self.shape[1]}; start anew")
            window = self._groups[group] = RowWindow(*self.shape)
            for row in values.reshape(-1, self.shape[1]):
                window.push(row)
            if timed:
                self._last[group] = one.last_s
            if one.grid and self.sampling is not None:
                self._grids[group] = self.sampling.grid(self.shape[1])
                self._grids[group].restore(np.frombuffer(base64.b64decode(one.grid), np.float64))

    def _of(self, group: str) -> RowWindow:
        """A group's window; RowRejected for one group more than fit."""
        window = self._groups.get(group)
        if window is None:
            if len(self._groups) >= self._limit:
                raise RowRejected(None, f"group {group[:40]!r}", f"at most {self._limit} groups of rows in one run", "count")
            window = self._groups[group] = RowWindow(*self.shape)
        return window


def _text(values: NDArray[np.generic]) -> str:
    return base64.b64encode(values.tobytes()).decode()
