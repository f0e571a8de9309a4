"""What a run leaves for its report, its comparison and its replay: plain values only."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np

from edgefleet.digests import sha256_hex
from edgefleet.manifest import Override
from trainer.dataset import SPLITS, DataSet
from trainer.metrics import METRICS
from trainer.project import Project
from trainer.runs import Run
from trainer.validated import Validated

MOST_NAMED: Final = 20
SECTIONS: Final = ("slices", "calibration", "confusion", "residuals", "errors")  # of an evaluation, which a report shows


def start_report(project: Project, run: Run, rows: DataSet) -> dict[str, Any]:
    """The goal and the rows: what every report begins with, whatever happens later."""
    goal = project.goal
    return {
        "id": run.id,
        "project": project.name,
        "started_at": run.record["started_at"],
        "goal": project.tables()["goal"],
        "question": goal.question,
        "task": goal.task,
        "metric": goal.metric,
        "minimum": goal.minimum,
        "maximum": goal.maximum,
        "data": data_note(project, rows),
    }


def data_note(project: Project, rows: DataSet) -> dict[str, Any]:
    """What the rows were, as `trainer.report.notes.DataNote`."""
    classes: dict[str, dict[str, int]] = {}
    for index, name in enumerate(rows.classes):
        classes[name] = {split: int(((rows.label == index) & (rows.split == split)).sum()) for split in SPLITS}
    return {
        "source": project.data.source,
        "rows": len(rows),
        "breaches": rows.breaches,
        "named_breaches": rows.named_breaches,
        "inputs": len(project.inputs),
        "splits": {split: int((rows.split == split).sum()) for split in SPLITS},
        "method": project.data.splits.method,
        "groups": None if rows.group is None else len(np.unique(rows.group)),
        "classes": classes,
        "digest": rows.digest,
        "window_rows": rows.x.shape[1] if rows.x.ndim == 3 else 1,
    }


def answer_notes(project: Project, evaluation: dict[str, Any]) -> dict[str, Any]:
    """Slices, calibration, errors and robustness of an evaluation as a report's record names them."""
    better = 1 if METRICS[project.goal.metric].greater_is_better else -1
    clean = evaluation["metrics"].get(project.goal.metric, {}).get("value")
    notes = {name: evaluation[name] for name in SECTIONS if evaluation.get(name) is not None}
    notes["robustness"] = [
        # What the report shows beside the drop is the metric itself under the disturbance.
        {**one, "value": None if one["drop"] is None or clean is None else clean - better * one["drop"]}
        for one in evaluation.get("robustness", [])
    ]
    return notes


def report_candidates(report: dict[str, Any], project: Project, validated: Sequence[Validated], baselines: Sequence[Validated]) -> None:
    """Baselines and candidates, and in words which of them does not beat the best baseline."""
    report["baselines"] = [{"name": b.name, **_four(b.metric), "seconds": b.seconds} for b in baselines]
    better = METRICS[project.goal.metric].greater_is_better
    values = [b.metric["value"] for b in baselines if b.metric["value"] is not None]
    best = (max(values) if better else min(values)) if values else None
    candidates = []
    for one in validated:
        value = one.metric["value"]
        beaten = None if best is None or value is None else bool(value > best if better else value < best)
        candidates.append(
            {
                "name": one.name,
                **_four(one.metric),
                "seconds": one.seconds,
                "gates": [msgspec.to_builtins(gate) for gate in one.gates],
                "baseline_beaten": beaten,
                "size_bytes": one.fitted.size_bytes,
                "latency_us": one.fitted.latency_us,
            }
        )
        if beaten is False:
            report.setdefault("remarks", []).append(f"{one.name} does not beat the best baseline ({project.goal.metric} {best:.4g}).")
    report["candidates"] = candidates
    report["trials"] = {one.name: one.trials for one in validated if one.trials}


def report_winner(project: Project, run: Run, winner: Validated, test: dict[str, Any], packages: dict[str, str]) -> None:
    """Everything about the winner; slices, calibration and errors are those of the validation rows."""
    report, found = run.record["report"], winner.evaluation
    for candidate in report["candidates"]:
        candidate["package"] = packages.get(candidate["name"], "")
    report |= {
        "winner": winner.name,
        "metrics": {"validation": found["metrics"], "test": test["metrics"]},
        "curves": winner.fitted.curve,
        "overrides": [{"gate": override.gate, "reason": override.reason} for override in winner.overrides],
        "importance": _importance(winner),
        "provenance": {
            "parameters": winner.fitted.parameters,
            "versions": winner.fitted.versions,
            "project_digest": project.digest,
            "environment": run.record["environment"],
            "git": run.record.get("git"),
        },
    }
    report |= answer_notes(project, found)
    if (chosen := winner.decision.get("chosen")) is not None:
        costs = {key: chosen[key] for key in ("false_positive", "false_negative")}
        report["threshold"] = {"value": chosen["threshold"], "costs": costs, "curve": chosen["curve"]}


def note_of(one: Validated) -> dict[str, Any]:
    """A candidate in run.json, small enough to compare and to replay."""
    return {
        "metric": one.metric,
        "metrics": one.evaluation["metrics"],
        "parameters": one.fitted.parameters,
        "versions": one.fitted.versions,
        "family": one.fitted.family,
        "model": one.fitted.model,
        "model_digest": sha256_hex(one.fitted.content),
        "steps_digest": sha256_hex(one.steps.to_json()),
        "decision": {key: value for key, value in one.decision.items() if key != "chosen"},
        "gates": [msgspec.to_builtins(gate) for gate in one.gates],
        "overrides": [_override(override) for override in one.overrides],
        "trials": one.trials,
        "seconds": one.seconds,
    }


def _importance(winner: Validated) -> list[dict[str, Any]]:
    shares = winner.fitted.importance
    names = winner.steps.names
    if shares is None or len(names) != len(shares):
        return []
    order = np.argsort(-shares, kind="stable")[:MOST_NAMED]
    return [{"name": names[i], "share": float(shares[i])} for i in order]


def _four(metric: dict[str, Any]) -> dict[str, Any]:
    return {key: metric.get(key) for key in ("value", "low", "high", "n")}


def _override(override: Override) -> dict[str, str]:
    return {"gate": override.gate, "reason": override.reason}
