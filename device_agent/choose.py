"""Which variant of a bundle a device runs: the first in the manifest's order that fits it.

The order is the converter's, who knows size and accuracy; whether a variant fits is a matter of the runtime, of the operators and the opset
that it knows, of the processor and of a memory budget. Whatever is skipped is said with its reason.
"""

from collections.abc import Sequence
from typing import Final

from device_agent.abilities import Abilities, onnx_is_old
from device_agent.ring import DEFAULT_SLOTS, MAX_RING_BYTES
from device_agent.runtime import RUNTIMES, loads
from edgefleet.errors import ArtifactError, ConfigError, MissingPartError
from edgefleet.manifest import Manifest, Variant

# Resident bytes for each byte of a file. Measured with onnxruntime 1.32 and ai-edge-litert 2.3: trees 13 to 15, networks 1.1 to 2.1.
_TREES: Final = 15
_NETWORK: Final = 3
_ARRAYS: Final = 2
_REFERENCE: Final = 8  # narrow integers become wide
_INTEGER: Final = frozenset({"QuantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger", "QLinearMatMul", "QLinearConv"})
_MOST_NAMED: Final = 4


def choose_variant(
    manifest: Manifest,
    name: str | None = None,
    runtimes: Sequence[str] | None = None,
    *,
    memory_bytes: int | None = None,
    abilities: Abilities | None = None,
) -> tuple[Variant, str]:
    """Which variant this device runs, and one sentence why; never one of C source, which is compiled into firmware.

    Args:
        manifest: The bundle's.
        name: Of the variant that is wanted, or None to choose.
        runtimes: Restrict the choice to these runtimes, or None for all that are installed.
        memory_bytes: Budget for what `memory_needed` estimates, or None for no limit.
        abilities: What the device can run; None looks at this one (of a named variant only at its runtime: loading it tells the rest).

    Raises:
        ArtifactError: No variant of that name, or the runtime knows its operators not.
        ConfigError: The variant asked for, or every variant, is C source or needs more memory than there is.
        MissingPartError: None of the runtimes that the bundle needs is installed (or allowed).
    """
    if abilities is not None:
        return _choose(manifest, name, abilities, memory_bytes)
    device = Abilities.here(runtimes, manifest.variants) if name is None else Abilities.installed(runtimes)
    variant, because = _choose(manifest, name, device, memory_bytes)
    if not loads(variant.runtime):  # a broken installation, which is none; what else is there may do
        return choose_variant(manifest, name, runtimes, memory_bytes=memory_bytes)
    if name is None and device.onnx_opset is None and variant.runtime == "onnxruntime" and onnx_is_old():
        return _choose(manifest, None, Abilities.here(runtimes), memory_bytes)
    return variant, because


def _choose(manifest: Manifest, name: str | None, device: Abilities, memory_bytes: int | None) -> tuple[Variant, str]:
    if name is not None:
        variant = manifest.variant(name)
        _check_wanted(manifest, variant, device, memory_bytes)
        return variant, f"{name} was asked for by name"
    skipped: dict[str, str] = {}
    saturating: Variant | None = None
    for variant in manifest.variants:
        reason = obstacle(manifest, variant, device, memory_bytes)
        if reason is None and device.whole_integer_products is False and _is_integer(variant):
            reason = "its integer products are cut on this processor, which has no VNNI: answers may differ from the proven ones"
            saturating = saturating or variant
        if reason is None:
            return variant, _because(variant, "the first", manifest, device, skipped)
        skipped[variant.name] = reason
    if saturating is not None:
        del skipped[saturating.name]
        rank = "the only one, although this processor cuts integer products,"
        return saturating, _because(saturating, rank, manifest, device, skipped)
    raise _nothing_fits(manifest, device, skipped)


def obstacle(manifest: Manifest, variant: Variant, device: Abilities, memory_bytes: int | None = None) -> str | None:
    """Why a device cannot run a variant, or None when nothing speaks against it."""
    if variant.runtime not in RUNTIMES:
        return f"it is {variant.runtime} source, to be compiled into firmware"
    if variant.runtime not in device.runtimes:
        return f"it needs the runtime {variant.runtime}"
    if variant.runtime == "onnxruntime":
        if device.onnx_opset is not None and variant.opset > device.onnx_opset:
            return f"its opset {variant.opset} is newer than {device.onnx_opset}, which the installed onnxruntime knows"
        unknown = [] if device.onnx_operators is None else [name for name in variant.operators if name not in device.onnx_operators]
        if unknown:
            return f"the installed onnxruntime does not know its operators {', '.join(unknown[:_MOST_NAMED])}"
    if memory_bytes is not None and (needed := memory_needed(manifest, variant)) > memory_bytes:
        return f"it needs about {needed} bytes of memory, the budget is {memory_bytes}"
    return None


def memory_needed(manifest: Manifest, variant: Variant, ring_rows: int = DEFAULT_SLOTS) -> int:
    """Estimate of the resident bytes that a variant adds to a process whose runtime is imported already (40 to 60 MB)."""
    sizes = {file: entry.size_bytes for file, entry in manifest.files.items()}
    trees = any(name.startswith("TreeEnsemble") for name in variant.operators)
    values = manifest.window_rows * len(manifest.inputs)
    needed = sizes[variant.file] * (_TREES if trees else _NETWORK) + sizes[manifest.reference] * _REFERENCE
    needed += min(MAX_RING_BYTES, ring_rows * 4 * values)
    if variant.explainer is not None:
        needed += sizes[variant.explainer] * _ARRAYS
    if manifest.outlier is not None and (file := manifest.outlier.files.get(variant.runtime)) is not None:
        needed += sizes[file] * (_TREES if manifest.outlier.method == "isolation_forest" else _NETWORK)
    return needed


def _is_integer(variant: Variant) -> bool:
    return variant.runtime == "onnxruntime" and not _INTEGER.isdisjoint(variant.operators)


def _check_wanted(manifest: Manifest, variant: Variant, device: Abilities, memory_bytes: int | None) -> None:
    reason = obstacle(manifest, variant, device, memory_bytes)
    if reason is None:
        return
    if variant.runtime not in RUNTIMES:
        raise ConfigError(
            f"variant {variant.name} is {variant.runtime} source to compile into firmware; this agent runs {', '.join(RUNTIMES)}"
        )
    if variant.runtime not in device.runtimes:
        raise MissingPartError(
            f"variant {variant.name} needs the runtime {variant.runtime}; usable here: {_have(device)}; "
            f"pip install 'edgefleet[{_extra(variant)}]'"
        )
    if memory_bytes is not None and memory_needed(manifest, variant) > memory_bytes:
        raise ConfigError(f"variant {variant.name} does not fit: {reason}; raise the budget or choose a smaller variant")
    raise ArtifactError(f"variant {variant.name} does not run here: {reason}; upgrade onnxruntime or choose another variant")


def _because(variant: Variant, rank: str, manifest: Manifest, device: Abilities, skipped: dict[str, str]) -> str:
    said = f"{variant.name} is {rank} of {len(manifest.variants)} variants that this device can run ({_have(device)})"
    return said + (f"; skipped: {_listed(skipped)}" if skipped else "")


def _nothing_fits(manifest: Manifest, device: Abilities, skipped: dict[str, str]) -> ConfigError | MissingPartError:
    graphs = [variant for variant in manifest.variants if variant.runtime in RUNTIMES]
    if not graphs:
        return ConfigError(
            f"the bundle has nothing that an agent runs, only {', '.join(skipped)}; convert the package for {', '.join(RUNTIMES)} too"
        )
    if all(variant.runtime not in device.runtimes for variant in graphs):
        needs = ", ".join(dict.fromkeys(variant.runtime for variant in graphs))
        return MissingPartError(f"the bundle needs {needs}; usable here: {_have(device)}; pip install 'edgefleet[{_extra(graphs[0])}]'")
    return ConfigError(f"no variant of the bundle fits this device: {_listed(skipped)}; convert the package for this device")


def _listed(skipped: dict[str, str]) -> str:
    return "; ".join(f"{name} ({reason})" for name, reason in skipped.items())


def _have(device: Abilities) -> str:
    return ", ".join(device.runtimes) or "none"


def _extra(variant: Variant) -> str:
    return "onnx" if variant.runtime == "onnxruntime" else "tflite"
