"""A rollout that is planned on the page: what the form offers, what it refuses, and that exactly the plan that was shown is created."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from fleet_server import queries
from fleet_server.approving import approvals_of
from fleet_server.auth import SESSION_COOKIE
from tests.unit.fleet_server import page_values as values
from tests.unit.fleet_server.evidence_world import open_fleet
from tests.unit.fleet_server.server_world import PROJECT, World, make_bundle

SAME = {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    opened = World.open(tmp_path / "data")
    open_fleet(opened, 40)
    opened.push(make_bundle(tmp_path / "bundle"))
    yield opened
    opened.close()


@pytest.fixture
def operator(world: World) -> FlaskClient:
    return world.signed_in()


def send(client: FlaskClient, **fields: str) -> TestResponse:
    return client.post("/rollouts/new", data={"policy": "measured", "do": "plan"} | fields, headers=SAME)


def release_of(world: World) -> str:
    return queries.releases(world.services.db)[0].release_id


def digest_in(answer: TestResponse) -> str:
    found = re.search(r'name="digest" value="([0-9a-f]{64})"', answer.get_data(as_text=True))
    assert found is not None, answer.get_data(as_text=True)
    return found.group(1)


def test_the_form_offers_releases_labels_and_groups(operator: FlaskClient, world: World) -> None:
    html = operator.get(f"/rollouts/new?release={release_of(world)}&select=site+%3D+s1").get_data(as_text=True)

    assert f'<option value="{release_of(world)}" selected>' in html
    assert "<code>hardware</code> a, b · <code>region</code> eu · <code>site</code> s0, s1, s2, s3" in html
    assert 'value="site = s1"' in html
    assert "as last time" not in html  # nothing was planned before


def test_exactly_the_plan_that_was_shown_is_created(operator: FlaskClient, world: World) -> None:
    asked = {"release": release_of(world), "select": "site in (s0, s1) and hardware = a"}
    shown = send(operator, **asked)
    assert shown.status_code == 200
    assert "site = s0" not in shown.get_data(as_text=True)
    assert "What this plan does to a bad release" in shown.get_data(as_text=True)
    assert queries.rollouts(world.services.db, world.clock()) == []

    made = send(operator, **asked, do="create", digest=digest_in(shown))

    (row,) = queries.rollouts(world.services.db, world.clock())
    assert (made.status_code, made.headers["Location"]) == (303, f"/rollouts/{row.rollout_id}")
    assert (row.state, row.all_devices) == ("draft", 10)
    assert approvals_of(world.services.db, row.rollout_id).digest == digest_in(shown)
    assert "of hardware = a and site in (s0, s1)" in operator.get(made.headers["Location"]).get_data(as_text=True)


@pytest.mark.parametrize("changed", [{"select": "site = s2"}, {"digest": "0" * 64}, {"digest": ""}])
def test_another_plan_than_the_one_that_was_shown_is_not_created(operator: FlaskClient, world: World, changed: dict[str, str]) -> None:
    asked = {"release": release_of(world), "select": "site = s1"}
    digest = digest_in(send(operator, **asked))

    refused = send(operator, **(asked | {"do": "create", "digest": digest} | changed))

    assert refused.status_code in (409, 422)
    assert 'class="banner t-failed" role="alert"' in refused.get_data(as_text=True)
    assert queries.rollouts(world.services.db, world.clock()) == []


def test_a_device_that_was_enrolled_meanwhile_makes_another_plan(operator: FlaskClient, world: World, tmp_path: Path) -> None:
    asked = {"release": release_of(world), "select": "has(site)"}
    digest = digest_in(send(operator, **asked))
    world.enroll("another", tmp_path, site="s1", hardware="a", region="eu")

    refused = send(operator, **asked, do="create", digest=digest)

    assert refused.status_code == 409
    assert f"you looked at plan {digest[:12]}" in refused.get_data(as_text=True)
    assert queries.rollouts(world.services.db, world.clock()) == []


def test_the_policy_of_last_time_and_one_of_ones_own_are_planned(operator: FlaskClient, world: World) -> None:
    own = 'name = "careful"\nevidence = "auto"\nsoak_s = 600\nsoak_rows = 0\ndeadline_s = 7200\nhold_s = 86400\n'
    asked = {"release": release_of(world), "select": "site = s1", "policy": "own", "own": own}
    made = send(operator, **asked, do="create", digest=digest_in(send(operator, **asked)))
    assert made.status_code == 303, made.get_data(as_text=True)

    form = operator.get("/rollouts/new").get_data(as_text=True)
    again = send(operator, release=release_of(world), select="site = s2", policy="last")

    assert "as last time: careful" in form
    assert "policy careful" in again.get_data(as_text=True)


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ({"select": "site = hall 1"}, 422, "&#39;1&#39; stands at character 13 behind `site = hall`"),
        ({"select": "site = nowhere"}, 422, "the selection matches no device"),
        ({"select": "sit = s1"}, 422, "no device of digits has a label &#39;sit&#39;"),
        ({"release": "digits-99"}, 404, "digits-99"),
        ({"policy": "own", "own": "name = "}, 422, "the policy cannot be read as TOML"),
        ({"policy": "own", "own": 'name = "x"\ncolour = "red"'}, 422, "colour"),
        ({"policy": "last"}, 422, "there is no last policy; choose the measured defaults"),
        ({"policy": "generous"}, 422, "policy &#39;generous&#39; is unknown"),
        ({"select": "x" * 4_001}, 422, "the selection has 4001 characters, the page takes 4000"),
    ],
)
def test_what_cannot_be_planned_is_said_and_the_form_keeps_what_was_typed(
    operator: FlaskClient, world: World, fields: dict[str, str], status: int, words: str
) -> None:
    answer = send(operator, **({"release": release_of(world)} | fields))
    html = answer.get_data(as_text=True)

    assert (answer.status_code, words in html) == (status, True), html
    if len(fields.get("select", "")) <= 4_000 and fields.get("policy") != "generous":
        assert f'value="{fields.get("select", "")}"' in html
        assert fields.get("own", "").split("\n")[0].replace('"', "&#34;") in html


def test_a_viewer_and_a_stranger_plan_nothing(visitor: FlaskClient, source: values.InventedSource) -> None:
    assert visitor.get("/rollouts/new").status_code == 303
    visitor.set_cookie(SESSION_COOKIE, "viewer-1")

    assert "Sign in as an operator to plan a rollout." in visitor.get("/rollouts/new").get_data(as_text=True)
    assert "New rollout" not in visitor.get("/rollouts").get_data(as_text=True)
    assert send(visitor, release="r", do="create", digest=values.PLAN_DIGEST).status_code == 403
    assert source.created == []


def test_a_hostile_selection_is_shown_as_text(client: FlaskClient) -> None:
    html = send(client, release="r", select='has(a) and "><script>alert(1)</script>').get_data(as_text=True)

    assert "<script>alert" not in html


def test_planning_is_offered_where_a_release_is_shown(operator: FlaskClient, world: World) -> None:
    assert f'href="/rollouts/new?release={release_of(world)}"' in operator.get("/releases").get_data(as_text=True)
    assert PROJECT in operator.get("/rollouts/new").get_data(as_text=True)
