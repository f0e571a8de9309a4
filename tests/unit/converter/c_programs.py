"""C programs for the tests of the target c, compiled with every warning an error."""

import subprocess
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from converter.cores import Core
from converter.to_c.compiler import find_compiler
from converter.to_c.running import Program
from converter.to_c.selftest import Golden, write_selftest
from converter.to_c.source import Described, write_model
from edgefleet.steps import Steps

STRICT = ("-std=c99", "-ffp-contract=off", "-O2", "-Wall", "-Wextra", "-Wconversion", "-pedantic", "-Werror")


def compile_strictly(folder: Path, arguments: list[str], flags: tuple[str, ...] = STRICT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*find_compiler(), *flags, *arguments], cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def write(folder: Path, core: Core, steps: Steps | None = None, project: str = "pump") -> None:
    steps = steps or Steps.identity((core.features,))
    described = Described(project, "0" * 64, [f"c{i}" for i in range(core.classes)])
    written = write_model(core, steps, described)
    (folder / "model.c").write_text(written.code)
    (folder / "model.h").write_text(written.header)
    width = int(np.prod(steps.input_shape))
    golden = Golden(np.zeros((1, width), np.float32), np.zeros((1, core.classes or core.margins)), 1e30)
    (folder / "selftest.c").write_text(write_selftest(golden, described.name))


def program(folder: Path, core: Core, steps: Steps | None = None) -> Program:
    """The compiled model, after the compiler had nothing to say about it."""
    source, built = folder / "source", folder / "built"
    source.mkdir(parents=True)
    built.mkdir()
    write(source, core, steps)
    said = compile_strictly(source, ["model.c", "selftest.c", "-lm", "-o", "strict"])
    assert said.returncode == 0, said.stderr
    return Program.compile(source, built)


def same_bits(found: NDArray[np.float32], wanted: NDArray[np.float32]) -> bool:
    return bool(np.array_equal(found, wanted, equal_nan=True))
