"""Members of a rollout by evidence: kept with their wave and place, begun in that order, added and dropped one by one.

The sums by wave and stratum follow in the same transaction.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from fleet_server.rollout.course import Course
from fleet_server.rollout.groups import Timing
from fleet_server.rollout.membership import Candidate, Membership, place_of
from fleet_server.rollout.model import Rollout
from fleet_server.store.tables import DEVICE_SEEN, ROLLOUT, ROLLOUT_MEMBER, ROLLOUT_MEMBERSHIP, ROLLOUT_SUM
from fleet_server.store.upsert import insert_or_ignore

_M: Final = ROLLOUT_MEMBER.c
_IN_ORDER: Final = (_M.wave, _M.place, _M.device_id)


@dataclass(frozen=True)
class Selected:
    """A device of the selection with what its labels say."""

    candidate: Candidate
    region: str


@dataclass(frozen=True)
class Unasked:
    """A member of an open wave that was not given the release yet."""

    device_id: str
    site: str


def insert(
    connection: sa.Connection, rollout: Rollout, membership: Membership, selected: Iterable[Selected], *, active: bool = True
) -> None:
    """Keep the thresholds and all members of a rollout that was just inserted; not `active`: its devices stay with their owners.

    Raises:
        sqlalchemy.exc.IntegrityError: A device belongs to another rollout that is not over, or the salt was used before.
    """
    values = {"rollout_id": rollout.rollout_id, "salt": membership.salt, "document": msgspec.json.encode(membership).decode()}
    connection.execute(sa.insert(ROLLOUT_MEMBERSHIP).values(**values))
    timing = Timing.of(rollout.policy)
    clock = {"cell_us": int(1e6 * timing.cell_s), "soak_us": int(1e6 * timing.soak_s), "soak_rows": rollout.policy.soak_rows}
    connection.execute(sa.update(ROLLOUT).where(ROLLOUT.c.rollout_id == rollout.rollout_id).values(**clock, dwell_us=0))
    rows = [_row(rollout, membership, one) | {"active": active} for one in selected]
    connection.execute(sa.insert(ROLLOUT_MEMBER), rows)
    counts = Counter((row["wave"], row["stratum"]) for row in rows)
    sums = [{"rollout_id": rollout.rollout_id, "wave": wave, "stratum": name, "members": n} for (wave, name), n in sorted(counts.items())]
    connection.execute(sa.insert(ROLLOUT_SUM), sums)


def membership_of(connection: sa.Connection, rollout_id: str) -> Membership | None:
    """The thresholds of a rollout by evidence, None of others."""
    document: str | None = connection.scalar(sa.select(ROLLOUT_MEMBERSHIP.c.document).where(ROLLOUT_MEMBERSHIP.c.rollout_id == rollout_id))
    return None if document is None else msgspec.json.decode(document, type=Membership)


def unasked(connection: sa.Connection, rollout: Rollout, limit: int) -> list[Unasked]:
    """The next members of the open waves, in the order of the rollout."""
    waiting = (_M.rollout_id == rollout.rollout_id, _M.wave.between(1, rollout.wave), _M.counter.is_(None), _M.active == sa.true())
    query = sa.select(_M.device_id, _M.site).where(*waiting).order_by(*_IN_ORDER).limit(limit)
    return [Unasked(row.device_id, row.site) for row in connection.execute(query)]


def join(connection: sa.Connection, rollout: Rollout, membership: Membership, one: Selected, *, active: bool = True) -> int:
    """A device comes into the selection: its wave by the same thresholds as everybody's; not `active`: it stays with its owner."""
    row = _row(rollout, membership, one) | {"active": active}
    connection.execute(sa.insert(ROLLOUT_MEMBER).values(**row))
    key = {"rollout_id": rollout.rollout_id, "wave": row["wave"], "stratum": row["stratum"]}
    insert_or_ignore(connection, ROLLOUT_SUM, [key])
    where = [ROLLOUT_SUM.c[name] == value for name, value in key.items()]
    connection.execute(sa.update(ROLLOUT_SUM).where(*where).values(members=ROLLOUT_SUM.c.members + 1))
    return int(row["wave"])


def drop(connection: sa.Connection, rollout_id: str, device_id: str) -> None:
    """A device leaves the selection before it was asked: it was never part of the evidence."""
    where = (_M.rollout_id == rollout_id, _M.device_id == device_id)
    row = connection.execute(sa.select(_M.wave, _M.stratum).where(*where)).one()
    connection.execute(sa.delete(ROLLOUT_MEMBER).where(*where))
    key = (ROLLOUT_SUM.c.rollout_id == rollout_id, ROLLOUT_SUM.c.wave == row.wave, ROLLOUT_SUM.c.stratum == row.stratum)
    connection.execute(sa.update(ROLLOUT_SUM).where(*key).values(members=ROLLOUT_SUM.c.members - 1))


def close_ranks(connection: sa.Connection, rollout_id: str, wave: int, waves: int) -> None:
    """A place in a wave became free: the next devices in the order move up, one from each later wave, so that only the last one shrinks.

    Args:
        connection: The transaction in which the place became free.
        rollout_id: Which.
        wave: Of the free place; the open one, where that is later.
        waves: Number of waves.
    """
    for number in range(max(wave, 1), waves):
        later = (_M.rollout_id == rollout_id, _M.wave > number, _M.counter.is_(None), _M.removed_at.is_(None))
        row = connection.execute(sa.select(_M.device_id, _M.wave, _M.stratum).where(*later).order_by(*_IN_ORDER).limit(1)).first()
        if row is None:
            return
        connection.execute(sa.update(ROLLOUT_MEMBER).where(*later[:1], _M.device_id == row.device_id).values(wave=number))
        insert_or_ignore(connection, ROLLOUT_SUM, [{"rollout_id": rollout_id, "wave": number, "stratum": row.stratum}])
        for of_wave, more in ((row.wave, -1), (number, 1)):
            key = (ROLLOUT_SUM.c.rollout_id == rollout_id, ROLLOUT_SUM.c.wave == of_wave, ROLLOUT_SUM.c.stratum == row.stratum)
            connection.execute(sa.update(ROLLOUT_SUM).where(*key).values(members=ROLLOUT_SUM.c.members + more))


def sizes(connection: sa.Connection, rollout_id: str, course: Course) -> Course:
    """The course with the sizes that its waves have now; a wave that lost all its devices keeps a place, so that sizes go on rising."""
    query = sa.select(ROLLOUT_SUM.c.wave, sa.func.sum(ROLLOUT_SUM.c.members)).where(ROLLOUT_SUM.c.rollout_id == rollout_id)
    members = {wave: int(count) for wave, count in connection.execute(query.group_by(ROLLOUT_SUM.c.wave))}
    found: list[int] = []
    for wave in range(1, len(course.sizes) + 1):
        before = found[-1] if found else 0
        found.append(before + max(members.get(wave, 0), 1))
    return msgspec.structs.replace(course, sizes=tuple(found))


def reopen(connection: sa.Connection, rollout_id: str, dwell_s: float) -> None:
    """Another wave opened, with a dwell of its own: when the devices that began have dwelled, and who was heard after that."""
    dwell_us = int(1e6 * dwell_s)
    connection.execute(sa.update(ROLLOUT).where(ROLLOUT.c.rollout_id == rollout_id).values(dwell_us=dwell_us))
    cell_us = sa.select(ROLLOUT.c.cell_us).where(ROLLOUT.c.rollout_id == rollout_id).scalar_subquery()
    begun = (_M.rollout_id == rollout_id, _M.cell.is_not(None))
    moved = {"dwelled_at": (_M.cell + 1) * cell_us + dwell_us, "heard_dwell": sa.false()}
    connection.execute(sa.update(ROLLOUT_MEMBER).where(*begun).values(**moved))
    heard = sa.exists().where(DEVICE_SEEN.c.device_id == _M.device_id, DEVICE_SEEN.c.seen_at >= _M.dwelled_at)
    connection.execute(sa.update(ROLLOUT_MEMBER).where(*begun, heard).values(heard_dwell=sa.true()))
    rebuild_sums(connection, rollout_id)


def grow(connection: sa.Connection, rollout_id: str, wave: int, before: Course, size: int) -> None:
    """The open wave takes the next devices in the order; waves that would add nobody are left out, those behind move up.

    Args:
        connection: The transaction that applies the growth.
        rollout_id: Which.
        wave: The open one.
        before: The course until now.
        size: Devices that the wave reaches from now on.
    """
    mine = (_M.rollout_id == rollout_id, _M.wave > 0)
    last = connection.execute(sa.select(_M.wave, _M.place).where(*mine).order_by(*_IN_ORDER).limit(1).offset(size - 1)).first()
    if last is not None:
        taken = sa.or_(_M.wave < last.wave, sa.and_(_M.wave == last.wave, _M.place <= last.place))
        connection.execute(sa.update(ROLLOUT_MEMBER).where(*mine, _M.wave > wave, taken).values(wave=wave))
    stay = [number for number in range(wave + 1, len(before.sizes) + 1) if before.sizes[number - 1] > size]
    for number, old in enumerate(stay, start=wave + 1):
        if number != old:
            connection.execute(sa.update(ROLLOUT_MEMBER).where(*mine, _M.wave == old).values(wave=number))
    membership = membership_of(connection, rollout_id)
    if membership is not None:
        absorbed = min(stay, default=len(before.sizes) + 1) - 1
        kept = (*membership.waves[: wave - 1], membership.waves[absorbed - 1], *(membership.waves[old - 1] for old in stay))
        changed = msgspec.structs.replace(membership, waves=kept)
        _keep(connection, rollout_id, changed)
    rebuild_sums(connection, rollout_id)


def rebuild_sums(connection: sa.Connection, rollout_id: str) -> None:
    """Sums by wave and stratum from the members, where many of them moved at once."""
    connection.execute(sa.delete(ROLLOUT_SUM).where(ROLLOUT_SUM.c.rollout_id == rollout_id))
    counts = {
        "members": sa.func.count(),
        "assigned": sa.func.count(_M.counter),
        "begun": sa.func.count(_M.cell),
        "failed": sa.func.count(_M.failed_at),
        "proven": sa.func.count(_M.proven_at),
        "heard_dwell": sa.func.sum(sa.case((_M.heard_dwell, 1), else_=0)),
    }
    columns = [_M.rollout_id, _M.wave, _M.stratum, *(value.label(name) for name, value in counts.items())]
    query = sa.select(*columns).where(_M.rollout_id == rollout_id).group_by(_M.rollout_id, _M.wave, _M.stratum)
    connection.execute(sa.insert(ROLLOUT_SUM).from_select(["rollout_id", "wave", "stratum", *counts], query))


def in_activation(connection: sa.Connection, sites: Sequence[str]) -> Mapping[str, int]:
    """Site -> devices that some rollout asks and that have neither committed nor failed."""
    busy = (_M.active == sa.true(), _M.counter.is_not(None), _M.parked_at.is_(None), _M.committed_at.is_(None), _M.failed_at.is_(None))
    query = sa.select(_M.site, sa.func.count()).where(*busy, _M.site.in_(sites)).group_by(_M.site)
    return {site: int(count) for site, count in connection.execute(query)}


def asked_since(connection: sa.Connection, rollout_id: str, at: int) -> int:
    """Devices that were given the release after a moment, microseconds UTC: the few of the last batches, whatever the fleet."""
    asked = (_M.rollout_id == rollout_id, _M.counter.is_not(None), _M.assigned_at > at)
    return int(connection.scalar(sa.select(sa.func.count()).select_from(ROLLOUT_MEMBER).where(*asked)) or 0)


def busy_elsewhere(connection: sa.Connection, rollout_id: str, device_ids: Sequence[str], at: int) -> set[str]:
    """Devices that another rollout has asked and that have no outcome there, or are in its dwell: one change at a time.

    Args:
        connection: The transaction.
        rollout_id: The rollout that asks.
        device_ids: Whom it would ask.
        at: Microseconds UTC.
    """
    trying = sa.and_(_M.committed_at.is_(None), _M.failed_at.is_(None))
    busy = (_M.active == sa.true(), _M.counter.is_not(None), sa.or_(trying, _M.dwelled_at > at))
    return set(connection.scalars(sa.select(_M.device_id).where(*busy, _M.rollout_id != rollout_id, _M.device_id.in_(device_ids))))


def note_waits(connection: sa.Connection, rollout_id: str, waits: Mapping[str, int]) -> None:
    """Why devices of the open waves were not asked at the last look."""
    text = msgspec.json.encode(dict(sorted(waits.items()))).decode()
    connection.execute(sa.update(ROLLOUT).where(ROLLOUT.c.rollout_id == rollout_id, ROLLOUT.c.waits != text).values(waits=text))


def waits(connection: sa.Connection, rollout_id: str) -> dict[str, int]:
    """What `note_waits` kept."""
    text = connection.scalar(sa.select(ROLLOUT.c.waits).where(ROLLOUT.c.rollout_id == rollout_id))
    return msgspec.json.decode(text or "{}", type=dict[str, int])


def _keep(connection: sa.Connection, rollout_id: str, membership: Membership) -> None:
    where = ROLLOUT_MEMBERSHIP.c.rollout_id == rollout_id
    connection.execute(sa.update(ROLLOUT_MEMBERSHIP).where(where).values(document=msgspec.json.encode(membership).decode()))


def _row(rollout: Rollout, membership: Membership, one: Selected) -> dict[str, Any]:
    device = one.candidate
    return {
        "rollout_id": rollout.rollout_id,
        "device_id": device.device_id,
        "project": rollout.project,
        "wave": membership.wave_of(device.device_id, device.stratum, device.site),
        "active": True,
        "place": place_of(membership.salt, device.device_id),
        "stratum": device.stratum,
        "site": device.site,
        "region": one.region,
    }
