"""A run repeated from nothing, and what differs from the first time.

The settings are those that the run recorded, not those of today's project.toml; the step cache starts empty, so that every step runs.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgefleet.errors import ArtifactError
from edgefleet.manifest import Override
from trainer.project import project_from
from trainer.replay import Difference, compare_replay, replay_settings
from trainer.runs import read_run, read_runs
from trainer.training import GateRefused, run_training


@dataclass(frozen=True)
class Replay:
    """A run and its repeat.

    Attributes:
        old: Id of the run.
        new: Id of the repeat.
        differences: Causes first, then results; empty: reproduced.
    """

    old: str
    new: str
    differences: list[Difference]

    @property
    def sentences(self) -> list[str]:
        """The differences in words."""
        return [difference.sentence for difference in self.differences]

    @property
    def reproduced(self) -> bool:
        """Whether the results are the same; what was asked may differ (another commit, a newer library) and is named all the same."""
        return all(difference.kind == "cause" for difference in self.differences)

    def plain(self) -> dict[str, Any]:
        """Plain values, for --json."""
        found = [{"what": d.what, "kind": d.kind, "before": d.before, "now": d.now} for d in self.differences]
        return {"run": self.old, "replay": self.new, "reproduced": self.reproduced, "differences": found}


def replay_run(project_dir: Path, wanted: str, runs_dir: Path, champion: Path | None = None) -> Replay:
    """Repeat a run, also one that its gates refused: then the repeat must be refused alike.

    Args:
        project_dir: The project folder, for its source; its settings are not read.
        wanted: Id of the run, or a beginning of it that no other run has.
        runs_dir: Where its folder is; the repeat becomes a run there too.
        champion: Package that the run was compared with, where it is none of the winners of `runs_dir`.

    Raises:
        ConfigError: No such run, or more than one.
        ArtifactError: Its record is damaged, or its champion's package is gone.
    """
    record = read_run(runs_dir, wanted)
    settings = replay_settings(record)
    project = project_from(settings["tables"], project_dir.resolve())
    if champion is None and settings["champion"] is not None:
        champion = _package(runs_dir, settings["champion"])
    with tempfile.TemporaryDirectory(prefix="edgefleet-replay-") as cache:
        try:
            repeat = run_training(
                project,
                candidates=settings["candidates"],
                overrides=[Override(gate=o["gate"], reason=o["reason"]) for o in settings["overrides"]],
                champion=champion,
                runs_dir=runs_dir,
                cache_dir=Path(cache),
            ).run
        except GateRefused as refused:
            repeat = refused.run
    return Replay(str(record["id"]), repeat.name, compare_replay(record, read_run(runs_dir, repeat.name)))


def _package(runs_dir: Path, digest: str) -> Path:
    for record in read_runs(runs_dir):
        folder = Path(str(record.get("package", "")))
        if record.get("package_digest") == digest and folder.is_dir():
            return folder
    raise ArtifactError(f"the champion {digest[:12]} of the run is not among the winners in {runs_dir}; say where it lies with --champion")
