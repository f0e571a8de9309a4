"""The policy of a rollout: waves, evidence, soak, deadlines, trial; every limit is checked when it is created, none when it is used."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Literal

import msgspec

from edgefleet.desired import TrialPolicy
from edgefleet.digests import canonical_json, sha256_hex
from edgefleet.errors import ConfigError, InputError
from edgefleet.identifiers import check_id
from fleet_server.rollout.confirming import Confirm
from fleet_server.rollout.conflicts import OnConflict
from fleet_server.rollout.gate_rules import GateRules
from fleet_server.rollout.late_evidence import OnLateEvidence
from fleet_server.rollout.limits import check_seconds, check_whole, did_you_mean, refuse_unknown
from fleet_server.rollout.membership import HoldBack
from fleet_server.rollout.on_abort import OnAbort
from fleet_server.rollout.pacing import Pace, Rate, Window
from fleet_server.rollout.policy_rules import RuleLimits, TrialRules
from fleet_server.rollout.wave_plan import PlannedWave, check_waves, planned

MAX_NOTES: Final = 16
MAX_STRATA: Final = 4
MAX_WINDOWS: Final = 21
MAX_APPROVALS: Final = 5
EVIDENCE: Final = ("unanimous", "bound", "posterior", "auto")
# Keys that a rollout in which every device must prove itself does not use, with what they are when nothing is said.
_OF_EVIDENCE: Final[Mapping[str, object]] = MappingProxyType(
    {
        "rule": RuleLimits(),
        "strata": None,
        "per_stratum": None,
        "least_first_wave": None,
        "hold_back": HoldBack(),
        "rate": None,
        "pace": Pace(),
        "rest_s": None,
        "windows": (),
        "site_budget": None,
        "patience_s": None,
        "stall_s": 7 * 86_400.0,
        "late_joiners": "follow",
        "emergency": False,
        "gates": GateRules(),
        "confirm": None,
    }
)


# The same of keys that every rollout knows since several may want one device.
_OF_SEVERAL: Final[Mapping[str, object]] = MappingProxyType(
    {"on_conflict": "refuse", "on_late_evidence": "draft", "activation_gap_s": None, "baseline": None}
)


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a release goes through a fleet.

    Attributes:
        name: For people.
        waves: Cumulative: device counts, then percentages "N%" of the selection; the last one is "100%". By evidence it may be left
            out: the waves and dwells measured for a fleet of that size.
        soak_s: Least seconds that a device runs the release, after its commit, before it counts.
        soak_rows: Least rows that it scores in that time.
        deadline_s: A device that began and gives no sign of life for so long is silent; by evidence its controls may ask for more.
        hold_s: A wave that holds longer than its dwell plus this is paused for a person; by evidence than this, or a third of it more than
            its dwell, whichever is longer.
        evidence: `unanimous` = every device of the open waves is ok; `bound` = proof that the share of failures is within the limit;
            `posterior` = the release is like earlier ones; `auto` = posterior below 2,000 devices, else bound.
        dwell_s: Least seconds that a wave stays open before the next: one number, or one per wave.
        approvals: People who must approve before the start, 0 to 5.
        on_abort: Who goes back by itself: `stop` = devices that are not ok; `wave` = these, and all of the open wave; `roll-back` = all;
            `keep` = nobody who has begun.
        max_explicit_failures_before_abort: Of `unanimous`: so many failures pause the rollout, one more aborts it.
        trial: What happens on the device.
        rule: Limits of the evidence.
        strata: Label keys; devices of each combination of their values are in wave 1. None: `hardware` and `region`, if devices have
            them.
        per_stratum: Least devices of each stratum in wave 1. None: 10 from 2,000 devices on, else 2.
        least_first_wave: Least devices of wave 1. None: 77 by the bound, which proves nothing with fewer; else 1.
        hold_back: Controls that get the release last.
        rate: Devices that may begin per hour; a time in which none could is not caught up with. None: as fast as the batches of `pace`.
        pace: Batches of the opening: never more new devices than are exposed already.
        rest_s: The last quarter of wave 1 begins so long after the others, whose dwell counts from before it. None: half of the dwell and
            the deadline by the bound, 0 by the posterior.
        windows: When devices may begin, by their own clock (label `time-zone`). None: always.
        site_budget: Most devices of a site in activation at once, over all rollouts. None: any number.
        patience_s: A wave that can be judged and has no answer for so long grows. None: 4 h by the bound, 2 h by the posterior.
        stall_s: A wave that cannot be judged at all for so long is paused.
        late_joiners: `follow` = a device that comes into the selection later gets its wave like all others; `ignore` = it is left out.
        emergency: Windows do not hold it, and it comes before other rollouts. Waves and evidence stay.
        gates: Comparisons of what the model does on devices, which may pause the rollout.
        confirm: When a person is asked although no gate is against going on: `never`, after the `first-wave`, at each `failure`, or
            `first-wave-and-failure`. None: without `waves` and by the posterior rule `first-wave-and-failure` below 10 devices,
            `failure` below 30; else never.
        notes: Sentences for the page.
        on_conflict: Another rollout of the model owns some of the devices: `refuse` = nothing is created; `queue` = it starts once they
            are free; `supersede` = its start ends the other one.
        on_late_evidence: Failures after the completion: `draft` = a rollback is drafted; `start` = it starts by itself once the evidence
            is there; `ignore` = they are only shown.
        activation_gap_s: A device is changed once in so long (twice in an emergency). None: a day; under `unanimous` no limit.
        baseline: Release id for devices that have no completed release to go back to. None: they keep what they run.
    """

    name: str
    waves: tuple[int | str, ...] = ()
    soak_s: float
    soak_rows: int
    deadline_s: float
    hold_s: float
    evidence: str = "unanimous"
    dwell_s: float | tuple[float, ...] = 0.0
    approvals: int = 0
    on_abort: OnAbort = "stop"
    max_explicit_failures_before_abort: int = 1
    trial: TrialRules = msgspec.field(default_factory=TrialRules)
    notes: tuple[str, ...] = ()
    rule: RuleLimits = RuleLimits()
    strata: tuple[str, ...] | None = None
    per_stratum: int | None = None
    least_first_wave: int | None = None
    hold_back: HoldBack = HoldBack()
    rate: Rate | None = None
    pace: Pace = Pace()
    rest_s: float | None = None
    windows: tuple[Window, ...] = ()
    site_budget: int | None = None
    patience_s: float | None = None
    stall_s: float = 7 * 86_400.0
    late_joiners: Literal["follow", "ignore"] = "follow"
    emergency: bool = False
    gates: GateRules = GateRules()
    confirm: Confirm | None = None
    on_conflict: OnConflict = "refuse"
    on_late_evidence: OnLateEvidence = "draft"
    activation_gap_s: float | None = None
    baseline: str | None = None

    def __post_init__(self) -> None:
        if not 0 < len(self.name) <= 120:
            raise ConfigError(f"name has {len(self.name)} characters; use 1 to 120")
        if self.evidence not in EVIDENCE:
            remedy = f"use one of {', '.join(EVIDENCE)}"
            raise ConfigError(f"evidence = {self.evidence[:40]!r} is unknown{did_you_mean(self.evidence, EVIDENCE)}; {remedy}")
        check_seconds("soak_s", self.soak_s)
        check_whole("soak_rows", self.soak_rows)
        check_seconds("deadline_s", self.deadline_s, least=1.0)
        check_seconds("hold_s", self.hold_s, least=1.0)
        _check_dwells(self)
        check_whole("approvals", self.approvals, most=MAX_APPROVALS)
        check_whole("max_explicit_failures_before_abort", self.max_explicit_failures_before_abort, most=1_000_000)
        if len(self.notes) > MAX_NOTES or any(len(note) > 500 for note in self.notes):
            raise ConfigError(f"notes: at most {MAX_NOTES} sentences of 500 characters")
        if self.activation_gap_s is not None:
            check_seconds("activation_gap_s", self.activation_gap_s)
        if self.baseline is not None:
            _check_id("baseline", self.baseline)
        if self.evidence == "unanimous":
            _check_unanimous(self)
        else:
            _check_evidence(self)


def parse_policy(document: dict[str, Any]) -> Policy:
    """Read a policy from a parsed TOML or JSON document.

    Raises:
        ConfigError: An unknown or missing key, a value of the wrong kind or outside its limits.
    """
    if not isinstance(document, dict):
        raise ConfigError(f"policy: expected a table, found {type(document).__name__}")
    refuse_unknown("policy", document, Policy)
    tables: dict[str, type[msgspec.Struct]] = {"trial": TrialRules, "rule": RuleLimits, "hold_back": HoldBack, "rate": Rate, "pace": Pace}
    tables["gates"] = GateRules
    for name, struct in tables.items():
        table = document.get(name)
        if isinstance(table, dict):
            refuse_unknown(f"policy.{name}", table, struct)
    windows = document.get("windows")
    for window in windows if isinstance(windows, list) else ():
        if isinstance(window, dict):
            refuse_unknown("policy.windows", window, Window)
    try:
        policy = msgspec.convert(document, Policy)
    except msgspec.ValidationError as err:
        raise ConfigError(f"policy: {str(err)[:300]}") from err
    if policy.rate is not None:
        # Not where a stored policy is read: what is written without effect decides nothing.
        policy.rate.refuse_idle_keys()
    return policy


def policy_digest(policy: Policy) -> str:
    """Sha256 of the policy's canonical JSON: equal rules have equal digests.

    What only rollouts by evidence know is left out where nothing was said, so that policies written before there was any keep theirs.
    """
    rules = msgspec.to_builtins(policy)
    unsaid = {**_OF_EVIDENCE, **_OF_SEVERAL}
    said = {key: value for key, value in rules.items() if key not in unsaid or getattr(policy, key) != unsaid[key]}
    return sha256_hex(canonical_json(said))


def plan_waves(policy: Policy, devices: int) -> tuple[PlannedWave, ...]:
    """The waves that the policy itself names, over a selection of so many devices.

    >>> plan_waves(parse_policy({"name": "p", "waves": [1, 3, "100%"], "soak_s": 1, "soak_rows": 1, "deadline_s": 9, "hold_s": 9}), 8)
    (PlannedWave(devices=1, dwell_s=0.0), PlannedWave(devices=3, dwell_s=0.0), PlannedWave(devices=8, dwell_s=0.0))
    """
    dwells = policy.dwell_s if isinstance(policy.dwell_s, tuple) else (policy.dwell_s,) * len(policy.waves)
    return planned(policy.waves, dwells, devices)


def trial_for(policy: Policy, *, drifting: bool) -> TrialPolicy:
    """The trial that is sent to one device.

    Args:
        policy: The rollout's policy.
        drifting: Whether the device has an open drift alarm.
    """
    values = msgspec.structs.asdict(policy.trial)
    skip = values.pop("drifted_devices") == "skip" and drifting
    if skip:
        values |= {"min_agreement": None, "agreement_reason": "this device has an open drift alarm: its running model is known to be wrong"}
    return TrialPolicy(**values)


def _check_dwells(policy: Policy) -> None:
    dwells = policy.dwell_s if isinstance(policy.dwell_s, tuple) else (policy.dwell_s,)
    if isinstance(policy.dwell_s, tuple) and len(dwells) != len(policy.waves):
        raise ConfigError(f"dwell_s has {len(dwells)} numbers for {len(policy.waves)} waves; give one number, or one per wave")
    for dwell_s in dwells:
        check_seconds("dwell_s", dwell_s)


def _check_unanimous(policy: Policy) -> None:
    check_waves(policy.waves)
    for key, unsaid in _OF_EVIDENCE.items():
        if getattr(policy, key) != unsaid:
            raise ConfigError(f"{key} has no effect with evidence = 'unanimous'; leave it out, or use evidence = 'auto'")


def _check_id(name: str, value: str) -> None:
    try:
        check_id(value, name)
    except InputError as err:
        raise ConfigError(str(err)) from err


def _check_evidence(policy: Policy) -> None:
    if policy.waves:
        check_waves(policy.waves)
    if policy.waves and policy.dwell_s == 0.0:
        raise ConfigError(
            f"waves {list(policy.waves)} need dwell_s: a wave that closes at once sees no late failure; for example dwell_s = 86400, "
            "or one number per wave; without waves both are chosen by the size of the fleet"
        )
    strata = policy.strata or ()
    if len(strata) > MAX_STRATA or len(set(strata)) != len(strata):
        raise ConfigError(f"strata {list(strata)[:8]}: at most {MAX_STRATA} different label keys")
    for key in strata:
        _check_id("strata: label", key)
    for name, count, least in (
        ("per_stratum", policy.per_stratum, 0),
        ("least_first_wave", policy.least_first_wave, 1),
        ("site_budget", policy.site_budget, 1),
    ):
        check_whole(name, least if count is None else count, least=least)
    if policy.rest_s is not None:
        check_seconds("rest_s", policy.rest_s)
    if policy.patience_s is not None:
        check_seconds("patience_s", policy.patience_s)
    check_seconds("stall_s", policy.stall_s, least=1.0)
    if len(policy.windows) > MAX_WINDOWS:
        raise ConfigError(f"windows has {len(policy.windows)} entries, the limit is {MAX_WINDOWS}; join days that have the same hours")
    if policy.deadline_s <= policy.soak_s:
        raise ConfigError(
            f"deadline_s = {policy.deadline_s:g} must be more than soak_s = {policy.soak_s:g}: only signs of life after the soak count"
        )
