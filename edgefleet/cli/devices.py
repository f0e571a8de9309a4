"""`edgefleet devices list|show|sampling|samples`: the devices of a fleet, one of them, and the rows that may leave them.

What changes one of them (`relabel|remove|unquarantine`) is in `devices_change.py`, groups of them (`group`) in `devices_group.py`.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import click

from edgefleet.cli.devices_change import relabel, remove, unquarantine
from edgefleet.cli.devices_group import group
from edgefleet.cli.devices_show import print_device
from edgefleet.cli.fleet import client_of, select_option, selection_of, server_options
from edgefleet.cli.main import print_json
from edgefleet.client import Json
from edgefleet.errors import InputError
from edgefleet.report.table import table

_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days"}


class _ListByDefault(click.Group):
    """`edgefleet devices --label a=b` is `edgefleet devices list --label a=b`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names):
            args = ["list", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_ListByDefault)
def devices() -> None:
    """List the devices (that is what it does without a word), show or change one, or say which rows may leave them."""


for _change in (relabel, remove, unquarantine, group):
    devices.add_command(_change)


@devices.command("list")
@click.option("--project", default=None, help="Only of this project.")
@click.option("--label", default=None, metavar="KEY=VALUE", help="Only with this label.")
@select_option
@server_options
def list_devices(
    project: str | None, label: str | None, selects: tuple[str, ...], server: str, token_file: Path | None, as_json: bool
) -> None:
    """List the devices and what they run."""
    if selects and project is None:
        raise click.UsageError("--select needs --project: labels and groups are those of a project")
    asked = (("project", project), ("label", label), ("select", selection_of(selects) or None))
    filters = {key: value for key, value in asked if value is not None}
    rows = client_of(server, token_file).devices(**filters)
    if as_json:
        print_json(rows)
        return
    header = ("device", "runs", "should run", "state", "last heard", "rows", "p50 ms", "why")
    print(table(header, [_device_line(row) for row in rows]))


@devices.command("show")
@click.argument("device_id")
@click.option("--hours", type=click.IntRange(1), default=24, show_default=True, help="Period of what it observed about its models.")
@server_options
def show(device_id: str, hours: int, server: str, token_file: Path | None, as_json: bool) -> None:
    """One device: what it runs, its load, a second model beside it, what its answers rested on, rows that leave it."""
    view = client_of(server, token_file).device(device_id, hours)
    if as_json:
        print_json(view)
    else:
        print_device(view, datetime.now(UTC))


@devices.command("sampling")
@click.argument("device_ids", nargs=-1)
@select_option
@click.option("--project", default=None, help="Beside --select: the project of the devices.")
@click.option("--rate", type=float, default=None, help="Rows an hour that each device may send at most.")
@click.option("--redact", multiple=True, metavar="INPUT", help="An input that must not leave; may be repeated.")
@click.option("--bytes-per-day", type=int, default=1_000_000, show_default=True, help="Bytes of rows that each device may send a day.")
@click.option("--until", default="24h", show_default=True, help="When it ends by itself: 90m, 24h, 7d, or 2026-03-01T12:00Z.")
@click.option("--off", is_flag=True, help="Take the order back.")
@server_options
def sampling(
    device_ids: tuple[str, ...],
    selects: tuple[str, ...],
    project: str | None,
    rate: float | None,
    redact: tuple[str, ...],
    bytes_per_day: int,
    until: str,
    off: bool,
    server: str,
    token_file: Path | None,
    as_json: bool,
) -> None:
    """Allow devices to send rows as they came in, take that back, or (without devices) list what is allowed.

    This is one of two keys: a device sends nothing unless it was started with --allow-rows-per-hour as well.
    """
    client = client_of(server, token_file)
    if not device_ids and not selects:
        if rate is not None or off:
            raise click.UsageError("name devices, or --project and --select SELECTION")
        _print_orders(client.sampling(), as_json)
        return
    if (rate is None) != off:
        raise click.UsageError("give either --rate or --off")
    if bool(device_ids) == bool(selects) or bool(selects) != (project is not None):
        raise click.UsageError("name either devices, or --project and --select SELECTION together")
    whom: Json = {"device_ids": list(device_ids)} if device_ids else {"project": project, "selection": selection_of(selects)}
    if off:
        _print_stopped(client.stop_sampling(whom), as_json)
        return
    until_at = moment(until, datetime.now(UTC)).isoformat()
    order: Json = {"rows_per_hour": rate, "redact": list(redact), "bytes_per_day": bytes_per_day, "until_at": until_at}
    _print_orders(client.order_sampling(whom, order), as_json)


@devices.command("samples")
@click.argument("device_id")
@click.option("--limit", type=click.IntRange(1, 1_000), default=20, show_default=True, help="Rows at most, the newest.")
@server_options
def samples(device_id: str, limit: int, server: str, token_file: Path | None, as_json: bool) -> None:
    """Rows that a device sent as they came in, newest first; needs an operator's token."""
    rows = client_of(server, token_file).samples(device_id, limit)
    if as_json:
        print_json(rows)
        return
    names = list(dict.fromkeys(name for row in rows for name in row["row"]))
    lines = [
        (row["received_at"][:19], row["release"], row["label"], row["score"], *(row["row"].get(name) for name in names)) for row in rows
    ]
    print(table(("arrived", "release", "answer", "score", *names), lines))


def moment(text: str, now: datetime) -> datetime:
    """A time that is given as a length from now or in ISO 8601.

    Args:
        text: For example 90m, 24h, 7d, 2026-03-01T12:00Z.
        now: Aware.

    Raises:
        InputError: It is neither, or has no time zone.
    """
    count, unit = text[:-1], text[-1:]
    if unit in _UNITS and count.isascii() and count.isdigit() and len(count) < 7:
        length: dict[str, Any] = {_UNITS[unit]: int(count)}
        return now + timedelta(**length)
    try:
        found = datetime.fromisoformat(text)
    except ValueError as err:
        raise InputError(f"time {text[:40]!r} is not understood; use 90m, 24h, 7d, or 2026-03-01T12:00Z") from err
    if found.tzinfo is None:
        raise InputError(f"time {text[:40]!r} has no time zone; put Z behind it for UTC")
    return found


def _device_line(row: Json) -> tuple[object, ...]:
    seen = (row["last_seen_at"] or "never")[:19].replace("T", " ")
    state = row["state"] if row["connected"] else f"{row['state']}, away"
    runs, wanted = row["running_release"] or row["running_digest"][:12], row["desired_release"]
    return row["device_id"], runs or "-", wanted or "-", state, seen, row["rows_total"], row["latency_p50_ms"], row["why"]


def _print_orders(orders: list[Json], as_json: bool) -> None:
    if as_json:
        print_json(orders)
        return
    if not orders:
        print("No device is allowed to send rows.")
        return
    header = ("device", "rows an hour", "bytes a day", "held back", "ends (UTC)", "ordered by")
    lines = [
        (o["device_id"], o["rows_per_hour"], o["bytes_per_day"], ", ".join(o["redact"]) or "-", _minute(o["until_at"]), o["ordered_by"])
        for o in orders
    ]
    print(table(header, lines))
    print("A device sends rows only if it was started with --allow-rows-per-hour as well.")


def _print_stopped(stopped: list[str], as_json: bool) -> None:
    if as_json:
        print_json({"stopped": stopped})
    else:
        print(f"No row may leave {', '.join(stopped)} any more." if stopped else "None of these devices had an order; nothing was changed.")


def _minute(text: str) -> str:
    return text[:16].replace("T", " ")
