"""What people see of a conversion: the terminal's tables, the JSON document and the HTML report say the same, and hide nothing."""

import html
import json
import math
import re
from dataclasses import replace
from pathlib import Path

from converter.budgets import Limits
from converter.figures import as_document, outcome
from converter.profiles import PROFILES
from converter.report import report_path, write_conversion_report
from converter.report.conversion_report import conversion_page
from converter.report.pareto_chart import Mark, pareto_chart
from converter.tables import outcome_text, targets_text
from tests.unit.converter.conversions import compared, cost, full_outcome, full_story, not_converted, refused_story, report

BUDGETS = Limits(size_bytes=20_000, latency_p95_ms=0.4, memory_bytes=200_000_000, profile=PROFILES["raspberry-pi-zero-2"])


def plain(page: str) -> str:
    """The page's text without tags and style."""
    return html.unescape(re.sub(r"<[^>]+>", " ", re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)))


def test_the_table_holds_size_latency_and_metric_of_every_variant() -> None:
    lines = outcome_text(full_outcome()).splitlines()

    (line,) = [line for line in lines if line.startswith("tflite-int8 ")][:1]
    assert re.split(r"\s{2,}", line) == [
        "tflite-int8", "8.99 kB", "0.0139", "0.0181", "0.0278", "0.00139", "0.9610", "+0.10 [-0.16, +0.36]", "pass",
    ]  # fmt: skip


def test_variants_on_the_front_are_starred_and_refused_ones_say_so() -> None:
    found = full_outcome()
    lines = {line.split()[0]: line for line in outcome_text(found).splitlines()[2:12]}

    starred = [name for name, line in lines.items() if re.search(r"\s\*\s", line)]
    assert starred == list(found.front) == ["onnx-int8", "tflite-int8-weights", "c"]
    assert lines["onnx-int8-dynamic"].endswith("refused: fail")
    assert lines["tflite-int8-dynamic"].endswith("refused: fail")


def test_refused_variants_give_their_reasons() -> None:
    said = " ".join(outcome_text(full_outcome()).split())

    assert "tflite-int8-dynamic: not converted: the converter died of signal 11 (segmentation fault)" in said
    assert "onnx-int8-dynamic: C1: same class on 1910 of 2000 rows" in said


def test_a_budget_against_an_estimate_is_called_an_estimate() -> None:
    said = outcome_text(full_outcome(BUDGETS))

    assert "latency p95, limit 0.4 ms (estimate for raspberry-pi-zero-2)" in said
    assert re.search(r"\nonnx-fp32 +15\.6 kB pass +0\.4095 ms fail +90 MB pass\n", said)
    assert re.search(r"\nc +12 kB pass +- skipped +- skipped\n", said)
    assert "measured here" not in said


def test_without_budgets_there_is_no_table_of_them() -> None:
    assert "budgets" not in outcome_text(full_outcome())


def test_rows_that_do_not_tell_the_metric_are_said_to_be_so() -> None:
    unknown = report("onnx-fp32", 9_000, replace(compared(), overall=None, value=None, value_original=None), cost(0.02))

    assert re.search(r"onnx-fp32 .* - +unknown", outcome_text(outcome([unknown], Limits())))


def test_targets_that_are_impossible_for_the_same_reason_are_told_together() -> None:
    said = targets_text([("onnx-fp32", None), ("onnx-int8", "trees"), ("tflite-int8", "trees"), ("tflite-int16x8", None)])

    assert re.search(r"onnx-fp32 +onnxruntime +the model +yes\n", said)
    assert re.search(r"onnx-int8 +onnxruntime +onnx-fp32 +no\n", said)
    assert re.search(r"tflite-int16x8 +litert +tflite-fp32 +yes, when it is named\n", said)
    assert said.endswith("Not possible:\nonnx-int8, tflite-int8: trees")


def test_the_json_document_has_every_figure_of_the_table() -> None:
    document = json.loads(json.dumps(as_document(full_outcome(BUDGETS))))

    variant = next(one for one in document["variants"] if one["name"] == "tflite-int8")
    assert (variant["drop"], variant["on_front"], variant["runtime"]) == (0.001, variant["name"] in document["front"], "litert")
    assert variant["drop_low"] < 0 < variant["drop_high"]
    assert variant["agreement_low"] < variant["agreement"] < variant["agreement_high"]
    assert [budget["name"] for budget in variant["budgets"]] == ["size", "latency p95", "memory"]
    assert {told["profile"] for told in variant["estimates"]} == {
        name for name, profile in PROFILES.items() if profile.device_class != "microcontroller"
    }
    assert [proposal["class"] for proposal in document["proposals"]] == ["microcontroller", "small-board", "edge-box"]
    assert document["profile"]["name"] == "raspberry-pi-zero-2"


def test_the_report_begins_with_the_verdict() -> None:
    said = plain(conversion_page(full_story()))

    assert said.index("8 of 10 variants are proven") < said.index("Which variant for which device") < said.index("Gates")


def test_the_report_names_every_variant_with_its_reason_and_every_gate() -> None:
    story = full_story()
    said = " ".join(plain(conversion_page(story)).split())

    for one in story.outcome.reports:
        assert one.name in said
        assert one.reason in said
        assert all(gate.sentence in said for gate in one.gates)


def test_the_report_holds_budgets_calibration_rows_mixed_precision_fidelity_and_the_command() -> None:
    said = " ".join(plain(conversion_page(full_story(BUDGETS))).split())

    assert "estimate for raspberry-pi-zero-2" in said
    assert "healthy, site-a" in said
    assert "MatMul_0" in said
    assert "edgefleet convert packages/pump" in said
    assert "Weights are stored in half precision." in said
    assert "pass onnx-fp32 amortised 1e\u22126 0.985 0.910 0.970 0.940 100" in " ".join(plain(conversion_page(full_story())).split())


def test_the_report_shows_how_well_time_segments_are_told_where_there_are_some() -> None:
    story = full_story()
    reports = [
        replace(one, cost=replace(one.cost, fidelity=one.cost.fidelity | {"segment_cosine_low": 0.957, "segment_within_low": 0.861}))
        if one.cost is not None and one.cost.fidelity is not None
        else one
        for one in story.outcome.reports
    ]

    said = " ".join(plain(conversion_page(replace(story, outcome=replace(story.outcome, reports=reports)))).split())

    assert "Cosine of time segments" not in " ".join(plain(conversion_page(story)).split())
    assert "Cosine of time segments, at least" in said
    assert "pass onnx-fp32 amortised 1e\u22126 0.985 0.910 0.957 0.861 0.970 0.940 100" in said


def test_a_report_without_a_variant_left_says_that_no_bundle_was_written() -> None:
    said = plain(conversion_page(refused_story()))

    assert "no variant is left of 1: no bundle was written" in said
    assert "none was written" in said


def test_text_from_outside_cannot_become_markup() -> None:
    found = outcome([not_converted("onnx-fp32", "<script>alert(1)</script>")], Limits(), notes=["<img src=x>"])
    page = conversion_page(replace(full_story(), outcome=found, project="<b>p</b>", command="convert '<i>'"))

    assert "<script>" not in page
    assert "<img" not in page
    assert "<b>p</b>" not in page
    assert "<i>" not in page


def test_the_plot_marks_each_variant_once_and_tells_it_in_words() -> None:
    marks = [
        Mark("small", 4_000, 0.020, "front", True, "-0.1 points"),
        Mark("exact", 9_000, 0.020, "beaten", False, "±0"),
        Mark("bad", 5_000, 0.021, "refused", True, ""),
    ]

    chart = pareto_chart(marks)

    assert chart.count("<title>") == 3
    assert "small: 4\u00a0kB, 20\u00a0µs, -0.1 points, on the front" in chart
    assert {"on the Pareto front, metric lower", "in the bundle, beaten by another, metric not lower", "refused"} <= set(
        re.findall(r"</svg>([^<]+)</li>", chart)
    )


def test_names_in_a_crowded_plot_do_not_lie_over_each_other() -> None:
    chart = pareto_chart([Mark(f"variant-{i}", 9_000 + i, 0.02, "beaten", False, "±0") for i in range(7)])

    places = re.findall(r'<text x="[\d.]+" y="([\d.]+)" class="(end )?name"', chart)
    assert len(places) == len(set(places)) == 7


def test_a_plot_without_a_finite_place_is_empty_and_does_not_fail() -> None:
    assert "never" not in pareto_chart([Mark("never", 0, float("inf"), "refused", None, "")])


def test_the_report_lies_beside_the_bundle_and_is_one_file(tmp_path: Path) -> None:
    path = write_conversion_report(full_story(), report_path(tmp_path / "pump-bundle"))

    assert path == tmp_path / "pump-bundle-report.html"
    assert not re.search(r'(?:src|href)="(?!#|data:)', path.read_text("utf-8"))


def test_times_that_nobody_knows_are_null_in_the_document_and_a_dash_in_the_tables() -> None:
    never = cost(math.inf)
    limits = Limits(latency_p95_ms=1.0)
    found = outcome([report("onnx-fp32", 15_633, compared(), never, limits)], limits)

    document = json.loads(json.dumps(as_document(found), allow_nan=False))

    (variant,) = document["variants"]
    assert (variant["latency_p50_ms"], variant["budgets"][0]["value"], variant["budgets"][0]["verdict"]) == (None, None, "fail")
    assert re.search(r"\nonnx-fp32 +15\.6 kB +- +- +- ", outcome_text(found))
    assert "infinity" not in plain(conversion_page(replace(full_story(), outcome=found))).lower()
