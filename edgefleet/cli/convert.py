"""`edgefleet convert` and `edgefleet bundle`: parsing, printing, exit codes."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgefleet.bundle import Bundle
from edgefleet.cli.main import print_json
from edgefleet.package import ModelPackage

if TYPE_CHECKING:
    from converter.conversion import VariantReport


@click.command()
@click.argument("package", type=click.Path(path_type=Path))
@click.option(
    "--target", "targets", multiple=True, metavar="NAME", help="Make this target; repeat for several. Default: the project's, else all."
)
@click.option("--output", type=click.Path(path_type=Path), help="Folder of the bundle. Default: PACKAGE-bundle beside the package.")
@click.option("--list", "only_list", is_flag=True, help="Only say which targets are possible for PACKAGE, and why others are not.")
@click.option("--max-size-bytes", type=click.IntRange(min=1), help="Refuse variants with a larger graph (gate C5).")
@click.option(
    "--max-latency-ms", type=click.FloatRange(min=0, min_open=True), help="Refuse variants whose p95 of one row here is longer (C6)."
)
@click.option("--max-memory-bytes", type=click.IntRange(min=1), help="Refuse variants whose scoring process takes more memory (C6).")
@click.option("--allow-inconclusive", multiple=True, metavar="GATE", type=click.Choice(["C1", "C2", "C3"]), help="Gate that may stay open.")
@click.option("--calibration-rows", type=click.IntRange(min=0), help="Most calibration rows that integer targets look at; 0 takes all.")
@click.option("--no-cache", is_flag=True, help="Make every graph anew; else what the same code made of PACKAGE before is taken.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def convert(
    package: Path,
    targets: tuple[str, ...],
    output: Path | None,
    only_list: bool,
    max_size_bytes: int | None,
    max_latency_ms: float | None,
    max_memory_bytes: int | None,
    allow_inconclusive: tuple[str, ...],
    calibration_rows: int | None,
    no_cache: bool,
    as_json: bool,
) -> None:
    """Convert a model PACKAGE into a bundle, and prove every variant against the original on the device's own scorer.

    Exit codes: 0 a bundle was written, 1 no variant passed, 3 the package is damaged or a target impossible.
    """
    opened = ModelPackage.open(package)
    if only_list:
        _list_targets(opened, as_json)
        return
    from converter.conversion import NoVariantLeft, Wishes, convert_with_report
    from converter.declared import declared
    from converter.gates import Limits
    from converter.workshop import cache_folder

    project = declared(opened).limits

    limits = Limits(
        size_bytes=max_size_bytes or project.size_bytes,
        latency_p95_ms=max_latency_ms or project.latency_p95_ms,
        memory_bytes=max_memory_bytes or project.memory_bytes,
        allow_inconclusive=project.allow_inconclusive | set(allow_inconclusive),
    )
    try:
        done = convert_with_report(
            opened, Wishes(targets or None, output, limits, calibration_rows, _progress(), None if no_cache else cache_folder())
        )
    except NoVariantLeft as err:
        if as_json:
            print_json({"bundle": None, "digest": None, "variants": [_as_json(report) for report in err.reports]})
        else:
            _print_table(err.reports)
        raise
    if as_json:
        print_json({"bundle": str(done.folder), "digest": done.bundle.digest, "variants": [_as_json(report) for report in done.reports]})
        return
    _print_table(done.reports)
    click.echo(f"bundle {done.bundle.digest[:12]} in {done.folder}")


@click.group()
def bundle() -> None:
    """Show or verify a bundle."""


@bundle.command()
@click.argument("folder", metavar="BUNDLE", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def show(folder: Path, as_json: bool) -> None:
    """What a BUNDLE holds; its files are not read."""
    opened = Bundle.open(folder)
    manifest = opened.manifest
    variants = [
        {
            "name": variant.name, "runtime": variant.runtime, "file": variant.file, "size_bytes": manifest.files[variant.file].size_bytes,
            "model_digest": variant.model_digest, "explain_method": variant.explain_method,
        }
        for variant in manifest.variants
    ]  # fmt: skip
    overrides = [{"gate": override.gate, "reason": override.reason} for override in manifest.overrides]
    if as_json:
        document: dict[str, Any] = {
            "bundle": str(folder), "digest": opened.digest, "project": manifest.project, "task": manifest.task, "classes": manifest.classes,
            "inputs": [column.name for column in manifest.inputs], "margin_kind": manifest.margin_kind, "shape": manifest.shape,
            "package_digest": manifest.package_digest, "reference_digest": manifest.reference_digest, "overrides": overrides,
            "variants": variants, "files": {name: entry.size_bytes for name, entry in manifest.files.items()},
        }  # fmt: skip
        print_json(document)
        return
    click.echo(f"bundle {opened.digest}")
    click.echo(f"project {manifest.project}, {manifest.task}, {len(manifest.inputs)} inputs, {len(manifest.classes)} classes")
    rows = [[v["name"], v["runtime"], str(v["size_bytes"]), v["explain_method"] or "-", str(v["model_digest"])[:12]] for v in variants]
    _print_columns(["variant", "runtime", "bytes", "explained", "digest"], rows)
    for override in overrides:
        click.echo(f"overruled: gate {override['gate']}: {override['reason']}")


@bundle.command()
@click.argument("folder", metavar="BUNDLE", type=click.Path(path_type=Path))
def verify(folder: Path) -> None:
    """Read every file of a BUNDLE and compare it with the manifest; exit code 3 when one differs."""
    opened = Bundle.open(folder)
    opened.verify()
    click.echo(f"bundle {opened.digest[:12]}: {len(opened.manifest.files)} files are as the manifest says")


def _list_targets(package: ModelPackage, as_json: bool) -> None:
    from converter.recipes import possible

    found = possible(package)
    if as_json:
        print_json({"targets": [{"target": target, "possible": reason is None, "reason": reason} for target, reason in found]})
        return
    _print_columns(["target", "possible"], [[target, reason or "yes"] for target, reason in found])


def _as_json(report: "VariantReport") -> dict[str, Any]:
    found, cost, agreement = report.found, report.cost, report.agreement
    known = found is not None and found.n > 0
    return {
        "name": report.name,
        "size_bytes": report.size_bytes,
        "agreement": agreement[0] if agreement else None,
        "agreement_low": agreement[1] if agreement else None,
        "max_error": found.max_error if found and known else None,
        "mean_error": found.mean_error if found and known else None,
        "metric": found.metric if found else None,
        "value": found.value if found and known else None,
        "value_original": found.value_original if found and known else None,
        "rows": found.n if found else 0,
        "latency_p50_ms": cost.latency_p50_ms if cost else None,
        "latency_p95_ms": cost.latency_p95_ms if cost else None,
        "latency_p99_ms": cost.latency_p99_ms if cost else None,
        "batch_row_ms": cost.batch_row_ms if cost else None,
        "cold_start_ms": cost.cold_start_ms if cost else None,
        "memory_peak_bytes": cost.memory_peak_bytes if cost else None,
        "verdict": report.verdict,
        "kept": report.kept,
        "reason": report.reason,
        "gates": [gate.as_entry() for gate in report.gates],
        "facts": report.facts or {},
    }


def _print_table(reports: list["VariantReport"]) -> None:
    rows = []
    for report in reports:
        found, cost, agreement = report.found, report.cost, report.agreement
        rows.append(
            [
                report.name,
                f"{report.size_bytes}" if report.size_bytes else "-",
                f"{100 * agreement[0]:.2f} % (>= {100 * agreement[1]:.2f})" if agreement else "-",
                f"{found.max_error:.1e}" if found and found.n else "-",
                f"{_number(found.value)} ({_number(found.value_original)})" if found and found.n else "-",
                f"{cost.latency_p50_ms:.3f}" if cost else "-",
                report.verdict if report.kept else f"refused: {report.verdict}",
            ]
        )
    metric = next((report.found.metric for report in reports if report.found), "metric")
    _print_columns(["variant", "bytes", "same answer", "max error", f"{metric} (original)", "p50 ms", "verdict"], rows)
    for report in reports:
        if report.reason:
            click.echo(f"{report.name}: {report.reason}")


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4f}"


def _progress() -> Callable[[str, str], None]:
    """Lines on stderr: what is under way and how long it took."""
    began: dict[str, float] = {}

    def said(what: str, how: str) -> None:
        if how == "started":
            began[what] = time.monotonic()
            return
        took = f" ({time.monotonic() - began[what]:.1f} s)" if what in began else ""
        click.echo(f"{what}: {how}{took}", err=True)

    return said


def _print_columns(head: list[str], rows: list[list[Any]]) -> None:
    widths = [max(len(str(row[i])) for row in [head, *rows]) for i in range(len(head))]
    for row in [head, *rows]:
        click.echo("  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
