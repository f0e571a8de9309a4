"""What the screens show of the devices' own observations: every number with unit and age, nothing that is not there, and only text."""

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from html import unescape

import pytest
from flask.testing import FlaskClient

from fleet_server.auth import SESSION_COOKIE
from fleet_server.page.charts.observed import agreement, class_shares
from fleet_server.page.figures import NO_BREAK
from fleet_server.page.states import worst_states
from fleet_server.read_models import DeviceView
from fleet_server.read_observed import AttributionView, InputAttribution
from tests.unit.fleet_server import page_values as values
from tests.unit.fleet_server.test_page_screens import HOSTILE, body, tags


class Source(values.InventedSource):
    """Answers with one device that tests may exchange."""

    def __init__(self) -> None:
        super().__init__()
        self.shown = values.device_view(values.device_row(6), self.log)

    def device(self, device_id: str, now: datetime) -> DeviceView:
        return self.shown


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def client(source: Source) -> Iterator[FlaskClient]:
    app, feed = values.page_app(source)
    client = app.test_client()
    client.set_cookie(SESSION_COOKIE, "operator-2")
    yield client
    feed.close()


def words(html: str) -> str:
    """The text of a page, in one line."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).replace(NO_BREAK, " ").split())


def test_a_device_tells_its_load_with_units_and_age(client: FlaskClient) -> None:
    said = words(body(client, "/devices/camera-06"))

    assert "The device itself told 4 s ago Processor 19.2 % of one core Memory 74 MB Disk free 11.8 GB Temperature 51.3 °C" in said
    assert "Clock 42 ms ahead, set 1 time" in said


def test_what_a_device_cannot_know_is_said_and_not_guessed(client: FlaskClient, source: Source) -> None:
    source.shown = replace(source.shown, load=values.load(5))
    assert "Disk free unknown Temperature no sensor Clock unknown" in words(body(client, "/devices/camera-06"))

    source.shown = replace(source.shown, load=None)
    assert "It has not told its load." in words(body(client, "/devices/camera-06"))


def test_a_comparison_says_agreement_difference_period_and_age(client: FlaskClient) -> None:
    said = words(body(client, "/devices/camera-06"))

    assert "Compared: release 2 listens beside release 1 the last 24 h · heard 3 s ago" in said
    assert (
        "Same answer for 96 % of 1,186 rows; its score lies \u22120.01 from the running model's on average, standard deviation 0.08."
        in said
    )
    assert "another answer 39 only the running model answered 6 only the listening model answered 2 not compared, for its budget 52" in said


def test_models_that_share_rows_stand_in_one_table(client: FlaskClient) -> None:
    said = words(body(client, "/devices/camera-06"))

    assert "1 90 % 4,510 answered 12 refused 0.912 mean score 0.41 ms p50 3 s ago “1” 50 %, “2” 40 %, “0” 10 %" in said
    assert "2 10 % 498 answered 1 refused" in said


def test_cards_of_what_is_not_there_are_not_drawn(client: FlaskClient, source: Source) -> None:
    nothing = values.observed("camera-06", attribution=[])
    source.shown = replace(source.shown, observed=nothing, sampling=None)

    said = words(body(client, "/devices/camera-06"))

    for title in ("Compared:", "Models that share the rows", "What its answers rested on", "Rows that leave it"):
        assert title not in said


def test_contributions_stand_largest_first_with_their_share(client: FlaskClient) -> None:
    said = words(body(client, "/devices/camera-06"))

    assert "What its answers rested on release 1 · the last 24 h · heard 40 s ago" in said
    assert "pixel_0_0 28.3 % 2.4 +2.40 pixel_0_1 20.3 % 1.72 +0.93" in said
    assert "1,204 explained rows." in said
    assert "56 inputs with smaller shares are not listed. 36 more were due" in said


def test_the_drift_page_puts_contributions_beside_the_drift_of_each_input(client: FlaskClient) -> None:
    said = words(body(client, "/drift"))

    assert "pixel_0_2 A 14.6 %" in said
    assert "pixel_0_3 \u2013 10.4 %" in said
    assert "1,204 explained rows of 7 devices." in said


def test_an_order_says_who_what_and_until_when(client: FlaskClient, source: Source) -> None:
    said = words(body(client, "/devices/camera-06"))
    assert "12 rows arrived as they came in, in the last 24 h." in said
    assert "Ordered by operator-2, 12:35:26 At most 60 rows an hour, 1 MB a day Held back pixel_0_0, pixel_0_1 Ends 19:32:06 UTC" in said

    source.shown = replace(source.shown, sampling=None)
    assert "No order is in force: no row leaves it now." in words(body(client, "/devices/camera-06"))


def test_a_period_that_was_cut_says_so(client: FlaskClient, source: Source) -> None:
    source.shown = replace(source.shown, observed=replace(source.shown.observed, windows=2000, complete=False))

    assert "the last 24 h, of these the newest 2,000 windows" in words(body(client, "/devices/camera-06"))


def test_hostile_names_are_text(client: FlaskClient, source: Source) -> None:
    seen = source.shown.observed
    inputs = [InputAttribution(HOSTILE, 1.0, 1.0, 1.0)]
    source.shown = replace(
        source.shown,
        observed=replace(
            seen,
            shadow=[replace(seen.shadow[0], shadow_release=HOSTILE, running_release="", running_digest=HOSTILE)],
            shares=[replace(seen.shares[0], release=HOSTILE, classes=[(HOSTILE, 4510)])],
            attribution=[AttributionView(HOSTILE, "", 1, 0, inputs, 1, values.NOW)],
        ),
        sampling=replace(values.order("camera-06"), ordered_by=HOSTILE, redact=[HOSTILE]),
    )

    html = body(client, "/devices/camera-06")

    assert "<script>alert" not in html
    assert not [tag for tag, attributes in tags(html) if tag == "img" or "onerror" in attributes]
    assert html.count("&lt;script&gt;alert(1)") >= 6


def test_pictures_of_nothing_claim_nothing() -> None:
    empty = replace(values.compared(), offered=0, compared=0, agreed=0, shadow_failed=0, running_failed=0, shed=0, agreement=None)

    assert agreement(empty).says == "No row has been compared yet."
    assert agreement(empty).rows == []
    assert class_shares(replace(values.shares()[0], classes=[])) == ""


def test_few_rows_are_counted_and_not_turned_into_percent() -> None:
    few = replace(values.compared(), compared=20, agreed=19, shadow_failed=0, difference_mean=None)

    assert agreement(few).says == "Same answer for 19 of 20 rows."


def test_many_classes_are_cut_with_their_number() -> None:
    arm = replace(values.shares()[0], answered=1000, classes=[(f"c{i}", 100 * i) for i in range(5)])

    assert class_shares(arm).replace(NO_BREAK, " ") == "“c4” 40 %, “c3” 30 %, “c2” 20 %, 1 more"


def test_the_gravest_state_of_an_input_counts_and_too_few_data_only_where_nobody_has_more() -> None:
    devices = [values.drift_device(number) for number in (8, 7, 6)]

    assert worst_states(devices)["pixel_0_0"] == "alarm"
    assert worst_states(devices)["pixel_3_3"] == "quiet"
    assert worst_states(devices[:1])["pixel_3_3"] == "too-few"
