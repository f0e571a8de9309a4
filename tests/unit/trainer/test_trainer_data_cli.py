import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.unit.trainer.conftest import TINY, Run, Tiny, tiny_rows


def lines_with(column: int, cell: Callable[[int, list[str]], object]) -> list[str]:
    """The tiny rows with one column's cells made of the row's number and cells."""
    lines = tiny_rows()
    rows = [line.split(",") for line in lines[1:]]
    return [lines[0], *(",".join([*row[:column], str(cell(i, row)), *row[column + 1 :]]) for i, row in enumerate(rows))]


def test_good_rows_exit_0_and_say_so(edgefleet: Run, tiny: Tiny) -> None:
    result = edgefleet("data", "check", tiny())

    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("600 rows, 6 columns; 300 train, 150 validation, 150 test; content ")
    assert result.stdout.endswith("every row obeys the schema\n")


def broken(tiny: Tiny) -> Path:
    lines = tiny_rows()
    lines[1] = "warm,0,0,x,train,row-0"
    lines[5] = "500,inf,0,y,train,row-4"
    return tiny(lines)


def test_every_violation_is_printed_with_row_and_column(edgefleet: Run, tiny: Tiny) -> None:
    result = edgefleet("data", "check", broken(tiny))

    assert result.returncode == 1
    assert "  row 0, column a: 'warm', expected a finite number from -100 to 100 (type)\n" in result.stdout
    assert "  row 4, column a: '500', expected a finite number from -100 to 100 (range)\n" in result.stdout
    assert "  row 4, column b: inf, expected a finite number or nothing (infinite)\n" in result.stdout
    assert "commonest text among its numbers is 'warm', 1 times" in result.stdout
    assert result.stderr == "edgefleet: 3 violations in 2 of 600 rows, 0 errors; mend the source or [schema]\n"


def test_the_list_is_bounded_and_the_total_is_not(edgefleet: Run, tiny: Tiny) -> None:
    lines = [line if i == 0 or i > 50 else line.replace(line.partition(",")[0], "bad", 1) for i, line in enumerate(tiny_rows())]
    folder = tiny(lines)

    text = edgefleet("data", "check", folder, "--limit", "7")
    document = json.loads(edgefleet("data", "check", folder, "--limit", "7", "--json").stdout)

    assert text.stdout.count("  row ") == 7
    assert "... and 43 more" in text.stdout
    assert (len(document["violations"]), document["violations_total"], document["rows_refused"]) == (7, 50, 50)


def test_the_json_document_names_each_violation(edgefleet: Run, tiny: Tiny) -> None:
    result = edgefleet("data", "check", broken(tiny), "--json")

    document = json.loads(result.stdout)
    assert result.returncode == 1
    assert document["good"] is False
    assert document["violations"][0] == {
        "row": 0,
        "column": "a",
        "value": "'warm'",
        "reason": "type",
        "expected": "a finite number from -100 to 100",
    }
    assert sum(document["splits"].values()) == 598


def test_a_leaked_target_is_flagged_and_is_no_violation(edgefleet: Run, tiny: Tiny) -> None:
    lines = [
        line if i == 0 else f"{line.split(',', 1)[0]},{'xyz'.index(line.split(',')[3])},{line.split(',', 2)[2]}"
        for i, line in enumerate(tiny_rows())
    ]

    result = edgefleet("data", "check", tiny(lines))

    assert result.returncode == 0
    assert "warning: input b alone tells the answer (AUC 1.000 > .98)" in result.stdout


def test_a_leaked_number_is_flagged_by_its_rank_correlation(edgefleet: Run, tiny: Tiny) -> None:
    lines = lines_with(3, lambda i, row: np.exp(float(row[0]) / 9))

    result = edgefleet("data", "check", tiny(lines), "--set", 'goal.task="regression"', "--set", 'goal.metric="r2"')

    assert "warning: input a alone tells the answer (|rank correlation| 1.000 > .98)" in result.stdout


def test_values_that_are_only_counted_are_warnings(edgefleet: Run, tiny: Tiny) -> None:
    text = TINY.replace('{ name = "b", missing = true }', '{ name = "b", low = -1.0, high = 1.0 }')

    result = edgefleet("data", "check", tiny(text=text))

    assert result.returncode == 0
    assert "values outside [low, high]; they are counted, not refused" in result.stdout


def test_equal_rows_in_two_splits_are_warned_about_with_the_remedy(edgefleet: Run, tiny: Tiny) -> None:
    lines = tiny_rows()
    lines[1] = lines[600].replace("test", "train").replace("row-599", "row-0")

    result = edgefleet("data", "check", tiny(lines))

    assert "1 of 600 rows equal a row of a later split: gate G3 allows 0.0% of validation and test rows; data.splits.eq" in result.stdout
    assert "later split" not in edgefleet("data", "check", tiny(lines), "--set", "data.splits.equal_rows='purge'").stdout


def test_gaps_in_time_are_named(edgefleet: Run, tiny: Tiny) -> None:
    lines = [f"{line},{'t' if i == 0 else i * 10 + (5000 if i > 300 else 0)}" for i, line in enumerate(tiny_rows())]

    result = edgefleet("data", "check", tiny(lines, TINY.replace("block_rows", 'time = "t"\nblock_rows')))

    assert result.returncode == 0
    assert "column t: 1 gaps of more than ten usual steps (10 s); the longest, 5010 s, before row 300" in result.stdout


def test_seconds_since_1970_as_an_input_are_warned_about(edgefleet: Run, tiny: Tiny) -> None:
    lines = [
        line if i == 0 else f"{line.split(',', 1)[0]},{1_700_000_000 + i},{line.split(',', 2)[2]}" for i, line in enumerate(tiny_rows())
    ]

    result = edgefleet("data", "check", tiny(lines))

    assert result.returncode == 0
    assert any(("warning: " in line and "float32" in line.lower()) or "spacing" in line for line in result.stdout.splitlines())


def test_rows_that_cannot_be_trained_on_are_an_error_beside_their_violations(edgefleet: Run, tiny: Tiny) -> None:
    lines = [line.replace(",y,", ",x,").replace(",z,", ",x,") for line in tiny_rows()]

    result = edgefleet("data", "check", tiny(lines))

    assert result.returncode == 1
    assert "error: column 'label' has 1 classes; at least 2 are needed" in result.stdout
    assert "; not usable; " in result.stdout


def test_windows_that_do_not_fit_the_memory_are_an_error_beside_the_violations(
    edgefleet: Run, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.windows.MAX_WINDOWS_BYTES", 1000)
    lines = tiny_rows()
    lines[3] = "many" + lines[3][lines[3].index(",") :]

    result = edgefleet("data", "check", tiny(lines, TINY + "[cleaning.window]\nrows = 2\n"))

    assert result.returncode == 1
    assert "row 2, column a: 'many'" in result.stdout
    assert "error: " in result.stdout
    assert "the limit is 1000; set cleaning.window.stride to" in result.stdout


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (TINY.replace("rows.csv", "absent.csv"), "absent.csv cannot be read: No such file"),
        (TINY.replace('"b"', '"d"'), "data.source lacks 1 of 6 columns: d"),
        (TINY.replace("minimum", "minimun"), "did you mean goal.minimum"),
    ],
)
def test_what_cannot_be_checked_at_all_exits_3_in_one_line(edgefleet: Run, tiny: Tiny, text: str, words: str) -> None:
    result = edgefleet("data", "check", tiny(text=text))

    assert (result.returncode, result.stdout) == (3, "")
    assert words in result.stderr
    assert result.stderr.count("\n") == 1


def test_the_report_is_one_html_file_about_these_rows(edgefleet: Run, tiny: Tiny, tmp_path: Path) -> None:
    result = edgefleet("data", "report", tiny(), "--output", tmp_path / "rows.html")

    page = (tmp_path / "rows.html").read_text()
    assert (result.returncode, result.stdout) == (0, f"written: {tmp_path / 'rows.html'}\n")
    assert page.lower().startswith("<!doctype html>")
    assert "Which of three?" in page


def test_init_writes_a_project_that_data_check_accepts(edgefleet: Run, tiny: Tiny, tmp_path: Path) -> None:
    rows = tiny() / "rows.csv"

    made = edgefleet("init", "--data", rows, "--label", "label", "--dir", tmp_path / "mine", "--json")
    document = json.loads(made.stdout)
    checked = edgefleet("data", "check", tmp_path / "mine")

    assert made.returncode == 0
    assert (document["label"], document["task"], document["id"]) == ("label", "classification", "row_id")
    assert [column["name"] for column in document["inputs"]] == ["a", "b", "c"]
    assert checked.returncode == 0


def test_init_says_what_it_left_out_and_what_to_do_next(edgefleet: Run, tiny: Tiny, tmp_path: Path) -> None:
    result = edgefleet("init", "--data", tiny() / "rows.csv", "--dir", tmp_path / "mine")

    assert "left out row_id: a different value in every row" in result.stdout
    assert f"then: edgefleet data check {tmp_path / 'mine'}" in result.stdout


def test_init_does_not_overwrite(edgefleet: Run, tiny: Tiny) -> None:
    folder = tiny()

    result = edgefleet("init", "--data", folder / "rows.csv", "--dir", folder)

    assert result.returncode == 3
    assert "is not overwritten" in result.stderr
    assert (folder / "project.toml").read_text() == TINY
