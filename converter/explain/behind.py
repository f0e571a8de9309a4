"""What an exact explainer needs of the cleaning steps in front of a model: the steps themselves, and back from columns to inputs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converter.explain.window_rows import window_rows_of
from edgefleet.errors import VerdictError
from edgefleet.steps import Steps


def cleaning_arrays(steps: Sequence[Steps], columns: int) -> dict[str, NDArray[Any]]:
    """Arrays of the explainer file that put the steps in front; none where there are none.

    The device cleans the row with the very steps that the graph holds, explains the cleaned columns, and sums what derives from one raw
    input (one-hot columns, indicators, lags, window statistics) into it: `Steps.sources` names it for every cleaned value, and no step
    mixes two inputs, so the sum is exact. `rows` says of which row of a window each cleaned value is, where every one is of a single row.

    Args:
        steps: Lists of steps, each reading what the one before gives: the package's, and those of an imported pipeline.
        columns: Columns that the model takes.

    Raises:
        VerdictError: The steps give another number of columns.
    """
    if not steps:
        return {}
    if len(steps[-1].sources) != columns:
        raise VerdictError(f"the model takes {columns} columns, its cleaning steps give {len(steps[-1].sources)}; train again")
    if all(one.is_identity and len(one.input_shape) == 1 for one in steps):
        return {}
    arrays: dict[str, NDArray[Any]] = {f"steps_{place}": np.frombuffer(one.to_json(), np.uint8) for place, one in enumerate(steps)}
    rows = window_rows_of(steps)
    return arrays if rows is None else arrays | {"rows": rows}


def cleaned(steps: Sequence[Steps], rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """[n, columns] what the model behind the steps takes, in row-major order."""
    for one in steps:
        rows = one.run(rows)
    return rows.reshape(len(rows), -1)


def raw_inputs(steps: Sequence[Steps], columns: int) -> NDArray[np.intp]:
    """[columns] the raw input that each cleaned value derives from."""
    sources = np.arange(columns)
    for one in reversed(steps):
        sources = np.array(one.sources, np.intp)[sources]
    return sources
