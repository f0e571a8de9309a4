"""An invented run's record with every section, and its rows as a data set."""

from pathlib import Path
from typing import Any

import numpy as np

from trainer.dataset import DataSet
from trainer.project import Project, load_project

EVIL = "<script>alert('x')</script>"


def full_record() -> dict[str, Any]:
    """A run in which everything was recorded; texts from outside hold a script."""
    measure = {"value": 0.91, "low": 0.88, "high": 0.93, "n": 600}
    gates = [
        {"gate": "G1", "verdict": "pass", "sentence": "All 2000 rows obey the schema.", "value": 0, "limit": 0, "n": 2000},
        {
            "gate": "G5",
            "verdict": "inconclusive",
            "sentence": "Line B has too few rows.",
            "value": 0.8,
            "limit": 0.8,
            "n": 31,
            "low": 0.6,
            "high": 0.9,
        },
        {
            "gate": "G4",
            "verdict": "fail",
            "sentence": f"auc is below the minimum {EVIL}.",
            "value": 0.91,
            "limit": 0.95,
            "n": 600,
            "low": 0.89,
        },
        {"gate": "G7", "verdict": "skipped", "sentence": "First: there is no champion."},
    ]
    trials = [
        {"number": i, "value": 0.8 + 0.01 * i, "state": "complete", "seconds": 1.5, "parameters": {"depth": i + 1, EVIL: "a"},
         "size_bytes": 1000.0 * (i + 1) ** 3, "latency_us": 5.0 * (i + 1), "pareto": i in (0, 5)}
        for i in range(6)
    ]  # fmt: skip
    return {
        "id": "r-1", "project": f"press {EVIL}", "started_at": "2026-01-02T03:04:05Z", "seconds": 83.2,
        "goal": {"question": f"Will it break? {EVIL}", "metric": "auc", "minimum": 0.95, "task": "classification"},
        "verdict": "refused", "reason": f"G4 says no {EVIL}",
        "data": {"source": f"rows.csv {EVIL}", "rows": 2000, "breaches": 2, "named_breaches": [f"row 7 {EVIL}"], "inputs": 4,
                 "splits": {"train": 1000, "validation": 600, "test": 400}, "method": "group", "groups": 40,
                 "classes": {f"broken {EVIL}": {"train": 100, "validation": 60}, "fine": {"train": 900, "validation": 540}},
                 "digest": "ab" * 32, "window_rows": 8},
        "baselines": [{"name": "majority", "value": 0.5, "low": 0.5, "high": 0.5, "n": 600, "seconds": 0.0}],
        "candidates": [{"name": "forest", **measure, "seconds": 12.0, "gates": gates, "baseline_beaten": True,
                        "size_bytes": 1e6, "latency_us": 61.0},
                       {"name": f"dense {EVIL}", "failed": f"loss was not finite {EVIL}", "baseline_beaten": False}],
        "trials": {f"forest {EVIL}": trials}, "winner": "forest",
        "metrics": {"validation": {"auc": measure, "log_loss": {"value": 1.4, "low": 1.2, "high": 1.6, "n": 600}},
                    "test": {"auc": measure}},
        "slices": [{"column": "line", "name": f"B {EVIL}", "n": 31, "value": 0.8, "low": 0.6, "high": 0.9, "verdict": "fail"}],
        "calibration": {"ece": 0.02, "z": -2.5, "slope": 1.1, "intercept": 0.0,
                        "bins": [{"low": 0, "high": 0.5, "n": 30, "confidence": 0.2, "share": 0.25, "share_low": 0.1, "share_high": 0.4},
                                 {"low": 0.5, "high": 1, "n": 40, "confidence": 0.8, "share": 0.7, "share_low": 0.6, "share_high": 0.8}]},
        "threshold": {"value": 0.23, "costs": {"broken": {"fine": 5.0}}, "curve": [[0.1, 0.5], [0.23, 0.2], [0.9, 0.8]]},
        "confusion": {"classes": [f"broken {EVIL}", "fine"], "counts": [[50, 10], [30, 510]]},
        "residuals": {"predicted": [1.0, 2.0, 3.5], "actual": [1.1, 1.9, 3.0]},
        "curves": [{"step": 1, "loss": 0.9, "validation": 1.0}, {"step": 2, "loss": 0.5, "validation": 0.7}],
        "errors": [{"row_id": f"r7 {EVIL}", "label": "broken", "answer": "fine", "score": 0.01,
                    "inputs": {f"load {EVIL}": None, "speed": 3.25}}],
        "importance": [{"name": f"load {EVIL}", "share": 0.7, "low": 0.6, "high": 0.8}, {"name": "speed", "share": 0.3}],
        "robustness": [{"kind": "noise", "value": 0.9, "drop": 0.01, "upper": 0.02, "limit": 0.05, "verdict": "pass"}],
        "budgets": [{"name": "size", "value": 1e6, "limit": 5e6, "unit": "bytes", "verdict": "pass"}],
        "overrides": [{"gate": "G3", "reason": f"known {EVIL}"}],
        "provenance": {"versions": {"numpy": "2.0"}, "commit": "abc", "dirty": False}, "reproduce": "edgefleet train press --replay r-1",
    }  # fmt: skip


PROJECT = """
[goal]
question = "Does the press break?"
metric = "auc"
minimum = 0.9
[data]
source = "rows.csv"
label = "state"
[schema]
inputs = [
  {name = "load", unit = "kN", low = 0.0, high = 10.0}, {name = "speed", missing = true}, {name = "leak"},
  {name = "tool", kind = "category", categories = ["drill", "mill"]},
]
[search]
candidates = ["forest"]
"""


def invented_project(folder: Path) -> Project:
    """Four inputs: one with a range, one that may be missing, one that is the label in disguise, one category."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "project.toml").write_text(PROJECT)
    return load_project(folder)


def invented_rows(n: int = 1200, seed: int = 0) -> DataSet:
    """Rows in which `leak` is the label, `load` is shifted in the test rows, and 40 validation rows are copies of training rows."""
    rng = np.random.default_rng(seed)
    label = (rng.random(n) < 0.3).astype(np.int64)
    split = np.array(["train"] * (n // 2) + ["validation"] * (n // 4) + ["test"] * (n - n // 2 - n // 4))
    x = np.stack([rng.normal(5, 1, n), rng.normal(size=n), label + rng.normal(0, 0.01, n), rng.integers(0, 2, n)], axis=1).astype(
        np.float32
    )
    x[split == "test", 0] += 2
    x[rng.random(n) < 0.1, 1] = np.nan
    copies = min(40, n // 4)
    x[n // 2 : n // 2 + copies] = x[:copies]
    return DataSet(x=x, label=label, split=split, slices={}, row_id=np.arange(n).astype(str), group=None,
                   time=np.arange(n, dtype=np.float64),
                   weight=None, classes=["fine", "broken"], breaches=0, named_breaches=[]).with_digest()  # fmt: skip
