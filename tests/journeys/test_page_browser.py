"""The page in a real browser: widths, themes, policy breaches, focus, live exchange, dialogs; and whole without JavaScript."""

import re
import shutil
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from waitress.server import create_server
from waitress.wasyncore import close_all, loop

from fleet_server.auth import SESSION_COOKIE
from fleet_server.page import Feed
from tests.unit.fleet_server import page_values as values

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync"]  # fmt: skip
SCREENS = ("/", "/rollouts", "/rollouts/r-2", "/rollouts/r-large", "/rollouts/r-evidence", "/rollouts/new", "/rollouts/r-draft",
           "/rollouts/r-draft/approve", "/rollouts/r-2/abort",
           "/devices", "/devices/camera-06",
           "/groups", "/groups/new", "/groups/digits/pilots", "/groups/digits/pilots/change", "/groups/digits/pilots/remove",
           "/releases", "/drift", "/events", "/login")  # fmt: skip
EMPTY = ("/", "/rollouts", "/devices", "/groups", "/groups/new", "/releases", "/drift", "/events")
WATCH = "window.breaches = []; addEventListener('securitypolicyviolation', e => breaches.push(e.violatedDirective + ' ' + e.blockedURI));"
FOCUS = """() => { const e = document.activeElement; if (!e || e === document.body) return null;
  const s = getComputedStyle(e), r = e.getBoundingClientRect();
  return {name: (e.innerText || e.id || e.tagName).slice(0, 40), ring: s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2,
          seen: r.width > 0 && r.height > 0, tall: r.height} }"""

pytestmark = [
    pytest.mark.browser,
    # The driver's own event loop leaves sockets to the garbage collector; none of them is ours.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@dataclass
class Site:
    """A served page over an invented source."""

    address: str
    source: values.InventedSource
    feed: Feed


def serve(source: values.InventedSource) -> Iterator[Site]:
    app, feed = values.page_app(source, live_clock=True)
    # The feed of this app allows three viewers; threads beyond that answer pages.
    sockets: dict[int, object] = {}
    server = create_server(app, map=sockets, host="127.0.0.1", port=0, threads=12, channel_request_lookahead=1)
    ended = threading.Event()

    def answer() -> None:
        while not ended.is_set():
            loop(timeout=0.1, map=sockets, count=1)
        # Closed by the thread that owns them: closing through the trigger races with a worker that has just pulled it.
        close_all(sockets)

    thread = threading.Thread(target=answer, name="page-server")
    thread.start()
    yield Site(f"http://127.0.0.1:{server.effective_port}", source, feed)
    feed.close()
    ended.set()
    thread.join(timeout=60)
    server.task_dispatcher.shutdown()
    assert not thread.is_alive()


@pytest.fixture
def site() -> Iterator[Site]:
    yield from serve(values.InventedSource())


@pytest.fixture
def empty_site() -> Iterator[Site]:
    yield from serve(values.empty_source())


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
            yield browser
            browser.close()


def visitor(
    browser: Browser, site: Site, *, name: str = "operator-2", width: int = 1280, scheme: str = "light", script: bool = True
) -> BrowserContext:
    context = browser.new_context(
        viewport={"width": width, "height": 800},
        color_scheme="dark" if scheme == "dark" else "light",
        reduced_motion="reduce",
        java_script_enabled=script,
        base_url=site.address,
    )
    context.set_default_timeout(10_000)
    context.add_init_script(WATCH)
    context.add_cookies([{"name": SESSION_COOKIE, "value": name, "url": site.address}])
    return context


def noise_of(page: Page) -> list[str]:
    noise: list[str] = []
    page.on("console", lambda message: noise.append(message.text) if message.type in {"error", "warning"} else None)
    page.on("pageerror", lambda error: noise.append(str(error)))
    return noise


def inspect(page: Page, paths: tuple[str, ...], width: int) -> list[str]:
    """What is wrong with these screens, one line each."""
    noise, wrong = noise_of(page), []
    for path in paths:
        page.goto(path)
        page.wait_for_function("document.documentElement.classList.contains('js')")
        found = page.evaluate(
            "({wide: document.documentElement.scrollWidth, breaches, inline: document.querySelectorAll('[style]').length,"
            " unnamed: [...document.querySelectorAll('main a, main button')].filter(e => !e.innerText.trim() && !e.ariaLabel).length})"
        )
        wrong += [f"{path}: {found['wide']} px wide"] if found["wide"] > width else []
        wrong += [f"{path}: {line}" for line in [*found["breaches"], *noise]]
        wrong += [f"{path}: {found['inline']} inline styles"] if found["inline"] else []
        wrong += [f"{path}: {found['unnamed']} links without words"] if found["unnamed"] else []
        noise.clear()
    return wrong


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_no_screen_overflows_breaks_the_policy_or_complains(browser: Browser, site: Site, width: int, scheme: str) -> None:
    context = visitor(browser, site, width=width, scheme=scheme)

    wrong = inspect(context.new_page(), SCREENS, width)

    context.close()
    assert wrong == []


@pytest.mark.parametrize("width", [1280, 390])
def test_the_screens_of_an_empty_fleet_are_whole(browser: Browser, empty_site: Site, width: int) -> None:
    context = visitor(browser, empty_site, name="viewer-1", width=width)

    wrong = inspect(context.new_page(), EMPTY, width)

    context.close()
    assert wrong == []


@pytest.mark.parametrize("width", [1280, 390])
def test_long_unbroken_names_do_not_widen_the_page(browser: Browser, site: Site, width: int) -> None:
    long = "x" * 64
    site.source.device_rows = [
        replace(site.source.device_rows[0], device_id=long, labels={"site": long}, why=long * 3, running_release=long)
    ]
    view = values.rollout_view()
    member = replace(view.waves[0].members[0], device_id=long, reason=long)
    gate = replace(view.gates[0], name=long, now=long, limit=long, sentence=long)
    site.source.rollout_views["r-2"] = replace(
        view, sentence=long, waves=[replace(view.waves[0], members=[member])], gates=[gate], selection=long
    )
    site.source.group_texts = {("digits", long): f"device({long}) or site = {long}", ("digits", "pilots"): "has(site)"}
    context = visitor(browser, site, width=width)

    group = f"/groups/digits/{long}"
    wrong = inspect(context.new_page(), ("/devices", "/rollouts/r-2", f"/devices/{long}", "/groups", group, f"{group}/remove"), width)

    context.close()
    assert wrong == []


@pytest.mark.parametrize("path", ["/", "/rollouts/r-2", "/rollouts/r-evidence", "/devices", "/drift"])
def test_each_stop_of_the_tab_key_is_seen(browser: Browser, site: Site, path: str) -> None:
    context = visitor(browser, site)
    page = context.new_page()
    page.goto(path)
    page.wait_for_function("document.documentElement.classList.contains('js')")

    stops = []
    for _ in range(25):
        page.keyboard.press("Tab")
        stop = page.evaluate(FOCUS)
        if stop is None:
            break
        stops.append(stop)

    context.close()
    assert stops[0]["name"] == "Skip to the content"
    assert len(stops) > 8
    assert [stop["name"] for stop in stops if not (stop["ring"] and stop["seen"])] == []


def test_a_change_swaps_a_number_and_keeps_what_a_person_opened_and_focused(browser: Browser, site: Site) -> None:
    context = visitor(browser, site)
    page = context.new_page()
    noise = noise_of(page)
    page.goto("/")
    expect(page.locator("#live")).to_have_attribute("data-state", "live")
    page.get_by_text("Show numbers").click()
    link = page.get_by_role("link", name="All rollouts")
    link.focus()

    site.source.view = values.overview_view(devices_connected=7)
    site.source.change_rows.append((42, "overview"))

    expect(page.locator("dl.figures dd").first).to_have_text("7")
    expect(link).to_be_focused()
    assert page.locator("#d-why").evaluate("d => d.open") is True
    assert page.locator("main").get_attribute("data-seq") == "42"
    assert noise == []
    context.close()


def test_what_a_person_types_survives_a_change(browser: Browser, site: Site) -> None:
    context = visitor(browser, site)
    page = context.new_page()
    page.goto("/devices")
    expect(page.locator("#live")).to_have_attribute("data-state", "live")
    page.locator("#q").press_sequentially("hall")

    site.source.device_rows = site.source.device_rows[:5]
    site.source.change_rows.append((42, "devices"))

    expect(page.locator(".sub").first).to_contain_text("5 devices")
    expect(page.locator("#q")).to_have_value("hall")
    expect(page.locator("#q")).to_be_focused()
    context.close()


def test_five_tabs_of_one_browser_are_one_viewer(browser: Browser, site: Site) -> None:
    context = visitor(browser, site)
    pages = [context.new_page() for _ in range(5)]

    for page in pages:
        page.goto("/events")
        expect(page.locator("#live")).to_have_attribute("data-state", "live")

    assert site.feed.viewers == 1
    context.close()


def test_walking_through_many_screens_keeps_one_place_among_the_viewers(browser: Browser, site: Site) -> None:
    context = visitor(browser, site)
    page = context.new_page()

    for path in ("/", "/devices", "/drift", "/events", "/releases", "/rollouts"):
        page.goto(path)
        expect(page.locator("#live")).to_have_attribute("data-state", "live")

    assert site.feed.viewers == 1
    context.close()


def test_beyond_the_viewer_limit_a_page_says_that_it_asks_by_itself(browser: Browser, site: Site) -> None:
    others = [site.feed.connect(None) for _ in range(3)]
    context = visitor(browser, site)
    page = context.new_page()

    page.goto("/")

    expect(page.locator("#live")).to_have_attribute("data-state", "polling")
    expect(page.locator("#live")).to_contain_text("Updates every 10 s")
    for other in others:
        other.close()
    context.close()


def test_an_action_asks_first_with_cancel_focused_and_is_done_with_its_reason(browser: Browser, site: Site) -> None:
    context = visitor(browser, site)
    page = context.new_page()
    noise = noise_of(page)
    page.goto("/rollouts/r-2")
    page.wait_for_function("document.documentElement.classList.contains('js')")

    page.get_by_role("link", name="Roll back 3 devices…").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("3 devices return to release 1; 5 never had release 2.")
    expect(dialog.get_by_role("link", name="Cancel")).to_be_focused()
    dialog.get_by_role("link", name="Cancel").press("Enter")
    expect(dialog).to_be_hidden()
    assert site.source.acted == []

    page.get_by_role("link", name="Roll back 3 devices…").click()
    dialog.get_by_label("Reason, kept in the log").fill("it misses its latency budget")
    dialog.get_by_role("button", name="Roll back 3 devices").click()
    page.wait_for_url(re.compile("/rollouts/r-2$"))

    assert site.source.acted == [("r-2", "roll-back", 7, "it misses its latency budget", "operator-2")]
    assert noise == []
    context.close()


def test_a_page_under_a_question_is_not_exchanged_until_it_is_closed(browser: Browser, site: Site) -> None:
    context = visitor(browser, site)
    page = context.new_page()
    page.goto("/rollouts/r-2")
    expect(page.locator("#live")).to_have_attribute("data-state", "live")
    page.get_by_role("link", name="Pause…").click()
    page.get_by_label("Reason, kept in the log").first.fill("half a sen")

    site.source.rollout_views["r-2"] = values.rollout_view(version=8, sentence="Done: all devices run it.")
    site.source.change_rows.append((42, "rollout:r-2"))
    with page.expect_event("console", predicate=lambda message: message.text == "two beats") as beats:
        page.evaluate("setTimeout(() => console.log('two beats'), 1500)")

    assert beats.value
    expect(page.get_by_role("dialog").get_by_label("Reason, kept in the log")).to_have_value("half a sen")
    page.keyboard.press("Escape")
    expect(page.locator(".sentence")).to_contain_text("Done: all devices run it.")
    context.close()


def test_without_javascript_everything_can_be_read_and_done(browser: Browser, site: Site) -> None:
    context = visitor(browser, site, script=False)
    page = context.new_page()

    page.goto("/rollouts/r-2")
    expect(page.get_by_role("link", name="Refresh")).to_be_visible()
    page.get_by_role("link", name="Pause…").click()
    page.get_by_label("Reason, kept in the log").fill("the hall is closed")
    page.get_by_role("button", name="Pause").click()

    expect(page.locator("h1")).to_have_text("digits 2")
    assert site.source.acted == [("r-2", "pause", 7, "the hall is closed", "operator-2")]
    context.close()


def test_without_javascript_a_change_of_a_group_is_looked_at_and_done(browser: Browser, site: Site) -> None:
    context = visitor(browser, site, width=390, script=False)
    page = context.new_page()

    page.goto("/devices")
    page.get_by_role("link", name="Groups").click()
    page.get_by_role("link", name="pilots").click()
    page.get_by_role("link", name="Change…").click()
    page.get_by_label("Devices: names").fill("camera-02\ncamera-04")
    page.get_by_role("button", name="Show what would change").click()
    expect(page.locator("#change .sentence")).to_have_text("The group pilots would mean 3 devices now: 1 would come in.")
    width = page.evaluate("document.documentElement.scrollWidth")
    page.get_by_label("Reason, kept in the log").fill("it volunteered too")
    page.get_by_role("button", name="Change the group").click()

    expect(page.locator("h1")).to_have_text("pilots")
    assert width <= 390
    assert site.source.regrouped == [("digits", "pilots", "add", "camera-02\r\ncamera-04", "it volunteered too", "operator-2")]
    context.close()


def test_signing_in_through_the_form_leads_back(browser: Browser, site: Site) -> None:
    context = visitor(browser, site, name="nobody")
    page = context.new_page()

    page.goto("/drift")
    page.get_by_label("Token").fill(values.OPERATOR_TOKEN)
    page.get_by_role("button", name="Sign in").click()

    expect(page.locator("h1")).to_have_text("Drift")
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()
    context.close()


def test_a_plan_is_approved_in_a_dialog_with_the_digest_that_was_shown(browser: Browser, site: Site) -> None:
    context = visitor(browser, site)
    page = context.new_page()
    noise = noise_of(page)
    page.goto("/rollouts/r-draft")
    page.wait_for_function("document.documentElement.classList.contains('js')")

    page.get_by_role("link", name="Approve plan").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("link", name="Cancel")).to_be_focused()
    dialog.get_by_label("Note, kept in the log").fill("looked at the chances")
    dialog.get_by_role("button", name="Approve this plan").click()
    page.wait_for_url(re.compile("/rollouts/r-draft$"))

    assert site.source.approved == [("r-draft", values.D2, "looked at the chances", "operator-2")]
    assert noise == []
    context.close()


@pytest.mark.parametrize("width", [1280, 390])
def test_the_banner_of_a_halted_fleet_fits_every_screen(browser: Browser, site: Site, width: int) -> None:
    site.source.halt_view = replace(values.halted(), reason="x" * 500)
    context = visitor(browser, site, width=width)

    wrong = inspect(context.new_page(), ("/", "/rollouts/r-evidence", "/devices"), width)

    context.close()
    assert wrong == []


@pytest.mark.parametrize("script", [True, False], ids=["with-javascript", "without"])
@pytest.mark.parametrize("width", [1280, 390])
def test_a_rollout_is_planned_and_created_in_four_steps(browser: Browser, site: Site, width: int, script: bool) -> None:
    context = visitor(browser, site, width=width, script=script)
    page = context.new_page()
    noise = noise_of(page)

    page.goto("/rollouts")
    page.get_by_role("link", name="New rollout").click()
    page.get_by_label("Devices: empty is every device").fill("site in (hall-1, hall-2) and not group(pilots)")
    page.keyboard.press("Enter")  # the first button of the form only shows the plan
    expect(page.get_by_role("heading", name="What would happen")).to_be_visible()
    assert site.source.created == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.get_by_role("button", name="Create this rollout").click()

    expect(page.get_by_role("heading", name="What you can do now")).to_be_visible()
    assert site.source.created == [
        (site.source.release_rows[0].release_id, "measured", "site in (hall-1, hall-2) and not group(pilots)", "operator-2")
    ]
    assert noise == []
    context.close()
