"""`edgefleet convert`: parsing, printing, exit codes."""

import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgefleet.cli.main import print_json
from edgefleet.package import ModelPackage

if TYPE_CHECKING:
    from converter.figures import Outcome
    from converter.gates import Limits


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
@click.option(
    "--profile", metavar="NAME", help="Compare latency and memory budgets with the estimate for this device; see docs/conversion.md."
)
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
    profile: str | None,
    allow_inconclusive: tuple[str, ...],
    calibration_rows: int | None,
    no_cache: bool,
    as_json: bool,
) -> None:
    """Convert a model PACKAGE into a bundle, and prove every variant against the original on the device's own scorer.

    Beside the bundle it writes BUNDLE-report.html. Exit codes: 0 a bundle was written, 1 no variant passed (the report says why), 3 the
    package is damaged or a target impossible.
    """
    opened = ModelPackage.open(package)
    if only_list:
        _list_targets(opened, as_json)
        return
    from converter.budgets import Limits
    from converter.conversion import NoVariantLeft, Wishes, convert_with_report, host
    from converter.declared import declared
    from converter.figures import outcome
    from converter.kept import cache_folder
    from converter.profiles import profile_of

    settings = declared(opened)
    project = settings.limits
    limits = Limits(
        size_bytes=max_size_bytes or project.size_bytes,
        latency_p95_ms=max_latency_ms or project.latency_p95_ms,
        memory_bytes=max_memory_bytes or project.memory_bytes,
        allow_inconclusive=project.allow_inconclusive | set(allow_inconclusive),
        profile=project.profile if profile is None else profile_of(profile),
    )
    again = _again(package, targets, output, limits, calibration_rows)
    wishes = Wishes(targets or None, output, limits, calibration_rows, _progress(), None if no_cache else cache_folder())
    try:
        done = convert_with_report(opened, wishes)
    except NoVariantLeft as err:
        found = outcome(err.reports, limits, host=host())
        _tell(opened, found, _written(opened, output), None, again, as_json)
        raise
    explained = {variant.name: variant.explain_method for variant in done.bundle.manifest.variants if variant.explain_method is not None}
    found = outcome(done.reports, limits, explained, done.notes, host(), explain=settings.explain != "none")
    _tell(opened, found, done.folder, done.bundle.digest, again, as_json)


def _written(package: ModelPackage, output: Path | None) -> Path:
    """Where the bundle would have gone."""
    from converter.conversion import bundle_folder

    return bundle_folder(package, output)


def _tell(package: ModelPackage, found: "Outcome", folder: Path, digest: str | None, again: str, as_json: bool) -> None:
    """Write the report, then print what came out."""
    from converter.figures import as_document
    from converter.report import Story, report_path, write_conversion_report
    from converter.tables import outcome_text

    index = package.index
    story = Story(index.project, index.task, index.family, str(package.folder), package.digest, str(folder), digest, again, found)
    report = write_conversion_report(story, report_path(folder))
    if as_json:
        bundle = None if digest is None else str(folder)
        print_json({"bundle": bundle, "digest": digest, "report": str(report), **as_document(found)})
        return
    click.echo(outcome_text(found))
    click.echo(f"\nreport {report}")
    if digest is not None:
        click.echo(f"bundle {digest[:12]} in {folder}")


def _again(package: Path, targets: tuple[str, ...], output: Path | None, limits: "Limits", calibration_rows: int | None) -> str:
    """The command line that does the same again, whatever the project declares by then."""
    options: list[tuple[str, Any]] = [
        *(("--target", target) for target in targets),
        ("--output", output),
        ("--max-size-bytes", limits.size_bytes),
        ("--max-latency-ms", limits.latency_p95_ms),
        ("--max-memory-bytes", limits.memory_bytes),
        ("--profile", limits.profile.name if limits.profile else None),
        *(("--allow-inconclusive", gate) for gate in sorted(limits.allow_inconclusive & {"C1", "C2", "C3"})),
        ("--calibration-rows", calibration_rows),
    ]
    words = ["edgefleet", "convert", str(package)]
    return shlex.join(words + [str(part) for name, value in options if value is not None for part in (name, value)])


def _list_targets(package: ModelPackage, as_json: bool) -> None:
    from converter.recipes import possible
    from converter.tables import targets_text

    found = possible(package)
    if as_json:
        print_json({"targets": [{"target": target, "possible": reason is None, "reason": reason} for target, reason in found]})
        return
    click.echo(targets_text(found))


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
