"""`edgefleet agent serve`: score a bundle over HTTP without a fleet; and the HTTP options that `agent run` shares."""

import logging
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from device_agent.doors.http.settings import HttpSettings

F = TypeVar("F", bound=Callable[..., Any])
_FILE = click.Path(path_type=Path, dir_okay=False)


memory_option = click.option(
    "--memory-mb",
    type=click.FloatRange(0.0, min_open=True),
    help="Memory that a model may need, in MB of 1,000,000 bytes: variants that need more are passed over; default: no limit.",
)


def memory_bytes(memory_mb: float | None) -> int | None:
    """The value of `memory_option` in bytes."""
    return None if memory_mb is None else max(1, round(memory_mb * 1e6))


def http_options(required: bool) -> Callable[[F], F]:
    """The options of the HTTP door; `http_settings` takes their values."""
    options = [
        click.option(
            "--http", "http_port", type=click.IntRange(0, 65_535), required=required, help="Answer HTTP on this port; 0 is a free one."
        ),
        click.option("--http-host", default="127.0.0.1", show_default=True, help="Address; beyond this machine only with TLS and a token."),
        click.option("--http-tls-cert", type=_FILE, help="PEM file of the certificate."),
        click.option("--http-tls-key", type=_FILE, help="PEM file of its key, not encrypted."),
        click.option("--http-token-file", type=_FILE, help="File with the bearer token that requests must bring."),
    ]

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def http_settings(options: dict[str, Any]) -> "HttpSettings | None":
    """What `http_options` gave, None when no port was named.

    Raises:
        click.UsageError: Another option of the door without a port.
    """
    from device_agent.doors.http.settings import HttpSettings

    port = options["http_port"]
    cert, key, token = (options[f"http_{name}"] for name in ("tls_cert", "tls_key", "token_file"))
    if port is None:
        if cert or key or token:
            raise click.UsageError("the HTTP door is off without --http PORT")
        return None
    return HttpSettings(port, options["http_host"], cert, key, token)


@click.command("serve")
@click.option("--bundle", "folder", type=click.Path(path_type=Path, file_okay=False), required=True, help="Bundle folder.")
@click.option("--variant", help="Variant to use; default: the first whose runtime is installed.")
@memory_option
@http_options(required=True)
def serve_bundle(folder: Path, variant: str | None, memory_mb: float | None, **options: Any) -> None:
    """Score a bundle over HTTP until SIGTERM or Ctrl-C: Open Inference Protocol v2, MLflow's /invocations, /metrics, a page.

    The bundle's golden rows are scored first, in a child process with limits: a graph that fails them is not opened here.
    The address is printed once requests are answered. Exit code 0 after a clean stop.
    """
    from device_agent.allocator import use_one_arena
    from device_agent.doors.answering import Answering
    from device_agent.doors.http.door import HttpDoor
    from device_agent.tested import open_tested

    logging.getLogger("device_agent").setLevel(min(logging.INFO, logging.getLogger().level))
    use_one_arena()
    settings = http_settings(options)
    assert settings is not None  # noqa: S101  # the port is required here
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    models = Answering()
    models.install(open_tested(folder, variant, memory_bytes(memory_mb)))
    door = HttpDoor(models, settings)
    door.start()
    click.echo(door.url)
    stop.wait()
    door.close()
    models.close()
