"""`edgefleet agent`: run the device agent, score rows from a file, show its state."""

import json
import logging
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from edgefleet.bundle import Bundle
from edgefleet.cli.main import print_json
from edgefleet.errors import RowRejected, VerdictError

if TYPE_CHECKING:
    from device_agent.score import Score

_FOLDER = click.Path(path_type=Path, file_okay=False)


@click.group()
def agent() -> None:
    """Run the device agent, score rows, or show its state."""


@agent.command("run")
@click.option("--dir", "folder", type=_FOLDER, required=True, help="Identity folder that `edgefleet enroll` wrote.")
@click.option(
    "--runtime", "runtimes", type=click.Choice(["onnxruntime", "litert"]), multiple=True, help="Use only this runtime; may be repeated."
)
@click.option(
    "--sensor", type=click.Path(path_type=Path, dir_okay=False), help="NDJSON file to follow: one row per line, appended by the sensor."
)
@click.option("--from-start", is_flag=True, help="Also score the lines that are already in the sensor's file.")
@click.option(
    "--window-seconds", type=click.FloatRange(0.1), default=3600.0, show_default=True, help="Longest time of one statistics window."
)
@click.option("--heartbeat-seconds", type=click.FloatRange(0.1), default=300.0, show_default=True, help="Time between two heartbeats.")
@click.option(
    "--explain-every", type=click.IntRange(0), default=0, show_default=True, help="Report an explanation of every N-th row; 0 is never."
)
@click.option("--mirror", help="Fetch models from this base URL instead of the server; content is checked by hash.")
def run_agent(
    folder: Path,
    runtimes: tuple[str, ...],
    sensor: Path | None,
    from_start: bool,
    window_seconds: float,
    heartbeat_seconds: float,
    explain_every: int,
    mirror: str | None,
) -> None:
    """Run until SIGTERM or Ctrl-C; logs go to stderr. Exit code 0 after a clean stop."""
    from device_agent.agent import Agent
    from device_agent.config import AgentConfig

    logging.getLogger("device_agent").setLevel(min(logging.INFO, logging.getLogger().level))
    config = AgentConfig(
        dir=folder,
        runtimes=runtimes or None,  # type: ignore[arg-type]  # click has checked the words
        sensor=sensor,
        sensor_from_start=from_start,
        window_s=window_seconds,
        heartbeat_s=heartbeat_seconds,
        explain_every=explain_every,
        mirror=mirror.rstrip("/") if mirror else None,
    )
    running = Agent(config)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: running.stop())
    running.run()


@agent.command("score")
@click.option("--bundle", "folder", type=_FOLDER, required=True, help="Bundle folder.")
@click.option("--variant", help="Variant to use; default: the first whose runtime is installed.")
@click.option("--explain", is_flag=True, help="Also name the three inputs that moved the answer most.")
@click.argument("rows", type=click.File("rb"))
def score_rows(folder: Path, variant: str | None, explain: bool, rows: BinaryIO) -> None:
    """Score rows from a file, or from stdin when ROWS is `-`: NDJSON in, NDJSON out.

    The bundle's golden rows are scored first, in a child process with limits: one that is damaged, hostile or answers otherwise here is not
    opened (exit code 1). A bad row gets an answer with `error`; exit code 3 when there was one.
    """
    from device_agent.choose import choose_variant
    from device_agent.doors.stream import parse_line
    from device_agent.scorer import Scorer
    from device_agent.update.selftest import try_bundle

    bundle, bad = Bundle.open(folder), 0
    chosen, _ = choose_variant(bundle.manifest, variant, None)
    tried = try_bundle(folder, chosen.name)
    if not tried.ok:
        raise VerdictError(f"{folder}: {chosen.name} does not pass its self-test here and is not opened: {tried.reason}")
    with Scorer.open(bundle, chosen.name) as scorer:
        for number, line in enumerate(_lines(rows), 1):
            try:
                click.echo(json.dumps(_answer(scorer.score(parse_line(line), explain=explain))))
            except RowRejected as err:
                bad += 1
                click.echo(json.dumps({"row": number, "error": str(err), "reason": err.reason}))
    if bad:
        click.echo(f"edgefleet: {bad} rows were rejected; their lines say why", err=True)
        sys.exit(RowRejected.exit_code)


@agent.command("status")
@click.option("--dir", "folder", type=_FOLDER, required=True, help="Identity folder of the agent.")
@click.option("--check", is_flag=True, help="Exit code 0 when the agent is well, 1 when not: for a container's health check.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def status(folder: Path, check: bool, as_json: bool) -> None:
    """Show what the agent on this machine does."""
    import msgspec

    from device_agent.health import problems, read_health
    from edgefleet.errors import ConfigError
    from edgefleet.report.table import table

    try:
        health = read_health(folder)
    except ConfigError as err:
        if not check:
            raise
        click.echo(f"edgefleet: {err}", err=True)
        sys.exit(1)
    now_us = time.time_ns() // 1000
    found = problems(health, now_us)
    document: dict[str, Any] = msgspec.to_builtins(health) | {"age_s": round((now_us - health.at) / 1e6, 1), "problems": found}
    if as_json:
        print_json(document)
    elif not check:
        shown = {
            name: ", ".join(value) if isinstance(value, list) else value for name, value in document.items() if name != "format_version"
        }
        click.echo(table(["field", "value"], [[name, str(value) if value != "" else "-"] for name, value in shown.items()]))
    if check:
        for problem in found:
            click.echo(problem, err=True)
        sys.exit(1 if found else 0)


def _lines(rows: BinaryIO) -> Iterator[bytes]:
    from device_agent.doors.stream import MAX_LINE_BYTES

    while line := rows.readline(MAX_LINE_BYTES + 2):
        if line.strip():
            yield line.rstrip(b"\n")


def _answer(score: "Score") -> dict[str, Any]:
    answer: dict[str, Any] = {"label": score.label, "score": round(float(score.score), 6), "margin": round(float(score.margin), 6)}
    answer |= {"digest": score.digest, "latency_ms": round(score.latency_ms, 3)}
    if score.explanation is not None:
        told = score.explanation
        top = sorted(zip(told.names, told.contributions, strict=True), key=lambda pair: -abs(pair[1]))[:3]
        answer["explanation"] = [{"input": name, "contribution": round(float(value), 6)} for name, value in top]
    return answer
