"""A rollout looked at again and again: a screen that is drawn over itself, or without a terminal one line per change."""

import shutil
import sys
import time
from typing import Any, Final

import click

from edgefleet.cli.main import print_json
from edgefleet.cli.rollout_text import screen, status_text
from edgefleet.client import FleetClient, Json
from edgefleet.errors import TransportError

_OVER: Final = ("completed", "aborted", "rolled-back", "superseded", "discarded")
_CLEAR: Final = "\x1b[2J"
_HOME: Final = "\x1b[H"
_REST_OF_LINE: Final = "\x1b[K"
_REST_OF_SCREEN: Final = "\x1b[J"
_AWAY_S: Final = 300.0  # a server that is restarted does not end a watch


def columns() -> int | None:
    """Of the terminal; None where a file or another program reads."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def follow(client: FleetClient, rollout_id: str, every_s: float, *, as_json: bool = False) -> None:
    """Show a rollout until it is over; ends the process: 0 when it was completed, else 1.

    Args:
        client: Of the server.
        rollout_id: Which.
        every_s: Seconds between two looks.
        as_json: One document per change instead of words.

    Raises:
        TransportError: The server does not answer the first time, or for _AWAY_S.
    """
    live = sys.stdout.isatty() and not as_json
    seen: tuple[Any, ...] = ()
    print(_CLEAR if live else "", end="")
    while True:
        view = _asked_again(client, rollout_id, every_s) if seen else client.rollout(rollout_id)
        over = view["state"] in _OVER
        now = (view["version"], view["state"], view["sentence"])
        if live:
            _draw(view, "" if over else f"Looked at every {every_s:g} s; Ctrl-C ends the watching, not the rollout.")
        elif now != seen:
            _line(view, as_json)
        seen = now
        if over:
            sys.exit(0 if view["state"] == "completed" else 1)
        time.sleep(every_s)


def _asked_again(client: FleetClient, rollout_id: str, every_s: float) -> Json:
    """The rollout now; a server that was there before is asked again for some minutes when it is not.

    Raises:
        TransportError: It was away for all that time.
    """
    until = time.monotonic() + _AWAY_S
    told = False
    while True:
        try:
            return client.rollout(rollout_id)
        except TransportError as err:
            if time.monotonic() >= until:
                raise
            if not told:
                click.echo(f"edgefleet: {err} It is asked again for {_AWAY_S / 60:g} minutes.", err=True)
            told = True
            time.sleep(every_s)


def _draw(view: Json, below: str) -> None:
    """The screen anew, over what it showed: nothing scrolls, and what does not fit is counted."""
    size = shutil.get_terminal_size()
    text = screen(status_text(view, size.columns), size.columns, size.lines - 3) + (f"\n\n{below}" if below else "")
    print(_HOME + "\n".join(line + _REST_OF_LINE for line in text.split("\n")) + _REST_OF_SCREEN, flush=True)


def _line(view: Json, as_json: bool) -> None:
    if as_json:
        print_json(view)
    else:
        print(f"{view['rollout_id']} ({view['state']}, version {view['version']}): {view['sentence']}", flush=True)
