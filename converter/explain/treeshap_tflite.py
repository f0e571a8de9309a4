"""TreeSHAP as a TFLite graph, for programs with LiteRT and without numpy: `inputs` to `contributions` [n, F] or [n, F, K] and `base` [K].

The same arrays and the same order of operations as `device_agent.treeshap`, whose text says what is computed; built-in operators only, any
number of rows. Constants have a first axis of one, so that a single row meets no broadcasting. Runs in the TensorFlow child only.
"""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from converter.explain.behind import raw_inputs
from converter.explain.treeshap import Compiled
from converter.explain.treeshap_parts import Part, is_mirrored, parts_of
from converter.to_tflite.steps import run_in_tensorflow
from edgefleet.errors import VerdictError
from edgefleet.steps import Steps

# Above this the graph takes longer than programs wait that load one (about 30 ms a row): the arrays of the .npz, or sampling, remain.
MAX_GRAPH_SLOTS: Final = 200_000
_BLOCK_SLOTS: Final = 32_768
_MOST: Final = np.finfo(np.float32).max
_LEAST: Final = np.nextafter(-_MOST, np.float32(0))

Answer = Callable[[Any], dict[str, Any]]


def treeshap_in_tensorflow(compiled: Compiled, inputs: int, *steps: Steps, missing: bool) -> Answer:
    """The graph as a function of raw rows, for `to_tflite.graph.to_tflite`.

    Args:
        compiled: From `compile_leaves`.
        inputs: Raw inputs F.
        steps: Cleaning in front, the first first. Contributions are summed into the raw inputs.
        missing: Whether cleaned rows may hold missing values.

    Raises:
        VerdictError: More slots than `MAX_GRAPH_SLOTS`.
    """
    if compiled.slots > MAX_GRAPH_SLOTS:
        raise VerdictError(
            f"{compiled.slots} slots (features on all paths) exceed the limit of {MAX_GRAPH_SLOTS} of a TFLite graph: use the arrays of "
            "the .npz, or train fewer or shallower trees"
        )
    graph = _Graph(compiled, raw_inputs(steps, compiled.columns), inputs, missing)

    def answer(x: Any) -> dict[str, Any]:
        import tensorflow as tf

        for one in steps:
            x = run_in_tensorflow(one, x)
        return {"contributions": graph.contributions(tf.reshape(x, (-1, compiled.columns))), "base": graph.base(x)}

    return answer


class _Graph:
    def __init__(self, compiled: Compiled, sources: NDArray[np.intp], inputs: int, missing: bool) -> None:
        self._compiled, self._sources, self._inputs, self._missing = compiled, sources, inputs, missing
        self._mirrored = is_mirrored(compiled)
        self._columns = 1 if self._mirrored else len(compiled.base)
        self._width = inputs * self._columns
        # Sums side by side, added up at the end: float32 loses less than in one long sum.
        self._sums = max(1, min(16, 4096 // self._width))

    def base(self, x: Any) -> Any:
        """[K]; hangs on the rows by nothing but a zero, because a graph's output may not be a constant."""
        import tensorflow as tf

        first = tf.reshape(x, (-1,))[:1]
        return tf.cast(tf.less(first, first), tf.float32) + self._compiled.base.astype(np.float32)

    def contributions(self, x: Any) -> Any:
        """[n, F] or [n, F, K] of cleaned rows [n, C]."""
        import tensorflow as tf

        # The converter writes an infinite constant as the largest number: what is beyond it is brought back inside (-inf, t] and (t, inf].
        row = tf.where(tf.less(x, _LEAST), _LEAST, x)
        row = tf.where(tf.greater(row, _MOST), _MOST, row)
        places = self._places(row)
        parts = parts_of(self._compiled, self._mirrored, _BLOCK_SLOTS)
        sums = [self._added(row, places, part) for part in parts]
        if not sums:
            nothing = tf.reduce_sum(tf.cast(tf.less(x, x), tf.float32), axis=1, keepdims=True)
            flat = nothing + np.zeros((1, self._width), np.float32)
        else:
            total = tf.add_n(sums) if len(sums) > 1 else sums[0]
            apart = tf.reshape(total, (self._sums, self._width, -1))
            flat = tf.transpose(tf.reduce_sum(apart, axis=0))
        if self._mirrored:
            return tf.stack([-flat, flat], axis=2)
        return flat if len(self._compiled.base) == 1 else tf.reshape(flat, (-1, self._inputs, self._columns))

    def _places(self, row: Any) -> Any:
        """[n, C] place of each value among the categories, their number where it is none of them; None without categorical splits."""
        import tensorflow as tf

        categories = self._compiled.categories
        if not len(self._compiled.sets):
            return None
        equal = tf.cast(tf.equal(row[:, :, None], categories), tf.float32)
        ranks = (np.arange(len(categories)) - len(categories)).astype(np.float32)
        # At most one of them is equal, so the sum is exact.
        return tf.cast(tf.reduce_sum(equal * ranks, axis=2) + np.float32(len(categories)), tf.int32)

    def _inside(self, row: Any, places: Any, part: Part) -> Any:
        """[n, D, leaves] whether the row fulfils each step, as 0 or 1."""
        import tensorflow as tf

        leaves, _ = part
        shape = (-1, leaves.width, len(leaves.feat))
        feat = leaves.feat.T.ravel().astype(np.int32)
        picked = tf.reshape(tf.gather(row, feat, axis=1), shape)
        inside = tf.logical_and(tf.greater(picked, leaves.low.T[None]), tf.less_equal(picked, leaves.high.T[None]))
        category = leaves.category.T[None]
        if (category >= 0).any():
            width = len(self._compiled.categories) + 1
            place = tf.reshape(tf.gather(places, feat, axis=1), shape)
            held = tf.gather(self._compiled.sets.ravel(), place + (np.maximum(category, 0) * width).astype(np.int32))
            # A step of categories has the whole line as its interval, which only a missing value is not inside of.
            inside = tf.logical_and(inside, tf.logical_or(held, category < 0))
        if self._missing:
            gone = tf.not_equal(picked, picked)
            inside = tf.logical_or(inside, tf.logical_and(gone, leaves.missing.T[None]))
        return tf.cast(inside, tf.float32)

    def _added(self, row: Any, places: Any, part: Part) -> Any:
        """[sums * F * K, n] what these leaves give."""
        import tensorflow as tf

        leaves, column = part
        depth = leaves.width
        share = leaves.share.T[None]
        moved = self._inside(row, places, part) - share
        nodes, weights = np.polynomial.legendre.leggauss((depth + 1) // 2)
        value = np.ones(len(leaves.feat)) if column is None else leaves.value[np.arange(len(column)), column]
        total: Any = None
        for time, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
            factors = moved * np.float32(time) + share
            product = factors if depth == 1 else tf.reduce_prod(factors, axis=1, keepdims=True)
            term = (product * (value * weight).astype(np.float32)[None, None, :]) / factors
            total = term if total is None else total + term
        updates = moved * total
        raw = self._sources[leaves.feat.T]
        if column is None:
            updates = updates[:, :, None, :] * leaves.value.T[None, None]
            index = raw[:, None, :] * self._columns + np.arange(self._columns)[:, None]
        else:
            index = raw * self._columns + column[None, :]
        index = index + (np.arange(index.shape[-1]) % self._sums) * self._width
        flat = tf.transpose(tf.reshape(updates, (-1, index.size)))
        return tf.math.unsorted_segment_sum(flat, index.ravel().astype(np.int32), self._sums * self._width)
