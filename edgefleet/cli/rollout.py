"""`edgefleet rollout`: plan, create, watch, explain and steer rollouts through the server's API and nothing else."""

import sys
from pathlib import Path
from typing import Any, Final

import click

from edgefleet.cli.fleet import client_of, read_policy, select_option, selection_of, server_options
from edgefleet.cli.main import print_json
from edgefleet.cli.plan_text import plan_text
from edgefleet.cli.rollout_text import approval_text, decisions_text, explain_text, status_text
from edgefleet.cli.rollout_watch import columns, follow
from edgefleet.client import Json
from edgefleet.errors import InputError
from edgefleet.report.table import table

_FILE = click.Path(path_type=Path, dir_okay=False)
MIN_DIGITS: Final = 12
EVERY_S: Final = 2.0


@click.group()
def rollout() -> None:
    """Plan, start, watch, explain and steer rollouts."""


def _what(command: Any) -> Any:
    """The options that say what would be rolled out to whom, the same for `plan` and `create`."""
    options = (
        click.option("--release", "release_id", required=True, help="Id that push printed."),
        click.option("--policy", "policy_file", type=_FILE, default=None, help="Policy file (TOML); else the measured defaults."),
        select_option,
    )
    for option in reversed(options):
        command = option(command)
    return command


@rollout.command("plan")
@_what
@click.option("--devices", "with_devices", is_flag=True, help="Name the devices of each wave.")
@server_options
def plan(
    release_id: str,
    policy_file: Path | None,
    selects: tuple[str, ...],
    with_devices: bool,
    server: str,
    token_file: Path | None,
    as_json: bool,
) -> None:
    """Say who would come when, how long it takes and what a bad release would cost; changes nothing."""
    view = client_of(server, token_file).plan_rollout(release_id, _policy(policy_file), selection_of(selects), devices=with_devices)
    if as_json:
        print_json(view)
    else:
        print(plan_text(view, with_devices=with_devices, width=columns()))


@rollout.command("create")
@_what
@click.option("--fixes", default="", metavar="ROLLOUT", help="Aborted rollout that this one mends: the devices it harmed come first.")
@click.option("--plan", "digest", default="", help="Digest of the plan you looked at, or its first 12 digits; another one is refused.")
@server_options
def create(
    release_id: str,
    policy_file: Path | None,
    selects: tuple[str, ...],
    fixes: str,
    digest: str,
    server: str,
    token_file: Path | None,
    as_json: bool,
) -> None:
    """Make a rollout; it waits for `rollout start`."""
    _show(client_of(server, token_file).create_rollout(release_id, _policy(policy_file), selection_of(selects), fixes, digest), as_json)


@rollout.command("status")
@click.argument("rollout_id", required=False)
@click.option("--watch", "watched", is_flag=True, help="Keep it up to date until the rollout is over, like `rollout watch`.")
@server_options
def status(rollout_id: str | None, watched: bool, server: str, token_file: Path | None, as_json: bool) -> None:
    """One rollout with its waves and gates, or the list of all."""
    client = client_of(server, token_file)
    if rollout_id is not None:
        if watched:
            follow(client, rollout_id, EVERY_S, as_json=as_json)
        else:
            _show(client.rollout(rollout_id), as_json)
        return
    if watched:
        raise click.UsageError("name the rollout to watch: edgefleet rollout status ID --watch")
    rows = client.rollouts()
    if as_json:
        print_json(rows)
        return
    header = ("rollout", "project", "release", "state", "wave", "begun", "verdict")
    lines = [(r["rollout_id"], r["project"], r["release"], r["state"], f"{r['wave']}/{r['waves']}", _begun(r), r["sentence"]) for r in rows]
    print(table(header, lines, columns()))


@rollout.command("watch")
@click.argument("rollout_id")
@click.option("--every", type=click.FloatRange(0.5, 3600), default=EVERY_S, show_default=True, help="Seconds between two looks.")
@server_options
def watch(rollout_id: str, every: float, server: str, token_file: Path | None, as_json: bool) -> None:
    """A live table until the rollout is over; without a terminal one line per change. Exit code 1: it was not completed."""
    follow(client_of(server, token_file), rollout_id, every, as_json=as_json)


@rollout.command("explain")
@click.argument("rollout_id")
@server_options
def explain(rollout_id: str, server: str, token_file: Path | None, as_json: bool) -> None:
    """Each gate of the open wave: its word, numbers, limit, sentence, and what would change its answer."""
    view = client_of(server, token_file).explain_rollout(rollout_id)
    if as_json:
        print_json(view)
    else:
        print(explain_text(view))


@rollout.command("decisions")
@click.argument("rollout_id")
@click.option("--at", "version", type=int, default=None, help="One of them: what it was decided on, decided again (--json for the facts).")
@server_options
def decisions(rollout_id: str, version: int | None, server: str, token_file: Path | None, as_json: bool) -> None:
    """What the engine did and the digest of the facts it decided on. Exit code 1: the engine of today would do something else."""
    found = client_of(server, token_file).decisions(rollout_id, version)
    if as_json:
        print_json(found)
    else:
        print(decisions_text(found if version is None else [found]))
    if version is not None and found["again"] != found["action"]:
        sys.exit(1)


@rollout.command("approve")
@click.argument("rollout_id")
@click.option("--plan", "digest", default=None, help="Digest of the plan you looked at, or its first 12 digits.")
@click.option("--note", default="", help="Your words; they stand in the log.")
@server_options
def approve(rollout_id: str, digest: str | None, note: str, server: str, token_file: Path | None, as_json: bool) -> None:
    """Approve the plan that you looked at; without --plan show what there is to approve. Exit code 1: approvals are missing."""
    client = client_of(server, token_file)
    view = client.approvals(rollout_id)
    if digest is not None:
        view = client.approve_rollout(rollout_id, _whole(str(view["digest"]), digest.lower()), note)
    if as_json:
        print_json(view)
    else:
        print(approval_text(view))
    if view["missing"]:
        sys.exit(1)


def _action(name: str, summary: str, action: str | None = None) -> click.Command:
    @click.command(name, help=summary)
    @click.argument("rollout_id")
    @click.option("--reason", default="", help="Why; it stands in the log.")
    @click.option("--version", type=int, default=None, help="Refuse if the rollout has changed since this version.")
    @server_options
    def act(rollout_id: str, reason: str, version: int | None, server: str, token_file: Path | None, as_json: bool) -> None:
        _show(client_of(server, token_file).action(rollout_id, action or name, version, reason), as_json)

    return act


for _name, _summary, _act in (
    ("start", "Open wave 1.", "start"),
    ("pause", "Let no further device begin.", "pause"),
    ("confirm", "You have looked at what the policy asks a person about: the gates go on, nothing is accepted.", "confirm"),
    ("resume", "Go on, and accept the failures that stopped it.", "resume"),
    ("abort", "End it; devices that are not ok go back, or those that the policy says.", "abort"),
    ("rollback", "Send every device back to what it ran before.", "roll-back"),
    ("roll-back", "The same as rollback.", "roll-back"),
):
    rollout.add_command(_action(_name, _summary, _act))


def _whole(known: str, digest: str) -> str:
    """The digest that a person means: whole as it is (the server says what changed), or enough of the one that the plan has now."""
    if len(digest) == len(known):
        return digest
    if len(digest) < MIN_DIGITS:
        raise InputError(f"plan {digest[:MIN_DIGITS]!r} has {len(digest)} digits; give at least {MIN_DIGITS} of the {len(known)}")
    if not known.startswith(digest):
        raise InputError(f"you looked at plan {digest[:64]}, it is {known[:MIN_DIGITS]} now; nothing was done; look again")
    return known


def _policy(path: Path | None) -> Json | None:
    return None if path is None else read_policy(path)


def _begun(row: Json) -> str:
    return f"{row['begun_devices']} of {row['all_devices']}"


def _show(view: Json, as_json: bool) -> None:
    if as_json:
        print_json(view)
    else:
        print(status_text(view, columns()))
