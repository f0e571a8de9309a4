"""What the page and the API show: frozen values, made by `fleet_server.queries`, rendered by `fleet_server.page`.

Every number has its unit in its name; every time is an aware UTC datetime; every count has one definition, written here.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from fleet_server.read_drift import DriftDevice, Histogram
from fleet_server.read_evidence import EvidenceView
from fleet_server.read_observed import LoadView, Observed, SamplingView
from fleet_server.read_registry import RegistryNote

# One word per state of a device in a rollout: has not begun; pending = began, no outcome yet; ok = committed, attested, soaked;
# failed = an explicit failure (refused, self-test or trial failed, rolled back, late unhealthy); silent = no sign of life at its deadline.
Progress = Literal["not-begun", "pending", "ok", "failed", "silent"]
Verdict = Literal["promote", "extend", "hold", "pause", "abort", "done", "waiting"]
Severity = Literal["halt", "abort", "pause", "approval", "drift", "notice"]


@dataclass(frozen=True)
class NeedsYou:
    """One line of the overview's ranked list; it leaves only when its cause is gone."""

    severity: Severity
    sentence: str
    detail: str
    link: str
    button: str


@dataclass(frozen=True)
class ReleaseRow:
    """One release.

    Attributes:
        attested_devices: Devices whose last attestation names this bundle.
        gates: Name, verdict and sentence of each gate that travelled with the bundle.
        overrides: Gates overruled by a person, with the reason.
        registry: Where it stands in MLflow, None when it is not in service or the server registers nowhere.
    """

    release_id: str
    project: str
    version: str
    counter: int
    bundle_digest: str
    created_at: datetime
    note: str
    variants: list[str]
    size_bytes: int
    attested_devices: int
    gates: list[tuple[str, str, str]]
    overrides: list[tuple[str, str]]
    registry: RegistryNote | None = None


@dataclass(frozen=True)
class WaveMember:
    """One device in one wave; `reason` says why it is in this state."""

    device_id: str
    progress: Progress
    reason: str
    site: str


@dataclass(frozen=True)
class WaveView:
    """One wave: the devices it adds to the ones before it.

    Attributes:
        members: All of them; of a rollout by evidence only those that need a look, at most a few dozen.
        counts: Devices by state, all of the wave's; empty: `members` is everybody.
    """

    number: int
    state: Literal["later", "next", "open", "promoted", "halted"]
    members: list[WaveMember]
    opened_at: datetime | None
    promoted_at: datetime | None
    reason: str
    counts: dict[Progress, int] = field(default_factory=dict)


@dataclass(frozen=True)
class GateView:
    """One gate now: verdict, what it saw, its limit, its n, one sentence.

    Attributes:
        level: What it saw as a share of its limit, cut at 1; None: nothing to measure.
        turns: What would change its answer; empty: nothing is said of that.
    """

    name: str
    verdict: Verdict
    now: str
    limit: str
    n: int
    sentence: str
    level: float | None = None
    turns: str = ""


@dataclass(frozen=True)
class EventView:
    """One line of a log: the engine's and people's actions alike.

    Attributes:
        facts: Digest of what an action of the engine was decided on, "" of others.
    """

    at: datetime
    actor: str
    action: str
    detail: str
    facts: str = ""


@dataclass(frozen=True)
class ActionView:
    """What a person can do now, and what it will do; `refused` says why it cannot be done, or is empty."""

    name: Literal["start", "pause", "confirm", "resume", "abort", "roll-back"]
    label: str
    effect: str
    refused: str = ""


@dataclass(frozen=True)
class RolloutRow:
    """One line of the list of rollouts.

    Attributes:
        asks: Whether it is paused because its policy asks a person to confirm.
    """

    rollout_id: str
    release: str
    project: str
    state: str
    verdict: Verdict
    wave: int
    waves: int
    begun_devices: int
    all_devices: int
    sentence: str
    wave_progress: list[dict[Progress, int]]
    created_at: datetime
    asks: bool = False


@dataclass(frozen=True)
class RolloutView:
    """A rollout: verdict sentence first.

    Attributes:
        sentence: Verdict with its numbers, e.g. "Hold: wave 2 waits for 2 of 3 devices."
        missing: What is missing and the earliest next event.
        version: Counter of the row; actions carry it back so that nobody acts on an old page.
        policy_notes: Sentences that the policy itself declares ("demo policy: proves nothing about rates").
        evidence: What only a rollout by evidence has; None: every device must prove itself.
    """

    rollout_id: str
    release: ReleaseRow
    replaces: str
    state: str
    version: int
    verdict: Verdict
    sentence: str
    missing: str
    waves: list[WaveView]
    gates: list[GateView]
    events: list[EventView]
    actions: list[ActionView]
    policy_name: str
    policy_notes: list[str]
    policy_digest: str
    selection: str
    created_at: datetime
    evidence: EvidenceView | None = None


@dataclass(frozen=True)
class DeviceRow:
    """One device: what it should run, what it says it runs, what it attested, and how old that is.

    Attributes:
        running_digest: Bundle digest from its last `reported`, "" when it never reported.
        attested_digest: Bundle digest of its last verified attestation.
        latency_p50_ms: Median scoring latency of the last window, or None.
        why: One sentence: well, or why not.
        lifting: Bundles that it may try again though they failed there, which it has not answered yet.
        removed_at: When it was taken out of the fleet; its log and its rows stay.
        floor: Least release counter that it takes by its own word, 0 for any.
        floor_attested: The same as it signed it last.
        floor_in_force: What it should be.
    """

    device_id: str
    project: str
    labels: dict[str, str]
    connected: bool
    last_seen_at: datetime | None
    desired_digest: str
    desired_release: str
    running_digest: str
    running_release: str
    attested_digest: str
    state: str
    quarantined: list[str]
    runtimes: list[str]
    rows_total: int
    latency_p50_ms: float | None
    drifting: bool
    why: str
    lifting: list[str] = field(default_factory=list)
    removed_at: datetime | None = None
    floor: int = 0
    floor_attested: int = 0
    floor_in_force: int = 0


@dataclass(frozen=True)
class ExplanationView:
    """One explained prediction: base + contributions (+ gap) = margin of the predicted class.

    Attributes:
        shape: Shape of the row's tensor; a heat map is drawn when it has two dimensions.
        segments: [S][F] contributions of a window's time segments, the oldest first; empty where there are none.
    """

    device_id: str
    release: str
    at: datetime
    label: str
    score: float
    margin: float
    base: float
    method: str
    gap: float
    names: list[str]
    contributions: list[float]
    error: list[float] | None
    shape: list[int]
    segments: list[list[float]] = field(default_factory=list)


@dataclass(frozen=True)
class DeviceView:
    """A device page."""

    device: DeviceRow
    events: list[EventView]
    drift: DriftDevice | None
    histograms: list[Histogram]
    explanation: ExplanationView | None
    load: LoadView | None
    observed: Observed
    sampling: SamplingView | None


@dataclass(frozen=True)
class OverviewView:
    """What needs me now, and the fleet in five numbers."""

    needs_you: list[NeedsYou]
    rollouts: list[RolloutRow]
    devices_total: int
    devices_connected: int
    devices_as_desired: int
    devices_rolled_back: int
    rows_total: int
    latency_p95_ms: float | None
    releases_in_field: list[tuple[str, int]]
    explanation: ExplanationView | None
    as_of: datetime
    notes: list[str] = field(default_factory=list)
