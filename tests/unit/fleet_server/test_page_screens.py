"""Every screen from invented read models: what it says first, what it refuses to draw, and that nothing in it can run."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote

import pytest
from flask.testing import FlaskClient

import fleet_server.page
from fleet_server.auth import SESSION_COOKIE
from fleet_server.read_registry import RegistryNote
from tests.unit.fleet_server import page_values as values

SCREENS = ("/", "/rollouts", "/rollouts/r-2", "/rollouts/r-large", "/rollouts/r-evidence", "/rollouts/new", "/rollouts/r-draft",
           "/rollouts/r-draft/approve",
           "/rollouts/r-2/pause", "/devices", "/devices/camera-06", "/devices/camera-08",
           "/releases", "/drift", "/events", "/login")  # fmt: skip
EMPTY_SCREENS = ("/", "/rollouts", "/rollouts/new", "/devices", "/releases", "/drift", "/events")
HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>"
PACKAGE = Path(fleet_server.page.__file__).parent


class Tags(HTMLParser):
    """Every start tag with its attributes, as a browser would see them."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def tags(html: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = Tags()
    parser.feed(html)
    parser.close()
    return parser.found


def body(client: FlaskClient, path: str) -> str:
    answer = client.get(path)
    assert answer.status_code == 200, (path, answer.status_code)
    return answer.get_data(as_text=True)


@pytest.mark.parametrize("path", SCREENS)
def test_no_screen_holds_an_inline_style_or_script(client: FlaskClient, path: str) -> None:
    for tag, attributes in tags(body(client, path)):
        assert tag not in {"style", "iframe", "object", "base"}
        assert not [name for name in attributes if name == "style" or name.startswith("on")], (tag, attributes)
        assert tag != "script" or (attributes.get("src") or "").startswith("/assets/")
        assert not (attributes.get("href") or "").lower().startswith(("javascript:", "http:", "https:", "//"))


@pytest.mark.parametrize("path", SCREENS)
def test_every_picture_has_a_sentence_or_is_decoration(client: FlaskClient, path: str) -> None:
    for tag, attributes in tags(body(client, path)):
        if tag == "svg":
            assert attributes.get("aria-hidden") == "true" or (attributes.get("role") == "img" and attributes.get("aria-label"))


@pytest.mark.parametrize("path", SCREENS)
def test_ids_are_unique_so_that_open_details_and_focus_are_found_again(client: FlaskClient, path: str) -> None:
    ids = [attributes["id"] for _, attributes in tags(body(client, path)) if "id" in attributes]

    assert len(ids) == len(set(ids))


def test_hostile_strings_are_text_on_every_screen(client: FlaskClient, source: values.InventedSource) -> None:
    row = replace(
        source.device_rows[3], device_id=HOSTILE, labels={HOSTILE: HOSTILE, "site": HOSTILE}, why=HOSTILE, state="trial", runtimes=[HOSTILE]
    )
    release = values.release(
        version="4",
        note=HOSTILE,
        variants=[HOSTILE],
        gates=[(HOSTILE, HOSTILE, HOSTILE)],
        overrides=[(HOSTILE, HOSTILE)],
        registry=RegistryNote(HOSTILE, HOSTILE, values.NOW, HOSTILE, values.NOW),
    )
    view = values.rollout_view()
    member = replace(view.waves[0].members[0], device_id=HOSTILE, reason=HOSTILE, site=HOSTILE)
    gate = replace(view.gates[0], name=HOSTILE, now=HOSTILE, limit=HOSTILE, sentence=HOSTILE)
    log = [replace(view.events[0], actor=HOSTILE, action=HOSTILE, detail=HOSTILE)]
    source.device_rows = [row]
    source.release_rows = [replace(release, version=HOSTILE, project=HOSTILE)]
    source.log = log
    source.rollout_rows = [values.rollout_row(release=HOSTILE, project=HOSTILE, sentence=HOSTILE, rollout_id=HOSTILE)]
    source.rollout_views = {
        "r-2": replace(
            view, release=replace(release, project=HOSTILE), sentence=HOSTILE, missing=HOSTILE, policy_notes=[HOSTILE], policy_name=HOSTILE,
            selection=HOSTILE, waves=[replace(view.waves[0], members=[member], reason=HOSTILE)], gates=[gate], events=log,
            actions=[replace(view.actions[0], label=HOSTILE, effect=HOSTILE)], replaces=HOSTILE,
        )
    }  # fmt: skip
    explained = values.explanation(label=HOSTILE, device_id=HOSTILE, names=[HOSTILE] * 64, release=HOSTILE)
    need = replace(source.view.needs_you[0], sentence=HOSTILE, detail=HOSTILE, button=HOSTILE)
    source.view = values.overview_view(needs_you=[need], notes=[HOSTILE], releases_in_field=[(HOSTILE, 3)], explanation=explained)
    drift = values.drift_view()
    feature = replace(drift.devices[0].features[0], feature=HOSTILE)
    histogram = replace(drift.histograms[0][1], feature=HOSTILE, cells=[HOSTILE] * 12)
    device = replace(drift.devices[0], device_id=HOSTILE, features=[feature], labels={"site": HOSTILE})
    source.drift_view = replace(
        drift, project=HOSTILE, sentence=HOSTILE, detail=HOSTILE, devices=[device], histograms=[(HOSTILE, histogram)]
    )

    for path in (
        "/",
        "/rollouts",
        "/rollouts/r-2",
        "/rollouts/r-2/pause",
        "/devices",
        "/releases",
        "/drift",
        "/events",
        "/login?next=" + HOSTILE,
    ):
        html = body(client, path)
        assert "alert(1)" in html or path.startswith("/login")
        for tag, attributes in tags(html):
            assert tag != "img", path
            assert tag != "script" or "src" in attributes, path
            assert not [name for name in attributes if name.startswith("on")], (path, tag, attributes)


def test_a_hostile_question_is_text(client: FlaskClient) -> None:
    html = client.get("/devices", query_string={"q": HOSTILE, "state": HOSTILE, "page": HOSTILE}).get_data(as_text=True)

    assert "No device matches" in html
    assert "<script>alert" not in html
    assert "<img" not in html


@pytest.mark.parametrize("path", EMPTY_SCREENS)
def test_an_empty_screen_teaches_the_next_step(path: str) -> None:
    app, feed = values.page_app(values.empty_source())
    client = app.test_client()
    client.set_cookie(SESSION_COOKIE, "viewer-1")

    html = body(client, path)
    feed.close()

    assert 'class="empty"' in html
    assert path in {"/events", "/drift"} or "<code>" in html


def test_the_rollout_says_its_verdict_before_its_waves_and_gates(client: FlaskClient) -> None:
    html = body(client, "/rollouts/r-2")

    assert html.index("Hold: wave 2 waits for 1 of 2 devices.") < html.index("<h2>Waves") < html.index("<h2>Gates")


def test_gates_that_do_not_promote_come_first(client: FlaskClient) -> None:
    html = body(client, "/rollouts/r-2").split("<h2>Gates")[1]

    assert html.index("Committed and attested") < html.index("Label accuracy") < html.index("Failures") < html.index("Silence")


def test_a_release_says_where_it_stands_in_mlflow_or_why_it_does_not(client: FlaskClient, source: values.InventedSource) -> None:
    cards = body(client, "/releases").split('<section class="card release"')[1:]

    assert ["MLflow" in card for card in cards] == [True, False, True]
    assert "<b>Not registered in MLflow</b>" in cards[0]
    assert values.TROUBLE in cards[0]
    assert "MLflow: <b>digits</b> version 4, alias champion" in cards[2]

    source.rollout_views["r-2"] = replace(source.rollout_views["r-2"], release=source.release_rows[2])
    assert "MLflow: <b>digits</b> version 4, alias champion" in body(client, "/rollouts/r-2")


def test_policy_notes_and_overridden_gates_are_said_on_rollout_and_release(client: FlaskClient) -> None:
    rollout, releases = body(client, "/rollouts/r-2"), body(client, "/releases")

    assert "Demo policy: proves nothing about rates." in rollout
    for html in (rollout, releases):
        assert re.search(r"<b>G4 overridden by hand:</b> bad on purpose", html)


def test_the_overview_counts_what_needs_a_person(client: FlaskClient, source: values.InventedSource) -> None:
    assert "<h1>Four things need you</h1>" in body(client, "/")

    source.view = values.overview_view(needs_you=source.view.needs_you[:1])
    assert "<h1>One thing needs you</h1>" in body(client, "/")

    source.view = values.overview_view(needs_you=[])
    assert "<h1>Nothing needs you</h1>" in body(client, "/")


def test_devices_stand_worst_first(client: FlaskClient) -> None:
    html = body(client, "/devices").split("<tbody>")[1]

    found = re.findall(r'href="/devices/(camera-\d\d)"', html)
    assert found == ["camera-04", "camera-05", "camera-03", "camera-08", "camera-06", "camera-01", "camera-02", "camera-07"]


def test_a_state_and_words_narrow_the_devices(client: FlaskClient) -> None:
    html = body(client, "/devices?q=site%3Dhall-1&state=ok")

    assert "2 of 8 devices match" in html
    assert re.findall(r'href="/devices/(camera-\d\d)"', html) == ["camera-06", "camera-02"]


def test_a_row_that_is_no_square_is_explained_with_bars(client: FlaskClient, source: values.InventedSource) -> None:
    source.view = values.overview_view(explanation=values.explanation(names=["a", "b"], contributions=[0.4, -0.1], shape=[2]))

    html = body(client, "/")

    assert 'class="signedbars"' in html
    assert "a (+0.40) spoke most for it, b (\u22120.10) most against." in html


def test_a_fragment_is_main_alone(client: FlaskClient) -> None:
    html = client.get("/devices", headers={"X-Fragment": "main"}).get_data(as_text=True)

    assert html.strip().startswith("<main")
    assert html.strip().endswith("</main>")
    assert "<nav" not in html


def test_an_unknown_thing_is_404_and_says_so(client: FlaskClient) -> None:
    for path in ("/rollouts/none", "/devices/none", "/rollouts/r-2/explode"):
        answer = client.get(path)
        assert answer.status_code == 404, path
        assert "<h1>Not here</h1>" in answer.get_data(as_text=True)


def test_style_sheet_and_scripts_stay_small_and_templates_hold_no_style() -> None:
    static = PACKAGE / "static"

    assert (static / "page.css").stat().st_size <= 18_000
    assert sum(path.stat().st_size for path in static.glob("*.js")) <= 8_000
    for path in (PACKAGE / "templates").glob("*.html"):
        assert not re.search(r"\sstyle=|<style|\son[a-z]+=|\|\s*safe\b|autoescape", path.read_text()), path.name


def test_assets_are_kept_for_ever_under_their_digest_and_nowhere_else(client: FlaskClient) -> None:
    address = re.search(r"/assets/([0-9a-f]{16})/page\.css", body(client, "/"))
    assert address is not None

    kept = client.get(address.group(0))
    assert (kept.status_code, kept.mimetype) == (200, "text/css")
    assert "immutable" in kept.headers["Cache-Control"]
    assert client.get("/assets/0000000000000000/page.css").status_code == 404
    assert client.get(f"/assets/{address.group(1)}/../views.py").status_code == 404


@pytest.mark.parametrize(
    ("question", "found"),
    [
        ("runtime = onnx and not (site = hall-1)", ["camera-05", "camera-03", "camera-01", "camera-07"]),
        ("group(pilots)", ["camera-04", "camera-01"]),
        ("group(hall-1) and not group(pilots)", ["camera-08", "camera-06", "camera-02"]),
        ("hall-1 camera-06", ["camera-06"]),
    ],
)
def test_the_devices_screen_reads_a_selection_as_rollouts_do_and_anything_else_as_words(
    client: FlaskClient, question: str, found: list[str]
) -> None:
    html = body(client, f"/devices?q={quote(question)}")

    assert re.findall(r'href="/devices/(camera-\d\d)"', html) == found
    assert ("read as a selection: <code>" in html) is (question != "hall-1 camera-06")
    assert '<a href="/devices?q=group%28pilots%29">pilots</a>' in html


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ("site = hall 1", "Read as words, for as a selection it cannot be read: selection: &#39;1&#39; stands at character 13"),
        ("group(nobody)", "There is no group nobody."),
        ("not group(pilot)", "There is no group pilot (did you mean &#39;pilots&#39;?)."),
        ("sit != hall-1", "No device has a label sit (did you mean &#39;site&#39;?)."),
        ("not has(sit)", "No device has a label sit (did you mean &#39;site&#39;?)."),
        ("site != hal-1", "site != hal-1 leaves out nobody (did you mean &#39;hall-1&#39;?)."),
        ("not device(camera-77)", "There is no device camera-77."),
        ("site != hall-1 and " * 60 + "site != hall-1", "The question has 1154 characters, the limit here is 1000"),
    ],
)
def test_a_selection_that_cannot_be_meant_says_what_is_wrong_with_it(client: FlaskClient, question: str, words: str) -> None:
    html = body(client, f"/devices?q={quote(question)}")

    assert words in html
    assert "of a rollout takes the same" not in html


def test_a_hostile_value_in_a_selection_is_only_shown(client: FlaskClient) -> None:
    html = body(client, f"/devices?q={quote(f'site = {chr(34)}<script>alert(1)</script>{chr(34)} or site = hall-1')}")

    assert "read as a selection: <code>site in (&#39;&lt;script&gt;alert(1)&lt;/script&gt;&#39;, hall-1)</code>" in html
    assert "<script>alert" not in html


def test_a_group_that_is_called_like_a_word_of_the_language_is_offered_in_quotes(
    source: values.InventedSource, client: FlaskClient
) -> None:
    source.group_texts = {("digits", "in"): "device(camera-01)"}

    html = body(client, "/devices?q=group(%27in%27)")

    assert f'<a href="/devices?q={quote("group(" + chr(39) + "in" + chr(39) + ")")}">in</a>' in html
    assert re.findall(r'href="/devices/(camera-\d\d)"', html) == ["camera-01"]


def test_a_fleet_of_which_not_all_devices_were_looked_at_says_so(source: values.InventedSource, client: FlaskClient) -> None:
    assert "looked at: the first" not in body(client, "/devices")

    source.device_rows = [replace(source.device_rows[0], device_id=f"d{number:05d}") for number in range(10_000)]

    html = body(client, "/devices?q=site+!%3D+hall-77+and+not+group(nobody)")
    assert "looked at: the first 10,000 devices by id" in html
    assert "leaves out nobody" not in html
    assert "There is no group nobody." in html
