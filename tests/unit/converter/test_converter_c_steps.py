"""Cleaning steps in C: numpy's values, bit by bit."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from converter.to_c.compiler import find_compiler, run_limited
from converter.to_c.source import HEAD
from converter.to_c.steps import MAX_ARENA_BYTES, lay_out, why_not_steps, write_steps
from converter.to_c.text import Source
from edgefleet.steps import Steps, Trace
from tests.unit.converter.c_programs import compile_strictly, same_bits
from tests.unit.trainer.cleaning_cases import ROWS, WINDOWS, row_case, window_case

_MAIN = """
#include <stdio.h>
int main(void)
{{
  static float x[{inputs}], y[{outputs}];
  while (fread(x, sizeof(float), {inputs}, stdin) == {inputs}) {{
    clean(x, y);
    if (fwrite(y, sizeof(float), {outputs}, stdout) != {outputs}) return 1;
  }}
  return 0;
}}
"""


def in_c(folder: Path, steps: Steps, x: NDArray[np.float32]) -> NDArray[np.float32]:
    source = Source()
    write_steps(steps, "clean", source)
    shapes = {"inputs": int(np.prod(steps.input_shape)), "outputs": int(np.prod(steps.output_shape))}
    (folder / "model.h").write_text("")
    (folder / "clean.c").write_text(HEAD + source.text() + _MAIN.format(**shapes))
    said = compile_strictly(folder, ["clean.c", "-o", "clean"])
    assert said.returncode == 0, said.stderr
    done = run_limited([str(folder / "clean")], folder, x.tobytes(), 60, 1 << 30)
    return np.frombuffer(done.stdout, np.float32).reshape(len(x), *steps.output_shape)


@pytest.mark.parametrize("name", [*ROWS, *WINDOWS])
def test_c_computes_numpys_values(name: str, tmp_path: Path) -> None:
    cleaning = row_case(name) if name in ROWS else window_case(name)

    found = in_c(tmp_path, cleaning.steps, cleaning.x)

    assert same_bits(found, cleaning.steps.run(cleaning.x))


def test_values_broadcast_over_every_axis_of_a_window(tmp_path: Path) -> None:
    trace = Trace((3, 4))
    first_row, first_column = trace.rows(0, 0, 1), trace.take(0, [0])
    outer = trace.mul(first_row, first_column)
    mixed = trace.where(trace.lt(outer, np.float32(0)), trace.add(outer, np.arange(4, dtype=np.float32)), trace.sub(first_column, outer))
    trace.reshape(trace.concat([mixed, trace.add(mixed, np.arange(3, dtype=np.float32)[:, None])]), (24,))
    steps = Steps(tuple(trace.ops), tuple(f"c{i}" for i in range(24)), (0,) * 24)
    x = np.random.default_rng(0).normal(size=(500, 3, 4)).astype(np.float32)

    found = in_c(tmp_path, steps, x)

    assert same_bits(found, steps.run(x))


def test_dead_values_leave_their_place_to_later_ones() -> None:
    trace = Trace((8,))
    value = 0
    for _ in range(20):
        value = trace.add(trace.take(value, [7, 6, 5, 4, 3, 2, 1, 0]), np.float32(1))
    steps = Steps(tuple(trace.ops), tuple("abcdefgh"), tuple(range(8)))

    assert lay_out(steps).arena <= 3 * 8


def test_a_window_whose_steps_need_a_deep_stack_is_refused_with_the_number() -> None:
    trace = Trace((4096, 8))
    trace.add(trace.take(0, [7, 6, 5, 4, 3, 2, 1, 0]), np.float32(1))
    steps = Steps(tuple(trace.ops), tuple("abcdefgh"), tuple(range(8)))

    reason = why_not_steps(steps)

    assert reason is not None
    assert str(MAX_ARENA_BYTES) in reason
    assert "shorten the window" in reason


def test_a_compiler_is_found_where_these_tests_run() -> None:
    assert find_compiler()
