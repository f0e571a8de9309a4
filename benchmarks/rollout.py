"""Rollouts over virtual fleets, beside other systems' rules: `python -m benchmarks.rollout [--full] [--only PART] [--json]`.

- references: other systems' rules, 10,000 devices, nine releases; of 3 runs checked against `rollout_references.json`.
- main: ours over the same fleets.
- scenes: night, outages of sites and of our own broker, slow links (2,000 devices); small: fleets of 300; sites: releases that take
  whole sites down.
- evidence, decide, planner, speed: what the rule errs and costs.

20 runs a cell, and 3 of the other systems' rules; with --full 200 of each, and a fleet of a million devices. Equal seeds give equal
numbers on any machine. Two minutes on an idle core; with --full twenty.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, TypeVar

from benchmarks.figures import Figure, show
from benchmarks.rollout_cells import MAIN, SCENES, SITES, SMALL, Asked, figures_of, own_dwell_h
from benchmarks.rollout_speed import deciding, erring, planning, simulating
from fleet_server.rollout.plans import default_policy
from fleet_server.simulate.reference.known import DOCUMENTS, known
from fleet_server.simulate.study import Summary, behaviour_named, scene_named, study

Row = TypeVar("Row")
SEED: Final = 1
RUNS: Final = {False: 20, True: 200}
REFERENCE_RUNS: Final = 3
STORED: Final = Path(__file__).with_name("rollout_references.json")
PARTS: Final = ("references", "main", "scenes", "small", "sites", "evidence", "decide", "planner", "speed")
_CELLS: Final = {"main": MAIN, "scenes": SCENES, "small": SMALL, "sites": SITES}


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rollout", description="Rollouts over virtual fleets, beside other rules.")
    parser.add_argument("--full", action="store_true", help="200 runs a cell, and a fleet of a million devices")
    parser.add_argument("--only", choices=PARTS, action="append", help="this part only; repeatable")
    parser.add_argument("--runs", type=int, help="of each cell; instead of 20, or 200 with --full")
    parser.add_argument("--release", action="append", help="of the cells of a part these releases only; repeatable")
    parser.add_argument("--store", action="store_true", help="write rollout_references.json anew")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    options = parser.parse_args()
    found: list[Figure] = []
    tables: list[str] = []
    others: list[Summary] = []
    for part in options.only or PARTS:
        if part == "references":
            others = list(_told(references(options.runs or (RUNS[True] if options.full else REFERENCE_RUNS))))
            found += _kept(others, options.store)
        elif part in _CELLS:
            asked = [one for one in _CELLS[part] if not options.release or one.release in options.release]
            rows = list(_told(_run(asked, options.runs or RUNS[options.full])))
            found += [figure for one, own in rows for figure in figures_of(one, own, own_dwell_h(one))]
            tables.append(_table(rows, others if part == "main" else []))
        else:
            found += _told(_cost(part, options.full))
    if not options.json:
        print("\n\n".join(tables), end="\n\n" if tables else "")
    show(found, options.json)


def _run(cells: Sequence[Asked], runs: int) -> Iterator[tuple[Asked, Summary]]:
    """The cells of a part; those of one fleet and scene together, because a fleet serves all releases."""
    for devices, scene in dict.fromkeys((one.devices, one.scene) for one in cells):
        here = [one for one in cells if (one.devices, one.scene) == (devices, scene)]
        behaviours = [behaviour_named(one.release) for one in here]
        found = study(
            {"edgefleet": default_policy()}, behaviours, scene_named(scene), devices=devices, runs=runs, seed=SEED, told=_progress
        )
        yield from zip(here, found, strict=True)


def _progress(done: int) -> None:
    if done % 100 == 0:
        print(f"{done} rollouts", file=sys.stderr, flush=True)


def references(runs: int) -> Iterator[Summary]:
    """Other systems' rules with the releases of the main part."""
    releases = [behaviour_named(asked.release) for asked in MAIN]
    yield from study({name: known(name) for name in DOCUMENTS}, releases, scene_named("churn"), devices=10_000, runs=runs, seed=SEED)


def _kept(others: Sequence[Summary], store: bool) -> Iterator[Figure]:
    """Whether the other systems' rules do what they did when the table was stored; that is of as many runs as CI makes."""
    if any(one.runs != REFERENCE_RUNS for one in others):
        return
    now = {name: {one.release: words(one) for one in others if one.policy == name} for name in DOCUMENTS}
    if store:
        STORED.write_text(json.dumps(now, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    before = json.loads(STORED.read_text(encoding="utf-8"))
    changed = [f"{name}, {release}" for name in now for release in now[name] if before.get(name, {}).get(release) != now[name][release]]
    for name in changed:
        print(f"not as stored: {name}", file=sys.stderr)
    yield Figure("other systems' rules that are not as stored", float(len(changed)), "", 0.0, len(others))


def _cost(part: str, full: bool) -> Iterator[Figure]:
    if part == "evidence":
        yield from erring(4_000 if full else 1_000)
    elif part == "decide":
        yield from deciding()
    elif part == "planner":
        yield from planning()
    else:
        yield from simulating(million=full)


def _told(rows: Iterator[Row]) -> Iterator[Row]:
    """Each row, also on stderr as it comes."""
    for row in rows:
        print(row, file=sys.stderr, flush=True)
        yield row


def _table(rows: Sequence[tuple[Asked, Summary]], others: Sequence[Summary]) -> str:
    """Markdown: ours with limits and verdicts, the other systems' rules, and the fewest that any of them harmed over ours."""
    names = list(dict.fromkeys(one.policy for one in others))
    header = ["rollout", "harmed: median (p95)", "at most", "stopped %", "at most", "halted, h", "done, h", "verdict", *names]
    lines = [header + (["fewest of the others / ours"] if names else []), ["---"] * (len(header) + bool(names))]
    for asked, own in rows:
        ok = all(figure.ok for figure in figures_of(asked, own, own_dwell_h(asked)))
        theirs = [one for name in names for one in others if (one.policy, one.release) == (name, own.release)]
        fewest = min((one.harmed_median for one in theirs), default=0.0)
        most = "-" if asked.harmed is None else f"{asked.harmed[0]:g} ({asked.harmed[1]:g})"
        line = [asked.name, f"{own.harmed_median:.0f} ({own.harmed_p95:.0f})", most, f"{100 * own.stopped:.1f}"]
        line += [
            "-" if asked.stopped is None else f"{asked.stopped:g}",
            *(_hours(h) for h in (own.halt_h, own.done_h)),
            "ok" if ok else "OVER",
        ]
        line += [words(one) for one in theirs]
        if names:
            line.append("-" if asked.harmed is None else f"{fewest / max(own.harmed_median, 1):.1f}")
        lines.append(line)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def words(one: Summary) -> str:
    """One cell of the table."""
    stops = f"stopped {100 * one.stopped:.0f} %" if one.stopped else "never stopped"
    return f"{one.harmed_median:.0f} ({one.harmed_p95:.0f}), {stops}"


def _hours(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


if __name__ == "__main__":
    main()
