"""The run report, the comparison and the card: whole, escaped, tolerant of what is absent."""

import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edgefleet.errors import ArtifactError, InputError
from tests.unit.trainer.report_records import EVIL, full_record
from trainer.report.card import card_html, card_markdown
from trainer.report.compare import write_comparison
from trainer.report.record import RunRecord, read_record
from trainer.report.run_report import write_run_report

VOID = {"meta", "link", "br", "img", "input"}


class Tags(HTMLParser):
    """Collects tags and complains about one that is closed out of turn."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(page: str) -> Tags:
    tags = Tags()
    tags.feed(page)
    tags.close()
    return tags


@pytest.fixture
def report(tmp_path: Path) -> str:
    return write_run_report(full_record(), tmp_path / "deep" / "run.html").read_text("utf-8")


def test_every_tag_of_the_report_is_closed_in_turn(report: str) -> None:
    assert parsed(report).open == []


def test_no_text_of_a_record_becomes_a_tag(report: str) -> None:
    tags = parsed(report)
    assert "script" not in tags.seen
    assert EVIL in tags.text


def test_the_report_allows_itself_no_script_and_no_network(report: str) -> None:
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in report
    assert "http://" not in report
    assert "https://" not in report


def test_goal_stands_before_the_verdict_and_the_verdict_before_the_gates(report: str) -> None:
    text = parsed(report).text
    places = [text.index(words) for words in ("Will it break?", "auc at least 0.95", "G4 says no", "auc is below the minimum")]
    assert places == sorted(places)


def test_gates_that_stop_the_run_stand_first(report: str) -> None:
    assert report.index("auc is below the minimum") < report.index("Line B has too few rows") < report.index("All 2000 rows obey")


def test_every_section_of_a_whole_record_is_there(report: str) -> None:
    assert "Not in this run" not in report
    for title in (
        "Search",
        "Slices",
        "Calibration",
        "Decision threshold",
        "Confusion",
        "Residuals",
        "Training curve",
        "Robustness",
        "Overrides",
    ):
        assert f"<h2>{title}</h2>" in report


@pytest.mark.parametrize("field", sorted(full_record()))
def test_a_record_without_any_one_field_has_a_report(field: str, tmp_path: Path) -> None:
    record = full_record()
    del record[field]
    assert "Goal" in write_run_report(record, tmp_path / "run.html").read_text("utf-8")


def test_sections_without_data_are_named_at_the_end(tmp_path: Path) -> None:
    text = parsed(write_run_report({}, tmp_path / "run.html").read_text("utf-8")).text
    assert "not shown: gates, data, candidates, search, metrics of the winner" in text


def test_a_report_written_again_from_json_is_the_same(report: str, tmp_path: Path) -> None:
    again = write_run_report(json.loads(json.dumps(full_record())), tmp_path / "again.html").read_text("utf-8")
    assert again == report


def test_every_chart_is_well_formed_and_says_what_it_shows(report: str) -> None:
    drawings = [part.split("</svg>")[0] + "</svg>" for part in report.split('<svg viewBox="')[1:]]
    assert len(drawings) >= 12
    for drawing in drawings:
        root = ElementTree.fromstring(f'<svg viewBox="{drawing}')  # noqa: S314  # our own text
        assert len(root.attrib["aria-label"]) > 10


def test_no_coordinate_is_not_a_number(tmp_path: Path) -> None:
    record = full_record()
    record["candidates"][0] |= {"value": float("nan"), "low": float("nan"), "high": float("nan")}
    record["curves"] = [{"step": 1, "loss": 0.5}, {"step": 2, "loss": float("nan")}, {"step": 3, "loss": float("inf")}]
    record["importance"] = [{"name": "load", "share": float("nan")}, {"name": "speed", "share": 0.0}]
    record["residuals"] = {"predicted": [1.0, float("nan")], "actual": [1.0, 2.0]}
    record["calibration"]["bins"][0] |= {"share": float("nan"), "share_low": float("nan"), "share_high": float("nan")}
    page = write_run_report(record, tmp_path / "run.html").read_text("utf-8")
    assert not re.search(r"\bnan\b", page, re.IGNORECASE)
    assert not re.search(r"\binf\b", page, re.IGNORECASE)


def test_a_wrong_type_is_refused_with_its_place() -> None:
    with pytest.raises(ArtifactError, match=r"slices\[0\]\.n"):
        read_record({"slices": [{"n": "many"}]})


def test_fields_of_a_later_version_are_left_alone() -> None:
    assert read_record({"winner": "forest", "weather": "fine"}).winner == "forest"


def test_numpy_scalars_are_taken_as_their_values() -> None:
    record = read_record({"slices": [{"value": np.float64(0.5), "n": np.int64(3)}], "verdict": np.str_("failed")})
    assert (record.slices[0].value, record.slices[0].n, record.verdict) == (0.5, 3, "failed")


def test_limits_come_from_the_goal_where_the_record_has_none() -> None:
    assert read_record({"goal": {"metric": "rmse", "maximum": 3.0}}).criterion == "rmse at most 3"


def test_a_goal_without_a_limit_says_that_nothing_is_blessed() -> None:
    assert "nothing is blessed" in RunRecord(metric="auc").criterion


def test_a_record_survives_json() -> None:
    record = read_record(full_record())
    assert msgspec.json.decode(msgspec.json.encode(record), type=RunRecord) == record


def test_a_card_says_what_is_not_recorded() -> None:
    card = card_markdown({"goal": {"question": "Will it break?"}})
    assert "Will it break?" in card
    assert card.count("Not recorded.") >= 8


def test_markdown_of_a_card_takes_foreign_text_literally() -> None:
    card = card_markdown(full_record() | {"overrides": [{"gate": "G3", "reason": "a | b\n# c"}]})
    assert "a \\| b # c" in card
    assert "<script" not in card.replace("\\<script", "")


def test_both_cards_hold_the_same_facts() -> None:
    text = parsed(card_html(full_record())).text
    for fact in ("0.910", "0.880 to 0.930", "Line B has too few rows.", "2.0", "edgefleet train press"):
        assert fact in text
        assert fact in card_markdown(full_record())


def test_a_card_is_the_same_every_time() -> None:
    assert card_html(full_record()) == card_html(full_record())


def test_a_comparison_shows_only_what_differs(tmp_path: Path) -> None:
    other = full_record() | {"id": "r-2", "provenance": {"versions": {"numpy": "2.1"}, "commit": "abc"}}
    page = write_comparison([full_record(), other], tmp_path / "compare.html").read_text("utf-8")
    assert parsed(page).open == []
    differs = page.split("What differs")[-1]
    assert "provenance.versions.numpy" in differs
    assert "provenance.commit" not in differs


def test_different_goals_are_not_put_on_one_axis(tmp_path: Path) -> None:
    other = full_record() | {"id": "r-2", "metric": "rmse"}
    page = write_comparison([full_record(), other], tmp_path / "compare.html").read_text("utf-8")
    assert "not put on one axis" in page


def test_one_run_alone_is_no_comparison(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="2 to 8"):
        write_comparison([full_record()], tmp_path / "compare.html")


def test_empty_findings_are_absent_and_not_empty_sections(tmp_path: Path) -> None:
    record = full_record() | {"calibration": {}, "confusion": {}, "residuals": {}, "threshold": {}}
    page = write_run_report(record, tmp_path / "run.html").read_text("utf-8")
    assert "not shown: calibration, decision threshold, confusion, residuals." in parsed(page).text


def test_slices_say_what_was_measured_and_have_no_column_of_verdicts_that_nobody_gave(tmp_path: Path) -> None:
    part = {"column": "line", "name": "B", "n": 40, "value": 0.8}

    unjudged = write_run_report({"task": "rul", "slices": [part]}, tmp_path / "a.html").read_text("utf-8")
    judged = write_run_report({"slices": [{**part, "verdict": "pass"}]}, tmp_path / "b.html").read_text("utf-8")

    assert ("Mean absolute error</th>" in unjudged, "Verdict</th>" in unjudged) == (True, False)
    assert ("Accuracy</th>" in judged, "Verdict</th>" in judged) == (True, True)


def test_splits_stand_in_reading_order_whatever_order_the_record_has(tmp_path: Path) -> None:
    sorted_keys = json.loads(json.dumps(full_record(), sort_keys=True))
    text = parsed(write_run_report(sorted_keys, tmp_path / "run.html").read_text("utf-8")).text
    assert "train 1,000, validation 600, test 400" in text
    assert "began 2026-01-02 03:04 UTC" in text
