"""Two bundles compared: each part that changes is named, and nothing that changes goes unnamed."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from edgefleet.bundle import Bundle
from edgefleet.bundle_diff import Difference, differences
from edgefleet.cli.bundle import bundle as bundle_command
from edgefleet.digests import canonical_json, sha256_hex
from edgefleet.errors import ArtifactError
from edgefleet.manifest import FileEntry, Input, Manifest, MlflowNote, OutlierNote, Override, Tolerance, Variant, manifest_bytes
from edgefleet.package import npz_bytes
from edgefleet.reference import build_reference

INPUTS = [Input(name="load", unit="kW"), Input(name="oil", kind="category", categories=["HLP-32", "HLP-46"])]
GATES = [
    {"gate": "G4", "verdict": "pass", "value": 0.9, "limit": 0.85, "n": 400, "sentence": "accuracy is enough"},
    {"gate": "C1", "variant": "onnx-fp32", "verdict": "pass", "value": 1.0, "limit": 1.0, "n": 400, "sentence": "the same class"},
]
VARIANT = Variant(
    name="onnx-fp32", runtime="onnxruntime", file="onnx-fp32.onnx", model_digest="", tolerance=Tolerance(max_error=1e-4, tie_margin=1e-3),
    operators=["Gemm", "Softmax"], opset=17, explainer="explain-onnx-fp32.npz", explain_method="linear",
)  # fmt: skip


def rows(seed: int = 0, factor: float = 1.0) -> np.ndarray[Any, np.dtype[np.float32]]:
    rng = np.random.default_rng(seed)
    return np.stack([factor * rng.normal(size=200), rng.integers(0, 2, 200)], axis=1).astype(np.float32)


def contents(x: Any = None, golden: int = 8, graph: bytes = b"graph", gates: Any = None) -> dict[str, bytes]:
    return {
        "onnx-fp32.onnx": graph,
        "explain-onnx-fp32.npz": b"explainer",
        "reference.npz": build_reference(rows() if x is None else x, INPUTS, block_rows=20).to_bytes(),
        "golden.npz": npz_bytes({"x": rows(1)[:golden], "label": np.zeros(golden)}),
        "gates.json": canonical_json(GATES if gates is None else gates),
    }


def write(folder: Path, files: dict[str, bytes] | None = None, **changes: Any) -> Bundle:
    files = files or contents()
    variants = changes.pop("variants", [VARIANT])
    manifest = Manifest(**{
        "format_version": 1, "project": "press", "task": "classification", "inputs": INPUTS, "classes": ["no", "yes"],
        "outputs": ["margin", "probabilities"], "margin_kind": "logit", "shape": [2], "window_rows": 1,
        "variants": [msgspec.structs.replace(v, model_digest=sha256_hex(files[v.file])) for v in variants],
        "reference": "reference.npz", "reference_digest": sha256_hex(files["reference.npz"]), "golden": "golden.npz",
        "package_digest": "cd" * 32, "threshold": 0.5, "positive": "yes",
        "files": {name: FileEntry(sha256=sha256_hex(content), size_bytes=len(content)) for name, content in files.items()},
        **changes,
    })  # fmt: skip
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / "manifest.json").write_bytes(manifest_bytes(manifest))
    return Bundle.open(folder)


@pytest.fixture
def original(tmp_path: Path) -> Bundle:
    return write(tmp_path / "a")


def named(found: list[Difference]) -> list[tuple[str, str, str]]:
    """(part, name, kind), without what every difference brings: other digests of the bundle and of files."""
    return [(d.part, d.name, d.kind) for d in found if d.part not in ("bundle", "file")]


def test_a_bundle_does_not_differ_from_its_copy(original: Bundle, tmp_path: Path) -> None:
    assert differences(original, write(tmp_path / "b")) == []


CHANGES: list[tuple[dict[str, Any], list[tuple[str, str, str]]]] = [
    ({"threshold": 0.4}, [("decision", "threshold", "changed")]),
    ({"threshold": None}, [("decision", "threshold", "removed")]),
    ({"positive": "no"}, [("decision", "positive", "changed")]),
    ({"classes": ["yes", "no"]}, [("decision", "classes", "changed")]),
    ({"outputs": ["margin"]}, [("output", "outputs", "changed")]),
    ({"margin_kind": "log-odds"}, [("output", "margin_kind", "changed")]),
    ({"package_digest": "ef" * 32}, [("provenance", "package_digest", "changed")]),
    ({"mlflow": MlflowNote(reason="none")}, [("provenance", "mlflow", "added")]),
    ({"overrides": [Override(gate="G4", reason="pilot")]}, [("gate", "overrides", "changed")]),
    ({"outlier": OutlierNote(threshold=3.0, files={}, method="mahalanobis")}, [("decision", "outlier", "added")]),
    ({"inputs": [INPUTS[1], INPUTS[0]]}, [("input", "order", "changed")]),
    ({"inputs": [Input(name="load", unit="W", low=0.0, missing=True), INPUTS[1]]},
     [("input", "load.unit", "changed"), ("input", "load.low", "added"), ("input", "load.missing", "changed")]),
    ({"inputs": [INPUTS[0], Input(name="oil", kind="category", categories=["HLP-32"])]}, [("input", "oil.categories", "changed")]),
    ({"variants": [msgspec.structs.replace(VARIANT, opset=18, takes_missing=False)]},
     [("variant", "onnx-fp32.takes_missing", "changed"), ("variant", "onnx-fp32.opset", "changed")]),
    ({"variants": [msgspec.structs.replace(VARIANT, explainer=None, explain_method=None)]},
     [("explainer", "onnx-fp32.explainer", "removed"), ("explainer", "onnx-fp32.explain_method", "removed")]),
    ({"variants": [msgspec.structs.replace(VARIANT, name="onnx-fp16")]},
     [("variant", "onnx-fp32", "removed"), ("variant", "onnx-fp16", "added")]),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "wanted"), CHANGES)
def test_a_change_of_the_manifest_is_named(
    original: Bundle, tmp_path: Path, changes: dict[str, Any], wanted: list[tuple[str, str, str]]
) -> None:
    assert named(differences(original, write(tmp_path / "b", **changes))) == wanted


def test_every_field_of_the_manifest_belongs_to_a_part(original: Bundle, tmp_path: Path) -> None:
    other = write(tmp_path / "b", window_rows=4, shape=[4, 2], project="pump", task="anomaly")

    found = {d.name for d in differences(original, other)}

    assert {"window_rows", "shape", "project", "task"} <= found


def test_another_graph_shows_as_digest_size_and_file(original: Bundle, tmp_path: Path) -> None:
    found = differences(original, write(tmp_path / "b", contents(graph=b"longer graph")))

    assert named(found) == [("variant", "onnx-fp32.model_digest", "changed"), ("variant", "onnx-fp32.size_bytes", "changed")]
    assert [(d.name, d.kind) for d in found if d.part == "file"] == [("onnx-fp32.onnx", "changed")]


def test_of_the_reference_the_inputs_with_other_bins_are_named(original: Bundle, tmp_path: Path) -> None:
    found = differences(original, write(tmp_path / "b", contents(x=rows(factor=2.0))))

    assert named(found) == [("reference", "reference_digest", "changed"), ("reference", "load.bins", "changed")]


def test_other_counts_in_the_same_bins_are_named_as_counts(original: Bundle, tmp_path: Path) -> None:
    x = rows()
    x[:, 1] = np.roll(x[:, 1], 1)
    x[0, 1] = 1 - x[0, 1]

    found = differences(original, write(tmp_path / "b", contents(x=x)))

    assert ("reference", "oil.counts", "changed") in named(found)


def test_golden_rows_are_counted(original: Bundle, tmp_path: Path) -> None:
    found = differences(original, write(tmp_path / "b", contents(golden=6)))

    assert named(found)[0] == ("golden", "rows", "changed")
    assert (found[1].before, found[1].after) == (8, 6)


def test_a_gate_with_another_verdict_is_named_with_its_variant(original: Bundle, tmp_path: Path) -> None:
    gates = [GATES[0], GATES[1] | {"verdict": "inconclusive"}]

    found = differences(original, write(tmp_path / "b", contents(gates=gates)))

    assert named(found) == [("gate", "onnx-fp32.C1", "changed")]


def test_gates_that_are_no_list_are_refused(original: Bundle, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"gates\.json of bundle .*; convert again"):
        differences(original, write(tmp_path / "b", contents(gates={"C1": "pass"})))


def test_a_file_that_must_be_looked_into_and_is_damaged_is_refused(original: Bundle, tmp_path: Path) -> None:
    other = write(tmp_path / "b", contents(golden=6))
    (tmp_path / "b" / "golden.npz").write_bytes(b"rubbish")

    with pytest.raises(ArtifactError, match=r"golden\.npz"):
        differences(original, other)


@pytest.fixture
def run() -> Callable[..., Any]:
    return lambda *words: CliRunner().invoke(bundle_command, [str(word) for word in words])


def test_the_command_ends_with_0_for_the_same_bundle(run: Callable[..., Any], original: Bundle, tmp_path: Path) -> None:
    write(tmp_path / "b")

    result = run("diff", tmp_path / "a", tmp_path / "b")

    assert result.exit_code == 0
    assert result.output == f"the same bundle: {original.digest}\n"


def test_the_command_ends_with_1_for_others_and_lists_what_differs(run: Callable[..., Any], original: Bundle, tmp_path: Path) -> None:
    write(tmp_path / "b", threshold=0.4, overrides=[Override(gate="G4", reason="pilot")])

    result = run("diff", tmp_path / "a", tmp_path / "b")

    assert result.exit_code == 1
    assert "decision:\n  changed  threshold: 0.5 -> 0.4\n" in result.output
    assert 'gate:\n  changed  overrides: [] -> [{"gate": "G4", "reason": "pilot"}]\n' in result.output


def test_the_program_itself_ends_with_1_for_bundles_that_differ(original: Bundle, tmp_path: Path) -> None:
    write(tmp_path / "b", threshold=0.4)

    done = subprocess.run([sys.executable, "-m", "edgefleet", "bundle", "diff", str(tmp_path / "a"), str(tmp_path / "b")], timeout=60)

    assert done.returncode == 1


def test_the_command_speaks_json(run: Callable[..., Any], original: Bundle, tmp_path: Path) -> None:
    write(tmp_path / "b", threshold=0.4)

    result = run("diff", tmp_path / "a", tmp_path / "b", "--json")

    document = json.loads(result.output)
    assert (result.exit_code, document["same"], document["a"]) == (1, False, original.digest)
    assert document["differences"][1] == {"kind": "changed", "part": "decision", "name": "threshold", "before": 0.5, "after": 0.4}


def test_a_folder_that_is_no_bundle_is_bad_input(run: Callable[..., Any], original: Bundle, tmp_path: Path) -> None:
    result = run("diff", tmp_path / "a", tmp_path)

    assert isinstance(result.exception, ArtifactError)
    assert result.exception.exit_code == 3


def test_show_says_what_a_variant_needs_and_how_its_gates_went(run: Callable[..., Any], original: Bundle, tmp_path: Path) -> None:
    shown = run("show", tmp_path / "a").output

    assert "onnx-fp32 needs onnxruntime: opset 17, operators Gemm, Softmax" in shown
    assert "decision threshold 0.5 of yes" in shown
    assert "pass C1" in shown
    assert "G4    pass     accuracy is enough" in shown
    document = json.loads(run("show", tmp_path / "a", "--json").output)
    (variant,) = document["variants"]
    assert (variant["opset"], variant["operators"], variant["explain_method"]) == (17, ["Gemm", "Softmax"], "linear")
    assert variant["download_bytes"] == sum(document["files"][name] for name in document["files"] if name != "gates.json")
    assert [gate["gate"] for gate in document["gates"]] == ["G4", "C1"]
