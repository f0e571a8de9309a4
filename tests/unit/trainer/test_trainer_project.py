from collections.abc import Callable
from pathlib import Path

import pytest

from edgefleet.errors import ConfigError
from tests.unit.trainer.conftest import DIGITS, TINY
from trainer import load_project

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
    project = load_project(tiny(), ["data.arguments.shuffle_labels=true", "goal.minimum=0.7", 'search.candidates=["conv"]'])

    assert project.data.arguments == {"shuffle_labels": True}
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
        ("minimum = 0.6", 'minimum = "high"', "Expected `float`, got `str` - at `\\$.goal.minimum`"),
        ("minimum = 0.6", "minimum = 60", "goal.minimum = 60.0 is not between 0 and 1"),
        ("minimum = 0.6", "minimum = nan", "goal.minimum = nan is not between 0 and 1"),
        ("minimum = 0.6", "", "missing required field `minimum`"),
        ("minimum = 0.6", "minimum = 0.6\nnoninferior_margin = 0", "noninferior_margin = 0 could never be passed"),
        ("seed = 3", "seed = -1", "search.seed = -1 is not between 0"),
        ("block_rows = 10", "block_rows = 1", "data.block_rows = 1 is not between 10"),
        ("inputs = [", "shape = [2, 2]\ninputs = [", r"lists 3 inputs, schema.shape = \[2, 2\] needs 4"),
        ('name = "b"', 'name = "a"', "two inputs have the same name"),
        ('name = "tiny"', 'name = "Tiny Project"', "'Tiny Project' is not an identifier"),
        ("[search]", "[tracking]\nurl = 'x'\n[search]", r"table \[tracking\] is not supported by this version; remove it"),
        ("[search]", "[search", "no valid TOML"),
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
        ('shape = [2, 2]\npattern = { name = "p{0}" }', "two inputs have the same name; a pattern over shape"),
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


def test_a_project_file_of_a_megabyte_is_not_parsed(tiny: Tiny) -> None:
    folder = tiny(text=TINY + "#" * 1_000_000)

    with pytest.raises(ConfigError, match="larger than the limit of 262144 bytes"):
        load_project(folder)
