"""Rollouts as rows: the engine's value, when it is due, who works on it, and whom it owns."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from edgefleet.errors import EdgefleetError
from fleet_server.rollout import Policy, Rollout, policy_digest
from fleet_server.rollout.outline import SITE
from fleet_server.rollout.transitions import FINAL, RolloutState
from fleet_server.selection import Selection, document_of, read_document
from fleet_server.store import comparison_rows, devices, looks
from fleet_server.store.moments import from_micros, to_micros
from fleet_server.store.tables import ROLLOUT, ROLLOUT_LINK, ROLLOUT_MEMBER

LOG = logging.getLogger(__name__)

_BATCH: Final = 500
_NEWEST: Final = (ROLLOUT.c.created_at.desc(), ROLLOUT.c.rollout_id)


@dataclass(frozen=True)
class Stored:
    """A rollout as it was read.

    Attributes:
        rollout: The engine's value.
        version: Rises with each change of that value; actions name the one they saw.
        selection: What it meant when the rollout was planned, without groups.
    """

    rollout: Rollout
    version: int
    selection: Selection
    policy_digest: str


def insert(
    connection: sa.Connection,
    rollout: Rollout,
    selection: Selection,
    at: int,
    *,
    active: bool = True,
) -> None:
    """Keep a rollout and the members that it names; those of a rollout by evidence are kept by `evidence_members`.

    Args:
        connection: The transaction.
        rollout: To keep.
        selection: Without groups.
        at: Microseconds UTC.
        active: False: its devices stay with their owners until it starts.

    Raises:
        sqlalchemy.exc.IntegrityError: A device belongs to another rollout that is not over.
    """
    connection.execute(
        sa.insert(ROLLOUT).values(
            rollout_id=rollout.rollout_id,
            project=rollout.project,
            release_id=rollout.release_id,
            state=rollout.state.value,
            engine=_encode(rollout),
            policy=_policy_text(rollout.policy),
            policy_digest=policy_digest(rollout.policy),
            selection=msgspec.json.encode(document_of(selection)).decode(),
            created_at=at,
            created_by=rollout.created_by,
            version=1,
        )
    )
    named = [device_id for wave in rollout.waves for device_id in wave]
    # A site's budget counts the devices of every rollout.
    sites = devices.label(connection, SITE, named)
    members = [
        {"rollout_id": rollout.rollout_id, "device_id": device_id, "project": rollout.project, "wave": number, "active": active}
        | {"site": sites.get(device_id, "")}
        for number, wave in enumerate(rollout.waves, start=1)
        for device_id in wave
    ]
    if members:
        connection.execute(sa.insert(ROLLOUT_MEMBER), members)


def load(connection: sa.Connection, rollout_id: str, *, lock: bool = False) -> Stored | None:
    """A rollout, None when there is none of that id; locked for whoever changes it whatever somebody else may be doing to it."""
    row = _row(connection, rollout_id, lock=lock)
    return None if row is None else _stored(row)


def load_readable(connection: sa.Connection, rollout_id: str, *, lock: bool = False) -> Stored | None:
    """The same, and None of one whose value cannot be read: that one is stopped when its turn comes, and must not stop the others."""
    row = _row(connection, rollout_id, lock=lock)
    return None if row is None else _readable(row)


def lock(connection: sa.Connection, rollout_id: str) -> bool:
    """Let nobody else change the rollout's row until the transaction ends.

    False when somebody does at this moment: to wait for him could make both wait for ever, and this transaction can only be given up.
    """
    try:
        connection.execute(sa.select(ROLLOUT.c.version).where(ROLLOUT.c.rollout_id == rollout_id).with_for_update(nowait=True))
    except sa.exc.OperationalError:
        return False
    return True


def of_release(connection: sa.Connection, release_id: str) -> int:
    """How many rollouts of a release there were, so that no two of them have the same salt."""
    return connection.scalar(sa.select(sa.func.count()).select_from(ROLLOUT).where(ROLLOUT.c.release_id == release_id)) or 0


def state_of(connection: sa.Connection, rollout_id: str) -> str:
    """The state's word, "" when there is no rollout of that id; also of a rollout whose value cannot be read."""
    return connection.scalar(sa.select(ROLLOUT.c.state).where(ROLLOUT.c.rollout_id == rollout_id)) or ""


def load_newest(connection: sa.Connection, limit: int) -> list[Stored]:
    """The newest rollouts, newest first, without those that cannot be read: `newest_ids` names them too."""
    query = sa.select(ROLLOUT).order_by(*_NEWEST).limit(limit)
    found = [_readable(row) for row in connection.execute(query)]
    return [stored for stored in found if stored is not None]


def newest_ids(connection: sa.Connection, limit: int) -> list[str]:
    """The newest rollouts by id, newest first."""
    return list(connection.scalars(sa.select(ROLLOUT.c.rollout_id).order_by(*_NEWEST).limit(limit)))


def save(connection: sa.Connection, before: Stored, rollout: Rollout, due_at: datetime | None) -> bool:
    """Replace the engine's value if nobody else did since `before` was read, and plan the next look; False when somebody was faster."""
    return _save(connection, before, rollout, None if due_at is None else to_micros(due_at))


def save_and_look(connection: sa.Connection, before: Stored, rollout: Rollout, now: datetime) -> bool:
    """As `save`, of a rollout that deserves a look at once."""
    return _save(connection, before, rollout, looks.at_once(to_micros(now)))


def _save(connection: sa.Connection, before: Stored, rollout: Rollout, due_at: int | None) -> bool:
    changed = rollout != before.rollout
    values = {
        "state": rollout.state.value,
        "engine": _encode(rollout),
        "due_at": due_at,
        "version": before.version + 1 if changed else before.version,
    }
    where = (ROLLOUT.c.rollout_id == rollout.rollout_id, ROLLOUT.c.version == before.version)
    done = connection.execute(sa.update(ROLLOUT).where(*where).values(**values)).rowcount == 1
    if done and rollout.state in FINAL:
        release_members(connection, rollout.rollout_id)
        comparison_rows.end(connection, rollout.rollout_id)
    if done and rollout.state in (*FINAL, RolloutState.ABORTED):
        _wake_queue(connection, rollout.rollout_id)
    return done


def _wake_queue(connection: sa.Connection, rollout_id: str) -> None:
    """What waits for this rollout deserves a look now."""
    behind = sa.select(ROLLOUT_LINK.c.rollout_id).where(ROLLOUT_LINK.c.other_id == rollout_id, ROLLOUT_LINK.c.kind == "queued-behind")
    connection.execute(
        sa.update(ROLLOUT).where(ROLLOUT.c.rollout_id.in_(behind), ROLLOUT.c.due_at.is_(None)).values(due_at=looks.at_once(0))
    )


def release_members(connection: sa.Connection, rollout_id: str) -> None:
    """The rollout owns its devices no longer."""
    connection.execute(sa.update(ROLLOUT_MEMBER).where(ROLLOUT_MEMBER.c.rollout_id == rollout_id).values(active=False))


def owned(connection: sa.Connection, rollout_id: str) -> set[str]:
    """Devices that the rollout still owns."""
    where = (ROLLOUT_MEMBER.c.rollout_id == rollout_id, ROLLOUT_MEMBER.c.active == sa.true())
    return set(connection.scalars(sa.select(ROLLOUT_MEMBER.c.device_id).where(*where)))


def waiting_members(connection: sa.Connection, rollout_id: str) -> list[str]:
    """Devices that a rollout that has not started yet will take at its start; empty when it has them."""
    where = (ROLLOUT_MEMBER.c.rollout_id == rollout_id, ROLLOUT_MEMBER.c.active == sa.false())
    return list(connection.scalars(sa.select(ROLLOUT_MEMBER.c.device_id).where(*where).order_by(ROLLOUT_MEMBER.c.device_id)))


def take_members(connection: sa.Connection, rollout_id: str) -> None:
    """The rollout owns its devices from now on.

    Raises:
        sqlalchemy.exc.IntegrityError: One of them belongs to another rollout that is not over.
    """
    connection.execute(sa.update(ROLLOUT_MEMBER).where(ROLLOUT_MEMBER.c.rollout_id == rollout_id).values(active=True))


def owns_any(connection: sa.Connection, rollout_id: str) -> bool:
    """Whether the rollout still owns a device."""
    where = (ROLLOUT_MEMBER.c.rollout_id == rollout_id, ROLLOUT_MEMBER.c.active == sa.true())
    return connection.execute(sa.select(ROLLOUT_MEMBER.c.device_id).where(*where).limit(1)).first() is not None


def owners(connection: sa.Connection, project: str, device_ids: Sequence[str]) -> dict[str, str]:
    """Device -> the rollout that owns it, for those that are owned."""
    found: dict[str, str] = {}
    for start in range(0, len(device_ids), _BATCH):
        query = sa.select(ROLLOUT_MEMBER.c.device_id, ROLLOUT_MEMBER.c.rollout_id).where(
            ROLLOUT_MEMBER.c.project == project,
            ROLLOUT_MEMBER.c.active == sa.true(),
            ROLLOUT_MEMBER.c.device_id.in_(device_ids[start : start + _BATCH]),
        )
        found |= {row.device_id: row.rollout_id for row in connection.execute(query)}
    return found


def mark_due(connection: sa.Connection, news: Iterable[tuple[str, str]], due_at: int) -> None:
    """News of some (device, project): the rollouts that own them deserve a look, at a moment or `looks.at_once`."""
    by_project: dict[str, list[str]] = {}
    for device_id, project in sorted(news):
        by_project.setdefault(project, []).append(device_id)
    for project, device_ids in by_project.items():
        looks.bring_forward(connection, sorted(set(owners(connection, project, device_ids).values())), due_at)


def _row(connection: sa.Connection, rollout_id: str, *, lock: bool) -> sa.Row[Any] | None:
    query = sa.select(ROLLOUT).where(ROLLOUT.c.rollout_id == rollout_id)
    return connection.execute(query.with_for_update() if lock else query).first()


def _readable(row: sa.Row[Any]) -> Stored | None:
    try:
        return _stored(row)
    except (msgspec.DecodeError, UnicodeDecodeError, EdgefleetError):
        LOG.exception("rollout %s: cannot be read, it is passed over", row.rollout_id)
        return None


def _stored(row: sa.Row[Any]) -> Stored:
    values = row._mapping
    rollout = msgspec.json.decode(values["engine"], type=Rollout)
    return Stored(rollout, values["version"], _selection(values["selection"]), values["policy_digest"])


@lru_cache(maxsize=256)
def _selection(text: str) -> Selection:
    return read_document(msgspec.json.decode(text, type=dict[str, str] | str))


def _encode(rollout: Rollout) -> str:
    return msgspec.json.encode(rollout).decode()


def _policy_text(policy: Policy) -> str:
    return msgspec.json.encode(policy).decode()


def started_at(connection: sa.Connection, now: datetime) -> list[datetime]:
    """When the rollouts of the last year were created that ever began."""
    year_us = 366 * 86_400_000_000
    never = ("draft", "approved", "discarded")
    query = sa.select(ROLLOUT.c.created_at).where(ROLLOUT.c.created_at > to_micros(now) - year_us, ROLLOUT.c.state.not_in(never))
    return [from_micros(at) for at in connection.scalars(query)]
