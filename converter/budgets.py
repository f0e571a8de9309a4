"""The declared budgets of the device against what a variant takes: measured here, or estimated for a device profile. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from converter.estimates import Estimate, estimate
from converter.parity import Cost
from converter.profiles import Profile
from edgefleet.manifest import Runtime

Name = Literal["size", "latency p95", "memory"]
Unit = Literal["bytes", "ms"]


@dataclass(frozen=True)
class Limits:
    """What the project declares beside the fixed limits; None means not declared.

    Attributes:
        size_bytes: Largest graph file.
        latency_p95_ms: Largest 95th percentile of one row, on the converting machine or by the profile's estimate.
        memory_bytes: Largest peak resident memory of a process that scores, or by the profile's estimate.
        allow_inconclusive: Gates that may be inconclusive: too few rows to prove or refute them do not keep a variant out.
        profile: The device that latency and memory are estimated for; None: this machine's measurement is compared.
    """

    size_bytes: int | None = None
    latency_p95_ms: float | None = None
    memory_bytes: int | None = None
    allow_inconclusive: frozenset[str] = frozenset()
    profile: Profile | None = None


@dataclass(frozen=True)
class Budget:
    """One declared budget of one variant.

    Attributes:
        name: Of what.
        value: What the variant takes, None where that is not known.
        limit: What is allowed.
        unit: Of both.
        verdict: `skipped` where the profile's device cannot run the variant at all, so that its budget does not speak of it.
        profile: Device profile that the value is an estimate for; "": measured on the converting machine, or counted.
    """

    name: Name
    value: float | None
    limit: float
    unit: Unit
    verdict: Literal["pass", "fail", "skipped"]
    profile: str = ""

    @property
    def sentence(self) -> str:
        """Value and limit in words."""
        shown = "unknown" if self.value is None else f"{self.value:.3f}" if self.unit == "ms" else f"{self.value:.0f}"
        what = {"size": "", "latency p95": "p95 latency ", "memory": "peak memory "}[self.name]
        if self.verdict == "skipped":
            return f"{what}is not judged: its runtime is not meant for {self.profile}"
        about = f", estimated for {self.profile}" if self.profile else ""
        limit = f"{self.limit:g}" if self.unit == "ms" else f"{self.limit:.0f}"
        return f"{what}{shown} {self.unit}{about}, limit {limit} {self.unit}"


@dataclass(frozen=True)
class Taken:
    """What a variant takes.

    Attributes:
        runtime: What it needs.
        size_bytes: Of the graph, of C source its constants.
        cost: Measured on this machine.
        facts: What its writer said.
    """

    runtime: Runtime
    size_bytes: int
    cost: Cost
    facts: Mapping[str, Any] | None = None

    def on(self, profile: Profile) -> Estimate | None:
        """Estimated for a device; None where it cannot run there."""
        return estimate(profile, self.runtime, self.cost, self.size_bytes, self.facts)


def budgets(taken: Taken, limits: Limits) -> list[Budget]:
    """Every declared budget, judged."""
    judged = []
    profile = limits.profile
    there = None if profile is None else taken.on(profile)
    if limits.size_bytes is not None:
        judged.append(_judged("size", "bytes", taken.size_bytes, limits.size_bytes, None))
    # A device that cannot run the variant has no budget for it.
    runs = profile is None or there is not None
    cost = taken.cost if there is None else there
    if limits.latency_p95_ms is not None:
        judged.append(_judged("latency p95", "ms", cost.latency_p95_ms, limits.latency_p95_ms, profile, runs=runs))
    if limits.memory_bytes is not None:
        memory = taken.cost.memory_peak_bytes if there is None else there.memory_bytes
        judged.append(_judged("memory", "bytes", memory, limits.memory_bytes, profile, runs=runs))
    return judged


def _judged(name: Name, unit: Unit, value: float | None, limit: float, profile: Profile | None, *, runs: bool = True) -> Budget:
    of = "" if profile is None else profile.name
    if not runs:
        return Budget(name, None, float(limit), unit, "skipped", of)
    # What is not known is not within its limit.
    return Budget(name, value, float(limit), unit, "pass" if value is not None and value <= limit else "fail", of)
