"""`edgefleet agent score`: rows of a file, a pipe or a watched directory, by a bundle or by a server."""

import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from edgefleet.cli.main import print_json
from edgefleet.errors import ConfigError, RowRejected, StorageError

if TYPE_CHECKING:
    from device_agent.doors.batch.planning import Wishes
    from device_agent.doors.batch.rows import Position, Tally
    from device_agent.scorer import Scorer

_FILE = click.Path(path_type=Path, dir_okay=False)
_FOLDER = click.Path(path_type=Path, file_okay=False)
_LOOK_S: Final = 0.5
_SHOW_S: Final = 0.2
_AFTER_ERROR_S: Final = 5.0
MAX_TOKEN_BYTES: Final = 4096


@click.command("score")
@click.option("--bundle", "folder", type=_FOLDER, help="Bundle folder.")
@click.option("--variant", help="Variant to use; default: the first whose runtime is installed.")
@click.option("--url", help="Send requests of the Open Inference Protocol (one a line of INPUT) to this server instead.")
@click.option("--model", help="Model of that server; default: the only one it has.")
@click.option("--token-file", type=_FILE, help="File with the bearer token for that server.")
@click.option("--format", "source_format", type=click.Choice(["csv", "ndjson", "parquet", "oip"]), help="Of INPUT; default: by its name.")
@click.option("--output", type=click.Path(path_type=Path), help="File of the answers (with --watch: their folder); default: stdout.")
@click.option("--output-format", type=click.Choice(["csv", "ndjson", "parquet"]), help="Of the answers; default: by the output's name.")
@click.option("--bad", type=_FILE, help="Also write each bad row's number, input, value, limit and reason to this .csv or .ndjson file.")
@click.option("--resume", is_flag=True, help="Go on where an interrupted run with the same options stopped.")
@click.option("--explain", is_flag=True, help="Also say which inputs moved the answer most.")
@click.option("--top", type=click.IntRange(1, 1000), default=3, show_default=True, help="How many inputs --explain names.")
@click.option("--probabilities", is_flag=True, help="Also write the probability of every class.")
@click.option("--group", help="Models of windows: column that says which machine a row is of; '' for none. Default: as in training.")
@click.option("--time", "time_column", help="Models of windows: column that says when a row was measured; default: as in training.")
@click.option(
    "--max-gap", type=click.FloatRange(0, min_open=True), help="Models of windows: seconds between two rows that empty the window."
)
@click.option("--missing", multiple=True, help="Text that stands for a missing value in CSV, beside the empty one; may be repeated.")
@click.option("--delimiter", default=",", show_default=True, help="Of CSV input.")
@click.option("--no-header", is_flag=True, help="CSV input without names: its columns are the inputs, in the manifest's order.")
@click.option("--watch", type=_FOLDER, help="Score every file that is renamed into this folder, once, instead of INPUT; until SIGTERM.")
@click.option("--once", is_flag=True, help="With --watch: score what is there, then stop.")
@click.option(
    "--json", "as_json", is_flag=True, help="A summary as one JSON document, on stdout (on stderr when the answers go to stdout)."
)
@click.argument("source", metavar="[INPUT]", required=False)
def score_rows(
    folder: Path | None,
    variant: str | None,
    url: str | None,
    model: str | None,
    token_file: Path | None,
    source_format: Any,
    output: Path | None,
    output_format: Any,
    bad: Path | None,
    resume: bool,
    explain: bool,
    top: int,
    probabilities: bool,
    group: str | None,
    time_column: str | None,
    max_gap: float | None,
    missing: tuple[str, ...],
    delimiter: str,
    no_header: bool,
    watch: Path | None,
    once: bool,
    as_json: bool,
    source: str | None,
) -> None:
    """Score rows from INPUT (CSV, NDJSON, Parquet), or from stdin when INPUT is `-`: one answer a row, in order.

    The bundle's golden rows are scored first, in a child process with limits: one that is damaged, hostile or answers otherwise here is not
    opened (exit code 1). A bad row is answered in its place with `status` rejected, and makes exit code 3. Rows of stdin are answered one
    by one as they come.
    """
    from device_agent.doors.batch.planning import Places, Wishes, plan_run
    from device_agent.doors.batch.remote import RemoteLines
    from device_agent.doors.batch.run import run
    from device_agent.tested import open_tested

    if len(delimiter) != 1 or delimiter in '"\r\n':
        raise ConfigError(f"--delimiter {delimiter!r} is not one character other than a quote or a line's end")
    if (folder is None) == (url is None):
        raise click.UsageError("name either --bundle or --url")
    if (source is None) == (watch is None):
        raise click.UsageError("name either INPUT (a file, or - for stdin) or --watch DIR")
    if url is None and (model or token_file):
        raise click.UsageError("--model and --token-file belong to --url")
    wishes = Wishes(
        top=top if explain else 0,
        probabilities=probabilities,
        group=group,
        time=time_column,
        max_gap_s=max_gap,
        missing=missing,
        delimiter=delimiter,
        header=not no_header,
    )
    if watch is not None:
        if url is not None or resume or source_format or output_format:
            raise click.UsageError("--watch takes --bundle and always resumes; formats are told by the files' names")
        with open_tested(folder or Path(), variant) as scorer:
            _watch(watch, scorer, wishes, output, bad is not None, once, as_json)
        return
    path = None if source == "-" else Path(source or "")
    if resume and (path is None or output is None):
        raise click.UsageError("--resume needs an INPUT file and an --output file; a pipe cannot be read twice")
    places = Places(source=path, output=output, bad=bad, source_format=source_format, output_format=output_format)
    asked = RemoteLines(url, model, _token(token_file)) if url is not None else open_tested(folder or Path(), variant)
    said, end = _progress(output is not None)
    try:
        outcome = run(plan_run(asked, wishes, places), resume, said)
    except BrokenPipeError:
        # The reader (head, less) has what it wanted; click would make an exit code of it, and the interpreter a complaint.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    finally:
        end()
        asked.close()
    _tell(outcome.tally, outcome.seconds, as_json, to_stdout=output is not None, resumed_at=outcome.resumed_at)


def _watch(folder: Path, scorer: "Scorer", wishes: "Wishes", output: Path | None, bad: bool, once: bool, as_json: bool) -> None:
    from device_agent.doors.batch.folder import WatchedFolder

    logging.getLogger("device_agent").setLevel(min(logging.INFO, logging.getLogger().level))
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    start = time.monotonic()
    watched = WatchedFolder(folder, scorer, wishes, output, bad)
    while not stop.is_set():
        try:
            found = watched.look(stop.is_set)
        except StorageError as err:
            if once:
                raise
            click.echo(f"edgefleet: {err}; the next try is in {_AFTER_ERROR_S:g} s", err=True)
            stop.wait(_AFTER_ERROR_S)
            continue
        if found == 0:
            if once:
                break
            stop.wait(_LOOK_S)
    _tell(watched.tally, time.monotonic() - start, as_json, to_stdout=True, files=watched.files, failed_files=watched.failed)


def _tell(tally: "Tally", seconds: float, as_json: bool, to_stdout: bool, **more: int) -> None:
    """Print the summary, and leave with exit code 3 when something was refused."""
    import msgspec

    document = msgspec.to_builtins(tally) | {
        "seconds": round(seconds, 3),
        "rows_per_second": round(tally.offered / seconds, 1) if seconds > 0 else 0.0,
        **more,
    }
    if as_json and to_stdout:
        print_json(document)
    elif as_json:
        click.echo(json.dumps(document), err=True)
    if tally.refused or more.get("failed_files"):
        reasons = ", ".join(f"{count} {reason}" for reason, count in tally.rejected.items())
        click.echo(f"edgefleet: {tally.refused} rows were rejected ({reasons or 'none'}); their lines say why", err=True)
        sys.exit(RowRejected.exit_code)


def _token(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        content = path.read_bytes()[: MAX_TOKEN_BYTES + 1]
    except OSError as err:
        raise ConfigError(f"--token-file {path}: cannot be read: {err.strerror or err}") from err
    token = content.decode("ascii", errors="replace").strip()
    if not token or len(content) > MAX_TOKEN_BYTES or not token.isprintable() or " " in token:
        raise ConfigError(
            f"--token-file {path}: {len(content)} bytes are no token; expected one line of at most {MAX_TOKEN_BYTES} characters"
        )
    return token


def _progress(to_file: bool) -> tuple[Callable[["Position", int | None], bool] | None, Callable[[], None]]:
    """How far the run is, only where a person watches."""
    if not sys.stderr.isatty() or (sys.stdout.isatty() and not to_file):  # answers on a terminal are their own progress
        return None, lambda: None
    start = time.monotonic()
    last = start - _SHOW_S  # the first chunk is shown, however fast the rest goes

    def said(position: "Position", size: int | None) -> bool:
        nonlocal last
        now = time.monotonic()
        if now - last >= _SHOW_S:
            last = now
            share = f"{100 * position.offset / size:3.0f} %  " if size else ""
            click.echo(f"\r\033[K  {share}{position.rows:,} rows  {now - start:.0f} s", err=True, nl=False)
        return False

    return said, lambda: click.echo("\r\033[K", err=True, nl=False)
