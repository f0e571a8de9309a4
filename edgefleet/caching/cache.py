"""Cached steps: a step whose code, inputs and libraries are unchanged does not run again; the answer says why a step ran.

A step's outcome is a set of files. An entry is one file, `entries/<key>`, complete or absent whatever happens in between; each file in it
is checked by its sha256 when it is read, and a damaged entry runs the step again. `steps/<name>.json` keeps what the step last ran with, to
say what changed; `code.json` what was read of the code, so that the next process need not. Processes that want the same entry wait for each
other; other steps do not wait. The size is bounded by `prune` only.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edgefleet.caching.code_digest import CodeDigest, Sources
from edgefleet.digests import canonical_json, sha256_hex
from edgefleet.errors import ArtifactError, StorageError
from edgefleet.files import write_durably

FORMAT_VERSION: Final = 1
MAX_HEADER_BYTES: Final = 1_048_576
MAX_CACHE_BYTES: Final = 2_000_000_000
_SHOWN: Final = 60  # characters of a value in a sentence


@dataclass(frozen=True)
class StepResult:
    """What a step made, now or earlier.

    Attributes:
        files: Content by name.
        key: Sha256 of name, code, inputs and library versions.
        hit: Whether it was taken from the cache.
        why: One sentence: why it ran, or that nothing changed.
    """

    files: dict[str, bytes]
    key: str
    hit: bool
    why: str


class StepCache:
    """The cache of one project; several processes may use one folder."""

    def __init__(self, folder: Path, packages: Mapping[str, Path] | None = None) -> None:
        """A cache in `folder`, made when missing.

        Args:
            folder: Where entries are kept.
            packages: Whose code counts, folder by top-level name; ours when left out. Of all others the version counts.
        """
        self.folder = folder
        self._sources = Sources(packages, folder / "code.json")

    def run(self, name: str, function: Callable[[], dict[str, bytes]], *, inputs: Mapping[str, Any], code: Sequence[object]) -> StepResult:
        """Run a step, or take what it made when it last ran with the same code, inputs and libraries.

        Args:
            name: Name of the step, for people; one name always means the same step.
            function: Makes the outcome; called at most once. When it raises, nothing is kept.
            inputs: Everything else that the outcome depends on, as JSON values: settings, digests of data and of earlier steps' files.
            code: Functions, classes, modules or their names whose code, and all that it reaches, makes the outcome (see `code_digest`).

        Raises:
            TypeError: An input is no JSON value, or an item of `code` has no source.
            StorageError: The folder cannot be written.
        """
        digest = self._sources.digest(code)
        key, record = step_key(name, digest, inputs)
        with self._lock(key):
            files, trouble = self._read(key)
            if files is not None:
                return StepResult(files=files, key=key, hit=True, why="unchanged: the same code, inputs and library versions ran before")
            why = trouble or self._difference(name, record)
            files = function()
            try:
                write_durably(self._entry(key), _packed(name, files))
                write_durably(self._record(name), canonical_json(record))
            except OSError as err:
                raise StorageError(f"{self.folder}: the cache of step {name!r} cannot be written: {err.strerror}; make room") from err
        return StepResult(files=files, key=key, hit=False, why=why)

    def keep_code(self) -> None:
        """Keep what was read of the code, so that the next process need not read it again; a disk that refuses costs time only."""
        with contextlib.suppress(OSError):
            self._sources.keep()

    def prune(self, max_bytes: int = MAX_CACHE_BYTES) -> int:
        """Remove the entries used longest ago until the rest takes at most `max_bytes`; return how many bytes went."""
        entries = []
        for path in (self.folder / "entries").glob("*"):
            with contextlib.suppress(OSError):  # another process may have removed it
                entries.append((path.stat().st_mtime_ns, path.stat().st_size, path))
        total, removed = sum(size for _, size, _ in entries), 0
        for _, size, path in sorted(entries):
            if total - removed <= max_bytes:
                break
            path.unlink(missing_ok=True)
            removed += size
        return removed

    def _entry(self, key: str) -> Path:
        return self.folder / "entries" / key

    def _record(self, name: str) -> Path:
        return self.folder / "steps" / f"{sha256_hex(name.encode())[:32]}.json"

    def _read(self, key: str) -> tuple[dict[str, bytes] | None, str]:
        """The files of an entry, else None and, when it was there and is damaged, a sentence."""
        path = self._entry(key)
        try:
            content = path.read_bytes()
            os.utime(path)  # prune removes what was used longest ago
        except FileNotFoundError:
            return None, ""
        except OSError as err:
            return None, f"its cached result {key[:12]} cannot be read: {err.strerror}"
        try:
            return _unpacked(content), ""
        except ArtifactError as err:
            return None, f"its cached result {key[:12]} is damaged: {err}"

    def _difference(self, name: str, record: dict[str, Any]) -> str:
        """Why there is no entry, told by what the step last ran with."""
        try:
            before = json.loads(self._record(name).read_bytes())
            return difference(before, record)
        except FileNotFoundError:
            return "it runs for the first time"
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return "the note of its last run cannot be read"

    @contextlib.contextmanager
    def _lock(self, key: str) -> Iterator[None]:
        """Hold the lock of one key. Its file is removed by the holder, so who comes next looks whether it is still the one on disk."""
        path = self.folder / "locks" / key
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            while True:
                handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
                fcntl.flock(handle, fcntl.LOCK_EX)
                with contextlib.suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(handle), path.stat()):
                        break
                os.close(handle)
        except OSError as err:
            raise StorageError(f"{self.folder}: the cache folder cannot be used: {err.strerror}; make it writable") from err
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            os.close(handle)


def step_key(name: str, code: CodeDigest, inputs: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Key of a step, and the record that explains it.

    Raises:
        TypeError: An input is no JSON value.
    """
    try:
        record = {"name": name, "units": code.units, "versions": code.versions, "inputs": json.loads(canonical_json(dict(inputs)))}
    except (TypeError, ValueError) as err:
        raise TypeError(f"step {name!r}: an input is no JSON value ({err}): pass a digest of it") from err
    key = sha256_hex(canonical_json(record))
    return key, {**record, "key": key}


def difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    """What changed between two records of a step, as one sentence; libraries first, because a new Python changes all digests of code."""
    found: list[str] = []
    for library, old, new in _changed(before["versions"], now["versions"]):
        found.append(f"version of {library} changed from {old} to {new}")
    units = [unit for unit, _, _ in _changed(before["units"], now["units"])]
    if units:
        more = f" and {len(units) - 3} more" if len(units) > 3 else ""
        found.append(f"code of {', '.join(units[:3])}{more} changed")
    for name, old, new in _changed(before["inputs"], now["inputs"]):
        found.append(f"input {name!r} changed from {_shown(old)} to {_shown(new)}")
    return "; ".join(found) or "its cached result was removed"


def _changed(before: dict[str, Any], now: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """Names whose values differ, going down into tables; "nothing" stands for an absent one."""
    found: list[tuple[str, Any, Any]] = []
    for name in sorted({*before, *now}):
        old, new = before.get(name, "nothing"), now.get(name, "nothing")
        if isinstance(old, dict) and isinstance(new, dict):
            found += [(f"{name}.{below}", a, b) for below, a, b in _changed(old, new)]
        elif old != new or type(old) is not type(new):
            found.append((name, old, new))
    return found


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def _packed(name: str, files: dict[str, bytes]) -> bytes:
    listed = [{"name": file, "size_bytes": len(content), "sha256": sha256_hex(content)} for file, content in sorted(files.items())]
    header = json.dumps({"format_version": FORMAT_VERSION, "step": name, "files": listed}).encode()
    return b"".join([header, b"\n", *(content for _, content in sorted(files.items()))])


def _unpacked(content: bytes) -> dict[str, bytes]:
    header, _, _ = content[:MAX_HEADER_BYTES].partition(b"\n")
    files, at = {}, len(header) + 1
    try:
        table = json.loads(header)
        if table["format_version"] != FORMAT_VERSION:
            raise ArtifactError(f"format version {table['format_version']!r} is unknown")
        for entry in table["files"]:
            end = at + int(entry["size_bytes"])
            files[str(entry["name"])] = content[at:end]
            if sha256_hex(content[at:end]) != entry["sha256"]:
                raise ArtifactError(f"{entry['name']} differs from its sha256")
            at = end
    except (ValueError, KeyError, TypeError, RecursionError) as err:
        raise ArtifactError(f"its header cannot be read ({str(err)[:80]})") from err
    if at != len(content):
        raise ArtifactError(f"{len(content)} bytes where {at} were written")
    return files
