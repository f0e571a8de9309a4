"""From a validated candidate to a model package: row sets, reference statistics, evaluation, provenance, card. No dates, no host."""

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgefleet import __version__
from edgefleet.digests import canonical_json
from edgefleet.manifest import Override
from edgefleet.package import FORMAT_VERSION, ModelPackage, PackageIndex, write_package
from edgefleet.reference import build_reference
from trainer.candidates.fitted import Fitted
from trainer.dataset import DataSet
from trainer.gates import Gate
from trainer.intervals import Proportion, proportion
from trainer.project import Project

GOLDEN_ROWS: Final = 32
MAX_PARITY_ROWS: Final = 2_000
CALIBRATION_ROWS: Final = 400
BACKGROUND_ROWS: Final = 16


@dataclass(frozen=True)
class Validated:
    """A candidate after validation.

    Attributes:
        fitted: The model.
        probabilities: [n, classes] on the validation rows.
        accuracy: On the validation rows.
        gates: All gates, people's overrides applied.
        overrides: The overrides that were needed.
        blocking: Gates that forbid a package.
        seconds: Time to fit and validate.
    """

    fitted: Fitted
    probabilities: NDArray[np.float64]
    accuracy: Proportion
    gates: list[Gate]
    overrides: list[Override]
    blocking: list[Gate]
    seconds: float


def write(
    folder: Path, project: Project, rows: DataSet, candidate: Validated, *, test: dict[str, Any] | None, champion_digest: str | None
) -> ModelPackage:
    """Write the package of one candidate.

    Args:
        folder: Where; made when missing.
        project: The settings.
        rows: All rows.
        candidate: The model and its verdicts.
        test: `evaluate` on the test rows for the winner; None for the others, whose test rows stay unseen.
        champion_digest: Package digest of the champion it was compared with.
    """
    fitted = candidate.fitted
    training, validation = np.flatnonzero(rows.split == "train"), np.flatnonzero(rows.split == "validation")
    answers = candidate.probabilities.argmax(axis=1)
    reference = build_reference(
        rows.x[training],
        project.inputs,
        block_rows=project.data.block_rows,
        scores=candidate.probabilities.max(axis=1),
        answers=answers,
        classes=len(rows.classes),
    )
    evaluation = {
        "metric": project.goal.metric,
        "validation": evaluate(candidate.probabilities, rows.take(validation)),
        "test": test,
        "test_note": "evaluated once, after the choice" if test else "not the winner: its test rows were not looked at",
    }
    seed = project.search.seed
    files = {
        fitted.model: fitted.content,
        "schema.json": canonical_json([msgspec.to_builtins(column) for column in project.inputs]),
        "reference.npz": reference.to_bytes(),
        "rows/golden.npz": rows.rows(pick(rows, validation, GOLDEN_ROWS, seed)).to_bytes(),
        "rows/parity.npz": rows.rows(validation[:MAX_PARITY_ROWS]).to_bytes(),
        "rows/calibration.npz": rows.rows(pick(rows, training, CALIBRATION_ROWS, seed)).to_bytes(),
        "rows/background.npz": rows.rows(pick(rows, training, BACKGROUND_ROWS, seed + 1)).to_bytes(),
        "evaluation.json": canonical_json(evaluation),
        "gates.json": canonical_json([msgspec.to_builtins(gate) for gate in candidate.gates]),
        "provenance.json": canonical_json(provenance(project, rows, fitted, champion_digest)),
        "card.md": card(project, candidate, test).encode(),
    }
    index = PackageIndex(
        format_version=FORMAT_VERSION,
        project=project.name,
        task="classification",
        model=fitted.model,
        family=fitted.family,
        margin_kind=fitted.margin_kind,
        classes=rows.classes,
        shape=project.shape,
        overrides=candidate.overrides,
        files={},
    )
    return write_package(folder, index, files)


def evaluate(probabilities: NDArray[np.float64], rows: DataSet) -> dict[str, Any]:
    """Accuracy with its interval, per slice too, and the confusion matrix (true class by row, answer by column)."""
    answers = probabilities.argmax(axis=1)
    right = answers == rows.label
    slices = {}
    for name in np.unique(rows.slice).tolist():
        here = rows.slice == name
        slices[name] = share(proportion(right[here], None if rows.group is None else rows.group[here]))
    classes = len(rows.classes)
    confusion = np.bincount(rows.label * classes + answers, minlength=classes * classes).reshape(classes, classes)
    return {**share(proportion(right, rows.group)), "slices": slices, "confusion": confusion.tolist()}


def share(value: Proportion) -> dict[str, Any]:
    """A proportion with its two-sided 95 % interval, as plain values."""
    effective = round(value.effective_n, 1)
    return {"value": value.value, "low": value.low, "high": value.high, "n": value.n, "effective_n": effective}


def pick(rows: DataSet, among: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """Up to `count` of the rows `among`, each class and slice in proportion, in random order that depends on the seed only."""
    order = np.random.default_rng(seed).permutation(among)
    strata = np.unique(np.char.add(np.char.add(rows.label[order].astype(str), "/"), rows.slice[order]), return_inverse=True)[1]
    place = np.empty(len(order))
    for stratum in np.unique(strata):
        here = np.flatnonzero(strata == stratum)
        place[here] = (np.arange(len(here)) + 0.5) / len(here)
    return order[np.argsort(place, kind="stable")[:count]]


def provenance(project: Project, rows: DataSet, fitted: Fitted, champion_digest: str | None) -> dict[str, Any]:
    """What made the model, without clock and host: the same inputs give the same file."""
    versions = {"edgefleet": __version__, "python": platform.python_version(), "numpy": np.__version__, **fitted.versions}
    return {
        "candidate": fitted.name,
        "parameters": fitted.parameters,
        "versions": versions,
        "data_digest": rows.digest,
        "rows": {split: int((rows.split == split).sum()) for split in np.unique(rows.split).tolist()},
        "seed": project.search.seed,
        "project_digest": project.digest,
        "project": project.tables(),
        "champion_package_digest": champion_digest,
    }


def card(project: Project, candidate: Validated, test: dict[str, Any] | None) -> str:
    """The model card, for people."""
    lines = [f"# {project.name}: {candidate.fitted.name}", "", project.goal.question, ""]
    lines += [f"- Goal: {project.goal.metric} at least {project.goal.minimum:g}."]
    lines += [f"- Validation: {percent(share(candidate.accuracy))}."]
    lines += [f"- Test, looked at once after the choice: {percent(test)}." if test else "- Test: not looked at, another candidate won."]
    lines += [f"- Inputs: {len(project.inputs)}, shape {project.shape}; source `{project.data.source}`.", "", "## Gates", ""]
    lines += [f"- {gate.gate} **{gate.verdict}**: {gate.sentence}" for gate in candidate.gates]
    lines += overruled(candidate.overrides)
    return "\n".join(lines) + "\n"


def overruled(overrides: Sequence[Override]) -> list[str]:
    """The card's section about overrides, empty when there are none."""
    if not overrides:
        return []
    return ["", "## Overruled by a person", "", *(f"- {override.gate}: {override.reason}" for override in overrides)]


def percent(value: dict[str, Any]) -> str:
    """`94.1 % [92.3, 95.5] of 880 rows`."""
    return f"{100 * value['value']:.1f} % [{100 * value['low']:.1f}, {100 * value['high']:.1f}] of {value['n']} rows"
