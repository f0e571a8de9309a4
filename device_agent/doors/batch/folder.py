"""A directory as a sensor: every file that is renamed into it is scored once, its answers appear beside it or in another folder.

Complete is a file that has its final name: write under a name that begins with a dot (or ends in .partial or .tmp), then rename. What was
scored is told by the journals beside the answers, so that a restart scores nothing twice and goes on in the middle of a file. A file that
cannot be read at all is said, noted in its journal and left alone; another file under the same name is a new one.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from heapq import nsmallest
from pathlib import Path
from typing import Final

from device_agent.doors.batch.journal import Journal, journal_of, read_journal
from device_agent.doors.batch.planning import SUFFIXES, Places, Wishes, plan_run
from device_agent.doors.batch.rows import Position, Tally
from device_agent.doors.batch.run import run_alone
from device_agent.doors.batch.sinks import OutputBusy, alone
from device_agent.scorer import Scorer
from edgefleet.errors import ConfigError, InputError

LOG = logging.getLogger(__name__)
# Files that are taken up in one look; the others wait for the next one.
FILES_A_LOOK: Final = 1000
_OURS: Final = (".scores.", ".bad.")
_UNFINISHED: Final = (".partial", ".tmp", ".journal")


@dataclass(frozen=True, slots=True)
class _Seen:
    """What tells one file from another under the same name."""

    size_bytes: int
    changed_ns: int
    inode: int

    @property
    def identity(self) -> dict[str, str]:
        """What a journal says about it."""
        return {"file": f"{self.size_bytes} bytes, changed {self.changed_ns}, inode {self.inode}"}


class WatchedFolder:
    """Scores files as they come.

    Args:
        folder: Where they come in.
        scorer: The model.
        wishes: What an answer looks like.
        output: Folder of the answers, None: beside the files.
        keep_bad: Whether bad rows also go to a side file.

    Attributes:
        files: Files scored since the start.
        failed: Files that could not be read at all.
        tally: Their rows.

    Raises:
        ConfigError: A folder is not there.
    """

    def __init__(self, folder: Path, scorer: Scorer, wishes: Wishes, output: Path | None = None, keep_bad: bool = False) -> None:
        for path in (folder, output or folder):
            if not path.is_dir():
                raise ConfigError(f"{path}: there is no such folder; make it first")
        self._folder, self._output, self._scorer, self._wishes, self._keep_bad = folder, output or folder, scorer, wishes, keep_bad
        self._done: dict[str, _Seen] = {}
        self.files = self.failed = 0
        self.tally = Tally()

    def look(self, stopped: Callable[[], bool]) -> int:
        """Score what is there and was not scored, oldest first; how many files that were.

        Args:
            stopped: Asked after each chunk; True ends the look, and the next one (or process) goes on where it ended.

        Raises:
            StorageError: The disk refuses.
        """
        count = 0
        for _, name, seen in nsmallest(FILES_A_LOOK, self._candidates()):
            if stopped():
                break
            if self._score(self._folder / name, seen, stopped):
                self._done[name] = seen
                count += 1
        return count

    def _candidates(self) -> Iterator[tuple[int, str, _Seen]]:
        there = set()
        for path in self._folder.iterdir():
            name = path.name
            ours = self._output == self._folder and any(part in name for part in _OURS)
            if path.suffix.lower() not in SUFFIXES or name.startswith(".") or name.endswith(_UNFINISHED) or ours:
                continue
            try:
                status = path.stat()
            except OSError:  # taken away meanwhile
                continue
            if not path.is_file():
                continue
            there.add(name)
            seen = _Seen(status.st_size, status.st_mtime_ns, status.st_ino)
            if self._done.get(name) != seen:
                yield status.st_mtime_ns, name, seen
        self._done = {name: seen for name, seen in self._done.items() if name in there}

    def _score(self, path: Path, seen: _Seen, stopped: Callable[[], bool]) -> bool:
        """Score one file; False when it is not done yet."""
        output = self._output / f"{path.stem}.scores{path.suffix.lower()}"
        if _is_done(_journal(output, seen)):
            return True
        try:
            with alone(output):
                return self._score_alone(path, output, seen, stopped)
        except OutputBusy as err:
            LOG.info("%s: %s", path.name, err)
            return False

    def _score_alone(self, path: Path, output: Path, seen: _Seen, stopped: Callable[[], bool]) -> bool:
        journal = _journal(output, seen)
        if _is_done(journal):  # by another process, since we looked
            return True
        bad = self._output / f"{path.name}.bad.ndjson" if self._keep_bad else None
        try:
            plan = plan_run(self._scorer, self._wishes, Places(source=path, output=output, bad=bad))
            plan = replace(plan, options=plan.options | seen.identity)
            ended = False

            def said(_: Position, __: int | None) -> bool:
                nonlocal ended
                ended = stopped()
                return ended

            resume = journal is not None and journal.options == plan.options
            outcome = run_alone(plan, resume, said)
        except OutputBusy:
            raise
        except (InputError, ConfigError) as err:
            if not path.exists():
                return True
            self.failed += 1
            LOG.error("%s: %s", path.name, err)
            note = Journal(input_name=path.name, input_size_bytes=seen.size_bytes, input_sha256="", options=seen.identity)
            note.state, note.why = "failed", str(err)[:500]
            note.write(journal_of(output))
            return True
        if not ended:
            self.files += 1
            self.tally.add(outcome.tally)
            LOG.info("%s: %d rows scored, %d rejected", path.name, outcome.tally.scored, outcome.tally.refused)
        return not ended


def _journal(output: Path, seen: _Seen) -> Journal | None:
    """The journal of this very file's answers, None where there is none that can be read."""
    try:
        journal = read_journal(journal_of(output))
    except InputError:
        return None
    return journal if journal is not None and journal.options.get("file") == seen.identity["file"] else None


def _is_done(journal: Journal | None) -> bool:
    return journal is not None and journal.state in ("done", "failed")
