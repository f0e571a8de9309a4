"""`edgefleet runs`: list, show and compare the recorded training runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from edgefleet.cli.main import print_json
from edgefleet.report.table import measured as _measure
from edgefleet.report.table import table

_FOLDER = click.Path(path_type=Path, file_okay=False)
_PROJECT = click.option("--project", "project_dir", type=_FOLDER, default=Path(), help="Project folder; the current one when left out.")
_RUNS = click.option("--runs-dir", type=_FOLDER, help="Where the run folders are; PROJECT/runs when left out.")
_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
_HTML = click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write it as one HTML file instead.")


@click.group()
def runs() -> None:
    """Recorded training runs. A RUN is named by its id, or by the beginning or the end of it."""


@runs.command("list")
@_PROJECT
@_RUNS
@_JSON
def list_runs(project_dir: Path, runs_dir: Path | None, as_json: bool) -> None:
    """List the runs of a project, oldest first."""
    from trainer.runs import read_runs

    folder = runs_dir or project_dir / "runs"
    records = read_runs(folder)
    if as_json:
        print_json({"runs": records})
        return
    if not records:
        click.echo(f"no runs in {folder}; `edgefleet train {project_dir}` makes one")
        return
    header = ["run", "status", "winner", "metric", "validation [95 %]", "test [95 %]", "seconds"]
    click.echo(table(header, [_line(record) for record in records]))


@runs.command()
@click.argument("run_id", metavar="RUN")
@_PROJECT
@_RUNS
@_HTML
@_JSON
def show(run_id: str, project_dir: Path, runs_dir: Path | None, html: Path | None, as_json: bool) -> None:
    """Show one RUN: what was asked, on what it ran, what came out."""
    from trainer.runs import read_run

    folder = runs_dir or project_dir / "runs"
    record = read_run(folder, run_id)
    if html is not None:
        from trainer.publishing import report_record
        from trainer.report.run_report import write_run_report

        click.echo(f"report: {write_run_report(report_record(record), html)}")
        return
    if as_json:
        print_json(record)
        return
    _print_run(record, folder)


@runs.command()
@click.argument("run_ids", metavar="RUN RUN...", nargs=-1, required=True)
@_PROJECT
@_RUNS
@_HTML
@_JSON
def compare(run_ids: tuple[str, ...], project_dir: Path, runs_dir: Path | None, html: Path | None, as_json: bool) -> None:
    """Compare RUNs: the settings that differ, and what was measured, side by side with 95 % intervals."""
    from trainer.runs import read_run

    if len(run_ids) < 2:
        raise click.UsageError("name at least two runs")
    records = [read_run(runs_dir or project_dir / "runs", run_id) for run_id in run_ids]
    if html is not None:
        from trainer.publishing import report_record
        from trainer.report.compare import write_comparison

        click.echo(f"comparison: {write_comparison([report_record(record) for record in records], html)}")
        return
    settings, measures = differing_settings(records), side_by_side(records)
    names = [str(record["id"]) for record in records]
    if as_json:
        print_json({"runs": names, "settings": settings, "metrics": measures})
        return
    if settings:
        click.echo(table(["differs", *names], [[name, *(_text(value) for value in values)] for name, values in settings.items()]))
    else:
        click.echo("rows, settings, libraries and commit are the same")
    click.echo("")
    click.echo(table(["measured", *names], [[name, *map(_measure, values)] for name, values in measures.items()]))


def differing_settings(records: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """What the runs were asked and ran on, where they do not agree: dotted name -> one value a run, None where absent."""
    flat = [dict(_flat(_asked(record))) for record in records]
    names = list(dict.fromkeys(name for values in flat for name in values))
    every = {name: [values.get(name) for values in flat] for name in names}
    return {name: values for name, values in every.items() if any(value != values[0] for value in values)}


def side_by_side(records: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, Any] | None]]:
    """What the runs measured: `test.auc`, `validation.auc of forest` -> {value, low, high, n} a run, None where absent."""
    measured = [dict(_measured(record)) for record in records]
    names = list(dict.fromkeys(name for values in measured for name in values))
    return {name: [values.get(name) for values in measured] for name in names}


def _asked(record: Mapping[str, Any]) -> dict[str, Any]:
    wanted = {name: record.get(name) for name in ("status", "winner", "settings", "seed", "candidates_asked", "data_digest", "champion")}
    around = record.get("environment") or {}
    versions = {"python": around.get("python"), **(around.get("packages") or {})}
    return {**wanted, "version": versions, "commit": (record.get("git") or {}).get("commit")}


def _measured(record: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    report, found = record.get("report") or {}, []
    splits = dict(report.get("metrics") or {})
    if isinstance(record.get("test"), Mapping) and "test" not in splits:
        splits["test"] = record["test"]
    for split in sorted(splits, key=["test", "validation"].index if set(splits) <= {"test", "validation"} else None):
        found += [(f"{split}.{name}", measure) for name, measure in splits[split].items() if isinstance(measure, Mapping)]
    metric = report.get("metric") or "metric"
    found += [(f"validation.{metric} of {one.get('name')}", dict(one)) for one in report.get("candidates") or []]
    return [(name, {part: measure.get(part) for part in ("value", "low", "high", "n")}) for name, measure in found]


def _line(record: Mapping[str, Any]) -> list[object]:
    report = record.get("report") or {}
    metric = str(report.get("metric") or "-")
    measured = dict(_measured(record))
    values = [_measure(measured.get(f"{split}.{metric}")) for split in ("validation", "test")]
    seconds = record.get("total_seconds", sum((record.get("seconds") or {}).values()))
    return [str(record["id"]), str(record.get("status", "-")), str(record.get("winner") or "-"), metric, *values, f"{seconds:.1f}"]


def _print_run(record: Mapping[str, Any], folder: Path) -> None:
    git = record.get("git")
    commit = "none" if not git else f"{git['commit'][:12]}{', with changes' if git['dirty'] else ''}"
    around = record.get("environment") or {}
    facts = {
        "run": record["id"],
        "status": f"{record.get('status')}{': ' if record.get('reason') else ''}{record.get('reason') or ''}",
        "question": record.get("question"),
        "started": record.get("started_at"),
        "rows": record.get("rows"),
        "data digest": record.get("data_digest"),
        "seed": record.get("seed"),
        "commit": commit,
        "python": around.get("python"),
        "winner": record.get("winner"),
        "package": record.get("package"),
        "folder": str(folder / str(record["id"])),
    }
    click.echo(table(["field", "value"], [[name, _text(value)] for name, value in facts.items() if value is not None]))
    if measured := _measured(record):
        click.echo("\n" + table(["measured", "value [95 %]"], [[name, _measure(value)] for name, value in measured]))
    if seconds := record.get("seconds"):
        why = record.get("steps") or {}
        click.echo("\n" + table(["step", "seconds", "why"], [[name, f"{took:.2f}", why.get(name, "-")] for name, took in seconds.items()]))


def _flat(value: Mapping[str, Any], at: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, below in value.items():
        found += _flat(below, f"{at}{name}.") if isinstance(below, Mapping) and below else [(f"{at}{name}", below)]
    return found


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(below)}" for name, below in value.items())
    text = ", ".join(map(_text, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 100 else f"{text[:97]}..."
