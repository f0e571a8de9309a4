"""Child processes of the demo: the same commands a person would type, with their output in log files."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgefleet.processes import end_with_parent
from examples.digits.story import StepFailedError

STOP_TIMEOUT_S = 15.0


def command(*arguments: str) -> list[str]:
    """`edgefleet ...` with this interpreter, whatever is on PATH."""
    return [sys.executable, "-m", "edgefleet", *arguments]


def run_tool(log: Path, *arguments: str, accept: Sequence[int] = (0,)) -> Any:
    """Run `edgefleet ... --json` to its end and return the document it printed.

    Raises:
        StepFailedError: Another exit code than those accepted; the message holds the end of the log.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as errors:
        result = subprocess.run(command(*arguments, "--json"), stdout=subprocess.PIPE, stderr=errors, check=False)
    if result.returncode not in accept:
        tail = log.read_text(errors="replace")[-600:].strip()
        raise StepFailedError(f"`edgefleet {' '.join(arguments)}` ended with {result.returncode}: {tail}")
    return json.loads(result.stdout)


class Child:
    """A long-running `edgefleet` process that can be ended, killed and started again with the same arguments."""

    def __init__(self, name: str, log: Path, arguments: Sequence[str], environment: dict[str, str] | None = None) -> None:
        self.name, self._log, self._arguments = name, log, list(arguments)
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; its output is appended to the log."""
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                command(*self._arguments),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self._environment,
                preexec_fn=end_with_parent,  # noqa: PLW1509  # it only makes one system call
                start_new_session=True,
            )

    def check(self) -> None:
        """Raise when the process has ended by itself."""
        if self._process is not None and (code := self._process.poll()) is not None:
            tail = self._log.read_text(errors="replace")[-600:].strip()
            raise StepFailedError(f"{self.name} ended by itself with {code}: {tail}")

    def kill(self) -> None:
        """End it as a power cut would."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def ask_to_stop(self) -> None:
        """SIGTERM, without waiting."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def stop(self) -> None:
        """SIGTERM, and SIGKILL when it does not go."""
        if self._process is None:
            return
        self.ask_to_stop()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None
