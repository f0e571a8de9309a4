"""Of which row of a window each cleaned value is: known where it derives from one raw value, as behind impute, scale and one-hot.

Columns that several rows make (lags, statistics of the window) have no row of their own; then nobody says when something moved the margin.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgefleet.steps import Op, Steps

Places = NDArray[np.int64]

_NONE: Final = -1  # a constant derives from no raw value
_MANY: Final = -2


def window_rows_of(steps: Sequence[Steps]) -> Places | None:
    """[C] row (0 is the oldest) of each cleaned value, in row-major order.

    Args:
        steps: Lists of steps in front of a model, the first first.

    Returns:
        None where rows are no windows, or a value derives from several raw values or from none.
    """
    if not steps or len(steps[0].input_shape) != 2:
        return None
    inputs = steps[0].input_shape[1]
    found = np.arange(steps[0].input_shape[0] * inputs)
    for one in steps:
        places = _places(one.ops)
        if (places < 0).any():
            return None
        found = found[places]
    return found // inputs


def _places(ops: Sequence[Op]) -> Places:
    """[C] place of the raw value that each value of the result derives from, `_NONE` or `_MANY`."""
    results: list[Places] = []
    for op in ops:
        results.append(_one(op, [results[i] for i in op.args]))
    return results[-1].ravel()


def _one(op: Op, operands: list[Places]) -> Places:
    if op.kind == "input":
        return np.arange(int(np.prod(op.shape))).reshape(op.shape)
    if op.kind == "const":
        return np.full(op.shape, _NONE)
    if op.kind == "take":
        return operands[0][..., list(op.numbers)]
    if op.kind == "rows":
        return operands[0][op.numbers[0] : op.numbers[1]]
    if op.kind == "reshape":
        return operands[0].reshape(op.numbers)
    if op.kind in ("concat", "stack"):
        return np.concatenate(operands, axis=-1 if op.kind == "concat" else 0)
    found = np.broadcast_to(operands[0], op.shape)
    for other in operands[1:]:
        found = np.where(found == _NONE, other, np.where((other == _NONE) | (other == found), found, _MANY))
    return found
