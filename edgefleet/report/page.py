"""One self-contained HTML file: no script, no network, light and dark, printable. docs/adr/0004 says why."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final

from edgefleet.errors import ConfigError
from edgefleet.files import write_durably
from edgefleet.report.markup import EMPTY, Html, element, join, text

# Nothing may be loaded or run, whatever text a report quotes.
POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


@dataclass(frozen=True)
class Section:
    """One titled part of a report.

    Attributes:
        title: Its heading, unique in the report.
        body: Its content.
        lead: One sentence under the heading: what to see.
    """

    title: str
    body: Html
    lead: str = ""


def page(title: str, sections: Sequence[Section], *, top: Html = EMPTY, subtitle: str = "") -> Html:
    """The whole file.

    Args:
        title: Shown as heading and as the window's title.
        sections: In order; a list of links to them stands before the first when there are more than three.
        top: Stands above the sections: the verdict.
        subtitle: One line under the title: which run, which data.
    """
    style = resources.files("edgefleet.report").joinpath("report.css").read_text("utf-8")
    head = join(
        Html('<meta charset="utf-8">'),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'),
        Html('<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">'),
        element("title", text(title)),
        # An empty icon: browsers would otherwise ask a server for one.
        Html('<link rel="icon" href="data:,">'),
        Html(f"<style>{style}</style>"),
    )
    heading = element("header", element("h1", text(title)), element("p", text(subtitle), class_="sub") if subtitle else EMPTY)
    links = [element("li", element("a", text(part.title), href=f"#s{i}")) for i, part in enumerate(sections)]
    contents = element("nav", element("ul", *links), aria_label="Sections") if len(links) > 3 else EMPTY
    body = element("main", heading, top, contents, *(_section(i, part) for i, part in enumerate(sections)))
    return Html(f'<!doctype html>\n<html lang="en"><head>{head}</head><body>{body}</body></html>\n')


def _section(index: int, part: Section) -> Html:
    lead = element("p", text(part.lead), class_="lead") if part.lead else EMPTY
    return element("section", element("h2", text(part.title)), lead, part.body, id=f"s{index}", class_="card")


def write_page(path: Path, content: str) -> Path:
    """Write a report so that a reader sees the old file or the whole one; the folder is made.

    Raises:
        ConfigError: The file cannot be written there.
    """
    try:
        write_durably(path, content.encode("utf-8"))
    except OSError as err:
        raise ConfigError(f"{path}: the report cannot be written: {err.strerror}; name another file") from err
    return path
