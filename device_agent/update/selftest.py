"""The self-test: a candidate must give the golden rows' answers on this device, with this runtime, before it sees a real row.

It runs in a child process with limits on memory, processor time and wall time, so that a model which crashes, hangs or eats memory
cannot hurt the one that scores: the agent's own process opens only what has answered its golden rows there. Before the runtime sees a graph
its operators are held against the list (`edgefleet.graphs`). The self-test proves sameness with what the converter tested, not quality;
quality is the trial's matter.
"""

import json
import signal
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
from device_agent.update.limits import limit_process
from device_agent.update.store import Store
from edgefleet.bundle import Bundle
from edgefleet.errors import ArtifactError, EdgefleetError, MissingPartError
from edgefleet.graphs import check_bundle
from edgefleet.manifest import Variant
from edgefleet.package import read_npz

POLL_S: Final = 0.1
TIMEOUT_S: Final = 120.0
MEMORY_BYTES: Final = 8 * 1024**3
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
    """Score the golden rows in this process, one by one and as a batch, and compare.

    Probabilities and values must be within the variant's tolerance. Classes must be the same, by the manifest's threshold where it has one,
    outside ties; a detector's `normal` and `strange` follow from the values. Rows with a missing value are left out of a variant that takes
    none. The outlier detector and the explainer's own arithmetic run too, for what crashes must crash here.

    Raises:
        EdgefleetError: The bundle cannot be opened here, a graph of it holds an operator that no device is given, or a part of it fails.
    """
    check_bundle(bundle, variant)
    arrays = read_npz(bundle.read(bundle.manifest.golden), ("x", "label", "probabilities", "margin"), bundle.manifest.golden)
    classification = bundle.manifest.task == "classification"
    x, expected = arrays["x"], np.asarray(arrays["probabilities"] if classification else arrays["margin"], np.float64)
    usable = np.ones(len(x), bool) if variant.takes_missing else ~np.isnan(x.reshape(len(x), -1)).any(axis=1)
    if not usable.any():
        raise ArtifactError(f"{bundle.manifest.golden}: no golden rows that variant {variant.name} takes; convert again")
    if len(expected) != len(x):
        raise ArtifactError(f"{bundle.manifest.golden}: {len(x)} rows and {len(expected)} answers; convert again")
    x, expected = x[usable], expected[usable]
    with Scorer.open(bundle, variant.name) as scorer:
        batch = scorer.score_batch(x)
        if batch.rejected:
            first = min(batch.rejected)
            return _failed(f"{len(batch.rejected)} of {len(x)} golden rows are rejected: {batch.rejected[first]}")
        alone = [scorer.score(row) for row in x]
        if variant.explain_method != "sampled" and scorer.can_explain:  # sampling runs nothing but the model itself, and long
            scorer.score(x[0], explain=True)
        for answer in alone:
            _ = answer.outlier  # runs the detector, whose failure ends the self-test
        decision = scorer.decision
    singles = np.array([answer.probabilities if classification else answer.margins for answer in alone], np.float64)
    batches = np.asarray(batch.probabilities if classification else batch.margins, np.float64)
    if expected.shape != batches.shape:
        return _failed(f"golden answers have shape {expected.shape}, this model gives {batches.shape}")
    error = float(np.abs(np.stack([batches, singles]) - expected).max())
    if not error <= variant.tolerance.max_error:  # NaN fails as well
        return _failed(f"largest error {error:.3g} on {len(x)} golden rows, allowed is {variant.tolerance.max_error:.3g}")
    sure = decision.sureness(expected) > variant.tolerance.tie_margin if classification else np.zeros(len(x), bool)
    wanted = decision.indices(expected)
    wrong = sum(int(((decision.indices(given) != wanted) & sure).sum()) for given in (batches, singles))
    if wrong:
        return _failed(f"{wrong} of {2 * len(x)} answers to the golden rows are another class, outside ties")
    return SelftestResult(True, False, f"{len(x)} golden rows agree, largest error {error:.3g} (allowed {variant.tolerance.max_error:.3g})")


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
    return _run("slot", folder, bundle_digest, timeout_s, memory_bytes, stopped)


def try_bundle(folder: Path, variant: str, *, timeout_s: float = TIMEOUT_S, memory_bytes: int = MEMORY_BYTES) -> SelftestResult:
    """Run the self-test of a bundle folder's variant in a child process, before this process opens it.

    Args:
        folder: The bundle.
        variant: Its name.
        timeout_s: Wall and processor time of the child.
        memory_bytes: Its address space.
    """
    return _run("bundle", folder, variant, timeout_s, memory_bytes, lambda: False)


def _run(kind: str, folder: Path, name: str, timeout_s: float, memory_bytes: int, stopped: Callable[[], bool]) -> SelftestResult:
    command = [sys.executable, "-m", MODULE, kind, str(folder), name, str(int(timeout_s) + 1), str(memory_bytes)]
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
                    return SelftestResult(False, True, f"timeout: the self-test took longer than {timeout_s:.0f} s")
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
        if code == -signal.SIGXCPU:
            return SelftestResult(False, True, "timeout: the self-test took more processor time than it may")
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return SelftestResult(False, True, f"crashed({how}): the model ended its own process in the self-test")


def _opened(kind: str, folder: Path, name: str) -> tuple[Bundle, Variant]:
    if kind == "slot":
        return Store(folder, Disk()).open_slot(name)
    bundle = Bundle.open(folder)
    return bundle, bundle.variant(name)


def _failed(reason: str) -> SelftestResult:
    return SelftestResult(False, False, reason)


def main(arguments: list[str]) -> None:
    """Child process: limits first, then one line of JSON on stdout."""
    kind, folder, name, cpu_s, memory_bytes = arguments
    limit_process(cpu_s=int(cpu_s), memory_bytes=int(memory_bytes))
    try:
        result = check_golden(*_opened(kind, Path(folder), name))
    except MissingPartError:
        # The parent saw the runtime before it chose the variant: here it does not fit into the limits. That is no verdict on the model.
        sys.exit(MissingPartError.exit_code)
    except EdgefleetError as err:
        result = SelftestResult(False, False, str(err)[:500])
    sys.stdout.write(json.dumps({"ok": result.ok, "reason": result.reason}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
