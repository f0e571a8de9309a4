"""Which shape, word and colour a state has: one table each, so that a word means the same on every screen.

Shapes carry the meaning without colour: ok solid, pending hollow with a dot, failed with a cross, silent with a bar, not begun hollow.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final, get_args

from fleet_server.read_drift import DriftDevice, DriftView, Histogram
from fleet_server.read_models import DeviceRow, Progress, RolloutView, Severity, Verdict, WaveView

PROGRESS: Final[tuple[Progress, ...]] = get_args(Progress)
LEGEND: Final[dict[Progress, str]] = {
    "ok": "committed, attested",
    "pending": "pending",
    "failed": "failed",
    "silent": "silent",
    "not-begun": "not begun",
}
# Worst first: the order of lists and of stacked bars.
WORST_FIRST: Final[tuple[Progress, ...]] = ("failed", "silent", "pending", "not-begun", "ok")

# Verdict -> (word, icon, colour class).
VERDICTS: Final[dict[Verdict, tuple[str, str, str]]] = {
    "promote": ("Promote", "promote", "ok"),
    "done": ("Done", "done", "ok"),
    "extend": ("Extend", "promote", "pending"),
    "hold": ("Hold", "hold", "pending"),
    "pause": ("Paused", "hold", "silent"),
    "abort": ("Abort", "abort", "failed"),
    "waiting": ("Waiting", "waiting", "not-begun"),
}
SEVERITIES: Final[dict[Severity, tuple[str, str, str]]] = {
    "halt": ("Halted", "abort", "failed"),
    "abort": ("Aborted", "abort", "failed"),
    "pause": ("Paused", "hold", "silent"),
    "approval": ("Approve", "done", "pending"),
    "drift": ("Drift", "drift", "silent"),
    "notice": ("Notice", "waiting", "not-begun"),
}
# Verdict of a gate that travelled with a bundle -> (word, icon, colour class).
BUNDLE_GATES: Final[dict[str, tuple[str, str, str]]] = {
    "pass": ("Pass", "promote", "ok"),
    "fail": ("Fail", "abort", "failed"),
    "inconclusive": ("Inconclusive", "hold", "pending"),
    "skipped": ("Skipped", "waiting", "not-begun"),
    "overridden": ("Overridden", "hand", "silent"),
}
DRIFT: Final[dict[str, tuple[str, str, str]]] = {
    "alarm": ("A", "alarm", "silent"),
    "watching": ("w", "watching", "pending"),
    "too-few": ("?", "too few data", "not-begun"),
    "quiet": ("\u2013", "no evidence of drift", "not-begun"),
}
MAX_QUIET: Final = 3
_UNDER_WAY: Final = frozenset({"downloading", "verified", "self-test", "trial"})
_FAILED: Final = frozenset({"rolled-back", "refused", "quarantined"})


def device_shape(device: DeviceRow) -> Progress:
    """The shape of a device in a list: failed first, because a silent device that failed before has failed."""
    if device.state in _FAILED:
        return "failed"
    if not device.connected:
        return "not-begun" if device.last_seen_at is None else "silent"
    if device.state in _UNDER_WAY:
        return "pending"
    if device.running_digest and device.running_digest == device.attested_digest:
        return "ok"
    return "pending" if device.desired_digest else "not-begun"


def device_word(device: DeviceRow) -> str:
    """The state of a device in one word; silence is never called unknown."""
    shape = device_shape(device)
    if shape == "silent":
        return "silent"
    if shape == "not-begun":
        return "never reported" if device.last_seen_at is None else "idle"
    return device.state.replace("-", " ")


def count_progress(states: Iterable[Progress]) -> dict[Progress, int]:
    """Counts by state, every state named."""
    counts = Counter(states)
    return {state: counts[state] for state in LEGEND}


def wave_counts(wave: WaveView) -> dict[Progress, int]:
    """Counts by state of one wave, every state named: those that the server made, else those of its members."""
    if wave.counts:
        return {state: wave.counts.get(state, 0) for state in LEGEND}
    return count_progress(member.progress for member in wave.members)


def rollout_counts(rollout: RolloutView) -> dict[Progress, int]:
    """Counts by state over all waves."""
    counted = [wave_counts(wave) for wave in rollout.waves]
    return {state: sum(counts[state] for counts in counted) for state in LEGEND}


def counts_in_words(counts: dict[Progress, int]) -> str:
    """`3 committed, attested; 1 failed`; states without a device are left out."""
    said = [f"{counts[state]:,} {word}" for state, word in LEGEND.items() if counts.get(state)]
    return "; ".join(said) or "no device"


def moved_inputs(drift: DriftView, most: int) -> Sequence[tuple[str, str, Histogram]]:
    """(device, state, histogram) of the inputs that moved, alarms first; of a quiet fleet the first ones."""
    states = {(device.device_id, found.feature): found.state for device in drift.devices for found in device.features}
    drawn = [(device_id, states.get((device_id, one.feature), "quiet"), one) for device_id, one in drift.histograms]
    moved = [item for state in ("alarm", "watching") for item in drawn if item[1] == state]
    return (moved or drawn[:MAX_QUIET])[:most]


def drifting_features(devices: Sequence[DriftDevice], most: int) -> tuple[list[str], int]:
    """The inputs with the largest evidence on any device, and how many inputs there are in all."""
    best: dict[str, float] = {}
    for device in devices:
        for feature in device.features:
            best[feature.feature] = max(best.get(feature.feature, 0.0), feature.evidence)
    ranked = sorted(best, key=lambda name: (-best[name], name))
    return ranked[:most], len(best)


def worst_states(devices: Sequence[DriftDevice]) -> dict[str, str]:
    """The gravest drift state of each input on any device; a device with too few data says nothing where another has enough."""
    order = ("alarm", "watching", "quiet", "too-few")
    worst: dict[str, str] = {}
    for device in devices:
        for found in device.features:
            worst[found.feature] = min(worst.get(found.feature, order[-1]), found.state, key=order.index)
    return worst
