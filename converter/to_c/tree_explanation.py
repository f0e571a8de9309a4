"""Path-dependent TreeSHAP over the tables of `trees.py`: one walk over all nodes, four bytes more a node, no heap, a bounded stack.

With z the share of training rows that a path's steps on one column let through, and o whether the row passes them, a leaf adds
v (o_j - z_j) Int_0^1 prod_{i != j} (z_i (1 - t) + o_i t) dt to column j, as in `converter.explain.treeshap`. Here the product at every
Gauss-Legendre node t is kept on the way down, and the sum of v times the product over all leaves below on the way up; a step that asks a
column again takes back what the step above it claimed of these leaves. So a node costs a few multiplications a Gauss-Legendre node, however
long the paths are.

Reference:
    Yu, Bifet, Read, Xu (2022), Linear TreeShap, NeurIPS: values carried up the tree instead of paths enumerated.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from converter.to_c.text import Source, smallest
from converter.to_c.trees import Nodes, decision, tables

# Level 0 is the root's own: a step that everything passes.
_WALK: Final = """EXACT static void explain_tree(const float *x, uint32_t root, @VALUE_OF@float *contributions)
{
  uint32_t node[@LEVELS@];
  int column_of[@LEVELS@], before[@LEVELS@], done[@LEVELS@], d = 0;
  float z[@LEVELS@], o[@LEVELS@], product[@LEVELS@][@TIMES@], sum[@LEVELS@][@TIMES@];
  node[0] = root;
  column_of[0] = -1;
  before[0] = 0;
  done[0] = 0;
  z[0] = 1.0f;
  o[0] = 1.0f;
  for (int q = 0; q < @TIMES@; q++) {
    product[0][q] = @WEIGHT@[q];
    sum[0][q] = 0.0f;
  }
  for (;;) {
    const uint32_t at = node[d];
    if (@FEATURE@[at] == @MARK@u) {
      const float value = @VALUE@;
      for (int q = 0; q < @TIMES@; q++) sum[d][q] = value * product[d][q];
    } else if (done[d] < 2) {
      const int column = (int)@FEATURE@[at], first = done[d]++ == 0;
      const uint32_t child = at + (first ? 1u : @RIGHT@[at]);
      const float v = x[column];
      int b = d;
      @DECIDE@
      if (@SHARE@[child] == 0.0f) continue; /* no training row came there */
      while (column_of[b] != column && b > 0) b--;
      d++;
      node[d] = child;
      column_of[d] = column;
      before[d] = b;
      done[d] = 0;
      z[d] = z[b] * @SHARE@[child];
      o[d] = first == left ? o[b] : 0.0f;
      for (int q = 0; q < @TIMES@; q++) {
        const float above = z[b] * @REST@[q] + o[b] * @TIME@[q];
        product[d][q] = product[d - 1][q] * ((z[d] * @REST@[q] + o[d] * @TIME@[q]) / above);
        sum[d][q] = 0.0f;
      }
      continue;
    }
    if (d == 0) return;
    {
      const int b = before[d];
      float moved = 0.0f;
      for (int q = 0; q < @TIMES@; q++) {
        const float own = (o[d] - z[d]) / (z[d] * @REST@[q] + o[d] * @TIME@[q]);
        const float above = (o[b] - z[b]) / (z[b] * @REST@[q] + o[b] * @TIME@[q]);
        moved += sum[d][q] * (own - above);
        sum[d - 1][q] += sum[d][q];
      }
      contributions[@RAW@] += moved;
      d--;
    }
  }
}
"""


def write_tree_explanation(nodes: Nodes, outputs: int, sources: NDArray[np.intp], source: Source) -> None:
    """Write `static void explain_trees(const float *x, int column, float *contributions)`.

    Args:
        nodes: All trees, as `write_trees` wrote them.
        outputs: Columns of the margin.
        sources: [C] raw input of each cleaned column.
        source: The part that it goes into.

    Raises:
        VerdictError: The constants become larger than the limit.
    """
    levels, distinct = _depths(nodes)
    times, weights = np.polynomial.legendre.leggauss(max(1, (distinct + 1) // 2))
    feature, right = tables(nodes, source)
    value_of, value, argument = _value(nodes, outputs, source)
    parts = {
        "VALUE_OF": value_of,
        "VALUE": value,
        "LEVELS": levels + 1,
        "TIMES": len(times),
        "WEIGHT": source.table(weights / 2),
        "TIME": source.table((1 + times) / 2),
        "REST": source.table((1 - times) / 2),
        "FEATURE": feature,
        "MARK": nodes.mark,
        "RIGHT": right,
        "SHARE": source.table(nodes.share),
        "DECIDE": decision(nodes, source).replace("\n    ", "\n      "),
        "RAW": raw_index(sources, "column_of[d]", source),
    }
    text = _WALK
    for key, filling in parts.items():
        text = text.replace(f"@{key}@", str(filling))
    source.function(text)
    roots = source.table(nodes.roots, smallest(max(nodes.roots)))
    skip = "" if nodes.columns is None or outputs == 1 else f"    if ({_column(nodes.columns, outputs, source)} != column) continue;\n"
    unused = "  (void)column;\n" if not skip and not argument else ""
    source.function(
        f"EXACT static void explain_trees(const float *x, int column, float *contributions)\n{{\n{unused}"
        f"  for (int t = 0; t < {len(nodes.roots)}; t++) {{\n{skip}    explain_tree(x, {roots}[t], {argument}contributions);\n  }}\n}}\n"
    )


def raw_index(sources: NDArray[np.intp], column: str, source: Source) -> str:
    """The raw input of a cleaned column, as an expression."""
    if np.array_equal(sources, np.arange(len(sources))):
        return column
    return f"{source.table(sources, smallest(int(sources.max(initial=0))))}[{column}]"


def _column(columns: list[int], outputs: int, source: Source) -> str:
    if columns == [t % outputs for t in range(len(columns))]:
        return f"t % {outputs}"
    return f"(int){source.table(columns, smallest(outputs))}[t]"


def _value(nodes: Nodes, outputs: int, source: Source) -> tuple[str, str, str]:
    """A leaf's value: (parameter that it needs, expression, argument)."""
    if nodes.columns is not None:
        return "", f"{source.table(np.array(nodes.threshold, np.float32))}[at]", ""
    rows = source.table(np.concatenate([np.frombuffer(key, np.float32) for key in nodes.leaves]))
    right = source.table(nodes.right, smallest(max(nodes.right)))
    return "int output, ", f"{rows}[{outputs}u * {right}[at] + (uint32_t)output]", "column, "


def _depths(nodes: Nodes) -> tuple[int, int]:
    """(most steps from a root to a leaf, most columns that one path asks)."""
    steps = distinct = 0
    # A node, the level above it, and the columns asked on the way.
    waiting: list[tuple[int, int, frozenset[int]]] = [(root, 0, frozenset()) for root in nodes.roots]
    while waiting:
        at, level, asked = waiting.pop()
        if nodes.leaf[at]:
            steps, distinct = max(steps, level), max(distinct, len(asked))
        else:
            asked = asked | {nodes.feature[at]}
            waiting += [(at + 1, level + 1, asked), (at + nodes.right[at], level + 1, asked)]
    return steps, distinct
