"""Opening a bundle that nobody has tried on this machine yet: its golden rows are scored first, in a child process with limits."""

from pathlib import Path

from device_agent.choose import choose_variant
from device_agent.scorer import Scorer
from device_agent.update.selftest import try_bundle
from edgefleet.bundle import Bundle
from edgefleet.errors import VerdictError


def open_tested(folder: Path, variant: str | None = None, memory_bytes: int | None = None) -> Scorer:
    """Open a bundle whose variant passes its self-test here.

    A graph that is damaged or hostile, or that answers otherwise on this processor, is never opened in this process.

    Args:
        folder: The bundle.
        variant: As in `Scorer.open`.
        memory_bytes: The same.

    Raises:
        VerdictError: The self-test failed; why.
        ArtifactError: The bundle is damaged.
        ConfigError: No variant fits the device and the budget.
        MissingPartError: No runtime for any variant is installed.
    """
    bundle = Bundle.open(folder)
    chosen, _ = choose_variant(bundle.manifest, variant, None, memory_bytes=memory_bytes)
    tried = try_bundle(folder, chosen.name)
    if not tried.ok:
        raise VerdictError(f"{folder}: {chosen.name} does not pass its self-test here and is not opened: {tried.reason}")
    return Scorer.open(bundle, chosen.name)
