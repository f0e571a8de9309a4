"""What a conversion is asked to do, and how its children are told."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converter.declared import ExplainMethod
from converter.isolate import run_isolated
from converter.kept import Kept
from converter.recipes import Recipe
from converter.targets import Job
from converter.workshop import TIMEOUT_S, Progress
from edgefleet.package import ModelPackage


@dataclass(frozen=True)
class Plan:
    """What to build.

    Attributes:
        package: What is converted.
        recipes: The targets.
        explain: How answers shall be explained.
        calibration_rows: Most calibration rows to look at; 0 takes all.
        folder: An empty folder for intermediate files.
        progress: Told what happens.
        kept: What earlier children made; None: every child works anew.
    """

    package: ModelPackage
    recipes: Sequence[Recipe]
    explain: ExplainMethod
    calibration_rows: int
    folder: Path
    progress: Progress
    kept: Kept | None = None

    def job(self, target: str, suffix: str, keep_float: Sequence[str] = ()) -> Job:
        """One target's job, with a folder of its own."""
        folder = self.folder / target
        folder.mkdir(parents=True, exist_ok=True)
        return Job(
            package=str(self.package.folder),
            target=target,
            result=str(folder / f"graph{suffix}"),
            folder=str(folder),
            calibration_rows=self.calibration_rows,
            keep_float=list(keep_float),
            explain=self.explain if target == "c" else "auto",
        )

    def child(self, step: str, function: str, job: dict[str, Any], inputs: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
        """(a child's answer, "done" or "cached"); see `Kept.child`."""
        document = {"package": str(self.package.folder), **job}
        if self.kept is None:
            return run_isolated(function, document, timeout_s=TIMEOUT_S), "done"
        said, before = self.kept.child(step, function, document, inputs)
        return said, "cached" if before else "done"
