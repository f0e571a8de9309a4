"""Reports in a real browser: nothing asked of a network, nothing wider than the window, a PDF without cut plots."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from playwright.sync_api import Browser, sync_playwright

from converter.report import write_conversion_report
from tests.unit.converter.conversions import full_story, refused_story
from tests.unit.trainer.report_records import full_record, invented_project, invented_rows
from trainer.report.card import card_html
from trainer.report.compare import write_comparison
from trainer.report.data_report import write_data_report
from trainer.report.run_report import write_run_report

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync"]  # fmt: skip
KINDS = ("run", "data", "compare", "card", "empty", "conversion", "refused")
# Text of a chart that leaves its drawing would be cut by its edge.
CUT = """() => [...document.querySelectorAll('figure svg[role=img]')].flatMap(svg => { const box = svg.getBoundingClientRect();
  return [...svg.querySelectorAll('text')].filter(t => { const r = t.getBoundingClientRect();
    return r.left < box.left - 1 || r.right > box.right + 1 || r.bottom > box.bottom + 1 || r.top < box.top - 1
  }).map(t => t.textContent) })"""

pytestmark = [
    pytest.mark.browser,
    # The driver's own event loop leaves sockets to the garbage collector; none of them is ours.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reports")
    rows = invented_rows()
    table = pd.DataFrame(rows.x, columns=["load", "speed", "leak", "tool"]).assign(state=rows.label)
    write_data_report(invented_project(folder / "p"), table, rows, folder / "data.html")
    write_run_report(full_record(), folder / "run.html")
    write_run_report({}, folder / "empty.html")
    write_comparison([full_record(), full_record() | {"id": "r-2"}], folder / "compare.html")
    write_conversion_report(full_story(), folder / "conversion.html")
    write_conversion_report(refused_story(), folder / "refused.html")
    (folder / "card.html").write_text(card_html(full_record()), "utf-8")
    return folder


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("kind", KINDS)
def test_a_report_fits_the_window_and_asks_for_nothing(browser: Browser, reports: Path, kind: str, width: int, theme: str) -> None:
    said: list[str] = []
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme="dark" if theme == "dark" else "light")
    page = context.new_page()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: said.append(request.url) if not request.url.startswith(("file:", "data:")) else None)

    page.goto((reports / f"{kind}.html").as_uri())

    assert said == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(CUT) == []
    context.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_report_prints_to_pages_that_hold_every_plot_whole(browser: Browser, reports: Path, kind: str, tmp_path: Path) -> None:
    context = browser.new_context(viewport={"width": 794, "height": 1123})
    page = context.new_page()
    page.goto((reports / f"{kind}.html").as_uri())
    page.emulate_media(media="print")
    figures = page.evaluate(
        "[...document.querySelectorAll('figure')].map(f => [getComputedStyle(f).breakInside, f.getBoundingClientRect().height])"
    )

    content = page.pdf(path=tmp_path / "report.pdf", prefer_css_page_size=True, print_background=True)

    # A plot that is taller than a page's 269 mm would be cut whatever the style says.
    assert all(style == "avoid" and height < 269 / 25.4 * 96 for style, height in figures)
    assert len(re.findall(rb"/Type\s*/Page\b", content)) >= 1
    context.close()
