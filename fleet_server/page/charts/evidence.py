"""Pictures of a rollout by evidence: waves as bars of thousands of devices, evidence against its limit, what happened when."""

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from markupsafe import Markup

from edgefleet.spans import chance, span
from fleet_server.page.charts import Chart, picture, rect
from fleet_server.page.figures import NO_BREAK, clock
from fleet_server.page.states import counts_in_words, wave_counts
from fleet_server.read_models import EventView, Progress, RolloutView, Verdict, WaveView

WIDTH: Final = 720.0
_THIN: Final = 4.0  # one device of thousands is still seen
_ORDER: Final[tuple[Progress, ...]] = ("ok", "failed", "silent", "pending")
# What a person or the engine did -> class of its mark; everything else is not drawn.
_MARKS: Final = {
    "start": "s-pending",
    "open-wave": "s-pending",
    "promote": "s-ok",
    "complete": "s-ok",
    "extend": "s-pending",
    "pause": "s-silent",
    "confirm": "s-pending",
    "resume": "s-pending",
    "abort": "s-failed",
    "roll-back": "s-failed",
}
OVER: Final = ("aborted", "rolled-back", "superseded", "discarded")
_STOPPED: Final = ("aborted", "rolling-back", "paused-rb", "rolled-back")
_LEVELS: Final[dict[Verdict, str]] = {"pause": "s-silent", "abort": "s-failed", "hold": "s-pending", "extend": "s-pending"}


def wave_bar(wave: WaveView, largest: int) -> Chart:
    """The devices of one wave as one bar, as long as the root of how many they are, so that wave 1 of a large fleet can be seen.

    Args:
        wave: With its counts.
        largest: Devices of the largest wave, which fills the width.
    """
    counts = wave_counts(wave)
    total = sum(counts.values())
    length = max(WIDTH * math.sqrt(total / max(largest, 1)), 4 * _THIN)
    parts = {state: max(_THIN, length * counts[state] / total) if counts[state] else 0.0 for state in _ORDER}
    # What the thin parts took is taken from the largest one, so that the bar keeps its length.
    rest = length - sum(parts.values())
    if rest < 0 or (total and not counts["not-begun"]):
        parts[max(_ORDER, key=lambda state: counts[state])] += rest
    body, x = [rect("c-not-begun", 0.5, 0.5, max(length - 1, 1), 15)], 0.0
    for state in _ORDER:
        if parts[state] > 0:
            body.append(rect(f"s-{state}", x, 0, parts[state], 16))
            x += parts[state]
    says = f"Wave {wave.number}: {counts_in_words(counts)}."
    return Chart(picture(WIDTH, 16, body, says, "field", stretch=True), says)


def largest_wave(waves: Sequence[WaveView]) -> int:
    """Devices of the largest wave, at least 1."""
    return max((sum(wave_counts(wave).values()) for wave in waves), default=1) or 1


def held_bar(held_back: int, largest: int) -> Markup:
    """Controls as a bar of the same scale."""
    length = max(WIDTH * math.sqrt(held_back / max(largest, 1)), 4 * _THIN)
    return picture(WIDTH, 16, [rect("b-held", 0.5, 0.5, length - 1, 15)], f"Held back: {held_back:,} devices.", "field", stretch=True)


def meter(level: float | None, verdict: Verdict, name: str) -> Markup:
    """How near a gate is to its limit: a full bar has reached it."""
    if level is None or math.isnan(level):
        return Markup("")
    share = min(max(level, 0.0), 1.0)
    body = [rect("track", 0, 4, 72, 4), rect(_LEVELS.get(verdict, "s-ok"), 0, 2, 72 * share, 8), rect("tip", 71, 0, 1.5, 12)]
    return picture(73, 12, body, f"{name}: {100 * share:.0f} % of the way to its limit", "meter")


def timeline(view: RolloutView, now: datetime) -> Chart:
    """When each wave was open, a row each, and above them what people and the engine did."""
    opened = [wave for wave in view.waves if wave.opened_at is not None]
    begin = min((wave.opened_at for wave in opened if wave.opened_at is not None), default=None)
    if begin is None:
        return Chart(Markup(""), "No wave has been opened yet.")
    ended = view.events and (view.verdict == "done" or view.state in OVER)
    end = max(view.events[0].at if ended else now, begin)
    length_s = max((end - begin).total_seconds(), 1.0)

    def x(at: datetime) -> float:
        return (WIDTH - 4) * min(max((at - begin).total_seconds() / length_s, 0.0), 1.0)

    body = []
    halted = "s-failed" if view.state in _STOPPED else "s-silent"
    for row, wave in enumerate(opened):
        assert wave.opened_at is not None  # noqa: S101  # chosen above
        left, right = x(wave.opened_at), x(wave.promoted_at or end)
        shade = "s-ok" if wave.promoted_at is not None else halted if wave.state == "halted" else "s-pending"
        body.append(rect(shade, left, 18 + 14 * row, max(right - left, _THIN), 10))
    drawn = [event for event in view.events if event.action in _MARKS and begin <= event.at <= end]
    body += [rect(_MARKS[event.action], x(event.at), 0, 3, 12) for event in drawn]
    rows = [
        (str(wave.number), clock(wave.opened_at, now), clock(wave.promoted_at, now) if wave.promoted_at else "not yet", _took(wave, end))
        for wave in opened
        if wave.opened_at is not None
    ]
    were = "was" if len(opened) == 1 else "were"
    says = f"{len(opened)} of {len(view.waves)} waves {were} opened in {_kept_together(length_s)}; {_acts(drawn)}."
    svg = picture(WIDTH, 20 + 14 * len(opened), body, says, "field", stretch=True)
    return Chart(svg, says, ("Wave", "Opened", "Promoted", "Open for"), rows)


def chance_words(share: float) -> str:
    """A probability of 10,000 runs, to what they can tell.

    >>> chance_words(0.0).replace(NO_BREAK, " "), chance_words(0.99995).replace(NO_BREAK, " "), chance_words(0.093).replace(NO_BREAK, " ")
    ('0 %', '>99.9 %', '9.3 %')
    """
    return chance(share).replace(" ", NO_BREAK)


def share_words(share: float) -> str:
    """A share that a person chose, with the digits that it has.

    >>> share_words(0.05).replace(NO_BREAK, " ")
    '5 %'
    """
    return f"{100 * share:.3g}{NO_BREAK}%"


def _took(wave: WaveView, end: datetime) -> str:
    return "" if wave.opened_at is None else _kept_together(((wave.promoted_at or end) - wave.opened_at).total_seconds())


def _acts(events: Sequence[EventView]) -> str:
    by_people = sum(event.actor != "engine" for event in events)
    return f"{len(events) - by_people} actions of the engine and {by_people} of people"


def _kept_together(seconds: float) -> str:
    return span(seconds).replace(" ", NO_BREAK)
