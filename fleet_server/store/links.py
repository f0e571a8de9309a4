"""How rollouts hang together: which one ends another at its start, waits for it, mends it, or takes it back after its completion."""

from typing import Literal

import sqlalchemy as sa

from fleet_server.store.tables import ROLLOUT_LINK, ROLLOUT_MEMBER
from fleet_server.store.upsert import insert_or_ignore

LinkKind = Literal["supersedes", "queued-behind", "fixes", "late-rollback"]


def add(connection: sa.Connection, rollout_id: str, kind: LinkKind, others: tuple[str, ...], at: int) -> None:
    """Link a rollout to others; a link that is there already changes nothing."""
    insert_or_ignore(
        connection, ROLLOUT_LINK, [{"rollout_id": rollout_id, "kind": kind, "other_id": other, "linked_at": at} for other in others]
    )


def others(connection: sa.Connection, rollout_id: str, kind: LinkKind) -> list[str]:
    """The rollouts that it is linked to."""
    where = (ROLLOUT_LINK.c.rollout_id == rollout_id, ROLLOUT_LINK.c.kind == kind)
    return list(connection.scalars(sa.select(ROLLOUT_LINK.c.other_id).where(*where).order_by(ROLLOUT_LINK.c.other_id)))


def linked_to(connection: sa.Connection, other_id: str, kind: LinkKind) -> list[str]:
    """The rollouts that are linked to it, oldest link first."""
    where = (ROLLOUT_LINK.c.other_id == other_id, ROLLOUT_LINK.c.kind == kind)
    query = sa.select(ROLLOUT_LINK.c.rollout_id).where(*where).order_by(ROLLOUT_LINK.c.linked_at, ROLLOUT_LINK.c.rollout_id)
    return list(connection.scalars(query))


def want_start(connection: sa.Connection, rollout_id: str, actor: str) -> None:
    """It is to start by itself once those that it waits for are over."""
    where = (ROLLOUT_LINK.c.rollout_id == rollout_id, ROLLOUT_LINK.c.kind == "queued-behind")
    connection.execute(sa.update(ROLLOUT_LINK).where(*where).values(start_by=actor))


def wanted_start(connection: sa.Connection, rollout_id: str) -> str:
    """Who wants it started, "" when nobody does or it waits for nobody."""
    where = (ROLLOUT_LINK.c.rollout_id == rollout_id, ROLLOUT_LINK.c.kind == "queued-behind")
    return connection.scalar(sa.select(sa.func.max(ROLLOUT_LINK.c.start_by)).where(*where)) or ""


def forget_queue(connection: sa.Connection, rollout_id: str) -> None:
    """It waits for nobody any more."""
    where = (ROLLOUT_LINK.c.rollout_id == rollout_id, ROLLOUT_LINK.c.kind == "queued-behind")
    connection.execute(sa.delete(ROLLOUT_LINK).where(*where))


def owners_of_waiting(connection: sa.Connection, rollout_id: str) -> list[str]:
    """The rollouts, by id, that own devices of `rollouts.waiting_members`."""
    mine, other = ROLLOUT_MEMBER.alias("mine"), ROLLOUT_MEMBER.alias("other")
    same = sa.and_(other.c.device_id == mine.c.device_id, other.c.project == mine.c.project, other.c.active == sa.true())
    query = sa.select(other.c.rollout_id).select_from(mine.join(other, same))
    query = query.where(mine.c.rollout_id == rollout_id, mine.c.active == sa.false())
    return list(connection.scalars(query.distinct().order_by(other.c.rollout_id)))
