"""Gates are pure: the same counts give the same verdict, and what is not shown does not pass."""

from dataclasses import replace

import numpy as np
import pytest

from converter.gates import Gate, Golden, Limits, decide, judge, overrule
from converter.originals import Original
from converter.parity import Answers, Comparison, Cost, Pairs, compare, golden_failures
from converter.recipes import RECIPES
from edgefleet.manifest import Override

FP32, INT8 = RECIPES["onnx-fp32"], RECIPES["tflite-int8"]
COST = Cost(latency_p50_ms=0.02, latency_p95_ms=0.05, cold_start_ms=80.0, memory_peak_bytes=70_000_000, explain_gap=0.0)
GOLDEN = Golden(max_error=1e-6, flips=0)


def found(n: int = 720, worse: int = 0, better: int = 0, max_error: float = 1e-6, mean_error: float = 1e-7) -> Comparison:
    agreed = n - worse - better
    return Comparison(
        n=n, refused=0, agreed=agreed, outside_ties=n, agreed_outside_ties=agreed, max_error=max_error, mean_error=mean_error,
        accuracy=0.95, accuracy_original=0.95, overall=Pairs("all rows", n, worse, better), slices=[],
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
    bad = replace(base, slices=[Pairs("site-a", 620, 0, 0), Pairs("site-b", 100, 12, 0)])
    small = replace(base, slices=[Pairs("site-a", 690, 11, 11), Pairs("site-b", 30, 1, 0)])

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


def test_an_explanation_that_does_not_add_up_refuses_the_variant() -> None:
    gates = judge(FP32, found(), GOLDEN, replace(COST, explain_gap=0.1), 1000, Limits())

    assert verdicts(gates)["X1"] == "fail"


def test_comparison_counts_ties_refusals_and_pairs() -> None:
    truth = np.array([[0.9, 0.1], [0.5, 0.5 - 1e-7], [0.2, 0.8], [0.7, 0.3]])
    single = np.array([[0.9, 0.1], [0.5 - 1e-7, 0.5], [0.6, 0.4], [np.nan, np.nan]])
    result = compare(Original(truth, truth), Answers(single, single.copy()), np.array([0, 0, 1, 0]), np.array(["a", "a", "b", "b"]))

    assert (result.n, result.refused, result.agreed) == (3, 1, 1)
    assert (result.outside_ties, result.agreed_outside_ties) == (2, 1)
    assert result.overall == Pairs("all rows", 3, 2, 0)
    assert result.slices == [Pairs("a", 2, 1, 0), Pairs("b", 1, 1, 0)]
    assert result.max_error == pytest.approx(0.4)


def test_a_batch_that_answers_otherwise_than_its_rows_is_no_agreement() -> None:
    truth = np.array([[0.9, 0.1], [0.1, 0.9]])
    result = compare(Original(truth, truth), Answers(truth, truth[::-1]), np.array([0, 1]), np.array(["a", "a"]))

    assert result.agreed == 0
    assert result.max_error == pytest.approx(0.8)


def test_a_refused_golden_row_counts_as_an_infinite_error() -> None:
    truth = np.array([[0.9, 0.1]])

    assert golden_failures(Original(truth, truth), Answers(np.full((1, 2), np.nan), truth), 0.2)[0] == np.inf
