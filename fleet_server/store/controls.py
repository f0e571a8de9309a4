"""Devices that can stand beside a device of a wave: the same project, stratum and bundle, and exposed to nothing now."""

import hashlib
from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa

from fleet_server.rollout import Rollout
from fleet_server.store.tables import COMPARISON_CONTROL, DEVICE, DEVICE_LABEL, REPORTED, ROLLOUT_MEMBER

DEFAULT_STRATA: Final = ("hardware", "region")


def stratum(connection: sa.Connection, device_id: str, keys: Sequence[str]) -> tuple[str, ...]:
    """The device's values of the labels that make a stratum, "" for a label it does not have."""
    where = (DEVICE_LABEL.c.device_id == device_id, DEVICE_LABEL.c.key.in_(keys))
    has = {row.key: row.value for row in connection.execute(sa.select(DEVICE_LABEL.c.key, DEVICE_LABEL.c.value).where(*where))}
    return tuple(has.get(key, "") for key in keys)


def unused(connection: sa.Connection, rollout: Rollout, running: str, labels: dict[str, str], limit: int) -> list[str]:
    """Devices that no pair of the rollout has used: first those that get the release last, then by a salted hash.

    Args:
        connection: A snapshot.
        rollout: Whose pairs.
        running: Bundle digest that they run: what the wave's device ran before.
        labels: The stratum, by label; "" is a device without that label.
        limit: Candidates at most.
    """
    rollout_id, project, salt = rollout.rollout_id, rollout.project, rollout.salt
    exposing = ROLLOUT_MEMBER.alias()
    mine = ROLLOUT_MEMBER.alias()
    exposed = sa.exists().where(exposing.c.device_id == DEVICE.c.device_id, exposing.c.active == sa.true(), exposing.c.counter.is_not(None))
    used = sa.exists().where(COMPARISON_CONTROL.c.rollout_id == rollout_id, COMPARISON_CONTROL.c.control_id == DEVICE.c.device_id)
    reported = sa.and_(REPORTED.c.device_id == DEVICE.c.device_id, REPORTED.c.project == project)
    joined = DEVICE.join(REPORTED, reported).outerjoin(
        mine, sa.and_(mine.c.rollout_id == rollout_id, mine.c.device_id == DEVICE.c.device_id)
    )
    query = (
        sa.select(DEVICE.c.device_id, sa.func.coalesce(mine.c.wave, 0).label("wave"))
        .select_from(joined)
        .where(DEVICE.c.project == project, REPORTED.c.bundle_digest == running, ~exposed, ~used)
    )
    for key, value in labels.items():
        has = sa.exists().where(DEVICE_LABEL.c.device_id == DEVICE.c.device_id, DEVICE_LABEL.c.key == key, *_valued(value))
        query = query.where(has if value else ~has)
    found = connection.execute(query).all()
    # Whoever is not in the rollout, or held back, first; then the last wave. Within a wave the order must not depend on what devices did.
    ordered = sorted(found, key=lambda row: (row.wave != 0, -row.wave, _place(salt, row.device_id)))
    return [row.device_id for row in ordered[:limit]]


def _valued(value: str) -> tuple[sa.ColumnElement[bool], ...]:
    return (DEVICE_LABEL.c.value == value,) if value else ()


def _place(salt: str, device_id: str) -> bytes:
    return hashlib.sha256(f"{salt}|control|{device_id}".encode()).digest()
