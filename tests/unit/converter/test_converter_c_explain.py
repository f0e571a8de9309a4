"""The target c explains: trees as all coalitions say, linear models by the closed form, nothing else; and the self-test knows it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
)

from converter.cores import Core, Dense, Layers
from converter.cores.reading import core_of_estimator
from converter.explain.exact import exact_of
from converter.explain.fidelity import judge_fidelity
from converter.to_c import source as c_source
from converter.to_c.compiler import run_limited
from converter.to_c.explanation import Explanation
from converter.to_c.make import make
from converter.to_c.running import Program, explanation_figures, measure
from converter.to_c.selftest import Golden, write_selftest
from converter.to_c.source import Described, without_explanation, write_model
from device_agent.explain import open_explainer
from edgefleet.manifest import Task
from edgefleet.package import ModelPackage
from edgefleet.steps import Steps
from edgefleet.steps.trace import Trace
from tests.unit.converter import c_programs
from tests.unit.converter.converter_packages import candidate_package
from tests.unit.converter.tree_oracle import shapley_by_definition

Matrix = NDArray[np.float32]
# Float32 products and sums: 4e-7 of the largest contribution was seen.
NEAR = 2e-6


def program(folder: Path, core: Core, rows: Matrix, inputs: int, *steps: Steps) -> Program:
    """Compiled after the compiler had nothing to say."""
    first = steps[0] if steps else Steps.identity((core.features,))
    exact = exact_of(core, rows, inputs, *(steps or (first,)))
    written = write_model(core, first, Described("pump", "0" * 64, [f"c{i}" for i in range(core.classes)]), Explanation(exact))
    source, built = folder / "source", folder / "built"
    source.mkdir(parents=True)
    built.mkdir()
    golden = Golden(np.zeros((1, int(np.prod(first.input_shape))), np.float32), np.zeros((1, core.classes or core.margins)), 1e30)
    (source / "model.c").write_text(written.code)
    (source / "model.h").write_text(written.header)
    (source / "selftest.c").write_text(write_selftest(golden, "pump", no_explanations(int(np.prod(first.input_shape)), inputs)))
    said = c_programs.compile_strictly(source, ["model.c", "selftest.c", "-lm", "-o", "strict"])
    assert said.returncode == 0, said.stderr
    return Program.compile(source, built)


def no_explanations(values: int, inputs: int) -> Any:
    from converter.to_c.selftest import GoldenExplanations

    return GoldenExplanations(np.zeros((1, values), np.float32), np.zeros(1, np.intp), np.full((1, 1 + inputs), 1e30))


def explained(built: Program, x: Matrix, columns: int) -> NDArray[np.float64]:
    """[n, F, K]."""
    return np.stack([built.explanations(x, k)[1] for k in range(columns)], axis=2)


def trained(model: Any, categories: bool = False, missing: float = 0.0, classes: int = 3) -> tuple[Any, Matrix]:
    rng = np.random.default_rng(3)
    x = rng.normal(0, 1, (600, 5)).astype(np.float32)
    if categories:
        x[:, 0] = rng.integers(0, 9, 600)
    label = np.digitize(x[:, 1] * x[:, 2] + np.isin(x[:, 0], [1, 4, 7]), [0.0, 0.7][: classes - 1])
    x[rng.random(x.shape) < missing] = np.nan
    return model.fit(x, label), x


@pytest.mark.parametrize(
    ("model", "family", "options"),
    [
        (RandomForestClassifier(8, random_state=0), "forest", {"missing": 0.1}),
        (RandomForestClassifier(8, max_depth=4, random_state=0), "forest", {"classes": 2}),
        (GradientBoostingClassifier(n_estimators=6, random_state=0), "boosting", {}),
        (HistGradientBoostingClassifier(max_iter=6, random_state=0), "hist_boosting", {"missing": 0.1, "classes": 2}),
        (HistGradientBoostingClassifier(max_iter=6, categorical_features=[0], random_state=0), "hist_boosting", {"categories": True}),
    ],
    ids=["forest-missing", "forest-two", "boosting-three", "histogram-missing", "categories"],
)
def test_trees_are_explained_as_the_sum_over_all_coalitions_says(model: Any, family: str, options: Any, tmp_path: Path) -> None:
    fitted, x = trained(model, **options)
    core = core_of_estimator(fitted, family)
    strange = np.array([[77, np.nan, -np.inf, np.inf, 0], [np.nan] * 5, [-1, 0.5, 2, 3, -4]], np.float32)
    asked = np.concatenate([x[:10], strange])

    found = explained(program(tmp_path, core, x, 5), asked, core.margins)

    wanted = np.stack([shapley_by_definition(core.head.ensemble, row) for row in asked])  # type: ignore[union-attr]  # all are trees
    assert np.abs(found - wanted).max() <= NEAR * np.abs(wanted).max()


def test_base_and_contributions_add_up_to_the_margin_that_the_program_answers(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(500, 6)).astype(np.float32)
    core = core_of_estimator(RandomForestRegressor(20, random_state=0).fit(x, 500 + 30 * x[:, 0] * x[:, 1]), "forest", "regression")
    built = program(tmp_path, core, x, 6)

    margin, _ = built.outputs(x[:200])
    base, found = built.explanations(x[:200], 0)

    assert np.abs(base + found.sum(axis=1) - margin[:, 0]).max() <= 1e-6 * np.abs(margin).max()


def test_a_column_that_the_margin_has_not_is_refused(tmp_path: Path) -> None:
    fitted, x = trained(GradientBoostingClassifier(n_estimators=2, random_state=0))
    program(tmp_path, core_of_estimator(fitted, "boosting"), x, 5)
    calls = "int main(void) { float b, c[5], x[5] = {0}; return 10 * pump_explain(x, 3, &b, c) + pump_explain(x, -1, &b, c); }\n"
    (tmp_path / "source" / "calls.c").write_text(f'#include "model.h"\n{calls}')
    c_programs.compile_strictly(tmp_path / "source", ["model.c", "calls.c", "-lm", "-o", "calls"])

    assert run_limited(["./calls"], tmp_path / "source", b"", 10, 1 << 30).returncode == 11


def test_a_linear_model_is_explained_in_closed_form_far_from_zero_too(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    # Seconds since 1970 lie 128 apart in float32; their mean lies between two of them.
    x = np.column_stack([1.7e9 + 128 * rng.integers(0, 100, 400), rng.normal(size=400)]).astype(np.float32)
    weight = np.array([[2e-4, -1e-4, 0.0], [0.5, 1.5, -2.0]])
    core = Core(Layers((Dense(weight, np.array([-3.4e5, 1.7e5, 0.0])),)), 2, 3, 3, "softmax")

    found = explained(program(tmp_path, core, x, 2), x[:50], 3)

    wanted = (x[:50].astype(np.float64) - x.astype(np.float64).mean(axis=0))[:, :, None] * weight
    assert np.abs(found - wanted).max() <= NEAR * np.abs(wanted).max()


def test_derived_columns_are_summed_into_their_raw_input_and_windows_into_their_channel(tmp_path: Path) -> None:
    x = np.random.default_rng(5).normal(size=(400, 4, 2)).astype(np.float32)
    trace = Trace((4, 2))
    trace.reshape(trace.rows(0, 1, 4), (6,))
    steps = Steps(tuple(trace.ops), tuple(f"v{i}" for i in range(6)), (0, 1) * 3)
    z = steps.run(x)
    core = core_of_estimator(RandomForestRegressor(6, random_state=0).fit(z, z[:, 0] + z[:, 5]), "forest", "regression")

    found = explained(program(tmp_path, core, x, 2, steps), x[:20], 1)

    columns = np.stack([shapley_by_definition(core.head.ensemble, row) for row in z[:20]])  # type: ignore[union-attr]  # trees
    wanted = np.stack([columns[:, 0::2].sum(axis=1), columns[:, 1::2].sum(axis=1)], axis=1)
    assert np.abs(found - wanted).max() <= NEAR * np.abs(wanted).max()


def converted(folder: Path, package: ModelPackage, explain: str = "auto") -> dict[str, Any]:
    (folder / "c").mkdir(parents=True)
    job = {"package": str(package.folder), "target": "c", "result": str(folder / "c" / "model.c"), "folder": str(folder / "c")}
    return make({**job, "explain": explain})


def proven(folder: Path, package: ModelPackage) -> dict[str, Any]:
    rows = {name: str(package.folder / "rows" / f"{name}.npz") for name in ("parity", "golden")}
    return measure({"bundle": str(folder), "variant": "c", "rows": rows, "folder": str(folder), "package": str(package.folder)})


@pytest.mark.parametrize(
    ("name", "task", "classes", "method"),
    [
        ("logistic", "classification", 3, "linear"), ("logistic", "classification", 2, "linear"), ("ridge", "regression", 2, "linear"),
        ("tree", "classification", 3, "treeshap"), ("majority", "classification", 3, "treeshap"), ("mean", "regression", 2, "treeshap"),
        ("extra_trees", "regression", 2, "treeshap"), ("hist_boosting", "classification", 2, "treeshap"),
    ],
)  # fmt: skip
def test_a_package_is_explained_and_the_proof_says_how_well(name: str, task: Task, classes: int, method: str, tmp_path: Path) -> None:
    package = candidate_package(tmp_path / "package", name, task, classes)

    made = converted(tmp_path / "bundle", package)
    measured = proven(tmp_path / "bundle", package)

    assert made["explained"] == method
    assert made["facts"]["explain_function"] == "candidate_explain"
    assert measured["explain_gap"] <= 1e-5
    assert measured["explain_difference"] <= NEAR


def test_c_says_of_one_row_what_the_devices_explainer_says(tmp_path: Path) -> None:
    from converter.cores.reading import core_of
    from converter.explain.building import explainer_for

    package = candidate_package(tmp_path / "package", "boosting", "classification", 3, missing=0.0)
    converted(tmp_path / "bundle", package)
    (tmp_path / "built").mkdir()
    built = Program.compile(tmp_path / "bundle" / "c", tmp_path / "built")
    x = package.rows("parity").x[:10]
    names = tuple(column.name for column in package.inputs())
    device = open_explainer(explainer_for(core_of(package), package).content, "treeshap", names, 3)

    theirs = np.stack([device.explain(row, 1, 0.0, lambda r: r).contributions for row in x])

    assert np.abs(built.explanations(x, 1)[1] - theirs).max() <= NEAR * np.abs(theirs).max()


@pytest.mark.parametrize(
    ("name", "task", "wish", "reason"),
    [
        ("mlp", "classification", "auto", "no exact explanation"),
        ("isolation_forest", "anomaly", "auto", "no sum of its trees"),
        ("forest", "classification", "none", "the project wants no explanation"),
        ("forest", "classification", "sampled", "exactly or not at all, and the project wants 'sampled'"),
        ("forest", "classification", "linear", "the project wants 'linear', and the model is explained by 'treeshap'"),
    ],
)
def test_what_is_not_explained_says_why(name: str, task: Task, wish: str, reason: str, tmp_path: Path) -> None:
    package = candidate_package(tmp_path / "package", name, task)

    made = converted(tmp_path / "bundle", package, wish)

    assert made["explained"] is None
    assert reason in made["explain_reason"]
    assert reason in (tmp_path / "bundle/c/model.h").read_text()
    assert "explain_gap" not in proven(tmp_path / "bundle", package)


def test_where_the_explanation_does_not_fit_the_model_is_written_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import converter.to_c.text

    fitted, x = trained(RandomForestClassifier(10, random_state=0))
    core = core_of_estimator(fitted, "forest")
    described = Described("pump", "0" * 64, ["a", "b", "c"])
    plain = write_model(core, Steps.identity((5,)), described)
    monkeypatch.setattr(converter.to_c.text, "MAX_CONSTANT_BYTES", plain.constant_bytes + 100)

    written = write_model(core, Steps.identity((5,)), described, Explanation(exact_of(core, x, 5)))

    assert "with the explanation its constants exceed" in written.explanation.reason
    assert "pump_explain" not in written.code
    assert written.constant_bytes == plain.constant_bytes


def test_a_wrong_explanation_is_told_apart_from_a_wrong_answer_and_can_be_left_out(tmp_path: Path) -> None:
    package = candidate_package(tmp_path / "package", "forest", "classification", 3)
    converted(tmp_path, package)
    folder = tmp_path / "c"
    code = (folder / "model.c").read_text()
    (folder / "model.c").write_text(code.replace("moved += sum[d][q] * (own - above);", "moved += sum[d][q] * (own - 0.5f * above);"))
    build = ["model.c", "selftest.c", "-lm", "-o", "selftest"]
    assert c_programs.compile_strictly(folder, build).returncode == 0

    bad = run_limited(["./selftest"], folder, b"", 10, 1 << 30)
    measured = proven(tmp_path, package)
    (folder / "model.h").write_text(without_explanation((folder / "model.h").read_text()))
    assert c_programs.compile_strictly(folder, build).returncode == 0
    good = run_limited(["./selftest"], folder, b"", 10, 1 << 30)

    assert bad.returncode == 2
    assert b"explanation" in bad.stdout
    assert measured["explain_gap"] == measured["explain_difference"] == float("inf")
    assert good.returncode == 0
    assert "explain_gap" not in proven(tmp_path, package)
    assert c_source.WITHOUT in (folder / "model.h").read_text()


def test_an_explanation_that_is_no_number_is_no_small_difference(tmp_path: Path) -> None:
    package = candidate_package(tmp_path / "package", "forest", "classification", 3)
    converted(tmp_path, package)
    code = (tmp_path / "c/model.c").read_text()
    broken = code.replace("column, base, contributions);\n  for", "column, base, contributions);\n  contributions[0] = NAN;\n  for")
    (tmp_path / "c/model.c").write_text(broken)
    (tmp_path / "built").mkdir()

    figures = explanation_figures(Program.compile(tmp_path / "c", tmp_path / "built"), package, package.rows("parity").x)

    assert broken != code
    assert [gate.ok for gate in judge_fidelity(figures["explain_gap"], None, figures["explain_difference"])] == [False, False]


@pytest.mark.parametrize("project", ["pump", "pump_model_house", "MODEL_H", "a-b 7"])
def test_an_explanation_can_be_left_out_whatever_the_project_is_called(project: str) -> None:
    fitted, x = trained(GradientBoostingClassifier(n_estimators=1, random_state=0))
    core = core_of_estimator(fitted, "boosting")
    described = Described(project, "0" * 64, ["a", "b", "c"])

    header = without_explanation(write_model(core, Steps.identity((5,)), described, Explanation(exact_of(core, x, 5))).header)

    assert f"_MODEL_H\n#define {described.name.upper()}_{c_source.WITHOUT}\n" in header
