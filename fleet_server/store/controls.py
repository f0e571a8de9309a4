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
    """Devices that no pair of the rollout has used: first those that get the release last, by place (a salted hash), then those outside.

    Args:
        connection: A snapshot.
        rollout: Whose pairs.
        running: Bundle digest that they run: what the wave's device ran before.
        labels: The stratum, by label; "" is a device without that label.
        limit: Candidates at most.
    """
    reported = sa.and_(REPORTED.c.device_id == DEVICE.c.device_id, REPORTED.c.project == rollout.project)
    where = [DEVICE.c.project == rollout.project, DEVICE.c.removed_at.is_(None), REPORTED.c.bundle_digest == running]
    for key, value in labels.items():
        has = sa.exists().where(DEVICE_LABEL.c.device_id == DEVICE.c.device_id, DEVICE_LABEL.c.key == key, *_valued(value))
        where.append(has if value else ~has)
    member = ROLLOUT_MEMBER.c
    mine = sa.and_(member.rollout_id == rollout.rollout_id, member.device_id == DEVICE.c.device_id)
    found: list[str] = []
    # Of the member's row: asked before the device's other rows are read.
    free = _free(member.device_id, rollout.rollout_id)
    # Wave by wave along an index, and no further than needed: a fleet of 100,000 devices is not read for the sake of two.
    for wave in (0, *range(rollout.wave_count, 0, -1)):
        joined = ROLLOUT_MEMBER.join(DEVICE, mine).join(REPORTED, reported)
        query = (
            sa.select(DEVICE.c.device_id)
            .select_from(joined)
            .where(member.rollout_id == rollout.rollout_id, member.wave == wave, *free, *where)
        )
        found += connection.scalars(query.order_by(member.place, member.device_id).limit(limit - len(found)))
        if len(found) >= limit:
            return found
    outside = (
        sa.select(DEVICE.c.device_id)
        .select_from(DEVICE.join(REPORTED, reported))
        .where(~sa.exists().where(mine), *_free(DEVICE.c.device_id, rollout.rollout_id), *where)
    )
    # Within these the order must not depend on what devices did.
    others = sorted(connection.scalars(outside), key=lambda device_id: _place(rollout.salt, device_id))
    return found + others[: limit - len(found)]


def _free(device_id: sa.ColumnElement[str], rollout_id: str) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
    """Conditions on a device: no pair of the rollout has used it, and no rollout exposes it now."""
    exposing = ROLLOUT_MEMBER.alias()
    exposed = sa.exists().where(exposing.c.device_id == device_id, exposing.c.active == sa.true(), exposing.c.counter.is_not(None))
    used = sa.exists().where(COMPARISON_CONTROL.c.rollout_id == rollout_id, COMPARISON_CONTROL.c.control_id == device_id)
    return ~used, ~exposed


def _valued(value: str) -> tuple[sa.ColumnElement[bool], ...]:
    return (DEVICE_LABEL.c.value == value,) if value else ()


def _place(salt: str, device_id: str) -> bytes:
    return hashlib.sha256(f"{salt}|control|{device_id}".encode()).digest()
