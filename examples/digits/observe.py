"""What the demo looks at: answers of the API, condensed. Every function returns None or an empty value while there is nothing to see."""

import statistics
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from examples.digits import scans
from examples.digits.children import run_tool
from examples.digits.fleet import HERE, Fleet

EVALUATION_ROWS: Final = 400
_SHADES: Final = " .:-=+*#%@"


def run_json(folder: Path, label: str, *arguments: str) -> dict[str, Any]:
    """Run `edgefleet ... --json`, log into the demo's folder, return the document."""
    document = run_tool(folder / "logs" / f"{label}.log", *arguments)
    return dict(document)


def policy() -> dict[str, Any]:
    """The demo's declared rollout policy."""
    return tomllib.loads((HERE / "policy.toml").read_text())


def variant_cells(candidate: str, variant: Mapping[str, Any]) -> list[object]:
    """One line of the conversion table."""
    latency_us = variant["latency_p50_ms"] * 1000 if variant["latency_p50_ms"] is not None else None
    cells = [f"{variant['size_bytes'] / 1000:.1f}", f"{variant['agreement']:.4f}", f"{variant['value']:.4f}"]
    return [candidate, variant["name"], *cells, None if latency_us is None else f"{latency_us:.0f}", variant["verdict"]]


def device_cells(device: Mapping[str, Any]) -> list[object]:
    """One line of the summary."""
    attested = "yes" if device["attested_digest"] == device["running_digest"] else "no"
    return [device["device_id"], device["labels"].get("site", ""), device["running_release"], attested, device["rows_total"]]


def all_connected(fleet: Fleet) -> bool:
    """Whether every device is connected."""
    return sum(bool(d["connected"]) for d in fleet.client.devices()) == len(fleet.device_ids)


def runs_everywhere(fleet: Fleet, digest: str) -> bool:
    """Whether every device says, and has attested, that it runs this bundle."""
    devices = fleet.client.devices()
    return all(d["running_digest"] == digest == d["attested_digest"] for d in devices)


def quarantined_on(fleet: Fleet, digest: str) -> list[str]:
    """Devices that refuse this bundle for good."""
    return [d["device_id"] for d in fleet.client.devices() if digest in d["quarantined"]]


def telemetry(fleet: Fleet) -> dict[str, dict[str, Any]] | None:
    """Rows and latency per device, once every device has sent both."""
    devices = fleet.client.devices()
    if any(d["rows_total"] == 0 or d["latency_p50_ms"] is None for d in devices):
        return None
    return {d["device_id"]: {"rows": d["rows_total"], "latency_p50_ms": d["latency_p50_ms"]} for d in devices}


def median_latency_ms(devices: Mapping[str, Mapping[str, Any]]) -> float:
    """Median over the devices of their median latency."""
    return statistics.median(float(figures["latency_p50_ms"]) for figures in devices.values())


def baselines(fleet: Fleet, project: str) -> bool:
    """Whether every device's own baseline is complete (its state says `quiet`, not `watching`).

    Rounds count here, not windows: a round may merge several windows, and a fault that begins inside the baseline becomes part of it.
    """
    view = fleet.client.drift(project)
    devices = view["devices"] if view else []
    return len(devices) == len(fleet.device_ids) and all(d["state"] == "quiet" for d in devices)


def alarmed(fleet: Fleet, project: str, at_least: int) -> dict[str, list[str]] | None:
    """Features named per alarmed device, once there are at least so many devices."""
    view = fleet.client.drift(project)
    found = {
        d["device_id"]: [f["feature"] for f in d["features"] if f["state"] == "alarm"]
        for d in (view["devices"] if view else [])
        if d["alarmed_at"] is not None
    }
    return found if len(found) >= at_least else None


def drift_in_words(fleet: Fleet, project: str) -> str:
    """Every device's drift state, for the message of a step that failed."""
    view = fleet.client.drift(project)
    devices = view["devices"] if view else []
    return ", ".join(f"{d['device_id']} {d['state']} after {d['windows']} windows" for d in devices) or "no device has a drift state"


def no_alarm(fleet: Fleet, project: str) -> bool:
    """Whether no device is alarmed any more."""
    view = fleet.client.drift(project)
    return view is not None and all(d["alarmed_at"] is None for d in view["devices"])


def explanation(fleet: Fleet, project: str) -> dict[str, Any] | None:
    """The latest explanation that a device sent."""
    found = fleet.client.explanations(project)
    return dict(found[0]) if found else None


def heat_map(contributions: list[float]) -> str:
    """Contributions as 8 x 8 characters: darker speaks louder for the answer, `x` marks pixels that speak against it."""
    values = np.array(contributions).reshape(8, 8)
    top = max(float(np.abs(values).max()), 1e-9)
    lines = []
    for row in values:
        line = ("x" if v < -top / 5 else _SHADES[min(int(max(v, 0) / top * 9.99), 9)] for v in row)
        lines.append("  ".join(line))
    return "\n".join(lines)


def accuracies(made: Mapping[str, dict[str, Any]], situations: list[str], seed: int) -> dict[str, dict[str, float]]:
    """Accuracy of bundles on freshly drawn labelled rows, by the device's own scorer: {situation: {name: accuracy}}."""
    from device_agent import Scorer

    answers: dict[str, dict[str, float]] = {situation: {} for situation in situations}
    for name, document in made.items():
        scorer = Scorer.open(document["convert"]["bundle"])
        for situation in situations:
            x, labels = scans.traffic(seed=seed + 7, device_index=0, devices=1, rows=EVALUATION_ROWS, situation=situation)
            scored = scorer.score_batch(x)
            answers[situation][name] = float(np.mean(np.asarray(scored.label, dtype=str) == np.asarray(labels, dtype=str)))
        scorer.close()
    return answers
