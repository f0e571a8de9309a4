"""selftest.c: a program that proves a compiled model on golden rows, in C99 with nothing but stdio.

With `--stdin` it answers raw rows instead: float32 rows in, margin and probabilities of each row out, in the machine's own byte order;
with `--explain COLUMN` base and contributions of that column of the margin. It ends with 1 where answers are wrong, with 2 where
explanations are.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from converter.to_c.text import Source, literal

MAX_ROWS: Final = 8
# Of the largest contribution of a row, that one may be off; wider than the gate at conversion, because other processors round otherwise.
EXPLANATION_TOLERANCE: Final = 1e-4

_PROGRAM: Final = """/* Written by edgefleet: checks a compiled model on golden rows; with --stdin, answers float32 rows in binary. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "model.h"

#define ROWS @ROWS@
#define ANSWERS @ANSWERS@
#define TOLERANCE @TOLERANCE@

@TABLES@
static float margin[@UPPER@_MARGINS];
static float probabilities[@UPPER@_CLASSES + 1];

static int answer_stdin(void)
{
  static float row[@UPPER@_INPUTS];
  while (fread(row, sizeof(float), @UPPER@_INPUTS, stdin) == @UPPER@_INPUTS) {
    (void)@NAME@_predict(row, margin, probabilities);
    if (fwrite(margin, sizeof(float), @UPPER@_MARGINS, stdout) != @UPPER@_MARGINS) return 1;
    if (@UPPER@_CLASSES && fwrite(probabilities, sizeof(float), @UPPER@_CLASSES, stdout) != @UPPER@_CLASSES) return 1;
  }
  return ferror(stdin) || fflush(stdout) ? 1 : 0;
}

@EXPLAINING@
int main(int argc, char **argv)
{
  float largest = 0.0f;
  if (argc > 1 && strcmp(argv[1], "--stdin") == 0) return answer_stdin();
@ASKED@  if (!@NAME@_exact()) {
    printf("failed: the compiler fuses multiplication and addition; compile with -ffp-contract=off\\n");
    return 1;
  }
  for (int i = 0; i < ROWS; i++) {
    const float *found = @UPPER@_CLASSES ? probabilities : margin;
    if (@NAME@_predict(@X@ + i * @UPPER@_INPUTS, margin, probabilities) != 0) {
      printf("failed: golden row %d has no finite answer\\n", i);
      return 1;
    }
    for (int k = 0; k < ANSWERS; k++) {
      const float error = fabsf(found[k] - @WANTED@[i * ANSWERS + k]);
      if (!(error <= TOLERANCE)) {
        printf("failed: golden row %d, answer %d is %.9g instead of %.9g\\n", i, k, (double)found[k], (double)@WANTED@[i * ANSWERS + k]);
        return 1;
      }
      largest = error > largest ? error : largest;
    }
  }
@CHECKED@  printf("ok: %d golden rows, largest error %.3g\\n", ROWS, (double)largest);
  return 0;
}
"""

_EXPLAINING: Final = """#ifdef @UPPER@_EXPLAINED
@TABLES@
/* Base, then the contributions. */
static float explained[1 + @UPPER@_EXPLAINED];

static int explain_stdin(int column)
{
  static float row[@UPPER@_INPUTS];
  while (fread(row, sizeof(float), @UPPER@_INPUTS, stdin) == @UPPER@_INPUTS) {
    (void)@NAME@_explain(row, column, explained, explained + 1);
    if (fwrite(explained, sizeof(float), 1 + @UPPER@_EXPLAINED, stdout) != 1 + @UPPER@_EXPLAINED) return 1;
  }
  return ferror(stdin) || fflush(stdout) ? 1 : 0;
}

static int check_explanations(void)
{
  for (int i = 0; i < @ROWS@; i++) {
    if (@NAME@_explain(@X@ + i * @UPPER@_INPUTS, (int)@COLUMN@[i], explained, explained + 1) != 0) {
      printf("failed: golden row %d has no finite explanation\\n", i);
      return 2;
    }
    for (int j = 0; j <= @UPPER@_EXPLAINED; j++) {
      const float wanted = @WANTED@[i * (1 + @UPPER@_EXPLAINED) + j];
      if (!(fabsf(explained[j] - wanted) <= @ALLOWED@[i])) {
        printf("failed: golden row %d, explanation %d is %.9g instead of %.9g\\n", i, j, (double)explained[j], (double)wanted);
        return 2;
      }
    }
  }
  return 0;
}
#endif
"""
_ASKED: Final = """#ifdef @UPPER@_EXPLAINED
  if (argc > 2 && strcmp(argv[1], "--explain") == 0) return explain_stdin(atoi(argv[2]));
#endif
"""
_CHECKED: Final = """#ifdef @UPPER@_EXPLAINED
  if (check_explanations() != 0) return 2;
#endif
"""


@dataclass(frozen=True)
class Golden:
    """Golden rows.

    Attributes:
        x: [n, inputs] float32.
        wanted: [n, answers] the original's probabilities, or values.
        tolerance: Largest error of an answer.
    """

    x: NDArray[np.float32]
    wanted: NDArray[np.float64]
    tolerance: float


@dataclass(frozen=True)
class GoldenExplanations:
    """What is expected of the golden rows' explanations.

    Attributes:
        x: [n, inputs] rows.
        column: [n] column of the margin that is explained.
        wanted: [n, 1 + F] base and contributions.
    """

    x: NDArray[np.float32]
    column: NDArray[np.intp]
    wanted: NDArray[np.float64]

    @property
    def allowed(self) -> NDArray[np.float64]:
        """[n] largest error."""
        return np.asarray(EXPLANATION_TOLERANCE * np.abs(self.wanted).max(axis=1), np.float64)


def write_selftest(golden: Golden, name: str, explanations: GoldenExplanations | None = None) -> str:
    """The program for a model whose functions begin with `name`."""
    tables = Source()
    x, wanted = tables.table(golden.x), tables.table(golden.wanted)
    explaining = asked = checked = ""
    if explanations is not None:
        explaining, asked, checked = _explaining(explanations, tables), _ASKED, _CHECKED
    parts: dict[str, Any] = {
        "EXPLAINING": explaining, "ASKED": asked, "CHECKED": checked,
        "NAME": name, "UPPER": name.upper(), "ROWS": len(golden.x), "ANSWERS": golden.wanted.shape[1],
        "TOLERANCE": literal(np.float32(golden.tolerance)), "X": x, "WANTED": wanted, "TABLES": tables.text(),
    }  # fmt: skip
    return _filled(_PROGRAM, parts)


def _explaining(golden: GoldenExplanations, before: Source) -> str:
    tables = Source("e", before)
    parts = {
        "X": tables.table(golden.x), "COLUMN": tables.table(golden.column, np.uint16), "WANTED": tables.table(golden.wanted),
        "ALLOWED": tables.table(golden.allowed), "ROWS": len(golden.x),
    }  # fmt: skip
    return _filled(_EXPLAINING, {**parts, "TABLES": tables.text()})


def _filled(text: str, parts: dict[str, Any]) -> str:
    for key, value in parts.items():
        text = text.replace(f"@{key}@", str(value))
    return text


def choose(x: NDArray[np.float32], wanted: NDArray[np.float64], label: NDArray[Any]) -> NDArray[np.int64]:
    """Places of a handful of rows: one of each label first, one with a missing value if there is any, then the first ones."""
    good = np.flatnonzero(np.isfinite(wanted).all(axis=1))
    missing = good[np.isnan(x.reshape(len(x), -1)[good]).any(axis=1)]
    _, firsts = np.unique(label[good], return_index=True)
    order = dict.fromkeys([*missing[:1].tolist(), *good[np.sort(firsts)].tolist(), *good.tolist()])
    return np.array(sorted(list(order)[:MAX_ROWS]), np.int64)
