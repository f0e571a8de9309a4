"""No object of a JSON document names a member twice, whoever parsed the document first."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.doors.unique_names import NamedTwice, check_names, read_json

TEXT = st.text(alphabet='ab":\\ \t,', max_size=4)
ROWS = st.lists(st.dictionaries(TEXT, TEXT | st.integers(0, 9), max_size=4), max_size=4)


@pytest.mark.parametrize("content", [b'{"a": 1, "a": 2}', b'{"a":1,"b":{"a":1,"a" :2}}', b'[[{"\\u0061": 1, "a": 1}]]'])
def test_a_name_that_comes_twice_is_told(content: bytes) -> None:
    with pytest.raises(NamedTwice, match="'a' comes twice") as refusal:
        read_json(content)
    assert refusal.value.name == "a"


@given(rows=ROWS, indent=st.sampled_from([None, 1]), colon=st.sampled_from([":", " : ", "\n:\t"]))
def test_a_document_without_repetition_passes_however_it_is_written(rows: Any, indent: int | None, colon: str) -> None:
    content = json.dumps(rows, indent=indent, separators=(",", colon)).encode()

    check_names(content, sum(len(row) for row in rows))

    assert read_json(content) == rows


@given(rows=ROWS.filter(any), colon=st.sampled_from([":", " :", "\n: "]), other=st.sampled_from([":", " :"]))
def test_a_repeated_name_is_found_however_it_is_written(rows: Any, colon: str, other: str) -> None:
    number = next(i for i, row in enumerate(rows) if row)
    name = json.dumps(next(iter(rows[number])))
    written = [json.dumps(row, separators=(",", colon)) for row in rows]
    written[number] = f"{{{name}{other}0,{written[number][1:]}"

    with pytest.raises(NamedTwice):
        check_names(f"[{','.join(written)}]".encode(), sum(len(row) for row in rows))
