"""Devices that people act on: one that is there, held until the transaction ends, and the reason that stands in the log."""

from typing import Final

import sqlalchemy as sa

from edgefleet.errors import InputError
from edgefleet.identifiers import check_id
from fleet_server.errors import ConflictError
from fleet_server.queries.errors import NotFoundError
from fleet_server.store import devices
from fleet_server.store.moments import from_micros

MAX_REASON: Final = 500


def hold(connection: sa.Connection, device_id: str) -> str:
    """The project of a device of the fleet; nobody else changes the device until the transaction ends.

    Raises:
        InputError: No identifier.
        NotFoundError: There never was such a device.
        ConflictError: It was taken out of the fleet.
    """
    row = devices.lock(connection, check_id(device_id, "device id"))
    if row is None:
        raise NotFoundError("device", device_id)
    if row.removed_at is not None:
        at = f"{from_micros(row.removed_at):%Y-%m-%d %H:%M} UTC"
        raise ConflictError(
            f"device {device_id!r} was removed from the fleet at {at}; nothing was changed. Its log is kept; enrol it anew."
        )
    return str(row.project)


def reason_of(text: str) -> str:
    """A person's words without the space around them.

    Raises:
        InputError: None, or too many.
    """
    words = text.strip()
    if not 0 < len(words) <= MAX_REASON:
        raise InputError(f"the reason has {len(words)} characters, expected 1 to {MAX_REASON}: it is kept in the log. Nothing was changed.")
    return words
