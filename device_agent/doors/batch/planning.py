"""From what a person asks for to a plan that can be run: formats by name, columns, sinks, and everything that may not change on the way."""

import json
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal

from device_agent.doors.batch.answers import RowAnswerer
from device_agent.doors.batch.columns import check_aside
from device_agent.doors.batch.journal import journal_of
from device_agent.doors.batch.oip import LocalLines, OipSource, as_lines, is_request
from device_agent.doors.batch.parquet import ParquetSource, pyarrow_modules
from device_agent.doors.batch.parquet_sink import ParquetSink, place_parquet
from device_agent.doors.batch.remote import RemoteLines
from device_agent.doors.batch.render import BAD_COLUMNS, Columns, as_csv, as_ndjson, bad_csv, bad_ndjson, csv_line
from device_agent.doors.batch.rows import BadRow, Position, Source, chunk_rows
from device_agent.doors.batch.run import Answerer, Plan
from device_agent.doors.batch.sinks import Sink, StreamSink, TextSink, partial_of, place_text
from device_agent.doors.batch.text import CsvSource, NdjsonSource, Reading
from device_agent.doors.batch.windows import Windows
from device_agent.scorer import Scorer
from edgefleet.errors import ConfigError, InputError

LOG = logging.getLogger(__name__)

Format = Literal["csv", "ndjson", "parquet", "oip"]
SUFFIXES: Final[dict[str, Format]] = {".csv": "csv", ".ndjson": "ndjson", ".jsonl": "ndjson", ".parquet": "parquet"}
_PEEK_BYTES: Final = 65_536


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What is wanted of every input.

    Attributes:
        top: How many inputs an explanation names, 0 for none.
        probabilities: Whether the probability of every class is written.
        group: Column that says what a row belongs to (windows are made within a group).
        time: Column that says when a row was measured.
        max_gap_s: Longest time between two rows of a window.
        missing: Texts that stand for a missing value in CSV.
        delimiter: Of CSV input.
        header: Whether CSV input begins with names.
    """

    top: int = 0
    probabilities: bool = False
    group: str | None = None
    time: str | None = None
    max_gap_s: float | None = None
    missing: tuple[str, ...] = ()
    delimiter: str = ","
    header: bool = True


@dataclass(frozen=True, kw_only=True)
class Places:
    """Which files.

    Attributes:
        source: The input, None for stdin.
        output: The output, None for stdout.
        bad: The side file for bad rows, None for none.
        source_format: Of the input, None: by its name, or by the first line of stdin.
        output_format: Of the output, None: by its name; that of stdout is that of the input, NDJSON instead of Parquet.
    """

    source: Path | None = None
    output: Path | None = None
    bad: Path | None = None
    source_format: Format | None = None
    output_format: Format | None = None


def plan_run(scorer: Scorer | RemoteLines, wishes: Wishes, places: Places) -> Plan:
    """Make a plan.

    Args:
        scorer: The model, or the server that has one.
        wishes: What an answer looks like.
        places: Where rows are and answers go.

    Raises:
        ConfigError: Wishes or places that contradict each other or the model.
        InputError: There is no such input.
        MissingPartError: Parquet without pyarrow.
    """
    _check_places(places)
    kind = places.source_format or _format_of(places, scorer)
    if isinstance(scorer, RemoteLines) and kind != "oip":
        raise ConfigError(
            f"--url sends requests of the Open Inference Protocol, one a line; the input is {kind}: say --format oip, or use --bundle"
        )
    if kind == "oip":
        return _oip_plan(scorer, wishes, places)
    assert isinstance(scorer, Scorer)  # noqa: S101 - see above
    return _row_plan(scorer, wishes, places, kind)


def _row_plan(scorer: Scorer, wishes: Wishes, places: Places, kind: Format) -> Plan:
    manifest = scorer.bundle.manifest
    windows = None
    if manifest.window_rows > 1:
        windows = Windows(manifest.window_rows, len(manifest.inputs), wishes.max_gap_s)
    elif wishes.group or wishes.time:
        raise ConfigError("--group and --time are for models of windows; this one takes single rows")
    if wishes.max_gap_s is not None and not wishes.time:
        raise ConfigError("--max-gap needs --time, the column that says when a row was measured")
    if wishes.top and not scorer.can_explain:
        raise ConfigError(
            f"variant {scorer.variant.name} carries no explainer; convert the package with an explanation, or leave --explain out"
        )
    check_aside(wishes.group, wishes.time, manifest.inputs)
    reading = Reading(
        inputs=manifest.inputs,
        group=wishes.group,
        time=wishes.time,
        missing=wishes.missing,
        delimiter=wishes.delimiter,
        header=wishes.header,
    )
    # Of a pipe every row is answered at once.
    per_chunk = 1 if places.source is None else chunk_rows(len(manifest.inputs) * manifest.window_rows)
    columns = Columns(manifest.classes if wishes.probabilities else (), wishes.top > 0)
    options = _options_of(wishes) | {"bundle": scorer.bundle.digest, "variant": scorer.variant.name, "input format": kind}
    answerer = RowAnswerer(scorer, wishes.top, windows)
    return _plan(answerer, partial(_open, places.source, kind, reading, per_chunk), columns, places, kind, options, wishes.time is not None)


def _oip_plan(scorer: Scorer | RemoteLines, wishes: Wishes, places: Places) -> Plan:
    if wishes.group or wishes.time or wishes.top or wishes.probabilities:
        raise ConfigError(
            "requests of the Open Inference Protocol say themselves what they want; leave --explain, --probabilities, --group out"
        )
    if places.output_format not in (None, "ndjson", "oip"):
        raise ConfigError(f"answers to requests are NDJSON, not {places.output_format}; leave --output-format out")
    if isinstance(scorer, RemoteLines):
        answerer: Answerer = scorer
        options = {"url": scorer.url, "model": scorer.model}
    else:
        answerer = LocalLines(scorer)
        options = {"bundle": scorer.bundle.digest, "variant": scorer.variant.name}

    def source(start: Position) -> Source:
        stream, size = _stream_of(places.source)
        return OipSource(stream, Reading(inputs=[]), 1, size, start)

    return _plan(answerer, source, None, places, "oip", options | {"input format": "oip"}, False)


def _plan(
    answerer: Answerer,
    source: Callable[[Position], Source],
    columns: Columns | None,
    places: Places,
    kind: Format,
    options: dict[str, str],
    timed: bool,
) -> Plan:
    output, bad = places.output, places.bad
    written: Format = places.output_format or (
        SUFFIXES.get(output.suffix.lower(), "ndjson") if output else "csv" if kind == "csv" else "ndjson"
    )
    options["output format"], options["bad rows"] = written, str(bad is not None)
    render, head = _render(columns, written)
    place: list[Callable[[], None]] = []
    open_bad, render_bad = None, None
    if bad is not None:
        as_table = bad.suffix.lower() == ".csv"
        render_bad = bad_csv if as_table else bad_ndjson
        open_bad = partial(TextSink, bad, _never, csv_line(BAD_COLUMNS) if as_table else b"")
        place.append(partial(place_text, bad))
    open_sink: Callable[[int], Sink]
    if output is None:
        if written == "parquet":
            raise ConfigError("Parquet cannot be written to a stream; name a file with --output")
        sink = StreamSink(sys.stdout.buffer, render, head)
        open_sink = lambda _: sink  # noqa: E731 - one of three ways to open an output
    elif written == "parquet" and columns is not None:
        pyarrow_modules()
        open_sink = partial(ParquetSink, output, columns, receipt=journal_of(output))
        place.append(partial(place_parquet, output))
    else:
        open_sink = partial(TextSink, output, render, head, receipt=journal_of(output))
        place.append(partial(place_text, output))
    return Plan(
        answerer=answerer,
        open_source=source,
        open_sink=open_sink,
        open_bad=open_bad,
        render_bad=render_bad,
        place=tuple(place),
        options=options,
        input_name=places.source.name if places.source else "stdin",
        input_size_bytes=places.source.stat().st_size if places.source else 0,
        output=output,
        journal=journal_of(output) if output is not None and places.source is not None else None,
        timed=timed,
    )


def _render(columns: Columns | None, written: Format) -> tuple[Callable[[Any], bytes], bytes]:
    if columns is None:
        return as_lines, b""
    if written == "csv":
        return partial(as_csv, columns=columns), csv_line(columns.names)
    return partial(as_ndjson, columns=columns), b""


def _never(_: list[BadRow]) -> bytes:
    raise AssertionError("bad rows are appended, not rendered by their sink")


def _open(path: Path | None, kind: Format, reading: Reading, per_chunk: int, start: Position) -> Source:
    if kind == "parquet":
        if path is None:
            raise ConfigError("Parquet cannot be read from a pipe; name a file")
        table: ParquetSource | CsvSource = ParquetSource(path, reading, per_chunk, start)
    else:
        stream, size = _stream_of(path)
        try:
            if kind == "ndjson":
                return NdjsonSource(stream, reading, per_chunk, size, start)
            table = CsvSource(stream, reading, per_chunk, size, start)
        except BaseException:
            stream.close()
            raise
    if table.columns.ignored:
        LOG.info("columns that are no inputs are ignored: %s", ", ".join(table.columns.ignored[:20]))
    return table


def _stream_of(path: Path | None) -> tuple[BinaryIO, int | None]:
    if path is None:
        return sys.stdin.buffer, None
    try:
        stream = path.open("rb")
    except OSError as err:
        raise InputError(f"{path}: cannot be read: {err.strerror or err}") from err
    return stream, os.fstat(stream.fileno()).st_size


def _format_of(places: Places, scorer: Scorer | RemoteLines) -> Format:
    if places.source is None:
        return "oip" if isinstance(scorer, RemoteLines) else "ndjson"
    found = SUFFIXES.get(places.source.suffix.lower())
    if found is None:
        raise ConfigError(
            f"{places.source.name}: its name does not tell a format ({', '.join(SUFFIXES)}); say --format csv, ndjson, parquet or oip"
        )
    if found == "ndjson":
        names = [] if isinstance(scorer, RemoteLines) else [column.name for column in scorer.bundle.manifest.inputs]
        with _stream_of(places.source)[0] as stream:
            first = next((line for line in iter(partial(stream.readline, _PEEK_BYTES), b"") if line.strip()), b"")
        if is_request(first, names):
            return "oip"
    return found


def _check_places(places: Places) -> None:
    if places.source is not None and not places.source.is_file():
        raise InputError(f"{places.source}: there is no such file; name a file of rows, or - for stdin")
    written = [path for path in (places.output, places.bad) if path is not None]
    for path in written:
        if path.is_dir():
            raise ConfigError(f"{path} is a folder; name a file")
        if not path.parent.is_dir():
            raise ConfigError(f"{path.parent}: there is no such folder; make it first")
    real = [path.resolve() for path in (places.source, *written) if path is not None]
    if len(set(real)) < len(real):
        raise ConfigError(f"{real[-1].name} is named twice among input, --output and --bad; name different files")
    if places.source is not None and places.source.resolve() in {partial_of(path).resolve() for path in written}:
        raise ConfigError(f"{places.source} is the unfinished part of the output; name another file")


def _options_of(wishes: Wishes) -> dict[str, str]:
    return {
        "--top": str(wishes.top),
        "--probabilities": str(wishes.probabilities),
        "--group": wishes.group or "none",
        "--time": wishes.time or "none",
        "--max-gap": str(wishes.max_gap_s),
        "--missing": json.dumps(wishes.missing),
        "--delimiter": wishes.delimiter,
        "--no-header": str(not wishes.header),
    }
