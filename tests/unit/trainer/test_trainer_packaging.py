"""A model package of each task holds what the converter, the device and a later validation need, byte for byte the same every time."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from edgefleet.errors import ArtifactError, InputError
from edgefleet.grid import Sampling
from edgefleet.package import ModelPackage
from edgefleet.reference import Reference
from edgefleet.steps import Steps
from trainer.answers import Answers
from trainer.candidates.fitted import Fitted
from trainer.dataset import DataSet
from trainer.golden import pick
from trainer.packaging import environment, provenance, write
from trainer.project import Project, load_project
from trainer.reference_windows import plan_windows
from trainer.settings import Cleaning, Window

PROJECT = """
[goal]
name = "boiler"
question = "Will it stop?"
task = "{task}"
metric = "{metric}"
{limit}

[data]
source = "rows.csv"
group = "machine"
block_rows = 50

[schema]
inputs = [{{ name = "heat" }}, {{ name = "flow", missing = true }}]

[search]
candidates = ["forest"]
seed = 3
"""
TASKS = {
    "classification": ("accuracy", "minimum = 0.5"),
    "regression": ("mae", "maximum = 5.0"),
    "anomaly": ("auc", "minimum = 0.5"),
}


def project_of(folder: Path, task: str) -> Project:
    metric, limit = TASKS[task]
    (folder / "project.toml").write_text(PROJECT.format(task=task, metric=metric, limit=limit))
    return load_project(folder)


def rows_of(task: str, n: int = 1200, *, windows: bool = False) -> DataSet:
    rng = np.random.default_rng(0)
    x: NDArray[np.float32] = rng.normal(size=(n, 2)).astype(np.float32)
    x[::43, 1] = np.nan
    if windows:
        x = np.repeat(x[:, None, :], 3, axis=1) + np.arange(3, dtype=np.float32)[None, :, None]
    label: NDArray[Any] = rng.integers(0, 2, n) if task != "regression" else rng.normal(size=n)
    classes = {"classification": ["no", "yes"], "anomaly": ["normal", "strange"]}.get(task, [])
    return DataSet(
        x=x, label=label, split=np.array(["train", "train", "validation", "test"])[np.arange(n) % 4], slices={},
        row_id=np.array([f"r{i}" for i in range(n)]), group=np.array([f"m{i % 3}" for i in range(n)]), time=None, weight=None,
        classes=classes, breaches=0, named_breaches=[],
    ).with_digest()  # fmt: skip


def answers_of(task: str, rows: DataSet) -> Answers:
    n = int((rows.split == "validation").sum())
    score = np.random.default_rng(1).uniform(size=n)
    if task == "classification":
        return Answers(probabilities=np.column_stack([1 - score, score]), threshold=0.3)
    return Answers(value=100 * score, threshold=99.0 if task == "anomaly" else None)


def doubling(x: NDArray[np.float32]) -> Steps:
    """Steps that do something, as cleaning compiles them."""
    from edgefleet.manifest import Input
    from trainer.cleaning import compile_steps
    from trainer.settings import Cleaning, CleaningStep

    cleaning = Cleaning(steps=[CleaningStep(step="impute"), CleaningStep(step="unit", factor=2.0)])
    return compile_steps(cleaning, [Input(name="heat"), Input(name="flow", missing=True)], x)


def package_of(folder: Path, task: str, *, windows: bool = False, **changes: Any) -> ModelPackage:
    folder.mkdir()
    project, rows = project_of(folder, task), rows_of(task, windows=windows)
    fitted = Fitted(
        name="forest", family="forest", margin_kind="mean leaf probability", model="model.skops", content=b"not opened here",
        predict=lambda z: np.zeros(len(z)), parameters={"trees": 3}, versions={"scikit-learn": "1"},
    )  # fmt: skip
    given: dict[str, Any] = {
        "answers_validation": answers_of(task, rows),
        "gates": [{"gate": "G4", "verdict": "pass", "sentence": "enough"}],
        "overrides": [],
        "evaluation": {"metric": "accuracy"},
        "provenance": provenance(project, rows, fitted, "c" * 64, git_commit="d" * 40),
        "card_md": "# boiler\n",
    }
    steps = changes.pop("steps", Steps.identity(rows.x.shape[1:]))
    return write(folder / "package", project, rows, fitted, steps, **{**given, **changes})


def test_the_grid_of_the_windows_travels_with_the_package(tmp_path: Path) -> None:
    from trainer.sampling import model_inputs, sampling_of

    project = project_of(tmp_path, "classification")
    window = Window(rows=3, rate_s=0.5, hold=2, reset_after=7)
    gridded = msgspec.structs.replace(project, cleaning=Cleaning(window=window), data=msgspec.structs.replace(project.data, time="at"))

    assert (sampling_of(project), [column.missing for column in model_inputs(project)]) == (None, [False, True])
    assert sampling_of(gridded) == Sampling(rate_s=0.5, hold=2, reset_after=7, time="at", group="machine", present=["heat"])
    # A value that no row may lack can be missing on the grid, once it has been held for long enough.
    assert [column.missing for column in model_inputs(gridded)] == [True, True]


def contents(package: ModelPackage) -> dict[str, bytes]:
    return {str(path.relative_to(package.folder)): path.read_bytes() for path in sorted(package.folder.rglob("*")) if path.is_file()}


def test_a_classifier_with_a_threshold_says_of_which_class_it_speaks(tmp_path: Path) -> None:
    package = package_of(tmp_path / "one", "classification", threshold=0.3)

    assert (package.index.threshold, package.index.positive, package.index.classes) == (0.3, "yes", ["no", "yes"])
    assert (package.index.task, package.index.window_rows) == ("classification", 1)


@pytest.mark.parametrize("task", ["regression", "anomaly"])
def test_values_and_scores_have_no_classes_and_are_counted_between_their_own_deciles(tmp_path: Path, task: str) -> None:
    package = package_of(tmp_path / "one", task, threshold=99.0 if task == "anomaly" else None)

    reference = Reference.from_bytes(package.read("reference.npz"))

    assert package.index.classes == []
    assert reference.score_edges is not None
    assert reference.score_counts.tolist() == [30] * 10
    assert len(reference.class_counts) == 0


def test_windows_keep_their_shape_and_count_their_newest_row(tmp_path: Path) -> None:
    package = package_of(tmp_path / "one", "classification", windows=True)

    reference = Reference.from_bytes(package.read("reference.npz"))

    assert package.index.window_rows == 3
    assert package.row_shape == (3, 2)
    assert package.rows("parity").x.shape == (300, 3, 2)
    # Means of the newest row are 2, of the oldest 0.
    assert reference.mean[0] == pytest.approx(2.0, abs=0.1)


def test_windows_of_counts_stay_inside_their_machine_and_there_are_forty_of_them(tmp_path: Path) -> None:
    reference = Reference.from_bytes(package_of(tmp_path / "one", "classification").read("reference.npz"))

    assert reference.block_group is not None
    assert np.bincount(reference.block_group).tolist() == [40, 40, 40]
    assert reference.block_rows == 5


def test_the_used_window_length_and_the_kind_of_each_golden_row_are_recorded(tmp_path: Path) -> None:
    package = package_of(tmp_path / "one", "classification")

    golden = json.loads(package.read("evaluation.json"))["golden"]

    assert json.loads(package.read("provenance.json"))["reference"] == {"windows": 120, "rows": 5}
    assert [entry["row_id"] for entry in golden] == package.rows("golden").row_id.tolist()
    assert {"tie", "missing", "extreme"} <= {entry["kind"] for entry in golden}


def test_steps_travel_with_the_package_and_their_absence_is_the_identity(tmp_path: Path) -> None:
    x = rows_of("classification").x
    cleaned = package_of(tmp_path / "one", "classification", steps=doubling(x))
    raw = package_of(tmp_path / "two", "classification")

    assert raw.steps().is_identity
    assert "steps.json" not in raw.index.files
    assert cleaned.steps().run(np.array([[1.5, 2.0]], np.float32)).tolist() == [[3.0, 4.0]]


def test_the_outlier_detector_is_named_and_its_false_alarms_on_validation_are_measured(tmp_path: Path) -> None:
    package = package_of(tmp_path / "one", "classification")

    notes = json.loads(package.read("outlier.json"))

    assert package.index.outlier == "outlier.npz"
    assert (notes["method"], notes["validation"]["n"]) == ("mahalanobis", 300)
    assert notes["validation"]["value"] <= 0.02


def test_provenance_names_settings_rows_versions_commit_and_champion_but_no_machine(tmp_path: Path) -> None:
    notes = json.loads(package_of(tmp_path / "one", "classification").read("provenance.json"))

    assert notes["project"]["search"]["seed"] == 3
    assert notes["rows"] == {"test": 300, "train": 600, "validation": 300}
    assert (notes["git_commit"], notes["champion_package_digest"]) == ("d" * 40, "c" * 64)
    assert {"python", "numpy"} <= set(notes["environment"])
    assert "numpy" in environment()
    assert str(tmp_path) not in json.dumps(notes)


def test_equal_arguments_give_equal_bytes(tmp_path: Path) -> None:
    assert contents(package_of(tmp_path / "one", "anomaly")) == contents(package_of(tmp_path / "two", "anomaly"))


def test_a_changed_file_is_noticed_when_the_package_is_opened(tmp_path: Path) -> None:
    package = package_of(tmp_path / "one", "classification")
    (package.folder / "outlier.json").write_text("{}")

    with pytest.raises(ArtifactError, match=r"outlier\.json: missing or changed"):
        ModelPackage.open(package.folder)


def test_picked_rows_hold_each_class_and_slice_in_proportion() -> None:
    rows = rows_of("classification")
    rows = replace(rows, slices={"where": np.where(np.arange(len(rows)) < 300, "a", "b")})

    chosen = pick(rows, np.arange(len(rows)), 100, seed=5)

    assert (rows.slice[chosen] == "a").sum() == 25
    assert abs(int(rows.label[chosen].sum()) - 100 * rows.label.mean()) <= 1


@pytest.mark.parametrize(
    ("n", "group", "wished", "length", "windows"),
    [
        (2000, None, 50, 50, 40),
        (1000, None, 50, 25, 40),
        (100, None, 50, 5, 20),
        (200_000, None, 50, 50, 400),
        (4800, np.repeat(np.arange(1200), 4), 50, 50, 96),  # groups of four rows hold no window
        (4000, np.repeat(np.arange(10), 400), 50, 10, 400),
    ],
)
def test_windows_are_shortened_until_there_are_forty_and_kept_few_enough_for_a_device(
    n: int, group: NDArray[np.int64] | None, wished: int, length: int, windows: int
) -> None:
    plan = plan_windows(n, None if group is None else group.astype(str), wished)

    assert (plan.rows, len(plan.starts)) == (length, windows)


def test_no_window_crosses_the_border_of_a_group_or_of_a_kept_run() -> None:
    group = np.repeat(np.arange(30), 1000).astype(str)
    plan = plan_windows(len(group), group, 20)

    inside = [set(group[plan.order[start : start + plan.rows]]) for start in plan.starts]

    assert len(plan.starts) == 400
    assert all(len(names) == 1 for names in inside)
    assert plan.group is not None
    for i in range(1, 400):
        follows = plan.starts[i] == plan.starts[i - 1] + plan.rows and inside[i] == inside[i - 1]
        assert follows == (plan.group[i] == plan.group[i - 1])


def test_an_opened_package_answers_raw_rows_through_steps_model_calibrator_and_threshold(tmp_path: Path) -> None:
    from trainer.calibration import calibrate, fit_calibrator
    from trainer.candidates import fit
    from trainer.candidates.fitted import Problem
    from trainer.opened import open_predict

    folder = tmp_path / "one"
    folder.mkdir()
    project, rows = project_of(folder, "classification"), rows_of("classification")
    steps = doubling(rows.x)
    training, validation = rows.of("train"), rows.of("validation")
    problem = Problem(task="classification", classes=2, shape=steps.output_shape, seed=0)
    fitted = fit("forest", steps.run(training.x), training.label, problem)
    raw = fitted.predict(steps.run(validation.x))
    calibrator = fit_calibrator("sigmoid", validation.label, raw)
    answers = Answers(probabilities=calibrate(calibrator, raw), threshold=0.4)

    package = write(
        folder / "package", project, rows, fitted, steps, answers_validation=answers, gates=[], overrides=[], evaluation={},
        provenance=provenance(project, rows, fitted), card_md="", threshold=0.4, calibrator=calibrator,
    )  # fmt: skip
    again = open_predict(ModelPackage.open(package.folder))(validation.x)

    assert answers.probabilities is not None
    assert again.probabilities is not None
    assert np.array_equal(again.probabilities, answers.probabilities)
    assert np.array_equal(again.answers(), answers.answers())
    with pytest.raises(InputError, match=r"rows of shape \(5,\) do not fit"):
        open_predict(package)(np.zeros((1, 5), np.float32))
