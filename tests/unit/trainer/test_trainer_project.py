import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from edgefleet.errors import ConfigError
from tests.unit.trainer.conftest import DIGITS, TINY
from trainer.cleaning import refusals
from trainer.project import load_project
from trainer.settings import Tables
from trainer.settings_page import settings_page

Tiny = Callable[..., Path]


def test_the_digits_project_spells_out_64_inputs() -> None:
    project = load_project(DIGITS)

    assert project.name == "digits"
    assert project.shape == [8, 8]
    assert [column.name for column in project.inputs][:9] == ["p00", "p01", "p02", "p03", "p04", "p05", "p06", "p07", "p10"]
    assert (project.inputs[63].name, project.inputs[63].high, project.inputs[63].range_policy) == ("p77", 16.0, "reject")


def test_the_folders_name_is_the_projects_name_when_none_is_given(tiny: Tiny) -> None:
    folder = tiny(text=TINY.replace('name = "tiny"\n', ""))

    assert load_project(folder).name == "tiny"


def test_a_change_from_the_command_line_wins_over_the_file(tiny: Tiny) -> None:
    project = load_project(tiny(), ["data.splits.seed=7", "goal.minimum=0.7", 'search.candidates=["conv"]'])

    assert project.data.splits.seed == 7
    assert project.goal.minimum == 0.7
    assert project.search.candidates == ["conv"]


def test_comments_do_not_change_the_digest_but_settings_do(tiny: Tiny) -> None:
    plain = load_project(tiny()).digest

    assert load_project(tiny(text=TINY + "\n# a comment\n")).digest == plain
    assert load_project(tiny(), ["goal.minimum=0.61"]).digest != plain


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("minimum = 0.6", "minimun = 0.6", r"key goal.minimun is unknown; did you mean goal.minimum\?"),
        ("[search]", "[serach]", r"key serach is unknown; did you mean search\?"),
        (
            '{ name = "b", missing = true }',
            '{ name = "b", mising = true }',
            r"key schema.inputs.mising is unknown; did you mean schema.inputs.missing",
        ),
        ("minimum = 0.6", 'minimum = "high"', r"Expected `float \| null`, got `str` - at `\$.goal.minimum`"),
        ("minimum = 0.6", "minimum = 60", "goal.minimum = 60.0 is not between 0 and 1"),
        ("minimum = 0.6", "minimum = nan", "goal.minimum = nan is not between 0 and 1"),
        ("minimum = 0.6", "minimum = 0.6\nnoninferior_margin = 0", "goal.noninferior_margin = 0.0 is not above 0"),
        ("seed = 3", "seed = -1", "search.seed = -1 is not between 0"),
        ("block_rows = 10", "block_rows = 1", "data.block_rows = 1 is not between 10"),
        ("inputs = [", "shape = [2, 2]\ninputs = [", r"lists 3 inputs, schema.shape = \[2, 2\] needs 4"),
        ('name = "b"', 'name = "a"', "two inputs have the same name"),
        ('name = "tiny"', 'name = "Tiny Project"', "'Tiny Project' is not an identifier"),
        ("[search]", "[retrain]\nurl = 'x'\n[search]", r"table \[retrain\] is not supported by this version; remove it"),
        ("minimum = 0.6", "maximum = 0.6", "goal.maximum does not fit goal.metric = 'accuracy', where more is better; set goal.minimum"),
        ("minimum = 0.6", "minimum = 0.6\nmetric = 'log_loss'", "where less is better; set goal.maximum"),
        ("minimum = 0.6", "minimum = 0.6\nmaximum = 1.0", "exclude each other"),
        ("minimum = 0.6", "task = 'regression'", "goal.metric = 'accuracy' does not fit goal.task = 'regression'; use rmse, mae, r2"),
        ("minimum = 0.6", "minimum = 0.6\ncap = 125", "goal.cap is for goal.task = 'rul' only"),
        ("minimum = 0.6", "costs = { x = { y = -1 } }", r"goal.costs.x.y = -1.0 is not at least 0"),
        ("minimum = 0.6", "costs = { x = { x = 2 } }", "a right answer costs 0"),
        ("Which of three?", " ", "goal.question is empty"),
        ('"rows.csv"', '"sqlite:///rows.db"', "data.query must hold the SQL"),
        ('"rows.csv"', '"rows.csv"\nquery = "SELECT 1"', "data.query needs a database URL"),
        ('"rows.csv"', '"rows.csv"\narguments = { n = 1 }', "a file takes none"),
        ('"rows.csv"', '"rows.csv"\nlabel = ""', "data.label is empty; goal.task = 'classification' needs"),
        ('"rows.csv"', '"rows.csv"\nlabel = "a"', "column 'a' is data.label and an input"),
        ('"rows.csv"', '"rows.csv"\nsplits = { method = "group" }', "needs data.group"),
        ('"rows.csv"', '"rows.csv"\nsplits = { method = "random", gap = 3 }', "data.splits.gap is for data.splits.method = 'time' only"),
        ('"rows.csv"', '"rows.csv"\nsplits = { method = "time", validation = 0.5, test = 0.5 }', "leaves no training rows"),
        ('"rows.csv"', '"rows.csv"\nsplits = { validation = 0 }', "data.splits.validation = 0.0 is not above 0 and at most 0.9"),
        ('candidates = ["forest"]', "candidates = []", "search.candidates is empty"),
        ("seed = 3", "seed = 3\nparameters = { tree = { depth = 3 } }", "'tree' is not among search.candidates"),
        ("seed = 3", "seed = 3\nseconds = 0", "search.seconds = 0.0 is not above 0"),
        ("[search]", "[gates]\nrobustness_drop = { fog = 0.1 }\n[search]", "gates.robustness_drop.fog is unknown; known: missing_5"),
        ("[search]", '[gates]\nallow_inconclusive = ["G11"]\n[search]', "names 'G11'; gates are G1"),
        ("[search]", "[gates]\nfairness_gap = 0.1\n[search]", "fairness_gap needs gates.fairness"),
        ("[search]", "[cleaning]\nsteps = [{ step = 'clip' }]\n[search]", r"cleaning.steps\[0\] \(clip\): a clip needs low, high or both"),
        ("[search]", "[cleaning]\nsteps = [{ step = 'impute', value = 'x' }]\n[search]", "value = 'x' is not median"),
        ("[search]", "[cleaning.window]\nrows = 4\nlags = [4]\n[search]", "lags holds 4, which is not between 1 and 3"),
        ("[search]", "[cleaning.window]\nrows = 4\nhold = 1\n[search]", "need cleaning.window.rate_s"),
        ('"rows.csv"', '"postgresql://u:geheim@h/d"\nquery = "SELECT 1"', "data.source holds a password, .* write env:NAME"),
        ("seed = 3", 'seed = 3\nstorage = "postgresql://u:geheim@h/d"', "search.storage holds a password"),
        ("[search]", "[cleaning.window]\nrows = 4\nreset_after = 100001\n[search]", "reset_after = 100001 is not between 1 and 100000"),
        (
            '"rows.csv"',
            '"made:rows"\narguments = { since = 2024-01-01 }',
            "data.arguments.since = 2024-01-01 holds a date .* write it as text",
        ),
        ('"rows.csv"', '"made:rows"\narguments = { at = [1.0, inf] }', "data.arguments.at = .* not finite"),
        ("seed = 3", "seed = 3\nparameters = { forest = { max_features = nan } }", "search.parameters.forest holds a date or a number"),
        ("[search]", "[cleaning.window]\nrows = 4\nrate_s = 1\n[search]", "rate_s needs data.time"),
        ("[search]", "[cleaning.window]\nrows = 1\n[search]", "cleaning.window.rows = 1 is not between 2 and 4096"),
        ('{ name = "b", missing = true }', '{ name = "b", low = 2, high = 1 }', "input 'b': low = 2 is above high = 1"),
        ('{ name = "b", missing = true }', '{ name = "b", kind = "category" }', "input 'b': 0 categories, expected 1 to"),
        ('{ name = "b", missing = true }', '{ name = "b", categories = ["u"] }', "categories are for kind = 'category'"),
        ('{ name = "b", missing = true }', '{ name = "b", kind = "category", categories = ["u", "u"] }', "a category is named twice"),
        ("[search]", "[search", "no valid TOML"),
        ("[search]", '[device]\nprofile = "toaster"\n[search]', "'toaster' - at `[$].device.profile`; one of cortex-m4, .*, x86-server"),
    ],
)
def test_a_wrong_setting_is_named_with_its_remedy(tiny: Tiny, old: str, new: str, words: str) -> None:
    folder = tiny(text=TINY.replace(old, new, 1))

    with pytest.raises(ConfigError, match=words):
        load_project(folder)


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ("", "needs either schema.pattern with schema.shape, or schema.inputs"),
        ('pattern = { name = "p{0}" }', "schema.pattern needs schema.shape"),
        ('shape = [2, 2]\npattern = { name = "p{0}" }', "two inputs have the same name 'p0'; a pattern needs"),
        ('shape = [2, 2]\npattern = { name = "p{2}" }', "does not fit shape"),
        ('shape = [0, 2]\npattern = { name = "p{0}{1}" }', "is not a list of positive numbers"),
        ('shape = [100000, 100000]\npattern = { name = "p{0}{1}" }', "with a product up to 65536"),
    ],
)
def test_a_schema_that_cannot_be_spelled_out_is_refused(tiny: Tiny, schema: str, words: str) -> None:
    before, _, rest = TINY.partition("[schema]")
    folder = tiny(text=f"{before}[schema]\n{schema}\n[search]{rest.partition('[search]')[2]}")

    with pytest.raises(ConfigError, match=words):
        load_project(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("goal.minimum", "expected table.key=value"),
        ("minimum=1", "expected table.key=value"),
        ("data.source=rows.csv", "is no TOML value; text needs quotes"),
        ("goal.minimum.deep=1", "'minimum' is a value, not a table"),
        ("goal.minimu=0.5", "did you mean goal.minimum"),
    ],
)
def test_a_wrong_change_is_named(tiny: Tiny, change: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_project(tiny(), [change])


def test_a_folder_without_project_toml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="name a folder that holds a project"):
        load_project(tmp_path)


def test_a_project_file_of_more_than_a_mebibyte_is_not_parsed(tiny: Tiny) -> None:
    folder = tiny(text=TINY + "#" * 1_048_577)

    with pytest.raises(ConfigError, match="larger than the limit of 1048576 bytes"):
        load_project(folder)


def test_a_goal_without_a_limit_loads_and_leaves_the_verdict_to_the_gates(tiny: Tiny) -> None:
    goal = load_project(tiny(text=TINY.replace("minimum = 0.6", ""))).goal

    assert (goal.minimum, goal.maximum) == (None, None)


def test_numbers_are_a_short_form_of_inputs_and_come_after_them(tiny: Tiny) -> None:
    project = load_project(tiny(text=TINY.replace("[schema]", '[schema]\nnumbers = ["d", "e"]')))

    assert [column.name for column in project.inputs] == ["a", "b", "c", "d", "e"]
    assert project.shape == [5]
    assert project.inputs[4].missing is False


def test_numbers_alone_are_a_schema(tiny: Tiny) -> None:
    text = TINY[: TINY.index("inputs = [")] + 'numbers = ["a", "b"]\n' + TINY[TINY.index("[search]") :]

    assert [column.name for column in load_project(tiny(text=text)).inputs] == ["a", "b"]


def test_a_window_at_random_is_refused_because_neighbours_share_rows(tiny: Tiny) -> None:
    folder = tiny(text=TINY.replace("[schema]", 'splits = { method = "random" }\n[cleaning.window]\nrows = 3\n[schema]'))

    with pytest.raises(ConfigError, match="puts the same rows on both sides"):
        load_project(folder)


def test_a_category_may_be_imputed_by_one_of_its_texts(tiny: Tiny) -> None:
    category = '{ name = "b", kind = "category", categories = ["u", "v"], missing = true }'
    step = "[cleaning]\nsteps = [{ step = 'impute', columns = ['b'], value = 'v' }]\n[search]"

    project = load_project(tiny(text=TINY.replace('{ name = "b", missing = true }', category).replace("[search]", step)))

    assert not refusals(project.cleaning, project.inputs)


def test_the_tables_are_plain_values_that_load_again(tiny: Tiny) -> None:
    project = load_project(tiny())

    again = msgspec.convert(json.loads(json.dumps(project.tables())), Tables)

    assert again == Tables(**{name: getattr(project, name) for name in Tables.__struct_fields__})


def test_the_page_of_settings_is_what_the_code_says() -> None:
    page = Path(__file__).parents[3] / "docs" / "project-toml.md"

    assert page.read_text() == settings_page(), "write it again: python -m trainer.settings_page docs/project-toml.md"


def test_every_setting_has_a_meaning_on_the_page() -> None:
    rows = [line for line in settings_page().splitlines() if line.startswith("| `")]

    assert len(rows) > 90
    assert all(line.rstrip(" |").rpartition("| ")[2].strip() for line in rows)


@pytest.mark.parametrize(("goal", "task"), [("classification", "classification"), ("rul", "regression"), ("anomaly", "anomaly")])
def test_remaining_useful_life_is_a_regression_to_models(tiny: Tiny, goal: str, task: str) -> None:
    metric = {"classification": "accuracy", "rul": "rmse", "anomaly": "auc"}[goal]

    assert load_project(tiny(text=TINY.replace("minimum = 0.6", f'task = "{goal}"\nmetric = "{metric}"'))).task == task
