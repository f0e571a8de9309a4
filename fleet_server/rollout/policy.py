"""The policy of a rollout: waves, soak, deadlines, trial; every limit is checked when it is created, none when it is used."""

import difflib
import itertools
import math
from typing import Any, Final, Literal

import msgspec

from edgefleet.desired import TrialPolicy
from edgefleet.digests import canonical_json, sha256_hex
from edgefleet.errors import ConfigError

MAX_SECONDS: Final = 366 * 86_400.0
MAX_WAVES: Final = 64
MAX_NOTES: Final = 16
_EVIDENCE: Final = ("unanimous",)
_PLANNED_EVIDENCE: Final = ("bound", "posterior")


class TrialRules(TrialPolicy, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The trial on a device, and what it means for a device whose inputs drift.

    Attributes:
        drifted_devices: `compare` = like all others; `skip` = a device with an open drift alarm is tried without the agreement
            comparison, because its running model is the one that is known to be wrong.
    """

    drifted_devices: Literal["compare", "skip"] = "compare"

    def __post_init__(self) -> None:
        _seconds("trial.soak_s", self.soak_s)
        _seconds("trial.timeout_s", self.timeout_s, least=1.0)
        _whole("trial.soak_rows", self.soak_rows)
        _whole("trial.agreement_rows", self.agreement_rows, least=1)
        _whole("trial.attempts", self.attempts, least=1, most=100)
        if self.timeout_s <= self.soak_s:
            raise ConfigError(f"trial.timeout_s = {self.timeout_s:g} must be more than trial.soak_s = {self.soak_s:g}")
        if self.min_agreement is None and not self.agreement_reason:
            raise ConfigError("trial.min_agreement is off: say why in trial.agreement_reason")
        if self.min_agreement is not None and not 0 < self.min_agreement <= 1:
            raise ConfigError(f"trial.min_agreement = {self.min_agreement:g} is no share above 0 and up to 1")


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a release goes through a fleet.

    Attributes:
        name: For people.
        waves: Cumulative: device counts, then percentages "N%" of the selection; the last one is "100%".
        soak_s: Least seconds that a device runs the release, after its commit, before it counts.
        soak_rows: Least rows that it scores in that time.
        deadline_s: A device that began and gives no sign of life for so long is silent.
        hold_s: A wave that holds longer than its dwell plus this is paused for a person.
        evidence: The rule; `unanimous` = every device of the open waves is ok.
        dwell_s: Least seconds that a wave stays open before the next: one number, or one per wave.
        approvals: People who must approve before the start; this version knows 0 only.
        on_abort: `stop` = devices that are ok keep the release; `roll-back` = all go back.
        max_explicit_failures_before_abort: So many failures pause the rollout, one more aborts it.
        trial: What happens on the device.
        notes: Sentences for the page.
    """

    name: str
    waves: tuple[int | str, ...]
    soak_s: float
    soak_rows: int
    deadline_s: float
    hold_s: float
    evidence: str = "unanimous"
    dwell_s: float | tuple[float, ...] = 0.0
    approvals: int = 0
    on_abort: Literal["stop", "roll-back"] = "stop"
    max_explicit_failures_before_abort: int = 1
    trial: TrialRules = msgspec.field(default_factory=TrialRules)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < len(self.name) <= 120:
            raise ConfigError(f"name has {len(self.name)} characters; use 1 to 120")
        if self.evidence in _PLANNED_EVIDENCE:
            raise ConfigError(f"evidence = {self.evidence!r} is not in this version; use 'unanimous'")
        if self.evidence not in _EVIDENCE:
            raise ConfigError(f"evidence = {self.evidence[:40]!r} is unknown{did_you_mean(self.evidence, _EVIDENCE)}; use 'unanimous'")
        _check_waves(self.waves)
        _seconds("soak_s", self.soak_s)
        _whole("soak_rows", self.soak_rows)
        _seconds("deadline_s", self.deadline_s, least=1.0)
        _seconds("hold_s", self.hold_s, least=1.0)
        dwells = self.dwell_s if isinstance(self.dwell_s, tuple) else (self.dwell_s,)
        if isinstance(self.dwell_s, tuple) and len(dwells) != len(self.waves):
            raise ConfigError(f"dwell_s has {len(dwells)} numbers for {len(self.waves)} waves; give one number, or one per wave")
        for dwell_s in dwells:
            _seconds("dwell_s", dwell_s)
        if self.approvals != 0:
            raise ConfigError(f"approvals = {self.approvals} is not in this version; use 0")
        _whole("max_explicit_failures_before_abort", self.max_explicit_failures_before_abort, most=1_000_000)
        if len(self.notes) > MAX_NOTES or any(len(note) > 500 for note in self.notes):
            raise ConfigError(f"notes: at most {MAX_NOTES} sentences of 500 characters")


class PlannedWave(msgspec.Struct, frozen=True):
    """One wave over a selection of known size.

    Attributes:
        devices: Cumulative number of devices.
        dwell_s: Least seconds it stays open.
    """

    devices: int
    dwell_s: float


def parse_policy(document: dict[str, Any]) -> Policy:
    """Read a policy from a parsed TOML or JSON document.

    Raises:
        ConfigError: An unknown or missing key, a value of the wrong kind or outside its limits.
    """
    if not isinstance(document, dict):
        raise ConfigError(f"policy: expected a table, found {type(document).__name__}")
    _refuse_unknown("policy", document, Policy)
    trial = document.get("trial")
    if isinstance(trial, dict):
        _refuse_unknown("policy.trial", trial, TrialRules)
    try:
        return msgspec.convert(document, Policy)
    except msgspec.ValidationError as err:
        raise ConfigError(f"policy: {str(err)[:300]}") from err


def policy_digest(policy: Policy) -> str:
    """Sha256 of the policy's canonical JSON: equal rules have equal digests."""
    return sha256_hex(canonical_json(msgspec.to_builtins(policy)))


def plan_waves(policy: Policy, devices: int) -> tuple[PlannedWave, ...]:
    """The waves over a selection of so many devices; waves that would add nobody are merged into the one before (longest dwell wins).

    >>> plan_waves(parse_policy({"name": "p", "waves": [1, 3, "100%"], "soak_s": 1, "soak_rows": 1, "deadline_s": 9, "hold_s": 9}), 8)
    (PlannedWave(devices=1, dwell_s=0.0), PlannedWave(devices=3, dwell_s=0.0), PlannedWave(devices=8, dwell_s=0.0))
    """
    planned: list[PlannedWave] = []
    for number, wave in enumerate(policy.waves):
        dwell_s = policy.dwell_s[number] if isinstance(policy.dwell_s, tuple) else policy.dwell_s
        count = min(wave if isinstance(wave, int) else -(-devices * int(wave[:-1]) // 100), devices)
        if planned and count <= planned[-1].devices:
            planned[-1] = PlannedWave(planned[-1].devices, max(planned[-1].dwell_s, dwell_s))
        elif count > 0:
            planned.append(PlannedWave(count, float(dwell_s)))
    return tuple(planned)


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


def did_you_mean(word: str, known: tuple[str, ...]) -> str:
    """` (did you mean 'x'?)` or nothing."""
    near = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _refuse_unknown(where: str, table: dict[str, Any], struct: type[msgspec.Struct]) -> None:
    known = struct.__struct_fields__
    for key in table:
        if key not in known:
            raise ConfigError(f"{where}: unknown key {str(key)[:60]!r}{did_you_mean(str(key), known)}; known: {', '.join(sorted(known))}")


def _check_waves(waves: tuple[int | str, ...]) -> None:
    if not 0 < len(waves) <= MAX_WAVES:
        raise ConfigError(f"waves has {len(waves)} entries; use 1 to {MAX_WAVES}, for example [1, 3, '100%']")
    counts = [wave for wave in waves if isinstance(wave, int)]
    percents = [_percent(wave) for wave in waves if isinstance(wave, str)]
    if any(isinstance(wave, int) for wave in waves[len(counts) :]):
        raise ConfigError(f"waves {list(waves)}: device counts come first, percentages after them")
    if any(count < 1 for count in counts):
        raise ConfigError(f"waves {list(waves)}: a wave of {min(counts)} devices is empty; use 1 or more")
    rising = all(a < b for row in (counts, percents) for a, b in itertools.pairwise(row))
    if not rising:
        raise ConfigError(f"waves {list(waves)} do not increase: they are cumulative, each one includes the one before")
    if not percents or percents[-1] != 100:
        raise ConfigError(f"waves {list(waves)} do not cover the selection: the last one must be '100%'")


def _percent(wave: str) -> int:
    digits = wave[:-1]
    if not (wave.endswith("%") and digits.isascii() and digits.isdigit() and len(digits) <= 3 and 1 <= int(digits) <= 100):
        raise ConfigError(f"wave {wave[:40]!r} is neither a device count nor a whole percentage from '1%' to '100%'")
    return int(digits)


def _seconds(name: str, value: float, least: float = 0.0) -> None:
    if not (math.isfinite(value) and least <= value <= MAX_SECONDS):
        raise ConfigError(f"{name} = {value:g} is outside {least:g} to {MAX_SECONDS:g} seconds")


def _whole(name: str, value: int, least: int = 0, most: int = 1_000_000_000) -> None:
    if not least <= value <= most:
        raise ConfigError(f"{name} = {value} is outside {least} to {most}")
