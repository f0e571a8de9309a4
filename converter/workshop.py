"""Children at work: every target's writer in a process of its own, several at once within the memory that is free.

A writer that crashes, hangs or prints is that target's failure and nobody else's. Targets made from another target's graph wait for it.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from converter.isolate import ChildFailed, run_isolated
from converter.targets import Job, Made
from edgefleet.errors import ArtifactError
from edgefleet.graphs import SUFFIXES, check_graph

TIMEOUT_S: Final = 600.0
# What a writer with TensorFlow takes at most; others take a fifth of it.
CHILD_MEMORY_BYTES: Final = 1_200_000_000
# Key of a writer's answer that was not made but taken from the cache.
CACHED: Final = "cached"
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
        progress: Told (target, "started" | "done" | "cached" | reason).
        run: Runs one child, or takes what it answered before, then with the key `cached`; the default limits its time and memory.
    """
    run = run or run_writer
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
                    said = future.result()
                    before = said.pop(CACHED, False)
                    graphs[target] = read_graph(Path(task.job.result), said)
                    places[target] = Path(task.job.result)
                    progress(target, "cached" if before else "done")
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


def run_writer(writer: str, document: dict[str, Any]) -> dict[str, Any]:
    """A writer in a child process with limits of time and memory."""
    return run_isolated(writer, document, timeout_s=TIMEOUT_S)


def _free_bytes() -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return CHILD_MEMORY_BYTES  # unknown: one child at a time
