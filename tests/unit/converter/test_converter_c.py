"""The target c: models in C answer as the original and as onnxruntime, and say so themselves."""

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from converter.calibrators import calibrate
from converter.comparing import spread_of
from converter.cores import Core, Dense, Layers, Trees
from converter.cores.reading import core_of_estimator
from converter.cores.running import margins_of
from converter.originals import answers_of, load_estimator
from converter.to_c.compiler import find_compiler, run_limited
from converter.to_c.make import make, why_not_c
from converter.to_c.running import measure
from converter.to_c.text import MAX_CONSTANT_BYTES
from converter.to_onnx.core import core_to_onnx
from edgefleet.errors import ArtifactError, VerdictError
from edgefleet.manifest import Task
from edgefleet.package import ModelPackage
from edgefleet.steps import Steps, Trace
from tests.unit.converter import c_programs
from tests.unit.converter.converter_packages import candidate_package

CANDIDATES: list[tuple[str, Task, int]] = [
    ("majority", "classification", 3), ("mean", "regression", 2), ("logistic", "classification", 2), ("logistic", "classification", 4),
    ("ridge", "regression", 2), ("tree", "classification", 3), ("forest", "classification", 2), ("extra_trees", "regression", 2),
    ("boosting", "classification", 3), ("hist_boosting", "classification", 2), ("svm", "classification", 2),
    ("svm", "classification", 4), ("svm", "regression", 2), ("mlp", "classification", 3), ("mlp", "regression", 2),
    ("isolation_forest", "anomaly", 2), ("mahalanobis", "anomaly", 2),
]  # fmt: skip
SIGMOID = {"kind": "sigmoid", "slope": 1.7, "intercept": -0.3}
TEMPERATURE = {"kind": "temperature", "slope": 0.6}
CURVE = {"x": [0.0, 0.3, 0.301, 0.9], "y": [0.05, 0.1, 0.6, 0.95]}


def converted(folder: Path, package: ModelPackage) -> dict[str, Any]:
    (folder / "c").mkdir(parents=True)
    return make({"package": str(package.folder), "target": "c", "result": str(folder / "c" / "model.c"), "folder": str(folder / "c")})


def proven(folder: Path, package: ModelPackage) -> dict[str, Any]:
    rows = {name: str(package.folder / "rows" / f"{name}.npz") for name in ("parity", "golden")}
    return measure({"bundle": str(folder), "variant": "c", "rows": rows, "folder": str(folder), "package": str(package.folder)})


def in_onnxruntime(core: Core, x: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(core_to_onnx(core), options, providers=["CPUExecutionProvider"])
    found: list[NDArray[np.float32]] = session.run(["margin", *(["probabilities"] if core.classes else [])], {"inputs": x})
    return found


def hard_rows(core: Core, rows: int, missing: float = 0.0) -> NDArray[np.float32]:
    """Half of all values lie on a threshold of their column or on its neighbour."""
    assert isinstance(core.head, Trees)
    rng = np.random.default_rng(5)
    x = rng.normal(0, 1, (rows, core.features)).astype(np.float32)
    for column in range(core.features):
        cuts = np.concatenate([t.threshold[(t.feature == column) & (t.left >= 0)] for t in core.head.ensemble.trees])
        if len(cuts):
            on = rng.choice(cuts, rows)
            on = np.where(rng.random(rows) < 0.5, on, np.nextafter(on, np.float32(np.inf)))
            x[:, column] = np.where(rng.random(rows) < 0.5, on, x[:, column])
    x[rng.random(x.shape) < missing] = np.nan
    return x


def trained(model: Any, missing: float = 0.0, categories: bool = False) -> Any:
    rng = np.random.default_rng(3)
    x = rng.normal(0, 1, (1500, 6))
    if categories:
        x[:, 0] = rng.integers(0, 40, 1500)
    label = np.digitize(np.sin(3 * x[:, 0]) + x[:, 1] * x[:, 2] + 0.3 * rng.normal(size=1500), [-0.5, 0.5])
    x[rng.random(x.shape) < missing] = np.nan
    return model.fit(x, label)


@pytest.mark.parametrize(("name", "task", "classes"), CANDIDATES)
def test_every_family_answers_as_its_original(name: str, task: Task, classes: int, tmp_path: Path) -> None:
    package = candidate_package(tmp_path / "package", name, task, classes)
    converted(tmp_path / "bundle", package)

    measured = proven(tmp_path / "bundle", package)

    original = answers_of(package, load_estimator(package), package.steps(), package.rows("parity").x)
    wanted = original.probabilities if classes and task == "classification" else original.margin
    with np.load(measured["answers"]["parity"]) as found:
        # The gate of float32 targets: 1e-5 of a probability, or of the values' spread.
        assert np.abs(found["single"] - wanted).max() / spread_of(task, original) <= 1e-5
        assert np.array_equal(found["single"], found["batch"])
    assert 0 < measured["latency_p50_ms"] <= measured["latency_p99_ms"]
    assert 0 < measured["memory_peak_bytes"] < 1 << 24


def test_a_forest_answers_with_onnxruntimes_bits_on_and_beside_every_threshold(tmp_path: Path) -> None:
    from sklearn.ensemble import RandomForestClassifier

    core = core_of_estimator(trained(RandomForestClassifier(60, max_depth=9, random_state=0), missing=0.1), "forest")
    x = hard_rows(core, 20_000, missing=0.1)

    margin, probabilities = c_programs.program(tmp_path, core).outputs(x)

    theirs = in_onnxruntime(core, x)
    assert c_programs.same_bits(margin, theirs[0])
    assert c_programs.same_bits(probabilities, theirs[1])


@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_boosting_sums_to_onnxruntimes_bits(missing: float, tmp_path: Path) -> None:
    from sklearn.ensemble import HistGradientBoostingClassifier

    core = core_of_estimator(trained(HistGradientBoostingClassifier(max_iter=60, random_state=0), missing), "hist_boosting")
    x = hard_rows(core, 20_000, missing)

    margin, probabilities = c_programs.program(tmp_path, core).outputs(x)

    theirs = in_onnxruntime(core, x)
    assert c_programs.same_bits(margin, theirs[0])
    # The exponential is the C library's there and onnxruntime's own here.
    assert np.abs(probabilities - theirs[1]).max() <= 3e-7


def test_sets_of_categories_go_as_in_the_original_unknown_and_missing_ones_too(tmp_path: Path) -> None:
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = trained(HistGradientBoostingClassifier(max_iter=30, categorical_features=[0], random_state=0), 0.05, categories=True)
    core = core_of_estimator(model, "hist_boosting")
    x = np.random.default_rng(8).normal(0, 1, (6000, 6)).astype(np.float32)
    x[:, 0] = np.arange(6000) % 43 - 1
    x[::50, 0] = np.nan

    margin, _ = c_programs.program(tmp_path, core).outputs(x)

    # Not 0: thirty values are added in float32.
    assert np.abs(margin - margins_of(core, x)).max() <= 5e-6


@pytest.mark.parametrize(("features", "mark"), [(255, "255u"), (256, "65535u")])
def test_the_mark_of_a_leaf_is_no_column(features: int, mark: str, tmp_path: Path) -> None:
    from sklearn.tree import DecisionTreeRegressor

    x = np.zeros((200, features))
    x[:, -1] = np.arange(200)
    core = core_of_estimator(DecisionTreeRegressor(random_state=0).fit(x, np.arange(200) % 7), "tree", "regression")

    margin, _ = c_programs.program(tmp_path, core).outputs(x.astype(np.float32))

    assert np.allclose(margin[:, 0], np.arange(200) % 7, atol=1e-6)
    assert mark in (tmp_path / "source" / "model.c").read_text()


@pytest.mark.parametrize(
    ("classes", "name", "document"),
    [
        (2, "logistic", SIGMOID),
        (2, "forest", SIGMOID),
        (2, "boosting", {"kind": "isotonic", "curves": [CURVE]}),
        (3, "boosting", TEMPERATURE),
        (2, "logistic", TEMPERATURE),
        (3, "forest", {"kind": "isotonic", "curves": [CURVE, {"x": [0.5], "y": [0.4]}, CURVE]}),
    ],
)
def test_the_calibrator_is_inside(classes: int, name: str, document: dict[str, Any], tmp_path: Path) -> None:
    package = candidate_package(tmp_path / "package", name, "classification", classes, calibrator=document)
    plain = candidate_package(tmp_path / "plain", name, "classification", classes)
    converted(tmp_path / "bundle", package)

    measured = proven(tmp_path / "bundle", package)

    x = plain.rows("parity").x
    wanted = calibrate(document, answers_of(plain, load_estimator(plain), plain.steps(), x).probabilities)
    with np.load(measured["answers"]["parity"]) as found:
        # A steep segment of a curve (.5 within .001) multiplies an error of 1e-7 by 500.
        assert np.abs(found["single"] - wanted).max() <= 1e-4


def test_an_answer_that_is_not_finite_is_told_and_counts_as_refused(tmp_path: Path) -> None:
    layers = Layers((Dense(np.ones((3, 4)), np.zeros(4), "relu"), Dense(np.ones((4, 1)), np.zeros(1))))
    compiled = c_programs.program(tmp_path, Core(layers, 3, 1, 0, "none"))

    found = compiled.answers(np.array([[1, 2, 3], [1, np.nan, 3], [1, np.inf, -np.inf]], np.float32))

    assert found[0, 0] == 24
    assert np.isnan(found[1:]).all()


def test_steps_of_the_package_and_of_an_imported_pipeline_stand_one_behind_the_other(tmp_path: Path) -> None:
    cleaning, front = Trace((4,)), Trace((4,))
    cleaning.where(cleaning.isnan(0), np.array([1, 2, 3, 4], np.float32), 0)
    front.mul(front.take(0, [3, 0]), np.float32(0.1))
    names = tuple("abcd")
    head = Layers((Dense(np.array([[1.0], [-2.0]]), np.array([0.5])),))
    core = Core(head, 2, 1, 2, "logistic", front=Steps(tuple(front.ops), ("d", "a"), (3, 0)))
    x = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
    x[::3, 0] = np.nan
    steps = Steps(tuple(cleaning.ops), names, (0, 1, 2, 3))

    margin, probabilities = c_programs.program(tmp_path, core, steps).outputs(x)

    assert np.abs(margin - margins_of(core, steps.run(x))).max() <= 1e-6
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-6)


def test_equal_packages_give_equal_bytes(tmp_path: Path) -> None:
    package = candidate_package(tmp_path / "package", "forest", "classification", 3)

    made = [converted(tmp_path / name, package) for name in ("one", "two")]

    names = ("model.c", "model.h", "selftest.c")
    assert [(tmp_path / "one/c" / name).read_bytes() for name in names] == [(tmp_path / "two/c" / name).read_bytes() for name in names]
    assert made[0]["facts"] == made[1]["facts"]
    assert made[0]["facts"]["code_bytes"] > made[0]["facts"]["constant_bytes"] > 0


def test_the_self_test_prints_its_largest_error_and_finds_a_changed_leaf(tmp_path: Path) -> None:
    package = candidate_package(tmp_path / "package", "tree", "classification", 3)
    converted(tmp_path, package)
    folder = tmp_path / "c"
    build = ["model.c", "selftest.c", "-lm", "-o", "selftest"]
    assert c_programs.compile_strictly(folder, build).returncode == 0
    good = run_limited(["./selftest"], folder, b"", 10, 1 << 30)
    code = (folder / "model.c").read_text()

    (folder / "model.c").write_text(code.replace("margin[k] += leaf[k]", "margin[k] += leaf[k] * 0.9f"))
    assert c_programs.compile_strictly(folder, build).returncode == 0
    bad = run_limited(["./selftest"], folder, b"", 10, 1 << 30)

    assert good.returncode == 0
    assert good.stdout.startswith(b"ok: 8 golden rows, largest error ")
    assert bad.returncode == 1
    assert bad.stdout.startswith(b"failed: golden row ")


def test_fast_mathematics_does_not_compile(tmp_path: Path) -> None:
    c_programs.write(tmp_path, Core(Layers((Dense(np.ones((2, 1)), np.zeros(1)),)), 2, 1, 0, "none"))

    said = c_programs.compile_strictly(tmp_path, ["-c", "model.c"], ("-std=c99", "-ffast-math"))

    assert said.returncode != 0
    assert "compile without -ffast-math" in said.stderr


def test_nothing_is_fused_even_where_the_compiler_is_told_to_fuse(tmp_path: Path) -> None:
    c_programs.write(tmp_path, Core(Layers((Dense(np.ones((3, 2)), np.zeros(2)),)), 3, 2, 2, "softmax"))
    probe = "float f(float a, float b, float c) { return a * b + c; }\n"
    (tmp_path / "probe.c").write_text(probe)
    flags = ("-std=gnu99", "-O2", "-mfma", "-ffp-contract=fast", "-S")
    if c_programs.compile_strictly(tmp_path, ["probe.c"], flags).returncode or "fmadd" not in (tmp_path / "probe.s").read_text():
        pytest.skip("this compiler has no -mfma")

    said = c_programs.compile_strictly(tmp_path, ["model.c"], flags)

    assert said.returncode == 0
    assert "fmadd" not in (tmp_path / "model.s").read_text()


def test_a_project_of_any_name_has_a_prefix_and_classes_of_any_name_are_strings(tmp_path: Path) -> None:
    from converter.to_c.source import Described, write_model

    core = Core(Layers((Dense(np.ones((2, 3)), np.zeros(3)),)), 2, 3, 3, "softmax")
    written = write_model(core, Steps.identity((2,)), Described('7 *"/ größe', "0" * 64, ['a"b', "??/", "é\n*/"]))
    (tmp_path / "model.c").write_text(written.code, encoding="ascii")
    (tmp_path / "model.h").write_text(written.header, encoding="ascii")

    said = c_programs.compile_strictly(tmp_path, ["-c", "model.c"])

    assert (said.returncode, said.stderr) == (0, "")
    assert "int m_7_gr_e_predict(" in written.header


def test_a_model_with_too_many_constants_is_refused_with_the_limit_and_the_remedy(tmp_path: Path) -> None:
    core = Core(Layers((Dense(np.random.default_rng(0).normal(size=(400, 400)), np.zeros(400)),)), 400, 400, 400, "softmax")

    with pytest.raises(VerdictError, match=rf"exceed {MAX_CONSTANT_BYTES} bytes.*train a smaller model"):
        c_programs.write(tmp_path, core)


@pytest.mark.parametrize(
    ("family", "words"), [("keras", "tflite target"), ("onnx", "imported .onnx graph"), ("tflite", "imported .tflite graph")]
)
def test_networks_and_imported_graphs_are_refused_by_name(family: str, words: str, tmp_path: Path) -> None:
    import dataclasses

    import msgspec

    package = candidate_package(tmp_path / "package", "mean", "regression")
    other = dataclasses.replace(package, index=msgspec.structs.replace(package.index, family=family))

    assert words in (why_not_c(other) or "")
    assert why_not_c(package) is None


def test_without_a_compiler_the_reason_names_what_was_looked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CC", "icc -fast")

    with pytest.raises(VerdictError, match=r"no C compiler found \(looked for icc, cc, gcc, clang\).*install gcc or clang"):
        find_compiler()


def test_a_program_that_does_not_end_is_stopped(tmp_path: Path) -> None:
    (tmp_path / "endless.c").write_text("int main(void) { volatile int on = 1; while (on) {} return 0; }\n")
    subprocess.run([*find_compiler(), "endless.c", "-o", "endless"], cwd=tmp_path, check=True, timeout=60)

    with pytest.raises(VerdictError, match=r"ran longer than 0\.2 s"):
        run_limited(["./endless"], tmp_path, b"", 0.2, 1 << 30)


def test_a_bundle_without_its_header_is_damaged(tmp_path: Path) -> None:
    package = candidate_package(tmp_path / "package", "mean", "regression")
    converted(tmp_path / "bundle", package)
    (tmp_path / "bundle/c/model.h").unlink()

    with pytest.raises(ArtifactError, match=r"model\.h"):
        proven(tmp_path / "bundle", package)
