"""What a graph file is made of, read without any runtime: its operators, held against a list of those that a device may be given.

A graph is a program. One that loops without end, brings code of its own, or takes its weights from another file is refused by name, before
a native parser sees it: when it is pushed, and on the device before its first load. The readers here are bounded, need nothing but Python,
and refuse what they do not understand. They say nothing about what a graph answers: that is what the golden rows are for.

Read `allowed.py` next, which holds the list, then `onnx_file.py` and `tflite_file.py`.
"""

from collections.abc import Iterable
from typing import Final

from edgefleet.bundle import Bundle
from edgefleet.errors import ArtifactError
from edgefleet.graphs.allowed import LITERT, NAMES, ONNX
from edgefleet.manifest import Manifest, Runtime, Variant

__all__ = ["SUFFIXES", "check_bundle", "check_declared", "check_graph", "graph_files"]

SUFFIXES: Final[dict[str, Runtime]] = {".onnx": "onnxruntime", ".tflite": "litert"}
_REMEDY: Final = "build the model of listed operators (docs/security.md) and convert it again"


def check_graph(graph: bytes, runtime: Runtime, file: str) -> list[str]:
    """Names of a graph's operators, sorted, when all of them are on the list.

    Args:
        graph: Its bytes.
        runtime: `onnxruntime` or `litert`.
        file: What errors call it.

    Raises:
        ArtifactError: Damaged, an operator that is not on the list, a loop without a bound, or data outside the file.
    """
    # Whoever only scores needs the list, not the readers.
    if runtime == "onnxruntime":
        from edgefleet.graphs.onnx_file import onnx_operators

        found = onnx_operators(graph, file)
        refused = sorted(f"{domain}.{name}" if domain else name for domain, name in found - ONNX)
        names = {name for _, name in found}
    else:
        from edgefleet.graphs.tflite_file import tflite_operators

        names = set(tflite_operators(graph, file))
        refused = sorted(names - LITERT)
    if refused:
        raise ArtifactError(f"{file}: operator {refused[0][:80]!r} is not on the list of operators that a device may be given; {_REMEDY}")
    if not names:
        raise ArtifactError(f"{file}: {len(graph)} bytes hold no graph with operators; convert the package again")
    return sorted(names)


def graph_files(manifest: Manifest, variant: Variant | None = None) -> list[tuple[str, Runtime]]:
    """Graph files and what opens each: of one variant with its explainer and outlier detector, or of the whole bundle.

    A file that a variant or the detector names is read as their runtime will read it, once for each; the suffix decides for others only.
    """
    wanted = list(manifest.files) if variant is None else manifest.variant_files(variant.name)
    named = {(one.file, one.runtime) for one in (manifest.variants if variant is None else [variant])}
    if manifest.outlier is not None:
        named |= {(name, runtime) for runtime, name in manifest.outlier.files.items() if name in wanted}
    others = set(wanted) - {name for name, _ in named}
    named |= {(name, runtime) for name in others for suffix, runtime in SUFFIXES.items() if name.endswith(suffix)}
    return sorted((name, runtime) for name, runtime in named if runtime != "c")


def check_bundle(bundle: Bundle, variant: Variant | None = None) -> None:
    """Read every graph of a bundle, or of one variant, and hold it against the list and against what the manifest says of it.

    Raises:
        ArtifactError: A file is damaged, holds an operator that is not on the list, or other operators than the manifest says.
    """
    declared = {(one.file, one.runtime): sorted(set(one.operators)) for one in bundle.manifest.variants}
    for file, runtime in graph_files(bundle.manifest, variant):
        found = check_graph(bundle.read(file), runtime, file)
        said = declared.get((file, runtime))
        if said and found != said:
            raise ArtifactError(f"{file}: its operators are {_some(found)}, the manifest says {_some(said)}; convert the package again")


def check_declared(manifest: Manifest) -> None:
    """Hold what a manifest says of its variants' operators against the list, without any graph.

    Raises:
        ArtifactError: A variant names no operators, or one that is not on the list.
    """
    for variant in manifest.variants:
        if variant.runtime == "c":
            continue
        if not variant.operators:
            raise ArtifactError(f"manifest: variant {variant.name!r} names no operators; convert the package again")
        refused = sorted(set(variant.operators) - NAMES[variant.runtime])
        if refused:
            raise ArtifactError(
                f"manifest: {variant.file} of variant {variant.name!r} needs the operator {refused[0][:80]!r}, which is not on the list of "
                f"operators that a device may be given; {_REMEDY}"
            )


def _some(names: Iterable[str]) -> str:
    text = ", ".join(sorted(set(names)))
    return text if len(text) <= 160 else f"{text[:160]} ..."
