"""Rows of one source, one by one: the last T of them are kept for a model that answers windows.

Until T rows came the answer is `WarmingUp`, as training has no window for the first rows of a group either. The answer is a function of the
last T rows only: a refused row, and a silence that the grid calls too long, empty the window, because what follows does not follow on it.
That costs as many answers as the windows around the refused row, which would all be refused for it.
A model of single rows answers each row. A model whose training rows were put on a grid has that grid in its manifest: then each row comes
with its time, and what is answered are grid points.
"""

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from device_agent.checks import RowChecks
from device_agent.row_window import RowWindow
from device_agent.score import Score
from edgefleet.errors import ConfigError, InputError, RowRejected
from edgefleet.grid import Grid
from edgefleet.manifest import Input, Manifest, Variant

if TYPE_CHECKING:
    from device_agent.scorer import Scorer

Row = Sequence[object] | Mapping[str, object] | NDArray[Any]


def row_inputs(manifest: Manifest) -> list[Input]:
    """The schema of rows that come to the grid; the manifest's own is that of what the grid gives."""
    if manifest.sampling is None:
        return manifest.inputs
    present = frozenset(manifest.sampling.present)
    return [msgspec.structs.replace(column, missing=column.name not in present) for column in manifest.inputs]


class WarmingUp:
    """The answer to a row of which the window is not full yet.

    Attributes:
        status: `warming_up`.
        warming_up: `warming_up, n of T`.
        digest: Sha256 of the graph that will answer.
    """

    __slots__ = ("digest", "warming_up")
    status: Final[Literal["warming_up"]] = "warming_up"

    def __init__(self, warming_up: str, digest: str) -> None:
        self.warming_up, self.digest = warming_up, digest

    def __repr__(self) -> str:
        return f"WarmingUp({self.warming_up!r}, digest={self.digest[:12]!r})"


StreamAnswer = Score | WarmingUp | RowRejected


def answers_of(stream: "RowStream", rows: Iterable[Row]) -> Iterator[StreamAnswer]:
    """The answer to each row, before the next is taken; a refusal is an answer."""
    for row in rows:
        try:
            yield stream.push(row)
        except RowRejected as err:
            yield err


def answers_at(stream: "RowStream", rows: Iterable[tuple[float, Row]]) -> Iterator[tuple[float, StreamAnswer]]:
    """Grid times and answers of rows with their times; a refused row is answered at its own time."""
    for time_s, row in rows:
        try:
            yield from stream.push_at(time_s, row)
        except RowRejected as err:
            yield time_s, err


class RowStream:
    """One source (one machine, one sensor); safe for threads, which then share the order in which their rows come.

    Made by `Scorer.stream`; a source keeps its stream over its whole life. Memory: 8 x T x F bytes.

    Attributes:
        window_rows: Rows T that one answer needs; 1 for a model of single rows.
    """

    def __init__(self, scorer: "Scorer", manifest: Manifest, variant: Variant, grid: Grid | Literal["manifest"] | None) -> None:
        if grid == "manifest":
            grid = None if manifest.sampling is None else manifest.sampling.grid(len(manifest.inputs))
        self._scorer, self.window_rows, self._grid = scorer, manifest.window_rows, grid
        self._draft = np.zeros((2, len(manifest.inputs)), np.float32)  # the second row takes what is clipped
        self._checks = RowChecks(manifest.inputs, self._draft, None if variant.takes_missing else variant.name)
        # What comes to the grid lacks only what a training row could lack; what the grid gives may lack anything that the model takes.
        self._arriving = self._checks if grid is None else RowChecks(row_inputs(manifest), self._draft)
        self._window = RowWindow(self.window_rows, len(manifest.inputs))
        self._lock = threading.Lock()

    def push(self, row: Row) -> Score | WarmingUp:
        """Answer one row that follows on the one before.

        Raises:
            RowRejected: The row is refused, and counted; the window begins anew.
            ArtifactError: The runtime failed on the window.
            ConfigError: The scorer is closed, or the stream has a grid, which needs `push_at`.
        """
        if self._grid is not None:
            raise ConfigError("this stream puts rows on a grid, which needs the time of each: call push_at(time_s, row)")
        with self._lock:
            if self.window_rows == 1:
                return self._scorer.score(row)
            return self._push(row)

    def push_at(self, time_s: float, row: Row) -> list[tuple[float, StreamAnswer]]:
        """Take a row that was measured at a time, and answer the grid points that are complete now.

        Args:
            time_s: Seconds since 1970; a row whose grid point is complete already is dropped, and counted as `late`.
            row: As `Scorer.score` takes it.

        Returns:
            Grid time in seconds and answer of each complete grid point, oldest first; often none.

        Raises:
            RowRejected: The row is refused, or its time is none, and it is counted; the grid goes on without it, as in training.
            ConfigError: The stream has no grid.
        """
        grid = self._grid
        if grid is None:
            raise ConfigError("this stream has no grid: call push(row), or make it with Scorer.stream(grid)")
        with self._lock:
            try:
                self._arriving.parse(row, 0)
                self._arriving.admit(0)
                late = grid.late
                complete = grid.push(time_s, self._draft[0].tolist())
                if grid.late > late:
                    self._scorer.reject("late")
            except RowRejected as err:
                self._scorer.reject(err.reason)
                raise
            except InputError as err:
                self._scorer.reject("type")
                raise RowRejected(None, time_s, "seconds since 1970", "type") from err
            return [(at, answer) for at, values in complete if (answer := self._answer(values)) is not None]

    def clear(self) -> None:
        """Forget the rows that were kept: the next one does not follow on them."""
        with self._lock:
            self._window.clear()

    def _answer(self, values: list[float] | None) -> StreamAnswer | None:
        """The answer to one grid point; None where the grid says that the window must be emptied."""
        if values is None:
            self._window.clear()
            return None
        try:
            row = np.array(values, np.float32)
            return self._scorer.score(row) if self.window_rows == 1 else self._push(row)
        except RowRejected as err:
            return err

    def _push(self, row: Row) -> Score | WarmingUp:
        try:
            self._checks.parse(row, 0)
        except RowRejected as err:
            self._window.clear()
            self._scorer.reject(err.reason)
            raise
        window = self._window.push(self._draft[0])
        try:
            if window is not None:
                return self._scorer.score(window)
            self._checks.admit(0)
        except RowRejected as err:
            self._window.clear()
            if window is None:
                self._scorer.reject(err.reason)  # with a full window the scorer has counted it
            raise
        return WarmingUp(self._window.warming_up, self._scorer.digest)
