"""Groups on the page: listed, made, changed and removed by an operator, looked at by everybody; over a real database."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from fleet_server import queries, usecases
from fleet_server.auth import SESSION_COOKIE
from fleet_server.grouping import groups_of, set_group
from fleet_server.page.group_views import PAGE_ROWS
from fleet_server.store import groups
from fleet_server.store.groups import StoredGroup
from tests.unit.fleet_server import page_values as values
from tests.unit.fleet_server.evidence_world import POLICY, open_fleet
from tests.unit.fleet_server.server_world import OPERATOR, PROJECT, World, make_bundle

SAME = {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}
PILOTS = f"/groups/{PROJECT}/pilots"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    opened = World.open(tmp_path / "data")
    open_fleet(opened, 40)
    yield opened
    opened.close()


@pytest.fixture
def operator(world: World) -> FlaskClient:
    return world.signed_in()


def group(world: World, name: str, selection: str) -> None:
    set_group(world.services, PROJECT, name, selection=selection, reason="they volunteered", actor=OPERATOR)


def meanings(world: World) -> dict[str, str]:
    return {view.name: view.selection for view in groups_of(world.services.db)}


def send(client: FlaskClient, path: str, **fields: str) -> TestResponse:
    return client.post(path, data=fields, headers=SAME)


def text(answer: TestResponse) -> str:
    return re.sub(r"\s+", " ", answer.get_data(as_text=True))


def digest_in(answer: TestResponse) -> str:
    found = re.search(r'name="digest" value="([0-9a-f]{64})"', answer.get_data(as_text=True))
    assert found is not None, answer.get_data(as_text=True)
    return found.group(1)


def test_a_group_is_made_of_pasted_names_after_a_look(operator: FlaskClient, world: World) -> None:
    asked = {"project": PROJECT, "name": "pilots", "wanted": "d00003\r\nd00007, d00011"}
    shown = send(operator, "/groups/new", **asked, do="look")
    assert "would mean 3 devices now." in text(shown)
    assert "3 devices: d00003, d00007, d00011" in text(shown)
    assert meanings(world) == {}

    made = send(operator, "/groups/new", **asked, do="change", digest=digest_in(shown), reason="they volunteered")

    assert (made.status_code, made.headers["Location"]) == (303, PILOTS)
    assert meanings(world) == {"pilots": "device(d00003, d00007, d00011)"}
    page = text(operator.get(PILOTS))
    assert "3 devices now" in page
    assert 'href="/devices/d00007"' in page
    assert "by admin: they volunteered" in page
    assert "set-group" in text(operator.get("/events"))


@pytest.mark.parametrize(
    ("how", "wanted", "shown", "after"),
    [
        ("add", "d00020 d00022", "would mean 12 devices now: 2 would come in.", "device(d00020, d00022) or site = s1"),
        ("take", "d00001", "would mean 9 devices now: 1 would go out.", "not device(d00001) and site = s1"),
        ("say", "site = s2", "would mean 10 devices now: 10 would come in, 10 would go out.", "site = s2"),
        ("take", "d00002", "nobody would come in or go out at this moment.", "not device(d00002) and site = s1"),
    ],
)
def test_a_group_is_changed_as_it_was_shown(operator: FlaskClient, world: World, how: str, wanted: str, shown: str, after: str) -> None:
    group(world, "pilots", "site = s1")
    looked = send(operator, f"{PILOTS}/change", how=how, wanted=wanted, do="look")
    assert shown in text(looked)
    assert f'<option value="{how}" selected>' in text(looked)
    assert meanings(world) == {"pilots": "site = s1"}

    done = send(operator, f"{PILOTS}/change", how=how, wanted=wanted, do="change", digest=digest_in(looked), reason="so it is")

    assert done.status_code == 303
    assert meanings(world) == {"pilots": after}


def test_a_change_that_was_not_shown_or_has_no_reason_is_not_done_and_the_form_keeps_what_was_typed(
    operator: FlaskClient, world: World
) -> None:
    group(world, "pilots", "site = s1")
    digest = digest_in(send(operator, f"{PILOTS}/change", how="add", wanted="d00020", do="look"))
    same = {"how": "add", "wanted": "d00020", "do": "change", "digest": digest, "reason": "so it is"}

    for changed, status, words in (
        ({"wanted": "d00022"}, 409, "is not the change of group pilots that was shown"),
        ({"how": "take"}, 409, "is not the change of group pilots that was shown"),
        ({"digest": ""}, 422, "look at the change first"),
        ({"reason": " "}, 422, "the reason has 0 characters"),
    ):
        answer = send(operator, f"{PILOTS}/change", **(same | changed))
        assert (answer.status_code, words in text(answer)) == (status, True), text(answer)
        assert 'class="banner t-failed" role="alert"' in text(answer)
        assert f">{(same | changed)['wanted']}</textarea>" in text(answer)
    group(world, "pilots", "site = s3")
    overtaken = send(operator, f"{PILOTS}/change", **same)

    assert overtaken.status_code == 409
    assert meanings(world) == {"pilots": "site = s3"}


def test_a_group_is_removed_and_the_plan_that_meant_it_is_named_and_stays(operator: FlaskClient, world: World, tmp_path: Path) -> None:
    group(world, "pilots", "site = s1")
    release_id = world.push(make_bundle(tmp_path / "bundle"))
    made = usecases.create_rollout(world.services, release_id=release_id, policy=POLICY, selection="group(pilots)", actor=OPERATOR)
    kept = f'1 open rollout was planned with this group: <a href="/rollouts/{made.rollout_id}">'

    asked = operator.get(f"{PILOTS}/remove")
    looked = send(operator, f"{PILOTS}/change", how="add", wanted="d00020", do="look")
    shown = [text(answer) for answer in (asked, looked, operator.get(PILOTS))]
    stale = send(operator, f"{PILOTS}/remove", digest="0" * 64, reason="over")
    silent = send(operator, f"{PILOTS}/remove", digest=digest_in(asked), reason="")
    done = send(operator, f"{PILOTS}/remove", digest=digest_in(asked), reason="over")

    assert all(kept in answer for answer in shown)
    assert "It keeps what the group meant then" in text(asked)
    assert (stale.status_code, silent.status_code) == (409, 422)
    assert (done.status_code, done.headers["Location"]) == (303, "/groups")
    assert meanings(world) == {}
    assert "remove-group" in text(operator.get("/events"))
    assert operator.get(PILOTS).status_code == 404
    assert queries.rollout(world.services.db, made.rollout_id, world.clock()).selection == "site = s1"


def test_groups_stand_page_by_page_and_one_that_means_nothing_says_why(operator: FlaskClient, world: World) -> None:
    with world.services.db.write() as connection:
        for number in range(PAGE_ROWS + 3):
            meant = "has(line)" if number == 1 else f"device(d{number % 40:05d})"
            groups.put(connection, StoredGroup(PROJECT, f"g{number:03d}", meant, 0, "test", "for tests"))

    first, last = text(operator.get("/groups")), text(operator.get("/groups?page=2"))

    assert f"{PAGE_ROWS + 3} groups" in first
    assert "Page 1 of 2" in first
    assert re.findall(r'href="/groups/digits/(g\d+)"', first) == [f"g{number:03d}" for number in range(PAGE_ROWS)]
    assert re.findall(r'href="/groups/digits/(g\d+)"', last) == [f"g{number:03d}" for number in range(PAGE_ROWS, PAGE_ROWS + 3)]
    assert "means nothing now" in first
    assert "group g001: no device of digits has a label &#39;line&#39;" in first
    assert "Say anew which devices it means, or remove it." in text(operator.get("/groups/digits/g001"))


def test_a_filter_that_is_a_selection_is_offered_as_a_group(operator: FlaskClient) -> None:
    assert 'href="/groups/new?select=site%20%3D%20s1"' in text(operator.get("/devices?q=site+%3D+s1"))
    assert ">site = s1</textarea>" in text(operator.get("/groups/new?select=site%20%3D%20s1"))


def test_a_selection_too_long_for_an_address_is_refused_and_not_cut_to_another_meaning(operator: FlaskClient) -> None:
    whole = " or ".join(f"site = hall-{number}" for number in range(1, 250))

    shown = text(operator.get("/groups/new", query_string={"select": whole}))

    assert f"The selection in the address has {len(whole)} characters, the limit there is 4000" in shown
    assert "hall-1 or" not in shown
    assert "hall-1 or site = hall-2" in text(operator.get("/groups/new", query_string={"select": "site = hall-1 or site = hall-2"}))


def test_a_thousand_pasted_names_are_taken_and_a_larger_form_is_refused(operator: FlaskClient) -> None:
    names = "\r\n".join(f"press-{number:05d}" for number in range(1_000))

    taken = send(operator, "/groups/new", project=PROJECT, name="pilots", wanted=names, do="look")
    refused = send(operator, "/groups/new", project=PROJECT, name="pilots", wanted="x" * 70_000, do="look")

    assert taken.status_code == 422
    assert "not in project digits: device press-00000" in text(taken)
    assert refused.status_code == 413


def test_a_viewer_looks_and_neither_a_viewer_nor_another_site_changes_a_group(visitor: FlaskClient, source: values.InventedSource) -> None:
    change = f"{PILOTS}/change"
    fields = {"how": "add", "wanted": "camera-02", "do": "change", "reason": "so it is", "digest": source.group("digits", "pilots").digest}
    assert visitor.get("/groups").status_code == 303
    visitor.set_cookie(SESSION_COOKIE, "viewer-1")

    assert "New group" not in text(visitor.get("/groups"))
    assert "Sign in to act." in text(visitor.get(PILOTS))
    assert "Sign in as an operator to change groups." in text(visitor.get(change))
    assert "<form method" not in text(visitor.get(f"{PILOTS}/remove")).partition("<main")[2]
    for path in (change, "/groups/new", f"{PILOTS}/remove"):
        assert send(visitor, path, **fields).status_code == 403
    visitor.set_cookie(SESSION_COOKIE, "operator-2")
    for path in (change, "/groups/new", f"{PILOTS}/remove"):
        assert visitor.post(path, data=fields, headers={"Origin": "https://elsewhere.example"}).status_code == 403
    assert send(visitor, change, **(fields | {"how": "make"})).status_code == 404
    assert source.regrouped == []


def test_hostile_words_are_shown_as_text(client: FlaskClient, source: values.InventedSource) -> None:
    source.group_texts["digits", "pilots"] = "site = '<b>x</b>'"
    hostile = "site = '<script>alert(1)</script>'"

    shown = text(send(client, f"{PILOTS}/change", how="say", wanted=hostile, do="look"))

    assert "<script>alert" not in shown
    assert "&lt;script&gt;alert(1)" in shown
    assert all("<b>x</b>" not in text(client.get(path)) for path in ("/groups", PILOTS, f"{PILOTS}/remove"))
