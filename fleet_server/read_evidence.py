"""What people see of a rollout by evidence beside its waves and gates: frozen values for the API and the page."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class ChanceView:
    """What happens to a release that fails on a share of the devices; probabilities 0 to 1, harm in devices.

    Attributes:
        failing: That share.
        stopped_in_first: In wave 1, if failures show at once.
        stopped: In any wave.
        harmed_median: Devices that fail because of it.
        harmed_p95: Exceeded in one of twenty runs.
        late_stopped: If every failure shows only after a wave's last batch is out, or while it rests.
        late_harmed_median: Of those.
        late_harmed_p95: Of those.
        dark_stopped_in_first: If those devices are never heard again instead, in wave 1.
        dark_stopped: The same in any wave.
        dark_harmed_mean: Devices that go dark, on average.
        dark_harmed_median: Of those.
        dark_harmed_p95: Of those.
    """

    failing: float
    stopped_in_first: float
    stopped: float
    harmed_median: float
    harmed_p95: float
    late_stopped: float
    late_harmed_median: float
    late_harmed_p95: float
    dark_stopped_in_first: float
    dark_stopped: float
    dark_harmed_mean: float
    dark_harmed_median: float
    dark_harmed_p95: float


@dataclass(frozen=True)
class NeedView:
    """What a comparison of the model's behaviour needs to see a change.

    Attributes:
        gate: Its name.
        change: The change, in words.
        tolerance: A mean difference up to it is the same, in the gate's unit.
        devices: That have to tell for it to be seen in four of five rollouts; None: no number of them is enough.
        wave: The first in which so many can; None: none.
    """

    gate: str
    change: str
    tolerance: float
    devices: int | None
    wave: int | None


@dataclass(frozen=True)
class WaitView:
    """Devices of the open wave that may not begin yet, and for what they wait."""

    why: str
    devices: int
    sentence: str


@dataclass(frozen=True)
class EvidenceView:
    """Rule, plan and outlook.

    Attributes:
        rule: bound | posterior.
        limit: Largest share of failing devices that is good enough.
        decides: The gate whose word is the gravest, "" while no gate has looked.
        held_back: Devices that get the release last, as controls.
        waits: Why devices of the open wave have not begun.
        chances: What the plan does to releases that fail on a share of the devices.
        runs: That these were drawn with.
        needs: What each comparison in force needs.
    """

    rule: str
    limit: float
    decides: str
    held_back: int
    waits: list[WaitView]
    chances: list[ChanceView]
    runs: int
    needs: list[NeedView] = field(default_factory=list)
