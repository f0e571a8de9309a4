"""From a model package to a proven bundle: convert, run every variant on the device's scorer, judge, write what passed."""

import math
import os
import platform
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

from converter.budgets import Budget, Taken, budgets
from converter.building import Built, build
from converter.card import card_text
from converter.comparing import Comparison, Truth, compare, golden_failures, spread_of
from converter.declared import declared
from converter.gates import Gate, Golden, Limits, decide, judge, overrule
from converter.isolate import ChildFailed, run_isolated
from converter.kept import Kept
from converter.mixing import Mixed, mix
from converter.originals import Original
from converter.parity import Cost, read_answers
from converter.planning import Plan
from converter.recipes import Recipe, choose
from converter.workshop import Graph, Progress, Run
from converter.write import Content, bundle_files, check_target, package_gates, write_bundle
from edgefleet.bundle import Bundle
from edgefleet.errors import VerdictError
from edgefleet.intervals import wilson
from edgefleet.manifest import Runtime
from edgefleet.package import ModelPackage, Rows

PARITY_TIMEOUT_S: Final = 600.0


@dataclass(frozen=True)
class VariantReport:
    """One target's outcome.

    Attributes:
        name: The target.
        verdict: Of all its gates together; `fail` also when the conversion itself failed.
        kept: Whether the bundle has it.
        reason: Why not, or what stays open; empty for a clean pass.
        gates: Its gates.
        size_bytes: Of the graph, of C source its constants; 0 without one.
        found: Comparison with the original, None when it could not be run.
        cost: What it costs on this machine, None when it could not be run.
        facts: What its writer says: calibration rows, layers kept float ...
        runtime: What it needs.
        budgets: The declared budgets, judged; empty when it could not be run.
    """

    name: str
    verdict: Literal["pass", "fail", "inconclusive"]
    kept: bool
    reason: str
    gates: list[Gate]
    size_bytes: int = 0
    found: Comparison | None = None
    cost: Cost | None = None
    facts: dict[str, Any] | None = None
    runtime: Runtime = "onnxruntime"
    budgets: list[Budget] = field(default_factory=list)

    @property
    def taken(self) -> Taken | None:
        """What it takes, None when it could not be run."""
        return None if self.cost is None else Taken(self.runtime, self.size_bytes, self.cost, self.facts)

    @property
    def agreement(self) -> tuple[float, float] | None:
        """(share of rows with the original's answer, lower end of its 95 % Wilson interval)."""
        if self.found is None or self.found.n == 0:
            return None
        return self.found.agreed / self.found.n, wilson(self.found.agreed, self.found.n)[0]

    @property
    def explained(self) -> bool:
        """Whether its explanation, if it has one, passed."""
        return not any(gate.gate in ("X1", "X2") and gate.verdict in ("fail", "inconclusive") for gate in self.gates)

    @property
    def tells_when(self) -> bool:
        """Whether the time segments of its explanation, if it has any, passed."""
        return not any(gate.gate == "X4" and gate.verdict == "fail" for gate in self.gates)

    @property
    def graph_explains(self) -> bool:
        """Whether its explanation as a graph or in C, if it has one, passed."""
        return not any(gate.gate == "X3" and gate.verdict == "fail" for gate in self.gates)


@dataclass(frozen=True)
class Conversion:
    """A bundle and how each target fared; `notes` are the writers' sentences."""

    bundle: Bundle
    folder: Path
    reports: list[VariantReport]
    notes: tuple[str, ...] = ()


class NoVariantLeft(VerdictError):
    """Every target was refused; `reports` says why."""

    def __init__(self, reports: list[VariantReport]) -> None:
        self.reports = reports
        super().__init__("no variant is left: " + "; ".join(f"{report.name}: {report.reason}" for report in reports))


@dataclass(frozen=True)
class Wishes:
    """What the caller wants beside the package.

    Attributes:
        targets: Names of targets, or None for what the project declared, else all that are possible.
        output: Folder of the bundle, or None for `<package>-bundle` beside the package.
        limits: Budgets and gates that may stay open; None takes what the project declared.
        calibration_rows: Most calibration rows that integer targets look at; None takes what the project declared, 0 all.
        progress: Told (what, "started" | "done" | "cached" | reason).
        cache: Folder where what children made is kept for the next conversion, or None for none.
    """

    targets: Iterable[str] | None = None
    output: Path | str | None = None
    limits: Limits | None = None
    calibration_rows: int | None = None
    progress: Progress = lambda what, how: None
    cache: Path | None = None


def _run(measure: str, job: dict[str, Any]) -> dict[str, Any]:
    return run_isolated(measure, job, timeout_s=PARITY_TIMEOUT_S)


def convert(
    package: ModelPackage | Path | str,
    targets: Iterable[str] | None = None,
    output: Path | str | None = None,
    limits: Limits | None = None,
) -> Bundle:
    """Convert a model package into a bundle.

    Args:
        package: The package or its folder.
        targets: See `Wishes`, as the other arguments.
        output: See `Wishes`.
        limits: See `Wishes`.

    Raises:
        VerdictError: No variant passed its gates; nothing is written.
        ConfigError: A target is unknown or impossible, or the output holds something that is no bundle.
        ArtifactError: The package is damaged.
    """
    return convert_with_report(package, Wishes(targets, output, limits)).bundle


def convert_with_report(package: ModelPackage | Path | str, wishes: Wishes | None = None) -> Conversion:
    """As `convert`, with one report per target, refused ones included."""
    wishes = wishes or Wishes()
    opened = package if isinstance(package, ModelPackage) else ModelPackage.open(package)
    settings = declared(opened)
    recipes = choose(opened, wishes.targets, settings.targets)
    folder = bundle_folder(opened, wishes.output)
    check_target(folder)
    limits = wishes.limits if wishes.limits is not None else settings.limits
    rows = settings.calibration_rows if wishes.calibration_rows is None else wishes.calibration_rows
    with tempfile.TemporaryDirectory(prefix="edgefleet-convert-") as work:
        kept = None if wishes.cache is None else Kept(wishes.cache)
        plan = Plan(opened, recipes, settings.explain, rows, Path(work), wishes.progress, kept)
        built = build(plan)
        if kept is not None:
            kept.prune()
        return prove(plan, built, folder, limits)


def bundle_folder(package: ModelPackage, output: Path | str | None) -> Path:
    """Where the bundle goes: `output`, else `<package>-bundle` beside the package."""
    return Path(output) if output is not None else package.folder.parent / f"{package.folder.name}-bundle"


def prove(plan: Plan, built: Built, folder: Path, limits: Limits) -> Conversion:
    """Run, judge and write: only variants inside their gates enter the bundle.

    Raises:
        NoVariantLeft: None did.
    """
    package, recipes = plan.package, plan.recipes
    proof = Proof(package, limits, plan.folder / "parity")
    reports = judge_all(plan, built, proof)
    kept = [(recipe, built.graphs[recipe.target]) for recipe, report in zip(recipes, reports, strict=True) if report.kept]
    if not kept:
        raise NoVariantLeft(reports)
    gates = package_gates(package) + [gate.as_entry() for report in reports for gate in report.gates]
    unexplained = frozenset(report.name for report in reports if not report.explained)
    ungraphed = frozenset(report.name for report in reports if not report.graph_explains)
    unsegmented = frozenset(report.name for report in reports if not report.tells_when)
    card = card_text(package, reports, built.notes)
    content = Content(package, kept, built, proof.spread(built.parity), unexplained, ungraphed, unsegmented, gates, card)
    bundle = write_bundle(folder, bundle_files(content), _measured(reports))
    return Conversion(bundle, folder, reports, built.notes)


def judge_all(plan: Plan, built: Built, proof: "Proof") -> list[VariantReport]:
    """One report per recipe; `built.graphs` then holds the graphs that were judged last.

    An integer variant that fails its gates is tried again with its most damaged layers kept float (`mixing.py`).
    """
    proof.folder.mkdir(exist_ok=True)
    reports: list[VariantReport] = []
    for recipe in plan.recipes:
        graph = built.graphs.get(recipe.target)
        if graph is None:
            reason = f"not converted: {built.failed.get(recipe.target, 'no reason given')}"
            reports.append(VariantReport(recipe.target, "fail", False, reason, [], runtime=recipe.runtime))
            continue
        plan.progress(f"parity of {recipe.target}", "started")
        mixed = mix(plan, recipe, Mixed(graph, proof.judge(recipe, graph, built)), lambda r, g: proof.judge(r, g, built))
        built.graphs[recipe.target] = mixed.graph
        reports.append(mixed.report)
        plan.progress(f"parity of {recipe.target}", "done" if mixed.report.kept else mixed.report.reason)
    return reports


@dataclass(frozen=True)
class Proof:
    """Runs and judges variants of one package.

    Attributes:
        package: What was converted.
        limits: Budgets, and gates that may stay open.
        folder: For intermediate files.
        run: Runs one measurement, by default in a child with a limit on its time, so that what a variant costs is its own.
    """

    package: ModelPackage
    limits: Limits
    folder: Path
    run: Run = _run

    def spread(self, parity: Original) -> float:
        """Unit of errors."""
        return spread_of(self.package.index.task, parity)

    def judge(self, recipe: Recipe, graph: Graph, built: Built) -> VariantReport:
        """One variant, alone in a bundle, run by the device's scorer and judged."""
        candidate = self.folder / f"bundle-{recipe.target}"
        spread = self.spread(built.parity)
        write_bundle(candidate, bundle_files(Content(self.package, [(recipe, graph)], built, spread)))
        rows = {name: str(self.package.folder / "rows" / f"{name}.npz") for name in ("parity", "golden")}
        measure = "converter.to_c.running:measure" if recipe.runtime == "c" else "converter.parity:measure"
        job = {"bundle": str(candidate), "variant": recipe.target, "rows": rows, "folder": str(self.folder)}
        job |= {"package": str(self.package.folder)} if recipe.runtime == "c" else {}
        # Of C source its constants count, as they will lie in the device's flash; some kilobytes of instructions come on top.
        size = int(graph.made.facts.get("constant_bytes", len(graph.content)))
        try:
            done = self.run(measure, job)
        except ChildFailed as err:
            gate = Gate("C1", "fail", f"the device's scorer did not run it: {err.reason}", variant=recipe.target)
            return VariantReport(recipe.target, "fail", False, gate.sentence, [gate], size, facts=graph.made.facts, runtime=recipe.runtime)
        answers = {name: read_answers(Path(path)) for name, path in done.pop("answers").items()}
        cost = Cost(**done)
        parity = self._truth(built.parity, self.package.rows("parity"), spread)
        golden = self._truth(built.golden, self.package.rows("golden"), spread)
        found = compare(parity, answers["parity"], recipe.bounds.same_value)
        failures = Golden(*golden_failures(golden, answers["golden"], recipe.tolerance().tie_margin))
        facts = graph.made.facts
        gates = overrule(judge(recipe, found, failures, cost, size, self.limits, facts), self.package.index.overrides)
        verdict, reason, kept = decide(gates, self.limits)
        declared = budgets(Taken(recipe.runtime, size, cost, facts), self.limits)
        return VariantReport(recipe.target, verdict, kept, reason, gates, size, found, cost, facts, recipe.runtime, declared)

    def _truth(self, original: Original, rows: Rows, spread: float) -> Truth:
        index = self.package.index
        positive = index.classes.index(index.positive) if index.positive in index.classes else 1
        return Truth(index.task, original, rows.label, rows.slice, index.threshold, positive, spread)


def host() -> dict[str, Any]:
    """The machine that measures."""
    return {"machine": platform.machine(), "system": platform.system(), "cpus": os.cpu_count() or 0, "python": platform.python_version()}


def _measured(reports: list[VariantReport]) -> dict[str, Any]:
    costs = {report.name: finite(report.cost.__dict__) for report in reports if report.cost is not None and report.kept}
    now = datetime.now(UTC).replace(microsecond=0).isoformat()
    return {"format_version": 1, "host": host(), "measured_at": now, "variants": costs}


def finite(value: Any) -> Any:
    """Plain values with None for NaN and infinities (an explanation that could not be run), which JSON does not know."""
    if isinstance(value, dict):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
