"""Cleaning as a flat list of exact primitives: the one form that the trainer, ONNX, TFLite and the device compute alike.

A cleaning step is traced once (`Trace`) to primitives that every runtime rounds the same way: add, sub, mul, compare, select, cast, gather,
concat and slice. There is no division, square root, logarithm or native reduction: those differ between runtimes in the last bits, and one
bit moves a row to the other side of a tree's split. Guarantee: finite values with 1e-30 <= |x| <= 1e15 and zero give equal values in all
readers, whatever the batch; the sign of a zero is not kept. NaN means missing; it passes selects and copies unchanged, and should not
outlive the first impute step, because LiteRT's built-in arithmetic turns it into a number.

Read next: `ops.py` (the primitives and their rules), then `reader.py` (the list itself and numpy's reader of it).
"""

from edgefleet.steps.ops import Op
from edgefleet.steps.reader import Steps
from edgefleet.steps.trace import Trace

__all__ = ["Op", "Steps", "Trace"]
