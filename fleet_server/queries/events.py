"""The log of actions, for people and programs."""

import sqlalchemy as sa

from fleet_server.audit import without_facts
from fleet_server.read_models import EventView
from fleet_server.store import Database
from fleet_server.store.moments import from_micros
from fleet_server.store.tables import DEVICE_EVENT, EVENT


def events(db: Database, *, after: int = 0, limit: int = 200) -> list[tuple[int, EventView]]:
    """(number, entry) after a number, oldest first."""
    with db.read() as connection:
        rows = connection.execute(sa.select(EVENT).where(EVENT.c.seq > after).order_by(EVENT.c.seq).limit(limit))
        return [(row.seq, _view(row.at, row.actor, row.action, _about(row.subject_kind, row.subject, row.detail))) for row in rows]


def recent_events(db: Database, limit: int = 200) -> list[EventView]:
    """The newest entries, newest first."""
    with db.read() as connection:
        rows = connection.execute(sa.select(EVENT).order_by(EVENT.c.seq.desc()).limit(limit))
        return [_view(row.at, row.actor, row.action, _about(row.subject_kind, row.subject, row.detail)) for row in rows]


def of_subject(connection: sa.Connection, kind: str, subject: str, limit: int) -> list[EventView]:
    """The newest entries about one thing, newest first."""
    where = (EVENT.c.subject_kind == kind, EVENT.c.subject == subject)
    rows = connection.execute(sa.select(EVENT).where(*where).order_by(EVENT.c.seq.desc()).limit(limit))
    return [_view(row.at, row.actor, row.action, row.detail) for row in rows]


def of_device(connection: sa.Connection, device_id: str, limit: int) -> list[EventView]:
    """What a device told and what was done about it, newest first."""
    told = connection.execute(
        sa.select(DEVICE_EVENT)
        .where(DEVICE_EVENT.c.device_id == device_id)
        .order_by(DEVICE_EVENT.c.at.desc(), DEVICE_EVENT.c.seq.desc())
        .limit(limit)
    )
    # As told: a device has no word about what the engine decided on.
    lines = [EventView(at=from_micros(row.at), actor=device_id, action=row.name, detail=row.detail) for row in told]
    return sorted([*lines, *of_subject(connection, "device", device_id, limit)], key=lambda line: line.at, reverse=True)[:limit]


def _about(kind: str, subject: str, detail: str) -> str:
    return f"{kind} {subject}: {detail}" if detail else f"{kind} {subject}"


def _view(at: int, actor: str, action: str, detail: str) -> EventView:
    sentence, facts = without_facts(detail)
    return EventView(at=from_micros(at), actor=actor, action=action, detail=sentence, facts=facts)
