"""`edgefleet release floor`: the oldest release of a project that may still be given to a device."""

from pathlib import Path

import click

from edgefleet.cli.fleet import client_of, server_options
from edgefleet.cli.main import print_json


@click.group()
def release() -> None:
    """Show or raise the release floor of a project."""


@release.command("floor")
@click.argument("project")
@click.option("--raise-to", "release_id", default=None, help="Id of the oldest release that may be given from now on; never lowered again.")
@click.option("--reason", default="", help="Why it is raised; it stands in the log.")
@server_options
def floor(project: str, release_id: str | None, reason: str, server: str, token_file: Path | None, as_json: bool) -> None:
    """Show the release floor, or raise it: no older release is given to a device again, rollouts of older ones are paused."""
    if release_id is None and reason:
        raise click.UsageError("--reason is for --raise-to RELEASE; without it the floor is only shown")
    client = client_of(server, token_file)
    view = client.release_floor(project) if release_id is None else client.raise_floor(project, release_id, reason)
    if as_json:
        print_json(view)
        return
    print(view["sentence"])
    if view["raised_by"]:
        print(f"Raised by {view['raised_by']} at {view['raised_at']}: {view['reason']}")
    if view["paused"]:
        print(f"Paused, for a person to abort or roll back: {', '.join(view['paused'])}")
