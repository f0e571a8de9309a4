"""What the page and the API show of drift: which input of which device, how sure, and the histograms behind it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from fleet_server.read_observed import Observed


@dataclass(frozen=True)
class FeatureDrift:
    """One input of one device.

    Attributes:
        contrast: Own mean normal score minus that of its peers at the same time, minus the own baseline, in reference standard deviations.
        evidence: e-value; an alarm needs the limit of the policy.
        state: alarm | watching | quiet | too-few.
    """

    feature: str
    contrast: float
    evidence: float
    state: Literal["alarm", "watching", "quiet", "too-few"]


@dataclass(frozen=True)
class DriftDevice:
    """Drift of one device: its features by evidence, its histogram against the reference."""

    device_id: str
    labels: dict[str, str]
    state: Literal["alarm", "watching", "quiet", "too-few"]
    windows: int
    rows: int
    evidence: float
    features: list[FeatureDrift]
    alarmed_at: datetime | None


@dataclass(frozen=True)
class Histogram:
    """Shares per cell of one feature: reference against the device's recent rows; `cells` are their names."""

    feature: str
    cells: list[str]
    reference: list[float]
    current: list[float]
    n: int


@dataclass(frozen=True)
class DriftView:
    """Drift of one project: alarm sentence first."""

    project: str
    sentence: str
    detail: str
    alarm_limit: float
    devices: list[DriftDevice]
    histograms: list[tuple[str, Histogram]]
    as_of: datetime | None
    observed: Observed
