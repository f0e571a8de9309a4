"""Which projects there are."""

import sqlalchemy as sa

from fleet_server.store import Database
from fleet_server.store.tables import DEVICE, RELEASE


def projects(db: Database) -> list[str]:
    """Names of all projects that have a device or a release."""
    with db.read() as connection:
        return list(connection.scalars(sa.union(sa.select(DEVICE.c.project), sa.select(RELEASE.c.project)).order_by("project")))
