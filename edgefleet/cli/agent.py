"""`edgefleet agent`: run the device agent, score rows from a file, show its state."""

import logging
import signal
import sys
import time
from pathlib import Path
from typing import Any

import click

from edgefleet.cli.agent_mqtt import mqtt_options, mqtt_settings
from edgefleet.cli.agent_serve import http_options, http_settings, memory_bytes, memory_option
from edgefleet.cli.main import LazyGroup, print_json

_FOLDER = click.Path(path_type=Path, file_okay=False)


# A process that runs for months does not hold the options of its sisters.
_COMMANDS = {
    "run": ("edgefleet.cli.agent", "run_agent", "Run until SIGTERM or Ctrl-C; logs go to stderr."),
    "score": ("edgefleet.cli.agent_score", "score_rows", "Score rows of a file, of stdin, or of a watched folder."),
    "serve": ("edgefleet.cli.agent_serve", "serve_bundle", "Score a bundle over HTTP until SIGTERM or Ctrl-C."),
    "status": ("edgefleet.cli.agent", "status", "Show what the agent on this machine does."),
}


@click.group(cls=LazyGroup, table=_COMMANDS)
def agent() -> None:
    """Run the device agent, score rows, or show its state."""


@click.command("run")
@click.option("--dir", "folder", type=_FOLDER, required=True, help="Identity folder that `edgefleet enroll` wrote.")
@click.option(
    "--runtime", "runtimes", type=click.Choice(["onnxruntime", "litert"]), multiple=True, help="Use only this runtime; may be repeated."
)
@memory_option
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
@click.option(
    "--explain-cpu",
    type=click.FloatRange(0.0, 1.0, min_open=True),
    default=0.05,
    show_default=True,
    help="Share of one core that explanations may take.",
)
@click.option(
    "--allow-rows-per-hour",
    type=click.FloatRange(0.0, 3600.0),
    default=0.0,
    show_default=True,
    help="Rows that may leave this device as they came in, if the operator's signed order allows it too; 0 is never.",
)
@click.option(
    "--keep-seconds",
    type=click.FloatRange(0.1),
    default=30.0,
    show_default=True,
    help="Time between two snapshots of the open statistics window: the rows that kill -9 may cost.",
)
@click.option("--redact", multiple=True, metavar="INPUT", help="An input that never leaves this device; may be repeated.")
@click.option(
    "--allow-input", "allow_inputs", multiple=True, metavar="INPUT", help="Only such inputs may leave this device; may be repeated."
)
@click.option("--mirror", help="Fetch models from this base URL instead of the server; content is checked by hash.")
@click.option(
    "--trial-cpu-fraction",
    type=click.FloatRange(0.01, 1.0),
    default=0.25,
    show_default=True,
    help="Share of one core for a new model that is compared.",
)
@mqtt_options
@http_options(required=False)
def run_agent(
    folder: Path,
    runtimes: tuple[str, ...],
    memory_mb: float | None,
    sensor: Path | None,
    from_start: bool,
    window_seconds: float,
    heartbeat_seconds: float,
    explain_every: int,
    explain_cpu: float,
    allow_rows_per_hour: float,
    keep_seconds: float,
    redact: tuple[str, ...],
    allow_inputs: tuple[str, ...],
    mirror: str | None,
    trial_cpu_fraction: float,
    **doors: Any,
) -> None:
    """Run until SIGTERM or Ctrl-C; logs go to stderr. Exit code 0 after a clean stop."""
    from device_agent.agent import Agent
    from device_agent.allocator import use_one_arena
    from device_agent.config import AgentConfig
    from device_agent.telemetry.payload import PayloadSettings

    logging.getLogger("device_agent").setLevel(min(logging.INFO, logging.getLogger().level))
    config = AgentConfig(
        dir=folder,
        runtimes=runtimes or None,  # type: ignore[arg-type]  # click has checked the words
        model_memory_bytes=memory_bytes(memory_mb),
        sensor=sensor,
        sensor_from_start=from_start,
        window_s=window_seconds,
        heartbeat_s=heartbeat_seconds,
        explain_every=explain_every,
        explain_cpu_fraction=explain_cpu,
        keep_s=keep_seconds,
        payload=PayloadSettings(allow_rows_per_hour, redact, only=allow_inputs) if allow_rows_per_hour else None,
        mirror=mirror.rstrip("/") if mirror else None,
        mqtt=mqtt_settings(doors),
        trial_cpu_fraction=trial_cpu_fraction,
        http=http_settings(doors),
    )
    use_one_arena()
    running = Agent(config)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: running.stop())
    running.run()


@click.command("status")
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
        fields = [[name, _shown(value)] for name, value in document.items() if name != "format_version"]
        click.echo(table(["field", "value"], fields))
    if check:
        for problem in found:
            click.echo(problem, err=True)
        sys.exit(1 if found else 0)


def _shown(value: Any) -> str:
    """A field of the status for people; what is not known is a dash."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {inner}" for name, inner in value.items()) or "-"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    return "-" if value is None or value == "" else str(value)
