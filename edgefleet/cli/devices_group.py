"""`edgefleet devices group list|set|remove`: names for selections that people mean again and again."""

from pathlib import Path

import click

from edgefleet.cli.fleet import client_of, select_option, selection_of, server_options
from edgefleet.cli.main import print_json
from edgefleet.report.table import table


@click.group()
def group() -> None:
    """Name a selection of devices; `--select "group(NAME)"` means it in rollouts, experiments and lists."""


@group.command("list")
@click.option("--project", default=None, help="Only of this project.")
@server_options
def list_groups(project: str | None, server: str, token_file: Path | None, as_json: bool) -> None:
    """The groups and how many devices each selects now."""
    rows = client_of(server, token_file).groups(project)
    if as_json:
        print_json(rows)
    elif not rows:
        print("There is no group; `edgefleet devices group set` makes one.")
    else:
        lines = [(r["project"], r["name"], "?" if r["devices"] is None else r["devices"], r["selection"]) for r in rows]
        print(table(("project", "group", "devices", "selection"), lines))
        for row in rows:
            if row["trouble"]:
                print(row["trouble"])


@group.command("set")
@click.argument("name")
@click.option("--project", required=True, help="Whose devices.")
@select_option
@click.option("--reason", required=True, help="Why; it stands in the log.")
@server_options
def set_group(name: str, project: str, selects: tuple[str, ...], reason: str, server: str, token_file: Path | None, as_json: bool) -> None:
    """Make a group, or change whom it means. Rollouts that were planned with it go on as planned."""
    if not selects:
        raise click.UsageError("give --select SELECTION: which devices the group means")
    view = client_of(server, token_file).set_group(project, name, selection_of(selects), reason)
    if as_json:
        print_json(view)
        return
    counted = "1 device" if view["devices"] == 1 else f"{view['devices']} devices"
    print(f"group {name} of {project}: {view['selection']}; {counted} now.")
    _print_kept(view["rollouts"])


@group.command("remove")
@click.argument("name")
@click.option("--project", required=True, help="Whose devices.")
@click.option("--reason", required=True, help="Why; it stands in the log.")
@server_options
def remove_group(name: str, project: str, reason: str, server: str, token_file: Path | None, as_json: bool) -> None:
    """Forget a group. Rollouts that were planned with it go on as planned; no device is changed."""
    done = client_of(server, token_file).remove_group(project, name, reason)
    if as_json:
        print_json(done)
    else:
        print(f"group {name} of {project} is forgotten; no device was changed.")
        _print_kept(done["rollouts"])


def _print_kept(rollouts: list[str]) -> None:
    """What becomes of the rollouts that were planned with the group."""
    if rollouts:
        print(f"Planned with it, and as planned they go on: {', '.join(rollouts)}.")
