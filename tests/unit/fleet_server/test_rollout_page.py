"""docs/rollout.md says what the code does: tables, accepted values, words of gates, commands."""

import re
import shlex
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import msgspec
import numpy as np
import pytest

from edgefleet.cli.rollout import rollout
from edgefleet.cli.rollout_text import explain_text
from edgefleet.errors import ConfigError
from fleet_server.rollout import parse_policy
from fleet_server.rollout.comparisons import COMPARISONS, Wealth
from fleet_server.rollout.confirming import asks_at
from fleet_server.rollout.findings import Confirmed
from fleet_server.rollout.judgement import SEVERITY, Clock, decisive, judge
from fleet_server.rollout.plans import course_of, default_policy
from fleet_server.rollout.rules import Rule
from fleet_server.rollout.silence import Silence, silence
from fleet_server.rollout.tally import Stratum, Tally
from fleet_server.rollout.turning import turns
from fleet_server.rollout_page import keys, replaced
from fleet_server.rollout_page_words import GATES, LIMITS, OPEN, SAID
from tests.unit.fleet_server.test_rollout_judgement import BOUND, DAY, RIPE, tally

PAGE = Path(__file__).parents[3] / "docs" / "rollout.md"
TEXT = PAGE.read_text(encoding="utf-8")
EVIDENCE: dict[str, Any] = {"name": "p", "evidence": "auto", "soak_s": 0.0, "soak_rows": 0, "deadline_s": 3_600.0, "hold_s": 3_600.0}
UNANIMOUS: dict[str, Any] = EVIDENCE | {"evidence": "unanimous", "waves": ["100%"]}
OLD = ("trial", "max_explicit_failures_before_abort")
# A value of each key without a range that must be refused.
WRONG: dict[str, Any] = {
    "name": "", "waves": [2, 1, "100%"], "evidence": "maybe", "dwell_s": -1.0, "on_abort": "cry", "notes": ["x" * 501],
    "trial.drifted_devices": "some", "rule.warn_limit": 0.06, "strata": ["a", "b", "c", "d", "e"], "hold_back.least": -1,
    "hold_back.large_site": 0, "hold_back.smallest_fleet": 0, "rate.kind": "wild", "rate.per_hour": 0.0, "rate.step_per_hour": -1.0,
    "rate.most_per_hour": 1.0, "pace.first": 0, "pace.every_s": 0.0, "windows": [{}] * 22, "windows.days": ["someday"],
    "windows.start": "24:00", "windows.end": "24:01", "late_joiners": "sometimes", "gates.compare": ["weather"],
    "on_conflict": "fight", "on_late_evidence": "cry", "baseline": 7, "emergency": "perhaps", "rate.backward": "perhaps",
    "confirm": "always",
}  # fmt: skip


def document(key: str, value: Any) -> dict[str, Any]:
    """A policy in which one key has this value and all others suit it."""
    table, _, inner = key.rpartition(".")
    base = UNANIMOUS if key.startswith(OLD) else EVIDENCE
    if not table:
        needed = {"waves": {"dwell_s": 60.0}, "soak_s": {"deadline_s": value}}.get(key, {})
        if key == "soak_s":
            base, needed = UNANIMOUS, {}
        return base | needed | {key: value}
    values: dict[str, Any] = {"rate": {"per_hour": 5.0}}.get(table, {}) | {inner: value}
    if key == "rate.factor":
        values["kind"] = "exponential"
    if key == "trial.soak_s":
        values["timeout_s"] = min(value + 1, LIMITS["trial.timeout_s"][1])
    if key == "trial.timeout_s":
        values["soak_s"] = 0.0
    if key == "rule.promote_below":
        values["extend_below"] = 0.999999
    if key == "rule.extend_below":
        values["promote_below"] = 1e-6
    if key == "rule.limit":
        values["warn_limit"] = min(0.03, value) if value > 0 else 0.03
    return base | {table: [values] if table == "windows" else values}


def refused(key: str, value: Any) -> bool:
    try:
        parse_policy(document(key, value))
    except ConfigError:
        return True
    return False


def number_kind(key: str) -> Callable[[float], Any]:
    """Whole numbers stay whole."""
    default = next(default for name, default, _ in keys() if name == key)
    whole = isinstance(default, int) or key in ("soak_rows", "rule.extends", "per_stratum", "least_first_wave", "site_budget")
    return int if whole and not isinstance(default, float) else float


def test_the_tables_on_the_page_are_those_of_the_code() -> None:
    assert replaced(TEXT) == TEXT, "run: python -m fleet_server.rollout_page docs/rollout.md"


def test_a_page_without_a_mark_is_refused() -> None:
    with pytest.raises(ConfigError, match="generated: chances"):
        replaced(TEXT.replace("<!-- generated: chances -->", ""))


def test_every_key_is_explained_and_says_what_it_accepts() -> None:
    tables = {"trial", "rule", "hold_back", "rate", "pace", "gates"}
    free = {"trial.agreement_reason"}
    unsaid = [key for key, _, meaning in keys() if not meaning]
    unlimited = [key for key, _, _ in keys() if key not in {*LIMITS, *OPEN, *SAID, *tables, *free}]

    assert unsaid == []
    assert unlimited == []
    assert set(WRONG) == set(SAID)


@pytest.mark.parametrize("key", LIMITS)
def test_both_ends_of_a_range_are_accepted_and_what_lies_beyond_is_refused(key: str) -> None:
    low, high = LIMITS[key]
    kind = number_kind(key)
    # The trial must end after its soak, so that the longest soak leaves no room; a deadline lies behind the soak.
    top = high - 1 if key == "trial.soak_s" else high

    assert not refused(key, kind(low))
    assert not refused(key, kind(top))
    assert refused(key, kind(low) - (1 if kind is int else 1e-6))
    assert refused(key, kind(high) + 1)


@pytest.mark.parametrize("key", OPEN)
def test_the_open_ends_of_a_range_are_refused_and_what_lies_inside_is_accepted(key: str) -> None:
    low, high, closed = OPEN[key]

    assert refused(key, float(low))
    assert refused(key, float(high)) is not closed
    assert refused(key, float(high) * 1.000001)
    assert not refused(key, low + (high - low) * 1e-5)
    assert not refused(key, low + (high - low) * 0.99)


@pytest.mark.parametrize("key", WRONG)
def test_what_is_said_of_other_keys_is_kept(key: str) -> None:
    assert refused(key, WRONG[key])


def wealth(evidence: float, devices: int) -> dict[str, Wealth]:
    import math

    gate = COMPARISONS["p95 latency"]
    return {"p95 latency": Wealth(Wealth.start(gate).logs + math.log(evidence), devices)}


def test_each_gate_says_the_words_of_the_page_and_no_others() -> None:
    young = Clock(opened_all=False, open_s=60.0, dwell_s=DAY, judged_s=None, patience_s=3_600.0, hold_s=DAY)
    waited = replace(RIPE, judged_s=1.4 * DAY)
    patient = replace(RIPE, judged_s=5 * 3_600.0)
    seen: list[tuple[Rule, Tally, Clock]] = [
        (BOUND, tally(), RIPE),
        (BOUND, tally(failed=2), RIPE),
        (BOUND, tally(failed=2), patient),
        (BOUND, tally(failed=3), waited),
        (BOUND, tally(failed=8), RIPE),
        (BOUND, tally(failed=30), RIPE),
        (BOUND, tally(silent=14), RIPE),
        (BOUND, tally(), young),
        (BOUND, replace(tally(), unreadable=("a",)), RIPE),
        (BOUND, replace(tally(), sites_out=9), RIPE),
        (BOUND, replace(tally(), sites_exposed=2, sites_out=1), RIPE),
        (BOUND, replace(tally(), wealth=wealth(1.0, 5)), RIPE),
        (BOUND, replace(tally(), wealth=wealth(1.0, 77)), RIPE),
        (BOUND, replace(tally(), wealth=wealth(1e5, 77)), RIPE),
        (BOUND, Tally(opened=77, strata={}, quiet=silence([])), RIPE),
        (BOUND, tally(), replace(RIPE, asks=asks_at("first-wave", 1, 3, Confirmed()))),
        (BOUND, tally(), replace(RIPE, asks=asks_at("failure", 1, 3, Confirmed()))),
    ]
    said: dict[str, set[str]] = {gate: set() for gate in GATES}
    for rule, sums, clock in seen:
        for finding in judge(rule, sums, clock):
            said[finding.gate].add(finding.word)

    assert said == {gate: set(words) for gate, (_, words) in GATES.items()}
    assert {word for words in said.values() for word in words} == set(SEVERITY)


def test_every_command_on_the_page_exists_with_its_options() -> None:
    lines = re.findall(r"edgefleet rollout ([^#\n`]+)", TEXT)
    commands = [shlex.split(line) for line in lines if re.match(r"\w+ (--|ROLLOUT|r-)", line)]

    assert {words[0] for words in commands} >= {"plan", "create", "start", "watch", "explain", "pause", "resume", "abort", "rollback"}
    for name, *arguments in commands:
        command = rollout.commands[name]
        assert isinstance(command, click.Command)
        command.make_context(name, list(arguments))  # raises where an option or argument is unknown


def test_the_shortest_policy_of_the_page_is_accepted() -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)

    policy = parse_policy(tomllib.loads(block))

    assert policy.evidence == "auto"
    assert msgspec.structs.asdict(policy)["waves"] == ()


def test_links_of_the_page_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)", TEXT):
        assert (PAGE.parent / target).exists(), target


def test_the_explanation_on_the_page_is_what_the_gates_say() -> None:
    course = course_of(default_policy(), 10_000)
    quiet = Silence(318, 4, 0.012, 100, 1, 0.01, np.array([[0, 318]]))
    counted = Tally(course.sizes[1], {"a": Stratum(200, 10), "b": Stratum(118, 6)}, quiet, dwelled=95, heard_after_dwell=90)
    clock = Clock(False, 6.1 * 3_600, course.dwell_s[1], None, 4 * 3_600, 86_400)
    found = judge(course.rule, counted, clock)
    said, decides = turns(course.rule, counted, clock, found), decisive(found)
    gates = [
        {"name": one.gate, "verdict": one.word, "turns": said[one.gate]}
        | {key: getattr(one, key) for key in ("now", "limit", "n", "level", "sentence")}
        for one in found
        if one.gate in ("early warning", "time")
    ]
    head = {"rollout_id": "r-digits-2-1f00aa", "state": "running", "version": 5, "wave": 2, "waves": len(course.sizes), "missing": ""}

    text = explain_text(head | {"sentence": decides.sentence, "decides": decides.gate, "gates": gates, "waits": [], "chances": []})

    example = TEXT.partition("$ edgefleet rollout explain r-digits-2-1f00aa\n")[2].partition("The gravest word")[0]
    assert example.split() == text.split()
