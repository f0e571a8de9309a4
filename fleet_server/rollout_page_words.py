"""What docs/rollout.md says of a policy's keys and of the gates; tests ask the policy and the gates for each line."""

from typing import Final

_YEAR_S: Final = 366 * 86_400.0
_MANY: Final = 1_000_000_000
# Key -> least and most that is accepted; a test asks the policy for both and for what lies beyond.
LIMITS: Final[dict[str, tuple[float, float]]] = {
    "soak_s": (0, _YEAR_S),
    "soak_rows": (0, _MANY),
    "deadline_s": (1, _YEAR_S),
    "hold_s": (1, _YEAR_S),
    "approvals": (0, 5),
    "max_explicit_failures_before_abort": (0, 1_000_000),
    "trial.soak_s": (0, _YEAR_S),
    "trial.soak_rows": (0, _MANY),
    "trial.timeout_s": (1, _YEAR_S),
    "trial.agreement_rows": (1, _MANY),
    "trial.attempts": (1, 100),
    "rule.lean": (1, 10),
    "rule.extends": (0, 10),
    "gates.rows": (1, 1_000_000),
    "gates.labelled_rows": (1, 1_000_000),
    "gates.before_s": (1, _YEAR_S),
    "gates.wait_s": (1, _YEAR_S),
    "gates.label_wait_s": (0, _YEAR_S),
    "per_stratum": (0, _MANY),
    "least_first_wave": (1, _MANY),
    "hold_back.fraction": (0, 0.5),
    "site_budget": (1, _MANY),
    "rest_s": (0, _YEAR_S),
    "patience_s": (0, _YEAR_S),
    "activation_gap_s": (0, _YEAR_S),
    "stall_s": (1, _YEAR_S),
    "rate.factor": (1, 100),
    "pace.growth": (1.01, 2),
}
# Key -> range without its ends: above the first, below or at most the second.
OPEN: Final[dict[str, tuple[float, float, bool]]] = {
    "trial.min_agreement": (0, 1, True),
    "rule.limit": (0, 1, False),
    "rule.abort_at": (1, 1e9, True),
    "rule.warn_at": (1, 1e9, True),
    "rule.confidence": (0, 1, False),
    "rule.promote_below": (0, 1, False),
    "rule.extend_below": (0, 1, False),
}
# What is said of other keys; a test asks the policy for a value of each that it must refuse.
SAID: Final[dict[str, str]] = {
    "name": "1 to 120 characters",
    "waves": "1 to 64 rising entries",
    "evidence": "unanimous, bound, posterior, auto",
    "dwell_s": "0 to 31,622,400 each",
    "on_abort": "stop, wave, roll-back, keep",
    "notes": "at most 16 of 500 characters",
    "trial.drifted_devices": "compare, skip",
    "rule.warn_limit": "above 0 to `rule.limit`",
    "strata": "at most 4 label keys",
    "hold_back.least": "at least 0",
    "hold_back.large_site": "at least 1",
    "hold_back.smallest_fleet": "at least 1",
    "rate.kind": "constant, linear, exponential",
    "rate.per_hour": "above 0",
    "rate.step_per_hour": "at least 0",
    "rate.most_per_hour": "at least `rate.per_hour`",
    "rate.backward": "true, false",
    "pace.first": "at least 1",
    "pace.every_s": "above 0",
    "windows": "at most 21",
    "windows.days": "mon, tue, wed, thu, fri, sat, sun",
    "windows.start": "00:00 to 23:59",
    "windows.end": "00:00 to 24:00",
    "gates.compare": "names of comparisons, each once",
    "late_joiners": "follow, ignore",
    "confirm": "never, first-wave, failure, first-wave-and-failure",
    "on_conflict": "refuse, queue, supersede",
    "on_late_evidence": "draft, start, ignore",
    "baseline": "id of a release",
    "emergency": "true, false",
}
# Gate -> (what it asks, words that it can say); a test makes it say each of them, and finds no other.
GATES: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "facts": ("Can the facts of every device be read?", ("promote", "pause")),
    "stop": (
        "Is the evidence against the release enough to end it? Failures by stratum and in all, and silence beyond what controls show.",
        ("promote", "pause", "abort"),
    ),
    "early warning": ("Is there early evidence against a lower limit?", ("promote", "pause")),
    "sites": ("Do whole sites go dark soon after their first device?", ("promote", "hold", "pause")),
    "comparisons": ("Does the model do something else than the one before, on the same devices?", ("promote", "hold", "pause")),
    "time": ("Have enough devices begun, dwelled, and had their deadline?", ("promote", "hold")),
    "confirmation": (
        "Has a person looked at what the policy asks her to look at? (Only where it asks: `confirm`.)",
        ("promote", "pause"),
    ),
    "evidence": (
        "Do devices whose time is over show that failures and missing devices are within the limit?",
        ("promote", "extend", "hold", "pause"),
    ),
}
WORDS: Final = {
    "abort": "ends the rollout; devices that are not ok go back, or those that the policy says (`on_abort`)",
    "pause": "no further device begins until a person decides",
    "hold": "not enough is known yet; nothing new begins beyond the batches of the open wave",
    "extend": "the wave grows, because more devices can tell what these cannot",
    "promote": "nothing against going on; a wave is promoted when every gate says so",
}
