"""A process that is killed at every disk operation of an update: forks one child per cut, so that imports are paid once.

Arguments: base folder, work folder, file with the desired state, digest of the new bundle, digest that must never run ("" for none).
Prints one JSON object per cut: what was running after the restart, and where the update ended.
"""

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from device_agent.config import AgentConfig, load_identity
from device_agent.doors.answering import Answering
from device_agent.update.disk import Before, Disk
from device_agent.update.outside import Outside
from device_agent.update.selftest import SelftestResult, check_golden
from device_agent.update.store import Store
from device_agent.update.updater import Updater
from edgefleet.locks import FolderLock

ROWS = np.random.default_rng(9).normal(size=(200, 5)).astype(np.float32)
ENDED = {"committed", "rolled-back", "quarantined", "refused"}
DEADLINE_S = 120.0
MOST_CUTS = 400


def update(folder: Path, desired: bytes, before: Before | None, told: Callable[[str], None]) -> dict[str, str]:
    """Run one agent's update path to its end, with real models and real files."""
    lock = FolderLock(folder / "lock", "agent")
    disk = Disk(before)
    config = AgentConfig(dir=folder, runtimes=("onnxruntime",))
    store, models = Store(folder, disk), Answering()

    def selftest(digest: str) -> SelftestResult:
        return check_golden(*store.open_slot(digest))

    def tell(name: str, _detail: str, digest: str) -> None:
        told(f"{name} {digest}")

    outside = Outside(selftest=selftest, stopped=lambda: False, newer=lambda: False, tell=tell, changed=lambda: None)
    updater = Updater(load_identity(folder), config, disk, models, outside)
    updater.load()
    at_start = models.running_digest()
    updater.receive(desired)
    deadline = time.monotonic() + DEADLINE_S
    i = 0
    while time.monotonic() < deadline:
        updater.work()
        if models.running is not None:
            for row in ROWS[i % len(ROWS) :][:10]:
                models.score(row)
            i += 10
        settled = updater.progress.state in ENDED and updater.director.payload is not None
        if settled and (updater.progress.state != "committed" or models.running_digest() == updater.progress.subject):
            updater.work()
            break
    ended = {"at_start": at_start, "running": models.running_digest(), "state": updater.progress.state, "reason": updater.progress.reason}
    models.close()
    lock.release()
    return ended


def in_child(run: Callable[[], object], answer: Path) -> int:
    """Run in a fork; returns the wait status, the answer lies in a file."""
    child = os.fork()
    if child == 0:
        try:
            answer.write_text(json.dumps(run()))
            os._exit(0)
        except BaseException as err:
            answer.write_text(json.dumps({"error": repr(err)}))
            os._exit(1)
    return os.waitpid(child, 0)[1]


def kill_at(operation: int) -> Before:
    """End this process without any farewell before the n-th operation of the disk."""
    count = 0

    def before(_name: str, _path: Path) -> None:
        nonlocal count
        if count == operation:
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1

    return before


def main() -> None:
    """Cut after cut until one run gets through unharmed; every second cut is followed by another one inside the recovery."""
    base, work, desired = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]).read_bytes()
    answer, told_file = work.parent / "answer.json", work.parent / "told.txt"

    def told(line: str) -> None:
        with told_file.open("a") as stream:
            stream.write(line + "\n")

    for cut in range(MOST_CUTS):
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(base, work)
        told_file.write_text("")
        status = in_child(lambda cut=cut: update(work, desired, kill_at(cut), told), answer)  # type: ignore[misc]
        through = not os.WIFSIGNALED(status)
        if not through and cut % 2:
            in_child(lambda cut=cut: update(work, desired, kill_at(cut // 2 % 7), told), answer)  # type: ignore[misc]
        said = told_file.read_text().split("\n")
        in_child(lambda: update(work, desired, None, lambda _: None), answer)
        leftovers = [str(path.relative_to(work)) for path in work.rglob(".part-*")]
        sys.stdout.write(
            json.dumps({"cut": cut, "told": said, "through": through, "leftovers": leftovers, **json.loads(answer.read_text())}) + "\n"
        )
        sys.stdout.flush()
        if through:
            return


if __name__ == "__main__":
    main()
