"""Selections as texts: what is read, what is refused with the place and a remedy, and the one normal form."""

from pathlib import Path

import pytest

from edgefleet.errors import InputError
from fleet_server.selection import EVERYBODY, Group, document_of, expanded, matches, meant, read_document, read_selection, written

LABELS = {"site": "hall-1", "hardware": "pi4", "name": "Hall 3, left"}


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("site=hall-1", "site = hall-1"),
        ("site==hall-1", "site = hall-1"),
        ("site in (b, a, b)", "site in (a, b)"),
        ("site in (a)", "site = a"),
        ("not site in (a, b)", "site not in (a, b)"),
        ("not site != a", "site = a"),
        ("site = b or line = 1 or site in (a, b)", "line = 1 or site in (a, b)"),
        ("site = b or site = a", "site in (a, b)"),
        ("site != b and line = 1 and site not in (a, b)", "line = 1 and site not in (a, b)"),
        ("device(d2) or device(d1)", "device(d1, d2)"),
        ("not device(d2) and not device(d1)", "not device(d1, d2)"),
        ("site = b and site = a", "site = a and site = b"),
        ("site != b or site != a", "site != a or site != b"),
        ("not not has(site)", "has(site)"),
        ("b=1 and (a=1 and b=1)", "a = 1 and b = 1"),
        ("a=1 and b=1 or c=1", "a = 1 and b = 1 or c = 1"),
        ("a=1 and (b=1 or c=1)", "(b = 1 or c = 1) and a = 1"),
        ("not a=1 and b=1", "a != 1 and b = 1"),
        ("not (a=1 and b=1)", "not (a = 1 and b = 1)"),
        ("not group(pilots) or device(d2, d1)", "device(d1, d2) or not group(pilots)"),
        ("name = 'Hall 3, left'", "name = 'Hall 3, left'"),
        ("""name = "it's" """, r"name = 'it\'s'"),
        ("'in' = and-so-on", "'in' = and-so-on"),
        ("group = a and has = b", "group = a and has = b"),
        ("  a\n=\t1  ", "a = 1"),
    ],
)
def test_a_text_is_read_into_its_normal_form(text: str, normal: str) -> None:
    assert written(read_selection(text)) == normal
    assert read_selection(normal) == read_selection(text)


@pytest.mark.parametrize(
    ("text", "selected"),
    [
        ("site = hall-1", True),
        ("site = hall-2", False),
        ("site in (hall-2, hall-1) and hardware = pi4", True),
        ("site = hall-2 or hardware = pi4", True),
        ("colour != red", True),  # it has no colour: as in Kubernetes' label selectors
        ("colour not in (red, blue) and has(colour)", False),
        ("has(hardware)", True),
        ("device(d1, d2)", True),
        ("not device(d1)", False),
        ("name = 'Hall 3, left'", True),
        ("site = HALL-1", False),
        ("a = 1 or b = 1 and site = hall-1", False),
    ],
)
def test_a_selection_means_what_it_says(text: str, selected: bool) -> None:
    assert matches(read_selection(text), "d1", LABELS) is selected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the selection is empty; write for example `site = hall-1`"),
        ("site", "it ends at character 5 behind `site`, expected `=`, `!=`, `in (…)` or `not in (…)` behind the label 'site'"),
        ("site =", "it ends at character 7 behind `site =`, expected a value of site"),
        ("site = Hall 3", "'3' stands at character 13 behind `site = Hall`, expected `and`, `or`, or the end. A value with spaces"),
        ("(a=1", "it ends at character 5 behind `(a=1`, expected `and`, `or` or `)`"),
        ("a=1)", "')' stands at character 4 behind `a=1`, expected `and`, `or`, or the end"),
        ("a in ()", "')' stands at character 7 behind `a in (`, expected a value"),
        ("a in (1", "it ends at character 8 behind `a in (1`, expected `,` or `)`"),
        ("all(x)", "'all' stands at character 1, expected `has(label)`, `group(name)`, `device(id)`"),
        ("has(a, b)", "has(…) at character 1 takes one name, not 2; join several by `or`"),
        ("Site = x", "label 'Site' is not an identifier"),
        ("a = ''", "label a='' is not accepted"),
        ("a & b", "'&' at character 3 is not understood: write `and`"),
        ("a > 3", "labels are texts, they have no order"),
        ("a = 'b", "a quote is not closed"),
        ("!a", "'!' at character 1 is not understood: write `not` or `!=`"),
        ("and = 3", "a word of the language stands in quotes where it is a name"),
        ("a = 1 or", "it ends at character 9 behind `a = 1 or`, expected a label, `not`"),
        ("NOT a = 1", "'NOT' stands at character 1, expected `not`, in small letters"),
        ("a = 1 AND b = 1", "'AND' stands at character 7 behind `a = 1`, expected `and`"),
        ("a = '\x1b[31m\nx' b", "label a='\\x1b[31m\\nx' is not accepted"),
        ("device(a,\n\x1b[31m", "it ends at character 16 behind `device(a, [31m`, expected"),
        ("a = 1\n\x1b2J x", "'\\x1b2J' stands at character 7 behind `a = 1`, expected"),
        ("\x1b = \n 1 1", "label '\\x1b' is not an identifier"),
        ("site '(' 1", "'(' stands at character 6 behind `site`, expected `=`, `!=`"),
        ("a not 1", "'1' stands at character 7 behind `a not`, expected `=`"),
        ("(" * 21 + "a=1" + ")" * 21, "more than 20 brackets and `not` lie within each other"),
        ("not " * 21 + "a=1", "more than 20 brackets and `not` lie within each other"),
        ("a in (" + "1," * 1_000 + "1)", "names more than 1000 labels, values and devices"),
        ("a=1 or " * 2_500 + "a=1", "has 17503 characters, the limit is 16384"),
    ],
)
def test_what_is_no_selection_is_refused_with_its_place_and_a_remedy(text: str, words: str) -> None:
    with pytest.raises(InputError) as refused:
        read_selection(text)

    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("document", "normal"),
    [
        ({}, {}),
        ("", {}),
        ({"site": "a", "line": "b"}, {"line": "b", "site": "a"}),
        ("site = a and line = b", {"line": "b", "site": "a"}),
        ("site in (a)", {"site": "a"}),
        ("site = a and site = b", "site = a and site = b"),
        ("site != a", "site != a"),
    ],
)
def test_the_same_selection_has_the_same_document_however_it_was_written(
    document: dict[str, str] | str, normal: dict[str, str] | str
) -> None:
    assert document_of(read_document(document)) == normal
    assert read_document(normal) == read_document(document)


def test_a_group_is_not_evaluated_before_it_is_expanded() -> None:
    asked = read_selection("group(pilots) and not group(old)")

    resolved = expanded(asked, lambda name: {"pilots": read_selection("a=1 and b=1"), "old": read_selection("c != 1")}[name])

    assert written(resolved) == "a = 1 and b = 1 and c = 1"
    assert meant(asked, resolved) == "group(pilots) and not group(old), that is a = 1 and b = 1 and c = 1"
    with pytest.raises(ValueError, match="group 'pilots' is not expanded"):
        matches(Group("pilots"), "d1", {})


def test_everybody_is_all_devices() -> None:
    assert written(EVERYBODY) == "all devices"
    assert matches(EVERYBODY, "d1", {})


def test_every_expression_of_the_documentation_is_one() -> None:
    page = (Path(__file__).parents[3] / "docs" / "selections.md").read_text()
    examples = [
        line.split("`")[1] for line in page.splitlines() if line.startswith("| `") and not line.startswith(("| `GET", "| `PUT", "| `POST"))
    ]

    assert len(examples) == 11
    for text in examples:
        assert read_selection(written(read_selection(text))) == read_selection(text)
