"""What the pages and the API show of the devices' own observations: explanations in sums, a second model, load, rows that may leave.

Sums are over the windows that arrived in a period; a time is the server's, because a device's clock may be wrong.
"""

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True)
class LoadView:
    """What a device watches about itself; None is what it cannot know.

    Attributes:
        cpu_percent: Processor time of the agent, of one core, over the seconds before.
        clock_offset_ms: How far its clock is behind the server's; negative is ahead.
        clock_jumps: How often its clock was set since the agent's start.
        heard_at: When it said so.
    """

    cpu_percent: float
    rss_bytes: int
    disk_free_bytes: int | None
    temperature_c: float | None
    clock_offset_ms: int | None
    clock_jumps: int
    heard_at: datetime


@dataclass(frozen=True)
class ShadowView:
    """A model that only listened beside the one whose answers counted.

    Attributes:
        running_release: Version of the latter, "" when it is no release here; `shadow_release` is the former's.
        offered: compared + running_failed + shadow_failed + both_failed + shed.
        agreement: agreed / (compared + shadow_failed), None without a row.
        difference_mean: Shadow minus running, of the probability of the running model's class or of the values; None without a row.
        difference_sd: Standard deviation of the differences (population).
        devices: How many have compared.
        heard_at: When the newest of the windows arrived.
        latency_p95_ms: What 95 of 100 single rows take the shadow at most, None where its devices do not tell.
    """

    running_release: str
    running_digest: str
    shadow_release: str
    shadow_digest: str
    offered: int
    compared: int
    agreed: int
    running_failed: int
    shadow_failed: int
    both_failed: int
    shed: int
    agreement: float | None
    differences: int
    difference_mean: float | None
    difference_sd: float | None
    devices: int
    heard_at: datetime
    latency_p95_ms: float | None = None


@dataclass(frozen=True)
class ShareView:
    """One of two models that share the rows (A/B).

    Attributes:
        share_percent: Its share by the newest window.
        score_mean: Mean score of the answered rows, None without one.
        classes: (name, answered rows) in the manifest's order, empty for values.
        latency_p50_ms: Median scoring latency.
    """

    release: str
    bundle_digest: str
    share_percent: float
    answered: int
    rejected: int
    score_mean: float | None
    classes: list[tuple[str, int]]
    latency_p50_ms: float | None
    devices: int
    heard_at: datetime


@dataclass(frozen=True)
class InputAttribution:
    """One input: means over the explained rows, in margin units of the predicted class.

    Attributes:
        mean_absolute: Mean of |contribution|.
        mean: Mean of the contribution with its sign.
        share: `mean_absolute` as a fraction of the sum over all inputs, 0 when that is 0.
    """

    feature: str
    mean_absolute: float
    mean: float
    share: float


@dataclass(frozen=True)
class AttributionView:
    """What the answers of one release rested on, the input with the largest share first.

    Attributes:
        rows: Explained rows.
        skipped: Rows that were due but not explained, for the budget of processor time.
    """

    release: str
    bundle_digest: str
    rows: int
    skipped: int
    inputs: list[InputAttribution]
    devices: int
    heard_at: datetime


@dataclass(frozen=True)
class Observed:
    """Observations of one device, or of a project's devices together, in a period.

    Attributes:
        device_id: None for all devices of the project.
        windows: Windows that were added up.
        complete: False when the period has more windows than are added up at once: then the newest ones count.
        shadow: The comparison with the newest window first; `shares` and `attribution` likewise.
        sampled_rows: Rows that arrived as they came in, which operator and device both allowed.
    """

    project: str
    device_id: str | None
    since_at: datetime
    until_at: datetime
    windows: int
    complete: bool
    shadow: list[ShadowView] = field(default_factory=list)
    shares: list[ShareView] = field(default_factory=list)
    attribution: list[AttributionView] = field(default_factory=list)
    sampled_rows: int = 0


@dataclass(frozen=True)
class SamplingView:
    """An operator's order that a device may send rows as they came in; the device's own configuration must allow it as well.

    Attributes:
        redact: Inputs that do not leave, beside those that the device itself holds back.
        until_at: When the order ends by itself.
    """

    device_id: str
    rows_per_hour: float
    redact: list[str]
    bytes_per_day: int
    until_at: datetime
    ordered_at: datetime
    ordered_by: str


@dataclass(frozen=True)
class SampledRow:
    """One row as it came in at a device, by input name, without the inputs that were held back."""

    device_id: str
    release: str
    scored_at: datetime
    received_at: datetime
    row: dict[str, float | str | None]
    label: str
    score: float | None
