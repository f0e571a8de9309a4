"""From figures of the measuring machine to figures of a device profile: estimates, and called so wherever they are shown. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from converter.parity import Cost
from converter.profiles import CLASSES, RUNTIME_STORAGE_BYTES, Profile
from edgefleet.manifest import Runtime


@dataclass(frozen=True)
class Estimate:
    """What a variant is expected to take on a kind of device.

    Attributes:
        profile: Of which device.
        latency_p50_ms: Median of one row.
        latency_p95_ms: 95th percentile of one row.
        memory_bytes: Of a scoring process; of C source the stack and static memory. None where it is not known.
        storage_bytes: Graph and runtime, of C source constants and code. None where it is not known.
        misfit: Why the device cannot hold it, "" when it can.
    """

    profile: str
    latency_p50_ms: float
    latency_p95_ms: float
    memory_bytes: int | None
    storage_bytes: int | None
    misfit: str = ""


def estimate(profile: Profile, runtime: Runtime, cost: Cost, size_bytes: int, facts: Mapping[str, Any] | None = None) -> Estimate | None:
    """Figures of one variant on one kind of device, None where the device has no such runtime.

    Args:
        profile: The device.
        runtime: What the variant needs.
        cost: Measured on this machine.
        size_bytes: Of the graph, of C source its constants.
        facts: What the variant's writer said; of C source `code_bytes`, `stack_bytes` and `memory_bytes`, where a compiler told them.
    """
    if runtime not in CLASSES[profile.device_class].runtimes:
        return None
    said = facts or {}
    if runtime == "c":
        memory = _sum(said.get("stack_bytes"), said.get("memory_bytes", 0))
        # `code_bytes` of a compiler holds constants and instructions.
        storage = _sum(said.get("code_bytes", size_bytes))
    else:
        memory, storage = cost.memory_peak_bytes, size_bytes + RUNTIME_STORAGE_BYTES[runtime]
    return Estimate(
        profile.name,
        cost.latency_p50_ms * profile.cpu_factor,
        cost.latency_p95_ms * profile.cpu_factor,
        memory,
        storage,
        _misfit(profile, memory, storage),
    )


def _sum(*parts: Any) -> int | None:
    return None if any(part is None for part in parts) else sum(int(part) for part in parts)


def _misfit(profile: Profile, memory: int | None, storage: int | None) -> str:
    if memory is not None and memory > profile.ram_bytes:
        return f"about {memory} bytes of memory exceed the {profile.ram_bytes} of {profile.name}"
    if storage is not None and storage > profile.storage_bytes:
        return f"about {storage} bytes of storage exceed the {profile.storage_bytes} of {profile.name}"
    return ""
