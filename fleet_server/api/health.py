"""Whether the server works: its database answers. Says nothing about the fleet, so it needs no token."""

from flask import Blueprint, Response

from edgefleet import __version__
from fleet_server.api.wire import reply
from fleet_server.auth import requires, services_of_request
from fleet_server.queries import newest_change

API = Blueprint("api-health", __name__)


@API.get("/healthz")
@requires()
def healthz() -> Response:
    """200 while the database can be read."""
    services = services_of_request()
    newest_change(services.db)
    return reply({"ok": True, "fleet": services.config.fleet, "version": __version__})
