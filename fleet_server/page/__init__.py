"""The operators' page: server-made HTML and SVG, live by server-sent events, and whole without JavaScript.

It shows read models and calls use-cases; it refuses to hold a query, a policy, an inline script or an inline style. State is told by
shape and word first, by colour second, and no number stands without its unit and age.

Read `views.py` next (the addresses), then `states.py` (shapes and words), `charts/` (pictures) and `live.py` (what makes it move).
"""

from collections.abc import Callable
from datetime import UTC, datetime

from flask import Flask
from jinja2 import StrictUndefined

from edgefleet.spans import span
from fleet_server.page import figures, states
from fleet_server.page.assets import Assets
from fleet_server.page.charts.cells import member_table, mini_waves, wave_cells
from fleet_server.page.charts.contributions import contributions, sums
from fleet_server.page.charts.evidence import OVER, chance_words, held_bar, largest_wave, meter, share_words, timeline, wave_bar
from fleet_server.page.charts.histogram import histogram
from fleet_server.page.charts.lines import evidence, field_bar
from fleet_server.page.charts.observed import agreement, class_shares, clock_words, percent, share_bar
from fleet_server.page.live import Feed
from fleet_server.page.source import Source
from fleet_server.page.views import create_views

__all__ = ["Feed", "Source", "create_page"]


def create_page(app: Flask, source: Source, *, max_viewers: int = 32, clock: Callable[[], datetime] | None = None) -> Feed:
    """Add the page to a Flask application.

    Args:
        app: The application; its template environment gets the page's filters.
        source: Where the page's values come from, in production `DatabaseSource(services)`.
        max_viewers: Live streams served at once; each occupies one server thread while it is open.
        clock: Where `now` comes from, the wall clock by default.

    Returns:
        The feed of live changes; `close()` it when the server stops, else open streams outlive it.
    """
    feed = Feed(source.changes_after, source.newest_change, max_viewers=max_viewers)
    app.jinja_env.undefined = StrictUndefined
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    for name in ("number", "signed", "e_value", "milliseconds", "size", "short_digest", "age", "moment", "counted", "in_words"):
        app.jinja_env.filters[name] = getattr(figures, name)
    for function in (
        figures.share,
        states.device_shape,
        states.device_word,
        states.rollout_counts,
        states.wave_counts,
        states.drifting_features,
        states.moved_inputs,
        states.worst_states,
        member_table,
        mini_waves,
        wave_cells,
        contributions,
        sums,
        histogram,
        chance_words,
        held_bar,
        largest_wave,
        meter,
        share_words,
        timeline,
        wave_bar,
        evidence,
        field_bar,
        agreement,
        class_shares,
        clock_words,
        percent,
        share_bar,
        span,
    ):
        app.jinja_env.globals[function.__name__] = function
    app.jinja_env.globals.update(
        LEGEND=states.LEGEND,
        VERDICTS=states.VERDICTS,
        SEVERITIES=states.SEVERITIES,
        BUNDLE_GATES=states.BUNDLE_GATES,
        DRIFT=states.DRIFT,
        OVER=OVER,
    )
    app.register_blueprint(create_views(source, Assets.load(), feed, clock or (lambda: datetime.now(UTC))))
    return feed
