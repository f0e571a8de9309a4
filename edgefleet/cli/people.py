"""`edgefleet people list|add|remove`: who may look, steer and approve; each person has a token of her own."""

import math
import os
from pathlib import Path

import click

from edgefleet.cli.fleet import client_of, server_options
from edgefleet.cli.main import print_json
from edgefleet.errors import ConfigError, InputError
from edgefleet.files import write_durably
from edgefleet.report.table import table

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.group()
def people() -> None:
    """List, add and remove the people who look, steer and approve; needs an admin's token."""


@people.command("list")
@server_options
def list_people(server: str, token_file: Path | None, as_json: bool) -> None:
    """Everybody who has a valid token."""
    rows = client_of(server, token_file).people.all()
    if as_json:
        print_json(rows)
    else:
        print(table(("person", "role", "since", "until"), [(r["name"], r["role"], r["since_at"][:10], r["expires_at"][:10]) for r in rows]))


@people.command("add")
@click.argument("name")
@click.option(
    "--role",
    type=click.Choice(["viewer", "operator", "admin"]),
    required=True,
    help="A viewer looks, an operator also steers and approves, an admin also adds and removes people.",
)
@click.option("--out", "file", type=_FILE, required=True, help="Token file to write, for its owner only; it must not exist.")
@click.option("--reason", required=True, help="Why; it stands in the log.")
@click.option("--days", type=float, default=365.0, show_default=True, help="Until the token expires.")
@server_options
def add(name: str, role: str, file: Path, reason: str, days: float, server: str, token_file: Path | None, as_json: bool) -> None:
    """Add a person and write her token to a file; the server shows it this once and keeps only its digest."""
    if not math.isfinite(days):
        raise InputError(f"days = {days} is no finite number; give the days until the token expires, for example 365")
    client = client_of(server, token_file)
    _claim(file)
    try:
        added = client.people.add(name, role, reason, days)
    except BaseException:
        file.unlink(missing_ok=True)
        raise
    try:
        write_durably(file, added.pop("token").encode() + b"\n", mode=0o600)
    except OSError as err:
        raise ConfigError(f"{name} was added, and {file} cannot be written: {err}; the token is lost: remove {name}, add again") from err
    if as_json:
        print_json(added | {"token_file": str(file)})
    else:
        print(f"{name} is {role} until {added['expires_at'][:10]}; her token is in {file}, and nowhere else")


def _claim(file: Path) -> None:
    """Make the token file, empty, before there is a token: it is shown once, and would be lost if no file could be made then.

    Raises:
        ConfigError: It exists, or cannot be made.
    """
    if not file.absolute().parent.is_dir():
        raise ConfigError(f"{file}: there is no folder {file.absolute().parent}; nobody was added; make it first")
    try:
        os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError as err:
        raise ConfigError(f"{file} exists; nobody was added; choose another file") from err
    except OSError as err:
        raise ConfigError(f"{file} cannot be written: {err.strerror}; nobody was added; choose another file") from err


@people.command("remove")
@click.argument("name")
@click.option("--reason", required=True, help="Why; it stands in the log.")
@server_options
def remove(name: str, reason: str, server: str, token_file: Path | None, as_json: bool) -> None:
    """End a person's token and sessions at once; what she approved stays approved."""
    done = client_of(server, token_file).people.remove(name, reason)
    if as_json:
        print_json(done)
    else:
        print(f"{name} is removed: the token opens nothing any more.")
