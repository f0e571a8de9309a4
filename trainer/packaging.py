"""From a judged model to a package: row sets, reference statistics, outlier detector, provenance. No dates, no host."""

import platform
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgefleet import __version__
from edgefleet.digests import canonical_json
from edgefleet.manifest import Override, Task
from edgefleet.package import FORMAT_VERSION, STEPS_NAME, ModelPackage, PackageIndex, write_files
from edgefleet.package import package_files as _with_index
from edgefleet.reference import Reference, build_reference
from edgefleet.signature import SIGNATURE_NAME
from trainer.answers import Answers
from trainer.candidates.fitted import Fitted
from trainer.dataset import DataSet
from trainer.golden import GOLDEN_ROWS, choose_golden, pick
from trainer.outlier import MAX_ROWS as MAX_OUTLIER_ROWS
from trainer.outlier import fit_outlier, outlier_files
from trainer.reference_windows import plan_windows
from trainer.sampling import model_inputs, sampling_of

if TYPE_CHECKING:
    from edgefleet.steps import Steps
    from trainer.project import Project
    from trainer.validated import Validated

Cleaned = Callable[[str], NDArray[np.float32]]
MAX_PARITY_ROWS: Final = 2_000
CALIBRATION_ROWS: Final = 400
BACKGROUND_ROWS: Final = 16
LEAST_OUTLIER_ROWS: Final = 20
CALIBRATOR_NAME: Final = "calibrator.json"
# What may have a say in a model's bytes or answers; absent ones are left out.
_ENVIRONMENT: Final = (
    "ai-edge-litert", "keras", "msgspec", "numpy", "onnx", "onnxruntime", "optuna", "pandas", "pyarrow", "scikit-learn", "scipy", "skops",
    "sqlalchemy", "tensorflow", "tensorflow-cpu",
)  # fmt: skip


def write(
    folder: Path, project: "Project", rows: DataSet, fitted: Fitted, steps: "Steps", *, answers_validation: Answers, **rest: Any
) -> ModelPackage:
    """Write the package of one model to `folder`, which is made when missing; the other arguments are those of `files_of`."""
    return write_files(folder, files_of(project, rows, fitted, steps, answers_validation=answers_validation, **rest))


def package_files(
    project: "Project",
    rows: DataSet,
    candidate: "Validated",
    *,
    test: dict[str, Any] | None,
    champion_digest: str | None,
    git_commit: str | None = None,
    cleaned: Cleaned | None = None,
) -> dict[str, bytes]:
    """The package of a candidate of a training, as files.

    Args:
        project: The settings.
        rows: All rows, raw.
        candidate: The model and its verdicts.
        test: `evaluate` on the test rows for the winner; None for the others, whose test rows stay unseen.
        champion_digest: Package digest of the champion it was compared with.
        git_commit: Commit of the project folder's repository, with `-dirty` where the folder differs from it; None without one.
        cleaned: The cleaned rows of a split, where the caller has them already.
    """
    made_of = provenance(project, rows, candidate.fitted, champion_digest, git_commit=git_commit)
    evaluation = {
        "metric": project.goal.metric,
        "validation": candidate.evaluation,
        "test": test,
        "test_note": "evaluated once, after the choice" if test else "not the winner: its test rows were not looked at",
    }
    card_md, card_html = cards(project, rows, candidate.name, evaluation, candidate.gates, candidate.overrides, made_of)
    return files_of(
        project,
        rows,
        candidate.fitted,
        candidate.steps,
        answers_validation=candidate.answers,
        gates=candidate.gates,
        overrides=candidate.overrides,
        evaluation=evaluation,
        provenance=made_of,
        card_md=card_md,
        card_html=card_html,
        threshold=candidate.decision.get("threshold"),
        calibrator=candidate.decision.get("calibrator"),
        cleaned=cleaned,
    )


def files_of(
    project: "Project",
    rows: DataSet,
    fitted: Fitted,
    steps: "Steps",
    *,
    answers_validation: Answers,
    gates: Sequence[Any],
    overrides: Sequence[Override],
    evaluation: dict[str, Any],
    provenance: dict[str, Any],
    card_md: str,
    card_html: str | None = None,
    threshold: float | None = None,
    calibrator: dict[str, Any] | None = None,
    signature: dict[str, Any] | None = None,
    cleaned: Cleaned | None = None,
) -> dict[str, bytes]:
    """Every file of one model's package, package.json among them. Equal arguments give equal bytes.

    Args:
        project: The settings.
        rows: All rows, raw.
        fitted: The model.
        steps: The cleaning between raw rows and the model.
        answers_validation: The package's own answers to the validation rows, in their order.
        gates: All gates, people's overrides applied.
        overrides: The overrides that were needed.
        evaluation: Plain values for evaluation.json; which golden row is of which kind is added as `golden`.
        provenance: From `provenance`; the used window length is added as `reference`.
        card_md: The model card.
        card_html: The same as HTML, or None.
        threshold: See `PackageIndex.threshold`.
        calibrator: Plain values of the calibrator, or None.
        signature: How an imported model is called, or None.
        cleaned: The cleaned rows of a split; None cleans here.
    """
    training, validation = np.flatnonzero(rows.split == "train"), np.flatnonzero(rows.split == "validation")
    seed = project.search.seed
    reference = reference_of(project, rows.take(training), answers_validation)
    golden, kinds = choose_golden(rows.take(validation), rows.x[validation], answers_validation, project.inputs, GOLDEN_ROWS, seed)
    golden_notes = [{"row_id": str(rows.row_id[validation[i]]), "kind": kind} for i, kind in zip(golden, kinds, strict=True)]
    files = {
        fitted.model: fitted.content,
        "schema.json": canonical_json([msgspec.to_builtins(column) for column in model_inputs(project)]),
        "reference.npz": reference.to_bytes(),
        "rows/golden.npz": rows.rows(validation[golden]).to_bytes(),
        "rows/parity.npz": rows.rows(validation[:MAX_PARITY_ROWS]).to_bytes(),
        "rows/calibration.npz": rows.rows(pick(rows, training, CALIBRATION_ROWS, seed)).to_bytes(),
        "rows/background.npz": rows.rows(pick(rows, training, BACKGROUND_ROWS, seed + 1)).to_bytes(),
        "evaluation.json": canonical_json({**evaluation, "golden": golden_notes}),
        "gates.json": canonical_json([msgspec.to_builtins(gate) for gate in gates]),
        "provenance.json": canonical_json({**provenance, "reference": {"windows": len(reference.blocks), "rows": reference.block_rows}}),
        "card.md": card_md.encode(),
    }
    if not steps.is_identity:
        files[STEPS_NAME] = steps.to_json()
    if card_html is not None:
        files["card.html"] = card_html.encode()
    for name, document in ((CALIBRATOR_NAME, calibrator), (SIGNATURE_NAME, signature)):
        if document is not None:
            files[name] = canonical_json(document)
    outlier = None
    if len(training) >= LEAST_OUTLIER_ROWS:
        z = cleaned or (lambda split: clean_sample(steps, rows.of(split).x))
        detector = fit_outlier(z("train"), seed=seed)
        files |= outlier_files(detector, z("validation"))
        outlier = detector.file
    index = _index(project, rows, fitted, overrides, threshold, answers_validation.positive, outlier)
    return _with_index(index, files)


def _index(
    project: "Project",
    rows: DataSet,
    fitted: Fitted,
    overrides: Sequence[Override],
    threshold: float | None,
    positive: int,
    outlier: str | None,
) -> PackageIndex:
    task: Task = "regression" if project.goal.task == "rul" else project.goal.task
    return PackageIndex(
        format_version=FORMAT_VERSION,
        project=project.name,
        task=task,
        model=fitted.model,
        family=fitted.family,
        margin_kind=fitted.margin_kind,
        classes=rows.classes if task == "classification" else [],
        shape=project.shape,
        overrides=list(overrides),
        files={},
        window_rows=rows.x.shape[1] if rows.x.ndim == 3 else 1,
        threshold=threshold,
        positive=rows.classes[positive] if rows.classes else "",
        outlier=outlier,
        sampling=sampling_of(project),
    )


def cards(
    project: "Project",
    rows: DataSet,
    candidate: str,
    evaluation: dict[str, Any],
    gates: Sequence[Any],
    overrides: Sequence[Override],
    provenance: dict[str, Any],
) -> tuple[str, str]:
    """The model card as Markdown and as HTML, from facts only."""
    from trainer.recording import answer_notes, data_note
    from trainer.report.card import card_html, card_markdown

    plain: list[dict[str, Any]] = [msgspec.to_builtins(gate) for gate in gates]
    goal = project.goal
    measured = {split: (evaluation.get(split) or {}).get("metrics", {}) for split in ("validation", "test")}
    failed = [gate["gate"] for gate in plain if gate["verdict"] in {"fail", "inconclusive"}]
    record: dict[str, Any] = {
        "goal": msgspec.to_builtins(goal),
        "verdict": "packaged",
        "reason": f"gates {', '.join(failed)} were overruled or allowed" if failed else "every gate that was judged passed",
        "question": goal.question,
        "task": goal.task,
        "metric": goal.metric,
        "minimum": goal.minimum,
        "maximum": goal.maximum,
        "winner": candidate,
        "data": data_note(project, rows),
        "metrics": {split: values for split, values in measured.items() if values},
        **answer_notes(project, evaluation["validation"]),
        "candidates": [{"name": candidate, "gates": plain, **measured["validation"].get(goal.metric, {})}],
        "overrides": [msgspec.to_builtins(override) for override in overrides],
        "provenance": provenance,
    }
    return card_markdown(record), card_html(record)


def reference_of(project: "Project", training: DataSet, answers_validation: Answers) -> Reference:
    """Reference statistics of the raw training rows (of windows their newest rows) and of the answers to validation rows."""
    newest = training.x if training.x.ndim == 2 else training.x[:, -1, :]
    plan = plan_windows(len(newest), training.group, project.data.block_rows)
    classes = len(training.classes) if project.goal.task == "classification" else 0
    if classes:
        assert answers_validation.probabilities is not None  # noqa: S101  # a classifier has them, by Answers' own rule
        scores, answers = answers_validation.probabilities.max(axis=1), answers_validation.answers()
    else:
        value = answers_validation.score
        scores, answers = value[np.isfinite(value)], None
    return build_reference(
        newest[plan.order],
        project.inputs,
        block_rows=plan.rows,
        scores=scores,
        answers=answers,
        classes=classes,
        block_starts=plan.starts,
        block_group=plan.group,
        shape=project.shape,
    )


def clean_sample(steps: "Steps", x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cleaned rows for the outlier detector: all, or an even sample of as many as it looks at."""
    if len(x) > MAX_OUTLIER_ROWS:
        x = x[np.linspace(0, len(x) - 1, MAX_OUTLIER_ROWS).astype(np.int64)]
    return steps.run(x) if len(x) else x


def provenance(
    project: "Project", rows: DataSet, fitted: Fitted, champion_digest: str | None = None, *, git_commit: str | None = None
) -> dict[str, Any]:
    """What made the model, without clock and host: the same inputs give the same file."""
    versions = {"edgefleet": __version__, "python": platform.python_version(), "numpy": np.__version__, **fitted.versions}
    return {
        "candidate": fitted.name,
        "parameters": fitted.parameters,
        "versions": versions,
        "environment": environment(),
        "git_commit": git_commit,
        "data_digest": rows.digest,
        "rows": {split: int((rows.split == split).sum()) for split in np.unique(rows.split).tolist()},
        "seed": project.search.seed,
        "project_digest": project.digest,
        "project": project.tables(),
        "champion_package_digest": champion_digest,
    }


def environment() -> dict[str, str]:
    """Versions of Python and of the installed libraries that matter, by their package names, without importing any."""
    found = {"python": platform.python_version()}
    for name in _ENVIRONMENT:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
