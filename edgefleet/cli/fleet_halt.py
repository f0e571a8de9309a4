"""`edgefleet fleet halt|lift|status`: stop every rollout on every device, and let them go on."""

from pathlib import Path

import click

from edgefleet.cli.fleet import client_of, server_options
from edgefleet.cli.main import print_json
from edgefleet.client import Json
from edgefleet.report.table import table


@click.group()
def fleet() -> None:
    """Halt every rollout on every device, lift that, or look."""


@fleet.command("halt")
@click.option("--reason", required=True, help="Why; the people at the devices read it.")
@server_options
def halt(reason: str, server: str, token_file: Path | None, as_json: bool) -> None:
    """Stop every rollout on every device, also if the server dies afterwards; what runs goes on."""
    _show(client_of(server, token_file).halt_fleet(reason), as_json)


@fleet.command("lift")
@click.option("--reason", required=True, help="Why; it stands in the log.")
@server_options
def lift(reason: str, server: str, token_file: Path | None, as_json: bool) -> None:
    """Let rollouts go on; lists what was waiting, rollbacks first."""
    _show(client_of(server, token_file).lift_fleet(reason), as_json)


@fleet.command("status")
@server_options
def status(server: str, token_file: Path | None, as_json: bool) -> None:
    """Whether the fleet is halted, and how many devices know it."""
    _show(client_of(server, token_file).fleet_halt(), as_json)


def _show(view: Json, as_json: bool) -> None:
    if as_json:
        print_json(view)
        return
    print(view["sentence"])
    if view["documents_refused"]:
        print(f"Devices refused {view['documents_refused']} documents that were not ours, damaged or old.")
    if view["pending"]:
        lines = [(row["rollout_id"], row["project"], row["state"], "back" if row["is_rollback"] else "on") for row in view["pending"]]
        print(table(("waiting" if view["halted"] else "goes on", "project", "state", "direction"), lines))
