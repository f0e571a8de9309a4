"""A rollout for a terminal: its waves, its gates, its devices. Text only; a screen of the page says the same."""

from collections.abc import Sequence
from typing import Final

from edgefleet.cli.plan_text import chances_text
from edgefleet.client import Json
from edgefleet.report.table import broken, table

WIDTH: Final = 32  # characters of a bar
LISTED: Final = 20  # devices that need a look
# State of a device -> (word, character of a bar); the order of a bar and of the columns.
STATES: Final = {
    "ok": ("ok", "#"),
    "failed": ("failed", "x"),
    "silent": ("silent", "!"),
    "pending": ("began", ">"),
    "not-begun": ("waiting", "."),
}


def status_text(view: Json, width: int | None = None) -> str:
    """A rollout now: verdict, waves, gates, the devices that need a look.

    Args:
        view: Answer of GET /rollouts/<id>.
        width: Columns of the terminal: sentences are broken into lines, bars left out where there is no room. None: a file or another
            program reads it, one line a row.
    """
    headline = f"{view['rollout_id']} ({view['state']}, version {view['version']}): {view['sentence']}"
    parts = [broken([headline, view["missing"]], width), _waves(view["waves"], width)]
    more = view.get("evidence")
    if more is not None:
        held = f"held back: {more['held_back']:,} devices, they get the release last" if more["held_back"] else ""
        waits = [f"{wait['devices']:,} of the open waves wait ({wait['why']}): {wait['sentence']}" for wait in more["waits"]]
        parts.append(broken([line for line in (held, *waits) if line], width))
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
