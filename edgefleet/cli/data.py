"""`edgefleet data`: look at a project's rows before training."""

from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from edgefleet.cli.main import print_json
from edgefleet.errors import VerdictError

if TYPE_CHECKING:
    from trainer.data_check import Findings

_FOLDER = click.Path(path_type=Path, file_okay=False)
_CHANGES = click.option("--set", "changes", multiple=True, metavar="TABLE.KEY=VALUE", help="Change a setting of project.toml; repeatable.")


@click.group()
def data() -> None:
    """Look at a project's rows before training."""


@data.command()
@click.argument("project_dir", type=_FOLDER)
@_CHANGES
@click.option("--limit", type=click.IntRange(1, 1_000_000), default=100, show_default=True, help="Violations that are printed.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def check(project_dir: Path, changes: tuple[str, ...], limit: int, as_json: bool) -> None:
    """Check every row of PROJECT_DIR's source against its schema, and whether it could be trained on.

    Rows are counted from 0 below the header. Exit codes: 0 nothing to mend, 1 violations or errors, 3 no readable source or project.
    """
    from trainer.data_check import check_data
    from trainer.project import load_project

    findings = check_data(load_project(project_dir, changes), limit)
    if as_json:
        print_json({**msgspec.to_builtins(findings), "good": findings.good})
    else:
        _print(findings)
    if not findings.good:
        broken = f"{findings.violations_total} violations in {findings.rows_refused} of {findings.rows} rows"
        raise VerdictError(f"{broken}, {len(findings.errors)} errors; mend the source or [schema]")


@data.command()
@click.argument("project_dir", type=_FOLDER)
@_CHANGES
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), required=True, help="HTML file to write.")
def report(project_dir: Path, changes: tuple[str, ...], output: Path) -> None:
    """Write one self-contained HTML file about PROJECT_DIR's rows: distributions, missing values, shifts, leak suspects.

    Exit codes: 0 written, 3 the project or its rows cannot be used.
    """
    from trainer.load import load_rows
    from trainer.project import load_project
    from trainer.report.data_report import write_data_report
    from trainer.sources import read_table

    project = load_project(project_dir, changes)
    table = read_table(project)
    click.echo(f"written: {write_data_report(project, table, load_rows(project, table), output)}")


def _print(findings: "Findings") -> None:
    splits = ", ".join(f"{n} {name}" for name, n in findings.splits.items()) or "not usable"
    click.echo(f"{findings.rows} rows, {findings.columns} columns; {splits}; content {findings.digest[:12]}")
    for violation in findings.violations:
        click.echo("  row {row}, column {column}: {value}, expected {expected} ({reason})".format_map(violation))
    if findings.violations_total > len(findings.violations):
        click.echo(f"  ... and {findings.violations_total - len(findings.violations)} more; --limit prints more of them")
    for error in findings.errors:
        click.echo(f"  error: {error}")
    for warning in findings.warnings:
        click.echo(f"  warning: {warning}")
    if findings.good:
        click.echo("every row obeys the schema")
