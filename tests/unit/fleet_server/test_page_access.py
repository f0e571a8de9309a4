"""Who may see and do what through the page, and what its forms refuse."""

import pytest
from flask.testing import FlaskClient

from fleet_server.auth import SESSION_COOKIE, Actor
from tests.unit.fleet_server import page_values as values

SAME = {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}
PAUSE = "/rollouts/r-2/pause"
FORM = {"version": "7", "reason": "the hall is closed today"}


@pytest.fixture
def client(visitor: FlaskClient) -> FlaskClient:
    """Here nobody has signed in before a test says so."""
    return visitor


def signed_in(client: FlaskClient, name: str = "operator-2") -> FlaskClient:
    client.set_cookie(SESSION_COOKIE, name)
    return client


def test_every_answer_carries_the_security_headers(client: FlaskClient) -> None:
    signed_in(client)
    for path in ("/", "/login", "/rollouts/none", "/assets/x/y"):
        headers = client.get(path).headers
        assert headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self'; style-src 'self'")
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "same-origin"
        assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert client.get("/").headers["Cache-Control"] == "no-store"


def test_a_stranger_is_sent_to_the_sign_in_and_back(client: FlaskClient) -> None:
    answer = client.get("/rollouts/r-2")

    assert answer.status_code == 303
    assert answer.headers["Location"] == "/login?next=/rollouts/r-2"


def test_a_stranger_gets_neither_fragment_nor_stream(client: FlaskClient) -> None:
    assert client.get("/", headers={"X-Fragment": "main"}).status_code == 401
    assert client.get("/live").status_code == 401


def test_an_operators_action_reaches_the_use_case_with_version_and_reason(client: FlaskClient, source: values.InventedSource) -> None:
    answer = signed_in(client).post(PAUSE, data=FORM, headers=SAME)

    assert (answer.status_code, answer.headers["Location"]) == (303, "/rollouts/r-2")
    assert source.acted == [("r-2", "pause", 7, "the hall is closed today", "operator-2")]


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        ({}, "an unknown place"),
        ({"Origin": "https://elsewhere.example"}, "elsewhere.example"),
        ({"Origin": "null"}, "null"),
        ({"Origin": "http://localhost", "Sec-Fetch-Site": "cross-site"}, "localhost"),
        ({"Sec-Fetch-Site": "same-site"}, "same-site"),
    ],
)
def test_a_form_of_another_site_does_nothing(client: FlaskClient, source: values.InventedSource, headers: dict[str, str], why: str) -> None:
    answer = signed_in(client).post(PAUSE, data=FORM, headers=headers)

    assert answer.status_code == 403
    assert why in answer.get_data(as_text=True)
    assert source.acted == []


def test_a_viewer_may_look_and_not_act(client: FlaskClient, source: values.InventedSource) -> None:
    signed_in(client, "viewer-1")

    html = client.get("/rollouts/r-2").get_data(as_text=True)
    answer = client.post(PAUSE, data=FORM, headers=SAME)

    assert 'aria-disabled="true"' in html
    assert "You are signed in as viewer: an operator may act." in html
    assert "<dialog" not in html
    assert answer.status_code == 403
    assert source.acted == []


def test_an_anonymous_viewer_is_told_to_sign_in_to_act(client: FlaskClient, source: values.InventedSource) -> None:
    source.anonymous = Actor("anonymous", "viewer", None, "anonymous")

    html = client.get("/rollouts/r-2").get_data(as_text=True)

    assert "Sign in to act." in html
    assert 'href="/login?next=/rollouts/r-2"' in html
    assert client.post(PAUSE, data=FORM, headers=SAME).status_code == 403


def test_a_device_sees_nothing(client: FlaskClient, source: values.InventedSource) -> None:
    source.anonymous = Actor("camera-01", "device", "camera-01", "token")

    assert client.get("/").status_code == 303
    assert client.get("/live").status_code == 401


@pytest.mark.parametrize(
    ("form", "why"),
    [
        ({"version": "7", "reason": "  "}, "A reason of 1 to 500 characters is needed"),
        ({"version": "7", "reason": "x" * 501}, "this one has 501"),
        ({"version": "-1", "reason": "x"}, "does not say which state"),
        ({"version": "\u0667", "reason": "x"}, "does not say which state"),
        ({"reason": "x"}, "does not say which state"),
    ],
)
def test_a_form_without_version_or_reason_does_nothing(
    client: FlaskClient, source: values.InventedSource, form: dict[str, str], why: str
) -> None:
    answer = signed_in(client).post(PAUSE, data=form, headers=SAME)

    assert answer.status_code == 422
    assert why in answer.get_data(as_text=True)
    assert "Nothing was done" in answer.get_data(as_text=True)
    assert source.acted == []


def test_a_stale_page_is_told_who_was_faster_and_that_nothing_was_done(client: FlaskClient) -> None:
    answer = signed_in(client).post(PAUSE, data={**FORM, "version": str(values.CONFLICT_VERSION)}, headers=SAME)

    html = answer.get_data(as_text=True)
    assert answer.status_code == 409
    assert "<h1>Nothing was done</h1>" in html
    assert "operator-1 paused it 4 s ago." in html
    assert 'href="/rollouts/r-2"' in html


def test_an_unknown_action_and_an_oversized_form_are_refused(client: FlaskClient, source: values.InventedSource) -> None:
    signed_in(client)

    assert client.post("/rollouts/r-2/explode", data=FORM, headers=SAME).status_code == 404
    assert client.post(PAUSE, data={**FORM, "reason": "x" * 100_000}, headers=SAME).status_code == 413
    assert source.acted == []


def test_without_javascript_an_action_has_a_page_that_asks(client: FlaskClient) -> None:
    html = signed_in(client).get(PAUSE).get_data(as_text=True)

    assert '<form method="post" action="/rollouts/r-2/pause">' in html
    assert 'name="version" value="7"' in html
    assert "No further device gets release 2." in html


def test_signing_in_and_out(client: FlaskClient) -> None:
    refused = client.post("/login", data={"token": "wrong", "next": "/drift"}, headers=SAME)
    assert refused.status_code == 401
    assert "unknown, expired or revoked" in refused.get_data(as_text=True)

    accepted = client.post("/login", data={"token": values.OPERATOR_TOKEN, "next": "/drift"}, headers=SAME)
    assert (accepted.status_code, accepted.headers["Location"]) == (303, "/drift")
    assert client.get("/drift").status_code == 200

    assert client.post("/logout", headers=SAME).status_code == 303
    assert client.get("/drift").status_code == 303


@pytest.mark.parametrize(
    "target", ["https://elsewhere.example/", "//elsewhere.example", "/\\elsewhere.example", "javascript:alert(1)", "/x\r\ny"]
)
def test_nobody_is_sent_elsewhere_after_signing_in(client: FlaskClient, target: str) -> None:
    answer = client.post("/login", data={"token": values.OPERATOR_TOKEN, "next": target}, headers=SAME)

    assert answer.headers["Location"] == "/"


def test_a_form_of_another_site_cannot_sign_somebody_in(client: FlaskClient) -> None:
    answer = client.post("/login", data={"token": values.OPERATOR_TOKEN}, headers={"Origin": "https://elsewhere.example"})

    assert answer.status_code == 403
    assert "Set-Cookie" not in answer.headers


def test_every_view_names_its_roles(client: FlaskClient) -> None:
    for rule in client.application.url_map.iter_rules():
        if rule.endpoint.startswith("page."):
            view = client.application.view_functions[rule.endpoint]
            assert isinstance(getattr(view, "edgefleet_roles", None), tuple), rule.endpoint


def test_a_viewer_sees_what_a_removal_means_and_cannot_remove(client: FlaskClient, source: values.InventedSource) -> None:
    path = f"/devices/{source.device_rows[0].device_id}/remove"
    signed_in(client, "viewer-1")

    assert "Sign in to act." in client.get(path).get_data(as_text=True)
    assert client.post(path, data={"reason": "because"}, headers=SAME).status_code == 403
    assert signed_in(client).post(path, data={"reason": "because"}).status_code == 403  # a form from nowhere
    assert source.changed == []
    assert client.post(path, data={"reason": "because"}, headers=SAME).status_code == 303
    assert [(device_id, change.word, change.reason) for device_id, change, _ in source.changed] == [
        (path.split("/")[2], "remove", "because")
    ]
