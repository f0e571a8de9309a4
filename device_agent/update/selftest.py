"""The self-test: a candidate must give the golden rows' answers on this device, with this runtime, before it sees a real row.

It runs in a child process with limits on memory, processor time and wall time, so that a model which crashes, hangs or eats memory
cannot hurt the one that scores. It proves sameness with what the converter tested, not quality; quality is the trial's matter.
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from device_agent.scorer import Scorer
from device_agent.update.disk import Disk
from device_agent.update.store import Store
from edgefleet.bundle import Bundle
from edgefleet.errors import ArtifactError, EdgefleetError, MissingPartError
from edgefleet.manifest import Variant
from edgefleet.package import read_npz

POLL_S: Final = 0.1
MAX_ANSWER_CHARS: Final = 65_536
MODULE: Final = "device_agent.update.selftest"


@dataclass(frozen=True)
class SelftestResult:
    """Outcome of a self-test.

    Attributes:
        ok: Whether every golden row agrees.
        crashed: The child ended without an answer; another attempt may help.
        reason: One sentence with the numbers.
    """

    ok: bool
    crashed: bool
    reason: str


Selftest = Callable[[str], SelftestResult]


def check_golden(bundle: Bundle, variant: Variant) -> SelftestResult:
    """Score the golden rows in this process and compare.

    Raises:
        EdgefleetError: The bundle cannot be opened here.
    """
    arrays = read_npz(bundle.read(bundle.manifest.golden), ("x", "label", "probabilities", "margin"), bundle.manifest.golden)
    if len(arrays["x"]) == 0:
        raise ArtifactError(f"{bundle.manifest.golden}: no golden rows; convert again")
    with Scorer.open(bundle, variant.name) as scorer:
        answers = scorer.score_batch(arrays["x"])
    if answers.rejected:
        first = min(answers.rejected)
        return SelftestResult(
            False, False, f"{len(answers.rejected)} of {len(arrays['x'])} golden rows are rejected: {answers.rejected[first]}"
        )
    classification = bundle.manifest.task == "classification"
    expected = np.asarray(arrays["probabilities"] if classification else arrays["margin"], np.float64)
    given = np.asarray(answers.probabilities if classification else answers.margins, np.float64)
    if expected.shape != given.shape:
        return SelftestResult(False, False, f"golden answers have shape {expected.shape}, this model gives {given.shape}")
    error = float(np.abs(given - expected).max(initial=0.0))
    if not error <= variant.tolerance.max_error:  # NaN fails as well
        return SelftestResult(
            False, False, f"largest error {error:.3g} on {len(given)} golden rows, allowed is {variant.tolerance.max_error:.3g}"
        )
    wrong = _wrong_labels(given, expected, variant.tolerance.tie_margin) if classification else 0
    if wrong:
        return SelftestResult(False, False, f"{wrong} of {len(given)} golden rows get another class, outside ties")
    return SelftestResult(
        True, False, f"{len(given)} golden rows agree, largest error {error:.3g} (allowed {variant.tolerance.max_error:.3g})"
    )


def run_in_child(
    folder: Path, bundle_digest: str, *, timeout_s: float, memory_bytes: int, stopped: Callable[[], bool] = lambda: False
) -> SelftestResult:
    """Run the self-test of a slot in a child process.

    Args:
        folder: Identity folder with the slot.
        bundle_digest: Which slot.
        timeout_s: Wall and processor time of the child.
        memory_bytes: Its address space.
        stopped: Asked while waiting; True ends the child.
    """
    command = [sys.executable, "-m", MODULE, str(folder), bundle_digest, str(int(timeout_s) + 1), str(memory_bytes)]
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                output, _ = child.communicate(timeout=POLL_S)
                break
            except subprocess.TimeoutExpired:
                if stopped():
                    return SelftestResult(False, True, "the self-test was ended because the agent stops")
                if time.monotonic() > deadline:
                    return SelftestResult(False, True, f"the self-test took longer than {timeout_s:.0f} s")
        return _read_answer(child.returncode, output)
    finally:
        if child.poll() is None:
            child.kill()
            child.communicate()


def _read_answer(code: int, output: bytes) -> SelftestResult:
    try:
        answer = json.loads(output[-MAX_ANSWER_CHARS:].splitlines()[-1])
        return SelftestResult(bool(answer["ok"]), False, str(answer["reason"])[:500])
    except (ValueError, IndexError, KeyError, TypeError):
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return SelftestResult(False, True, f"the model ended its own process in the self-test ({how})")


def _wrong_labels(
    given: "np.ndarray[tuple[int, int], np.dtype[np.float64]]", expected: "np.ndarray[tuple[int, int], np.dtype[np.float64]]", tie: float
) -> int:
    best = np.sort(expected, axis=1)
    decided = best[:, -1] - best[:, -2] > tie if expected.shape[1] > 1 else np.ones(len(expected), bool)
    return int(((given.argmax(axis=1) != expected.argmax(axis=1)) & decided).sum())


def main(arguments: list[str]) -> None:
    """Child process: limits first, then one line of JSON on stdout."""
    folder, bundle_digest, cpu_s, memory_bytes = arguments
    resource.setrlimit(resource.RLIMIT_CPU, (int(cpu_s), int(cpu_s)))
    resource.setrlimit(resource.RLIMIT_AS, (int(memory_bytes), int(memory_bytes)))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        result = check_golden(*Store(Path(folder), Disk()).open_slot(bundle_digest))
    except MissingPartError:
        # The parent saw the runtime before it chose the variant: here it does not fit into the limits. That is no verdict on the model.
        sys.exit(MissingPartError.exit_code)
    except EdgefleetError as err:
        result = SelftestResult(False, False, str(err)[:500])
    sys.stdout.write(json.dumps({"ok": result.ok, "reason": result.reason}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
