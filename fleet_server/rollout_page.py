"""The generated tables of docs/rollout.md: keys of a policy, defaults by fleet size, what a rule says, gates, chances.

`python -m fleet_server.rollout_page docs/rollout.md` writes them between their marks; a test compares page and code.
"""

import inspect
import re
import sys
import types
import typing
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from edgefleet.errors import ConfigError
from edgefleet.spans import chance
from fleet_server.rollout.comparison_needs import needs
from fleet_server.rollout.foresight import FAILING, chances
from fleet_server.rollout.plans import SMALL_PLANS, default_course, default_policy
from fleet_server.rollout.policy import Policy
from fleet_server.rollout.policy_rules import RuleLimits
from fleet_server.rollout.posterior import History
from fleet_server.rollout.rules import POSTERIOR_BELOW, counts_at
from fleet_server.rollout_page_words import GATES, LIMITS, OPEN, SAID, WORDS

_SIZES: Final = (8, 20, 45, 100, 300, 1_000, 2_000, 10_000, 100_000)
_COUNTED: Final = (1, 2, 5, 10, 20, 40, 77, 154, 308, 616)
_FORETOLD: Final = (8, 45, 300, 1_000, 10_000)
SEED: Final = 1


def generated() -> dict[str, str]:
    """Name of a mark -> the table under it."""
    return {
        "policy": policy_table(),
        "sizes": sizes_table(),
        "counts": counts_table(),
        "gates": gates_table(),
        "words": _table(("word", "what it does"), [(word, said) for word, said in WORDS.items()]),
        "chances": chances_table(),
        "needs": needs_table(),
    }


def keys(struct: type[msgspec.Struct] = Policy, prefix: str = "") -> list[tuple[str, Any, str]]:
    """(key, default, meaning) of a policy's keys, tables with a dot; `NODEFAULT` where the key must be there."""
    found: list[tuple[str, Any, str]] = []
    said = _meanings(struct)
    hints = typing.get_type_hints(struct)
    for field in msgspec.structs.fields(struct):
        default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        inner = _struct_in(hints[field.name])
        found.append((prefix + field.name, default, said.get(field.name, "")))
        if inner is not None:
            found += keys(inner, f"{prefix}{field.name}.")
    return found


def policy_table() -> str:
    """Every key with its default, what is accepted, and what it means."""
    rows = []
    for key, default, meaning in keys():
        rows.append((f"`{key}`", _default(default), _accepted(key), meaning))
    return _table(("key", "default", "accepted", "what it means"), rows)


def sizes_table() -> str:
    """Waves and dwells that a policy without `waves` gets, by devices of the selection."""
    rows = []
    edges = [1, *(row[0] for row in SMALL_PLANS)]
    for first, (below, _, _) in zip(edges, SMALL_PLANS, strict=False):
        rows.append(_size_row(f"{first:,} to {below - 1:,}", below - 1))
    rows.append(_size_row(f"from {POSTERIOR_BELOW:,}", 10_000))
    return _table(
        (
            "devices",
            "waves of the largest such fleet (of 10,000 in the last row)",
            "dwell, hours",
            "rule",
            "grows at most",
            "a person is asked",
        ),
        rows,
    )


def counts_table() -> str:
    """Failures that stop, promote or let a wave grow, by devices."""
    bound, posterior = RuleLimits().rule("bound", History()), RuleLimits().rule("posterior", History())
    rows = []
    for n in _COUNTED:
        b, p = counts_at(bound, n), counts_at(posterior, n)
        rows.append((n, _at_least(b.stop, n), _at_most(b.promote), _at_most(b.extend), _at_most(p.promote), _at_most(p.extend)))
    header = ("devices", "stop at", "`bound` promotes up to", "grows up to", "`posterior` promotes up to", "grows up to")
    return _table(header, rows)


def gates_table() -> str:
    """Gates with what they ask and the words that they can say."""
    return _table(("gate", "what it asks", "its words"), [(name, asks, ", ".join(words)) for name, (asks, words) in GATES.items()])


def chances_table() -> str:
    """What the default policy does to releases that fail on a share of the devices, by fleet size."""
    rows = []
    for devices in _FORETOLD:
        for one in chances(default_course(devices), np.random.default_rng(SEED)):
            late, dark = one.late or one.at_once, one.dark or one.at_once
            rows.append(
                (
                    f"{devices:,}",
                    f"{100 * one.failing:g} %",
                    chance(one.at_once.stopped_in_first),
                    chance(one.at_once.stopped),
                    f"{one.at_once.harmed_median:.0f} ({one.at_once.harmed_p95:.0f})",
                    f"{chance(late.stopped)}, {late.harmed_median:.0f} ({late.harmed_p95:.0f})",
                    f"{chance(dark.stopped_in_first)}, {dark.harmed_mean:,.1f}",
                )
            )
    failing = ("stopped in wave 1", "stopped at all", "harmed: median (p95)", "all failures late: stopped, harmed")
    header = ("devices", "fails on", *failing, "devices go dark: stopped in wave 1, harmed on average")
    assert len(rows) == len(_FORETOLD) * len(FAILING)  # noqa: S101  # one row each
    return _table(header, rows)


def needs_table() -> str:
    """What the default policy's comparisons need in a fleet of 10,000."""
    devices = _FORETOLD[-1]
    rows = [
        (
            one.gate,
            f"{one.tolerance:.3g}",
            one.change,
            "no number is enough" if one.devices is None else one.devices,
            "none" if one.wave is None else one.wave,
        )
        for one in needs(default_policy().gates, default_course(devices).sizes, devices)
    ]
    return _table(("comparison", "tolerance", "to see", "needs devices", "there in wave"), rows)


def replaced(page: str) -> str:
    """The page with each generated table in its place.

    Raises:
        ConfigError: A mark is missing.
    """
    for name, text in generated().items():
        mark = re.compile(rf"(<!-- generated: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        if mark.search(page) is None:
            raise ConfigError(f"the page has no mark <!-- generated: {name} --> ... <!-- end -->")
        page = mark.sub(lambda found, text=text: found[1] + text + "\n" + found[2], page)  # type: ignore[misc]
    return page


def _size_row(name: str, devices: int) -> tuple[object, ...]:
    course = default_course(devices)
    waves = ", ".join(f"{size:,}" for size in course.sizes)
    dwells = ", ".join(f"{dwell_s / 3600:g}" for dwell_s in course.dwell_s)
    person = {"first-wave-and-failure": "after wave 1, at each failure", "failure": "at each failure"}.get(course.confirm, "when it pauses")
    return name, waves, dwells, course.rule.kind, f"{course.rule.extends} times", person


def _struct_in(hint: Any) -> type[msgspec.Struct] | None:
    """The struct that a key is a table of, or a list of tables of."""
    parts = typing.get_args(hint) if typing.get_origin(hint) in (tuple, typing.Union, types.UnionType) else (hint,)
    return next((part for part in parts if isinstance(part, type) and issubclass(part, msgspec.Struct)), None)


def _meanings(struct: type) -> dict[str, str]:
    """Attribute -> its line of the docstrings, the parents' included."""
    found: dict[str, str] = {}
    for one in reversed(struct.__mro__):
        text = inspect.cleandoc(one.__doc__ or "").partition("Attributes:\n")[2]
        for match in re.finditer(r"^    (\w+): (.*(?:\n        .*)*)", text, re.MULTILINE):
            found[match[1]] = re.sub(r"\bNone\b", "left out", re.sub(r"\s+", " ", match[2]))
    return found


def _default(value: Any) -> str:
    if value is msgspec.NODEFAULT:
        return "required"
    if isinstance(value, msgspec.Struct):
        return "as below"
    if value is None or value in ((), ""):
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value:,g}`" if isinstance(value, float) else f"`{list(value) if isinstance(value, tuple) else value}`".replace("'", '"')


def _accepted(key: str) -> str:
    if key in OPEN:
        low, high, closed = OPEN[key]
        return f"above {low:g}, {'at most' if closed else 'below'} {high:,.10g}"
    if key not in LIMITS:
        return SAID.get(key, "")
    low, high = LIMITS[key]
    return f"{low:,g} to {high:,.10g}"


def _at_least(count: int, n: int) -> str:
    return "never" if count > n else str(count)


def _at_most(count: int) -> str:
    return "never" if count < 0 else str(count)


def _table(header: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows)])


def main(path: Path) -> None:
    """Write the tables into a page."""
    path.write_text(replaced(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
