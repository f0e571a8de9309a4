"""Bad rows are answered in their place and the rows after them are scored; inputs that are none are refused as a whole."""

from pathlib import Path

import pytest

from device_agent.doors.stream import MAX_LINE_BYTES
from edgefleet.errors import ConfigError, InputError
from tests.unit.device_agent.batch_world import HEADER, csv_text, lines_of, rows, score
from tests.unit.device_agent.bundles import logistic_bundle, numbers

GOOD = b"1,2,3,4,5\n"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return logistic_bundle(tmp_path_factory.mktemp("bundle"), numbers(unit="mm", low=-100.0, high=100.0, range_policy="reject")).folder


@pytest.mark.parametrize(
    ("line", "feature", "reason", "words"),
    [
        (b"1,2,3\n", None, "count", "5 cells, as many as the header"),
        (b"1,2,3,4,5,6\n", None, "count", "5 cells, as many as the header"),
        (b"abc,2,3,4,5\n", "f0", "type", "a number (mm)"),
        (b"101,2,3,4,5\n", "f0", "range", "-100 to 100 (mm)"),
        (b"1,2,3,4,inf\n", "f4", "infinite", "a finite float32"),
        (b"1,2,3,4,1e999\n", "f4", "infinite", "a finite float32"),
        (b"1,2,3,4,\n", "f4", "missing", "a number"),
        (b"1,2,3,4,nan\n", "f4", "missing", "a number"),
        (b"1,2,3,4,\xff\n", None, "type", "UTF-8"),
        (b"1,2,3,4,\x00\n", "f4", "type", "a number"),
        (b'1,2,3,4,"5" x\n', None, "type", "quotes"),
        (b"1,2,3,4," + b"5" * MAX_LINE_BYTES + b"\n", None, "count", f"at most {MAX_LINE_BYTES} bytes"),
    ],
    ids=lambda value: repr(value[:20]) if isinstance(value, bytes) else None,
)
def test_a_bad_csv_line_is_refused_with_its_place_and_the_next_one_is_scored(
    bundle: Path, tmp_path: Path, line: bytes, feature: str | None, reason: str, words: str
) -> None:
    (tmp_path / "in.csv").write_bytes(HEADER.encode() + GOOD + line + GOOD)

    outcome = score(bundle, tmp_path / "in.csv", tmp_path / "out.ndjson", bad=tmp_path / "bad.ndjson")

    (bad,) = lines_of(tmp_path / "bad.ndjson")
    assert (bad["row"], bad["line"], bad["feature"], bad["reason"]) == (2, 3, feature, reason)
    assert words in bad["limit"]
    answers = lines_of(tmp_path / "out.ndjson")
    assert [answer["status"] for answer in answers] == ["ok", "rejected", "ok"]
    assert answers[0]["score"] == answers[2]["score"]
    assert (outcome.tally.offered, outcome.tally.scored, outcome.tally.rejected) == (3, 2, {reason: 1})


@pytest.mark.parametrize(
    ("line", "feature", "reason"),
    [
        (b"[1,2,3]\n", None, "count"),
        (b'{"f0":1,"f1":2,"f2":3,"f3":4,"f4":5,"f9":0}\n', "f9", "count"),
        (b'{"f0":1}\n', "f1", "missing"),
        (b'{"f0":1,"f1":2,"f2":3,"f3":4,"f4":5,"f2":3}\n', "f2", "count"),
        (b"7\n", None, "type"),
        (b"[1,2,3,4,\n", None, "type"),
        (b"[" * 100_000 + b"\n", None, "type"),
        (b'[1,2,3,4,"5"]\n', "f4", "type"),
        (b"[1,2,3,4,NaN]\n", "f4", "missing"),
        (b"[1,2,3,4,1e400]\n", "f4", "infinite"),
        (b"[1,2,3,4,5]\xfe\n", None, "type"),
        (b"[1,2,3,4,5" + b" " * MAX_LINE_BYTES + b"]\n", None, "count"),
        ("[1,2,3,4,5]".encode("utf-16") + b"\n", None, "type"),
    ],
    ids=lambda value: repr(value[:20]) if isinstance(value, bytes) else None,
)
def test_a_bad_json_line_is_refused_and_the_next_one_is_scored(
    bundle: Path, tmp_path: Path, line: bytes, feature: str | None, reason: str
) -> None:
    good = b"[1,2,3,4,5]\n"
    (tmp_path / "in.ndjson").write_bytes(good + line + good)

    score(bundle, tmp_path / "in.ndjson", tmp_path / "out.ndjson", bad=tmp_path / "bad.ndjson")

    (bad,) = lines_of(tmp_path / "bad.ndjson")
    assert (bad["row"], bad["feature"], bad["reason"]) == (2, feature, reason)
    assert [answer["status"] for answer in lines_of(tmp_path / "out.ndjson")] == ["ok", "rejected", "ok"]


def test_a_stray_quote_costs_its_own_row_and_swallows_no_other(bundle: Path, tmp_path: Path) -> None:
    stray = b'1,2,3,4,"5\n'
    (tmp_path / "in.csv").write_bytes(HEADER.encode() + GOOD + stray + GOOD * 50 + stray + GOOD * 5)

    outcome = score(bundle, tmp_path / "in.csv", tmp_path / "out.ndjson")

    rejected = [answer["row"] for answer in lines_of(tmp_path / "out.ndjson") if answer["status"] == "rejected"]
    assert (outcome.tally.offered, rejected) == (58, [2, 53])


def test_a_field_in_quotes_may_have_line_breaks(bundle: Path, tmp_path: Path) -> None:
    head = "note," + HEADER
    (tmp_path / "in.csv").write_text(head + '"first\nsecond, ""quoted""\n\nlast",1,2,3,4,5\nplain,1,2,3,4,x\n')

    score(bundle, tmp_path / "in.csv", tmp_path / "out.ndjson", bad=tmp_path / "bad.ndjson")

    assert [answer["status"] for answer in lines_of(tmp_path / "out.ndjson")] == ["ok", "rejected"]
    assert [(bad["row"], bad["line"]) for bad in lines_of(tmp_path / "bad.ndjson")] == [(2, 6)]


def test_byte_order_mark_carriage_returns_blank_lines_and_a_missing_last_newline_are_no_trouble(bundle: Path, tmp_path: Path) -> None:
    text = csv_text(rows(4))
    (tmp_path / "unix.csv").write_text(text)
    (tmp_path / "windows.csv").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n\r\n").strip().encode())

    for name in ("unix", "windows"):
        score(bundle, tmp_path / f"{name}.csv", tmp_path / f"{name}.ndjson")

    assert (tmp_path / "unix.ndjson").read_bytes() == (tmp_path / "windows.ndjson").read_bytes()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (GOOD, "line 1 is no header but a row"),
        (b"f0,f1,f2,f3\n1,2,3,4\n", "columns are missing: 'f4'"),
        (b"f0,f1,f2,f3,f44\n1,2,3,4,5\n", "did you mean 'f44'"),
        (b"f0;f1;f2;f3;f4\n1;2;3;4;5\n", "--delimiter"),
        (b"f0,f1,f2,f3,f4,f4\n", "twice: 'f4'"),
        ("f0,f1,f2,f3,f4\n".encode("utf-16"), "UTF-8"),
        (b"x" * (MAX_LINE_BYTES + 5), f"{MAX_LINE_BYTES} bytes"),
    ],
)
def test_a_csv_without_a_usable_header_is_refused_before_any_output(bundle: Path, tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "in.csv").write_bytes(content)
    with pytest.raises(InputError, match=words.replace("(", r"\(")):
        score(bundle, tmp_path / "in.csv", tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


def test_without_header_columns_are_the_inputs_in_their_order(bundle: Path, tmp_path: Path) -> None:
    text = csv_text(rows(5))
    (tmp_path / "with.csv").write_text(text)
    (tmp_path / "without.csv").write_text(text.removeprefix(HEADER).replace(",", ";"))

    score(bundle, tmp_path / "with.csv", tmp_path / "with.ndjson")
    score(bundle, tmp_path / "without.csv", tmp_path / "without.ndjson", header=False, delimiter=";")

    assert (tmp_path / "with.ndjson").read_bytes() == (tmp_path / "without.ndjson").read_bytes()


def test_a_header_without_rows_is_an_output_without_rows(bundle: Path, tmp_path: Path) -> None:
    import pyarrow.parquet

    (tmp_path / "in.csv").write_text(HEADER)
    for written in ("csv", "ndjson", "parquet"):
        assert score(bundle, tmp_path / "in.csv", tmp_path / f"out.{written}").tally.offered == 0
    assert (tmp_path / "out.csv").read_text().startswith("row,status,label")
    assert (tmp_path / "out.ndjson").read_bytes() == b""
    assert pyarrow.parquet.read_table(tmp_path / "out.parquet").num_rows == 0


def test_a_file_cannot_be_its_own_output(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text(csv_text(rows(3)))
    before = (tmp_path / "in.csv").read_bytes()
    with pytest.raises(ConfigError, match="named twice"):
        score(bundle, tmp_path / "in.csv", tmp_path / "." / "in.csv")
    assert (tmp_path / "in.csv").read_bytes() == before


@pytest.mark.parametrize(("name", "words"), [("none.csv", "there is no such file"), ("", "there is no such file")])
def test_an_input_that_is_not_there_is_said(bundle: Path, tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        score(bundle, tmp_path / name, tmp_path / "out.csv")
