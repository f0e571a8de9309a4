import gzip
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas
import pytest

from edgefleet.errors import ConfigError, EdgefleetError, InputError, MissingPartError
from tests.unit.trainer.conftest import TINY, tiny_rows
from trainer.load import load_rows
from trainer.project import Project, load_project
from trainer.sources import Columns, content_digest, files, functions, read_file, read_table, source_fingerprint
from trainer.sources.files import ROWS_AT_A_TIME

Tiny = Callable[..., Path]


def csv(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "some.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_numbers_are_numbers_and_names_stay_as_written(tmp_path: Path) -> None:
    table = read_file(csv(tmp_path, "n,code\n1.5,01\n-2,007\n"), Columns(text=frozenset({"code"})))

    assert table["n"].tolist() == [1.5, -2.0]
    assert table["code"].tolist() == ["01", "007"]


@pytest.mark.parametrize("text", ["a;b\n1;2\n", "a\tb\n1\t2\n", "\ufeffa,b\r\n1,2\r\n", 'a,"b"\n1, 2\n\n'])
def test_semicolons_tabs_byte_order_marks_and_blanks_are_understood(tmp_path: Path, text: str) -> None:
    table = read_file(csv(tmp_path, text))

    assert table.to_dict("list") == {"a": [1], "b": [2]}


def test_a_mark_inside_a_quoted_name_separates_nothing(tmp_path: Path) -> None:
    table = read_file(csv(tmp_path, '"x, y";b\n1;2\n'))

    assert table.to_dict("list") == {"x, y": [1], "b": [2]}


def test_a_gzipped_file_reads_like_the_plain_one(tmp_path: Path) -> None:
    packed = tmp_path / "some.csv.gz"
    packed.write_bytes(gzip.compress(b"a,b\n1,2\n"))

    assert content_digest(read_file(packed)) == content_digest(read_file(csv(tmp_path, "a,b\n1,2\n")))


def test_only_the_empty_cell_and_declared_texts_are_missing(tmp_path: Path) -> None:
    table = read_file(csv(tmp_path, "a,b\n?,NA\n,\n1,x\n"), Columns(text=frozenset({"b"})), ["?"])

    assert table["a"].isna().tolist() == [True, True, False]
    assert table["b"].isna().tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b\n1,2\n1,2,3\n", "line 3: 3 fields, the header has 2"),
        ("a,b\n1,2\n1\n", "line 3: 1 fields, the header has 2"),
        ("a,b\n1,2,3\n1,2,3\n", "line 2: 3 fields, the header has 2"),
        ('a,b\n"x\ny",2\n1\n', "line 4: 1 fields, the header has 2"),
        ("", "is empty; its first line must name the columns"),
        ("a,b,a\n1,2,3\n", r"names column 'a' twice \(again at place 3"),
        ("a,,c\n1,2,3\n", "place 2 of its header is empty"),
        ("a,b\n1,2\n3,caf\u00e9\n".encode("latin1"), "line 3: byte 0xe9 at place 6 is no UTF-8; save it as UTF-8, .*iconv"),
        ("caf\u00e9,b\n1,2\n".encode("latin1"), "line 1: byte 0xe9 at place 4 is no UTF-8"),
        ('a,b\n1,"2\n', "some.csv"),
    ],
)
def test_a_damaged_csv_is_named_by_its_line(tmp_path: Path, text: str | bytes, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_file(csv(tmp_path, text))


def test_a_packed_file_that_is_damaged_inside_is_refused(tmp_path: Path) -> None:
    content = bytearray(gzip.compress(b"a,b\n" + bytes(range(48, 58)) * 20_000 + b",2\n"))
    for at in range(12, len(content) - 8):
        content[at] ^= 0x55
    (tmp_path / "some.csv.gz").write_bytes(content)

    with pytest.raises(ConfigError, match=r"some.csv.gz cannot be read as CSV"):
        read_file(tmp_path / "some.csv.gz")


def test_gaps_in_the_last_column_have_the_file_looked_at_once_more_and_no_oftener(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "ROWS_AT_A_TIME", 10)
    looked: list[Path] = []
    monkeypatch.setattr(files, "_ragged_line", lambda path, *_: looked.append(path))

    table = read_file(csv(tmp_path, "a,b\n" + "1,\n" * 100))

    assert len(table) == 100
    assert len(looked) == 1


def test_an_empty_last_column_is_not_ragged(tmp_path: Path) -> None:
    assert read_file(csv(tmp_path, "a,b\n1,\n2,\n"))["b"].isna().all()


def test_a_file_that_only_claims_to_be_gzipped_is_refused(tmp_path: Path) -> None:
    (tmp_path / "some.csv.gz").write_text("a,b\n1,2\n")

    with pytest.raises(ConfigError, match="cannot be read"):
        read_file(tmp_path / "some.csv.gz")


def test_a_text_in_a_late_block_makes_the_whole_column_text(tmp_path: Path) -> None:
    lines = ["a,b", *("1,2" for _ in range(ROWS_AT_A_TIME)), "warm,2"]

    table = read_file(csv(tmp_path, "\n".join(lines)))

    assert len(table) == ROWS_AT_A_TIME + 1
    assert table["a"].iloc[-1] == "warm"
    assert table["b"].sum() == 2 * len(table)


def test_parquet_gives_the_same_rows_as_csv(tiny: Tiny) -> None:
    folder = tiny()
    pandas.read_csv(folder / "rows.csv").to_parquet(folder / "rows.parquet")

    parquet = load_rows(load_project(folder, ["data.source='rows.parquet'"]))

    assert parquet.digest == load_rows(load_project(folder)).digest


def test_parquet_reads_only_the_columns_that_are_named(tmp_path: Path) -> None:
    pandas.DataFrame({"a": [1], "b": [2], "c": ["x"]}).to_parquet(tmp_path / "some.parquet")

    table = read_file(tmp_path / "some.parquet", Columns(wanted=("c", "a", "absent"), text=frozenset()))

    assert list(table.columns) == ["c", "a"]


def test_a_damaged_parquet_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "some.parquet").write_bytes(b"PAR1 and then nothing")

    with pytest.raises(ConfigError, match="is no readable Parquet file"):
        read_file(tmp_path / "some.parquet")


SQL = TINY.replace(
    'source = "rows.csv"', 'source = "sqlite:///rows.db"\nquery = "SELECT * FROM rows WHERE a > :least"\narguments = { least = -99 }'
)


def database(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "rows.db")) as connection:
        pandas.read_csv(folder / "rows.csv").to_sql("rows", connection, index=False, if_exists="replace")


def test_a_query_gives_the_same_rows_as_the_file_it_came_from(tiny: Tiny) -> None:
    folder = tiny()
    by_file = load_rows(load_project(folder)).digest
    database(folder)

    assert load_rows(load_project(tiny(text=SQL))).digest == by_file


def test_arguments_are_bound_and_never_pasted_into_the_query(tiny: Tiny) -> None:
    database(tiny())
    folder = tiny(text=SQL.replace("a > :least", "label = :least"))

    table = read_table(load_project(folder, ["data.arguments.least='x'"]))

    assert set(table["label"]) == {"x"}
    with pytest.raises(InputError, match="has no rows"):
        read_table(load_project(folder, ['data.arguments.least="x\' OR 1=1 --"']))


@pytest.mark.parametrize(
    ("source", "query", "words"),
    [
        ("sqlite:///rows.db", "SELECT * FROM nowhere", "data.query on sqlite:///.*rows.db failed: no such table: nowhere"),
        ("sqlite:///rows.db", "SELEC 1", "failed: near .SELEC.: syntax error"),
        ("sqlite:///rows.db", "SELECT a, b AS a FROM rows", "selects two columns named 'a'"),
        ("sqlite:///rows.db", "SELECT a FROM rows WHERE a > :absent", "failed: .*[Aa] value is required for bind parameter 'absent'"),
        ("sqlite:///absent.db", "SELECT 1", "no SQLite file .*absent.db"),
        ("env:EDGEFLEET_TEST_ABSENT", "SELECT 1", "environment variable 'EDGEFLEET_TEST_ABSENT' is not set"),
        ("env:EDGEFLEET_TEST_URL", "SELECT 1", r"nosuchdialect://user:\*\*\*@host/db names no known database"),
    ],
)
def test_a_database_that_fails_says_so_in_one_sentence(
    tiny: Tiny, source: str, query: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEFLEET_TEST_URL", "nosuchdialect://user:geheim@host/db")
    folder = tiny()
    database(folder)

    with pytest.raises(EdgefleetError, match=words) as caught:
        read_table(load_project(tiny(text=SQL), [f"data.source={source!r}", f"data.query={query!r}", "data.arguments={}"]))

    assert "\n" not in str(caught.value)
    assert "geheim" not in str(caught.value)


def test_a_driver_that_is_not_installed_exits_78_with_the_line_that_installs_it(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEFLEET_TEST_URL", "oracle+cx_oracle://user:geheim@host/db")

    with pytest.raises(MissingPartError, match=r"oracle\+cx_oracle://user:\*\*\*@host/db needs the driver .*: pip install") as caught:
        read_table(load_project(tiny(text=SQL), ["data.source='env:EDGEFLEET_TEST_URL'"]))

    assert "geheim" not in str(caught.value)


def test_a_server_that_is_away_is_named_without_its_password(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEFLEET_TEST_URL", "postgresql+psycopg://user:geheim@127.0.0.1:1/db")

    with pytest.raises(ConfigError, match=r"postgresql\+psycopg://user:\*\*\*@127.0.0.1:1/db failed: .*[Cc]onnection") as caught:
        read_table(load_project(tiny(text=SQL), ["data.source='env:EDGEFLEET_TEST_URL'"]))

    assert "\n" not in str(caught.value)
    assert "geheim" not in str(caught.value)


def test_the_url_may_come_from_the_environment(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny()
    database(folder)
    monkeypatch.setenv("EDGEFLEET_TEST_URL", "sqlite:///rows.db")

    assert len(read_table(load_project(tiny(text=SQL), ["data.source='env:EDGEFLEET_TEST_URL'"]))) == 600


def test_a_malformed_url_is_refused_without_being_shown(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEFLEET_TEST_URL", "postgresql//user:geheim@host")

    with pytest.raises(ConfigError, match="is no database URL") as caught:
        read_table(load_project(tiny(text=SQL), ["data.source='env:EDGEFLEET_TEST_URL'"]))

    assert "geheim" not in str(caught.value)


FUNCTION = """
import pandas

def rows(n: int, kind: str = "good", path: str = ""):
    if kind == "bad":
        raise ValueError("kind must be good")
    if kind == "list":
        return []
    return pandas.DataFrame({"a": range(n), "b": 0.5, "c": 0.5, "label": ["x", "y"] * (n // 2), "split": "train", "row_id": range(n)})
"""


def with_function(tiny: Tiny, arguments: str, source: str = "made:rows") -> Project:
    folder = tiny(text=TINY.replace('source = "rows.csv"', f'source = "{source}"\narguments = {arguments}'))
    (folder / "made.py").write_text(FUNCTION)
    return load_project(folder)


def test_a_function_beside_the_project_file_gives_the_rows_and_leaves_the_path_alone(tiny: Tiny) -> None:
    before = list(sys.path)

    table = read_table(with_function(tiny, "{ n = 40 }"))

    assert len(table) == 40
    assert sys.path == before


@pytest.mark.parametrize(
    ("arguments", "source", "words"),
    [
        ("{ m = 40 }", "made:rows", "data.arguments do not fit 'made:rows'"),
        ('{ n = 40, kind = "bad" }', "made:rows", "refused its arguments .*: kind must be good"),
        ('{ n = 40, kind = "list" }', "made:rows", "returned list, expected a pandas DataFrame"),
        ("{ n = 40 }", "made:lines", "has no function 'lines'"),
        ("{ n = 40 }", "nowhere_to_be_found:rows", "no module 'nowhere_to_be_found'"),
        ("{}", "absent.csv", "absent.csv cannot be read: No such file"),
    ],
)
def test_a_source_that_cannot_be_used_is_explained(tiny: Tiny, arguments: str, source: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read_table(with_function(tiny, arguments, source))


def test_the_fingerprint_of_a_file_is_that_of_its_bytes(tiny: Tiny) -> None:
    first = source_fingerprint(load_project(tiny()))
    again = source_fingerprint(load_project(tiny()))
    other = source_fingerprint(load_project(tiny(tiny_rows(seed=1))))

    assert first == again
    assert first != other


def test_the_fingerprint_of_a_function_changes_with_code_arguments_and_the_files_they_name(tiny: Tiny) -> None:
    project = with_function(tiny, '{ n = 40, path = "rows.csv" }')
    first = source_fingerprint(project)

    with (project.folder / "rows.csv").open("a") as stream:
        stream.write("1,1,1,x,train,more\n")
    of_file = source_fingerprint(project)
    (project.folder / "made.py").write_text(FUNCTION + "\n# changed\n")
    of_code = source_fingerprint(project)
    of_arguments = source_fingerprint(load_project(project.folder, ["data.arguments.n=42"]))

    assert len({first, of_file, of_code, of_arguments}) == 4
    assert source_fingerprint(project) == of_code


def test_the_fingerprint_of_a_function_changes_with_the_files_in_a_folder_that_an_argument_names(tiny: Tiny) -> None:
    project = with_function(tiny, '{ n = 40, path = "many" }')
    below = project.folder / "many" / "below"
    below.mkdir(parents=True)
    (below / "one.csv").write_text("1\n")
    first, again = source_fingerprint(project), source_fingerprint(project)

    (below / "one.csv").write_text("22\n")
    changed = source_fingerprint(project)
    (below / "two.csv").write_text("22\n")

    assert first == again
    assert len({first, changed, source_fingerprint(project)}) == 3


def test_a_folder_of_too_many_files_is_always_read(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functions, "MAX_FOLDER_FILES", 2)
    project = with_function(tiny, '{ n = 40, path = "many" }')
    (project.folder / "many").mkdir()
    for name in "abc":
        (project.folder / "many" / name).write_text(name)

    assert source_fingerprint(project) is None


def test_a_database_has_no_fingerprint(tiny: Tiny) -> None:
    assert source_fingerprint(load_project(tiny(text=SQL))) is None


def test_gaps_among_truths_give_the_same_digest_in_every_process() -> None:
    made = "pandas.DataFrame({'a': pandas.array([True, None, False], dtype='boolean')})"
    code = f"import pandas; from trainer.sources import content_digest; print(content_digest({made}))"

    digests = {subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout for _ in range(3)}

    assert len(digests) == 1


def test_the_content_digest_tells_cells_names_and_missing_values_apart() -> None:
    tables: list[dict[str, list[Any]]] = [
        {"a": ["x", "y"]},
        {"a": ["x", None]},
        {"a": ["x", ""]},
        {"b": ["x", "y"]},
        {"a": [1.0, 2.0]},
        {"a": [1, 2]},
        {"a": ["x\0y", ""]},
        {"a": ["xy"]},
    ]

    digests = [content_digest(pandas.DataFrame(table)) for table in tables]

    assert len(set(digests)) == len(tables)
    assert digests[0] == content_digest(pandas.DataFrame({"a": pandas.Series(["x", "y"], dtype=object)}))
