"""What the project declared for the conversion; the trainer leaves its settings in the package's provenance.json."""

from dataclasses import dataclass
from typing import Literal

import msgspec

from converter.gates import Limits
from converter.profiles import profile_of
from edgefleet.errors import ArtifactError
from edgefleet.package import ModelPackage

ExplainMethod = Literal["auto", "linear", "treeshap", "amortised", "sampled", "none"]


class _Convert(msgspec.Struct):
    targets: list[str] = []
    calibration_rows: int = 0


class _Gates(msgspec.Struct):
    allow_inconclusive: list[str] = []


class _Device(msgspec.Struct):
    latency_p95_ms: float | None = None
    size_bytes: int | None = None
    memory_bytes: int | None = None
    profile: str = ""


class _Explain(msgspec.Struct):
    method: ExplainMethod = "auto"


class _Project(msgspec.Struct):
    convert: _Convert = msgspec.field(default_factory=_Convert)
    gates: _Gates = msgspec.field(default_factory=_Gates)
    device: _Device = msgspec.field(default_factory=_Device)
    explain: _Explain = msgspec.field(default_factory=_Explain)


class _Provenance(msgspec.Struct):
    project: _Project = msgspec.field(default_factory=_Project)


@dataclass(frozen=True)
class Declared:
    """Settings of the conversion.

    Attributes:
        targets: Names of targets, empty for the converter's own choice.
        limits: Budgets, and gates that may stay open.
        explain: How answers are explained; `auto` is exact where it can be.
        calibration_rows: Most calibration rows that integer targets look at; 0 takes all.
    """

    targets: list[str]
    limits: Limits
    explain: ExplainMethod
    calibration_rows: int = 0


def declared(package: ModelPackage) -> Declared:
    """Read the settings; what is not declared has the defaults.

    Raises:
        ArtifactError: provenance.json is damaged.
        ConfigError: The device profile is unknown.
    """
    try:
        project = msgspec.json.decode(package.read("provenance.json"), type=_Provenance).project
    except (msgspec.DecodeError, UnicodeDecodeError) as err:
        raise ArtifactError(f"{package.folder}/provenance.json: {str(err)[:200]}; train again") from err
    device, allowed = project.device, frozenset(project.gates.allow_inconclusive)
    limits = Limits(device.size_bytes, device.latency_p95_ms, device.memory_bytes, allowed, profile_of(device.profile))
    return Declared(project.convert.targets, limits, project.explain.method, project.convert.calibration_rows)
