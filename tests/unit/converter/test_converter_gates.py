"""Gates are pure: the same counts give the same verdict, and what is not shown does not pass."""

from dataclasses import replace

import pytest

from converter.comparing import Comparison, Drop
from converter.gates import Gate, Golden, Limits, decide, judge, overrule
from converter.intervals import paired_drop
from converter.parity import Cost
from converter.recipes import RECIPES
from edgefleet.manifest import Override, Task

FP32, INT8 = RECIPES["onnx-fp32"], RECIPES["tflite-int8"]
COST = Cost(
    latency_p50_ms=0.02, latency_p95_ms=0.05, latency_p99_ms=0.06, batch_row_ms=0.01, cold_start_ms=80.0, memory_peak_bytes=70_000_000,
    explain_gap=0.0,
)  # fmt: skip
GOLDEN = Golden(max_error=1e-6, flips=0)


def accuracy(name: str, n: int, worse: int, better: int) -> Drop:
    low, high = paired_drop(worse, better, n)
    return Drop(name, n, (worse - better) / n, low, high, paired_drop(worse, better, n, 1.96), worse, better)


def found(n: int = 720, worse: int = 0, better: int = 0, max_error: float = 1e-6, mean_error: float = 1e-7) -> Comparison:
    agreed = n - worse - better
    return Comparison(
        task="classification", n=n, refused=0, agreed=agreed, outside_ties=n, agreed_outside_ties=agreed, max_error=max_error,
        mean_error=mean_error, metric="accuracy", value=0.95, value_original=0.95,
        overall=accuracy("all rows", n, worse, better), slices=[],
    )  # fmt: skip


def verdicts(gates: list[Gate]) -> dict[str, str]:
    return {gate.gate: gate.verdict for gate in gates}


def test_an_exact_fp32_variant_passes() -> None:
    gates = judge(FP32, found(), GOLDEN, COST, 1000, Limits())

    assert decide(gates, Limits()) == ("pass", "", True)
    assert verdicts(gates) == {"C1": "pass", "C2": "pass", "C3": "pass", "C4": "skipped", "C5": "skipped", "C6": "skipped", "X1": "pass"}
    assert {gate.variant for gate in gates} == {"onnx-fp32"}


def test_one_other_class_outside_ties_refuses_an_fp32_variant() -> None:
    verdict, reason, kept = decide(judge(FP32, found(worse=1), GOLDEN, COST, 1000, Limits()), Limits())

    assert (verdict, kept) == ("fail", False)
    assert "C1: 1 of 720 rows outside ties have another class" in reason


def test_an_error_above_the_fp32_limit_refuses() -> None:
    gates = judge(FP32, found(max_error=1.1e-5), GOLDEN, COST, 1000, Limits())

    assert verdicts(gates)["C2"] == "fail"


def test_nan_as_error_never_passes() -> None:
    gates = judge(FP32, found(max_error=float("nan")), GOLDEN, COST, 1000, Limits())

    assert verdicts(gates)["C2"] == "fail"


@pytest.mark.parametrize(("worse", "better"), [(0, 0), (2, 1), (2, 2)])
def test_a_good_int8_variant_passes_on_720_rows(worse: int, better: int) -> None:
    gates = judge(INT8, found(worse=worse, better=better, max_error=0.05, mean_error=4e-3), GOLDEN, COST, 1000, Limits())

    assert decide(gates, Limits())[0] == "pass"


def test_too_few_rows_for_int8_are_inconclusive_and_keep_it_out() -> None:
    limits = Limits()
    verdict, reason, kept = decide(judge(INT8, found(n=100, max_error=0.01), GOLDEN, COST, 1000, limits), limits)

    assert (verdict, kept) == ("inconclusive", False)
    assert "more parity rows are needed" in reason


def test_an_inconclusive_variant_is_kept_when_the_project_allows_each_open_gate() -> None:
    gates = judge(INT8, found(n=100, max_error=0.01), GOLDEN, COST, 1000, Limits())

    assert decide(gates, Limits(allow_inconclusive=frozenset({"C1"})))[2] is False  # C3 is open too
    assert decide(gates, Limits(allow_inconclusive=frozenset({"C1", "C3"})))[2] is True


def test_a_clipped_int8_variant_is_told_by_its_mean_error() -> None:
    gates = judge(INT8, found(max_error=0.4, mean_error=0.04), GOLDEN, COST, 1000, Limits())

    assert verdicts(gates)["C2"] == "fail"


def test_a_drop_of_two_points_fails_int8() -> None:
    gates = judge(INT8, found(n=2000, worse=45, better=2, mean_error=1e-3), GOLDEN, COST, 1000, Limits())

    assert verdicts(gates)["C3"] == "fail"


def test_golden_rows_that_the_self_test_would_refuse_refuse_the_variant() -> None:
    gates = judge(INT8, found(mean_error=1e-3), Golden(max_error=0.2, flips=0), COST, 1000, Limits())

    assert verdicts(gates)["C2"] == "fail"
    assert "self-test would refuse it above 0.15" in gates[1].sentence


def test_a_slice_shown_to_be_worse_fails_and_a_small_one_only_stays_open() -> None:
    base = found(worse=12, mean_error=1e-3)
    bad = replace(base, slices=[accuracy("site-a", 620, 0, 0), accuracy("site-b", 100, 12, 0)])
    small = replace(base, slices=[accuracy("site-a", 690, 11, 11), accuracy("site-b", 30, 1, 0)])

    assert verdicts(judge(INT8, bad, GOLDEN, COST, 1000, Limits()))["C4"] == "fail"
    assert verdicts(judge(INT8, small, GOLDEN, COST, 1000, Limits()))["C4"] == "inconclusive"


def test_declared_budgets_are_judged_and_host_bound_values_stay_out_of_the_bundle() -> None:
    limits = Limits(size_bytes=999, latency_p95_ms=0.01)
    gates = {gate.gate: gate for gate in judge(FP32, found(), GOLDEN, COST, 1000, limits)}

    assert (gates["C5"].verdict, gates["C6"].verdict) == ("fail", "fail")
    assert "1000 bytes, limit 999 bytes" in gates["C5"].sentence
    assert gates["C6"].as_entry()["value"] is None
    assert "0.05" not in gates["C6"].as_entry()["sentence"]


def test_a_gate_overruled_by_a_person_says_so_and_lets_the_variant_in() -> None:
    gates = overrule(
        judge(INT8, found(n=100), GOLDEN, COST, 1000, Limits()), [Override(gate="C1", reason="pilot"), Override(gate="C3", reason="p")]
    )

    assert verdicts(gates)["C1"] == "overridden"
    assert "overruled: pilot" in gates[0].sentence
    assert decide(gates, Limits())[2] is True


def test_an_explanation_that_does_not_add_up_or_points_elsewhere_fails_and_the_variant_stays() -> None:
    adds_up = judge(FP32, found(), GOLDEN, replace(COST, explain_gap=0.1), 1000, Limits())
    points = judge(FP32, found(), GOLDEN, replace(COST, fidelity={"cosine_low": 0.99, "top3_low": 0.5}), 1000, Limits())

    assert verdicts(adds_up)["X1"] == "fail"
    assert [gate.verdict for gate in points if gate.gate == "X2"] == ["pass", "fail"]
    assert decide(adds_up, Limits()) == ("pass", "", True)


def test_a_graph_that_explains_otherwise_than_the_device_fails_a_gate_of_its_own() -> None:
    near = judge(FP32, found(), GOLDEN, replace(COST, explain_gap=1e-7, explain_difference=8e-7), 1000, Limits())
    far = judge(FP32, found(), GOLDEN, replace(COST, explain_gap=1e-7, explain_difference=2e-5), 1000, Limits())
    broken = judge(FP32, found(), GOLDEN, replace(COST, explain_gap=1e-7, explain_difference=float("nan")), 1000, Limits())

    assert [verdicts(gates)["X3"] for gates in (near, far, broken)] == ["pass", "fail", "fail"]
    assert verdicts(far)["X1"] == "pass"
    assert decide(far, Limits()) == ("pass", "", True)


def values(task: Task = "regression", value: float = 0.002, high: float = 0.004, agreed: int = 990) -> Comparison:
    drop = Drop("all rows", 1000, value, 2 * value - high, high, (2 * value - high, high))
    return replace(
        found(n=1000, max_error=0.08, mean_error=4e-3), task=task, metric="rmse" if task == "regression" else "roc_auc",
        agreed=agreed, agreed_outside_ties=agreed, overall=drop,
    )  # fmt: skip


def test_an_int8_regression_is_judged_by_its_values_in_standard_deviations() -> None:
    gates = judge(INT8, values(), GOLDEN, COST, 1000, Limits())

    assert decide(gates, Limits())[0] == "pass"
    assert "same value on 990 of 1000 rows" in gates[0].sentence
    assert "within 0.1 standard deviations" in gates[0].sentence
    assert gates[2].sentence == "the root mean square error grows by 0.2 % on 1000 rows, at most 0.4 % (95 %), limit 1 %"


def test_an_area_that_drops_by_more_than_a_point_fails() -> None:
    gates = judge(INT8, values("anomaly", value=0.03, high=0.04), GOLDEN, COST, 1000, Limits())

    assert verdicts(gates)["C3"] == "fail"
    assert gates[2].sentence.startswith("the area under the ROC curve drops by 3 points")


def test_rows_without_labels_of_both_kinds_leave_the_metric_open() -> None:
    gates = judge(INT8, replace(values("anomaly"), overall=None, value=None), GOLDEN, COST, 1000, Limits())

    assert verdicts(gates)["C3"] == "inconclusive"


def test_half_precision_needs_rows_enough_to_show_its_agreement() -> None:
    half = RECIPES["onnx-fp16"]

    assert verdicts(judge(half, found(n=600, max_error=1e-3), GOLDEN, COST, 1000, Limits()))["C1"] == "pass"
    assert verdicts(judge(half, found(n=300, max_error=1e-3), GOLDEN, COST, 1000, Limits()))["C1"] == "inconclusive"
    assert verdicts(judge(half, found(n=600, max_error=6e-3), GOLDEN, COST, 1000, Limits()))["C2"] == "fail"


def regression(*slices: Drop, n: int = 400) -> Comparison:
    overall = Drop("all rows", n, 0.001, -0.002, 0.004, (-0.003, 0.005))
    return Comparison(
        task="regression", n=n, refused=0, agreed=n, outside_ties=n, agreed_outside_ties=n, max_error=0.05, mean_error=4e-3,
        metric="rmse", value=1.001, value_original=1.0, overall=overall, slices=list(slices),
    )  # fmt: skip


def test_integer_values_near_the_originals_do_not_hide_a_slice_whose_error_grows() -> None:
    grows = Drop("cold", 200, 0.20, 0.15, 0.25, (0.14, 0.26))
    gates = judge(INT8, regression(grows, Drop("hot", 200, 0.0, -0.001, 0.001, (-0.001, 0.001))), GOLDEN, COST, 1000, Limits())

    (slices,) = (gate for gate in gates if gate.gate == "C4")
    assert (slices.verdict, slices.value) == ("fail", 0.20)
    assert "worst slice 'cold'" in slices.sentence


def test_the_slice_that_is_named_is_the_one_that_fails() -> None:
    few = Drop("few rows", 3, 0.30, -0.50, 1.10, (-0.60, 1.20))
    shown = Drop("many rows", 300, 0.10, 0.06, 0.14, (0.05, 0.15))
    gates = judge(INT8, regression(few, shown), GOLDEN, COST, 1000, Limits())

    (slices,) = (gate for gate in gates if gate.gate == "C4")
    assert slices.verdict == "fail"
    assert (slices.value, slices.n) == (0.10, 300)
