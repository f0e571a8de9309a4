"""From a model package to a proven bundle: convert, run every variant on the device's scorer, judge, write what passed."""

import os
import platform
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

from converter.card import card_text
from converter.declared import declared
from converter.gates import Gate, Golden, Limits, decide, judge, overrule
from converter.graphs import Built, build_graphs
from converter.isolate import ChildFailed, run_isolated
from converter.parity import Comparison, Cost, compare, golden_failures, read_answers
from converter.recipes import Recipe, choose
from converter.write import Content, bundle_files, package_gates, write_bundle
from edgefleet.bundle import Bundle
from edgefleet.errors import VerdictError
from edgefleet.intervals import wilson
from edgefleet.package import ModelPackage

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
        size_bytes: Of the graph, 0 without one.
        found: Comparison with the original, None when it could not be run.
        cost: What it costs on this machine, None when it could not be run.
    """

    name: str
    verdict: Literal["pass", "fail", "inconclusive"]
    kept: bool
    reason: str
    gates: list[Gate]
    size_bytes: int = 0
    found: Comparison | None = None
    cost: Cost | None = None

    @property
    def agreement(self) -> tuple[float, float] | None:
        """(share of rows with the original's class, lower end of its 95 % Wilson interval)."""
        if self.found is None or self.found.n == 0:
            return None
        return self.found.agreed / self.found.n, wilson(self.found.agreed, self.found.n)[0]


@dataclass(frozen=True)
class Conversion:
    """A bundle and how each target fared."""

    bundle: Bundle
    folder: Path
    reports: list[VariantReport]


class NoVariantLeft(VerdictError):
    """Every target was refused; `reports` says why."""

    def __init__(self, reports: list[VariantReport]) -> None:
        self.reports = reports
        super().__init__("no variant is left: " + "; ".join(f"{report.name}: {report.reason}" for report in reports))


def convert(
    package: ModelPackage | Path | str,
    targets: Iterable[str] | None = None,
    output: Path | str | None = None,
    limits: Limits | None = None,
) -> Bundle:
    """Convert a model package into a bundle.

    Args:
        package: The package or its folder.
        targets: Names of targets, or None for what the project declared, else all that are possible.
        output: Folder of the bundle, or None for `<package>-bundle` beside the package.
        limits: Budgets and gates that may stay open; None takes what the project declared.

    Raises:
        VerdictError: No variant passed its gates; nothing is written.
        ConfigError: A target is unknown or impossible.
        ArtifactError: The package is damaged.
    """
    return convert_with_report(package, targets, output, limits).bundle


def convert_with_report(
    package: ModelPackage | Path | str,
    targets: Iterable[str] | None = None,
    output: Path | str | None = None,
    limits: Limits | None = None,
) -> Conversion:
    """As `convert`, with one report per target, refused ones included."""
    opened = package if isinstance(package, ModelPackage) else ModelPackage.open(package)
    settings = declared(opened)
    recipes = choose(opened, targets, settings.targets)
    folder = Path(output) if output is not None else opened.folder.parent / f"{opened.folder.name}-bundle"
    with tempfile.TemporaryDirectory(prefix="edgefleet-convert-") as work:
        built = build_graphs(opened, recipes, settings.explain, Path(work))
        return prove(opened, recipes, built, folder, limits if limits is not None else settings.limits)


def prove(package: ModelPackage, recipes: list[Recipe], built: Built, folder: Path, limits: Limits) -> Conversion:
    """Run, judge and write: only variants inside their gates enter the bundle.

    Raises:
        NoVariantLeft: None did.
    """
    graphs = [(recipe, built.graphs[recipe.target]) for recipe in recipes if recipe.target in built.graphs]
    with tempfile.TemporaryDirectory(prefix="edgefleet-parity-") as work:
        candidate = Path(work) / "bundle"
        if graphs:
            write_bundle(candidate, bundle_files(Content(package, graphs, built.golden, built.explainer)))
        reports = [_judge(package, recipe, built, candidate, Path(work), limits) for recipe in recipes]
    kept = [(recipe, graph) for recipe, graph in graphs for report in reports if report.name == recipe.target and report.kept]
    if not kept:
        raise NoVariantLeft(reports)
    gates = package_gates(package) + [gate.as_entry() for report in reports for gate in report.gates]
    content = Content(package, kept, built.golden, built.explainer, gates, card_text(package, reports, built.notes))
    bundle = write_bundle(folder, bundle_files(content), _measured(reports))
    return Conversion(bundle, folder, reports)


def _judge(package: ModelPackage, recipe: Recipe, built: Built, candidate: Path, work: Path, limits: Limits) -> VariantReport:
    graph = built.graphs.get(recipe.target)
    if graph is None:
        return VariantReport(recipe.target, "fail", False, f"not converted: {built.failed.get(recipe.target, 'no reason given')}", [])
    rows = {name: str(package.folder / "rows" / f"{name}.npz") for name in ("parity", "golden")}
    job = {"bundle": str(candidate), "variant": recipe.target, "rows": rows, "folder": str(work)}
    try:
        done = run_isolated("converter.parity:measure", job, timeout_s=PARITY_TIMEOUT_S)
    except ChildFailed as err:
        gate = Gate("C1", "fail", f"the device's scorer did not run it: {err.reason}", variant=recipe.target)
        return VariantReport(recipe.target, "fail", False, gate.sentence, [gate], len(graph))
    answers = {name: read_answers(Path(path)) for name, path in done.pop("answers").items()}
    cost, parity = Cost(**done), package.rows("parity")
    found = compare(built.parity, answers["parity"], parity.label, parity.slice)
    golden = Golden(*golden_failures(built.golden, answers["golden"], recipe.tolerance.tie_margin))
    gates = overrule(judge(recipe, found, golden, cost, len(graph), limits), package.index.overrides)
    verdict, reason, kept = decide(gates, limits)
    return VariantReport(recipe.target, verdict, kept, reason, gates, len(graph), found, cost)


def _measured(reports: list[VariantReport]) -> dict[str, Any]:
    costs = {report.name: report.cost.__dict__ for report in reports if report.cost is not None and report.kept}
    host = {"machine": platform.machine(), "system": platform.system(), "cpus": os.cpu_count() or 0, "python": platform.python_version()}
    now = datetime.now(UTC).replace(microsecond=0).isoformat()
    return {"format_version": 1, "host": host, "measured_at": now, "variants": costs}
