"""A model over windows, made elsewhere: imported with a plain table, gated, packaged, and answering windows as it did before."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgefleet.errors import InputError
from edgefleet.package import ModelPackage
from edgefleet.reference import Reference
from trainer.importers.importing import Imported, import_model
from trainer.importers.sample import Wish
from trainer.new_rows import new_rows
from trainer.opened import open_predict, project_of
from trainer.validate import validate

RUNS, LENGTH, ROWS = 40, 30, 6
PROJECT = f"""
[goal]
name = "shaking"
question = "Does it shake?"
minimum = 0.85
[data]
source = "elsewhere.csv"
label = "answer"
group = "run"
[data.splits]
method = "group"
[schema]
numbers = ["x", "y"]
[cleaning.window]
rows = {ROWS}
stride = 2
[search]
candidates = ["conv1d"]
"""


def series(path: Path, seed: int) -> Path:
    """Runs of 30 rows, every second one shakes three times as much: a single row tells little, six tell it."""
    import pandas

    rng = np.random.default_rng(seed)
    run = np.repeat(np.arange(RUNS), LENGTH)
    values = rng.normal(size=(len(run), 2)) * np.where(run % 2 == 1, 3.0, 1.0)[:, None]
    table = {"x": values[:, 0], "y": values[:, 1], "run": [f"r{i:02}" for i in run], "answer": np.where(run % 2 == 1, "yes", "no")}
    pandas.DataFrame(table).to_csv(path, index=False)
    return path


def windows(path: Path) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """Windows of each run by plain slicing, and their answers."""
    import pandas

    table = pandas.read_csv(path)
    cut = [(one.iloc[at : at + ROWS], one["answer"].iloc[0]) for _, one in table.groupby("run") for at in range(LENGTH - ROWS + 1)]
    return np.stack([rows[["x", "y"]].to_numpy(np.float32) for rows, _ in cut]), np.array([answer for _, answer in cut])


def squares(x: NDArray[np.float32], answer: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A model elsewhere: logistic regression on the squares of a window's values; its weights and intercept."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=1000).fit(np.square(x.reshape(len(x), -1)), answer)
    return model.coef_[0], model.intercept_


def as_onnx(path: Path, weights: NDArray[np.float64], intercept: NDArray[np.float64]) -> Path:
    """The model as a graph over [n, 6, 2]."""
    from onnx import TensorProto, checker, helper, numpy_helper

    both = np.stack([np.zeros_like(weights), weights], axis=1).astype(np.float32)
    constants = [
        numpy_helper.from_array(both, "weights"),
        numpy_helper.from_array(np.array([0.0, intercept[0]], np.float32), "intercepts"),
        numpy_helper.from_array(np.array([-1, 2 * ROWS], np.int64), "flat"),
    ]
    nodes = [
        helper.make_node("Reshape", ["window", "flat"], ["row"]),
        helper.make_node("Mul", ["row", "row"], ["squared"]),
        helper.make_node("Gemm", ["squared", "weights", "intercepts"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "squares",
        [helper.make_tensor_value_info("window", TensorProto.FLOAT, ["n", ROWS, 2])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 2])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("windows")
    (made / "project").mkdir()
    (made / "project" / "project.toml").write_text(PROJECT)
    as_onnx(made / "model.onnx", *squares(*windows(series(made / "old.csv", 0))))
    series(made / "sample.csv", 1)
    return made


@pytest.fixture(scope="module")
def imported(folder: Path) -> Imported:
    wish = Wish(label="", classes=["no", "yes"])
    return import_model(folder / "model.onnx", folder / "sample.csv", wish, folder / "package", project_dir=folder / "project")


def test_a_window_model_passes_its_gates_and_is_packaged_with_its_window(imported: Imported) -> None:
    verdicts = {gate.gate: gate.verdict for gate in imported.gates}

    assert (verdicts["G1"], verdicts["G3"], verdicts["G4"]) == ("pass", "pass", "pass")
    assert imported.package.index.window_rows == ROWS
    assert imported.package.rows("golden").x.shape[1:] == (ROWS, 2)
    assert imported.metric["value"] > 0.85


def test_the_package_answers_windows_as_the_graph_does(imported: Imported, folder: Path) -> None:
    import onnxruntime

    x, _ = windows(folder / "sample.csv")

    answers = open_predict(ModelPackage.open(imported.package.folder))(x).probabilities

    session = onnxruntime.InferenceSession((folder / "model.onnx").read_bytes(), providers=["CPUExecutionProvider"])
    assert answers is not None
    assert np.abs(answers - session.run(None, {"window": x})[0]).max() < 1e-6  # float32 sums that are divided by themselves once more


def test_rows_of_one_run_stand_in_one_half_and_its_windows_follow_each_other(imported: Imported, folder: Path) -> None:
    import pandas

    rows = new_rows(project_of(imported.package), pandas.read_csv(folder / "sample.csv"), ["no", "yes"])
    reference = Reference.from_bytes(imported.package.read("reference.npz"))

    assert len(rows) == RUNS * ((LENGTH - ROWS) // 2 + 1)
    assert reference.counts[0].sum() == len(rows) // 2  # of each window its newest row
    assert reference.block_group is not None
    assert np.unique(reference.block_group).tolist() == list(range(RUNS // 2))


def test_new_series_are_judged_by_the_package_alone(imported: Imported, folder: Path) -> None:
    found = validate(imported.package, series(folder / "new.csv", 2))

    assert found.blocking == []
    assert found.rows == RUNS * ((LENGTH - ROWS) // 2 + 1)


def test_a_window_of_another_length_than_the_graph_takes_is_counted(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "project.toml").write_text(PROJECT.replace(f"rows = {ROWS}", "rows = 5"))

    with pytest.raises(InputError, match="the model takes 6x2 numbers a row, the data have 10"):
        import_model(
            folder / "model.onnx", folder / "sample.csv", Wish(label="", classes=["no", "yes"]), tmp_path / "p", project_dir=tmp_path
        )
