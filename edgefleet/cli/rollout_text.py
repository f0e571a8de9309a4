"""A rollout for a terminal: its plan, its waves, its gates. Text only; a screen of the page says the same."""

import textwrap
from collections.abc import Sequence
from typing import Any, Final

from edgefleet.client import Json
from edgefleet.report.table import table
from edgefleet.spans import chance, span

WIDTH: Final = 32  # characters of a bar
LISTED: Final = 20  # devices that need a look
NAMED: Final = 12  # device ids in a line of a plan
# State of a device -> (word, character of a bar); the order of a bar and of the columns.
STATES: Final = {
    "ok": ("ok", "#"),
    "failed": ("failed", "x"),
    "silent": ("silent", "!"),
    "pending": ("began", ">"),
    "not-begun": ("waiting", "."),
}


def plan_text(view: Json, *, with_devices: bool = False) -> str:
    """The answer of POST /rollouts/plan for people."""
    parts = [view["sentence"], f"plan {view['digest']}, policy {view['policy_name']!r} {view['policy_digest'][:12]}, {view['selection']}"]
    parts.append(_planned_waves(view))
    if with_devices:
        parts += [_named(f"wave {wave['number']}", wave["device_ids"]) for wave in view["waves"]]
        parts += [_named("held back", view["held_back_ids"])] if view["held_back_ids"] else []
    parts += [_awake(view["awake"]), chances_text(view["chances"], view["runs"]), needs_text(view["needs"])]
    if view["cautions"]:
        parts.append("\n".join(["What this plan cannot do:", *(f"  - {sentence}" for sentence in view["cautions"])]))
    parts.append("Nothing was changed. `edgefleet rollout create` with the same options makes this rollout; it then waits for its start.")
    return "\n\n".join(part for part in parts if part)


def chances_text(chances: Sequence[Json], runs: int) -> str:
    """What the plan does to releases that fail on a share of the devices."""
    if not chances:
        return ""
    header = ("release fails on", "stopped in wave 1", "stopped at all", "harmed devices", "if all fail late: stopped", "harmed")
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
    drawn = f"{runs:,} runs, seeded from the plan: same plan, same numbers."
    dark_header = ("goes dark on", "stopped in wave 1", "stopped at all", "dark devices", "on average")
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
    said = f"Harmed, dark: median, and in brackets what one of twenty runs exceeds. {drawn}"
    return f"{table(header, lines)}\n\n{table(dark_header, dark)}\n{said}"


def needs_text(needs: Sequence[Json]) -> str:
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
    said = "Seen in four of five rollouts by so many devices that tell; how much devices differ is assumed, not measured in this fleet."
    return f"{table(header, lines)}\n{said}"


def status_text(view: Json, width: int | None = None) -> str:
    """A rollout now: verdict, waves, gates, the devices that need a look.

    Args:
        view: Answer of GET /rollouts/<id>.
        width: Columns of the terminal: sentences are broken into lines, bars left out where there is no room. None: a file or another
            program reads it, one line a row.
    """
    headline = f"{view['rollout_id']} ({view['state']}, version {view['version']}): {view['sentence']}"
    parts = [_broken([headline, view["missing"]], width), _waves(view["waves"], width)]
    more = view.get("evidence")
    if more is not None:
        held = f"held back: {more['held_back']:,} devices, they get the release last" if more["held_back"] else ""
        waits = [f"{wait['devices']:,} of the open waves wait ({wait['why']}): {wait['sentence']}" for wait in more["waits"]]
        parts.append(_broken([line for line in (held, *waits) if line], width))
    if view["gates"]:
        parts.append(gates_text(view["gates"], width))
    parts.append(_devices(view["waves"], width))
    return "\n\n".join(part for part in parts if part)


def screen(text: str, columns: int, lines: int) -> str:
    r"""A text as far as a screen of so many columns and lines shows it; what it leaves out is counted on its last line.

    >>> print(screen("one\ntwo is longer\nthree", 10, 3))
    one
    ... 2 more lines
    """
    rows, used = text.split("\n"), 0
    for number, row in enumerate(rows):
        used += max(1, -(-len(row) // columns))
        if used > lines - (number + 1 < len(rows)):
            return "\n".join([*rows[:number], f"... {len(rows) - number} more lines"])
    return text


def explain_text(view: Json) -> str:
    """The answer of GET /rollouts/<id>/explain for people: each gate with its word, numbers, sentence, and what would change it."""
    where = f"wave {view['wave']} of {view['waves']}" if view["wave"] else "no wave is open"
    parts = [f"{view['rollout_id']} ({view['state']}, version {view['version']}, {where}): {view['sentence']}\n{view['missing']}"]
    if view["gates"]:
        decides = view["decides"]
        parts.append("\n\n".join(_gate(gate, decides=gate["name"] == decides) for gate in view["gates"]))
    else:
        parts.append("No gate has looked yet: no device has begun, so nothing is known.")
    decided = view.get("decided")
    if decided:
        parts.append(
            f"Last action of the engine: {decided['action']} at {decided['decided_at']}, decided on facts {decided['facts_digest'][:12]}."
        )
    if view["waits"]:
        lines = [(wait["devices"], wait["why"], wait["sentence"]) for wait in view["waits"]]
        parts.append(f"Devices that wait to begin:\n{table(('devices', 'for', 'in words'), lines)}")
    if view["chances"]:
        parts.append(f"What this plan does to a bad release:\n{chances_text(view['chances'], view['runs'])}")
    return "\n\n".join(parts)


def decisions_text(found: Sequence[Json]) -> str:
    """Actions of the engine for people; of one that was decided again also what came out."""
    header = ("version", "at", "action", "facts", "decided again")
    rows = [(one["version"], one["decided_at"], one["action"], one["facts_digest"][:12], _again(one)) for one in found]
    return table(header, rows) if rows else "The engine has done nothing yet."


def _again(one: Json) -> str:
    if "again" not in one:
        return "can be" if one["kept"] else "too large to be kept"
    return f"{one['again'] or 'nothing'}: {one['reason']}"


def approval_text(view: Json) -> str:
    """The answer of GET /rollouts/<id>/approvals for people."""
    lines = [f"{view['rollout_id']} ({view['state']}): plan {view['digest']}", f"its start ends: {view['supersedes']}"]
    rows = [(one["approver"], one["approved_at"], "yes" if one["counts"] else "no more", one["note"]) for one in view["approvals"]]
    if rows:
        lines.append(table(("approver", "at", "counts", "note"), rows))
    if not view["needed"]:
        lines.append("The policy asks for no approval.")
    elif view["missing"]:
        lines.append(f"{view['missing']}.")
        lines.append(f"To approve what you see here: edgefleet rollout approve {view['rollout_id']} --plan {view['digest'][:12]}")
    else:
        lines.append("All approvals are there.")
    return "\n".join(lines)


def gates_text(gates: Sequence[Json], width: int | None = None) -> str:
    """The gates of the open wave, the ones that hold it back first."""
    ordered = sorted(gates, key=lambda gate: gate["verdict"] in ("promote", "done"))
    header = ("verdict", "gate", "now", "limit", "n", "in words")
    return table(header, [(g["verdict"], g["name"], f"{g['now']} ", f"{g['limit']} ", g["n"], g["sentence"]) for g in ordered], width)


def counts_of(wave: Json) -> dict[str, int]:
    """State -> devices of one wave, every state named."""
    counted = dict.fromkeys(STATES, 0)
    if "counts" in wave:
        for state, count in wave["counts"].items():
            counted[state] += count
        return counted
    for member in wave["members"]:
        counted[member["progress"]] += 1
    return counted


def bar(counts: dict[str, int], width: int = WIDTH) -> str:
    """Devices as characters, in proportion; a state that has a device has a character.

    >>> bar({"ok": 900, "failed": 1, "silent": 0, "pending": 0, "not-begun": 99}, 10)
    '########x.'
    """
    total = sum(counts.values())
    if total == 0:
        return ""
    cells = {state: max(1, width * count // total) if count else 0 for state, count in counts.items()}
    # The largest part takes up what rounding left over, or gives what the smallest ones needed.
    largest = max(cells, key=lambda state: counts[state])
    cells[largest] += width - sum(cells.values())
    return "".join(STATES[state][1] * cells[state] for state in STATES)


def _planned_waves(view: Json) -> str:
    header = ("wave", "adds", "reaches", "opens after", "batches take", "dwell", "asleep", "done after", "strata")
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
    text = table(header, rows)
    return f"{text}\nheld back: {view['held_back']:,} devices, they get the release last" if view["held_back"] else text


def _strata(strata: Sequence[Sequence[Any]]) -> str:
    if len(strata) == 1 and not strata[0][0]:
        return "-"
    said = [f"{name or 'no label'} {count:,}" for name, count in strata[:6]]
    return ", ".join(said) + (f" and {len(strata) - 6} more" if len(strata) > 6 else "")


def _awake(awake: Json | None) -> str:
    if awake is None:
        return ""
    hours = "  ".join(f"{hour:02}h {100 * share:.0f}%" for hour, share in enumerate(awake["shares"]) if hour % 3 == 0)
    return f"Devices heard, by hour UTC ({awake['devices']:,} devices over {awake['days']} days): {hours}"


def _named(title: str, device_ids: Sequence[str]) -> str:
    lines = [", ".join(device_ids[start : start + NAMED]) for start in range(0, len(device_ids), NAMED)]
    return f"{title} ({len(device_ids):,}):\n  " + "\n  ".join(lines)


def _harm(median: float, p95: float) -> str:
    return f"{median:.0f} ({p95:.0f})"


def _gate(gate: Json, *, decides: bool) -> str:
    indent = " " * 11
    meter = "" if gate["level"] is None else f"  [{_meter(gate['level'])}]"
    first = f"{gate['verdict'].upper():<9}  {gate['name']}{' (this one decides)' if decides else ''}"
    lines = [first, f"{indent}{gate['now']}; limit {gate['limit']}; n = {gate['n']:,}{meter}", f"{indent}{gate['sentence']}"]
    if gate["turns"]:
        lines.append(f"{indent}What would change it: {gate['turns']}")
    return "\n".join(lines)


def _meter(level: float, width: int = 20) -> str:
    """A share of the limit as characters; only a limit that is reached fills it."""
    filled = width if level >= 1 else min(int(width * level), width - 1)
    return "=" * filled + "." * (width - filled)


def _broken(lines: Sequence[str], width: int | None) -> str:
    """Lines, the long ones in several."""
    return "\n".join(lines if width is None else [part for line in lines for part in textwrap.wrap(line, width) or [""]])


def _waves(waves: Sequence[Json], width: int | None) -> str:
    header: list[str] = ["wave", "is", "devices", *(word for word, _ in STATES.values())]
    rows: list[list[object]] = []
    for wave in waves:
        counts = counts_of(wave)
        rows.append([wave["number"], wave["state"], sum(counts.values()), *(counts[state] for state in STATES)])
    legend = "  ".join(f"{character} {word}" for word, character in STATES.values())
    with_bars = table([*header, legend], [[*row, bar(counts_of(wave))] for row, wave in zip(rows, waves, strict=True)])
    return with_bars if width is not None and len(with_bars.partition("\n")[0]) <= width else table(header, rows)


def _devices(waves: Sequence[Json], width: int | None) -> str:
    found = [(wave["number"], member) for wave in waves for member in wave["members"]]
    bad = [(number, one) for number, one in found if one["progress"] in ("failed", "silent")]
    shown = found if len(found) <= LISTED else bad[:LISTED]
    if not shown:
        return ""
    lines = [(number, one["device_id"], STATES[one["progress"]][0], one["reason"]) for number, one in shown]
    more = f"\n{len(bad) - LISTED} more failed or silent devices are not listed; --json has them." if len(bad) > len(shown) else ""
    return table(("wave", "device", "progress", "why"), lines, width) + more
