"""What a dry run of a rollout shows: frozen values for the API."""

from dataclasses import dataclass, field
from typing import Any

from fleet_server.read_evidence import ChanceView, NeedView


@dataclass(frozen=True)
class PlannedWaveView:
    """One wave of a plan.

    Attributes:
        devices: That it reaches, the waves before included.
        adds: Of them, its own.
        strata: (name, its own devices) of each stratum; "" is devices without the labels.
        opens_s: From the start of the rollout until it opens, at the earliest.
        opening_s: Until its last batch may begin.
        dwell_s: It is watched at least so long after that.
        asleep_s: Of its time, waiting for hours at which devices are awake.
        done_s: From the start of the rollout until it can be promoted, at the earliest.
        device_ids: Its own devices, where they were asked for.
    """

    number: int
    devices: int
    adds: int
    strata: list[tuple[str, int]]
    opens_s: float
    opening_s: float
    dwell_s: float
    asleep_s: float
    done_s: float
    device_ids: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class AwakeView:
    """Share of the devices that was heard, by hour of the day UTC."""

    shares: list[float]
    days: int
    devices: int


@dataclass(frozen=True)
class PlanView:
    """A dry run.

    Attributes:
        digest: Of everything a person agrees to; an approval of the rollout names it.
        rule: unanimous | bound | posterior.
        limit: Largest share of failing devices that is good enough; None under `unanimous`.
        sentence: The plan in one sentence.
        held_back: Devices that get the release last, as controls.
        duration_s: Until the last wave can be done, if nothing goes wrong.
        chances: One for each share of failing devices.
        runs: That the chances were drawn with.
        needs: What each comparison of the model's behaviour needs to see a change; none under `unanimous`.
        cautions: What this plan cannot see, prove or finish soon.
    """

    digest: str
    project: str
    release: str
    release_id: str
    policy_name: str
    policy_digest: str
    selection: str
    rule: str
    limit: float | None
    sentence: str
    devices: int
    held_back: int
    sites: int
    waves: list[PlannedWaveView]
    duration_s: float
    awake: AwakeView | None
    chances: list[ChanceView]
    runs: int
    needs: list[NeedView]
    cautions: list[str]
    held_back_ids: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class LabelWords:
    """A label of a project's devices.

    Attributes:
        values: Some of its values.
        more: Whether there are others.
    """

    key: str
    values: list[str]
    more: bool


@dataclass(frozen=True)
class Vocabulary:
    """What a selection of a project may name."""

    labels: list[LabelWords]
    groups: list[str]


@dataclass(frozen=True)
class LastPolicy:
    """The policy that a rollout was planned under; `document` is what a policy file says."""

    name: str
    digest: str
    rollout_id: str
    document: dict[str, Any]
