"""Quarantines that a person lifted: they travel in the device's signed document until it has reported under its counter."""

from collections.abc import Sequence

import sqlalchemy as sa

from fleet_server.store.tables import QUARANTINE_LIFT
from fleet_server.store.upsert import insert_or_update

_L = QUARANTINE_LIFT.c


def put(connection: sa.Connection, device_id: str, bundle_digest: str, *, counter: int, at: int, by: str) -> None:
    """A person lifts the quarantine of a bundle; the word belongs to the document of that counter."""
    row = {"device_id": device_id, "bundle_digest": bundle_digest, "counter": counter, "lifted_at": at, "lifted_by": by[:120]}
    insert_or_update(connection, QUARANTINE_LIFT, [row | {"answered": False}])


def waiting(connection: sa.Connection, device_id: str) -> dict[str, int]:
    """Bundle digest -> counter of the words that the device has not answered yet."""
    query = sa.select(_L.bundle_digest, _L.counter).where(_L.device_id == device_id, _L.answered == sa.false())
    return {row.bundle_digest: row.counter for row in connection.execute(query.order_by(_L.counter, _L.bundle_digest))}


def answer(connection: sa.Connection, device_id: str, counter: int) -> None:
    """The device reports under a counter: the words up to it are known there, and its own list counts again."""
    due = (_L.device_id == device_id, _L.answered == sa.false(), _L.counter <= counter)
    connection.execute(sa.update(QUARANTINE_LIFT).where(*due).values(answered=True))


def by_device(connection: sa.Connection, device_ids: Sequence[str] | None = None) -> dict[str, set[str]]:
    """Device -> bundles that are on its list only because it has not heard yet; of all devices when none are named."""
    query = sa.select(_L.device_id, _L.bundle_digest).where(_L.answered == sa.false())
    found: dict[str, set[str]] = {}
    for row in connection.execute(query if device_ids is None else query.where(_L.device_id.in_(device_ids))):
        found.setdefault(row.device_id, set()).add(row.bundle_digest)
    return found


def unanswered(device_id: sa.ColumnElement[str], bundle_digest: str) -> sa.ColumnElement[bool]:
    """A condition on a device: it was told that it may try this bundle again, and has not answered."""
    return sa.exists().where(_L.device_id == device_id, _L.bundle_digest == bundle_digest, _L.answered == sa.false())
