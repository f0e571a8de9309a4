"""The step cache: what runs again, why, and what an accident leaves behind."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgefleet.caching.cache import StepCache
from edgefleet.caching.code_versions import version_of

STEPS = {
    "clean.py": "def run(text):\n    return text.strip()\n",
    "fit.py": "from flow.shared import count\n\ndef run(text):\n    return str(count(text))\n",
    "report.py": "def run(text):\n    return f'<{text}>'\n",
    "shared.py": "def count(text):\n    return len(text)\n\ndef unused():\n    return 1\n",
    "__init__.py": "",
}


class Flow:
    """clean -> fit -> report, and an unrelated step, over a package in a folder that tests edit."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "flow").mkdir()
        for name, text in STEPS.items():
            (folder / "flow" / name).write_text(text)

    def edit(self, name: str, old: str, new: str) -> None:
        path = self.folder / "flow" / name
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    def run(self, raw: str = " rows ") -> dict[str, str]:
        """Run in a process of its own, as a person would after editing; return why by name of the steps that ran."""
        program = """
import hashlib, importlib, json, sys
from pathlib import Path
from edgefleet.caching.cache import StepCache
folder = Path(sys.argv[1])
sys.path.insert(0, str(folder))
cache, ran, before = StepCache(folder / "cache", {"flow": folder}), {}, sys.argv[2]
for name in ("clean", "fit", "report", "other"):
    source = "other" if name == "other" else before
    function = importlib.import_module("flow." + ("clean" if name == "other" else name)).run
    digest = hashlib.sha256(source.encode()).hexdigest()
    result = cache.run(name, lambda: {"out": function(source).encode()}, inputs={"text": digest[:8]}, code=[function])
    if not result.hit:
        ran[name] = result.why
    before = before if name == "other" else result.files["out"].decode()
print(json.dumps(ran))
"""
        done = subprocess.run([sys.executable, "-B", "-c", program, str(self.folder), raw], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))


@pytest.fixture
def flow(tmp_path: Path) -> Flow:
    return Flow(tmp_path)


def test_the_second_run_of_an_unchanged_pipeline_runs_no_step(flow: Flow) -> None:
    assert set(flow.run().values()) == {"it runs for the first time"}
    assert flow.run() == {}


def test_one_changed_line_of_one_step_reruns_it_and_those_below_it_and_nothing_else(flow: Flow) -> None:
    flow.run()
    flow.edit("shared.py", "len(text)", "len(text) + 1")

    ran = flow.run()

    assert list(ran) == ["fit", "report"]
    assert ran["fit"] == "code of flow.shared.count changed"
    assert ran["report"].startswith("input 'text' changed from ")


def test_a_changed_step_with_an_unchanged_outcome_does_not_rerun_those_below_it(flow: Flow) -> None:
    flow.run()
    flow.edit("fit.py", "str(count(text))", "str(int(count(text)))")

    assert flow.run() == {"fit": "code of flow.fit.run changed"}


def test_comments_and_unused_functions_rerun_nothing(flow: Flow) -> None:
    flow.run()
    flow.edit("shared.py", "return 1", "return 2  # a comment")

    assert flow.run() == {}


def test_going_back_to_old_code_finds_the_old_result(flow: Flow) -> None:
    flow.run()
    flow.edit("report.py", "<{text}>", "[{text}]")
    assert list(flow.run()) == ["report"]
    flow.edit("report.py", "[{text}]", "<{text}>")

    assert flow.run() == {}


def one(cache: StepCache, made: bytes = b"made", **inputs: object) -> tuple[bytes, bool, str]:
    """A step whose code is this module's neighbour: only inputs change."""
    result = cache.run("one", lambda: {"a": made, "b.txt": b""}, inputs=inputs, code=["trainer.intervals:proportion"])
    return result.files["a"], result.hit, result.why


def test_why_names_the_input_with_its_old_and_its_new_value(tmp_path: Path) -> None:
    cache = StepCache(tmp_path)
    one(cache, seed=1, goal={"minimum": 0.5, "name": "x"})

    assert one(cache, seed=2, goal={"minimum": 0.6, "name": "x"})[2] == (
        "input 'goal.minimum' changed from 0.5 to 0.6; input 'seed' changed from 1 to 2"
    )


def test_why_names_the_library_whose_version_changed(tmp_path: Path) -> None:
    cache = StepCache(tmp_path)
    one(cache)
    note = next((tmp_path / "steps").glob("*.json"))
    note.write_text(note.read_text().replace(f'"numpy": "{version_of("numpy")}"', '"numpy": "1.0"'))

    why = one(cache, seed=1)[2]

    assert why == f"version of numpy changed from 1.0 to {version_of('numpy')}; input 'seed' changed from nothing to 1"


def test_true_and_one_are_different_inputs(tmp_path: Path) -> None:
    cache = StepCache(tmp_path)
    one(cache, flag=True)

    assert one(cache, flag=1)[1:] == (False, "input 'flag' changed from true to 1")


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied", "longer", "no header"])
def test_a_damaged_entry_runs_the_step_again_and_says_so(tmp_path: Path, damage: str) -> None:
    cache = StepCache(tmp_path)
    one(cache)
    entry = next((tmp_path / "entries").iterdir())
    content = entry.read_bytes()
    changes = {"cut": content[:-2], "flipped": content[:-1] + b"E", "emptied": b"", "longer": content + b"x", "no header": b"[]\nmade"}
    entry.write_bytes(changes[damage])

    made, hit, why = one(cache, b"again")

    assert (made, hit) == (b"again", False)
    assert "is damaged" in why
    assert one(cache) == (b"again", True, "unchanged: the same code, inputs and library versions ran before")


def test_a_damaged_note_of_the_last_run_costs_only_the_reason(tmp_path: Path) -> None:
    cache = StepCache(tmp_path)
    one(cache)
    next((tmp_path / "steps").glob("*.json")).write_text('{"units": 3}')

    assert one(cache, seed=1)[1:] == (False, "the note of its last run cannot be read")


def test_a_step_that_raises_leaves_nothing_behind(tmp_path: Path) -> None:
    cache = StepCache(tmp_path)

    def broken() -> dict[str, bytes]:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        cache.run("one", broken, inputs={}, code=["trainer.intervals:proportion"])

    assert one(cache)[1:] == (False, "it runs for the first time")


def test_pruning_removes_what_was_used_longest_ago_and_says_why_it_runs_again(tmp_path: Path) -> None:
    cache = StepCache(tmp_path)
    for seed in range(3):
        one(cache, bytes(1000), seed=seed)
    for age, entry in enumerate(sorted((tmp_path / "entries").iterdir(), key=lambda path: path.stat().st_mtime_ns)):
        os.utime(entry, (age, age))
    one(cache, seed=0)  # the oldest is used: now it is the newest

    removed = cache.prune(max_bytes=2 * max(path.stat().st_size for path in (tmp_path / "entries").iterdir()))

    assert removed > 1000
    assert [one(cache, seed=seed)[1] for seed in (0, 2)] == [True, True]
    assert one(cache, seed=1)[1] is False
    assert cache.prune(max_bytes=0) > 2000
    assert one(cache, seed=1)[1:] == (False, "its cached result was removed")


def test_an_input_that_is_no_json_value_is_refused_with_the_remedy(tmp_path: Path) -> None:
    for value in (object(), float("nan")):
        with pytest.raises(TypeError, match=r"step 'one': an input is no JSON value .*: pass a digest of it"):
            one(StepCache(tmp_path), value=value)


WORKER = """
import sys
from pathlib import Path
from edgefleet.caching.cache import StepCache
def make():
    print("making", flush=True)
    sys.stdin.readline()
    return {"a": b"made"}
result = StepCache(Path(sys.argv[1])).run("one", make, inputs={}, code=["trainer.intervals:proportion"])
print("hit" if result.hit else "made", flush=True)
"""


def worker(folder: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-c", WORKER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_two_processes_that_want_the_same_step_run_it_once(tmp_path: Path) -> None:
    with worker(tmp_path) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "making\n"
        with worker(tmp_path) as second:
            assert first.communicate("go on\n", timeout=60)[0] == "made\n"
            assert second.communicate("", timeout=60)[0] == "hit\n"

    assert list((tmp_path / "locks").iterdir()) == []


def test_a_process_killed_in_the_middle_of_a_step_holds_up_nobody(tmp_path: Path) -> None:
    with worker(tmp_path) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "making\n"
        first.send_signal(signal.SIGKILL)
        first.communicate(timeout=60)

    assert one(StepCache(tmp_path))[1:] == (False, "it runs for the first time")
