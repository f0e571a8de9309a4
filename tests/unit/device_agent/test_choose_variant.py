"""Which variant a device runs: the first that fits it, with a reason for each that was skipped."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from device_agent import Scorer
from device_agent.abilities import Abilities, _whole_products, onnx_is_old
from device_agent.choose import choose_variant, memory_needed
from edgefleet.bundle import Bundle
from edgefleet.errors import ArtifactError, ConfigError, MissingPartError
from edgefleet.graphs.allowed import NAMES
from edgefleet.manifest import FileEntry, Manifest, OutlierNote, manifest_bytes
from tests.unit.device_agent.bundles import forest_bundle, logistic_bundle

BOTH = ("onnxruntime", "litert")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return Bundle.open(logistic_bundle(tmp_path_factory.mktemp("b")).folder).manifest


def of(manifest: Manifest, *changes: dict[str, object]) -> Manifest:
    """A manifest whose variants differ from the first one by `changes`; files of theirs are 1000 bytes unless `size` says other."""
    first, variants, files = manifest.variants[0], [], dict(manifest.files)
    for change in changes:
        size = int(str(change.get("size", 1000)))
        file = f"{change['name']}.bin"
        files[file] = FileEntry(sha256=first.model_digest, size_bytes=size)
        plain = {key: value for key, value in change.items() if key != "size"}
        variants.append(msgspec.structs.replace(first, file=file, explainer=None, explain_method=None, **plain))
    return msgspec.structs.replace(manifest, variants=variants, files=files)


def test_the_first_that_fits_is_taken_and_nothing_is_said_to_be_skipped(manifest: Manifest) -> None:
    given = of(manifest, {"name": "a", "operators": ["Gemm"]}, {"name": "b"})
    variant, because = choose_variant(given, abilities=Abilities(BOTH, True, frozenset({"Gemm"}), 20))
    assert variant.name == "a"
    assert because == "a is the first of 2 variants that this device can run (onnxruntime, litert)"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"runtime": "c"}, "it is c source, to be compiled into firmware"),
        ({"runtime": "litert"}, "it needs the runtime litert"),
        ({"opset": 21}, "its opset 21 is newer than 20, which the installed onnxruntime knows"),
        ({"operators": ["Gemm", "Gelu", "Swish"]}, "the installed onnxruntime does not know its operators Gelu, Swish"),
        ({"operators": ["QuantizeLinear"]}, "its integer products are cut on this processor, which has no VNNI"),
        ({"size": 10_000_000}, "it needs about 30"),
    ],
)
def test_a_variant_that_does_not_fit_is_skipped_with_its_reason(manifest: Manifest, change: dict[str, object], reason: str) -> None:
    given = of(manifest, {"name": "best", **change}, {"name": "plain", "operators": ["Gemm"]})
    device = Abilities(("onnxruntime",), False, frozenset({"Gemm", "QuantizeLinear"}), 20)
    variant, because = choose_variant(given, memory_bytes=5_000_000, abilities=device)
    assert variant.name == "plain"
    assert f"; skipped: best ({reason}" in because


def test_what_the_system_does_not_tell_is_no_reason(manifest: Manifest) -> None:
    given = of(manifest, {"name": "a", "operators": ["Unheard", "QuantizeLinear"], "opset": 99})
    assert choose_variant(given, abilities=Abilities(BOTH))[0].name == "a"


def test_cut_integer_products_are_better_than_no_answer_and_are_said(manifest: Manifest) -> None:
    given = of(manifest, {"name": "int8", "operators": ["QuantizeLinear"]}, {"name": "lite", "runtime": "litert"})
    variant, because = choose_variant(given, abilities=Abilities(("onnxruntime",), False))
    assert variant.name == "int8"
    assert "although this processor cuts integer products" in because
    assert "skipped: lite (it needs the runtime litert)" in because


def test_when_nothing_fits_every_reason_is_said(manifest: Manifest) -> None:
    given = of(manifest, {"name": "a", "opset": 30}, {"name": "b", "runtime": "litert"})
    with pytest.raises(ConfigError, match=r"fits this device: a \(its opset 30 is newer than 20.*\); b \(it needs the runtime litert\)"):
        choose_variant(given, abilities=Abilities(("onnxruntime",), True, None, 20))
    with pytest.raises(MissingPartError, match=r"pip install 'edgefleet\[tflite\]'"):
        choose_variant(of(manifest, {"name": "b", "runtime": "litert"}), abilities=Abilities(("onnxruntime",)))


def test_a_variant_asked_for_by_name_must_fit_too(manifest: Manifest) -> None:
    given = of(manifest, {"name": "a", "size": 9_000_000, "operators": ["Gelu"]})
    with pytest.raises(ConfigError, match="variant a does not fit: it needs about 27"):
        choose_variant(given, "a", memory_bytes=1_000_000, abilities=Abilities(BOTH))
    with pytest.raises(ArtifactError, match=r"variant a does not run here: .* Gelu; upgrade onnxruntime"):
        choose_variant(given, "a", abilities=Abilities(BOTH, True, frozenset({"Gemm"}), 20))
    assert choose_variant(given, "a", abilities=Abilities(BOTH))[1] == "a was asked for by name"


def test_memory_counts_graph_explainer_detector_reference_and_ring(manifest: Manifest) -> None:
    plain = of(manifest, {"name": "a"})
    fixed = memory_needed(plain, plain.variants[0]) - 3 * 1000
    trees = of(manifest, {"name": "a", "operators": ["TreeEnsembleClassifier"]})
    assert memory_needed(trees, trees.variants[0]) == 15 * 1000 + fixed
    files = {**plain.files, "outlier.onnx": FileEntry(sha256="0" * 64, size_bytes=100)}
    note = OutlierNote(threshold=0.0, files={"onnxruntime": "outlier.onnx"}, method="isolation_forest")
    watched = msgspec.structs.replace(plain, files=files, outlier=note)
    assert memory_needed(watched, plain.variants[0]) == 3 * 1000 + fixed + 15 * 100
    assert fixed == 8 * plain.files[plain.reference].size_bytes + 256 * 4 * len(plain.inputs)


def test_the_budget_is_kept_when_a_bundle_is_opened(tmp_path: Path) -> None:
    made = forest_bundle(tmp_path)
    with pytest.raises(ConfigError, match=r"no variant of the bundle fits this device: onnx-fp32 .*the budget is 1000"):
        Scorer.open(made.folder, memory_bytes=1000)
    with Scorer.open(made.folder, memory_bytes=50_000_000) as scorer:
        assert scorer.variant.name == "onnx-fp32"


CHOICE = """
import sys
from pathlib import Path
from device_agent.choose import choose_variant
from device_agent.runtime import available_runtimes
from edgefleet.manifest import parse_manifest
before = available_runtimes()
variant, because = choose_variant(parse_manifest(Path(sys.argv[1]).read_bytes()))
imported = [name for name in ("onnxruntime", "ai_edge_litert") if name in sys.modules]
print(variant.name, before, available_runtimes(), imported, because, sep="|")
"""


def choice_of(tmp_path: Path, given: Manifest) -> list[str]:
    """What a process of its own chooses: name, runtimes before and after, those that it imported, why; modules in `tmp_path` come first."""
    (tmp_path / "given.json").write_bytes(manifest_bytes(given))
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{Path(__file__).resolve().parents[3]}"}
    command = [sys.executable, "-c", CHOICE, str(tmp_path / "given.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=True)
    return done.stdout.strip().split("|")


def test_choosing_imports_the_runtime_of_the_chosen_variant_and_no_other(manifest: Manifest, tmp_path: Path) -> None:
    given = of(manifest, {"name": "a", "operators": ["Gemm"], "opset": 17}, {"name": "b", "runtime": "litert"})
    name, before, after, imported, _ = choice_of(tmp_path, given)
    assert (name, before, after, imported) == ("a", str(list(BOTH)), str(list(BOTH)), "['onnxruntime']")


def test_a_runtime_that_is_installed_but_broken_is_passed_over(manifest: Manifest, tmp_path: Path) -> None:
    (tmp_path / "onnxruntime").mkdir()
    (tmp_path / "onnxruntime" / "__init__.py").write_text("raise OSError('libstdc++.so.6: version not found')")
    given = of(manifest, {"name": "a", "operators": ["Gemm"], "opset": 17}, {"name": "b", "runtime": "litert"})
    name, before, after, _, because = choice_of(tmp_path, given)
    assert (name, before, after) == ("b", str(list(BOTH)), "['litert']")
    assert because.endswith("(litert); skipped: a (it needs the runtime onnxruntime)")


def test_onnxruntime_is_asked_what_it_knows_only_where_that_is_in_doubt(manifest: Manifest) -> None:
    plain = of(manifest, {"name": "a", "operators": ["Gemm"], "opset": 21}, {"name": "b", "runtime": "litert"}).variants
    newer, foreign = of(manifest, {"name": "a", "opset": 22}).variants, of(manifest, {"name": "a", "operators": ["Inverse"]}).variants
    assert Abilities.here(variants=plain).onnx_opset is None
    assert Abilities.here(variants=newer).onnx_opset is not None
    assert Abilities.here(variants=foreign).onnx_operators is not None
    assert not onnx_is_old()


def test_what_is_not_asked_is_what_this_onnxruntime_knows() -> None:
    known = Abilities.here().onnx_operators
    assert known is not None
    assert NAMES["onnxruntime"] <= known


def test_this_device_knows_what_the_converter_writes() -> None:
    here = Abilities.here()
    assert here.onnx_operators is not None
    assert {"TreeEnsembleClassifier", "Gemm", "QuantizeLinear", "DynamicQuantizeLinear", "Loop"} <= here.onnx_operators
    assert here.onnx_opset is not None
    assert here.onnx_opset >= 17
    assert Abilities.here(["litert"]).onnx_operators is None


@pytest.mark.parametrize(
    ("flags", "machine", "whole"),
    [
        ({"avx2", "avx512_vnni"}, "x86_64", True),
        ({"avx2", "avx_vnni"}, "AMD64", True),
        ({"avx2", "avx512f"}, "x86_64", False),
        (set(), "x86_64", None),
        (set(), "aarch64", True),
    ],
)
def test_a_processor_that_cuts_integer_products_is_known_by_its_flags(flags: set[str], machine: str, whole: bool | None) -> None:
    assert _whole_products(frozenset(flags), machine) is whole
