"""A forest from package to bundle: proven, reproducible, complete, and refused when it is wrong."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.ensemble import RandomForestClassifier

from converter import Wishes, convert, convert_with_report, possible
from converter.building import Built, build
from converter.conversion import NoVariantLeft, prove
from converter.cores import Trees
from converter.cores.reading import core_of
from converter.explain.treeshap import compile_leaves
from converter.explain.treeshap_onnx import treeshap_to_onnx
from converter.gates import Limits
from converter.kept import Kept
from converter.parity import latencies_ms
from converter.planning import Plan
from converter.recipes import RECIPES
from converter.workshop import Graph
from converter.write import write_bundle
from device_agent.scorer import Scorer
from edgefleet.bundle import Bundle
from edgefleet.cli.bundle import bundle as bundle_command
from edgefleet.cli.convert import convert as convert_command
from edgefleet.digests import sha256_hex
from edgefleet.errors import ArtifactError, ConfigError, MissingPartError, VerdictError
from edgefleet.manifest import Override
from edgefleet.package import ModelPackage, read_npz, write_package
from tests.unit.converter.converter_packages import INPUTS, PARITY, candidate_package, digits, fitted, package, tree_package

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def forest(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    model = fitted(RandomForestClassifier(20, max_depth=8, random_state=0))
    overrides = [Override(gate="G4", reason="on purpose")]
    return tree_package(tmp_path_factory.mktemp("forest") / "package", model, overrides=overrides)


@pytest.fixture(scope="module")
def made(forest: ModelPackage) -> Path:
    done = convert_with_report(forest, Wishes(["onnx-fp32"], forest.folder.parent / "bundle"))
    assert [(report.name, report.verdict, report.kept) for report in done.reports] == [("onnx-fp32", "pass", True)]
    return done.folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What children made of the forest, for tests of what is done with it."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def built(forest: ModelPackage, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build(replace(plan_of(forest, ["onnx-fp32"], tmp_path_factory.mktemp("built") / "work"), kept=Kept(cache)))


def copy_of(bundle: Path, folder: Path) -> Path:
    folder.mkdir()
    for file in bundle.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_the_bundle_answers_as_scikit_learn_does(made: Path, forest: ModelPackage) -> None:
    x, _ = digits()
    wanted = fitted(RandomForestClassifier(20, max_depth=8, random_state=0)).predict_proba(x[PARITY].astype(np.float64))

    with Scorer.open(made) as scorer:
        answers = scorer.score_batch(x[PARITY])

    assert np.abs(answers.probabilities - wanted).max() < 1e-6
    assert np.array_equal(answers.margins, answers.probabilities)


def test_golden_rows_hold_the_answers_of_the_original(made: Path) -> None:
    golden = read_npz(Bundle.open(made).read("golden.npz"), (), "golden.npz")

    assert {name: array.dtype.name for name, array in golden.items()} == {
        "x": "float32", "label": "int64", "probabilities": "float64", "margin": "float64",
    }  # fmt: skip
    assert golden["probabilities"].shape == golden["margin"].shape == (32, 10)
    assert np.allclose(golden["probabilities"].sum(axis=1), 1.0)


def test_the_manifest_lists_every_file_but_itself_and_the_measurements(made: Path, forest: ModelPackage) -> None:
    opened = Bundle.open(made)
    opened.verify()

    assert set(opened.manifest.files) | {"manifest.json", "measured.json"} == {file.name for file in made.iterdir()}
    assert opened.manifest.package_digest == forest.digest
    assert opened.manifest.overrides == [Override(gate="G4", reason="on purpose")]
    assert opened.variant("onnx-fp32").explain_method == "treeshap"
    assert opened.variant("onnx-fp32").model_digest == sha256_hex((made / "onnx-fp32.onnx").read_bytes())


def test_the_same_package_gives_the_same_bytes_of_every_listed_file(made: Path, forest: ModelPackage, tmp_path: Path) -> None:
    again = convert(forest.folder, ["onnx-fp32"], tmp_path / "again")

    assert again.digest == Bundle.open(made).digest
    for name in again.manifest.files:
        assert again.read(name) == (made / name).read_bytes(), name


def test_gates_of_trainer_and_converter_travel_with_the_bundle(made: Path) -> None:
    gates = json.loads((made / "gates.json").read_bytes())

    assert [gate["gate"] for gate in gates] == ["G4", "C1", "C2", "C3", "C4", "C5", "C6", "X1", "X3"]
    assert {gate["variant"] for gate in gates[1:]} == {"onnx-fp32"}
    assert set(gates[1]) == {"gate", "variant", "verdict", "value", "limit", "n", "low", "high", "sentence"}


def test_the_manifest_names_how_a_variant_is_explained_and_by_which_files(made: Path, forest: ModelPackage) -> None:
    (variant,) = Bundle.open(made).manifest.variants

    assert (variant.explain_method, variant.explainer, variant.explain_graph, variant.explain_reason) == (
        "treeshap", "explain-onnx-fp32.npz", "explain-onnx-fp32.onnx", "",
    )  # fmt: skip
    assert {"explain-onnx-fp32.npz", "explain-onnx-fp32.onnx"} <= set(Bundle.open(made).manifest.variant_files("onnx-fp32"))


def without_numbers(graph: bytes) -> bytes:
    """The same with NaN as every constant float."""
    import onnx

    model = onnx.load_from_string(graph)
    for constant in model.graph.initializer:
        if constant.data_type == onnx.TensorProto.FLOAT:
            nothing = np.full(list(constant.dims), np.nan, np.float32)
            constant.CopyFrom(onnx.numpy_helper.from_array(nothing, constant.name))
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("changed", [lambda graph: graph, without_numbers], ids=["a tree less", "no numbers"])
def test_a_graph_that_explains_otherwise_stays_out_and_the_arrays_go_in(
    forest: ModelPackage, built: Built, tmp_path: Path, changed: Callable[[bytes], bytes]
) -> None:
    plan = plan_of(forest, ["onnx-fp32"], tmp_path / "work")
    assert built.explainer is not None
    core = core_of(forest)
    wrong = Trees(replace(core.head.ensemble, trees=core.head.ensemble.trees[:-1]))  # type: ignore[union-attr]  # a forest
    graph = treeshap_to_onnx(compile_leaves(wrong.ensemble), len(forest.inputs()), forest.steps())
    built = replace(built, explainer=replace(built.explainer, graphs={"onnxruntime": changed(graph)}))

    done = prove(plan, built, tmp_path / "bundle", Limits())

    (variant,) = done.bundle.manifest.variants
    assert [gate.verdict for gate in done.reports[0].gates if gate.gate.startswith("X")] == ["pass", "fail"]
    assert (variant.explain_method, variant.explainer, variant.explain_graph) == ("treeshap", "explain-onnx-fp32.npz", None)
    assert "failed its gate" in variant.explain_reason
    assert "explain-onnx-fp32.onnx" not in done.bundle.manifest.files


def test_measurements_name_the_host_and_the_cost(made: Path) -> None:
    measured = json.loads((made / "measured.json").read_bytes())

    cost = measured["variants"]["onnx-fp32"]
    assert 0 < cost["latency_p50_ms"] <= cost["latency_p95_ms"] < cost["cold_start_ms"]
    assert cost["memory_peak_bytes"] > 10_000_000
    assert cost["explain_gap"] < 1e-5


def yaml_subset(text: str) -> Any:
    """Mappings and lists by indentation, scalars as JSON: what MLmodel uses of YAML."""
    lines = [(len(line) - len(line.lstrip()), line.strip()) for line in text.splitlines()]

    def block(at: int, indent: int) -> tuple[Any, int]:
        items: list[Any] = []
        mapping: dict[str, Any] = {}
        while at < len(lines) and lines[at][0] == indent:
            line = lines[at][1]
            if line.startswith("- "):
                items.append(json.loads(line[2:]))
                at += 1
                continue
            key, _, value = line.partition(":")
            if value:
                mapping[key], at = json.loads(value), at + 1
            else:
                mapping[key], at = block(at + 1, lines[at + 1][0])
        return items or mapping, at

    found, end = block(0, 0)
    assert end == len(lines), f"line {end + 1} is not reached: {lines[end][1]}"
    return found


def test_the_bundle_is_an_mlflow_model_directory(made: Path) -> None:
    model = yaml_subset((made / "MLmodel").read_text())

    assert model["flavors"]["python_function"]["loader_module"] == "mlflow.onnx"
    assert model["flavors"]["onnx"]["data"] == model["flavors"]["python_function"]["data"] == "onnx-fp32.onnx"
    columns = json.loads(model["signature"]["inputs"])
    assert [column["name"] for column in columns] == [column.name for column in INPUTS]
    assert {(column["type"], column["required"]) for column in columns} == {("double", False)}
    assert len(model["model_uuid"]) == 32
    assert any(line.startswith("onnxruntime==") for line in (made / "requirements.txt").read_text().splitlines())
    assert (made / "python_env.yaml").read_text().startswith("python: ")


def test_one_flipped_bit_in_any_file_is_found(made: Path, tmp_path: Path) -> None:
    for name in sorted(Bundle.open(made).manifest.files):
        folder = copy_of(made, tmp_path / name.replace(".", "-"))
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 0x10
        (folder / name).write_bytes(bytes(content))

        with pytest.raises(ArtifactError, match="the manifest says"):
            Bundle.open(folder).verify()


def wrong_leaves(graph: bytes) -> bytes:
    """The graph with the leaf shares of two classes exchanged: it loads, runs, and lies."""
    import onnx

    model = onnx.load_from_string(graph)
    (trees,) = [node for node in model.graph.node if node.op_type.startswith("TreeEnsemble")]
    for attribute in trees.attribute:
        if attribute.name in ("class_ids", "target_ids"):
            attribute.ints[:] = [{1: 7, 7: 1}.get(i, i) for i in attribute.ints]
    return bytes(model.SerializeToString())


def plan_of(package: ModelPackage, targets: list[str], folder: Path) -> Plan:
    folder.mkdir()
    return Plan(package, [RECIPES[target] for target in targets], "auto", 0, folder, lambda what, how: None)


def test_a_graph_that_answers_wrongly_is_refused_and_nothing_is_written(forest: ModelPackage, built: Built, tmp_path: Path) -> None:
    plan = plan_of(forest, ["onnx-fp32"], tmp_path / "work")
    honest = built.graphs["onnx-fp32"]
    lying = replace(built, graphs={"onnx-fp32": replace(honest, content=wrong_leaves(honest.content))})

    with pytest.raises(
        NoVariantLeft, match=r"no variant is left: onnx-fp32: C1: \d+ of \d+ rows outside ties have another class"
    ) as caught:
        prove(plan, lying, tmp_path / "bundle", Limits())

    assert not (tmp_path / "bundle").exists()
    found = caught.value.reports[0].found
    assert found is not None
    assert found.value is not None
    assert found.value < 0.85


def test_a_refused_variant_stays_out_and_the_others_go_in(forest: ModelPackage, built: Built, tmp_path: Path) -> None:
    rubbish = Graph(b"TFL3 rubbish" * 100, built.graphs["onnx-fp32"].made, {})

    plan = plan_of(forest, ["onnx-fp32", "tflite-fp32"], tmp_path / "more")
    done = prove(plan, replace(built, graphs={**built.graphs, "tflite-fp32": rubbish}), tmp_path / "bundle", Limits())

    assert [variant.name for variant in done.bundle.manifest.variants] == ["onnx-fp32"]
    assert not any(name.startswith(("tflite", "explain-tflite")) for name in done.bundle.manifest.files)
    assert done.reports[1].verdict == "fail"
    assert "the device's scorer did not run it" in done.reports[1].reason
    assert "| tflite-fp32 | - | - | - | - | refused (fail) |" in (tmp_path / "bundle" / "card.md").read_text()


def test_a_declared_budget_refuses_a_graph_that_is_too_large(forest: ModelPackage, built: Built, cache: Path, tmp_path: Path) -> None:
    wishes = Wishes(["onnx-fp32"], tmp_path / "bundle", Limits(size_bytes=1000), cache=cache)

    with pytest.raises(NoVariantLeft, match=r"C5: \d+ bytes, limit 1000 bytes"):
        convert_with_report(forest, wishes)


def test_an_explanation_is_left_out_when_the_project_wants_none(tmp_path: Path) -> None:
    package = tree_package(tmp_path / "p", fitted(RandomForestClassifier(3, random_state=0)), project={"explain": {"method": "none"}})

    bundle = convert(package, ["onnx-fp32"], tmp_path / "bundle")

    assert bundle.variant("onnx-fp32").explainer is None


def test_targets_that_the_project_wishes_are_made_where_they_are_possible(tmp_path: Path) -> None:
    wishes = {"convert": {"targets": ["tflite-int8", "onnx-fp32"]}, "device": {"size_bytes": 10}}
    package = tree_package(tmp_path / "p", fitted(RandomForestClassifier(3, random_state=0)), project=wishes)

    with pytest.raises(NoVariantLeft, match="onnx-fp32: C5") as caught:
        convert(package, output=tmp_path / "bundle")
    assert [report.name for report in caught.value.reports] == ["onnx-fp32"]


def test_every_impossible_target_says_why(forest: ModelPackage) -> None:
    found = dict(possible(forest))

    assert {target for target, reason in found.items() if reason is None} == {"onnx-fp32", "tflite-fp32", "tflite-fp16", "c"}
    assert {reason for reason in found.values() if reason is not None} == {
        "trees are not quantized: thresholds would move; limit depth or count instead"
    }


def test_a_target_that_starts_from_an_impossible_one_is_impossible_too(tmp_path: Path) -> None:
    graph = package(tmp_path / "p", "model.onnx", b"not read", "onnx", "logit")

    reasons = dict(possible(graph))

    assert reasons["onnx-int8"] == reasons["onnx-fp32"]
    assert "signature.json cannot be called; import the model again" in str(reasons["onnx-fp32"])


def test_an_impossible_or_unknown_target_is_a_configuration_error(forest: ModelPackage, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="target tflite-int8 is impossible for this package: trees are not quantized"):
        convert(forest, ["tflite-int8"], tmp_path / "bundle")
    with pytest.raises(ConfigError, match="target 'onnx' is unknown: one of onnx-fp32"):
        convert(forest, ["onnx"], tmp_path / "bundle")


def test_a_folder_with_other_content_is_not_overwritten(forest: ModelPackage, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")

    said: list[str] = []
    wishes = Wishes(["onnx-fp32"], tmp_path, progress=lambda what, _: said.append(what))

    with pytest.raises(ConfigError, match="holds something that is no bundle"):
        convert_with_report(forest, wishes)

    assert said == []  # minutes of work are not done first

    assert (tmp_path / "thesis.txt").read_text() == "years of work"
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]


def test_conversions_that_write_one_bundle_at_once_all_end_well_and_leave_one(made: Path, tmp_path: Path) -> None:
    files = {file.name: file.read_bytes() for file in made.iterdir()}
    together = threading.Barrier(6)

    def write() -> str:
        together.wait()
        return [write_bundle(tmp_path / "bundle", files).digest for _ in range(8)][-1]

    with ThreadPoolExecutor(6) as pool:
        digests = {done.result() for done in [pool.submit(write) for _ in range(6)]}

    assert digests == {Bundle.open(made).digest}
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_model_file_with_foreign_types_is_refused_and_not_loaded(tmp_path: Path) -> None:
    class Harmless(RandomForestClassifier):  # type: ignore[misc]  # scikit-learn ships no types
        pass

    package = tree_package(tmp_path / "p", fitted(Harmless(3, random_state=0)))

    with pytest.raises(VerdictError, match=r"model\.skops holds the type .*Harmless.*, which is not loaded"):
        convert(package, ["onnx-fp32"], tmp_path / "bundle")


def test_a_damaged_package_is_refused(forest: ModelPackage, tmp_path: Path) -> None:
    folder = tmp_path / "p"
    (folder / "rows").mkdir(parents=True)
    for name in [*forest.index.files, "package.json"]:
        (folder / name).write_bytes((forest.folder / name).read_bytes())
    (folder / "model.skops").write_bytes(b"PK" + (folder / "model.skops").read_bytes()[2:-1])

    with pytest.raises(ArtifactError, match="missing or changed since the package was written"):
        convert(folder, output=tmp_path / "bundle")


def test_a_network_without_tensorflow_installed_names_the_line_that_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = package(tmp_path / "p", "model.keras", b"not read", "keras", "logit")
    monkeypatch.setitem(sys.modules, "tensorflow", None)

    with pytest.raises(MissingPartError, match=r"needs tensorflow, which is not installed: pip install 'edgefleet\[keras\]'"):
        convert(network, "tflite-fp32", tmp_path / "bundle")


def test_the_command_prints_one_json_document_and_never_imports_tensorflow(forest: ModelPackage, tmp_path: Path) -> None:
    code = (
        "import sys; from edgefleet.cli.main import main\n"
        "sys.argv[0] = 'edgefleet'\n"
        "try:\n    main()\n"
        "finally:\n    print('tensorflow' in sys.modules, file=sys.stderr)\n"
    )
    command = [
        sys.executable,
        "-c",
        code,
        "convert",
        str(forest.folder),
        "--target",
        "onnx-fp32",
        "--output",
        str(tmp_path / "bundle"),
        "--json",
        "--no-cache",
    ]

    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)})

    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["bundle"] == str(tmp_path / "bundle")
    assert document["digest"] == Bundle.open(tmp_path / "bundle").digest
    assert document["report"] == str(tmp_path / "bundle-report.html")
    assert document["front"] == ["onnx-fp32"]
    assert [(p["class"], p["variant"]) for p in document["proposals"]] == [
        ("microcontroller", None), ("small-board", "onnx-fp32"), ("edge-box", "onnx-fp32"),
    ]  # fmt: skip
    page = (tmp_path / "bundle-report.html").read_text("utf-8")
    assert "1 of 1 variants are proven and in the bundle: onnx-fp32." in page
    assert f"edgefleet convert {forest.folder} --target onnx-fp32 --output {tmp_path / 'bundle'}" in page
    (variant,) = document["variants"]
    assert (variant["name"], variant["verdict"], variant["agreement"], variant["reason"]) == ("onnx-fp32", "pass", 1.0, "")
    assert variant["agreement_low"] > 0.99
    assert variant["max_error"] < 1e-5
    assert variant["latency_p50_ms"] > 0
    assert done.stderr.strip().splitlines()[-1] == "False"


def test_the_list_option_says_what_is_possible(forest: ModelPackage) -> None:
    result = CliRunner().invoke(convert_command, [str(forest.folder), "--list"])

    assert result.exit_code == 0, result.output
    assert "onnx-fp32            onnxruntime  the model    yes" in result.output
    assert "tflite-int8          litert       tflite-fp32  no" in result.output
    assert "trees are not quantized: thresholds would move" in result.output


def test_budgets_against_a_profile_refuse_by_the_estimate_and_leave_a_report_and_no_bundle(forest: ModelPackage, tmp_path: Path) -> None:
    options = [
        "--target",
        "onnx-fp32",
        "--output",
        str(tmp_path / "bundle"),
        "--profile",
        "raspberry-pi-zero-2",
        "--max-latency-ms",
        "0.001",
    ]

    result = CliRunner().invoke(convert_command, [str(forest.folder), *options])

    assert isinstance(result.exception, NoVariantLeft)
    assert "latency p95, limit 0.001 ms (estimate for raspberry-pi-zero-2)" in result.output
    assert not (tmp_path / "bundle").exists()
    page = (tmp_path / "bundle-report.html").read_text("utf-8")
    assert "no variant is left of 1: no bundle was written." in page
    assert "--max-latency-ms 0.001 --profile raspberry-pi-zero-2" in page


def test_an_unknown_profile_of_the_project_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    wishes = {"device": {"profile": "toaster"}}
    package = tree_package(tmp_path / "p", fitted(RandomForestClassifier(3, random_state=0)), project=wishes)

    with pytest.raises(ConfigError, match="device profile 'toaster' is unknown: one of cortex-m4"):
        convert(package, output=tmp_path / "bundle")


def test_bundle_show_and_verify(made: Path, tmp_path: Path) -> None:
    shown = CliRunner().invoke(bundle_command, ["show", str(made), "--json"])
    document = json.loads(shown.output)
    assert document["digest"] == Bundle.open(made).digest
    assert document["variants"][0]["name"] == "onnx-fp32"
    assert document["overrides"] == [{"gate": "G4", "reason": "on purpose"}]
    assert "overruled: gate G4: on purpose" in CliRunner().invoke(bundle_command, ["show", str(made)]).output
    assert CliRunner().invoke(bundle_command, ["verify", str(made)]).exit_code == 0

    damaged = copy_of(made, tmp_path / "damaged")
    (damaged / "golden.npz").write_bytes((damaged / "golden.npz").read_bytes()[:-1])
    result = CliRunner().invoke(bundle_command, ["verify", str(damaged)])

    assert isinstance(result.exception, ArtifactError)
    assert result.exception.exit_code == 3


def test_a_variant_that_is_slower_than_the_time_for_timing_is_timed_all_the_same(made: Path, forest: ModelPackage) -> None:
    with Scorer.open(made, "onnx-fp32") as scorer:
        found = latencies_ms(scorer, forest.rows("parity").x, deadline_s=0.0)

    assert len(found) == 1
    assert np.isfinite(found).all()


def test_a_detector_that_cannot_be_read_is_a_reason_and_no_error(tmp_path: Path) -> None:
    plain = candidate_package(tmp_path / "plain", "logistic", "classification", 2)
    files = {name: plain.read(name) for name in plain.index.files} | {"outlier.json": b'{"method": "mahalanobis"}'}
    package = write_package(tmp_path / "package", msgspec.structs.replace(plain.index, outlier="outlier.npz", files={}), files)

    bundle = convert(package, ["onnx-fp32"], tmp_path / "bundle")

    note = bundle.manifest.outlier
    assert note is not None
    assert (note.files, "missing required field `threshold`" in note.reason) == ({}, True)
