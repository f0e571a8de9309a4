"""`edgefleet push|enroll|drift`: what people do with a fleet, through the server's API and nothing else."""

import math
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import click

from edgefleet.cli.main import print_json
from edgefleet.client import FleetClient, Json, token_from_environment
from edgefleet.errors import ConfigError, InputError
from edgefleet.report.table import table

MAX_POLICY_BYTES: Final = 65_536
_FILE = click.Path(path_type=Path, dir_okay=False)
_FOLDER = click.Path(path_type=Path, file_okay=False)


def server_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--server, --token-file, --json, the same everywhere; no option takes the token itself."""
    options = (
        click.option("--server", envvar="EDGEFLEET_SERVER", default="http://127.0.0.1:8080", show_default=True, help="URL of the server."),
        click.option("--token-file", type=_FILE, default=None, help="File with the token; else EDGEFLEET_TOKEN or EDGEFLEET_TOKEN_FILE."),
        click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def client_of(server: str, token_file: Path | None) -> FleetClient:
    """The client that the options ask for."""
    return FleetClient(server, token_from_environment(token_file))


@click.command()
@click.argument("bundle_dir", type=_FOLDER)
@click.option("--version", required=True, help="Name of the release, for example 1.4.0.")
@click.option("--note", default="", help="A sentence for people.")
@server_options
def push(bundle_dir: Path, version: str, note: str, server: str, token_file: Path | None, as_json: bool) -> None:
    """Send a bundle to the fleet server as a release; pushing the same one again changes nothing."""
    release = client_of(server, token_file).push(bundle_dir, version, note)
    if as_json:
        print_json(release)
    else:
        print(f"release {release['release_id']}: {release['project']} {release['version']}, bundle {release['bundle_digest'][:12]}")


@click.command()
@click.option("--device", "device_id", required=True, help="Identifier: a-z, 0-9 and '-'.")
@click.option("--project", required=True, help="What it will run.")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="For selections; may be given often.")
@click.option("--dir", "folder", type=_FOLDER, required=True, help="Identity folder to write; its key stays there.")
@server_options
def enroll(
    device_id: str, project: str, labels: tuple[str, ...], folder: Path, server: str, token_file: Path | None, as_json: bool
) -> None:
    """Enrol a device and write its identity folder (identity.json and device.key, readable by their owner only)."""
    enrolled = client_of(server, token_file).enroll_into(folder, device_id, label_pairs(labels), project=project)
    if as_json:
        print_json(enrolled)
    else:
        print(f"device {device_id} is enrolled for {project}; run it with: edgefleet agent run --dir {folder}")


@click.command()
@click.option("--project", default=None, help="Which; the first one with an alarm when not given.")
@server_options
def drift(project: str | None, server: str, token_file: Path | None, as_json: bool) -> None:
    """Show drift by device and input."""
    view = client_of(server, token_file).drift(project)
    if as_json:
        print_json(view)
        return
    if view is None:
        print("There is no project yet.")
        return
    print(f"{view['sentence']} {view['detail']}")
    header = ("device", "state", "evidence", "rows", "inputs that differ most")
    lines = [(row["device_id"], row["state"], row["evidence"], row["rows"], _inputs(row)) for row in view["devices"]]
    print(table(header, lines))


def _inputs(row: Json) -> str:
    return ", ".join(f"{feature['feature']} {feature['contrast']:+.2f} sd" for feature in row["features"][:3] if feature["contrast"])


def select_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """--select, the same everywhere."""
    words = "Only these devices: KEY=VALUE, or an expression like 'site in (a, b) and not group(pilots)'; may be repeated, all must fit."
    return click.option("--select", "selects", multiple=True, metavar="SELECTION", help=words)(command)


def selection_of(texts: tuple[str, ...]) -> str:
    """The expression that fits when each of them does; empty without any.

    Raises:
        UsageError: One is empty, as of a shell variable that is not set: it would select everybody.
    """
    if not all(text.strip() for text in texts):
        raise click.UsageError("--select is empty, which would be every device; give a selection, or leave --select away")
    return texts[0] if len(texts) == 1 else " and ".join(f"({text})" for text in texts)


def read_policy(path: Path) -> Json:
    """A policy file's content; what it means is checked by the server.

    Raises:
        ConfigError: It cannot be read, is too large, is no TOML, or has a number that is not finite.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_POLICY_BYTES + 1)
        if len(content) > MAX_POLICY_BYTES:
            raise ConfigError(f"{path}: larger than the {MAX_POLICY_BYTES} bytes that a policy may have")
        policy = tomllib.loads(content.decode())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as err:
        raise ConfigError(f"{path}: no policy can be read from it: {err}") from err
    # TOML knows them, and JSON, in which it is sent, does not.
    for name, value in _numbers("", policy):
        if not math.isfinite(value):
            raise ConfigError(f"{path}: {name} = {value} is no finite number; give one, or leave the key away")
    return policy


def _numbers(name: str, value: Any) -> Iterator[tuple[str, float]]:
    """Every float of a document with the name of its place."""
    if isinstance(value, float):
        yield name, value
    elif isinstance(value, dict):
        for key, one in value.items():
            yield from _numbers(f"{name}.{key}" if name else key, one)
    elif isinstance(value, list):
        for place, one in enumerate(value):
            yield from _numbers(f"{name}[{place}]", one)


def label_pairs(texts: tuple[str, ...]) -> dict[str, str]:
    """KEY=VALUE texts as labels.

    Raises:
        InputError: One that is not of this form.
    """
    pairs: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key and equals and value):
            raise InputError(f"label {text[:80]!r} is not understood; use KEY=VALUE")
        pairs[key] = value
    return pairs
