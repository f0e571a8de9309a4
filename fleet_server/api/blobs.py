"""Files of bundles by sha256: upload once, download in pieces."""

from flask import Blueprint, Response, request, send_file

from fleet_server.api.wire import declared_length, reply
from fleet_server.auth import requires, services_of_request

API = Blueprint("api-blobs", __name__)


@API.put("/blobs/<sha256>")
@requires("operator")
def put_blob(sha256: str) -> Response:
    """Store the body if its sha256 is the address; 201 new, 200 there already."""
    blobs = services_of_request().blobs
    request.max_content_length = blobs.max_bytes
    length = declared_length()  # before the stream is touched: werkzeug would refuse it with less to say
    new = blobs.put(sha256, request.stream, length)
    return reply({"sha256": sha256, "stored": new}, 201 if new else 200)


@API.get("/blobs/<sha256>")
@requires("viewer", "device")
def get_blob(sha256: str) -> Response:
    """The content; Range and If-Range are honoured, so that a device goes on where it stopped."""
    path = services_of_request().blobs.existing(sha256)
    response = send_file(path, mimetype="application/octet-stream", etag=sha256, conditional=True, max_age=31_536_000)
    response.headers["Cache-Control"] = "private, max-age=31536000, immutable"
    return response
