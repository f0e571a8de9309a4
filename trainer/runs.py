"""Run folders: one per training, `runs/<time>-<id>/`: run.json (what was asked, what came out, on what) and events.ndjson (as it went).

run.json is there from the start and written again after each phase, so that a run that was killed still says how far it came. The running
process holds a lock on events.ndjson: a record that says `running` and is not locked was interrupted. Dates live here only.
"""

import fcntl
import json
import math
import os
import platform
import secrets
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from edgefleet import __version__
from edgefleet.caching.code_versions import version_of
from edgefleet.digests import canonical_json
from edgefleet.errors import ConfigError
from edgefleet.files import write_durably

RUN_NAME: Final = "run.json"
EVENTS_NAME: Final = "events.ndjson"
MAX_RUN_BYTES: Final = 16_777_216
MAX_EVENTS: Final = 200_000
RUNNING: Final = "running"
INTERRUPTED: Final = "interrupted"
KEY_PACKAGES: Final = ("numpy", "pandas", "sklearn", "scipy", "skops", "tensorflow", "keras", "optuna", "joblib", "onnxruntime")
_SAVE_EVERY_S: Final = 1.0
_GIT_TIMEOUT_S: Final = 20


class Run:
    """A run that is going on. `record` is what run.json holds; `finish` writes it for the last time."""

    def __init__(self, runs_dir: Path, project_folder: Path | None = None) -> None:
        """Make the run folder.

        Args:
            runs_dir: Where run folders go; made when missing.
            project_folder: Whose git commit is recorded; none when left out.

        Raises:
            ConfigError: The folder cannot be made.
        """
        started = datetime.now(UTC)
        self.id = f"{started:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
        self.folder = runs_dir / self.id
        try:
            self.folder.mkdir(parents=True)
            self._events: int | None = os.open(self.folder / EVENTS_NAME, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            fcntl.flock(self._events, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as err:
            raise ConfigError(f"{runs_dir}: cannot make the run folder: {err.strerror}; name another with --runs-dir") from err
        self.seconds: dict[str, float] = {}
        self._begin = self._saved = time.monotonic()
        self.record: dict[str, Any] = {
            "format_version": 1,
            "id": self.id,
            "started_at": started.isoformat(),
            "environment": environment(),
            "git": None if project_folder is None else git_state(project_folder, runs_dir),
        }
        self._save(RUNNING, "")

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure the seconds of one phase, and keep the record as it is then."""
        begin = time.perf_counter()
        self.event("phase", name=name)
        try:
            yield
        finally:
            self.seconds[name] = round(time.perf_counter() - begin, 3)
            if time.monotonic() - self._saved > _SAVE_EVERY_S:
                self._save(RUNNING, "")

    def event(self, kind: str, **values: Any) -> None:
        """Append one line to events.ndjson: {"at": ISO time, "kind": ..., ...}; infinities and NaN become null."""
        line = {"at": datetime.now(UTC).isoformat(timespec="milliseconds"), "kind": kind, **plain_values(values)}
        if self._events is not None:
            os.write(self._events, json.dumps(line, allow_nan=False).encode() + b"\n")

    def finish(self, status: str, reason: str = "") -> None:
        """Write run.json; status is packaged | refused | failed. May be called again with more in the record."""
        self.record["total_seconds"] = round(time.monotonic() - self._begin, 3)
        self._save(status, reason)
        if self._events is not None:
            os.close(self._events)
            self._events = None

    def _save(self, status: str, reason: str) -> None:
        self.record |= {"status": status, "reason": reason, "seconds": self.seconds}
        write_durably(self.folder / RUN_NAME, canonical_json(plain_values(self.record)))
        self._saved = time.monotonic()


def environment() -> dict[str, Any]:
    """Python, platform, cores and the versions of the libraries that matter; no host name, nothing is imported."""
    found = {name: version_of(name) for name in KEY_PACKAGES}
    packages = {"edgefleet": __version__, **{name: version for name, version in found.items() if version is not None}}
    return {"python": platform.python_version(), "platform": platform.platform(), "cores": os.cpu_count(), "packages": packages}


def git_state(folder: Path, runs_dir: Path | None = None) -> dict[str, Any] | None:
    """The commit of the repository around `folder` and whether anything in `folder` differs from it; None without git or repository."""
    outside = [f":(exclude,top){_inside(runs_dir, folder)}"] if runs_dir is not None and _inside(runs_dir, folder) else []
    commit = _git(folder, "rev-parse", "--verify", "HEAD")
    changes = _git(folder, "status", "--porcelain", "--", ".", *outside)
    if commit is None or changes is None:
        return None
    return {"commit": commit.strip(), "dirty": bool(changes.strip())}


def read_runs(runs_dir: Path) -> list[dict[str, Any]]:
    """Every run, oldest first; a damaged run.json appears with the status `unreadable` instead of hiding."""
    return [_read(path) for path in sorted(runs_dir.glob(f"*/{RUN_NAME}"))]


def read_run(runs_dir: Path, run_id: str) -> dict[str, Any]:
    """One run's record by its id, or the beginning or the end of it.

    Raises:
        ConfigError: No run or more than one has such an id.
    """
    every = sorted(path.parent.name for path in runs_dir.glob(f"*/{RUN_NAME}"))
    found = [name for name in every if name == run_id] or [name for name in every if name.startswith(run_id) or name.endswith(run_id)]
    if not found or not run_id:
        known = f"the newest are {', '.join(every[-3:])}" if every else "there are none"
        raise ConfigError(f"{runs_dir}: no run {run_id!r}; {known}; `edgefleet runs list` lists them")
    if len(found) > 1:
        raise ConfigError(f"{runs_dir}: {len(found)} runs fit {run_id!r}: {', '.join(found[:5])}; write more of the id")
    return _read(runs_dir / found[0] / RUN_NAME)


def read_events(run_folder: Path) -> list[dict[str, Any]]:
    """The events of a run in order, at most the first 200,000; a line that a kill cut in two is left out."""
    events = []
    with suppress(FileNotFoundError), (run_folder / EVENTS_NAME).open("rb") as stream:
        for line in stream:
            with suppress(ValueError, RecursionError):
                event = json.loads(line)
                if isinstance(event, dict):
                    events.append(event)
            if len(events) >= MAX_EVENTS:
                break
    return events


def plain_values(value: Any) -> Any:
    """`value` as JSON can hold it: NaN and infinities become null, numpy's numbers and arrays plain ones, structs tables."""
    if isinstance(value, bool | int | str | None):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): plain_values(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain_values(entry) for entry in (sorted(value) if isinstance(value, set | frozenset) else value)]
    if isinstance(value, msgspec.Struct):
        return plain_values(msgspec.to_builtins(value))
    return plain_values(value.tolist()) if hasattr(value, "tolist") else str(value)


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_RUN_BYTES:
            raise ValueError(f"larger than {MAX_RUN_BYTES} bytes")
        record = json.loads(path.read_bytes())
        if not isinstance(record, dict):
            raise ValueError("no JSON object")
    except (OSError, ValueError, RecursionError) as err:
        return {"id": path.parent.name, "status": "unreadable", "reason": str(err)}
    if record.get("status") == RUNNING and not _is_locked(path.with_name(EVENTS_NAME)):
        record |= {
            "status": INTERRUPTED,
            "reason": "the training was ended from outside; run it again, it goes on from its cache",
        }
    return {"id": path.parent.name, **record}


def _is_locked(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _git(folder: Path, *arguments: str) -> str | None:
    # A hook's variables would name another repository than the folder's own.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_GIT_TIMEOUT_S, env=clean, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _inside(runs_dir: Path, folder: Path) -> str:
    """`runs_dir` as git names it below the repository's top, or "" when it lies outside of `folder`."""
    try:
        below = runs_dir.resolve().relative_to(folder.resolve())
    except ValueError:
        return ""
    top = _git(folder, "rev-parse", "--show-prefix")
    return "" if top is None else f"{top.strip()}{below}"
