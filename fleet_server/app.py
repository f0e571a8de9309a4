"""The web application: everything is built here, nothing at import. Background threads belong to `serve.py`."""

import logging
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Final

from flask import Flask, Response, request

from edgefleet.signing import SigningKey
from fleet_server import api, auth
from fleet_server.config import MAX_VIEWERS, ServerConfig
from fleet_server.releases.blobs import BlobStore
from fleet_server.services import Services, utc_now
from fleet_server.store import Database

MAX_JSON_BYTES: Final = 4 * 1024 * 1024
DIRECTOR_KEY: Final = "director.key"
PAGE_FEED: Final = "edgefleet-feed"

LOG = logging.getLogger(__name__)


def create_app(config: ServerConfig, clock: Callable[[], datetime] = utc_now) -> Flask:
    """Build the application over the data folder of `config`.

    `app.extensions["edgefleet"]` holds the `Services`; `app.extensions["edgefleet-feed"]` the page's live feed, to be closed at the end.

    Raises:
        StorageError: The data folder cannot be used.
        ArtifactError: The director key is damaged.
    """
    services = open_services(config, clock)
    auth.ensure_admin_token(services)
    # The page's own files are served by the page.
    app = Flask("fleet_server", static_folder=None, root_path=str(Path(__file__).parent))
    app.config["MAX_CONTENT_LENGTH"] = MAX_JSON_BYTES
    app.extensions["edgefleet"] = services
    app.before_request(_check_origin)
    app.after_request(_headers)
    api.register(app)
    _add_page(app, services)
    return app


def open_services(config: ServerConfig, clock: Callable[[], datetime] = utc_now) -> Services:
    """Database (created or upgraded), keys and blobs of a data folder."""
    database = Database.open(config.data_dir)
    director = SigningKey.load_or_create(config.data_dir / DIRECTOR_KEY)
    return Services(database, config, director, BlobStore(config.data_dir / "blobs", config.max_blob_bytes), clock=clock)


def _add_page(app: Flask, services: Services) -> None:
    from fleet_server.page import create_page
    from fleet_server.page.database import DatabaseSource

    app.extensions[PAGE_FEED] = create_page(app, DatabaseSource(services), max_viewers=MAX_VIEWERS, clock=services.clock)


def _check_origin() -> None:
    auth.check_origin(request)


def _headers(response: Response) -> Response:
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault("Referrer-Policy", "same-origin")
    return response
