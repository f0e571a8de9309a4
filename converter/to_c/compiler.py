"""The C compiler of this machine: found, run with limits, its complaints made one line."""

import math
import os
import resource
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgefleet.errors import VerdictError

_LOOKED_FOR: Final = ("cc", "gcc", "clang")
# What every compiler is asked; the written C has no warnings with all of -Wall -Wextra -Wconversion -pedantic.
FLAGS: Final = ("-std=c99", "-ffp-contract=off", "-O2")
_SMALL: Final = ("-std=c99", "-ffp-contract=off", "-Os", "-fno-asynchronous-unwind-tables")
COMPILE_TIMEOUT_S: Final = 120.0
_COMPILER_MEMORY_BYTES: Final = 4 * 1024**3
_MAX_OUTPUT_BYTES: Final = 1 << 30


@dataclass(frozen=True)
class Sizes:
    """What a compiled model takes.

    Attributes:
        code_bytes: Instructions and constants (read-only memory); None where the tool `size` is missing.
        memory_bytes: Other static memory: only the pointers to the names of classes.
        stack_bytes: Stack of all its own functions together, more than any call takes; None where the compiler does not tell. An
            estimate: what the mathematical library takes is not counted.
    """

    code_bytes: int | None
    memory_bytes: int | None
    stack_bytes: int | None


def find_compiler() -> list[str]:
    """Command of the C compiler: what CC names, else the first one that is installed.

    Raises:
        VerdictError: There is none.
    """
    named = shlex.split(os.environ.get("CC", ""))
    for command in [named, *([name] for name in _LOOKED_FOR)]:
        if command and shutil.which(command[0]):
            return command
    looked = ", ".join([*named[:1], *_LOOKED_FOR])
    raise VerdictError(f"no C compiler found (looked for {looked}): the C variant cannot be proven here; install gcc or clang")


def compiler_seen() -> str:
    """Which compiler `find_compiler` would take, for what is kept of its work; "" for none."""
    try:
        command = find_compiler()
    except VerdictError:
        return ""
    program = Path(shutil.which(command[0]) or command[0]).resolve()
    found = program.stat()
    return f"{shlex.join(command)} {program} {found.st_size} {found.st_mtime_ns}"


def compile_c(compiler: Sequence[str], folder: Path, arguments: Sequence[str], flags: Sequence[str] = FLAGS) -> None:
    """Compile in a folder.

    Raises:
        VerdictError: The compiler refuses; its first complaint.
    """
    done = run_limited([*compiler, *flags, *arguments], folder, b"", COMPILE_TIMEOUT_S, _COMPILER_MEMORY_BYTES)
    if done.returncode:
        complaint = next((line for line in done.stderr.decode("utf-8", "replace").splitlines() if "error" in line), "no reason given")
        raise VerdictError(f"{compiler[0]} does not compile the model: {complaint[:200]}")


def run_limited(
    command: Sequence[str], folder: Path, stdin: bytes, timeout_s: float, memory_bytes: int
) -> subprocess.CompletedProcess[bytes]:
    """Run a program with limits of time, address space and file size.

    Raises:
        VerdictError: It did not start or did not end in time.
    """
    try:
        with subprocess.Popen(
            command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "LC_ALL": "C"}
        ) as child:
            try:
                # Not before the start: code between fork and exec of a process with threads may hang.
                resource.prlimit(child.pid, resource.RLIMIT_AS, (memory_bytes, memory_bytes))
                resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (_MAX_OUTPUT_BYTES, _MAX_OUTPUT_BYTES))
                # Ends it also when nobody is left who waits for it.
                cpu_s = math.ceil(timeout_s) + 1
                resource.prlimit(child.pid, resource.RLIMIT_CPU, (cpu_s, cpu_s))
            except ProcessLookupError:
                pass  # ended already
            try:
                out, err = child.communicate(stdin, timeout=timeout_s)
            except subprocess.TimeoutExpired as late:
                child.kill()
                raise VerdictError(f"{Path(command[0]).name} ran longer than {timeout_s:g} s") from late
    except OSError as err_os:
        raise VerdictError(f"{command[0]} cannot be started: {err_os.strerror or err_os}") from err_os
    return subprocess.CompletedProcess(list(command), child.returncode, out, err)


def sizes_of(compiler: Sequence[str], folder: Path, flags: Sequence[str] = _SMALL) -> Sizes:
    """Sizes of the model.c in a folder, compiled for size.

    Args:
        compiler: Of the machine or device in question; its own `size` is asked where it has one.
        folder: Has model.c and model.h; the object file is written beside them.
        flags: Of the compiler.

    Raises:
        VerdictError: The compiler refuses.
    """
    usage = folder / "sized.su"
    try:
        compile_c(compiler, folder, ["-fstack-usage", "-c", "model.c", "-o", "sized.o"], flags)
    except VerdictError:  # a compiler without that option
        compile_c(compiler, folder, ["-c", "model.c", "-o", "sized.o"], flags)
    # functions: file:line:column:name, bytes, kind
    stack = [int(line.split("\t")[1]) for line in usage.read_text().splitlines()] if usage.is_file() else None
    return Sizes(*_sections(compiler, folder), None if stack is None else sum(stack))


def _sections(compiler: Sequence[str], folder: Path) -> tuple[int | None, int | None]:
    sibling = compiler[0].removesuffix("gcc").removesuffix("clang") + "size" if compiler[0].endswith(("gcc", "clang")) else "size"
    tool = next((name for name in (sibling, "size") if shutil.which(name)), None)
    if tool is None:
        return None, None
    done = run_limited([tool, "sized.o"], folder, b"", COMPILE_TIMEOUT_S, _COMPILER_MEMORY_BYTES)
    found = done.stdout.decode("ascii", "replace").splitlines()[1:]  # under the heading: text, data, bss ...
    if done.returncode or not found:
        return None, None
    text, data, bss = (int(number) for number in found[0].split()[:3])
    return text, data + bss
