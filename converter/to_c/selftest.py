"""selftest.c: a program that proves a compiled model on golden rows, in C99 with nothing but stdio.

With `--stdin` it answers raw rows instead: float32 rows in, margin and probabilities of each row out, in the machine's own byte order.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from converter.to_c.text import Source, literal

MAX_ROWS: Final = 8

_PROGRAM: Final = """/* Written by edgefleet: checks a compiled model on golden rows; with --stdin, answers float32 rows in binary. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
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

int main(int argc, char **argv)
{
  float largest = 0.0f;
  if (argc > 1 && strcmp(argv[1], "--stdin") == 0) return answer_stdin();
  if (!@NAME@_exact()) {
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
  printf("ok: %d golden rows, largest error %.3g\\n", ROWS, (double)largest);
  return 0;
}
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


def write_selftest(golden: Golden, name: str) -> str:
    """The program for a model whose functions begin with `name`."""
    tables = Source()
    x, wanted = tables.table(golden.x), tables.table(golden.wanted)
    parts: dict[str, Any] = {
        "NAME": name, "UPPER": name.upper(), "ROWS": len(golden.x), "ANSWERS": golden.wanted.shape[1],
        "TOLERANCE": literal(np.float32(golden.tolerance)), "X": x, "WANTED": wanted, "TABLES": tables.text(),
    }  # fmt: skip
    text = _PROGRAM
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
