"""A plan for a terminal: waves and times, what a bad release would cost, what comparisons need. Fits 80 columns."""

from collections.abc import Sequence
from typing import Any, Final

from edgefleet.client import Json
from edgefleet.report.table import broken, table
from edgefleet.spans import chance, span

_NO_STRATA: Final = "-"
NAMED: Final = 12  # device ids in a line
_UNCHANGED: Final = "Nothing was changed. `edgefleet rollout create` with the same options makes this rollout; it then waits for its start."
_HARM: Final = (
    "Harmed, dark: median, and in brackets what one of twenty runs exceeds. All late: every failure shows only after a wave's last batch."
)
_NEEDS: Final = (
    "Seen in four of five rollouts by so many devices that tell; how much devices differ is assumed, not measured in this fleet."
)


def plan_text(view: Json, *, with_devices: bool = False, width: int | None = None) -> str:
    """The answer of POST /rollouts/plan for people.

    Args:
        view: The answer.
        with_devices: Name the devices of each wave.
        width: Columns of the terminal: longer lines are broken. None: a file or another program reads it, one line a row.
    """
    whose = f"plan {view['digest']}, policy {view['policy_name']!r} {view['policy_digest'][:12]}, {view['selection']}"
    parts = [broken([view["sentence"]], width), broken([whose], width), _planned_waves(view, width)]
    if with_devices:
        parts += [_named(f"wave {wave['number']}", wave["device_ids"], width) for wave in view["waves"]]
        parts += [_named("held back", view["held_back_ids"], width)] if view["held_back_ids"] else []
    parts += [_awake(view["awake"], width), chances_text(view["chances"], view["runs"], width), needs_text(view["needs"], width)]
    if view["cautions"]:
        parts.append(broken(["What this plan cannot do:", *(f"  - {sentence}" for sentence in view["cautions"])], width))
    parts.append(broken([_UNCHANGED], width))
    return "\n\n".join(part for part in parts if part)


def chances_text(chances: Sequence[Json], runs: int, width: int | None = None) -> str:
    """What the plan does to releases that fail on a share of the devices."""
    if not chances:
        return ""
    header = ("fails on", "stopped in wave 1", "at all", "harmed", "all late: stopped", "harmed")
    lines = [
        (
            chance(one["failing"]),
            chance(one["stopped_in_first"]),
            chance(one["stopped"]),
            _harm(one["harmed_median"], one["harmed_p95"]),
            chance(one["late_stopped"]),
            _harm(one["late_harmed_median"], one["late_harmed_p95"]),
        )
        for one in chances
    ]
    dark_header = ("goes dark on", "stopped in wave 1", "at all", "dark", "on average")
    dark = [
        (
            chance(one["failing"]),
            chance(one["dark_stopped_in_first"]),
            chance(one["dark_stopped"]),
            _harm(one["dark_harmed_median"], one["dark_harmed_p95"]),
            f"{one['dark_harmed_mean']:,.1f}",
        )
        for one in chances
    ]
    said = broken([f"{_HARM} {runs:,} runs, seeded from the plan: same plan, same numbers."], width)
    return f"{table(header, lines)}\n\n{table(dark_header, dark)}\n{said}"


def needs_text(needs: Sequence[Json], width: int | None = None) -> str:
    """How many devices each comparison of the model's behaviour needs, and when so many are there."""
    if not needs:
        return ""
    header = ("comparison", "to see", "needs devices", "there in wave")
    lines = [
        (
            one["gate"],
            one["change"],
            "no number is enough" if one["devices"] is None else f"{one['devices']:,}",
            "none" if one["wave"] is None else one["wave"],
        )
        for one in needs
    ]
    return f"{table(header, lines)}\n{broken([_NEEDS], width)}"


def _planned_waves(view: Json, width: int | None) -> str:
    header: tuple[str, ...] = ("wave", "adds", "reaches", "opens after", "batches take", "dwell", "asleep", "done after", "strata")
    rows: list[tuple[Any, ...]] = [
        (
            wave["number"],
            wave["adds"],
            wave["devices"],
            span(wave["opens_s"]),
            span(wave["opening_s"]),
            span(wave["dwell_s"]),
            span(wave["asleep_s"]),
            span(wave["done_s"]),
            _strata(wave["strata"]),
        )
        for wave in view["waves"]
    ]
    if all(row[-1] == _NO_STRATA for row in rows):
        header, rows = header[:-1], [row[:-1] for row in rows]
    text = table(header, rows, width)
    return f"{text}\nheld back: {view['held_back']:,} devices, they get the release last" if view["held_back"] else text


def _strata(strata: Sequence[Sequence[Any]]) -> str:
    if len(strata) == 1 and not strata[0][0]:
        return _NO_STRATA
    said = [f"{name or 'no label'} {count:,}" for name, count in strata[:6]]
    return ", ".join(said) + (f" and {len(strata) - 6} more" if len(strata) > 6 else "")


def _awake(awake: Json | None, width: int | None) -> str:
    if awake is None:
        return ""
    hours = "  ".join(f"{hour:02}h {100 * share:.0f}%" for hour, share in enumerate(awake["shares"]) if hour % 3 == 0)
    return broken([f"Devices heard, by hour UTC ({awake['devices']:,} devices over {awake['days']} days): {hours}"], width)


def _named(title: str, device_ids: Sequence[str], width: int | None) -> str:
    lines = [", ".join(device_ids[start : start + NAMED]) for start in range(0, len(device_ids), NAMED)]
    return broken([f"{title} ({len(device_ids):,}):", *(f"  {line}" for line in lines)], width)


def _harm(median: float, p95: float) -> str:
    return f"{median:.0f} ({p95:.0f})"
