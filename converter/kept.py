"""What children of earlier conversions made, kept under the digest of everything that it depends on: code, package, libraries, job."""

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from converter.targets import Job, Made, answer
from converter.to_c.compiler import compiler_seen
from converter.workshop import CACHED, Run, read_graph, run_writer
from edgefleet.caching import StepCache
from edgefleet.digests import sha256_file
from edgefleet.package import PACKAGE_NAME

_ANSWER: Final = "answer.json"
_FILE: Final = "file in the folder"


class Kept:
    """Runs children, or takes what the same code made of the same package before.

    What a writer made is kept under the digest of its code, its libraries' versions, the package, the job, the graph that it started from
    and, of C source, the compiler that measured it; what another child answered under that of its code, the package and what else it is
    told to depend on. A failure is not kept: it is tried again.
    """

    def __init__(self, folder: Path, run: Run = run_writer) -> None:
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
            "explain": job.explain,
            # What C source takes is asked of the compiler at hand.
            "compiler": compiler_seen() if job.target == "c" else "",
        }
        step = self._cache.run(f"convert {job.target}", lambda: self._made(writer, document), inputs=inputs, code=[writer])
        Path(job.result).write_bytes(step.files["graph"])
        made = msgspec.json.decode(step.files["made"], type=Made)
        places = {name: Path(job.folder) / f"kept-{i}" for i, name in enumerate(sorted(made.files))}
        for name, place in places.items():
            place.write_bytes(step.files[f"file:{name}"])
        said = answer(msgspec.structs.replace(made, files={name: str(place) for name, place in places.items()}))
        return {**said, CACHED: True} if step.hit else said

    def child(self, step: str, function: str, job: dict[str, Any], inputs: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
        """The answer of any child, and whether it was taken from the cache.

        Files that the answer names and that lie in the job's folder are kept with it, and written there again.

        Args:
            step: Name for people.
            function: `module:function`.
            job: Its argument, with `package` and `folder`; an answer that tells a failure (`failed`) is not kept.
            inputs: What the answer depends on beside code and package, as JSON values.
        """
        folder = Path(job["folder"])
        depends = {**inputs, "package": sha256_file(Path(job["package"]) / PACKAGE_NAME)}

        def made() -> dict[str, bytes]:
            said = self._run(function, job)
            files: dict[str, bytes] = {}
            aside = _aside(said, folder, files)
            if said.get("failed"):
                raise _NotKept(said)
            return {**files, _ANSWER: json.dumps(aside).encode()}

        try:
            found = self._cache.run(step, made, inputs=depends, code=[function])
        except _NotKept as told:
            return told.said, False
        for name, content in found.files.items():
            if name != _ANSWER:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(content)
        said: dict[str, Any] = _back(json.loads(found.files[_ANSWER]), folder)
        return said, found.hit

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


class _NotKept(Exception):
    def __init__(self, said: dict[str, Any]) -> None:
        self.said = said
        super().__init__()


def _aside(value: Any, folder: Path, files: dict[str, bytes]) -> Any:
    """The answer with {_FILE: name} in place of paths of files in the folder, whose content goes into `files`."""
    if isinstance(value, dict):
        return {key: _aside(one, folder, files) for key, one in value.items()}
    if isinstance(value, list):
        return [_aside(one, folder, files) for one in value]
    if isinstance(value, str) and value.startswith(f"{folder}{os.sep}") and Path(value).is_file():
        name = str(Path(value).relative_to(folder))
        files[name] = Path(value).read_bytes()
        return {_FILE: name}
    return value


def _back(value: Any, folder: Path) -> Any:
    if isinstance(value, dict):
        return str(folder / value[_FILE]) if set(value) == {_FILE} else {key: _back(one, folder) for key, one in value.items()}
    return [_back(one, folder) for one in value] if isinstance(value, list) else value
