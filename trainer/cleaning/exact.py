"""Functions that runtimes round differently, built from primitives that they round alike.

Reference: Tang, 1990, "Table-driven implementation of the logarithm function in IEEE floating-point arithmetic": reduction by a table.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgefleet.steps import Trace

_OCTAVE: Final = 8  # table intervals for each doubling
_LOG_OCTAVES: Final = 40
_ROOT_OCTAVES: Final = 60
LOG_LIMIT: Final = np.float32(2.0**_LOG_OCTAVES)
SMALLEST_ROOT: Final = np.float32(2.0**-_ROOT_OCTAVES)


def log1p(trace: Trace, x: int) -> int:
    """ln(1 + x) for 0 <= x < 2^40; below and above it stays at the ends. Absolute error at most 2e-6, never falling; NaN stays NaN."""
    edges = np.array([2.0**octave * (1 + j / _OCTAVE) for octave in range(_LOG_OCTAVES) for j in range(_OCTAVE)])
    middles = np.append(1.0, (edges + np.append(edges[1:], 2.0**_LOG_OCTAVES))[1:] / 2)
    inverse = (1 / middles).astype(np.float32)
    inside = clip(trace, x, np.float32(0), np.nextafter(LOG_LIMIT, np.float32(0)))
    m = trace.add(inside, np.float32(1))
    interval = trace.count_le(m, edges[1:])
    r = trace.sub(trace.mul(m, trace.lookup(interval, inverse)), np.float32(1))
    series = trace.add(trace.mul(r, np.float32(1 / 5)), np.float32(-1 / 4))
    for coefficient in (1 / 3, -1 / 2):
        series = trace.add(trace.mul(series, r), np.float32(coefficient))
    rest = trace.add(r, trace.mul(trace.mul(r, r), series))
    return trace.add(trace.lookup(interval, -np.log(inverse.astype(np.float64))), rest)


def sqrt(trace: Trace, x: int) -> int:
    """Square root for 2^-60 <= x < 2^60 within one unit in the last place; 0 below, the root of 2^60 above; NaN stays NaN."""
    edges = np.array([2.0**octave * (1 + j / _OCTAVE) for octave in range(-_ROOT_OCTAVES, _ROOT_OCTAVES) for j in range(_OCTAVE)])
    guess = 1 / np.sqrt((edges + np.append(edges[1:], 2.0**_ROOT_OCTAVES)) / 2)
    inside = clip(trace, x, np.float32(0), np.float32(2.0**_ROOT_OCTAVES))
    r = trace.lookup(trace.count_le(inside, edges[1:]), guess)
    half = trace.mul(inside, np.float32(0.5))
    for _ in range(2):  # Newton's iteration for 1 / sqrt(x) needs no division
        r = trace.mul(r, trace.sub(np.float32(1.5), trace.mul(trace.mul(half, r), r)))
    root = trace.mul(inside, r)
    error = trace.sub(inside, trace.mul(root, root))
    better = trace.add(root, trace.mul(trace.mul(error, np.float32(0.5)), r))
    return trace.where(trace.lt(inside, SMALLEST_ROOT), np.float32(0), better)


def clip(trace: Trace, x: int, low: np.float32 | NDArray[np.float32], high: np.float32 | NDArray[np.float32]) -> int:
    """To [low, high] by two selects: Min and Max of NaN differ between runtimes, selects keep it."""
    above = trace.where(trace.lt(x, low), low, x)
    return trace.where(trace.lt(high, above), high, above)


def halving(trace: Trace, x: int, combine: Callable[[int, int], int]) -> int:
    """Reduce the rows of a window [T, ...] to one in a fixed tree, so that every runtime and batch size adds in the same order."""
    while (t := trace.shape(x)[0]) > 1:
        half = t // 2
        joined = combine(trace.rows(x, 0, half), trace.rows(x, half, 2 * half))
        x = trace.stack([joined, trace.rows(x, 2 * half, t)]) if t % 2 else joined
    return x


def fill_forward(trace: Trace, x: int) -> int:
    """Missing values of a window take the last value before them, in log2(T) selects; leading ones stay missing."""
    t, reach = trace.shape(x)[0], 1
    while reach < t:
        earlier = trace.stack([trace.rows(x, 0, reach), trace.rows(x, 0, t - reach)])
        x = trace.where(trace.isnan(x), earlier, x)
        reach *= 2
    return x
