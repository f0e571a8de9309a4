"""The page over the real application and an SQLite database: every screen of a fresh server, signing in, and one change that goes live."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from edgefleet.signing import SigningKey
from fleet_server.app import PAGE_FEED, create_app
from fleet_server.auth import ADMIN_TOKEN_FILE
from fleet_server.config import ServerConfig

SAME = {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}
SCREENS = ("/", "/rollouts", "/rollouts/new", "/devices", "/releases", "/drift", "/events")


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Flask]:
    app = create_app(ServerConfig(data_dir=tmp_path / "data"))
    yield app
    app.extensions[PAGE_FEED].close()
    app.extensions["edgefleet"].db.close()


@pytest.fixture
def token(app: Flask, tmp_path: Path) -> str:
    return (tmp_path / "data" / ADMIN_TOKEN_FILE).read_text().strip()


@pytest.fixture
def client(app: Flask, token: str) -> FlaskClient:
    client = app.test_client()
    answer = client.post("/login", data={"token": token, "next": "/devices"}, headers=SAME)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/devices")
    return client


def enroll(app: Flask, token: str, tmp_path: Path, device_id: str) -> None:
    key = SigningKey.load_or_create(tmp_path / f"{device_id}.key").public.hex
    wanted = {"device_id": device_id, "labels": {"site": "hall-1"}, "public_key": key, "project": "digits"}
    answer = app.test_client().post("/api/v1/devices", json=wanted, headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code in {200, 201}, answer.get_data(as_text=True)


def test_every_screen_of_a_fresh_server_is_shown(client: FlaskClient) -> None:
    for path in SCREENS:
        answer = client.get(path)
        assert answer.status_code == 200, (path, answer.get_data(as_text=True))
        assert "<h1>" in answer.get_data(as_text=True)
    assert client.get("/rollouts/none").status_code == 404
    assert client.get("/devices/none").status_code == 404


def test_a_fresh_server_shows_nothing_to_a_stranger(app: Flask) -> None:
    for path in SCREENS:
        assert app.test_client().get(path).status_code == 303


def test_an_enrolled_device_appears_on_its_screens_and_in_the_stream(app: Flask, client: FlaskClient, token: str, tmp_path: Path) -> None:
    stream = client.get("/live", buffered=False)
    frames = iter(stream.iter_encoded())
    next(frames)

    enroll(app, token, tmp_path, "camera-01")

    assert b"event: change" in next(frames)
    stream.close()
    assert "camera-01" in client.get("/devices").get_data(as_text=True)
    assert "site hall-1" in client.get("/devices/camera-01").get_data(as_text=True)
    assert "camera-01" in client.get("/events").get_data(as_text=True)


@pytest.mark.parametrize("ended", ["removed", "signed out"])
def test_the_stream_of_a_person_who_may_look_no_longer_ends_with_the_next_change(
    app: Flask, token: str, tmp_path: Path, ended: str
) -> None:
    admin = {"Authorization": f"Bearer {token}"}
    added = app.test_client().post("/api/v1/people", json={"name": "anna", "role": "viewer", "reason": "r"}, headers=admin)
    anna = app.test_client()
    anna.post("/login", data={"token": added.get_json()["token"]}, headers=SAME)
    session = anna.get_cookie("edgefleet_session")
    assert session is not None
    frames = iter(anna.get("/live", buffered=False).iter_encoded())
    next(frames)
    enroll(app, token, tmp_path, "camera-01")
    assert b"event: change" in next(frames)

    if ended == "removed":
        app.test_client().post("/api/v1/people/anna/remove", json={"reason": "left"}, headers=admin)
    else:
        anna.post("/logout", headers=SAME)
    enroll(app, token, tmp_path, "camera-02")

    assert next(frames, None) is None
    anna.set_cookie("edgefleet_session", session.value)
    assert anna.get("/live").status_code == 401


def test_a_session_that_was_ended_opens_nothing(client: FlaskClient) -> None:
    cookie = client.get_cookie("edgefleet_session")
    assert cookie is not None

    assert client.post("/logout", headers=SAME).status_code == 303
    client.set_cookie("edgefleet_session", cookie.value)

    assert client.get("/devices").status_code == 303


def test_a_form_of_another_site_with_the_sessions_cookie_is_shown_as_refused(client: FlaskClient) -> None:
    answer = client.post("/rollouts/r-1/pause", data={"version": "1", "reason": "x"}, headers={"Origin": "https://elsewhere.example"})

    assert answer.status_code == 403
    assert answer.mimetype == "text/html"
    assert "<h1>Nothing was done</h1>" in answer.get_data(as_text=True)


def test_a_device_is_relabelled_and_removed_on_its_page_after_a_reason_was_given(
    app: Flask, client: FlaskClient, token: str, tmp_path: Path
) -> None:
    enroll(app, token, tmp_path, "camera-01")
    form = client.get("/devices/camera-01/labels").get_data(as_text=True)
    assert "site=hall-1</textarea>" in form

    def send(word: str, **fields: str) -> int:
        return client.post(f"/devices/camera-01/{word}", data=fields, headers=SAME).status_code

    assert send("labels", labels="site=hall-2\nline=4", were="site=hall-1", reason="it was moved") == 303
    assert "line 4 · site hall-2" in client.get("/devices/camera-01").get_data(as_text=True)
    assert send("labels", labels="site=hall-3", were="site=hall-1", reason="it was moved") == 409
    assert send("labels", labels="hall 3", were="", reason="it was moved") == 422
    assert send("remove", reason="") == 422
    assert send("remove", reason="it was scrapped") == 303
    shown = client.get("/devices/camera-01").get_data(as_text=True)
    assert "Removed from the fleet on" in shown
    assert "it was scrapped" in shown
    assert "Remove…" not in shown
    assert "camera-01" not in client.get("/devices").get_data(as_text=True)
    assert client.get("/devices/camera-01/remove").status_code == 404
