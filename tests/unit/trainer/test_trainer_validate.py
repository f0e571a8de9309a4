"""`edgefleet validate`: what new rows say about a finished package."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
from click.testing import CliRunner

from edgefleet.cli.validate import validate as command
from edgefleet.errors import InputError, VerdictError
from edgefleet.package import ModelPackage
from trainer.importers.importing import import_model
from trainer.importers.sample import Wish
from trainer.validate import validate

N = 600


def rows(path: Path, seed: int, n: int = N, flipped: float = 0.0, **columns: Any) -> Path:
    """Two classes told by a sum of inputs; a share of the labels turned round."""
    import pandas

    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3)).astype(np.float32)
    label = x[:, 0] + x[:, 1] > 0
    label ^= rng.uniform(size=n) < flipped
    table = pandas.DataFrame(x, columns=["a", "b", "c"]).assign(answer=np.where(label, "yes", "no"), **columns)
    table.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    import pandas
    from sklearn.linear_model import LogisticRegression

    folder = tmp_path_factory.mktemp("validate")
    data = rows(folder / "old.csv", 0)
    table = pandas.read_csv(data)
    model = LogisticRegression().fit(table[["a", "b", "c"]].to_numpy(np.float32), table["answer"])
    (folder / "model.skops").write_bytes(skops.io.dumps(model))
    return import_model(folder / "model.skops", data, Wish(label="answer", minimum=0.9, name="sum"), folder / "package").package


def verdicts(gates: Any) -> dict[str, str]:
    return {gate.gate: gate.verdict for gate in gates}


def test_new_rows_like_the_old_ones_pass_every_gate_that_is_judged(package: ModelPackage, tmp_path: Path) -> None:
    found = validate(package, rows(tmp_path / "new.csv", 1))

    assert found.blocking == []
    assert found.rows == N
    assert found.metric["value"] > 0.95
    assert verdicts(found.gates)["G3"] == "pass"


def test_rows_on_which_the_model_is_worse_than_its_goal_fail(package: ModelPackage, tmp_path: Path) -> None:
    found = validate(package, rows(tmp_path / "new.csv", 1, flipped=0.3))

    assert [gate.gate for gate in found.blocking] == ["G4"]
    assert found.metric["value"] == pytest.approx(0.7, abs=0.06)  # three standard errors of 600 rows


def test_rows_that_the_package_was_made_of_are_recognised(package: ModelPackage) -> None:
    found = validate(package, package.folder.parent / "old.csv")

    assert verdicts(found.gates)["G3"] == "fail"


def test_rows_that_break_the_schema_fail_the_first_gate_and_are_left_out(package: ModelPackage, tmp_path: Path) -> None:
    path = rows(tmp_path / "new.csv", 2)
    lines = path.read_text().splitlines()
    lines[7] = "broken," + lines[7].split(",", 1)[1]
    path.write_text("\n".join(lines) + "\n")

    found = validate(package, path)

    assert found.rows == N - 1
    assert verdicts(found.gates)["G1"] == "fail"


def test_one_class_alone_can_be_judged(package: ModelPackage, tmp_path: Path) -> None:
    path = rows(tmp_path / "new.csv", 3)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], *(line for line in lines[1:] if line.endswith("yes"))]) + "\n")

    found = validate(package, path)

    assert found.metric["value"] > 0.9


def test_a_missing_input_column_and_an_unknown_class_are_named(package: ModelPackage, tmp_path: Path) -> None:
    path = rows(tmp_path / "new.csv", 4)
    text = path.read_text()
    path.write_text(text.replace("a,b,c,answer", "a,b,d,answer"))
    with pytest.raises(InputError, match="lacks 1 of 4 columns: c"):
        validate(package, path)

    path.write_text(text.replace("yes", "perhaps"))
    with pytest.raises(InputError, match="holds 'perhaps', which the model cannot answer; its classes are no, yes"):
        validate(package, path)


def test_a_project_brings_its_own_goal_and_its_training_rows_are_left_out(package: ModelPackage, tmp_path: Path) -> None:
    rows(tmp_path / "rows.csv", 5, split=np.array(["train", "validation", "test"])[np.arange(N) % 3])
    (tmp_path / "project.toml").write_text(
        '[goal]\nname = "sum"\nquestion = "?"\nminimum = 0.999\n[data]\nsource = "rows.csv"\nlabel = "answer"\n'
        '[schema]\nnumbers = ["a", "b", "c"]\n[search]\ncandidates = ["logistic"]\n'
    )

    found = validate(package, tmp_path)

    assert found.rows == 400
    assert next(gate for gate in found.gates if gate.gate == "G4").limit == 0.999


PROJECT = """
[goal]
name = "sum"
question = "?"
minimum = 0.9
[data]
source = "rows.csv"
label = "answer"
weight = "weight"
[schema]
numbers = ["a", "b", "c"]
[search]
candidates = ["logistic"]
"""


def test_a_project_with_weights_can_be_judged(package: ModelPackage, tmp_path: Path) -> None:
    rows(tmp_path / "rows.csv", 5, split=np.array(["train", "validation", "test"])[np.arange(N) % 3], weight=np.arange(N) % 5 + 1.0)
    (tmp_path / "project.toml").write_text(PROJECT)

    assert validate(package, tmp_path).rows == 400


def test_a_project_whose_columns_mean_something_else_is_refused(package: ModelPackage, tmp_path: Path) -> None:
    rows(tmp_path / "rows.csv", 5)
    other = """inputs = [{ name = "a" }, { name = "b", kind = "category", categories = ["x", "y"] }, { name = "c" }]"""
    (tmp_path / "project.toml").write_text(PROJECT.replace('numbers = ["a", "b", "c"]', other))

    with pytest.raises(InputError, match="another kind or other categories of b"):
        validate(package, tmp_path)


def test_the_command_prints_one_document_and_fails_by_its_exit(package: ModelPackage, tmp_path: Path) -> None:
    good = CliRunner().invoke(command, [str(package.folder), "--data", str(rows(tmp_path / "good.csv", 1)), "--json"])
    bad = CliRunner().invoke(command, [str(package.folder), "--data", str(rows(tmp_path / "bad.csv", 1, flipped=0.5)), "--json"])

    assert (good.exit_code, json.loads(good.stdout)["verdict"]) == (0, "pass")
    assert json.loads(bad.stdout)["verdict"] == "fail"
    assert isinstance(bad.exception, VerdictError)
    assert "G4 fail" in str(bad.exception)
