"""The screen of a rollout by evidence: bars of thousands of devices, gates with their meters, times, chances; nothing of it markup."""

import doctest
import re
from dataclasses import replace
from datetime import timedelta
from xml.etree import ElementTree

import pytest
from flask.testing import FlaskClient

from fleet_server.auth import SESSION_COOKIE
from fleet_server.page.charts import evidence as charts
from fleet_server.page.charts.evidence import WIDTH, held_bar, largest_wave, meter, timeline, wave_bar
from fleet_server.read_models import Progress, Verdict, WaveView
from tests.unit.fleet_server import page_values as values

HOSTILE = "<img src=x onerror=alert(1)>"
PATH = "/rollouts/r-evidence"


def body(client: FlaskClient, path: str = PATH) -> str:
    answer = client.get(path)
    assert answer.status_code == 200, answer.get_data(as_text=True)
    return answer.get_data(as_text=True)


def boxes(svg: str) -> list[tuple[str, float, float]]:
    """(class, x, width) of each rectangle."""
    found = ElementTree.fromstring(svg).iter()  # noqa: S314  # our own output; parsing it is the test
    return [(e.attrib["class"], float(e.attrib["x"]), float(e.attrib["width"])) for e in found if e.tag.endswith("rect")]


def wave(counts: dict[Progress, int], number: int = 1) -> WaveView:
    return WaveView(number, "open", [], None, None, "", counts)


def test_the_examples_in_the_docstrings_are_true() -> None:
    result = doctest.testmod(charts)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize(
    "counts",
    [{"ok": 7_019, "failed": 1}, {"ok": 1}, {"failed": 1}, {"not-begun": 7_020}, {"pending": 3, "silent": 1, "failed": 1, "ok": 1}],
)
def test_a_bar_shows_each_state_that_has_a_device_and_stays_in_its_box(counts: dict[Progress, int]) -> None:
    drawn = boxes(wave_bar(wave(counts), 7_020).svg)

    assert {css for css, _, _ in drawn} >= {f"s-{state}" for state in counts if state != "not-begun"}
    assert all(x >= 0 and width > 0 and x + width <= WIDTH + 0.6 for _, x, width in drawn)
    assert min((width for css, _, width in drawn if css.startswith("s-")), default=4) >= 4


def test_a_wave_without_devices_shows_no_device() -> None:
    assert [css for css, _, _ in boxes(wave_bar(wave({}), 500).svg)] == ["c-not-begun"]


def test_a_wave_in_which_everybody_is_done_has_no_hole() -> None:
    drawn = boxes(wave_bar(wave({"ok": 500, "failed": 2, "silent": 1}), 503).svg)

    assert max(x + width for css, x, width in drawn if css.startswith("s-")) == pytest.approx(WIDTH, abs=0.2)


def test_larger_waves_have_longer_bars_by_the_root_of_their_devices() -> None:
    small, large = (boxes(wave_bar(wave({"not-begun": n}), 10_000).svg)[0][2] for n in (100, 10_000))

    assert large == pytest.approx(WIDTH, abs=2)
    assert small == pytest.approx(WIDTH / 10, abs=2)
    assert largest_wave([]) == 1
    assert boxes(held_bar(0, 1))[0][2] > 0


@pytest.mark.parametrize("level", [-1.0, 0.0, 0.36, 1.0, 7.0])
@pytest.mark.parametrize("verdict", ["promote", "hold", "pause", "abort", "extend"])
def test_a_meter_fills_with_its_level_and_never_overflows(level: float, verdict: Verdict) -> None:
    _, bar, tip = boxes(meter(level, verdict, "stop"))

    assert bar[2] == pytest.approx(72 * min(max(level, 0), 1), abs=0.1)
    assert tip[1] == 71


@pytest.mark.parametrize("level", [None, float("nan")])
def test_what_has_no_level_has_no_meter(level: float | None) -> None:
    assert meter(level, "promote", "facts") == ""


def test_the_timeline_has_a_bar_for_each_opened_wave_and_a_mark_for_each_act() -> None:
    view = values.evidence_rollout()
    chart = timeline(view, values.NOW)

    drawn = boxes(chart.svg)
    bars, marks = [box for box in drawn if box[2] != 3], [box for box in drawn if box[2] == 3]
    assert len(bars) == 2
    assert len(marks) == 6
    assert all(x >= 0 and x + width <= WIDTH for _, x, width in drawn)
    assert [row[0] for row in chart.rows] == ["1", "2"]
    assert chart.says == "2 of 4 waves were opened in 41.7\u00a0h; 4 actions of the engine and 2 of people."


def test_a_stopped_rollout_s_timeline_ends_with_its_last_event_and_shows_the_stop() -> None:
    view = values.evidence_rollout()
    stopped = replace(view, state="aborted", verdict="abort", waves=[replace(one, state="halted") for one in view.waves])

    assert timeline(stopped, values.NOW).svg == timeline(stopped, values.NOW + timedelta(days=9)).svg
    assert "s-failed" in {kind for kind, _, width in boxes(timeline(stopped, values.NOW).svg) if width != 3}


def test_a_stopped_rollout_does_not_say_that_nothing_has_begun(client: FlaskClient, source: values.InventedSource) -> None:
    view = replace(values.evidence_rollout(), state="aborted", verdict="abort", gates=[])
    source.rollout_views[view.rollout_id] = view

    shown = body(client)
    assert "The rollout was stopped: no gate looks any more." in shown
    assert "no device has begun" not in shown


def test_before_the_start_there_is_no_timeline() -> None:
    view = values.evidence_rollout()
    waiting = replace(view, waves=[replace(one, opened_at=None, promoted_at=None) for one in view.waves], events=[])

    assert timeline(waiting, values.NOW).says == "No wave has been opened yet."


def test_a_clock_that_stands_before_the_opening_draws_nothing_outside() -> None:
    drawn = boxes(timeline(values.evidence_rollout(), values.NOW - timedelta(days=9)).svg)

    assert all(x >= 0 and x + width <= WIDTH for _, x, width in drawn)


def test_the_screen_says_waves_gates_waits_times_and_chances(client: FlaskClient) -> None:
    html = body(client)

    order = ["Hold: 318 of 505 devices", "<h2>Waves", "<h2>Gates of the open wave", "<h2>What happened when", "<h2>What this plan does"]
    assert [html.index(words) for words in order] == sorted(html.index(words) for words in order)
    assert "126 devices of it wait: The next batch begins at 15:02." in html
    assert '<b class="num">7,020</b> not begun' in html
    assert '<b class="num">480</b> get the release last' in html
    assert "What would change it: 21 more failures" in html
    assert html.count('class="meter"') == 5
    assert "318 of 9,520 devices have begun" in html
    assert re.search(
        r'97\.3.%</td><td class="num">&gt;99\.9.%</td><td class="num">9 <span class="note">\(14\)</span></td><td class="num">9\.3</td>',
        html,
    )
    assert "<h2>What each comparison needs" in html
    assert re.search(r"15 % more memory</td>.*</span>36</td>.*</span>1</td>", html)
    assert "no number is enough" in html


def test_thousands_of_devices_are_not_listed(client: FlaskClient) -> None:
    html = body(client)

    # Each of the three that need a look: its name and the link to it.
    assert len(set(re.findall(r"press-0\d+", html))) == 3
    assert len(html) < 60_000


def test_a_rollout_by_evidence_that_waits_for_its_start_is_whole(client: FlaskClient, source: values.InventedSource) -> None:
    view = values.evidence_rollout()
    waves = [replace(one, state="later", opened_at=None, members=[], counts={"not-begun": 10}) for one in view.waves]
    source.rollout_views["r-evidence"] = replace(
        view, state="draft", waves=waves, gates=[], events=[], evidence=values.evidence(decides="", waits=[], held_back=0)
    )

    html = body(client)

    assert "nothing is known" in html
    assert "get the release last" not in html
    assert "What happened when" not in html


def test_a_rollout_that_is_over_says_that_no_gate_looks_any_more(client: FlaskClient, source: values.InventedSource) -> None:
    source.rollout_views["r-evidence"] = values.evidence_rollout(state="completed", verdict="done", gates=[])

    html = body(client)

    assert "The rollout is over: no gate looks any more." in html
    assert "nothing is known" not in html


def test_a_paused_rollout_leads_to_what_a_person_can_do(client: FlaskClient, source: values.InventedSource) -> None:
    assert 'href="#act"' not in body(client)

    source.rollout_views["r-evidence"] = values.evidence_rollout(state="paused", verdict="pause")

    html = body(client)
    assert html.index('href="#act"') < html.index("<h2>Waves") < html.index('id="act"')


def test_words_from_devices_and_people_are_text(client: FlaskClient, source: values.InventedSource) -> None:
    view = values.evidence_rollout()
    gate = replace(view.gates[1], name=HOSTILE, now=HOSTILE, limit=HOSTILE, sentence=HOSTILE, turns=HOSTILE)
    member = replace(view.waves[1].members[0], device_id=HOSTILE, reason=HOSTILE, site=HOSTILE)
    wait = values.evidence().waits[0]
    source.rollout_views["r-evidence"] = replace(
        view,
        gates=[gate],
        waves=[replace(view.waves[1], members=[member], reason=HOSTILE)],
        evidence=values.evidence(decides=HOSTILE, rule=HOSTILE, waits=[replace(wait, sentence=HOSTILE)]),
        events=[replace(view.events[0], action=HOSTILE, detail=HOSTILE)],
    )

    html = body(client)

    assert "alert(1)" in html
    assert "<img" not in html


def test_a_plan_that_waits_for_approval_shows_who_is_missing_and_is_approved_by_its_digest(
    client: FlaskClient, source: values.InventedSource
) -> None:
    html = body(client, "/rollouts/r-draft")
    form = body(client, "/rollouts/r-draft/approve")
    answer = client.post("/rollouts/r-draft/approve", data={"digest": values.D2, "note": "fine"}, headers={"Origin": "http://localhost"})

    assert "1 of 2 approvals are there (operator-1)" in html
    assert "counts no more" in html
    assert f'name="digest" value="{values.D2}"' in form
    assert answer.status_code == 303
    assert source.approved == [("r-draft", values.D2, "fine", "operator-2")]


def test_an_approval_of_a_plan_that_has_changed_is_refused(client: FlaskClient, source: values.InventedSource) -> None:
    answer = client.post("/rollouts/r-draft/approve", data={"digest": values.D1}, headers={"Origin": "http://localhost"})

    assert answer.status_code == 409
    assert "the plan has changed since" in answer.get_data(as_text=True)
    assert source.approved == []


def test_a_viewer_sees_the_approval_but_no_button(source: values.InventedSource) -> None:
    app, feed = values.page_app(source)
    viewer = app.test_client()
    viewer.set_cookie(SESSION_COOKIE, "viewer-1")

    html = body(viewer, "/rollouts/r-draft")
    refused = viewer.post("/rollouts/r-draft/approve", data={"digest": values.D2}, headers={"Origin": "http://localhost"})
    feed.close()

    assert "1 of 2 approvals are there" in html
    assert "Approve this plan" not in html
    assert refused.status_code == 403
    assert source.approved == []


def test_a_policy_without_approvals_shows_none(client: FlaskClient, source: values.InventedSource) -> None:
    source.approval = values.approval(needed=0, approvals=[], missing="")

    assert "<h2>Approval" not in body(client, "/rollouts/r-draft")
    assert "<h2>Approval" not in body(client)


@pytest.mark.parametrize("path", ["/", "/rollouts", "/devices", "/events", PATH])
def test_a_halt_of_the_fleet_is_said_on_every_screen(client: FlaskClient, source: values.InventedSource, path: str) -> None:
    assert "The fleet is halted" not in body(client, path)

    source.halt_view = replace(values.halted(), reason=HOSTILE)

    html = body(client, path)
    assert "The fleet is halted." in html
    assert "7 of 8 devices know it" in html
    assert "<img" not in html
