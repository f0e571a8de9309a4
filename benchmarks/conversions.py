"""Models of public data sets converted to every target: `python -m benchmarks.conversions --data FOLDER [--candidate NAME]`.

Trains each project of `benchmarks/projects` and converts its winner (or the named candidate) to every possible target. A table for people,
`--markdown` the same for docs/results.md. Sizes and latencies stand beside those of onnx-fp32 on the same machine in the same run.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from benchmarks.datasets import BASELINES, PROJECTS
from benchmarks.figures import Figure, show
from converter.conversion import NoVariantLeft, VariantReport, Wishes, convert_with_report
from converter.gates import Gate
from converter.recipes import RECIPES, possible
from edgefleet.package import ModelPackage
from edgefleet.report.table import table
from trainer import GateRefused, load_project, run_training

BESIDE: Final = "onnx-fp32"
NOT_MADE: Final = "not made"
HEADER: Final = ("set", "model", "target", "verdict", "same answer", "drop", "size", "latency", "why")


def main() -> None:
    """Train, convert and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.conversions", description="Public data sets to every target.")
    parser.add_argument("--data", type=Path, required=True, help="folder with one sub-folder per data set")
    parser.add_argument("--only", action="append", choices=list(BASELINES), help="this set only; repeatable")
    parser.add_argument("--candidate", help="this candidate in place of the project's own")
    parser.add_argument("--markdown", action="store_true", help="the table as Markdown")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    options = parser.parse_args()
    lines: list[list[str]] = []
    figures: list[Figure] = []
    for name in options.only or BASELINES:
        with tempfile.TemporaryDirectory() as folder:
            found = measure(name, options.data, options.candidate, Path(folder))
        lines += grouped(found)
        print(f"{name}: {', '.join(f'{line[2]} {line[3]}' for line in found)}", file=sys.stderr)
        figures += _figures(name, found)
    if options.json:
        show(figures, as_json=True)
    elif options.markdown:
        print("\n".join("| " + " | ".join(cells) + " |" for cells in [list(HEADER), ["---"] * len(HEADER), *lines]))
    else:
        print(table(HEADER, lines))


def measure(name: str, data: Path, candidate: str | None, folder: Path) -> list[list[str]]:
    """Lines of the table for one set, one for each target."""
    project = load_project(PROJECTS / name, [f'data.arguments.folder="{data.resolve()}"'])
    try:
        training = run_training(project, candidates=[candidate] if candidate else None, runs_dir=folder / "runs")
    except GateRefused as refused:
        return [[name, candidate or "-", "-", "not trained", "-", "-", "-", "-", str(refused)[:160]]]
    return [[name, training.winner, *cells] for cells in targets(training.package, folder / "bundle")]


def grouped(lines: list[list[str]]) -> list[list[str]]:
    """The lines with targets that are not made for one and the same reason in one line."""
    found: list[list[str]] = []
    places: dict[tuple[str, str], list[str]] = {}
    for line in lines:
        known = places.get((line[1], line[-1])) if line[3] == NOT_MADE else None
        if known is not None:
            known[2] += f", {line[2]}"
            continue
        found.append(list(line))
        if line[3] == NOT_MADE:
            places[line[1], line[-1]] = found[-1]
    return found


def _figures(name: str, lines: list[list[str]]) -> list[Figure]:
    """A float target outside its gates is a fault of ours; an integer one may be what integers cost this model."""
    outside = [line[2] for line in lines if line[3] not in (NOT_MADE, "pass")]
    whole = [target for target in outside if target not in RECIPES or RECIPES[target].precision != "int8"]
    return [
        Figure(f"{name}: float targets left out", float(len(whole)), "targets", 0.0, len(lines)),
        Figure(f"{name}: integer targets left out", float(len(outside) - len(whole)), "targets", None, len(lines)),
    ]


def targets(package: ModelPackage, output: Path) -> list[list[str]]:
    """Cells of every target: verdict, agreement, drop, ratios; or why there is none."""
    reasons = dict(possible(package))
    wanted = [target for target, reason in reasons.items() if reason is None]
    try:
        reports = {report.name: report for report in convert_with_report(package, Wishes(wanted, output)).reports}
    except NoVariantLeft as none:
        reports = {report.name: report for report in none.reports}
    beside = reports.get(BESIDE)
    impossible: dict[str, str] = {target: reason for target, reason in reasons.items() if reason is not None}
    return [
        [target, NOT_MADE, "-", "-", "-", "-", impossible[target]] if target in impossible else _cells(reports[target], beside)
        for target in RECIPES
    ]


def _cells(report: VariantReport, beside: VariantReport | None) -> list[str]:
    verdict = report.verdict if report.kept else f"{report.verdict}, left out"
    found, cost = report.found, report.cost
    if found is None or cost is None:
        made = report.gates  # a gate speaks of a graph that was made, even where it could not be run
        return [report.name, verdict if made else NOT_MADE, "-", "-", "-", "-", report.reason.removeprefix("not converted: ")[:160]]
    drop = (
        "-" if found.overall is None else f"{round(100 * found.overall.value, 2) + 0.0:+.2f} {'%' if found.metric == 'rmse' else 'points'}"
    )
    size = latency = "-"
    if beside is not None and beside.cost is not None:
        size = f"{report.size_bytes / beside.size_bytes:.2f}"
        latency = f"{cost.latency_p50_ms / beside.cost.latency_p50_ms:.2g}"
    return [report.name, verdict, f"{found.agreed} of {found.n}", drop, size, latency, _facts(report)]


def _facts(report: VariantReport) -> str:
    kept: Any = (report.facts or {}).get("float_layers")
    open_ones = [gate for gate in report.gates if gate.verdict in ("fail", "inconclusive") and not gate.gate.startswith("X")]
    said = [f"{gate.gate} {gate.verdict}: {_why(gate)}" for gate in open_ones if gate.value is not None and gate.limit]
    if kept:
        said.append(f"{len(kept)} layer{'s' * (len(kept) > 1)} kept float")
    if not report.explained:
        said.append("its explanation is left out")
    return "; ".join(said)


def _why(gate: Gate) -> str:
    """Value and limit; the whole sentence of an error within its limit, which fails for what the device's self-test would say."""
    if gate.gate == "C2" and gate.value is not None and gate.limit is not None and gate.value <= gate.limit:
        return gate.sentence
    return f"{gate.value:.3g}, limit {gate.limit:g}"


if __name__ == "__main__":
    main()
