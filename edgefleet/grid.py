"""Rows that arrive at any time, put on a fixed grid: the same code replays the training rows and runs live on the device.

The value at grid time g is the last one that arrived in (g - step, g]; it stands for `hold` further grid points and is missing after that.
Every column has its own age. Nothing is interpolated: that needs the future or delays the answer. No clock is read: time is an argument.
Equal to pandas' `resample(step, label="right", closed="right", origin="epoch").last().ffill(limit=hold)`.
"""

import math
from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgefleet.errors import ConfigError, InputError

# Grid points of silence that are filled at most, when nothing else is declared: a clock that jumps must not fill the memory.
MAX_SILENCE: Final = 100_000
_UNITS_A_SECOND: Final = 1_000_000  # microseconds are integers: grid points do not drift, whatever the step

# (grid time in seconds, values), or None instead of values where the window of earlier rows must be emptied.
GridRow = tuple[float, list[float] | None]


class Sampling(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The grid that a model's training rows were put on; whoever asks the model puts live rows on the same one.

    Attributes:
        rate_s: Distance of grid points in seconds.
        hold: Grid points for which a value stands after its own; then it is missing.
        reset_after: A silence of more grid points empties the window; None is MAX_SILENCE.
        time: Column of the training data that said when a row was measured (seconds since 1970, or ISO 8601).
        group: Column that said which machine a row is of, each with a grid of its own; "" where all rows were of one.
        present: Inputs that a row must have to be put on the grid. On the grid itself every value may be missing.
    """

    rate_s: float
    hold: int = 0
    reset_after: int | None = None
    time: str = ""
    group: str = ""
    present: list[str] = []

    def grid(self, width: int) -> "Grid":
        """The grid of one source of rows of `width` values; ConfigError where a number is outside its range."""
        return Grid(width, self.rate_s, self.hold, self.reset_after)


class Grid:
    """One group's rows (one machine) on its grid.

    Attributes:
        late: Rows dropped because their grid point was closed already.
        resets: Silences longer than `reset_after`.

    Args:
        width: Columns of a row.
        step_s: Distance of grid points in seconds, at least 1e-6; they are multiples of it since 1970.
        hold: Grid points for which a value stands after its own.
        reset_after: Silences of more grid points than this empty the window; None is MAX_SILENCE.

    Raises:
        ConfigError: A number outside its range.

    Example:
        >>> grid = Grid(1, 1.0, hold=1)
        >>> grid.push(0.2, [5.0]), grid.push(0.9, [6.0])
        ([], [])
        >>> grid.push(3.1, [7.0])
        [(1.0, [6.0]), (2.0, [6.0]), (3.0, [nan])]
    """

    def __init__(self, width: int, step_s: float, hold: int = 0, reset_after: int | None = None) -> None:
        if not (math.isfinite(step_s) and round(step_s * _UNITS_A_SECOND) >= 1):
            raise ConfigError(f"window.rate_s is {step_s}; expected a number of seconds of at least 0.000001")
        if hold < 0 or (reset_after is not None and not 0 <= reset_after <= MAX_SILENCE):
            raise ConfigError(f"window.hold is {hold} and reset_after {reset_after}; expected at least 0, and at most {MAX_SILENCE}")
        self.late = self.resets = 0
        self._step = round(step_s * _UNITS_A_SECOND)
        self._hold, self._reset_after = hold, MAX_SILENCE if reset_after is None else reset_after
        self._values = [math.nan] * width
        self._age = [hold + 1] * width
        self._next: int | None = None

    def push(self, time_s: float, row: Sequence[float]) -> list[GridRow]:
        """Take a row, and return the grid rows that are complete now, oldest first.

        Args:
            time_s: When it was measured, in seconds since 1970.
            row: Values, NaN = missing: the last value of that column stands.

        Raises:
            InputError: Another number of values, or a time that is no number.
        """
        if len(row) != len(self._values):
            raise InputError(f"a row of {len(row)} values was pushed to a grid of {len(self._values)} columns")
        now = self._units(time_s)
        if self._next is None:
            self._next = self._point_after(now)
        if now <= self._next - self._step:
            self.late += 1
            return []
        done = self._close_before(now)
        for k, value in enumerate(row):
            if value == value:  # not NaN
                self._values[k], self._age[k] = float(value), -1
        return done

    def advance(self, time_s: float) -> list[GridRow]:
        """Grid rows that are complete at a time although nothing arrived; nothing before the first row."""
        return [] if self._next is None else self._close_before(self._units(time_s))

    def kept(self) -> NDArray[np.float64]:
        """[2 F + 3] all that it remembers; `restore` of another grid with the same settings goes on from there."""
        following = math.nan if self._next is None else float(self._next)
        return np.array([following, self.late, self.resets, *self._values, *self._age], np.float64)

    def restore(self, kept: NDArray[np.float64]) -> None:
        """Go on where another grid stood.

        Raises:
            InputError: It is of another number of columns.
        """
        width = len(self._values)
        if kept.shape != (2 * width + 3,):
            raise InputError(f"{kept.size} kept numbers are no grid of {width} columns, which has {2 * width + 3}; start anew")
        following, late, resets, *rest = kept.tolist()
        # Microseconds below 2^53 (the year 2255) are exact in float64.
        self._next = None if math.isnan(following) else int(following)
        self.late, self.resets = int(late), int(resets)
        self._values, self._age = rest[:width], [int(age) for age in rest[width:]]

    def _close_before(self, now: int) -> list[GridRow]:
        """Close every grid point before `now`: a row at a grid point itself belongs to it."""
        assert self._next is not None  # noqa: S101  # both callers see to it
        done: list[GridRow] = []
        if (now - self._next) // self._step > self._reset_after:
            done = [self._close(), (self._point_after(now) / _UNITS_A_SECOND, None)]
            self._age = [self._hold + 1] * len(self._age)
            self._next = self._point_after(now)
            self.resets += 1
        while now > self._next:
            done.append(self._close())
            self._next += self._step
        return done

    def _close(self) -> GridRow:
        assert self._next is not None  # noqa: S101  # see above
        self._age = [age + 1 for age in self._age]
        held = [value if age <= self._hold else math.nan for value, age in zip(self._values, self._age, strict=True)]
        return self._next / _UNITS_A_SECOND, held

    def _point_after(self, now: int) -> int:
        return -(-now // self._step) * self._step

    def _units(self, time_s: float) -> int:
        if not abs(time_s) < 1e12:  # also NaN
            raise InputError(f"the row's time is {time_s}; expected seconds since 1970")
        return round(time_s * _UNITS_A_SECOND)
