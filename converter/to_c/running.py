"""A C variant compiled and run: self-test, answers to row sets, costs; `measure(job)` is a child process's whole work."""

import re
import struct
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from converter.cores.reading import core_of
from converter.measured import answers_file, costs, row_sets
from converter.to_c.compiler import compile_c, find_compiler, run_limited
from converter.to_c.explanation import explanation_of
from converter.to_c.source import WITHOUT
from edgefleet.errors import ArtifactError, VerdictError
from edgefleet.package import ModelPackage

RUN_TIMEOUT_S: Final = 120.0
RUN_MEMORY_BYTES: Final = 1 << 30
_LATENCY_ROWS: Final = 4096
_FILES: Final = ("model.c", "model.h", "selftest.c")
_ADDED_UP_ROWS: Final = 100
_COMPARED_ROWS: Final = 20
# The self-test's code for answers that are right and explanations that are not.
_EXPLAINS_WRONGLY: Final = 2

# Not shipped: it needs POSIX clocks and a heap. Times every row alone, then all together; each row once before, to warm up.
_TIMING: Final = """#define _POSIX_C_SOURCE 199309L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "model.h"

static double now_ms(void)
{
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static double peak_bytes(void)
{
  char line[256];
  double kib = 0.0;
  FILE *status = fopen("/proc/self/status", "r");
  while (status && fgets(line, sizeof line, status)) {
    if (strncmp(line, "VmHWM:", 6) == 0) kib = atof(line + 6);
  }
  if (status) fclose(status);
  return kib * 1024.0;
}

int main(int argc, char **argv)
{
  const size_t n = argc > 1 ? (size_t)atol(argv[1]) : 0;
  float *rows = malloc((n * @UPPER@_INPUTS + 1) * sizeof(float));
  double *taken = malloc((n + 2) * sizeof(double));
  static float margin[@UPPER@_MARGINS], probabilities[@UPPER@_CLASSES + 1];
  double began;
  if (!rows || !taken || n == 0) return 1;
  if (fread(rows, sizeof(float), n * @UPPER@_INPUTS, stdin) != n * @UPPER@_INPUTS) return 1;
  taken[n + 1] = peak_bytes() - (double)(n * @UPPER@_INPUTS * sizeof(float));
  for (size_t i = 0; i < n; i++) (void)@NAME@_predict(rows + i * @UPPER@_INPUTS, margin, probabilities);
  for (size_t i = 0; i < n; i++) {
    began = now_ms();
    (void)@NAME@_predict(rows + i * @UPPER@_INPUTS, margin, probabilities);
    taken[i] = now_ms() - began;
  }
  began = now_ms();
  for (size_t i = 0; i < n; i++) (void)@NAME@_predict(rows + i * @UPPER@_INPUTS, margin, probabilities);
  taken[n] = (now_ms() - began) / (double)n;
  return fwrite(taken, sizeof(double), n + 2, stdout) == n + 2 ? 0 : 1;
}
"""


class ExplainsWrongly(VerdictError):
    """The self-test finds the answers right and an explanation wrong."""


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Compile, run the self-test, answer every row set, and time single rows.

    Args:
        job: `bundle` (folder with c/model.c and its companions), `variant` (name for the files), `rows` {name: path of an .npz with x},
            `folder` (for the answers), `package` (folder of the model package, for its exact explanations).

    Returns:
        As `converter.parity.measure`: `answers` {name: path of `single` and `batch`, NaN where there is no finite answer} and the costs.
        A batch is row after row, so both are the same. The memory is that of a whole program on this machine.

    Raises:
        VerdictError: No compiler, it refuses, or the program fails.
        ArtifactError: The bundle has not all three files.
    """
    sets = row_sets(job)
    with tempfile.TemporaryDirectory(prefix="edgefleet-c-") as name:
        program = Program.compile(Path(job["bundle"]) / "c", Path(name))
        explains = program.explained > 0
        try:
            program.self_test()
        except ExplainsWrongly:
            explains = False
        began = time.perf_counter()
        program.answers(sets["parity"][:1])
        cold_start_ms = (time.perf_counter() - began) * 1e3
        paths = {}
        for rows, x in sets.items():
            found = program.answers(x)
            paths[rows] = answers_file(job, rows, found, found)
        taken, batch_row_ms, peak = program.cost(sets["parity"])
        explanation: dict[str, Any] = {}
        if program.explained:
            explanation = explanation_figures(program, ModelPackage.open(job["package"]), sets["parity"]) if explains else _WRONG
    return {"answers": paths, **costs(taken, batch_row_ms, cold_start_ms, peak), **explanation}


_WRONG: Final = {"explain_gap": float("inf"), "explain_difference": float("inf")}


def explanation_figures(program: "Program", package: ModelPackage, x: NDArray[np.float32]) -> dict[str, float]:
    """What the gates ask of the predicted class: the relative additivity gap, and the largest difference to float64.

    The difference is relative to a row's largest contribution.
    """
    exact = explanation_of(core_of(package), package, "auto").exact
    if exact is None:
        raise VerdictError("the program explains what has no exact explanation; convert again")
    margin, _ = program.outputs(x[:_ADDED_UP_ROWS])
    good = np.flatnonzero(np.isfinite(margin).all(axis=1))
    x, margin = x[good], margin[good].astype(np.float64)
    column = margin.argmax(axis=1)
    gap = difference = 0.0
    for k in np.unique(column).tolist():
        rows = np.flatnonzero(column == k)
        base, found = program.explanations(x[rows], k)
        gaps = np.abs(margin[rows, k] - base - found.sum(axis=1)) / np.maximum(1.0, np.abs(margin[rows, k]))
        # numpy's: NaN stays, where max() would drop it.
        gap = float(np.maximum(gap, gaps.max()))
        some = rows[:_COMPARED_ROWS]
        wanted = exact.contributions(x[some])[:, :, k]
        size = np.maximum(np.abs(wanted).max(axis=1), np.finfo(np.float32).tiny)
        difference = float(np.maximum(difference, (np.abs(found[: len(some)] - wanted).max(axis=1) / size).max()))
    return {"explain_gap": gap, "explain_difference": difference}


class Program:
    """A compiled self-test.

    Args:
        folder: Where it was compiled.
        compiler: By which command.
        name: Prefix of the model's functions.
        inputs: Values of a row.
        margins: Columns of the margin.
        classes: Columns of the probabilities.
        explained: Contributions of an explanation; 0: it does not explain.
    """

    def __init__(self, folder: Path, compiler: list[str], name: str, inputs: int, margins: int, classes: int, explained: int) -> None:
        self.folder, self.compiler, self.name = folder, compiler, name
        self.inputs, self.margins, self.classes, self.explained = inputs, margins, classes, explained

    @classmethod
    def compile(cls, source: Path, folder: Path) -> "Program":
        """Compile the three files of a variant in an empty folder."""
        compiler = find_compiler()
        for name in _FILES:
            try:
                (folder / name).write_bytes((source / name).read_bytes())
            except OSError as err:
                raise ArtifactError(f"{source / name}: {err.strerror}; convert again") from err
        compile_c(compiler, folder, ["-c", "model.c", "-o", "model.o"])
        compile_c(compiler, folder, ["selftest.c", "model.o", "-lm", "-o", "selftest"])
        return cls(folder, compiler, *_shapes((folder / "model.h").read_text()))

    def self_test(self) -> str:
        """What the self-test prints.

        Raises:
            ExplainsWrongly: Answers are right and an explanation is not.
            VerdictError: It fails.
        """
        return self._run(["./selftest"], b"").decode("ascii", "replace").strip()

    def explanations(self, x: NDArray[np.float32], column: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(base [n], contributions [n, F]) of one column of the margin, of raw rows [n, ...]."""
        found = np.frombuffer(self._run(["./selftest", "--explain", str(column)], self._bytes(x)), np.float32).astype(np.float64)
        if len(found) != len(x) * (1 + self.explained):
            raise VerdictError(f"the compiled model explains {len(x)} rows by {len(found)} numbers")
        both = found.reshape(len(x), 1 + self.explained)
        return both[:, 0], both[:, 1:]

    def outputs(self, x: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(margins [n, K], probabilities [n, classes]) of raw rows [n, ...]."""
        found = np.frombuffer(self._run(["./selftest", "--stdin"], self._bytes(x)), np.float32)
        if len(found) != len(x) * (self.margins + self.classes):
            raise VerdictError(f"the compiled model answers {len(found)} numbers to {len(x)} rows")
        both = found.reshape(len(x), self.margins + self.classes)
        return both[:, : self.margins], both[:, self.margins :]

    def answers(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """[n, classes] probabilities, or [n, 1] values; NaN in rows without a finite answer."""
        margin, probabilities = self.outputs(x)
        found = (probabilities if self.classes else margin).astype(np.float64)
        found[~np.isfinite(margin).all(axis=1)] = np.nan
        return found

    def cost(self, x: NDArray[np.float32]) -> tuple[NDArray[np.float64], float, int]:
        """(milliseconds of each row, of one row among many, peak memory in bytes without the rows)."""
        (self.folder / "timing.c").write_text(_TIMING.replace("@NAME@", self.name).replace("@UPPER@", self.name.upper()))
        compile_c(self.compiler, self.folder, ["timing.c", "model.o", "-lm", "-o", "timing"])
        rows = x[np.arange(min(_LATENCY_ROWS, max(len(x), 1))) % len(x)]
        found = self._run(["./timing", str(len(rows))], self._bytes(rows))
        taken = np.array(struct.unpack(f"={len(rows) + 2}d", found))
        return taken[:-2], float(taken[-2]), int(taken[-1])

    def _bytes(self, x: NDArray[np.float32]) -> bytes:
        flat = np.ascontiguousarray(x, np.float32).reshape(len(x), -1)
        if flat.shape[1] != self.inputs:
            raise VerdictError(f"rows of {flat.shape[1]} values for a compiled model that takes {self.inputs}")
        return flat.tobytes()

    def _run(self, command: list[str], stdin: bytes) -> bytes:
        done = run_limited(command, self.folder, stdin, RUN_TIMEOUT_S, RUN_MEMORY_BYTES)
        if done.returncode:
            said = done.stdout[-200:].decode("ascii", "replace").strip() if command[1:] == [] else ""
            kind = ExplainsWrongly if command[1:] == [] and done.returncode == _EXPLAINS_WRONGLY else VerdictError
            raise kind(f"the compiled model ended with code {done.returncode}: {said or 'no reason given'}")
        return done.stdout


def _shapes(header: str) -> tuple[str, int, int, int, int]:
    """(prefix, inputs, margins, classes, contributions) of a model.h."""
    found = dict(re.findall(r"^#define [A-Z][A-Z0-9_]*_(INPUTS|MARGINS|CLASSES|EXPLAINED) (\d+)$", header, re.MULTILINE))
    left_out = re.search(rf"^#define [A-Z][A-Z0-9_]*_{WITHOUT}$", header, re.MULTILINE)
    explained = 0 if left_out else int(found.pop("EXPLAINED", 0))
    name = re.search(r"^int ([a-z][a-z0-9_]*)_predict\(", header, re.MULTILINE)
    if name is None or not {"INPUTS", "MARGINS", "CLASSES"} <= set(found):
        raise ArtifactError("model.h does not say what the model takes; convert again")
    return name[1], int(found["INPUTS"]), int(found["MARGINS"]), int(found["CLASSES"]), explained
