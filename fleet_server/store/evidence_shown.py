"""Devices of a rollout by evidence one by one, for people: all of a small rollout, of a large one those that need a look."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from fleet_server.store.moments import from_micros
from fleet_server.store.tables import DEVICE_SEEN, ROLLOUT_GROUP, ROLLOUT_MEMBER


@dataclass(frozen=True)
class Shown:
    """One device.

    Attributes:
        asked: Whether it was given the release.
        proven: Committed, attested, soaked.
        silent: Its deadline is over, and it has not been heard since its soak.
        seen_at: Its last sign of life, microseconds UTC.
        removed: It was taken out of the fleet.
    """

    device_id: str
    wave: int
    site: str
    asked: bool
    began_at: datetime | None
    committed_at: datetime | None
    attested_at: datetime | None
    failed_at: datetime | None
    failure: str
    proven: bool
    silent: bool
    seen_at: int | None
    removed: bool = False


def shown(connection: sa.Connection, rollout_id: str, *, need_a_look: bool, limit: int) -> list[Shown]:
    """Devices of the waves in the order of the rollout, at most `limit`.

    Args:
        connection: One snapshot.
        rollout_id: Of a rollout by evidence.
        need_a_look: Only failed and silent ones, failed ones first.
        limit: At most so many.
    """
    member = ROLLOUT_MEMBER.c
    silent = _is_silent().label("silent")
    columns = (
        "device_id",
        "wave",
        "site",
        "counter",
        "began_at",
        "committed_at",
        "attested_at",
        "failed_at",
        "failure",
        "proven_at",
        "removed_at",
    )
    joined = _with_groups().outerjoin(DEVICE_SEEN, DEVICE_SEEN.c.device_id == member.device_id)
    query = sa.select(*(member[name] for name in columns), silent, DEVICE_SEEN.c.seen_at).select_from(joined)
    query = query.where(member.rollout_id == rollout_id, member.wave > 0)
    order: list[Any] = [member.wave, member.place, member.device_id]
    if need_a_look:
        query = query.where(sa.or_(member.failed_at.is_not(None), _is_silent()))
        order = [member.failed_at.is_(None), *order]
    return [
        Shown(
            device_id=row.device_id,
            wave=row.wave,
            site=row.site,
            asked=row.counter is not None,
            began_at=_moment(row.began_at),
            committed_at=_moment(row.committed_at),
            attested_at=_moment(row.attested_at),
            failed_at=_moment(row.failed_at),
            failure=row.failure,
            proven=row.proven_at is not None,
            silent=bool(row.silent),
            seen_at=row.seen_at,
            removed=row.removed_at is not None,
        )
        for row in connection.execute(query.order_by(*order).limit(limit))
    ]


def silent_by_wave(connection: sa.Connection, rollout_id: str) -> dict[int, int]:
    """Wave -> devices that have not been heard since their soak though their deadline is over."""
    member = ROLLOUT_MEMBER.c
    query = sa.select(member.wave, sa.func.count()).select_from(_with_groups()).where(member.rollout_id == rollout_id, _is_silent())
    return {wave: int(count) for wave, count in connection.execute(query.group_by(member.wave))}


def _with_groups() -> sa.Join:
    member, group = ROLLOUT_MEMBER.c, ROLLOUT_GROUP.c
    same = sa.and_(group.rollout_id == member.rollout_id, group.site == member.site, group.cell == member.cell)
    return ROLLOUT_MEMBER.outerjoin(ROLLOUT_GROUP, same)


def _is_silent() -> sa.ColumnElement[bool]:
    member = ROLLOUT_MEMBER.c
    return sa.and_(
        member.cell.is_not(None),
        member.heard_at.is_(None),
        member.failed_at.is_(None),
        member.left_at.is_(None),
        member.removed_at.is_(None),
        ROLLOUT_GROUP.c.due == sa.true(),
    )


def _moment(micros: int | None) -> datetime | None:
    return None if micros is None else from_micros(micros)
