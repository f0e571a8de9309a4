"""Pictures of what devices observed: shares as bars, two models beside each other."""

from markupsafe import Markup

from fleet_server.page.charts import Chart, picture, rect
from fleet_server.page.figures import NO_BREAK, number, share, signed
from fleet_server.read_observed import ShadowView, ShareView

WIDTH = 600


def share_bar(fraction: float, says: str) -> Markup:
    """A fraction of 0 to 1 as one bar that fills its place."""
    wide = WIDTH * min(max(fraction, 0.0), 1.0)
    return picture(WIDTH, 10, [rect("track", 0, 3, WIDTH, 4), rect("f-0", 0, 0, wide, 10)], says, "field", stretch=True)


def percent(fraction: float) -> str:
    """A fraction of a sum, to a tenth of a percent, so that a column of them stands in line.

    >>> percent(0.07471).replace(NO_BREAK, " ")
    '7.5 %'
    """
    return f"{100 * fraction:.1f}{NO_BREAK}%"


def agreement(view: ShadowView) -> Chart:
    """Rows that were offered to a model that only listened, by what became of them."""
    differed = view.compared - view.agreed
    parts = [
        ("same answer", view.agreed, "f-0"),
        ("another answer", differed, "s-silent"),
        ("only the running model answered", view.shadow_failed, "s-failed"),
        ("only the listening model answered", view.running_failed, "f-1"),
        ("neither answered", view.both_failed, "f-3"),
        ("not compared, for its budget", view.shed, "f-2"),
    ]
    body, x = [], 0.0
    for _, count, css_class in parts:
        wide = WIDTH * count / view.offered if view.offered else 0.0
        if wide:
            body.append(rect(css_class, x, 0, max(1.0, wide - 2), 20))
        x += wide
    rows = [(name, number(count)) for name, count, _ in parts if count]
    return Chart(picture(WIDTH, 20, body, _agreed(view), "field", stretch=True), _agreed(view), ("Rows offered", "Count"), rows)


def class_shares(view: ShareView, most: int = 3) -> str:
    """The most frequent answers with their share of the answered rows; empty for values."""
    ranked = sorted((pair for pair in view.classes if pair[1]), key=lambda pair: -pair[1])
    said = [f"“{name}” {share(count, view.answered)}" for name, count in ranked[:most]]
    return ", ".join(said) + (f", {len(ranked) - most} more" if len(ranked) > most else "")


def _agreed(view: ShadowView) -> str:
    judged = view.compared + view.shadow_failed
    if not judged:
        return "No row has been compared yet."
    said = f"Same answer for {share(view.agreed, judged)}{'' if judged < 50 else f' of {judged:,}'} rows"
    if view.difference_mean is None or view.difference_sd is None:
        return f"{said}."
    mean, spread = signed(view.difference_mean), f"{view.difference_sd:.2f}"
    return f"{said}; its score lies {mean} from the running model's on average, standard deviation {spread}."


def clock_words(offset_ms: int | None) -> str:
    """How far a device's clock is off.

    >>> clock_words(None), clock_words(0), clock_words(-42).replace(NO_BREAK, " "), clock_words(90_000).replace(NO_BREAK, " ")
    ('unknown', 'as the server', '42 ms ahead', '90 s behind')
    """
    if offset_ms is None:
        return "unknown"
    if offset_ms == 0:
        return "as the server"
    size = abs(offset_ms)
    told = f"{size}{NO_BREAK}ms" if size < 10_000 else f"{number(round(size / 1000))}{NO_BREAK}s"
    return f"{told} {'behind' if offset_ms > 0 else 'ahead'}"
