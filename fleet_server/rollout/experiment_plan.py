"""The plan of an A/B experiment on devices, fixed before it starts, and how it ended. Part of the rollout that carries it.

Arm 0 (A) keeps what it runs, arm 1 (B) is given the release. Both arms of a batch are measured in the same hours, whether or not a device
of arm B has managed to take the release on: what is compared is what giving the release does.
"""

import math
from datetime import datetime, timedelta
from typing import Final, Literal

import msgspec

from edgefleet.errors import ConfigError
from fleet_server.rollout.behaviour import CONTROLLED, METRICS
from fleet_server.rollout.experiment import arm
from fleet_server.rollout.limits import check_seconds, check_share, check_whole

ACCURACY: Final = "accuracy"
METRIC_NAMES: Final = (*METRICS, ACCURACY)
ARMS: Final = ("A", "B")
FIRST_BATCH: Final = 10  # of both arms together
Ending = Literal["", "winner B", "winner A", "no difference", "harm", "inconclusive", "stopped"]


class Experiment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is compared, how long, and what ends it.

    Attributes:
        baseline_release: Release of arm A, which its devices run already.
        metric: One number per device: `accuracy` of labelled rows, `mean score`, `positive share`, `p95 latency` (log) or `memory` (log).
        better: Which way is better: `higher` or `lower`.
        resolution: Difference of the arms' means that matters, in the unit of the metric.
        share: Of the devices, in arm B.
        alpha: Chance that the interval ever misses the truth.
        burn_in_s: After a batch begins, so long nothing is measured; it must cover download and trial.
        measure_s: Then so long; the same time before the batch begins is its pre-period.
        grace_s: After that, late reports are waited for so long.
        rows: Rows that a device must answer in the period, or it has delivered nothing.
        centred: A device's number is its change from its own pre-period; devices without one are left out, in both arms alike.
        guardrails: Comparisons between the arms that stop the experiment for harm.
        failure_limit: Share of devices of arm B that may fail explicitly.
        every_s: Between two batches; each is as large as all before it together.
        horizon_s: After so long without an answer it ends as inconclusive.
        ending: How it ended, "" while it has not.
    """

    baseline_release: str
    metric: str
    better: str
    resolution: float
    share: float = 0.5
    alpha: float = 0.05
    burn_in_s: float = 4 * 3_600.0
    measure_s: float = 86_400.0
    grace_s: float = 3_600.0
    rows: int = 200
    centred: bool = True
    guardrails: tuple[str, ...] = ("p95 latency", "memory")
    failure_limit: float = 0.05
    every_s: float = 8_100.0
    horizon_s: float = 28 * 86_400.0
    ending: Ending = ""

    def __post_init__(self) -> None:
        if self.metric not in METRIC_NAMES:
            raise ConfigError(f"metric {self.metric[:40]!r} is unknown; use one of: {', '.join(METRIC_NAMES)}")
        if self.better not in ("higher", "lower"):
            raise ConfigError(f"better = {self.better[:40]!r} is unknown; say 'higher' or 'lower'")
        for name in self.guardrails:
            if name not in CONTROLLED or name == self.metric:
                usable = ", ".join(gate for gate in CONTROLLED if gate != self.metric)
                raise ConfigError(f"guardrail {name[:40]!r} is not possible beside the metric {self.metric!r}; use some of: {usable}")
        if len(set(self.guardrails)) != len(self.guardrails):
            raise ConfigError("guardrails names a comparison twice; name each one once")
        if not 0 < self.resolution < math.inf:
            raise ConfigError(f"resolution = {self.resolution:g} must be above 0: the smallest difference that matters")
        for name, share in (("share", self.share), ("alpha", self.alpha), ("failure_limit", self.failure_limit)):
            check_share(name, share)
        check_whole("rows", self.rows, least=1, most=1_000_000)
        check_seconds("burn_in_s", self.burn_in_s)
        check_seconds("grace_s", self.grace_s)
        for name, seconds in (("measure_s", self.measure_s), ("every_s", self.every_s), ("horizon_s", self.horizon_s)):
            check_seconds(name, seconds, least=1.0)
        if self.horizon_s <= self.delay_s:
            raise ConfigError(f"horizon_s = {self.horizon_s:g} ends before the first device is measured, after {self.delay_s:g} s")

    @property
    def delay_s(self) -> float:
        """From the begin of a batch until its devices are measured."""
        return self.burn_in_s + self.measure_s + self.grace_s

    def arm(self, salt: str, device_id: str) -> int:
        """0 = A keeps what it runs, 1 = B is given the release; the same in any process."""
        return arm(salt, device_id, (1 - self.share, self.share))

    def measured_at(self, begun_at: datetime) -> datetime:
        """When the devices of a batch are measured."""
        return begun_at + timedelta(seconds=self.delay_s)

    def better_by(self, difference: float) -> float:
        """A difference B - A of the metric, positive = B is better."""
        return difference if self.better == "higher" else -difference


def batches(device_ids: list[str]) -> tuple[tuple[str, ...], ...]:
    """Devices of both arms in doubling batches: never more new ones than there are already.

    >>> [len(batch) for batch in batches([str(i) for i in range(50)])]
    [10, 10, 20, 10]
    """
    found, begun = [], 0
    while begun < len(device_ids):
        size = max(begun, FIRST_BATCH)
        found.append(tuple(device_ids[begun : begun + size]))
        begun += size
    return tuple(found)
