import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas
import pytest

from edgefleet.errors import InputError
from tests.unit.trainer.conftest import TINY, tiny_rows
from trainer.dataset import DataSet
from trainer.load import load_rows
from trainer.project import Project, load_project

Tiny = Callable[..., Path]


def test_rows_become_a_float32_matrix_and_class_indices(tiny: Tiny) -> None:
    rows = load_rows(load_project(tiny()))

    assert rows.x.shape == (600, 3)
    assert rows.x.dtype == np.float32
    assert rows.classes == ["x", "y", "z"]
    assert rows.label[:4].tolist() == [0, 1, 2, 0]
    assert rows.row_id[0] == "row-0"
    assert set(rows.slice) == {"all"}
    assert (rows.group, rows.time, rows.weight, rows.breaches) == (None, None, None, 0)


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
        ("500,0,0,x,train,row-0", "row 0, column a: 500.0, expected a finite number from -100 to 100"),
        (",0,0,x,train,row-0", "row 0, column a: nothing, expected a finite number"),
        ("1,inf,0,x,train,row-0", "row 0, column b: inf, expected a finite number or nothing"),
        ("1,1e39,0,x,train,row-0", "row 0, column b: 1e+39, expected a finite number"),  # beyond float32
        ("nan,0,0,x,train,row-0", "row 0, column a: 'nan', expected a finite number"),
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
        ("row-7", "row-3", r"column row_id: 'row-3' stands in rows 3 and 7 \(.*ids must be unique"),
        ("x,train", "v,test", "class 'v' has no training rows"),
    ],
)
def test_rows_without_what_training_needs_are_refused(tiny: Tiny, old: str, new: str, words: str) -> None:
    text = "\n".join(tiny_rows()).replace(old, new)

    with pytest.raises(InputError, match=words):
        load_rows(load_project(tiny(text.split("\n"))))


def test_a_table_without_rows_is_refused(tiny: Tiny) -> None:
    with pytest.raises(InputError, match="has no rows"):
        load_rows(load_project(tiny(tiny_rows()[:1])))


TABLE = """
[goal]
name = "some"
question = "What?"
{goal}

[data]
source = "absent.csv"
{data}

[schema]
numbers = ["a"]

[search]
candidates = ["hist_boosting"]
"""


def project_of(tmp_path: Path, goal: str = "", data: str = 'splits = { method = "random" }', more: str = "") -> Project:
    folder = tmp_path / "some"
    folder.mkdir(exist_ok=True)
    (folder / "project.toml").write_text(TABLE.format(goal=goal, data=data) + more)
    return load_project(folder)


def table_of(rows: int = 60, **columns: object) -> pandas.DataFrame:
    return pandas.DataFrame({"a": np.arange(rows, dtype=float), "label": ["no", "yes"] * (rows // 2)} | columns)


REGRESSION = 'task = "regression"\nmetric = "rmse"'
ANOMALY = 'task = "anomaly"\nmetric = "auc"'
RUL = 'task = "rul"\nmetric = "rmse"'


def test_a_regression_keeps_its_target_as_numbers(tmp_path: Path) -> None:
    rows = load_rows(project_of(tmp_path, REGRESSION), table_of(label=np.arange(60) / 3))

    assert rows.label.dtype == np.float64
    assert rows.label[3] == 1.0
    assert rows.classes == []


@pytest.mark.parametrize(("positive", "strange"), [("", "yes"), ('positive = "no"', "no")])
def test_strange_rows_are_those_of_the_positive_class_else_of_the_last(tmp_path: Path, positive: str, strange: str) -> None:
    table = table_of()

    rows = load_rows(project_of(tmp_path, f"{ANOMALY}\n{positive}"), table)

    assert rows.classes == ["normal", "strange"]
    assert (rows.label == (table["label"] == strange)).all()


def test_class_names_do_not_depend_on_how_a_source_types_them(tmp_path: Path) -> None:
    project = project_of(tmp_path)
    kinds = [[0, 1] * 30, [0.0, 1.0] * 30, ["0", "1"] * 30]

    digests = {load_rows(project, table_of(label=kind)).digest for kind in kinds}

    assert len(digests) == 1


def test_remaining_life_is_the_rows_to_the_end_of_the_group(tmp_path: Path) -> None:
    project = project_of(tmp_path, f"{RUL}\ncap = 8", 'label = ""\ngroup = "unit"\nsplits = { method = "group" }')
    table = table_of(unit=np.repeat(list("abcdef"), 10)).drop(columns="label")

    rows = load_rows(project, table)

    assert rows.label.tolist() == [8, 8, 7, 6, 5, 4, 3, 2, 1, 0] * 6


def test_remaining_life_is_counted_in_time_where_there_is_a_time_column(tmp_path: Path) -> None:
    project = project_of(tmp_path, RUL, 'label = ""\ngroup = "unit"\ntime = "t"\nsplits = { method = "group" }')
    table = table_of(unit=np.tile(list("abc"), 20), t=np.arange(60) // 3 * 2.5)  # groups interleaved, one row each 2.5 s

    rows = load_rows(project, table)

    assert rows.label[:6].tolist() == [47.5, 47.5, 47.5, 45.0, 45.0, 45.0]
    assert rows.label[-3:].tolist() == [0, 0, 0]


def test_a_refused_last_row_is_still_the_end_of_its_group(tmp_path: Path) -> None:
    project = project_of(tmp_path, RUL, 'label = ""\ngroup = "unit"\nsplits = { method = "group" }')
    table = table_of(unit=np.repeat(list("abcdef"), 10)).drop(columns="label")
    table.loc[9, "a"] = np.inf

    rows = load_rows(project, table)

    assert rows.breaches == 1
    assert rows.label[:10].tolist() == [9, 8, 7, 6, 5, 4, 3, 2, 1, 9]


@pytest.mark.parametrize(
    ("goal", "columns", "words"),
    [
        ("", {"label": "no"}, "column 'label' has 1 classes; at least 2"),
        ("", {"label": [f"class {i}" for i in range(1200)]}, "1200 classes, the limit is 1000; is goal.task = 'regression' meant"),
        ('positive = "maybe"', {}, "goal.positive = 'maybe' is no value of column 'label', which has no, yes"),
        ("costs = { no = { maybe = 3 } }", {}, "goal.costs names class 'maybe', which column 'label' does not have"),
        (REGRESSION, {"label": 7.0}, "the target 'label' is 7 in every row; there is nothing to learn"),
        (REGRESSION, {"label": [*range(1199), np.nan]}, "row 1199, column label: nothing is no finite number"),
        (REGRESSION, {"label": [*range(1199), np.inf]}, "row 1199, column label: inf is no finite number"),
        (REGRESSION, {}, "row 0, column label: 'no' is no finite number"),
        (ANOMALY, {"label": "no"}, "has 1 classes"),
        (ANOMALY + "\ncosts = { yes = { no = 3 } }", {}, "goal.costs names class 'yes', which goal.task = 'anomaly' does not have"),
        ("", {"a": np.inf}, "none of 1200 rows obeys the schema. row 0, column a: inf, expected a finite number"),
        ("", {"a": np.nan}, "none of 1200 rows obeys the schema. row 0, column a: nothing, expected"),
    ],
)
def test_labels_and_inputs_that_teach_nothing_are_refused(tmp_path: Path, goal: str, columns: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        load_rows(project_of(tmp_path, goal), table_of(1200, **columns))


def test_an_input_that_is_missing_in_every_training_row_is_refused(tiny: Tiny) -> None:
    lines = [",".join([a, "" if "train" in rest else b, rest]) for a, b, rest in (line.split(",", 2) for line in tiny_rows())]

    with pytest.raises(InputError, match="input 'b' is missing in every training row; leave it out of"):
        load_rows(load_project(tiny(lines)))


def test_a_target_that_is_constant_in_training_is_refused(tmp_path: Path) -> None:
    label = np.where(np.arange(60) < 36, 1.0, np.arange(60))

    with pytest.raises(InputError, match="the target is 1 in every training row"):
        load_rows(project_of(tmp_path, REGRESSION, 'splits = { method = "time" }'), table_of(label=label))


def with_category(folder: Path, name: str, category: str, source: str = "absent.csv") -> Project:
    path = folder / "project.toml"
    inputs = f'inputs = [{{ name = "{name}", kind = "category", categories = ["{category}"] }}]'
    path.write_text(path.read_text().replace('numbers = ["a"]', inputs).replace("absent.csv", source))
    return load_project(folder)


def test_categories_become_their_index_unseen_minus_one_and_codes_stay_text(tmp_path: Path) -> None:
    folder = project_of(tmp_path).folder
    (folder / "rows.csv").write_text(
        "code,label\n" + "\n".join(f"{code},{label}" for label, code in zip("xy" * 40, ["01", "1"] * 40, strict=True))
    )
    text = (folder / "project.toml").read_text().replace("absent.csv", "rows.csv")
    (folder / "project.toml").write_text(
        text.replace('numbers = ["a"]', 'inputs = [{ name = "code", kind = "category", categories = ["01"] }]')
    )

    rows = load_rows(load_project(folder))

    assert rows.x[:4, 0].tolist() == [0, -1, 0, -1]
    assert rows.breaches == 0


def test_a_category_written_with_combining_characters_is_the_same_category(tmp_path: Path) -> None:
    folder = project_of(tmp_path).folder
    text = (folder / "project.toml").read_text()
    (folder / "project.toml").write_text(
        text.replace('numbers = ["a"]', 'inputs = [{ name = "a", kind = "category", categories = ["caf\u00e9"] }]')
    )

    rows = load_rows(load_project(folder), table_of(a=["cafe\u0301", "caf\u00e9"] * 30))

    assert set(rows.x[:, 0].tolist()) == {0}


def test_slices_are_declared_columns_and_empty_cells_are_a_slice_of_their_own(tmp_path: Path) -> None:
    project = project_of(
        tmp_path, data='slice = "place"\nslices = ["shift"]\nsplits = { method = "random" }', more='\n[gates]\nfairness = ["sex"]\n'
    )
    table = table_of(place=["n", "s"] * 30, shift=["day", None] * 30, sex=[0, 1] * 30)

    rows = load_rows(project, table)

    assert list(rows.slices) == ["place", "shift", "sex"]
    assert rows.slice[:2].tolist() == ["n", "s"]
    assert rows.slices["shift"][:2].tolist() == ["day", "missing"]
    assert rows.slices["sex"][:2].tolist() == ["0", "1"]


def test_declared_weights_are_kept_beside_their_rows(tmp_path: Path) -> None:
    rows = load_rows(project_of(tmp_path, data='weight = "w"\nsplits = { method = "time", gap = 2 }'), table_of(w=np.arange(60.0)))

    assert rows.weight is not None
    assert rows.weight.tolist() == rows.x[:, 0].tolist()


@pytest.mark.parametrize(
    ("weight", "words"), [(-1.0, "row 0, column w: a weight is at least 0"), (np.nan, "row 0, column w: nothing is no finite")]
)
def test_a_wrong_weight_is_refused(tmp_path: Path, weight: float, words: str) -> None:
    project = project_of(tmp_path, data='weight = "w"\nsplits = { method = "random" }')

    with pytest.raises(InputError, match=words):
        load_rows(project, table_of(w=[weight] + [1.0] * 59))


def test_a_negative_weight_is_named_and_not_the_zero_before_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="row 2, column w: a weight is at least 0"):
        load_rows(project_of(tmp_path, data='weight = "w"\nsplits = { method = "random" }'), table_of(w=[0.0, 1.0, -1.0] + [1.0] * 57))


TIMED = 'time = "t"\ngroup = "unit"\nsplits = { method = "time" }'


def test_iso_dates_become_seconds(tmp_path: Path) -> None:
    dates = pandas.date_range("2024-01-01", periods=60, freq="90s")

    for column in (dates, dates.astype(str), dates.tz_localize("Europe/Berlin"), dates.as_unit("ns")):
        rows = load_rows(project_of(tmp_path, data='time = "t"\nsplits = { method = "time" }'), table_of(t=column))

        assert rows.time is not None
        assert np.diff(rows.time).tolist() == [90.0] * 59
        assert rows.time[0] % 3600 == 0


def test_a_row_before_an_earlier_one_of_its_group_is_a_breach(tmp_path: Path) -> None:
    time = np.repeat(np.arange(30.0), 2)
    time[20] = 3.0  # of unit a; its row before has time 9

    rows = load_rows(project_of(tmp_path, data=TIMED), table_of(unit=["a", "b"] * 30, t=time))

    assert rows.breaches == 1
    assert rows.named_breaches == ["row 20, column t: 3.0, expected a time not before an earlier row's of the same group; sort the source"]


def test_a_time_that_cannot_be_read_is_a_breach(tmp_path: Path) -> None:
    dates = pandas.Series(pandas.date_range("2024-01-01", periods=60, freq="1s").astype(str))
    dates[5] = "yesterday"

    rows = load_rows(project_of(tmp_path, data=TIMED), table_of(unit="a", t=dates))

    assert rows.named_breaches == ["row 5, column t: 'yesterday', expected a number of seconds or an ISO date"]


def test_unlabelled_rows_are_left_out_only_when_asked(tmp_path: Path) -> None:
    label = ["no", "yes", None] * 20

    rows = load_rows(project_of(tmp_path, data='unlabelled = "drop"\nsplits = { method = "random" }'), table_of(label=label))

    assert len(rows) == 40
    assert rows.breaches == 0
    with pytest.raises(InputError, match="row 2, column label: empty"):
        load_rows(project_of(tmp_path), table_of(label=label))


def test_a_gap_between_splits_belongs_to_none(tmp_path: Path) -> None:
    rows = load_rows(project_of(tmp_path, data='splits = { method = "time", gap = 4 }'), table_of())

    assert len(rows) == 52
    assert rows.row_id[rows.split == "validation"].tolist() == [str(i) for i in range(36, 44)]


@pytest.mark.parametrize(("setting", "left"), [("keep", 60), ("purge", 57)])
def test_rows_that_come_again_in_a_later_split_are_left_out_when_asked(tmp_path: Path, setting: str, left: int) -> None:
    table = table_of()
    table.loc[[0, 1, 40], "a"] = 59.0  # two training rows and a validation row equal to the last test row

    rows = load_rows(project_of(tmp_path, data=f'splits = {{ method = "time", equal_rows = "{setting}" }}'), table)

    assert len(rows) == left
    assert rows.row_id[-1] == "59"


def test_random_splits_part_no_equal_rows(tmp_path: Path) -> None:
    rows = load_rows(project_of(tmp_path), table_of(a=[*range(40), *range(10), *[-0.0] * 10]))

    for value in range(10):
        assert len(set(rows.split[rows.x[:, 0] == value])) == 1


WINDOW = "\n[cleaning.window]\nrows = 4\n"


def windows_of(rows: DataSet) -> list[tuple[str, list[float]]]:
    return [(str(split), window[:, 0].tolist()) for split, window in zip(rows.split, rows.x, strict=True)]


def test_no_window_reaches_over_the_border_of_a_split_or_a_group(tmp_path: Path) -> None:
    project = project_of(tmp_path, data=TIMED, more=WINDOW)
    table = table_of(unit=["a", "b"] * 30, t=np.arange(60.0))

    rows = load_rows(project, table)

    assert rows.x.shape[1:] == (4, 1)
    for _, window in windows_of(rows):
        assert window == [window[0] + 2 * step for step in range(4)]  # every other row is of the same unit
    pairs = itertools.combinations(["train", "validation", "test"], 2)
    seen = {
        name: {value for split, window in windows_of(rows) if split == name for value in window} for name in ("train", "validation", "test")
    }
    assert all(not seen[one] & seen[other] for one, other in pairs)
    assert len(rows.of("train")) == 2 * (18 - 3)


def test_a_window_stands_at_its_last_row(tmp_path: Path) -> None:
    rows = load_rows(project_of(tmp_path, data='splits = { method = "time" }', more=WINDOW), table_of())

    assert rows.row_id.tolist() == [str(int(window[-1])) for _, window in windows_of(rows)]
    assert [("no", "yes")[int(window[-1]) % 2] for _, window in windows_of(rows)] == [rows.classes[label] for label in rows.label]


def test_an_unlabelled_row_still_counts_inside_windows(tmp_path: Path) -> None:
    label = [None, "no", None, "yes"] * 15
    data = 'unlabelled = "drop"\nsplits = { method = "time" }'

    rows = load_rows(project_of(tmp_path, data=data, more=WINDOW), table_of(label=label))

    assert all(window[-1] % 2 == 1 for _, window in windows_of(rows))
    assert all(window == [window[0] + step for step in range(4)] for _, window in windows_of(rows))


def test_groups_shorter_than_the_window_are_refused(tmp_path: Path) -> None:
    project = project_of(tmp_path, data=TIMED, more=WINDOW.replace("4", "400"))

    with pytest.raises(InputError, match="no group has 400 rows in one split, the longest 18; set cleaning"):
        load_rows(project, table_of(unit=["a", "b"] * 30, t=np.arange(60.0)))


def test_the_tiny_project_is_unchanged_by_reading_it_twice(tiny: Tiny) -> None:
    project = load_project(tiny(text=TINY))
    table = pandas.read_csv(project.folder / "rows.csv")
    before = table.copy()

    assert load_rows(project, table).digest == load_rows(project, table).digest
    pandas.testing.assert_frame_equal(table, before)
