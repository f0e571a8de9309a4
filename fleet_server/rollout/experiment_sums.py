"""What an experiment has seen so far, in sums: a device adds its number once, and no answer needs more than these sums.

The interval rests on means and variances; the stakes rest on pairs in the order in which devices are measured, and are exact at any n. The
first devices only set the scale of the stakes: a scale taken from the values it is used on would be a bet on a result that is known.
"""

import math
from collections.abc import Mapping
from typing import Final

import msgspec
import numpy as np

from edgefleet.errors import ConfigError
from fleet_server.rollout.betting import STAKES, log_wealths
from fleet_server.rollout.comparisons import COMPARISONS, Wealth
from fleet_server.rollout.experiment import half_width

SCALE_FROM: Final = 30  # values
CLIP_DEVIATIONS: Final = 6.0
Guards = dict[str, tuple[float, ...]]


class Arm(msgspec.Struct, frozen=True, kw_only=True):
    """One arm.

    Attributes:
        measured: Devices whose period is over.
        delivered: Of them, with enough rows.
        n: Of them, with a number.
        mean: Of the numbers.
        m2: Sum of squares about the mean.
        waiting: (number, changes of the guardrails) that have no partner of the other arm yet.
    """

    measured: int = 0
    delivered: int = 0
    n: int = 0
    mean: float = 0.0
    m2: float = 0.0
    waiting: tuple[tuple[float, Guards], ...] = ()

    @property
    def variance(self) -> float:
        """Of one device's number."""
        return self.m2 / (self.n - 1) if self.n > 1 else 0.0

    def counted(self, *, delivered: bool) -> "Arm":
        """With one more device whose period is over."""
        return msgspec.structs.replace(self, measured=self.measured + 1, delivered=self.delivered + delivered)

    def with_value(self, value: float, guards: Guards) -> "Arm":
        """With one more number. Reference: Welford (1962), Note on a method for calculating corrected sums of squares."""
        n = self.n + 1
        mean = self.mean + (value - self.mean) / n
        m2 = self.m2 + (value - self.mean) * (value - mean)
        return msgspec.structs.replace(self, n=n, mean=mean, m2=m2, waiting=(*self.waiting, (value, guards)))


class Stakes(msgspec.Struct, frozen=True, kw_only=True):
    """A guardrail's stakes as they are stored; see `comparisons.Wealth`."""

    logs: tuple[tuple[float, ...], ...]
    pairs: int


class Sums(msgspec.Struct, frozen=True, kw_only=True):
    """Both arms, and the stakes of pairs.

    Attributes:
        arms: A, B.
        scale: Standard deviation of a device's number, from the first ones; 0 until it is known.
        logs: [2 directions][stakes] log wealth: B above A, A above B.
        pairs: That were bet on.
        guards: Guardrail -> its stakes; positive = B is worse.
    """

    arms: tuple[Arm, Arm] = (Arm(), Arm())
    scale: float = 0.0
    logs: tuple[tuple[float, ...], ...] = ((0.0,) * len(STAKES),) * 2
    pairs: int = 0
    guards: Mapping[str, Stakes] = {}

    def without_value(self, arm: int, *, delivered: bool) -> "Sums":
        """With a device of whom there is no number."""
        return self._with(arm, self.arms[arm].counted(delivered=delivered))

    def with_value(self, arm: int, value: float, guards: Guards | None = None) -> "Sums":
        """With a device's number.

        Args:
            arm: 0 = A, 1 = B.
            value: Its number.
            guards: Guardrail -> its own change, for those that it could tell.

        Raises:
            ConfigError: A number that is not finite.
        """
        told = guards or {}
        if not math.isfinite(value) or not all(math.isfinite(one) for change in told.values() for one in change):
            raise ConfigError(f"a device's number {value} or its guardrails {told} are not finite; such a device must be left out and said")
        changed = self._with(arm, self.arms[arm].counted(delivered=True).with_value(value, told))
        return changed._scaled() if not changed.scale else changed._paired()

    @property
    def difference(self) -> float:
        """Mean of B minus mean of A."""
        return self.arms[1].mean - self.arms[0].mean

    def half(self, alpha: float) -> float:
        """Half-width of the interval around the difference, infinite before both arms have two devices."""
        a, b = self.arms
        if min(a.n, b.n) < 2:
            return math.inf
        return half_width(a.n + b.n, a.variance / a.n + b.variance / b.n, alpha)

    @property
    def evidence(self) -> float:
        """e-value of "the arms do not differ": the mean over directions and stakes."""
        logs = np.array(self.logs)
        most = float(logs.max())
        return math.exp(min(most, 600.0)) * float(np.exp(logs - most).mean())

    def harm(self, guardrails: tuple[str, ...]) -> tuple[float, str]:
        """Mean of the guardrails' e-values, and the one that says most."""
        by_name = {name: _wealth(name, self.guards.get(name)).evidence for name in guardrails}
        if not by_name:
            return 1.0, ""
        return sum(by_name.values()) / len(by_name), max(by_name, key=lambda name: by_name[name])

    def _with(self, arm: int, one: Arm) -> "Sums":
        a, b = self.arms
        return msgspec.structs.replace(self, arms=(one, b) if arm == 0 else (a, one))

    def _scaled(self) -> "Sums":
        a, b = self.arms
        if a.n + b.n < SCALE_FROM or min(a.n, b.n) < 2:
            return self
        scale = math.sqrt((a.m2 + b.m2) / (a.n + b.n - 2))
        fresh = tuple(msgspec.structs.replace(one, waiting=()) for one in self.arms)
        # Equal numbers on all devices so far: nothing can be bet on yet.
        return msgspec.structs.replace(self, arms=(fresh[0], fresh[1]), scale=scale) if scale > 0 else self

    def _paired(self) -> "Sums":
        a, b = self.arms
        if not (a.waiting and b.waiting):
            return self
        (value_a, told_a), (value_b, told_b) = a.waiting[0], b.waiting[0]
        rest = tuple(msgspec.structs.replace(one, waiting=one.waiting[1:]) for one in (a, b))
        clip = CLIP_DEVIATIONS * self.scale
        more = [log_wealths([way * (value_b - value_a)], 0.0, clip) for way in (1.0, -1.0)]
        logs = np.array(self.logs) + np.array(more)
        guards = dict(self.guards)
        for name in told_a.keys() & told_b.keys():
            gate = COMPARISONS[name]
            stakes = _wealth(name, guards.get(name)).after(gate, [[y - x for x, y in zip(told_a[name], told_b[name], strict=True)]])
            guards[name] = Stakes(logs=tuple(tuple(row) for row in stakes.logs.tolist()), pairs=stakes.devices)
        kept = tuple(tuple(row) for row in logs.tolist())
        return msgspec.structs.replace(self, arms=(rest[0], rest[1]), logs=kept, pairs=self.pairs + 1, guards=guards)


def _wealth(name: str, stakes: Stakes | None) -> Wealth:
    return Wealth.start(COMPARISONS[name]) if stakes is None else Wealth(np.array(stakes.logs), stakes.pairs)
