"""Which variant of a bundle a device runs: the first in the manifest's order whose runtime is here."""

from collections.abc import Sequence

from device_agent.runtime import RUNTIMES, available_runtimes
from edgefleet.errors import ConfigError, MissingPartError
from edgefleet.manifest import Manifest, Variant


def choose_variant(manifest: Manifest, name: str | None = None, runtimes: Sequence[str] | None = None) -> tuple[Variant, str]:
    """Which variant this device runs, and one sentence why; never one of C source, which is compiled into firmware.

    Raises:
        ArtifactError: No variant of that name.
        ConfigError: The variant asked for, or every variant, is C source.
        MissingPartError: None of the runtimes that the bundle needs is installed (or allowed).
    """
    usable = [r for r in available_runtimes() if runtimes is None or r in runtimes]
    have = ", ".join(usable) or "none"
    if name is not None:
        variant = manifest.variant(name)
        if variant.runtime in usable:
            return variant, f"{name} was asked for by name"
        if variant.runtime not in RUNTIMES:
            raise ConfigError(f"variant {name} is {variant.runtime} source to compile into firmware; this agent runs {', '.join(RUNTIMES)}")
        raise MissingPartError(
            f"variant {name} needs the runtime {variant.runtime}; usable here: {have}; pip install 'edgefleet[{_extra(variant)}]'"
        )
    for variant in manifest.variants:
        if variant.runtime in usable:
            return variant, f"{variant.name} is the first of {len(manifest.variants)} variants whose runtime is here ({have})"
    graphs = [variant for variant in manifest.variants if variant.runtime in RUNTIMES]
    if not graphs:
        names = ", ".join(variant.name for variant in manifest.variants)
        raise ConfigError(f"the bundle has nothing that an agent runs, only {names}; convert the package for {', '.join(RUNTIMES)} too")
    needs = ", ".join(dict.fromkeys(variant.runtime for variant in graphs))
    raise MissingPartError(f"the bundle needs {needs}; usable here: {have}; pip install 'edgefleet[{_extra(graphs[0])}]'")


def _extra(variant: Variant) -> str:
    return "onnx" if variant.runtime == "onnxruntime" else "tflite"
