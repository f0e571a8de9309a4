"""Windows of rows on their way to the model: the checks of single rows, for every row of a window.

What comes in is [T, F]: an array, or T rows as `RowChecks` takes them (lists with None and texts, mappings by name), oldest first. A window
is refused when one of its rows would be; the message says which. Price: two comparisons of T x F values, as for one wide row.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_agent.checks import Matrix, RowChecks
from edgefleet.errors import RowRejected
from edgefleet.manifest import Input


class WindowChecks:
    """The checks of one bundle of windows over one ring; offers what `RowChecks` offers.

    Args:
        inputs: The manifest's inputs, in column order.
        window_rows: Rows T of a window, at least 2.
        ring: [slots + 1, T x F] float32; the last row is scratch for clipped windows.
        no_missing: Name of the variant when it takes no missing value, else None.
    """

    def __init__(self, inputs: list[Input], window_rows: int, ring: Matrix, no_missing: str | None = None) -> None:
        self.inputs, self.window_rows, self.features = inputs, window_rows, len(inputs)
        self._draft = np.zeros((window_rows + 1, self.features), np.float32)
        self._rows = RowChecks(inputs, self._draft, no_missing)
        self._whole = RowChecks(inputs * window_rows, ring, no_missing, self.features)
        self._ring, self._scratch_slot = ring, len(ring) - 1
        self._shape = (window_rows, self.features)

    def fits(self, window: object, slot: int) -> bool:
        """As `RowChecks.fits`, for float32 arrays [T, F]."""
        usual = type(window) is np.ndarray and window.shape == self._shape and window.flags.c_contiguous
        return usual and self._whole.fits(window.reshape(-1), slot)  # type: ignore[attr-defined]

    def parse(self, window: object, slot: int) -> None:
        """Write a window into ring row `slot`; as `RowChecks.parse`.

        Raises:
            RowRejected: For `count`, `type` or `category`.
        """
        if isinstance(window, np.ndarray) and window.shape == self._shape and window.dtype.kind in "fiub":
            with np.errstate(over="ignore"):  # beyond float32 is infinite, which `admit` refuses by name
                flat = np.ascontiguousarray(window, np.float32).reshape(-1)
            self._whole.parse(flat, slot)
            return
        for at, row in enumerate(self._rows_of(window)):
            try:
                self._rows.parse(row, at)
            except RowRejected as err:
                limit = f"{err.limit} (row {at + 1} of {self.window_rows})"
                raise RowRejected(err.feature, err.value, limit, err.reason) from err
        self._ring[slot] = self._draft[:-1].ravel()

    def admit(self, slot: int) -> int:
        """Judge a parsed window; as `RowChecks.admit`.

        Raises:
            RowRejected: For `infinite`, `missing` or `range`.
        """
        return self._whole.admit(slot)

    def parse_rows(self, windows: NDArray[Any] | Sequence[object]) -> tuple[Matrix, dict[int, RowRejected]]:
        """Windows [n, T, F] as one matrix [n, T x F]; refused ones are NaN there and have their reason in the dictionary."""
        if isinstance(windows, np.ndarray):
            return self._whole.parse_rows(windows.reshape(len(windows), -1))
        matrix = np.full((len(windows), self.window_rows * self.features), np.nan, np.float32)
        rejected: dict[int, RowRejected] = {}
        for i, window in enumerate(windows):
            try:
                self.parse(window, self._scratch_slot)
                matrix[i] = self._ring[self._scratch_slot]
            except RowRejected as err:
                rejected[i] = err.kept()
        return matrix, rejected

    def admit_rows(self, matrix: Matrix) -> tuple[Matrix, dict[int, RowRejected]]:
        """What the model may be given of parsed windows [n, T x F], and why others may not; as `RowChecks.admit_rows`."""
        return self._whole.admit_rows(matrix)

    def _rows_of(self, window: object) -> Sequence[object]:
        expected = f"{self.window_rows} rows of {self.features} values, oldest first"
        if isinstance(window, str | bytes) or not isinstance(window, Sequence | np.ndarray):
            raise RowRejected(None, type(window).__name__, expected, "type")
        if getattr(window, "ndim", 2) != 2:
            raise RowRejected(None, f"array of shape {getattr(window, 'shape', ())}", expected, "count")
        if len(window) != self.window_rows:
            raise RowRejected(None, f"{len(window)} rows", expected, "count")
        return window  # type: ignore[return-value]  # an array of two dimensions is a sequence of rows
