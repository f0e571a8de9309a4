"""What the API refuses, and what it says then; and the little that it answers when all is well."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from edgefleet.manifest import manifest_bytes
from edgefleet.signing import SigningKey
from tests.unit.fleet_server.server_world import POLICY, PROJECT, MadeBundle, World, make_bundle

CONTENT = b"0123456789" * 10
NAME = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    opened = World.open(tmp_path_factory.mktemp("api") / "data", max_blob_bytes=100_000)
    yield opened
    opened.close()


@pytest.fixture
def api(world: World) -> FlaskClient:
    client = world.client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {world.admin_token()}"
    return client


@pytest.fixture(scope="module")
def bundle(world: World, tmp_path_factory: pytest.TempPathFactory) -> MadeBundle:
    made = make_bundle(tmp_path_factory.mktemp("bundle"))
    world.push(made)
    return made


def problem(answer: TestResponse, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert answer.content_type == "application/problem+json"
    document = answer.get_json(force=True)
    assert document["status"] == status
    return str(document["detail"])


def key(tmp_path: Path) -> str:
    return SigningKey.load_or_create(tmp_path / "device.key").public.hex


def test_an_enrolled_device_gets_what_it_needs_once(api: FlaskClient, tmp_path: Path) -> None:
    body = {"device_id": "press-7", "project": PROJECT, "public_key": key(tmp_path), "labels": {"site": "north"}}

    answer = api.post("/api/v1/devices", json=body)

    assert answer.status_code == 201
    assert set(answer.get_json()) == {
        "device_id", "project", "fleet", "director_key", "token", "broker_url", "mqtt_username", "mqtt_password",
    }  # fmt: skip
    assert answer.get_json()["token"].startswith("eft_")
    shown = api.get("/api/v1/devices/press-7")
    assert shown.get_json()["device"]["labels"] == {"site": "north"}
    assert "eft_" not in shown.text
    assert "already" in problem(api.post("/api/v1/devices", json=body), 409)


@pytest.mark.parametrize(
    "changes",
    [
        {"device_id": "UPPER"},
        {"device_id": "a/b"},
        {"device_id": "+"},
        {"device_id": "x" * 65},
        {"project": ""},
        {"public_key": "zz"},
        {"public_key": "ab" * 31},
        {"labels": {"a b": "c"}},
        {"labels": {"a": ""}},
        {"labels": {"a": "x" * 201}},
        {"labels": {"a": 5}},
        {"labels": {f"k{n}": "v" for n in range(33)}},
        {"unknown": 1},
        {"device_id": 5},
    ],
)
def test_an_enrolment_that_is_not_right_is_refused(api: FlaskClient, tmp_path: Path, changes: dict[str, Any]) -> None:
    body = {"device_id": "d9", "project": PROJECT, "public_key": key(tmp_path), "labels": {}} | changes

    problem(api.post("/api/v1/devices", json=body), 422)

    assert api.get("/api/v1/devices/d9").status_code == 404


BODIES = [
    b"{",
    b"[" * 100_000,
    b"\xff\xfe",
    b'{"version": "5"}',
    b'{"version": 1.5}',
    b'{"version": 1, "x": 2}',
    b'"\\ud800"',
    b"null",
]


@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
def test_a_body_that_is_not_of_the_form_is_422_and_never_500(api: FlaskClient, body: bytes) -> None:
    problem(api.post("/api/v1/rollouts/x/pause", data=body, content_type="application/json"), 422)


def test_a_body_of_another_type_is_415(api: FlaskClient) -> None:
    assert "application/json" in problem(api.post("/api/v1/rollouts/x/pause", data={"version": "1"}), 415)


def test_a_body_that_is_too_large_is_413(api: FlaskClient) -> None:
    body = json.dumps({"project": "p", "version": "1", "manifest": "x" * 5_000_000})

    assert "limit" in problem(api.post("/api/v1/releases", data=body, content_type="application/json"), 413)


def test_unknown_things_are_404_with_their_name(api: FlaskClient) -> None:
    for path in ("devices/nobody", "rollouts/nothing", "releases/none", f"blobs/{'a' * 64}"):
        assert path.split("/")[1][:10] in problem(api.get(f"/api/v1/{path}"), 404)
    problem(api.get("/api/v1/nowhere"), 404)
    problem(api.post("/api/v1/rollouts/x/explode", json={"version": 1}), 404)
    problem(api.post("/api/v1/rollouts/x/pause", json={"version": 1}), 404)


def test_a_wrong_method_is_405_with_the_right_ones(api: FlaskClient) -> None:
    answer = api.delete("/api/v1/releases")

    problem(answer, 405)
    assert "GET" in answer.headers["Allow"]


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "limit=-1", "limit=%D9%A3", "after=1e9", "label=nothing"])
def test_a_query_that_is_not_understood_is_422(api: FlaskClient, query: str) -> None:
    path = "/api/v1/events" if query.startswith("after") else "/api/v1/devices"

    problem(api.get(f"{path}?{query}"), 422)


def test_a_blob_goes_in_once_and_comes_out_in_pieces(api: FlaskClient) -> None:
    assert api.put(f"/api/v1/blobs/{NAME}", data=CONTENT).status_code == 201
    assert api.put(f"/api/v1/blobs/{NAME}", data=CONTENT).status_code == 200

    whole = api.get(f"/api/v1/blobs/{NAME}")
    part = api.get(f"/api/v1/blobs/{NAME}", headers={"Range": "bytes=95-"})

    assert whole.data == CONTENT
    assert (part.status_code, part.data) == (206, CONTENT[95:])
    assert part.headers["Content-Range"] == "bytes 95-99/100"
    unchanged = api.get(f"/api/v1/blobs/{NAME}", headers={"If-None-Match": whole.headers["ETag"]})
    assert unchanged.status_code == 304
    problem(api.get(f"/api/v1/blobs/{NAME}", headers={"Range": "bytes=500-"}), 416)
    for answer in (whole, part, unchanged):
        answer.close()


def test_a_blob_with_other_bytes_is_refused(api: FlaskClient) -> None:
    name = "b" * 64

    assert "sha256" in problem(api.put(f"/api/v1/blobs/{name}", data=b"something"), 422)
    problem(api.get(f"/api/v1/blobs/{name}"), 404)


def test_a_blob_above_the_limit_is_413_and_without_length_411(api: FlaskClient, world: World) -> None:
    assert "100000" in problem(api.put(f"/api/v1/blobs/{'c' * 64}", data=b"x" * 100_001), 413)
    environ = {"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"}
    problem(api.put(f"/api/v1/blobs/{'c' * 64}", environ_overrides=environ), 411)


def test_a_blob_name_that_is_no_digest_is_refused(api: FlaskClient) -> None:
    problem(api.put("/api/v1/blobs/not-a-digest", data=b"x"), 422)


def test_a_release_is_numbered_and_the_same_push_is_the_same_release(api: FlaskClient, bundle: MadeBundle) -> None:
    body = {"project": PROJECT, "version": "1", "manifest": (bundle.folder / "manifest.json").read_text()}

    again = api.post("/api/v1/releases", json=body).get_json()

    assert again == api.get("/api/v1/releases").get_json()[0]
    assert (again["counter"], again["bundle_digest"]) == (1, bundle.digest)
    assert again["gates"] == [["G1", "pass", "Good."]]
    assert api.get(f"/api/v1/releases/{again['release_id']}").get_json() == again
    manifest = api.get(f"/api/v1/blobs/{bundle.digest}")
    assert manifest.data == (bundle.folder / "manifest.json").read_bytes()
    manifest.close()


def test_a_version_names_one_bundle_and_a_bundle_has_one_version(
    api: FlaskClient, world: World, bundle: MadeBundle, tmp_path: Path
) -> None:
    other = make_bundle(tmp_path / "other", "other")
    for name, entry in other.manifest.files.items():
        api.put(f"/api/v1/blobs/{entry.sha256}", data=(other.folder / name).read_bytes())
    taken = {"project": PROJECT, "version": "1", "manifest": (other.folder / "manifest.json").read_text()}
    renamed = {"project": PROJECT, "version": "99", "manifest": (bundle.folder / "manifest.json").read_text()}

    assert "choose another version" in problem(api.post("/api/v1/releases", json=taken), 409)
    assert "already" in problem(api.post("/api/v1/releases", json=renamed), 409)


@pytest.mark.parametrize(
    ("operators", "said"),
    [
        (["Identity", "Scan"], "needs the operator 'Scan', which is not on the list of operators that a device may be given"),
        ([], "names no operators"),
    ],
)
def test_a_release_with_an_operator_that_no_device_is_given_is_refused_without_its_graph(
    api: FlaskClient, tmp_path: Path, operators: list[str], said: str
) -> None:
    made = make_bundle(tmp_path, "hostile")
    variants = [msgspec.structs.replace(made.manifest.variants[0], operators=operators)]
    manifest = manifest_bytes(msgspec.structs.replace(made.manifest, variants=variants)).decode()

    answer = api.post("/api/v1/releases", json={"project": PROJECT, "version": "9", "manifest": manifest, "note": ""})

    assert said in problem(answer, 422)


def test_a_release_whose_files_have_not_arrived_is_refused(api: FlaskClient, tmp_path: Path) -> None:
    absent = make_bundle(tmp_path / "absent", "absent", seed=9)
    body = {"project": PROJECT, "version": "7", "manifest": (absent.folder / "manifest.json").read_text()}

    assert "have not arrived" in problem(api.post("/api/v1/releases", json=body), 422)


@pytest.mark.parametrize(
    "changes", [{"manifest": "{}"}, {"manifest": "{"}, {"version": ""}, {"version": "x" * 65}, {"project": "other"}, {"note": "x" * 3_000}]
)
def test_a_release_that_is_not_right_is_refused(api: FlaskClient, bundle: MadeBundle, changes: dict[str, Any]) -> None:
    body = {"project": PROJECT, "version": "8", "manifest": (bundle.folder / "manifest.json").read_text()} | changes

    problem(api.post("/api/v1/releases", json=body), 422)


@pytest.mark.parametrize(
    "changes",
    [
        {"policy": {}},
        {"policy": POLICY | {"waves": []}},
        {"policy": POLICY | {"waves": ["100%", 1]}},
        {"policy": POLICY | {"soak_s": -1}},
        {"policy": POLICY | {"wavez": [1]}},
        {"selection": {"site": "nowhere"}},
        {"selection": {"site": ""}},
    ],
)
def test_a_rollout_that_cannot_be_judged_is_refused_when_it_is_created(
    api: FlaskClient, bundle: MadeBundle, changes: dict[str, Any]
) -> None:
    release_id = api.get("/api/v1/releases").get_json()[0]["release_id"]

    problem(api.post("/api/v1/rollouts", json={"release_id": release_id, "policy": POLICY, "selection": {}} | changes), 422)

    assert api.get("/api/v1/rollouts").get_json() == []


def test_a_rollout_of_a_release_that_does_not_exist_is_404(api: FlaskClient) -> None:
    problem(api.post("/api/v1/rollouts", json={"release_id": "none", "policy": POLICY}), 404)


def test_health_needs_no_token_and_says_nothing_about_the_fleet(world: World) -> None:
    answer = world.client().get("/healthz")

    assert answer.status_code == 200
    assert set(answer.get_json()) == {"ok", "fleet", "version"}


def test_an_unexpected_failure_says_nothing_about_the_inside(world: World, api: FlaskClient, tmp_path: Path) -> None:
    broken = World.open(tmp_path / "broken")
    token = broken.admin_token()
    (broken.services.config.data_dir / "blobs").write_text("a file where a folder should be")

    answer = broken.client().put(f"/api/v1/blobs/{NAME}", data=CONTENT, headers={"Authorization": f"Bearer {token}"})

    assert problem(answer, 507).startswith(f"blob {NAME[:12]}")
    broken.close()
