"""Invented conversions, judged by the real gates: figures as they might be measured, for tests of what people see of them."""

from dataclasses import replace
from typing import Any

from converter.budgets import Limits, Taken, budgets
from converter.comparing import Comparison, Drop
from converter.conversion import VariantReport
from converter.figures import Outcome, outcome
from converter.gates import Golden, decide, judge
from converter.intervals import paired_drop
from converter.parity import Cost
from converter.recipes import RECIPES
from converter.report import Story

CALIBRATION = {
    "rows": 300, "available": 320, "unusable": 4, "extremes": 60, "inputs_covered": 11, "constant_inputs": 1,
    "strata": {"healthy, site-a": 150, "cavitating, site-b": 150},
}  # fmt: skip


def cost(p50_ms: float, memory_bytes: int = 90_000_000, **changes: Any) -> Cost:
    return Cost(**{
        "latency_p50_ms": p50_ms, "latency_p95_ms": 1.3 * p50_ms, "latency_p99_ms": 2 * p50_ms, "batch_row_ms": p50_ms / 10,
        "cold_start_ms": 180.0, "memory_peak_bytes": memory_bytes, **changes,
    })  # fmt: skip


def compared(n: int = 2000, worse: int = 0, better: int = 0, max_error: float = 2e-7, mean_error: float = 1e-8) -> Comparison:
    agreed = n - worse - better

    def drop(name: str, rows: int, lost: int, won: int) -> Drop:
        low, high = paired_drop(lost, won, rows)
        return Drop(name, rows, (lost - won) / rows, low, high, paired_drop(lost, won, rows, 1.96), lost, won)

    return Comparison(
        task="classification", n=n, refused=0, agreed=agreed, outside_ties=n, agreed_outside_ties=agreed, max_error=max_error,
        mean_error=mean_error, metric="accuracy", value=0.962 - (worse - better) / n, value_original=0.962,
        overall=drop("all rows", n, worse, better),
        slices=[drop("site-a", n // 2, worse, better), drop("site-b", n // 2, 0, 0)] if worse or better else [],
    )  # fmt: skip


def report(target: str, size_bytes: int, found: Comparison, measured: Cost, limits: Limits | None = None, **facts: Any) -> VariantReport:
    """One variant as `Proof.judge` reports it."""
    recipe, limits = RECIPES[target], limits or Limits()
    gates = judge(recipe, found, Golden(found.max_error, 0), measured, size_bytes, limits, facts)
    declared = budgets(Taken(recipe.runtime, size_bytes, measured, facts), limits)
    return VariantReport(target, *_decided(gates, limits), gates, size_bytes, found, measured, facts, recipe.runtime, declared)


def _decided(gates: Any, limits: Limits) -> tuple[Any, bool, str]:
    verdict, reason, kept = decide(gates, limits)
    return verdict, kept, reason


def not_converted(target: str, reason: str) -> VariantReport:
    return VariantReport(target, "fail", False, f"not converted: {reason}", [], runtime=RECIPES[target].runtime)


def full_outcome(limits: Limits | None = None) -> Outcome:
    """Every target, two of them refused, one never made."""
    student = {"cosine": 0.99, "cosine_low": 0.985, "top3": 0.93, "top3_low": 0.91, "r2": 0.97, "covered": 0.94, "rows": 100.0}
    explained: dict[str, Any] = {"explain_gap": 1e-6, "fidelity": student}
    integers = compared(worse=4, better=2, max_error=0.06, mean_error=2e-3)
    reports = [
        report("onnx-fp32", 15_633, compared(), cost(0.0210, **explained), limits),
        report("onnx-fp16", 8_410, compared(max_error=4e-4, mean_error=4e-5), cost(0.0212, **explained), limits),
        report("onnx-int8", 7_038, integers, cost(0.0265), limits, calibration=CALIBRATION, quantized_layers=2, float_layers=["MatMul_0"]),
        report("onnx-int8-dynamic", 6_900, compared(worse=90, max_error=0.3, mean_error=0.02), cost(0.0231), limits, quantized_layers=3),
        report("tflite-fp32", 16_152, compared(), cost(0.0140, 61_000_000), limits),
        report("tflite-fp16", 10_096, compared(max_error=4e-4, mean_error=4e-5), cost(0.0141, 61_000_000), limits),
        report("tflite-int8", 8_992, integers, cost(0.0139, 61_000_000), limits, calibration=CALIBRATION, quantized_layers=3),
        report("tflite-int8-weights", 7_560, compared(better=1, max_error=0.01, mean_error=1e-3), cost(0.0142, 61_000_000), limits),
        not_converted("tflite-int8-dynamic", "the converter died of signal 11 (segmentation fault)"),
        report("c", 12_000, compared(), cost(0.0021, 1_900_000), limits, code_bytes=15_200, stack_bytes=640, memory_bytes=24),
    ]  # fmt: skip
    methods = {one.name: "amortised" for one in reports if one.kept and one.name.startswith("onnx-fp")}
    host = {"machine": "x86_64", "system": "Linux", "cpus": 2, "python": "3.11.7"}
    return outcome(reports, limits or Limits(), methods, ("Weights are stored in half precision.",), host)


def full_story(limits: Limits | None = None) -> Story:
    found = full_outcome(limits)
    return Story(
        project="pump", task="classification", family="mlp", package="packages/pump", package_digest="ab" * 32,
        bundle="bundles/pump-bundle", bundle_digest="cd" * 32, command="edgefleet convert packages/pump", outcome=found,
    )  # fmt: skip


def refused_story() -> Story:
    """Nothing passed."""
    only = report("onnx-fp32", 15_633, compared(worse=50), cost(0.021))
    return replace(full_story(), bundle_digest=None, outcome=outcome([only], Limits()))
