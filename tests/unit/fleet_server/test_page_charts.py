"""Pictures are made of few elements, say what they show, and survive odd numbers."""

import doctest
import math
from dataclasses import replace
from datetime import timedelta
from xml.etree import ElementTree

import pytest

from fleet_server.page import figures, states
from fleet_server.page.charts import Chart
from fleet_server.page.charts.cells import member_table, mini_waves, wave_cells
from fleet_server.page.charts.contributions import contributions, sums
from fleet_server.page.charts.histogram import histogram
from fleet_server.page.charts.lines import evidence, field_bar
from fleet_server.read_drift import Histogram
from fleet_server.read_models import Progress, WaveMember, WaveView
from tests.unit.fleet_server import page_values as values

OK: Progress = "ok"


def elements(svg: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(svg).iter())  # noqa: S314  # our own output; parsing it is the test


def wave(members: list[Progress]) -> WaveView:
    return WaveView(2, "open", [WaveMember(f"d-{i}", state, "", "hall") for i, state in enumerate(members)], None, None, "")


@pytest.mark.parametrize("devices", [1, 16, 17, 400, 2_000, 2_001, 60_000])
def test_a_wave_costs_a_handful_of_elements_whatever_its_size(devices: int) -> None:
    cycle: list[Progress] = ["ok", "failed", "silent", "pending", "not-begun"]
    chart = wave_cells(wave([cycle[i % 5] for i in range(devices)]))

    found = elements(chart.svg)

    assert len(found) <= 10
    assert found[0].attrib["aria-label"].startswith("Wave 2: ")
    assert chart.says.startswith("Wave 2: ")


def test_each_state_has_its_own_shape_not_only_a_colour() -> None:
    drawn = {state: elements(wave_cells(wave([state])).svg) for state in states.LEGEND}

    marks = {state: [e.attrib["d"] for e in found if e.attrib.get("class", "").startswith("m-")] for state, found in drawn.items()}
    assert not marks["ok"]
    assert not marks["not-begun"]
    assert len({*marks["failed"], *marks["silent"], *marks["pending"]}) == 3


def test_an_empty_wave_is_drawn_as_nothing_and_says_so() -> None:
    assert wave_cells(wave([])).says == "Wave 2: no device."


def test_the_table_lists_who_needs_a_look_first_and_says_what_it_leaves_out() -> None:
    chart = member_table([wave([*(OK for _ in range(70)), "failed"])])

    assert (chart.rows[0][0], chart.rows[0][3]) == ("d-70", "failed")
    assert (len(chart.rows), chart.left_out) == (60, 11)


def test_mini_bars_fit_their_box_and_show_a_wave_of_one() -> None:
    chart = mini_waves([{"ok": 1}, {"ok": 10, "pending": 20}, {"not-begun": 9_000}])

    boxes = [e.attrib for e in elements(chart.svg) if e.tag.endswith("rect")]
    assert max(float(box["x"]) + float(box["width"]) for box in boxes) <= 200
    assert min(float(box["width"]) for box in boxes if box["class"] == "s-ok") > 1.5
    assert chart.says == "wave 1: 1 committed, attested; wave 2: 10 committed, attested; 20 pending; wave 3: 9,000 not begun"


def test_a_histogram_names_the_cell_that_moved_most() -> None:
    chart = histogram(Histogram("humidity", ["low", "high"], [0.9, 0.1], [0.2, 0.8], 480), "alarm")

    assert chart.says == "70\u00a0% of 480 rows lie in another cell, most in high: 10\u00a0% to 80\u00a0%."
    assert [tuple(row) for row in chart.rows] == [("low", "90\u00a0%", "20\u00a0%"), ("high", "10\u00a0%", "80\u00a0%")]
    assert any("b-alarm" in e.attrib.get("class", "") for e in elements(chart.svg))


@pytest.mark.parametrize(
    "values_of_input", [Histogram("x", [], [], [], 0), Histogram("x", ["a"], [0.0], [0.0], 0), Histogram("x", ["a", "b"], [], [], 4)]
)
def test_a_histogram_without_rows_is_drawn(values_of_input: Histogram) -> None:
    assert elements(histogram(values_of_input).svg)


def test_a_heat_map_has_one_path_per_step_and_marks_strong_cells_with_signs() -> None:
    chart = contributions(values.explanation(contributions=[1.0] + [0.0] * 62 + [-0.8]))

    paths = {e.attrib["class"]: e.attrib["d"] for e in elements(chart.svg) if e.tag.endswith("path")}
    assert set(paths) == {"heat h-z", "heat h-p5", "heat h-n4", "sign"}
    assert paths["sign"].count("v6") == 1  # a plus for the one, a bare minus for the other
    assert chart.says == "pixel_0_0 (+1.00) spoke most for it, pixel_7_7 (\u22120.80) most against."


def test_a_gap_is_said_when_the_sum_misses_the_margin() -> None:
    said = sums(values.explanation(base=0.1, contributions=[0.5, -0.2], margin=0.44, gap=0.04, error=None, method="sampled"))

    assert said == "Base +0.10, sum +0.30 = margin +0.44, gap +0.04. Method sampled, error unknown, margin units."


@pytest.mark.parametrize("value", [0.0, 1e-9, 0.3, 1000.0, 1e12, math.inf, math.nan])
def test_evidence_stays_in_its_box(value: float) -> None:
    dots = [float(e.attrib["cx"]) for e in elements(evidence(value, 1000.0, "alarm")) if "cx" in e.attrib]

    assert dots == [pytest.approx(dots[0])]
    assert 4 <= dots[0] <= 176


def test_many_releases_in_the_field_are_summed_up_as_older() -> None:
    chart: Chart = field_bar([(f"digits {9 - i}", 10) for i in range(8)])

    assert [tuple(row) for row in chart.rows][-1] == ("older", "40")
    assert len([e for e in elements(chart.svg) if e.tag.endswith("rect")]) == 5
    assert field_bar([]).says == "No device has attested a release yet."


def test_figures_are_written_as_their_examples_say() -> None:
    result = doctest.testmod(figures)

    assert result.attempted == 5
    assert result.failed == 0


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-5, "now"), (0.4, "now"), (38, "38\u00a0s ago"), (59.9, "59\u00a0s ago"),
     (60, "1\u00a0min ago"), (3599, "59\u00a0min ago"), (3601, "13:32:05"),
     (86_400 * 2, "21 Nov 14:32"), (86_400 * 400, "19 Oct 2025")],
)  # fmt: skip
def test_an_age_is_relative_below_an_hour_then_a_clock_then_a_date(seconds: float, said: str) -> None:
    assert figures.age_words(values.NOW - timedelta(seconds=seconds), values.NOW) == said


def test_a_silent_device_is_not_called_unknown_and_a_failed_one_stays_failed() -> None:
    gone = values.device_row(1, connected=False)

    assert (states.device_shape(gone), states.device_word(gone)) == ("silent", "silent")
    assert states.device_shape(values.device_row(1, connected=False, state="rolled-back")) == "failed"
    assert states.device_shape(values.device_row(1, state="committed", attested_digest=values.D2)) == "pending"


def test_numbers_of_a_window_say_when_each_input_moved_the_answer() -> None:
    view = values.explanation(
        names=["flow", "vibration"], contributions=[0.25, -1.0], error=None, shape=[8, 2], segments=[[0.25, -0.75], [0.0, -0.25]]
    )

    rows = contributions(view).rows

    assert [row[0] for row in rows] == ["vibration, strongest 4-7 rows ago", "flow, strongest 4-7 rows ago"]
    assert [row[0] for row in contributions(replace(view, segments=[])).rows] == ["vibration", "flow"]
    # More segments than rows: written by nobody that we know; the contributions still stand.
    assert [row[0] for row in contributions(replace(view, segments=[[0.0, 0.0]] * 9)).rows] == ["vibration", "flow"]
