"""What an exact explainer needs of the cleaning steps in front of a model: the steps themselves, and back from columns to inputs."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefleet.errors import VerdictError
from edgefleet.steps import Steps


def cleaning_arrays(steps: Steps, columns: int) -> dict[str, NDArray[Any]]:
    """Arrays of the explainer file that put the steps in front; none where there are none.

    The device cleans the row with the very steps that the graph holds, explains the cleaned columns, and sums what derives from one raw
    input (one-hot columns, indicators, lags, window statistics) into it: `Steps.sources` names it for every cleaned value, and no step
    mixes two inputs, so the sum is exact.

    Args:
        steps: Of the package.
        columns: Columns that the model takes.

    Raises:
        VerdictError: The steps give another number of columns.
    """
    if len(steps.sources) != columns:
        raise VerdictError(f"the model takes {columns} columns, its cleaning steps give {len(steps.sources)}; train again")
    if steps.is_identity and len(steps.input_shape) == 1:
        return {}
    return {"steps": np.frombuffer(steps.to_json(), np.uint8)}
