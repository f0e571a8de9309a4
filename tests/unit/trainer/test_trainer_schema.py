import re
import tomllib
from pathlib import Path

import numpy as np
import pandas
import pytest

from edgefleet.errors import ConfigError, InputError
from trainer.first_project import write_first_project
from trainer.load import load_rows
from trainer.project import load_project
from trainer.schema import MOST_CATEGORIES, infer_schema, survey

ROWS = 200
RNG = np.random.default_rng(0)


def table_of(**columns: object) -> pandas.DataFrame:
    return pandas.DataFrame({"heat": RNG.normal(20, 3, ROWS), "label": ["no", "yes"] * (ROWS // 2)} | columns)


def test_numbers_and_categories_are_told_apart() -> None:
    kinds = ["pump", "fan", None, "pump"] * (ROWS // 4)

    inputs = {column.name: column for column in infer_schema(table_of(kind=kinds), "label")}

    assert list(inputs) == ["heat", "kind"]
    assert (inputs["heat"].kind, inputs["heat"].missing) == ("number", False)
    assert (inputs["kind"].kind, inputs["kind"].categories, inputs["kind"].missing) == ("category", ["fan", "pump"], True)


def test_texts_that_are_numbers_are_numbers_but_codes_with_a_leading_zero_are_names() -> None:
    inputs = {column.name: column.kind for column in infer_schema(table_of(count=["3", "-4.5"] * 100, code=["01", "2"] * 100), "label")}

    assert inputs == {"heat": "number", "count": "number", "code": "category"}


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ([7] * ROWS, "the same value in every row: '7'"),
        ([None] * ROWS, "no value in any row"),
        (range(1, ROWS + 1), "a different value in every row"),
        ([f"serial {i}" for i in range(ROWS)], "a different value in every row"),
        (pandas.date_range("2024-01-01", periods=ROWS, freq="1h"), "looks like time"),
        ([f"2024-01-01 00:00:{i % 60:02}" for i in range(ROWS)], "looks like time"),
        ([f"word {i % 199}" for i in range(ROWS)], None),
    ],
)
def test_a_column_that_is_no_measurement_is_left_out_with_its_reason(cells: list[object], reason: str | None) -> None:
    left_out = survey(table_of(odd=cells), "label").left_out

    assert (left_out.get("odd") or "None").startswith(str(reason))


def test_ten_thousand_categories_are_left_out_with_a_remedy() -> None:
    words = [f"word {i % 10_000}" for i in range(20_000)]

    left_out = survey(pandas.DataFrame({"heat": RNG.normal(size=20_000), "odd": words, "label": ["a", "b"] * 10_000})).left_out

    assert left_out == {
        "odd": f"10000 different texts, more than {MOST_CATEGORIES}; group the rare ones in the source, or list it in [schema] by hand"
    }


def test_a_column_of_numbers_with_some_words_says_which_remedy_keeps_it() -> None:
    cells = ["broken" if i == 5 else str(i / 7) for i in range(2000)]

    left_out = survey(pandas.DataFrame({"heat": RNG.normal(size=2000), "odd": cells, "label": ["a", "b"] * 1000})).left_out

    assert "1999 of 2000 cells are numbers: mend the others, or name them in data.missing_values" in left_out["odd"]


def test_a_group_and_a_time_and_an_id_are_named() -> None:
    found = survey(
        table_of(machine=np.repeat(range(10), 20), timestamp=np.arange(ROWS) * 0.5, serial=[f"s{i}" for i in range(ROWS)]), "label"
    )

    assert (found.group, found.time, found.id) == ("machine", "timestamp", "serial")
    assert [column.name for column in found.inputs] == ["heat"]


@pytest.mark.parametrize(
    ("label", "task"),
    [(["a", "b"] * 100, "classification"), ([0, 1, 2, 3] * 50, "classification"), (np.arange(ROWS) / 7, "regression")],
)
def test_the_task_is_guessed_from_the_labels_cells(label: list[object], task: str) -> None:
    assert survey(table_of(label=label)).task == task


def test_the_label_is_found_by_its_name_or_is_the_last_column() -> None:
    assert survey(table_of(other=RNG.normal(size=ROWS))).label == "label"
    assert survey(table_of(other=RNG.normal(size=ROWS)).rename(columns={"label": "kind"})).label == "other"


def test_kept_columns_stay_whatever_they_look_like() -> None:
    table = table_of(zero=0.0, count=range(ROWS))

    assert [column.name for column in infer_schema(table, "label", keep=["count", "zero", "heat"])] == ["count", "zero", "heat"]
    with pytest.raises(InputError, match="the data lack 1 of 2 columns: absent"):
        infer_schema(table, "label", keep=["heat", "absent"])
    with pytest.raises(InputError, match="column 'word' cannot be an input: 1000 different texts"):
        infer_schema(pandas.DataFrame({"word": [f"w{i}" for i in range(1000)]}), keep=["word"])


@pytest.mark.parametrize(
    ("table", "label", "words"),
    [
        (table_of().iloc[:0], "", "have no rows"),
        (table_of(), "absent", "no column 'absent'; the data have heat, label"),
        (table_of(heat=1.0), "label", r"no column can be an input \(heat: the same value"),
    ],
)
def test_a_table_without_a_schema_is_refused(table: pandas.DataFrame, label: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        survey(table, label)


def written(tmp_path: Path, table: pandas.DataFrame, label: str = "label") -> Path:
    table.to_csv(tmp_path / "rows.csv", index=False)
    path, _ = write_first_project(tmp_path / "rows.csv", tmp_path / "New Project", label)
    return path


def test_the_first_project_loads_as_it_is_and_its_rows_obey_it(tmp_path: Path) -> None:
    odd = ['say "hi"', "back\\slash", "caf\u00e9", "tab\there"] * (ROWS // 4)
    gaps = [None if i % 10 == 0 else i % 7 for i in range(ROWS)]
    path = written(tmp_path, table_of(odd=odd, gaps=gaps, serial=[f"s{i}" for i in range(ROWS)]))

    project = load_project(path.parent)
    rows = load_rows(project)

    assert project.name == "new-project"
    assert project.data.source == "../rows.csv"
    assert project.data.id == "serial"
    assert [column.name for column in project.inputs] == ["heat", "odd", "gaps"]
    assert [(step.step, step.columns) for step in project.cleaning.steps] == [("impute", ["gaps"]), ("one_hot", ["odd"])]
    assert (project.goal.minimum, project.goal.maximum) == (None, None)
    assert (rows.breaches, len(rows)) == (0, ROWS)
    assert not np.isin(rows.x[:, 1], -1).any()


def test_words_for_missing_values_are_found(tmp_path: Path) -> None:
    table = table_of(wind=["NA" if i % 9 == 0 else str(i % 13) for i in range(ROWS)], place=["?", "NA", "north", "south"] * 50)

    project = load_project(written(tmp_path, table).parent)

    assert project.data.missing_values == ["?", "NA"]
    assert {column.name: column.kind for column in project.inputs} == {"heat": "number", "wind": "number", "place": "category"}
    assert load_rows(project).breaches == 0


def test_codes_in_a_csv_stay_names(tmp_path: Path) -> None:
    project = load_project(written(tmp_path, table_of(code=["007", "12", "3", "01"] * 50)).parent)

    assert project.inputs[1].categories == ["007", "01", "12", "3"]


def test_codes_in_a_csv_with_gaps_stay_names(tmp_path: Path) -> None:
    project = load_project(written(tmp_path, table_of(code=["007", "", "3", "01"] * 50)).parent)

    assert project.inputs[1].categories == ["007", "01", "3"]


def test_rows_without_a_label_are_left_out_by_a_setting_that_says_so(tmp_path: Path) -> None:
    path = written(tmp_path, table_of(label=[None if i == 3 else i / 7 for i in range(ROWS)]))

    assert load_project(path.parent).data.unlabelled == "drop"
    assert len(load_rows(load_project(path.parent))) == ROWS - 1


def test_what_was_observed_and_left_out_stands_in_comments(tmp_path: Path) -> None:
    text = written(tmp_path, table_of(constant=1)).read_text()

    assert re.search(r'\{ name = "heat" \},   # observed \d', text)
    assert "#   constant: the same value in every row: '1'" in text
    assert "# minimum = 0.9   # fill in" in text
    assert tomllib.loads(text)["goal"]["task"] == "classification"


def test_a_project_that_is_there_already_is_not_overwritten(tmp_path: Path) -> None:
    path = written(tmp_path, table_of())
    path.write_text("precious")

    with pytest.raises(ConfigError, match="is there already and is not overwritten"):
        write_first_project(tmp_path / "rows.csv", path.parent)

    assert path.read_text() == "precious"


def test_a_parquet_file_makes_the_same_schema_as_its_csv(tmp_path: Path) -> None:
    table = table_of(kind=["pump", "fan"] * 100, count=[1, 2, 3, 4] * 50)
    by_csv = load_project(written(tmp_path, table).parent)
    table.to_parquet(tmp_path / "rows.parquet")

    path, _ = write_first_project(tmp_path / "rows.parquet", tmp_path / "other", "label")

    assert load_project(path.parent).inputs == by_csv.inputs
