"""Children at work: every target's writer in a process of its own, several at once within the memory that is free.

A writer that crashes, hangs or prints is that target's failure and nobody else's. Targets made from another target's graph wait for it.
"""

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from converter.isolate import ChildFailed, run_isolated
from converter.targets import Job, Made, answer
from edgefleet.caching import StepCache
from edgefleet.digests import sha256_file
from edgefleet.errors import ArtifactError
from edgefleet.graphs import SUFFIXES, check_graph
from edgefleet.package import PACKAGE_NAME

TIMEOUT_S: Final = 600.0
# What a writer with TensorFlow takes at most; others take a fifth of it.
CHILD_MEMORY_BYTES: Final = 1_200_000_000
Progress = Callable[[str, str], None]
Run = Callable[[str, dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class Graph:
    """A graph that was made.

    Attributes:
        content: Its bytes.
        made: What its writer says of it.
        files: Further files by their name in the bundle.
    """

    content: bytes
    made: Made
    files: dict[str, bytes]


@dataclass(frozen=True)
class Task:
    """One writer's work.

    Attributes:
        job: What it is asked.
        writer: `module:function`.
        after: Target whose graph it starts from; "" for none.
    """

    job: Job
    writer: str
    after: str = ""


def workers() -> int:
    """How many children may work at once: one a processor, each with memory of its own."""
    return max(1, min(os.cpu_count() or 1, _free_bytes() // CHILD_MEMORY_BYTES))


def make_all(
    tasks: Sequence[Task], ready: Mapping[str, Path], progress: Progress, run: Run | None = None
) -> tuple[dict[str, Graph], dict[str, str]]:
    """Run writers; (graph by target, reason by target that has none).

    Args:
        tasks: What to make.
        ready: Graphs that exist already, which tasks may start from.
        progress: Told (target, "started" | "done" | reason).
        run: Runs one child; the default limits its time and memory.
    """
    run = run or _run
    graphs: dict[str, Graph] = {}
    failed: dict[str, str] = {}
    places = dict(ready)
    waiting = list(tasks)
    with ThreadPoolExecutor(max_workers=workers()) as pool:
        running: dict[Future[dict[str, Any]], Task] = {}
        while waiting or running:
            for task in [task for task in waiting if not task.after or task.after in places or task.after in failed]:
                waiting.remove(task)
                if task.after in failed:
                    failed[task.job.target] = f"there is no {task.after} to start from: {failed[task.after]}"
                    continue
                progress(task.job.target, "started")
                source = str(places[task.after]) if task.after else ""
                document = msgspec.to_builtins(msgspec.structs.replace(task.job, source=source))
                running[pool.submit(run, task.writer, document)] = task
            if not running:
                for task in waiting:  # nobody makes what they wait for
                    failed[task.job.target] = f"there is no {task.after} to start from"
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                task = running.pop(future)
                target = task.job.target
                try:
                    graphs[target] = read_graph(Path(task.job.result), future.result())
                    places[target] = Path(task.job.result)
                    progress(target, "done")
                except ChildFailed as err:
                    failed[target] = err.reason
                    progress(target, err.reason)
    return graphs, failed


def read_graph(path: Path, said: dict[str, Any]) -> Graph:
    """The graph at `path` with what its writer said.

    Raises:
        ChildFailed: The writer left no file, said something else than it should, or used an operator that no device is given.
    """
    try:
        made = msgspec.convert(said, Made)
        graph = Graph(path.read_bytes(), made, {name: Path(file).read_bytes() for name, file in made.files.items()})
        if (runtime := SUFFIXES.get(path.suffix)) is not None and check_graph(graph.content, runtime, path.name) != sorted(made.operators):
            raise ChildFailed(f"the converter left another graph than it says: operators {', '.join(made.operators)[:200]} are not its own")
        return graph
    except ArtifactError as err:
        raise ChildFailed(str(err)) from err
    except (msgspec.ValidationError, OSError) as err:
        raise ChildFailed(f"the converter left no usable result: {str(err)[:200]}") from err


def _run(writer: str, document: dict[str, Any]) -> dict[str, Any]:
    return run_isolated(writer, document, timeout_s=TIMEOUT_S)


class Kept:
    """Runs writers, or takes what the same code made of the same package before.

    What a writer made is kept under the digest of its code, its libraries' versions, the package, the job and the graph that it started
    from. A failure is not kept: it is tried again.
    """

    def __init__(self, folder: Path, run: Run = _run) -> None:
        """A cache in `folder`, made when missing; `run` runs a child."""
        self._cache, self._run = StepCache(folder), run

    def __call__(self, writer: str, document: dict[str, Any]) -> dict[str, Any]:
        """The writer's answer, its files written where the job says."""
        job = msgspec.convert(document, Job)
        source = sha256_file(Path(job.source)) if job.source else ""
        inputs = {
            "package": sha256_file(Path(job.package) / PACKAGE_NAME),
            "target": job.target,
            "source": source,
            "calibration_rows": job.calibration_rows,
            "keep_float": job.keep_float,
        }
        step = self._cache.run(f"convert {job.target}", lambda: self._made(writer, document), inputs=inputs, code=[writer])
        Path(job.result).write_bytes(step.files["graph"])
        made = msgspec.json.decode(step.files["made"], type=Made)
        places = {name: Path(job.folder) / f"kept-{i}" for i, name in enumerate(sorted(made.files))}
        for name, place in places.items():
            place.write_bytes(step.files[f"file:{name}"])
        return answer(msgspec.structs.replace(made, files={name: str(place) for name, place in places.items()}))

    def prune(self) -> None:
        """Keep the cache small; a disk that refuses costs time only."""
        self._cache.keep_code()
        with contextlib.suppress(OSError):
            self._cache.prune()

    def _made(self, writer: str, document: dict[str, Any]) -> dict[str, bytes]:
        graph = read_graph(Path(document["result"]), self._run(writer, document))
        return {
            "graph": graph.content,
            "made": msgspec.json.encode(graph.made),
            **{f"file:{name}": content for name, content in graph.files.items()},
        }


def cache_folder() -> Path:
    """Where graphs are kept: EDGEFLEET_CACHE, else the user's cache folder."""
    named = os.environ.get("EDGEFLEET_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgefleet" / "convert"


def _free_bytes() -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return CHILD_MEMORY_BYTES  # unknown: one child at a time
