"""`edgefleet init`: the first project.toml, from a look at the data."""

from pathlib import Path

import click

from edgefleet.cli.main import print_json


@click.command()
@click.option("--data", "data", type=click.Path(path_type=Path, dir_okay=False), required=True, help="CSV or Parquet file to look at.")
@click.option("--label", default="", help="Column of the answer; guessed when left out.")
@click.option("--dir", "folder", type=click.Path(path_type=Path, file_okay=False), default=Path(), help="Project folder; default: here.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def init(data: Path, label: str, folder: Path, as_json: bool) -> None:
    """Write a commented project.toml for a data file; never overwrites one.

    Exit codes: 0 written, 3 the file cannot be used or a project.toml is there already.
    """
    from trainer.first_project import write_first_project

    path, found = write_first_project(data, folder, label)
    if as_json:
        inputs = [{"name": column.name, "kind": column.kind, "observed": found.notes[column.name]} for column in found.inputs]
        roles = {"label": found.label, "task": found.task, "id": found.id, "time": found.time, "group": found.group}
        print_json({"project": str(path), **roles, "inputs": inputs, "left_out": found.left_out})
        return
    click.echo(f"{path}: {len(found.inputs)} inputs, label {found.label!r} ({found.task})")
    for name, reason in found.left_out.items():
        click.echo(f"  left out {name}: {reason}")
    click.echo(f"Now fill in [goal], review the rest, then: edgefleet data check {folder}")
