"""One piece of work in a child process with limits: foreign code that crashes, hangs or prints takes nothing else with it.

`python -m edgefleet.isolate MODULE:FUNCTION JOB RESULT MEMORY_BYTES PARENT` is the child's side.
"""

import ctypes
import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from edgefleet.errors import EdgefleetError, VerdictError

MAX_REASON: Final = 300
_MAX_RESULT_BYTES: Final = 16 * 1024 * 1024
_TAIL_BYTES: Final = 4000
_PR_SET_PDEATHSIG: Final = 1
# Address space, not memory in use: TensorFlow reserves about 4 GiB on two cores and more with each core.
DEFAULT_MEMORY_BYTES: Final = 16 * 1024**3


class ChildFailed(VerdictError):
    """The child crashed, ran out of time or raised; `reason` is one bounded line."""

    def __init__(self, reason: str) -> None:
        self.reason = reason[:MAX_REASON]
        super().__init__(self.reason)


def run_isolated(function: str, job: dict[str, Any], *, timeout_s: float, memory_bytes: int = DEFAULT_MEMORY_BYTES) -> dict[str, Any]:
    """Call `module:function(job)` in a fresh interpreter and return what it returns.

    Args:
        function: `module:function`; takes and returns a JSON object.
        job: Its argument; large arrays go through files that it names.
        timeout_s: Wall time in seconds after which the child is killed.
        memory_bytes: Limit of its address space.

    Raises:
        ChildFailed: Crashed by a signal, timed out, or raised.
    """
    with tempfile.TemporaryDirectory(prefix="edgefleet-child-") as name:
        folder = Path(name)
        (folder / "job.json").write_text(json.dumps(job))
        command = [
            sys.executable,
            "-m",
            "edgefleet.isolate",
            function,
            str(folder / "job.json"),
            str(folder / "result.json"),
            str(memory_bytes),
            str(os.getpid()),
        ]
        with (folder / "log").open("wb") as log:
            try:
                done = subprocess.run(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=_environment(), timeout=timeout_s, check=False
                )
            except subprocess.TimeoutExpired as err:
                raise ChildFailed(f"timed out after {timeout_s:g} s") from err
        return _result(folder, done.returncode)


def _environment() -> dict[str, str]:
    root = str(Path(__file__).resolve().parent.parent)
    paths = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "0", "CUDA_VISIBLE_DEVICES": "-1", "KERAS_BACKEND": "tensorflow"}
    return {**os.environ, **quiet, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)), "PYTHONHASHSEED": "0"}


def _result(folder: Path, code: int) -> dict[str, Any]:
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
        raise ChildFailed(f"crashed: ended by signal {name}")
    try:
        with (folder / "result.json").open("rb") as stream:
            answer = json.loads(stream.read(_MAX_RESULT_BYTES + 1))
    except (OSError, ValueError) as err:
        raise ChildFailed(f"ended with code {code} and no result: {_tail(folder / 'log')}") from err
    if not isinstance(answer, dict) or "error" in answer:
        raise ChildFailed(str(answer.get("error") if isinstance(answer, dict) else answer))
    return answer


def _tail(path: Path) -> str:
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - _TAIL_BYTES))  # a child may have printed gigabytes
        text = stream.read(_TAIL_BYTES).decode("utf-8", "replace").strip()
    return " ".join(text.split())[-MAX_REASON // 2 :]


def _die_with(parent: int) -> None:
    """A parent that is killed cannot end its children, and a hostile model may run for ever: the kernel ends them then."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was gone before
        sys.exit(1)


def _child(function: str, job: str, result: str, memory_bytes: int) -> int:
    present = resource.getrlimit(resource.RLIMIT_AS)[1]  # one that is lower may be raised by nobody but root
    allowed = memory_bytes if present == resource.RLIM_INFINITY else min(memory_bytes, present)
    resource.setrlimit(resource.RLIMIT_AS, (allowed, allowed))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    module, _, name = function.partition(":")
    try:
        answer = getattr(importlib.import_module(module), name)(json.loads(Path(job).read_text()))
    except EdgefleetError as err:
        answer = {"error": str(err)[:MAX_REASON]}
    except Exception as err:  # foreign libraries raise anything; some of their texts have 50 000 lines
        answer = {"error": f"{type(err).__name__}: {' '.join(str(err)[:2000].split())}"[:MAX_REASON]}
    Path(result).write_text(json.dumps(answer))
    return 0


if __name__ == "__main__":
    _die_with(int(sys.argv[5]))
    sys.exit(_child(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
