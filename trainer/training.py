"""The training itself: read, judge the rows, fit every candidate, judge each, choose, package."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgefleet.errors import ConfigError, InputError, VerdictError
from edgefleet.manifest import Override
from edgefleet.package import ModelPackage
from trainer.candidates import check_candidates, fit, open_model
from trainer.dataset import DataSet, load_rows
from trainer.gates import (
    Gate,
    check_overrides,
    judge_champion,
    judge_leakage,
    judge_minimum,
    judge_quality,
    judge_schema,
    judge_slices,
    overrule,
)
from trainer.intervals import proportion
from trainer.packaging import Validated, evaluate, share, write
from trainer.project import Project
from trainer.runs import Run


@dataclass(frozen=True)
class Outcome:
    """One candidate's result; `package` is None when a gate forbids it."""

    candidate: Validated
    package: ModelPackage | None

    @property
    def name(self) -> str:
        """Candidate name."""
        return self.candidate.fitted.name


@dataclass(frozen=True)
class Training:
    """What a training left behind.

    Attributes:
        project: The settings.
        run: The run folder.
        package: The winner's package.
        winner: The winner's name.
        outcomes: Every candidate, in the order asked.
        test: The winner on the test rows.
    """

    project: Project
    run: Path
    package: ModelPackage
    winner: str
    outcomes: list[Outcome]
    test: dict[str, Any]


class GateRefused(VerdictError):
    """No candidate may be packaged.

    Attributes:
        run: The run folder, where everything is recorded.
        gates: The gates of each candidate; of the rows under "rows" when they stopped the training before any candidate.
        accuracies: Validation accuracy of each candidate.
    """

    def __init__(self, run: Path, gates: dict[str, list[Gate]], blocking: dict[str, list[Gate]], accuracies: dict[str, Any]) -> None:
        self.run, self.gates, self.accuracies = run, gates, accuracies
        named = sorted({gate.gate for forbidden in blocking.values() for gate in forbidden})
        reasons = "; ".join(f"{name}: {gate.gate} {gate.verdict}: {gate.sentence}" for name, some in blocking.items() for gate in some)
        remedy = f"mend the rows or the goal, or overrule with --override-gate {' --override-gate '.join(named)} --reason '...'"
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
) -> Training:
    """Train every candidate, judge each, package those that pass, choose the best.

    Args:
        project: From `load_project`.
        candidates: Names instead of the project's.
        overrides: Gates that a person overrules, with reasons.
        champion: Package folder of the model in service; gate G7 compares with it on the same rows.
        runs_dir: Where run folders go; `runs` in the project folder when None.
        output: A second copy of the winner's package; must not exist.

    Raises:
        GateRefused: A gate forbids every candidate.
        ConfigError: A setting is wrong.
        InputError: The rows are not what the settings say.
        ArtifactError: The champion is damaged.
    """
    names = check_candidates(list(candidates) if candidates else project.search.candidates)
    check_overrides(overrides)
    if output is not None and output.exists():
        raise ConfigError(f"{output} exists already; name a folder that does not exist")
    old = None if champion is None else ModelPackage.open(champion)
    run = Run(runs_dir or project.folder / "runs")
    run.record |= {
        "project": project.name,
        "question": project.goal.question,
        "settings": project.tables(),
        "project_digest": project.digest,
        "seed": project.search.seed,
        "candidates_asked": names,
        "champion": None if old is None else old.digest,
    }
    try:
        return _steps(run, project, names, overrides, old, output)
    except GateRefused as err:
        run.finish("refused", str(err))
        raise
    except Exception as err:
        run.finish("failed", f"{type(err).__name__}: {err}")
        raise


def _steps(
    run: Run, project: Project, names: list[str], overrides: Sequence[Override], old: ModelPackage | None, output: Path | None
) -> Training:
    with run.phase("read"):
        rows = load_rows(project)
    run.record |= {"data_digest": rows.digest, "rows": {s: int((rows.split == s).sum()) for s in ("train", "validation", "test")}}
    with run.phase("judge rows"):
        row_gates = judge_rows(project, rows)
        stopped = overrule(row_gates, overrides, project.gates.allow_inconclusive)[2]
    if stopped:
        raise GateRefused(run.folder, {"rows": row_gates}, {"rows": stopped}, {})
    old_right = None if old is None else champion_right(old, project, rows)
    validated = [_validate(run, project, rows, name, row_gates, overrides, old_right) for name in names]
    run.record["candidates"] = {v.fitted.name: _record(v) for v in validated}
    if not (passed := [v for v in validated if not v.blocking]):
        gates = {v.fitted.name: v.gates for v in validated}
        blocking = {v.fitted.name: v.blocking for v in validated}
        raise GateRefused(run.folder, gates, blocking, {v.fitted.name: share(v.accuracy) for v in validated})
    winner = max(passed, key=lambda v: v.accuracy.value)  # the first of equals
    with run.phase("test"):
        test_rows = rows.of("test")
        test = evaluate(winner.fitted.predict(test_rows.x), test_rows)
    packages: dict[str, ModelPackage] = {}
    with run.phase("package"):
        for candidate in passed:
            name = candidate.fitted.name
            its_test, digest = (test if candidate is winner else None), (None if old is None else old.digest)
            packages[name] = write(run.folder / name / "package", project, rows, candidate, test=its_test, champion_digest=digest)
    package = packages[winner.fitted.name]
    if output is not None:
        shutil.copytree(package.folder, output)
        package = ModelPackage.open(output)
    run.record |= {"winner": winner.fitted.name, "test": test, "package": str(package.folder), "package_digest": package.digest}
    run.finish("packaged")
    outcomes = [Outcome(candidate=v, package=packages.get(v.fitted.name)) for v in validated]
    return Training(project=project, run=run.folder, package=package, winner=winner.fitted.name, outcomes=outcomes, test=test)


def judge_rows(project: Project, rows: DataSet) -> list[Gate]:
    """G1 to G3, which no candidate can change."""
    return [
        judge_schema(len(rows.label), rows.breaches, rows.named_breaches),
        judge_quality(rows.x[rows.split == "train"], project.inputs, project.gates.max_missing_fraction),
        judge_leakage(rows),
    ]


def champion_right(champion: ModelPackage, project: Project, rows: DataSet) -> NDArray[np.bool_]:
    """Which validation rows the champion answers rightly.

    Raises:
        InputError: It has other inputs or classes, so that the two cannot be compared on the same rows.
    """
    if [column.name for column in champion.inputs()] != [column.name for column in project.inputs]:
        raise InputError(f"champion {champion.digest[:12]} has other inputs than the project; train without --champion")
    if champion.index.classes != rows.classes:
        raise InputError(f"champion {champion.digest[:12]} answers {champion.index.classes}, the rows hold {rows.classes}")
    validation = rows.of("validation")
    right: NDArray[np.bool_] = open_model(champion)(validation.x).argmax(axis=1) == validation.label
    return right


def _validate(
    run: Run,
    project: Project,
    rows: DataSet,
    name: str,
    row_gates: list[Gate],
    overrides: Sequence[Override],
    old_right: NDArray[np.bool_] | None,
) -> Validated:
    training, validation = rows.of("train"), rows.of("validation")
    if absent := sorted(set(range(len(rows.classes))) - set(training.label.tolist())):
        raise InputError(f"class {rows.classes[absent[0]]!r} has no training rows; add some or remove its rows from the other splits")
    with run.phase(f"fit {name}"):
        fitted = fit(name, training.x, training.label, len(rows.classes), project.shape, project.search.seed)
    with run.phase(f"validate {name}"):
        probabilities = fitted.predict(validation.x)
        right = probabilities.argmax(axis=1) == validation.label
        own = [
            judge_minimum(right, validation.group, project.goal.minimum),
            judge_slices(right, validation.slice, validation.group, project.gates.slice_minimum),
            judge_champion(right, old_right, validation.group, project.goal.noninferior_margin),
        ]
        gates, used, blocking = overrule(row_gates + own, overrides, project.gates.allow_inconclusive)
    return Validated(
        fitted=fitted,
        probabilities=probabilities,
        accuracy=proportion(right, validation.group),
        gates=gates,
        overrides=used,
        blocking=blocking,
        seconds=round(run.seconds[f"fit {name}"] + run.seconds[f"validate {name}"], 3),
    )


def _record(candidate: Validated) -> dict[str, Any]:
    return {
        "accuracy": share(candidate.accuracy),
        "parameters": candidate.fitted.parameters,
        "versions": candidate.fitted.versions,
        "gates": [msgspec.to_builtins(gate) for gate in candidate.gates],
        "overrides": [msgspec.to_builtins(override) for override in candidate.overrides],
    }
