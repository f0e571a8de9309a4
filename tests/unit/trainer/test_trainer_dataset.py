import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgefleet.errors import ConfigError, InputError
from tests.unit.trainer.conftest import TINY, tiny_rows
from trainer import load_project
from trainer.dataset import load_rows

Tiny = Callable[..., Path]


def test_rows_become_a_float32_matrix_and_class_indices(tiny: Tiny) -> None:
    rows = load_rows(load_project(tiny()))

    assert rows.x.shape == (600, 3)
    assert rows.x.dtype == np.float32
    assert rows.classes == ["x", "y", "z"]
    assert rows.label[:4].tolist() == [0, 1, 2, 0]
    assert rows.row_id[0] == "row-0"
    assert set(rows.slice) == {"all"}
    assert rows.breaches == 0


def test_the_clip_policy_clips(tiny: Tiny) -> None:
    rows = load_rows(load_project(tiny()))

    assert (rows.x[:, 2].min(), rows.x[:, 2].max()) == (0.0, 1.0)


def test_a_missing_value_is_nan_where_it_is_allowed(tiny: Tiny) -> None:
    lines = tiny_rows()
    lines[1] = "1.0,,0.5,x,train,row-0"

    rows = load_rows(load_project(tiny(lines)))

    assert np.isnan(rows.x[0, 1])
    assert rows.breaches == 0


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("warm,0,0,x,train,row-0", "row 0, column a: 'warm', expected a finite number from -100 to 100"),
        ("500,0,0,x,train,row-0", "row 0, column a: '500', expected a finite number from -100 to 100"),
        (",0,0,x,train,row-0", "row 0, column a: 'nan', expected a finite number"),
        ("1,inf,0,x,train,row-0", "row 0, column b: 'inf', expected a finite number or nothing"),
        ("1,1e39,0,x,train,row-0", "row 0, column b: '1e39', expected a finite number"),  # beyond float32
    ],
)
def test_a_row_that_breaks_the_schema_is_named_and_left_out(tiny: Tiny, line: str, words: str) -> None:
    lines = tiny_rows()
    lines[1] = line

    rows = load_rows(load_project(tiny(lines)))

    assert rows.breaches == 1
    assert rows.named_breaches[0].startswith(words)
    assert len(rows.label) == 599
    assert rows.row_id[0] == "row-1"


def test_at_most_five_breaches_are_named(tiny: Tiny) -> None:
    lines = [line if i == 0 or i > 20 else line.replace(line.partition(",")[0], "bad", 1) for i, line in enumerate(tiny_rows())]

    rows = load_rows(load_project(tiny(lines)))

    assert rows.breaches == 20
    assert len(rows.named_breaches) == 5


def test_the_digest_is_that_of_the_content(tiny: Tiny) -> None:
    first = load_rows(load_project(tiny())).digest
    again = load_rows(load_project(tiny())).digest
    other = load_rows(load_project(tiny(tiny_rows(seed=1)))).digest

    assert first == again
    assert first != other


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("a,b,c,label", "a,b,x,label", "lacks 1 of 6 columns: c"),
        (",validation,", ",valid,", "split 'valid' is unknown"),
        (",test,", ",train,", "split 'test' has no rows"),
        (",x,train,row-0", ",,train,row-0", "row 0, column label: empty"),
    ],
)
def test_rows_without_what_training_needs_are_refused(tiny: Tiny, old: str, new: str, words: str) -> None:
    text = "\n".join(tiny_rows()).replace(old, new)

    with pytest.raises(InputError, match=words):
        load_rows(load_project(tiny(text.split("\n"))))


def test_a_table_without_rows_is_refused(tiny: Tiny) -> None:
    with pytest.raises(InputError, match="has no rows"):
        load_rows(load_project(tiny(tiny_rows()[:1])))


FUNCTION = """
import pandas

def rows(n: int, kind: str = "good"):
    if kind == "bad":
        raise ValueError("kind must be good")
    if kind == "list":
        return []
    return pandas.DataFrame({"a": range(n), "b": 0.5, "c": 0.5, "label": ["x", "y"] * (n // 2), "split": "train", "row_id": range(n)})
"""


def with_function(tiny: Tiny, arguments: str, source: str = "made:rows") -> Path:
    folder = tiny(text=TINY.replace('source = "rows.csv"', f'source = "{source}"\narguments = {arguments}'))
    (folder / "made.py").write_text(FUNCTION)
    return folder


def test_a_function_beside_the_project_file_gives_the_rows(tiny: Tiny) -> None:
    before = list(sys.path)

    with pytest.raises(InputError, match="split 'validation' has no rows"):  # the table came; it has training rows only
        load_rows(load_project(with_function(tiny, "{ n = 40 }")))

    assert sys.path == before


@pytest.mark.parametrize(
    ("arguments", "source", "words"),
    [
        ("{ m = 40 }", "made:rows", "data.arguments do not fit 'made:rows'"),
        ('{ n = 40, kind = "bad" }', "made:rows", "refused its arguments .*: kind must be good"),
        ('{ n = 40, kind = "list" }', "made:rows", "returned list, expected a pandas DataFrame"),
        ("{ n = 40 }", "made:lines", "has no function 'lines'"),
        ("{ n = 40 }", "nowhere_to_be_found:rows", "no module 'nowhere_to_be_found'"),
        ("{ n = 40 }", "absent.csv", "cannot be read as CSV"),
    ],
)
def test_a_source_that_cannot_be_used_is_explained(tiny: Tiny, arguments: str, source: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_rows(load_project(with_function(tiny, arguments, source)))
