"""Devices that people act on: one that is there, held until the transaction ends."""

import sqlalchemy as sa

from edgefleet.identifiers import check_id
from fleet_server.errors import ConflictError
from fleet_server.queries.errors import NotFoundError
from fleet_server.store import devices
from fleet_server.store.moments import from_micros


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
