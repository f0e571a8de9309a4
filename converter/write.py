"""The bundle on disk: equal packages give equal bytes of every listed file, and so the same digest.

What depends on clock or host (latency, memory, dates) goes to measured.json, which the manifest does not list.
"""

import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from converter.beside import Outlier
from converter.building import Built
from converter.explain.segments import without_segments
from converter.mlmodel import mlflow_files
from converter.recipes import Recipe
from converter.to_c.source import HEADER_NAME, without_explanation
from converter.workshop import Graph
from edgefleet.bundle import MANIFEST_NAME, MEASURED_NAME, Bundle
from edgefleet.digests import canonical_json, sha256_hex
from edgefleet.errors import ConfigError, StorageError
from edgefleet.files import write_durably
from edgefleet.locks import one_at_a_time
from edgefleet.manifest import FORMAT_VERSION, ExplainMethod, FileEntry, Manifest, MlflowNote, OutlierNote, Runtime, Variant, manifest_bytes
from edgefleet.package import ModelPackage, npz_bytes
from edgefleet.reference import Reference

REFERENCE_NAME: Final = "reference.npz"
HEADER: Final = f"c/{HEADER_NAME}"
_GRAPHS: Final[dict[Runtime, str]] = {"onnxruntime": ".onnx", "litert": ".tflite"}
GOLDEN_NAME: Final = "golden.npz"


@dataclass(frozen=True)
class Content:
    """What goes into a bundle.

    Attributes:
        package: Where it comes from.
        graphs: The variants' graphs in the order of preference.
        built: The original's answers, explainer and outlier detector.
        spread: Unit of errors of values and scores; 1 for classes.
        unexplained: Targets whose explanation failed its gate, so that it is not shipped.
        ungraphed: Targets whose explanation as a graph says something else, so that the graph is not shipped.
        unsegmented: Targets whose time segments failed their gate, so that windows are explained by whole channels.
        gates: Entries of gates.json.
        card: The model card's text.
    """

    package: ModelPackage
    graphs: list[tuple[Recipe, Graph]]
    built: Built
    spread: float = 1.0
    unexplained: frozenset[str] = frozenset()
    ungraphed: frozenset[str] = frozenset()
    unsegmented: frozenset[str] = frozenset()
    gates: list[dict[str, Any]] = field(default_factory=list)
    card: str = ""


def bundle_files(content: Content) -> dict[str, bytes]:
    """Every file of the bundle by name, manifest.json among them."""
    package, built = content.package, content.built
    golden_rows = package.rows("golden")
    label = golden_rows.label.astype("int64" if package.index.task == "classification" else "float64")
    golden = {"x": golden_rows.x, "label": label}
    files = {
        REFERENCE_NAME: package.read("reference.npz"),
        GOLDEN_NAME: npz_bytes({**golden, "probabilities": built.golden.probabilities, "margin": built.golden.margin}),
        "gates.json": canonical_json(content.gates),
        "card.md": content.card.encode(),
    }
    variants = []
    for recipe, graph in content.graphs:
        variant, more = _variant(recipe, graph, content)
        variants.append(variant)
        files |= more
    outlier, more = _outlier(built.outlier, {recipe.runtime for recipe, _ in content.graphs})
    files |= more
    onnx = next((variant for variant in variants if variant.runtime == "onnxruntime"), None)
    if onnx is not None:
        rows = None if package.index.window_rows == 1 else package.row_shape
        files |= mlflow_files(onnx.file, onnx.model_digest, package.digest, package.inputs(), rows)
    note = None if onnx is not None else MlflowNote(reason="no ONNX variant is in the bundle, and MLflow has no flavor for TFLite")
    return {**files, MANIFEST_NAME: manifest_bytes(_manifest(package, variants, files, note, outlier))}


def _variant(recipe: Recipe, graph: Graph, content: Content) -> tuple[Variant, dict[str, bytes]]:
    explained, more = _explained(recipe, graph, content)
    files = {recipe.file: graph.content, **graph.files, **more}
    variant = Variant(
        name=recipe.target,
        runtime=recipe.runtime,
        file=recipe.file,
        model_digest=sha256_hex(graph.content),
        tolerance=recipe.tolerance(content.spread),
        explainer=explained.explainer,
        explain_method=explained.method,
        explain_graph=explained.graph,
        explain_reason=explained.reason,
        takes_missing=graph.made.takes_missing,
        operators=graph.made.operators,
        opset=graph.made.opset,
        extra_files=sorted(graph.files),
    )
    return variant, files


@dataclass(frozen=True)
class _Explained:
    """What the manifest says of a variant's explanation; see `Variant`."""

    explainer: str | None = None
    method: ExplainMethod | None = None
    graph: str | None = None
    reason: str = ""


_FAILED: Final = "it failed its gate: see gates.json"


def _explained(recipe: Recipe, graph: Graph, content: Content) -> tuple[_Explained, dict[str, bytes]]:
    """How a variant is explained, and the files for it; a header of C whose explanation failed leaves it out."""
    failed = recipe.target in content.unexplained
    if recipe.runtime == "c":
        if graph.made.explained is None:
            return _Explained(reason=graph.made.explain_reason), {}
        if failed or recipe.target in content.ungraphed:
            header = without_explanation(graph.files[HEADER].decode()).encode()
            return _Explained(reason=_FAILED), {HEADER: header}
        return _Explained(recipe.file, graph.made.explained), {}
    if content.built.explainer is None:
        return _Explained(reason=content.built.unexplained), {}
    explainer = content.built.explainer.of(recipe.target)
    if failed:
        return _Explained(reason=_FAILED), {}
    name = f"explain-{recipe.target}.npz"
    unsegmented = recipe.target in content.unsegmented
    files = {name: without_segments(explainer.content) if unsegmented else explainer.content}
    suffix = _GRAPHS[recipe.runtime]
    found = explainer.graphs.get(recipe.runtime)
    if found is None or recipe.target in content.ungraphed:
        reason = _FAILED if found is not None else explainer.reasons.get(recipe.runtime, "")
        return _Explained(name, explainer.method, reason=reason), files
    files[f"explain-{recipe.target}{suffix}"] = found
    return _Explained(name, explainer.method, f"explain-{recipe.target}{suffix}"), files


def _outlier(outlier: Outlier | None, runtimes: set[Runtime]) -> tuple[OutlierNote | None, dict[str, bytes]]:
    if outlier is None:
        return None, {}
    wanted = {runtime: entry for runtime, entry in outlier.files.items() if runtime in runtimes}
    names = {runtime: name for runtime, (name, _) in sorted(wanted.items())}
    note = OutlierNote(threshold=outlier.threshold, files=names, method=outlier.method, reason=outlier.reason)
    return note, dict(wanted.values())


def check_target(folder: Path) -> None:
    """Look whether a bundle may be written to `folder`: before minutes of work are done for it.

    Raises:
        ConfigError: It holds something that is no bundle.
    """
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / MANIFEST_NAME).is_file())):
        raise ConfigError(f"{folder}: holds something that is no bundle and is not overwritten; name another folder with --output")


def write_bundle(folder: Path, files: dict[str, bytes], measured: dict[str, Any] | None = None) -> Bundle:
    """Write a bundle so that `folder` holds the old one, or the whole of this one, never a part.

    Killed between the two renames of a replacement it holds neither: the old one then lies beside it in `.NAME.old.*`; write again.

    Args:
        folder: Where. An older bundle there is replaced; anything else is not touched.
        files: From `bundle_files`.
        measured: Content of measured.json, or None for none.

    Raises:
        ConfigError: The folder holds something that is no bundle.
        StorageError: The disk refused.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Of two that replace one bundle the second would find nothing to move away, or something in its place.
        with one_at_a_time(folder.with_name(f".{folder.name}.lock")):
            check_target(folder)
            _write(folder, files, measured)
            return Bundle.open(folder)
    except OSError as err:
        raise StorageError(f"{folder}: the bundle cannot be written: {err.strerror or err}; make room or name another folder") from err


def _write(folder: Path, files: dict[str, bytes], measured: dict[str, Any] | None) -> None:
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        for name, content in sorted(files.items()):
            write_durably(fresh / name, content)
        if measured is not None:
            write_durably(fresh / MEASURED_NAME, canonical_json(measured))
        fresh.chmod(0o755)
        _replace(folder, fresh)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _replace(folder: Path, fresh: Path) -> None:
    if not folder.exists():
        fresh.rename(folder)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent))
    folder.rename(old / "bundle")
    fresh.rename(folder)
    shutil.rmtree(old)


def _manifest(
    package: ModelPackage, variants: list[Variant], files: dict[str, bytes], note: MlflowNote | None, outlier: OutlierNote | None
) -> Manifest:
    index, summaries = package.index, Reference.from_bytes(files[REFERENCE_NAME]).summaries
    return Manifest(
        format_version=FORMAT_VERSION,
        project=index.project,
        task=index.task,
        inputs=package.inputs(),
        classes=index.classes,
        outputs=["margin", "probabilities"] if index.task == "classification" else ["margin"],
        margin_kind=index.margin_kind,
        shape=index.shape,
        window_rows=index.window_rows,
        variants=variants,
        reference=REFERENCE_NAME,
        reference_digest=sha256_hex(files[REFERENCE_NAME]),
        golden=GOLDEN_NAME,
        package_digest=package.digest,
        files={name: FileEntry(sha256=sha256_hex(content), size_bytes=len(content)) for name, content in sorted(files.items())},
        overrides=index.overrides,
        mlflow=note,
        threshold=index.threshold,
        positive=index.positive,
        outlier=outlier,
        sampling=index.sampling,
        statistics=[] if summaries is None else summaries.names,
    )


def package_gates(package: ModelPackage) -> list[dict[str, Any]]:
    """The trainer's gates, to travel on with the bundle."""
    try:
        return msgspec.json.decode(package.read("gates.json"), type=list[dict[str, Any]])
    except (msgspec.DecodeError, UnicodeDecodeError) as err:
        raise ConfigError(f"{package.folder}/gates.json: {str(err)[:200]}; train again") from err
