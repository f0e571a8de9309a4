"""From a chunk of single rows to windows: each row of the chunk ends a window, waits for one, or is refused.

Without a grid a row ends its own window. On a grid a row that came completes the grid points before it, and stands for the first of them,
which is the one that the row before it was gathered for; later ones are values held over a silence, which no row stands for.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from device_agent.checks import RowChecks
from device_agent.doors.batch.rows import Chunk
from device_agent.doors.batch.windows import Windows
from device_agent.row_stream import row_inputs
from device_agent.scorer import Scorer
from edgefleet.errors import RowRejected

Matrix = NDArray[np.float32]


@dataclass
class Windowed:
    """What became of the rows of one chunk, by their place in it.

    Attributes:
        made: [m, T, F] windows to be answered.
        places: The row that each of them is the answer to.
        refused: Why a row, or the grid point that it completed, is no part of a window.
        waiting: What a row waits for: the rest of its window, or of its grid point.
        gathered: Rows that wait for their grid point.
        at: Time of the grid point that a row stands for.
    """

    made: list[Matrix] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    refused: dict[int, RowRejected] = field(default_factory=dict)
    waiting: dict[int, str] = field(default_factory=dict)
    gathered: set[int] = field(default_factory=set)
    at: dict[int, float] = field(default_factory=dict)


class Windowing:
    """Makes windows of the rows of a run.

    Args:
        scorer: The model that is to answer them.
        windows: Where rows are remembered.
    """

    def __init__(self, scorer: Scorer, windows: Windows) -> None:
        manifest, variant = scorer.bundle.manifest, scorer.variant
        no_missing = None if variant.takes_missing else variant.name
        self._windows, width = windows, len(manifest.inputs)
        self._row = np.zeros((2, width), np.float32)
        self._model = RowChecks(manifest.inputs, self._row, no_missing)
        gridded = windows.sampling is not None
        self._arriving = RowChecks(row_inputs(manifest), np.zeros((2, width), np.float32)) if gridded else self._model

    def of(self, chunk: Chunk) -> Windowed:
        """The windows that end in a chunk."""
        if isinstance(chunk.rows, np.ndarray):
            matrix, unparsed = self._arriving.parse_rows(chunk.rows)
        else:
            matrix, unparsed = self._arriving.parse_rows([() if isinstance(row, RowRejected) else row for row in chunk.rows])
            unparsed |= {i: row for i, row in enumerate(chunk.rows) if isinstance(row, RowRejected)}
        _, refused = self._arriving.admit_rows(matrix)
        found = Windowed(refused={**refused, **unparsed})  # a row that did not parse is NaN, which admit would call missing
        for i, row in enumerate(matrix):
            group, time_s = chunk.groups[i] if chunk.groups else "", chunk.times[i] if chunk.times else None
            if self._windows.sampling is not None:
                if i not in found.refused:
                    self._gather(i, row, group, time_s or 0.0, found)
            elif i in found.refused:
                self._windows.broken(group)
            else:
                self._push(i, row, group, time_s, found)
        return found

    def _push(self, place: int, row: Matrix, group: str, time_s: float | None, found: Windowed) -> None:
        try:
            window = self._windows.push(row, group, time_s)
        except RowRejected as err:
            found.refused[place] = err
            return
        if window is None:
            found.waiting[place] = self._windows.waiting(group)
        else:
            found.made.append(window.copy())
            found.places.append(place)

    def _gather(self, place: int, row: Matrix, group: str, time_s: float, found: Windowed) -> None:
        try:
            complete = self._windows.gather(row, group, time_s)
        except RowRejected as err:
            found.refused[place] = err
            return
        if not complete:
            found.gathered.add(place)
            found.waiting[place] = "gathered, the grid point is not complete"
            return
        found.at[place] = complete[0][0]
        self._enter(place, complete[0][1], group, found)
        for _, values in complete[1:]:
            self._enter(None, values, group, found)

    def _enter(self, place: int | None, values: list[float] | None, group: str, found: Windowed) -> None:
        """Put one grid row into its group's window; `place` is the row that stands for it, None for none."""
        if values is None:
            self._windows.broken(group)
            return
        self._row[0] = values
        try:
            self._model.admit(0)
        except RowRejected as err:
            self._windows.broken(group)
            if place is not None:
                found.refused[place] = err
            return
        if place is None:
            self._windows.push(self._row[0], group)
        else:
            self._push(place, self._row[0], group, None, found)
