"""Opening a bundle: digests first, the right variant, clear refusals."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import device_agent.runtime
from device_agent import Scorer
from device_agent.runtime import available_runtimes, open_runtime
from edgefleet.bundle import Bundle
from edgefleet.digests import sha256_hex
from edgefleet.errors import ArtifactError, ConfigError, MissingPartError
from tests.unit.device_agent.bundles import forest_bundle, logistic_bundle, logistic_graph, numbers, training_rows, write_bundle


def test_the_digest_is_the_graphs_sha256_and_stands_in_every_answer(tmp_path: Path) -> None:
    made = forest_bundle(tmp_path)
    with Scorer.open(made.folder) as scorer:
        digest, score = scorer.digest, scorer.score(made.x[0])
        variant = scorer.variant
        assert scorer.bundle.digest == sha256_hex((made.folder / "manifest.json").read_bytes())
    assert digest == score.digest == variant.model_digest == sha256_hex((made.folder / variant.file).read_bytes())


def test_a_bundle_opens_as_a_folder_a_text_or_an_opened_bundle(tmp_path: Path) -> None:
    made = forest_bundle(tmp_path)
    digests = []
    for way in (made.folder, str(made.folder), Bundle.open(made.folder)):
        with Scorer.open(way) as scorer:
            digests.append(scorer.digest)
    assert len(set(digests)) == 1


@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing", "longer"])
@pytest.mark.parametrize("file", ["onnx-fp32.onnx", "reference.npz", "explain-onnx-fp32.npz"])
def test_a_damaged_file_is_an_artifact_error_before_it_is_parsed(tmp_path: Path, file: str, damage: str) -> None:
    made = forest_bundle(tmp_path)
    content = (made.folder / file).read_bytes()
    damaged = {"truncated": content[:-9], "flipped": content[:40] + bytes([content[40] ^ 1]) + content[41:], "longer": content + b"x"}
    if damage == "missing":
        (made.folder / file).unlink()
    else:
        (made.folder / file).write_bytes(damaged[damage])
    with pytest.raises(ArtifactError, match=r"manifest says|cannot be read|larger than"):
        Scorer.open(made.folder)


@pytest.mark.parametrize("graph", [b"", b"no graph", logistic_graph(np.ones((5, 1), np.float32), np.ones(1, np.float32))[:-30]])
@pytest.mark.parametrize("runtime", ["onnxruntime", "litert"])
def test_bytes_that_no_runtime_can_load_are_a_short_artifact_error(tmp_path: Path, graph: bytes, runtime: str) -> None:
    made = write_bundle(tmp_path, graph, training_rows()[0], numbers(), ["no", "yes"], runtime=runtime)
    with pytest.raises(ArtifactError, match=f"{runtime} cannot load a graph of {len(graph)} bytes") as refused:
        Scorer.open(made.folder)
    assert len(str(refused.value)) < 400


def test_a_graph_of_other_features_or_classes_than_the_manifest_is_refused(tmp_path: Path) -> None:
    graph = logistic_graph(np.ones((5, 3), np.float32), np.ones(3, np.float32))
    x, _ = training_rows()
    four = write_bundle(tmp_path / "a", graph, x[:, :4], numbers()[:4], ["a", "b", "c"])
    two = write_bundle(tmp_path / "b", graph, x, numbers(), ["a", "b"])
    with pytest.raises(ArtifactError, match="takes 5 features, the manifest lists 4"):
        Scorer.open(four.folder)
    with pytest.raises(ArtifactError, match="answers 3 probabilities, the manifest lists 2"):
        Scorer.open(two.folder)


def test_a_graph_without_margin_is_refused_by_name() -> None:
    graph = logistic_graph(np.ones((5, 1), np.float32), np.ones(1, np.float32)).replace(b"margin", b"nigram")
    with pytest.raises(ArtifactError, match="a bundle's graph has `margin`"):
        open_runtime("onnxruntime", graph)


def _with_two_variants(folder: Path) -> None:
    """Put a variant for LiteRT before the ONNX one; its file is never opened here."""
    logistic_bundle(folder)
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    (folder / "tflite-int8.tflite").write_bytes(b"never parsed")
    entry = {"sha256": sha256_hex(b"never parsed"), "size_bytes": 12}
    manifest["files"]["tflite-int8.tflite"] = entry
    first = {**manifest["variants"][0], "name": "tflite-int8", "runtime": "litert", "file": "tflite-int8.tflite"}
    manifest["variants"].insert(0, {**first, "model_digest": entry["sha256"]})
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_the_first_variant_whose_runtime_may_be_used_is_chosen_and_said(tmp_path: Path) -> None:
    _with_two_variants(tmp_path)
    with Scorer.open(tmp_path, runtimes=["onnxruntime"]) as scorer:
        assert scorer.variant.name == "onnx-fp32"
        skipped = "skipped: tflite-int8 (it needs the runtime litert)"
        assert scorer.chosen_because == f"onnx-fp32 is the first of 2 variants that this device can run (onnxruntime); {skipped}"
    with Scorer.open(tmp_path, "onnx-fp32") as scorer:
        assert scorer.chosen_because == "onnx-fp32 was asked for by name"


def test_no_usable_runtime_names_what_to_install(tmp_path: Path) -> None:
    made = logistic_bundle(tmp_path)
    with pytest.raises(MissingPartError, match=r"needs onnxruntime; usable here: none; pip install 'edgefleet\[onnx\]'"):
        Scorer.open(made.folder, runtimes=[])
    with pytest.raises(MissingPartError, match="variant onnx-fp32 needs the runtime onnxruntime"):
        Scorer.open(made.folder, "onnx-fp32", runtimes=["litert"])


def test_an_unknown_variant_lists_the_ones_there_are(tmp_path: Path) -> None:
    made = logistic_bundle(tmp_path)
    with pytest.raises(ArtifactError, match="it has onnx-fp32"):
        Scorer.open(made.folder, "tflite-int4")


@pytest.mark.parametrize("rows", [0, 70_000])
def test_a_ring_out_of_range_is_a_config_error(tmp_path: Path, rows: int) -> None:
    made = logistic_bundle(tmp_path)
    with pytest.raises(ConfigError, match="expected 1 to 65536"):
        Scorer.open(made.folder, ring_rows=rows)


def test_runtimes_are_listed_in_their_fixed_order() -> None:
    assert available_runtimes() == [r for r in device_agent.runtime.RUNTIMES if r in available_runtimes()]
    assert "onnxruntime" in available_runtimes()


def test_a_dynamic_int8_graph_answers_a_batch_row_by_row() -> None:
    from onnx import helper

    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["inputs"], ["q", "scale", "zero"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["margin"]),
    ]
    ends = [helper.make_tensor_value_info(n, 1, [None, 3]) for n in ("inputs", "margin")]
    graph = helper.make_graph(nodes, "dynamic", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    session = open_runtime("onnxruntime", model.SerializeToString())
    rows = np.array([[0.1, 0.2, 0.3], [100.0, 50.0, 25.0]], np.float32)
    together = session.run(rows)[0]
    np.testing.assert_array_equal(together[0], session.run(rows[:1])[0][0])


def test_importing_the_package_imports_no_runtime_and_scoring_prints_nothing_on_stdout(tmp_path: Path) -> None:
    made = forest_bundle(tmp_path)
    script = f"""
import sys
import device_agent
heavy = [m for m in ("numpy", "onnxruntime", "ai_edge_litert", "paho", "device_agent.agent") if m in sys.modules]
assert not heavy, heavy
scorer = device_agent.Scorer.open({str(made.folder)!r})
scorer.score([0.0] * 5)
heavy = [m for m in ("sklearn", "pandas", "tensorflow", "onnx", "flask", "sqlalchemy", "device_agent.agent") if m in sys.modules]
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
