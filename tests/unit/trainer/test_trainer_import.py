"""`edgefleet import`: foreign models go through the same gates and come out as packages that answer as they did before."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
from click.testing import CliRunner, Result
from numpy.typing import NDArray

from edgefleet.cli.importing import import_command
from edgefleet.errors import ArtifactError, ConfigError, InputError
from edgefleet.manifest import Override
from edgefleet.package import ModelPackage
from trainer.importers.importing import ImportRefused, import_model
from trainer.importers.sample import Wish
from trainer.opened import open_predict, project_of

N = 400
X = np.random.default_rng(0).normal(size=(N, 3)).astype(np.float32)
Y = np.where(X[:, 0] > 0.4, "10", np.where(X[:, 1] > 0, "9", "2"))


def sample(path: Path, x: NDArray[Any] = X, y: Any = Y, **columns: Any) -> Path:
    import pandas

    table = pandas.DataFrame({f"f{i}": x[:, i] for i in range(x.shape[1])})
    table.assign(answer=y, **columns).to_csv(path / "sample.csv", index=False)
    return path / "sample.csv"


def forest(path: Path, y: Any = Y) -> tuple[Any, Path]:
    from sklearn.ensemble import RandomForestClassifier

    model = RandomForestClassifier(15, max_depth=6, random_state=0).fit(X, y)
    (path / "model.skops").write_bytes(skops.io.dumps(model))
    return model, path / "model.skops"


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ModelPackage]:
    folder = tmp_path_factory.mktemp("import")
    model, path = forest(folder)
    done = import_model(path, sample(folder), Wish(label="answer", minimum=0.8, name="three"), folder / "package")
    return model, done.package


def test_the_package_answers_as_the_model_did_in_its_own_class_order(imported: tuple[Any, ModelPackage]) -> None:
    model, package = imported

    answers = open_predict(package)(X)

    assert package.index.classes == ["10", "2", "9"]
    assert answers.probabilities is not None
    assert np.array_equal(answers.probabilities, model.predict_proba(X))


def test_the_model_file_is_the_users_byte_for_byte_and_of_a_family_that_the_converter_knows(imported: tuple[Any, ModelPackage]) -> None:
    package = imported[1]
    path = package.folder.parent / "model.skops"

    assert package.read("model.skops") == path.read_bytes()
    assert (package.index.family, package.index.margin_kind, package.index.shape) == ("forest", "mean leaf probability", [3])


def test_half_of_the_sample_is_judged_and_the_package_says_that_training_rows_are_unknown(imported: tuple[Any, ModelPackage]) -> None:
    _, package = imported
    notes = json.loads(package.read("provenance.json"))

    assert notes["rows"] == {"train": 200, "validation": 200}
    assert "training rows are unknown" in notes["note"]
    assert len(package.rows("parity").x) == 200
    assert {gate["gate"]: gate["verdict"] for gate in json.loads(package.read("gates.json"))}["G4"] == "pass"


def test_the_settings_come_back_from_the_package(imported: tuple[Any, ModelPackage]) -> None:
    project = project_of(imported[1])

    assert (project.name, project.goal.minimum, project.data.label) == ("three", 0.8, "answer")
    assert [column.name for column in project.inputs] == ["f0", "f1", "f2"]


def test_without_a_criterion_nothing_is_blessed_unless_a_person_says_so(tmp_path: Path) -> None:
    _, path = forest(tmp_path)
    data = sample(tmp_path)

    with pytest.raises(ImportRefused, match="G4 inconclusive"):
        import_model(path, data, Wish(label="answer"), tmp_path / "package")
    assert not (tmp_path / "package").exists()

    done = import_model(path, data, Wish(label="answer"), tmp_path / "package", overrides=[Override(gate="G4", reason="a first look")])
    assert done.package.index.overrides == [Override(gate="G4", reason="a first look")]


def test_a_model_worse_than_the_goal_is_refused(tmp_path: Path) -> None:
    _, path = forest(tmp_path, y=np.roll(Y, 1))

    with pytest.raises(ImportRefused, match="G4 fail"):
        import_model(path, sample(tmp_path), Wish(label="answer", minimum=0.8), tmp_path / "package")


def test_a_projects_goal_gates_and_groups_are_taken(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "project.toml").write_text(
        """
[goal]
question = "Which?"
minimum = 0.8
name = "grouped"
[data]
source = "elsewhere.csv"
label = "answer"
group = "machine"
slice = "site"
[data.splits]
method = "group"
[schema]
inputs = [{ name = "f0", unit = "mm" }, { name = "f1" }, { name = "f2" }]
[search]
candidates = ["forest"]
[gates]
slice_minimum = 0.5
"""
    )
    _, path = forest(tmp_path)
    data = sample(tmp_path, machine=np.arange(N) // 8, site=np.where(np.arange(N) < 200, "east", "west"))

    done = import_model(path, data, Wish(label=""), tmp_path / "package", project_dir=tmp_path / "project")

    verdicts = {gate.gate: gate.verdict for gate in done.gates}
    assert (done.package.index.project, done.package.inputs()[0].unit) == ("grouped", "mm")
    assert verdicts["G3"] == "pass"  # no machine stands on both sides
    assert verdicts["G5"] == "pass"


def test_labels_that_the_model_never_learnt_are_named(tmp_path: Path) -> None:
    _, path = forest(tmp_path)

    strange = sample(tmp_path, y=np.where(np.arange(N) == 5, "new", Y))

    with pytest.raises(InputError, match="holds 'new', which the model cannot answer; its classes are 10, 2, 9"):
        import_model(path, strange, Wish(label="answer", minimum=0.5), tmp_path / "package")


def test_columns_that_do_not_fit_the_model_are_counted(tmp_path: Path) -> None:
    _, path = forest(tmp_path)
    four = np.column_stack([X, X[:, 0]])

    with pytest.raises(InputError, match="the model takes 3 numbers a row, the data have 4"):
        import_model(path, sample(tmp_path, four), Wish(label="answer", minimum=0.5), tmp_path / "package")


def test_a_text_column_that_the_model_cannot_take_is_named(tmp_path: Path) -> None:
    _, path = forest(tmp_path)

    with pytest.raises(InputError, match="column 'colour' holds text, the model takes numbers"):
        import_model(path, sample(tmp_path, colour="red"), Wish(label="answer", minimum=0.5), tmp_path / "package")


def test_a_missing_label_column_few_rows_and_a_taken_folder_are_refused(tmp_path: Path) -> None:
    _, path = forest(tmp_path)
    data = sample(tmp_path)

    with pytest.raises(InputError, match="no column 'nothing'; --label names the column of the answer, one of f0, f1, f2, answer"):
        import_model(path, data, Wish(label="nothing"), tmp_path / "package")
    with pytest.raises(ConfigError, match="exists already"):
        import_model(path, data, Wish(label="answer"), tmp_path)
    with pytest.raises(InputError, match="20 usable rows, at least 40"):
        import_model(path, sample(tmp_path, X[:20], Y[:20]), Wish(label="answer"), tmp_path / "package")


def test_a_damaged_model_leaves_no_package(tmp_path: Path) -> None:
    _, path = forest(tmp_path)
    path.write_bytes(path.read_bytes()[:-100])

    with pytest.raises(ArtifactError, match="no readable"):
        import_model(path, sample(tmp_path), Wish(label="answer", minimum=0.5), tmp_path / "package")
    assert not (tmp_path / "package").exists()


def run(*arguments: str) -> Result:
    return CliRunner().invoke(import_command, list(arguments))


def test_an_onnx_regression_goes_through_the_command_line(tmp_path: Path) -> None:
    import skl2onnx
    from sklearn.linear_model import Ridge

    target = 3 * X[:, 0] - X[:, 1] + 0.1 * np.random.default_rng(1).normal(size=N)
    model = Ridge().fit(X, target)
    (tmp_path / "model.onnx").write_bytes(skl2onnx.to_onnx(model, X[:1], target_opset=17).SerializeToString())
    data = sample(tmp_path, y=target)

    result = run(
        str(tmp_path / "model.onnx"), "--data", str(data), "--label", "answer", "--task", "regression", "--maximum", "0.2",
        "--output", str(tmp_path / "package"), "--json",
    )  # fmt: skip

    document = json.loads(result.stdout)
    package = ModelPackage.open(tmp_path / "package")
    assert result.exit_code == 0
    assert (document["meaning"], document["classes"]) == ("value", [])
    assert document["metric"]["value"] == pytest.approx(0.1, abs=0.02)
    assert package.index.task == "regression"
    value = open_predict(package)(X).value
    assert value is not None
    assert np.allclose(value, model.predict(X), atol=1e-4)  # float32 graph against float64


def test_gates_are_printed_when_they_refuse_and_a_reason_needs_a_gate(tmp_path: Path) -> None:
    _, path = forest(tmp_path, y=np.roll(Y, 1))
    said = [str(path), "--data", str(sample(tmp_path)), "--label", "answer", "--output", str(tmp_path / "package")]

    refused = run(*said, "--minimum", "0.8")
    pointless = run(*said, "--reason", "because")

    assert "G4 fail" in refused.stdout
    assert isinstance(refused.exception, ImportRefused)
    assert isinstance(pointless.exception, ConfigError)
