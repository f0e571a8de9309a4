"""Who may do what: every route of the application as everybody, against a reviewed table."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from fleet_server import auth
from fleet_server.auth import Role
from fleet_server.errors import UnauthorizedError
from tests.unit.fleet_server.server_world import World

VIEWER = frozenset({"viewer", "operator", "admin"})
OPERATOR = frozenset({"operator", "admin"})
ADMIN = frozenset({"admin"})
ALL = VIEWER | {"device", "nobody"}
# Reviewed by people: who may call what. A route that is not here fails the test, and so does a line without a route.
TABLE: dict[tuple[str, str], frozenset[str]] = {
    ("PUT", "/api/v1/blobs/<sha256>"): OPERATOR,
    ("GET", "/api/v1/blobs/<sha256>"): VIEWER | {"device"},
    ("POST", "/api/v1/devices"): OPERATOR,
    ("GET", "/api/v1/devices"): VIEWER,
    ("GET", "/api/v1/devices/<device_id>"): VIEWER,
    ("GET", "/api/v1/devices/<device_id>/samples"): OPERATOR,
    ("PUT", "/api/v1/devices/<device_id>/labels"): OPERATOR,
    ("PATCH", "/api/v1/devices/<device_id>/labels"): OPERATOR,
    ("POST", "/api/v1/devices/<device_id>/remove"): OPERATOR,
    ("POST", "/api/v1/devices/<device_id>/unquarantine"): OPERATOR,
    ("GET", "/api/v1/people"): ADMIN,
    ("POST", "/api/v1/people"): ADMIN,
    ("POST", "/api/v1/people/<name>/remove"): ADMIN,
    ("GET", "/api/v1/groups"): VIEWER,
    ("PUT", "/api/v1/projects/<project>/groups/<name>"): OPERATOR,
    ("POST", "/api/v1/projects/<project>/groups/<name>/remove"): OPERATOR,
    ("GET", "/api/v1/observed"): VIEWER,
    ("POST", "/api/v1/sampling"): OPERATOR,
    ("POST", "/api/v1/sampling/stop"): OPERATOR,
    ("GET", "/api/v1/sampling"): VIEWER,
    ("GET", "/api/v1/fleet/halt"): VIEWER,
    ("POST", "/api/v1/fleet/halt"): OPERATOR,
    ("POST", "/api/v1/fleet/lift"): OPERATOR,
    ("GET", "/api/v1/rollouts/<rollout_id>/decisions"): VIEWER,
    ("GET", "/api/v1/rollouts/<rollout_id>/decisions/<version>"): VIEWER,
    ("GET", "/api/v1/projects/<project>/floor"): VIEWER,
    ("POST", "/api/v1/projects/<project>/floor"): OPERATOR,
    ("GET", "/api/v1/healthz"): ALL,
    ("GET", "/healthz"): ALL,
    ("GET", "/api/v1/overview"): VIEWER,
    ("GET", "/api/v1/drift"): VIEWER,
    ("GET", "/api/v1/explanations"): VIEWER,
    ("GET", "/api/v1/events"): VIEWER,
    ("POST", "/api/v1/releases"): OPERATOR,
    ("GET", "/api/v1/releases"): VIEWER,
    ("GET", "/api/v1/releases/<release_id>"): VIEWER,
    ("POST", "/api/v1/rollouts"): OPERATOR,
    ("POST", "/api/v1/rollouts/plan"): OPERATOR,
    ("POST", "/api/v1/devices/<device_id>/labelled"): OPERATOR,
    ("GET", "/api/v1/rollouts/<rollout_id>/comparisons"): VIEWER,
    ("POST", "/api/v1/experiments"): OPERATOR,
    ("GET", "/api/v1/experiments"): VIEWER,
    ("GET", "/api/v1/experiments/<experiment_id>"): VIEWER,
    ("POST", "/api/v1/experiments/<experiment_id>/stop"): OPERATOR,
    ("GET", "/api/v1/rollouts"): VIEWER,
    ("GET", "/api/v1/rollouts/<rollout_id>"): VIEWER,
    ("GET", "/api/v1/rollouts/<rollout_id>/approvals"): VIEWER,
    ("POST", "/api/v1/rollouts/<rollout_id>/approve"): OPERATOR,
    ("GET", "/api/v1/rollouts/<rollout_id>/explain"): VIEWER,
    ("POST", "/api/v1/rollouts/<rollout_id>/<any(start, pause, confirm, resume, abort, 'roll-back'):action>"): OPERATOR,
}
WHO = ("nobody", "viewer", "operator", "admin", "device")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    opened = World.open(tmp_path_factory.mktemp("access") / "data")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def tokens(world: World) -> dict[str, str]:
    roles: tuple[Role, ...] = ("viewer", "operator", "admin", "device")
    with world.services.db.write() as connection:
        return {role: auth.issue_token(connection, world.services.now_us(), f"the {role}", role) for role in roles}


def routes(world: World) -> set[tuple[str, str]]:
    return {
        (method, rule.rule)
        for rule in world.app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if not rule.endpoint.startswith("page.")
    }


def ask(client: FlaskClient, method: str, rule: str, token: str | None) -> int:
    path = (
        rule.replace("<sha256>", "a" * 64)
        .replace("<device_id>", "d0")
        .replace("<release_id>", "x")
        .replace("<rollout_id>", "x")
        .replace("<name>", "x")
    )
    path = path.replace("<any(start, pause, confirm, resume, abort, 'roll-back'):action>", "pause")
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return client.open(path, method=method, headers=headers).status_code


def test_every_route_of_the_api_is_in_the_table_and_the_other_way_round(world: World) -> None:
    assert routes(world) == set(TABLE)


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize(("method", "rule"), sorted(TABLE))
def test_a_route_answers_exactly_those_of_the_table(world: World, tokens: dict[str, str], method: str, rule: str, who: str) -> None:
    status = ask(world.client(), method, rule, tokens.get(who))

    if who in TABLE[method, rule]:
        assert status not in (401, 403)
    else:
        assert status == (401 if who == "nobody" else 403)


@pytest.mark.parametrize("header", ["Bearer eft_wrong", "Bearer ", "Basic eft_x", "nonsense", "Bearer " + "x" * 5_000])
def test_a_token_that_is_not_valid_is_never_treated_as_nobody(world: World, header: str) -> None:
    answer = world.client().get("/api/v1/releases", headers={"Authorization": header})

    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_an_expired_token_opens_nothing(world: World) -> None:
    with world.services.db.write() as connection:
        token = auth.issue_token(connection, world.services.now_us(), "short", "viewer", days=1)
    assert ask(world.client(), "GET", "/api/v1/releases", token) == 200

    world.clock.move(86_401)

    assert ask(world.client(), "GET", "/api/v1/releases", token) == 401
    world.clock.move(-86_401)


def test_the_database_holds_no_token(world: World, tokens: dict[str, str]) -> None:
    content = b"".join(path.read_bytes() for path in world.services.config.data_dir.glob("fleet.db*"))

    assert not any(token.encode() in content for token in tokens.values())


def test_the_first_start_writes_an_admin_token_for_its_owner_only(world: World) -> None:
    path = world.services.config.data_dir / auth.ADMIN_TOKEN_FILE

    assert oct(path.stat().st_mode & 0o777) == "0o600"
    assert ask(world.client(), "GET", "/api/v1/releases", world.admin_token()) == 200


def test_a_second_start_makes_no_second_admin_token(world: World) -> None:
    before = world.admin_token()

    auth.ensure_admin_token(world.services)

    assert world.admin_token() == before


def signed_in(world: World, token: str) -> FlaskClient:
    client = world.client()
    client.set_cookie(auth.SESSION_COOKIE, auth.sign_in(world.services, token))
    return client


def test_a_session_may_look_and_ends_at_once(world: World, tokens: dict[str, str]) -> None:
    session = auth.sign_in(world.services, tokens["viewer"])
    client = world.client()
    client.set_cookie(auth.SESSION_COOKIE, session)
    assert client.get("/api/v1/releases").status_code == 200

    auth.sign_out(world.services, session)

    assert client.get("/api/v1/releases").status_code == 401


def test_a_device_cannot_sign_in(world: World, tokens: dict[str, str]) -> None:
    with pytest.raises(UnauthorizedError):
        auth.sign_in(world.services, tokens["device"])


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "http://localhost", "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": "http://localhost"}, 404),
        ({"Sec-Fetch-Site": "same-origin"}, 404),
    ],
)
def test_another_site_cannot_act_with_a_session(world: World, tokens: dict[str, str], headers: dict[str, str], status: int) -> None:
    client = signed_in(world, tokens["operator"])

    answer = client.post("/api/v1/rollouts/x/pause", json={"version": 1}, headers=headers)

    assert answer.status_code == status


def test_an_anonymous_viewer_may_look_and_not_act(tmp_path: Path) -> None:
    world = World.open(tmp_path / "data", anonymous_role="viewer")

    assert ask(world.client(), "GET", "/api/v1/releases", None) == 200
    assert ask(world.client(), "POST", "/api/v1/releases", None) == 403
    world.close()
