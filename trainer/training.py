"""The training itself: read, judge the rows, search and fit every candidate, judge each, choose, test once, package, report.

Each step is cached by what it depends on (see `cache.py`); a repeat runs nothing, an interrupted training goes on where it stood.
"""

import math
import os
import shlex
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from edgefleet.caching.cache import StepCache
from edgefleet.errors import ConfigError, InputError, VerdictError
from edgefleet.manifest import Override
from edgefleet.package import ModelPackage
from trainer.candidates import CANDIDATES, check_candidates
from trainer.dataset import SPLITS
from trainer.gates import Gate, check_overrides, overrule
from trainer.metrics import METRICS
from trainer.project import Project
from trainer.recording import note_of, report_candidates, report_winner, start_report
from trainer.runs import Run
from trainer.stages import Stages
from trainer.validated import Validated

BASELINES: Final = {"classification": ("majority", "logistic"), "regression": ("mean", "ridge"), "anomaly": ("mahalanobis",)}


@dataclass(frozen=True)
class Outcome:
    """One candidate's result; `package` is None when a gate forbids it."""

    candidate: Validated
    package: ModelPackage | None

    @property
    def name(self) -> str:
        """Candidate name."""
        return self.candidate.name


@dataclass(frozen=True)
class Training:
    """What a training left behind.

    Attributes:
        project: The settings.
        run: The run folder.
        record: What run.json holds.
        package: The winner's package.
        winner: The winner's name.
        outcomes: Every candidate, in the order asked.
        baselines: The baselines, which are never packaged.
        test: Metric name -> {value, low, high, n} of the winner on the test rows.
        steps: Name -> why the step ran, or that it was cached.
    """

    project: Project
    run: Path
    record: dict[str, Any]
    package: ModelPackage
    winner: str
    outcomes: list[Outcome]
    baselines: list[Validated]
    test: dict[str, Any]
    steps: dict[str, str]


class GateRefused(VerdictError):
    """No candidate may be packaged.

    Attributes:
        run: The run folder, where everything is recorded.
        gates: The gates of each candidate; of the rows under "rows" when they stopped the training before any candidate.
        metrics: {value, low, high, n} of the goal's metric for each candidate on the validation rows.
    """

    def __init__(self, run: Path, gates: dict[str, list[Gate]], blocking: dict[str, list[Gate]], metrics: dict[str, Any]) -> None:
        self.run, self.gates, self.metrics = run, gates, metrics
        named = sorted({gate.gate for forbidden in blocking.values() for gate in forbidden})
        reasons = "; ".join(f"{name}: {gate.gate} {gate.verdict}: {gate.sentence}" for name, some in blocking.items() for gate in some)
        remedy = f"Mend the rows or the goal, or overrule with --override-gate {' --override-gate '.join(named)} --reason '...'"
        super().__init__(f"no package was written. {reasons} {remedy}")


def train(
    project: Project,
    *,
    candidates: Sequence[str] | None = None,
    overrides: Sequence[Override] = (),
    champion: Path | None = None,
    runs_dir: Path | None = None,
) -> ModelPackage:
    """Train and return the winner's package; see `run_training`."""
    return run_training(project, candidates=candidates, overrides=overrides, champion=champion, runs_dir=runs_dir).package


def run_training(
    project: Project,
    *,
    candidates: Sequence[str] | None = None,
    overrides: Sequence[Override] = (),
    champion: Path | None = None,
    runs_dir: Path | None = None,
    output: Path | None = None,
    cache_dir: Path | None = None,
    said: Callable[[str], None] | None = None,
) -> Training:
    """Train every candidate, judge each, package those that pass, choose the best.

    Args:
        project: From `load_project`.
        candidates: Names instead of the project's.
        overrides: Gates that a person overrules, with reasons.
        champion: Package folder of the model in service; gate G7 compares with it on the same rows.
        runs_dir: Where run folders go; `runs` in the project folder when None.
        cache_dir: Where steps are cached; `cache` in the runs folder when None.
        output: A second copy of the winner's package; must not exist.
        said: Told each step as it begins, for a progress line.

    Raises:
        GateRefused: A gate forbids every candidate.
        ConfigError: A setting is wrong.
        InputError: The rows are not what the settings say.
        ArtifactError: The champion is damaged.
    """
    names = list(candidates) if candidates else project.search.candidates
    check_candidates(names, project.task)
    check_overrides(overrides)
    if project.tracking.mlflow:
        from trainer.tracking import check_tracking

        check_tracking(project.tracking)
    if output is not None and output.exists():
        raise ConfigError(f"{output} exists already; name a folder that does not exist")
    old = None if champion is None else ModelPackage.open(champion)
    folder = runs_dir or project.folder / "runs"
    run = Run(folder, project.folder)
    run.record |= {
        "project": project.name,
        "question": project.goal.question,
        "settings": project.tables(),
        "project_digest": project.digest,
        "seed": project.search.seed,
        "candidates_asked": names,
        "champion": None if old is None else old.digest,
        "overrides_asked": [{"gate": o.gate, "reason": o.reason} for o in overrides],
        "reproduce": _again(project, run, runs_dir),
    }
    stages = Stages(project, run, StepCache(cache_dir or folder / "cache"), old, said or (lambda _: None))
    try:
        return _steps(stages, names, overrides, output)
    except GateRefused as err:
        stages.finish("refused", str(err))
        raise
    except BaseException as err:
        stages.finish("failed", f"{type(err).__name__}: {err}")
        raise


def _steps(stages: Stages, names: list[str], overrides: Sequence[Override], output: Path | None) -> Training:
    project, run = stages.project, stages.run
    rows = stages.read()
    counts = {name: int((rows.split == name).sum()) for name in SPLITS}
    run.record |= {"data_digest": rows.digest, "rows": counts, "classes": rows.classes}
    run.record["report"] = start_report(project, run, rows)
    row_gates = stages.judge_rows(rows)
    stopped = overrule(row_gates, overrides, project.gates.allow_inconclusive)[2]
    if stopped:
        run.record["report"]["gates"] = [msgspec.to_builtins(gate) for gate in row_gates]
        raise GateRefused(run.folder, {"rows": row_gates}, {"rows": stopped}, {})
    stages.compare_with_champion(rows)
    baselines = [stages.validate(rows, name, row_gates, overrides, baseline=True) for name in baseline_names(project, names)]
    validated = [stages.validate(rows, name, row_gates, overrides) for name in names]
    passed = [v for v in validated if not v.blocking]
    run.record["candidates"] = {v.name: note_of(v) for v in validated}
    report_candidates(run.record["report"], project, validated, baselines)
    if not passed:
        gates = {v.name: v.gates for v in validated}
        raise GateRefused(run.folder, gates, {v.name: v.blocking for v in validated}, {v.name: v.metric for v in validated})
    sign = 1 if METRICS[project.goal.metric].greater_is_better else -1
    # The first of equals; a metric that is not defined, whose gate a person overruled, is the least.
    winner = max(passed, key=lambda v: -math.inf if v.metric["value"] is None else sign * float(v.metric["value"]))
    test = stages.test(rows, winner)
    packages = {v.name: stages.package(rows, v, test if v is winner else None) for v in passed}
    package = packages[winner.name]
    if output is not None:
        shutil.copytree(package.folder, output)
        package = ModelPackage.open(output)
    folders = {name: str(p.folder.relative_to(run.folder)) for name, p in packages.items()}
    report_winner(project, run, winner, test, folders)
    run.record |= {"winner": winner.name, "test": test["metrics"], "package": str(package.folder), "package_digest": package.digest}
    run.record["packages"] = {name: str(p.folder) for name, p in packages.items()}
    stages.finish("packaged")
    return Training(
        project=project,
        run=run.folder,
        record=run.record,
        package=package,
        winner=winner.name,
        outcomes=[Outcome(candidate=v, package=packages.get(v.name)) for v in validated],
        baselines=baselines,
        test=test["metrics"],
        steps=stages.why,
    )


def _again(project: Project, run: Run, runs_dir: Path | None) -> str:
    """The command that repeats a run, from the present folder."""
    words = ["edgefleet", "train", os.path.relpath(project.folder), "--replay", run.id]
    words += [] if runs_dir is None else ["--runs-dir", os.path.relpath(runs_dir)]
    return shlex.join(words)


def baseline_names(project: Project, names: Sequence[str]) -> list[str]:
    """The baselines of a task that are not candidates themselves, and that take the rows: whole windows are nothing for linear models."""
    wanted = BASELINES[project.task]
    if not wanted:
        raise InputError(f"task {project.task!r} has no baseline")
    window = project.cleaning.window
    whole = window is not None and not window.features and not window.lags
    return [name for name in wanted if name not in names and (CANDIDATES[name].takes_windows or not whole)]
