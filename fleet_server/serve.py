"""`edgefleet serve`: web server, ingest, scheduler and relay in one process, until SIGTERM.

At the end the listening socket is closed first, then requests in flight are answered, then the background threads finish what they
have in hand. What they had not finished is in the database or at the broker, and goes on at the next start.
"""

import contextlib
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Final

from flask import Flask

from edgefleet.errors import ConfigError, StorageError
from edgefleet.files import write_durably
from edgefleet.locks import FolderLock
from edgefleet.registry import check_installed
from fleet_server.app import PAGE_FEED, create_app
from fleet_server.config import MAX_VIEWERS, WORKER_THREADS, ServerConfig
from fleet_server.ingest.link import Link
from fleet_server.ingest.worker import IngestWorker
from fleet_server.registry import Registrar
from fleet_server.scheduler.loop import Scheduler
from fleet_server.scheduler.relay import Relay
from fleet_server.services import Services

LOG = logging.getLogger(__name__)

SERVER_FILE: Final = "server.json"
LOCK_FILE: Final = "lock"
DRAIN_S: Final = 10.0
_LOOK_S: Final = 0.05


@dataclass(frozen=True)
class _Background:
    scheduler: Scheduler
    link: Link | None
    worker: IngestWorker | None
    registrar: Registrar | None

    def stop(self) -> None:
        if self.registrar is not None:
            self.registrar.stop()
        if self.worker is not None:
            self.worker.stop()
        self.scheduler.stop()
        if self.link is not None:
            self.link.stop()


def run(config: ServerConfig) -> None:
    """Serve until SIGTERM or SIGINT.

    Prints one line with the URL on stderr and writes DATA/server.json {"url", "pid", "port"} when ready.

    Raises:
        ConfigError: The address cannot be listened on, or another server runs on the data folder.
        StorageError: The data folder cannot be used.
        MissingPartError: An MLflow server is named and its client is not installed.
    """
    if config.mlflow_url is not None:
        check_installed()
    lock = _folder_alone(config.data_dir)
    try:
        _serve(config)
    finally:
        lock.release()


def _folder_alone(data_dir: Path) -> FolderLock:
    """Two servers would take the broker's session from each other, and one that ends would hide the other."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as err:
        raise StorageError(f"{data_dir}: {err.strerror or err}; name a folder that can be written with --data") from err
    lock = FolderLock(data_dir / LOCK_FILE, "fleet server")
    # One that was killed left its address: who waits for ours must not find it.
    (data_dir / SERVER_FILE).unlink(missing_ok=True)
    return lock


def _serve(config: ServerConfig) -> None:
    app = create_app(config)
    services: Services = app.extensions["edgefleet"]
    if cut_off := services.blobs.remove_cut_off():
        LOG.info("%d uploads that were cut off when the server was killed are removed", cut_off)
    server = _listen(app, config)
    background = _start_background(services)
    serving = threading.Thread(target=server.run, name="waitress", daemon=True)
    serving.start()
    stopping = threading.Event()
    with _signals(stopping.set):
        port = server.effective_port
        url = config.public_url or f"http://{_in_url(config.host)}:{port}"
        write_durably(config.data_dir / SERVER_FILE, json.dumps({"url": url, "pid": os.getpid(), "port": port}).encode() + b"\n")
        print(f"fleet server at {url} (data in {config.data_dir})", file=sys.stderr, flush=True)  # noqa: T201  # the one line that says where
        stopping.wait()
    LOG.info("stopping: answering what is in flight")
    app.extensions[PAGE_FEED].close()
    _drain(server)
    background.stop()
    with contextlib.suppress(OSError):
        (config.data_dir / SERVER_FILE).unlink()
    services.db.close()


def _start_background(services: Services) -> _Background:
    registrar = None if services.config.mlflow_url is None else Registrar(services, services.config.mlflow_url)
    if registrar is not None:
        registrar.start()
    url = services.config.broker_url
    if url is None:
        scheduler = Scheduler(services, None)
        scheduler.start()
        return _Background(scheduler, None, None, registrar)
    link = Link(services.config, url)
    scheduler = Scheduler(services, Relay(services, link))
    link.on_connected = scheduler.broker_connected
    worker = IngestWorker(services, link)
    scheduler.start()
    worker.start()
    link.start()
    return _Background(scheduler, link, worker, registrar)


def _listen(app: Flask, config: ServerConfig) -> Any:
    from waitress.server import create_server

    try:
        return create_server(
            app,
            host=config.host,
            port=config.port,
            threads=WORKER_THREADS + MAX_VIEWERS,
            # The default of 100 would make every further request wait while so many streams are open.
            connection_limit=2_000,
            channel_timeout=60,
            # A closed page is noticed while its stream waits.
            channel_request_lookahead=1,
            max_request_header_size=32_768,
            max_request_body_size=config.max_blob_bytes + 1,
            outbuf_overflow=262_144,
            outbuf_high_watermark=262_144,
            ident=None,
            clear_untrusted_proxy_headers=True,
        )
    except OSError as err:
        raise ConfigError(f"{config.host}:{config.port} cannot be listened on: {err.strerror or err}; choose another port, or 0") from err


def _drain(server: Any) -> None:
    """Close the listening socket, wait for requests in flight and their output, then stop."""
    server.accepting = False
    with contextlib.suppress(OSError):
        server.socket.close()
    deadline = time.monotonic() + DRAIN_S
    while time.monotonic() < deadline and _busy(server):
        time.sleep(_LOOK_S)
    with contextlib.suppress(Exception):
        server.close()
    server.task_dispatcher.shutdown(timeout=1)


def _busy(server: Any) -> bool:
    channels = list(server.active_channels.values())
    return bool(server.task_dispatcher.queue) or any(channel.requests or channel.total_outbufs_len for channel in channels)


@contextlib.contextmanager
def _signals(stop: Callable[[], None]) -> Any:
    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
