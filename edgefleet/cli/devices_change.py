"""`edgefleet devices relabel|remove|unquarantine`: what people change about one device, each with a reason that stands in the log."""

from pathlib import Path

import click

from edgefleet.cli.fleet import client_of, label_pairs, server_options
from edgefleet.cli.main import print_json


@click.command("relabel")
@click.argument("device_id")
@click.option("--set", "put", multiple=True, metavar="KEY=VALUE", help="Set this label; may be repeated.")
@click.option("--drop", multiple=True, metavar="KEY", help="Drop this label; may be repeated.")
@click.option("--replace", is_flag=True, help="Drop all labels that are not set here.")
@click.option("--reason", required=True, help="Why; it stands in the log.")
@server_options
def relabel(
    device_id: str,
    put: tuple[str, ...],
    drop: tuple[str, ...],
    replace: bool,
    reason: str,
    server: str,
    token_file: Path | None,
    as_json: bool,
) -> None:
    """Change the labels of a device: what selects it from now on.

    Rollouts that have it already go on with what its labels said when they were planned.
    """
    if replace and drop:
        raise click.UsageError("--replace drops all other labels; leave --drop out")
    if not (put or drop or replace):
        raise click.UsageError("give --set KEY=VALUE or --drop KEY")
    client = client_of(server, token_file)
    labels = label_pairs(put)
    after = client.replace_labels(device_id, labels, reason) if replace else client.relabel(device_id, labels, list(drop), reason)
    if as_json:
        print_json({"device_id": device_id, "labels": after})
    else:
        print(f"{device_id}: {', '.join(f'{key}={value}' for key, value in sorted(after.items())) or 'no label'}")


@click.command("remove")
@click.argument("device_id")
@click.option("--reason", required=True, help="Why; it stands in the log.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@server_options
def remove(device_id: str, reason: str, yes: bool, server: str, token_file: Path | None, as_json: bool) -> None:
    """Take a device out of the fleet: its token and broker password end, its log stays. Enrolling the id again makes a new device."""
    if not yes:
        click.confirm(f"Remove {device_id} from the fleet? Only enrolling it anew brings it back.", abort=True, err=True)
    done = client_of(server, token_file).remove_device(device_id, reason)
    if as_json:
        print_json(done)
        return
    print(f"{device_id} was removed from the fleet.")
    for rollout_id, sentence in done["rollouts"].items():
        print(f"rollout {rollout_id}: {sentence}.")


@click.command("unquarantine")
@click.argument("device_id")
@click.argument("bundle")
@click.option("--reason", required=True, help="Why; it stands in the log.")
@server_options
def unquarantine(device_id: str, bundle: str, reason: str, server: str, token_file: Path | None, as_json: bool) -> None:
    """Let a device try a BUNDLE again that failed there (its digest, or the first eight characters or more), when it is asked for."""
    done = client_of(server, token_file).unquarantine(device_id, bundle, reason)
    if as_json:
        print_json(done)
    else:
        print(f"{device_id} may try bundle {done['bundle_digest'][:12]} again, once it has heard desired state {done['counter']}.")
