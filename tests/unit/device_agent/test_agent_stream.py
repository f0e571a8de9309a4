"""The sensor door: follows a file through everything that happens to files."""

from pathlib import Path
from typing import Any

import pytest

from device_agent.doors.stream import MAX_LINE_BYTES, SensorFile, parse_line
from edgefleet.errors import RowRejected


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "sensor.ndjson"
    made.write_text("[1, 2]\n")
    return made


def append(path: Path, text: str) -> None:
    with path.open("a") as stream:
        stream.write(text)


def all_rows(sensor: SensorFile) -> list[Any]:
    found: list[Any] = []
    for _ in range(50):
        found += sensor.poll()
    sensor.close()
    return found


def test_it_starts_at_the_end(path: Path) -> None:
    sensor = SensorFile(path)
    append(path, '[3, null]\n{"a": 1}\n')
    assert all_rows(sensor) == [[3, None], {"a": 1}]


def test_it_starts_at_the_beginning_when_told(path: Path) -> None:
    assert all_rows(SensorFile(path, from_start=True)) == [[1, 2]]


def test_a_line_waits_for_its_newline(path: Path) -> None:
    sensor = SensorFile(path)
    append(path, "[3, ")
    first = sensor.poll()
    append(path, "4]\n")
    assert (first, all_rows(sensor)) == ([], [[3, 4]])


def test_a_truncated_file_is_read_from_its_start(path: Path) -> None:
    sensor = SensorFile(path, from_start=True)
    sensor.poll()
    path.write_text("[9]\n")
    assert all_rows(sensor) == [[9]]
    assert sensor.restarts == 1


def test_a_rotated_file_is_read_to_its_end_and_then_the_next(path: Path) -> None:
    sensor = SensorFile(path)
    append(path, "[3]\n")
    path.rename(path.with_suffix(".1"))
    path.write_text("[4]\n")
    assert all_rows(sensor) == [[3], [4]]


def test_a_file_that_comes_later_is_read_from_its_start(tmp_path: Path) -> None:
    sensor = SensorFile(tmp_path / "later")
    assert sensor.poll() == []
    (tmp_path / "later").write_text("[1]\n")
    assert all_rows(sensor) == [[1]]


@pytest.mark.parametrize("line", ["nonsense", "5", '"text"', "[1,", "[" * 100_000, "\x00\x01"])
def test_a_line_that_is_no_row_is_counted_and_the_next_is_read(path: Path, line: str) -> None:
    sensor = SensorFile(path)
    append(path, f"{line}\n[7]\n")
    assert all_rows(sensor) == [[7]]
    assert sensor.rejected_lines == 1


def test_a_line_without_end_costs_bounded_memory_and_one_count(path: Path) -> None:
    sensor = SensorFile(path)
    append(path, "[" + "1," * MAX_LINE_BYTES)
    for _ in range(20):
        sensor.poll()
    append(path, "1]\n[7]\n")
    assert all_rows(sensor) == [[7]]
    assert sensor.rejected_lines == 1


def test_a_refusal_names_value_and_limit() -> None:
    with pytest.raises(RowRejected, match=r"a line of 1000001 bytes is not accepted.*at most 1000000 bytes"):
        parse_line(b"x" * (MAX_LINE_BYTES + 1))
