"""A selection means the same as a text, as a document, in normal form, on one device and as SQL; groups change nothing but its length."""

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import event, given
from hypothesis import strategies as st

from fleet_server.regrouping import added, taken
from fleet_server.selection import (
    Devices,
    Group,
    Has,
    Label,
    Selection,
    document_of,
    expanded,
    matches,
    read_document,
    read_selection,
    written,
)
from fleet_server.selection.terms import Every, devices, either, every, label, negated, requiring
from fleet_server.store import selecting
from fleet_server.store.census import Census
from fleet_server.store.metadata import METADATA
from fleet_server.store.tables import DEVICE, DEVICE_LABEL

KEYS = ("site", "in", "a-1")
VALUES = ("x", "y", "and", "it's", 'a "b" \\c', "ü, (z)", "not")
IDS = [f"d{number}" for number in range(12)]
GROUPS = {"one": every([label("site", ["x", "y"]), negated(Has("in"))]), "two": devices(["d1", "d2", "d3"])}

LEAVES: st.SearchStrategy[Selection] = st.one_of(
    st.builds(label, st.sampled_from(KEYS), st.lists(st.sampled_from(VALUES), min_size=1, max_size=3)),
    st.builds(Has, st.sampled_from(KEYS)),
    st.builds(devices, st.lists(st.sampled_from(IDS), min_size=1, max_size=4)),
    st.builds(Group, st.sampled_from(sorted(GROUPS))),
)
SELECTIONS: st.SearchStrategy[Selection] = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(negated, inner),
        st.builds(every, st.lists(inner, min_size=1, max_size=3)),
        st.builds(either, st.lists(inner, min_size=1, max_size=3)),
    ),
    max_leaves=8,
)
FLEETS = st.fixed_dictionaries({one: st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES)) for one in IDS})


@pytest.fixture(scope="module")
def engine() -> Iterator[sa.Engine]:
    opened = sa.create_engine("sqlite://")
    METADATA.create_all(opened)
    yield opened
    opened.dispose()


@given(SELECTIONS)
def test_a_written_selection_is_read_back(selection: Selection) -> None:
    assert read_selection(written(selection)) == selection
    assert read_document(document_of(selection)) == selection


@given(SELECTIONS, FLEETS)
def test_sql_selects_whom_the_rule_selects(engine: sa.Engine, selection: Selection, fleet: dict[str, dict[str, str]]) -> None:
    resolved = expanded(selection, GROUPS.__getitem__)
    wanted = [one for one in IDS if matches(resolved, one, fleet[one])]
    event(f"{len(wanted)} of {len(IDS)} devices")

    with engine.connect() as connection:
        rows: list[dict[str, Any]] = [{"device_id": one, "public_key": one, "enrolled_at": 0, "enrolled_by": "test"} for one in IDS]
        connection.execute(sa.insert(DEVICE), [row | {"project": "p", "removed_at": None} for row in rows])
        strangers = [row | {"device_id": f"{row['device_id']}-{place}"} for row in rows for place in ("removed", "elsewhere")]
        their: dict[bool, dict[str, Any]] = {True: {"project": "q", "removed_at": None}, False: {"project": "p", "removed_at": 1}}
        connection.execute(sa.insert(DEVICE), [row | their[row["device_id"].endswith("-elsewhere")] for row in strangers])
        labels = [
            {"key": key, "value": value, "device_id": f"{one}{suffix}"}
            for one in IDS for key, value in fleet[one].items() for suffix in ("", "-removed", "-elsewhere")
        ]  # fmt: skip
        if labels:
            connection.execute(sa.insert(DEVICE_LABEL), labels)
        found, counted = selecting.select_ids(connection, "p", resolved), selecting.count(connection, "p", resolved)
        census = Census(connection, "p", [resolved, negated(resolved)])
        connection.rollback()

    assert found == sorted(wanted)
    assert counted == census.count(resolved) == len(wanted)
    assert census.count(negated(resolved)) == len(IDS) - len(wanted)


@given(SELECTIONS, FLEETS)
def test_not_and_or_obey_the_laws_of_logic(selection: Selection, fleet: dict[str, dict[str, str]]) -> None:
    resolved = expanded(selection, GROUPS.__getitem__)
    other = expanded(GROUPS["one"], GROUPS.__getitem__)

    for one, labels in fleet.items():
        here, there = matches(resolved, one, labels), matches(other, one, labels)
        assert matches(negated(resolved), one, labels) is not here
        assert matches(every([resolved, other]), one, labels) is (here and there)
        assert matches(either([resolved, other]), one, labels) is (here or there)
        assert matches(negated(every([negated(resolved), negated(other)])), one, labels) is (here or there)


@given(SELECTIONS, SELECTIONS, FLEETS)
def test_what_is_added_to_a_group_is_in_it_and_what_is_taken_away_is_not(
    before: Selection, wanted: Selection, fleet: dict[str, dict[str, str]]
) -> None:
    group, given_now = expanded(before, GROUPS.__getitem__), expanded(wanted, GROUPS.__getitem__)
    more, less = added(group, given_now), taken(group, given_now)

    for one, labels in fleet.items():
        was, named = matches(group, one, labels), matches(given_now, one, labels)
        assert matches(more, one, labels) is (was or named)
        assert (less is not None and matches(less, one, labels)) is (was and not named)


@given(SELECTIONS, FLEETS)
def test_who_has_the_label_is_selected_alike_where_each_exclusion_asks_for_it(
    selection: Selection, fleet: dict[str, dict[str, str]]
) -> None:
    resolved = expanded(selection, GROUPS.__getitem__)
    asking = requiring(resolved, "site")

    for one, labels in fleet.items():
        here, there = matches(resolved, one, labels), matches(asking, one, labels)
        assert here is there if "site" in labels else here or not there


@given(SELECTIONS)
def test_a_document_is_an_object_exactly_where_every_label_has_one_value(selection: Selection) -> None:
    parts = selection.parts if isinstance(selection, Every) else (selection,)
    keys = [part.key for part in parts if isinstance(part, Label) and len(part.values) == 1]

    exact = len(keys) == len(parts) == len(set(keys)) and not any(isinstance(part, Devices | Group | Has) for part in parts)

    assert isinstance(document_of(selection), dict) is exact


def test_a_selection_of_more_parts_than_sqlite_lets_stand_in_a_row_is_one_question(engine: sa.Engine) -> None:
    many = either([Has("site"), *(Has(f"k{number}") for number in range(1_200))])

    with engine.connect() as connection:
        row = {"public_key": "d", "enrolled_at": 0, "enrolled_by": "test", "project": "p"}
        connection.execute(sa.insert(DEVICE), [row | {"device_id": one, "public_key": one} for one in ("d1", "d2")])
        connection.execute(sa.insert(DEVICE_LABEL), [{"key": "k1199", "value": "x", "device_id": "d2"}])
        found = [selecting.select_ids(connection, "p", one) for one in (many, negated(many), every([negated(Has("k7")), many]))]
        connection.rollback()

    assert found == [["d2"], ["d1"], ["d2"]]


def test_more_labels_than_a_device_can_have_are_a_text_because_as_labels_they_would_not_be_read() -> None:
    selections = [every(label(f"k{number}", ["x"]) for number in range(count)) for count in (32, 33)]

    assert [read_document(document_of(one)) for one in selections] == selections
