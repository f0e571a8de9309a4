"""Sums of a rollout by evidence, kept up in the transaction of the report that changes them.

Each event of a device counts once, because the member's row changes once. Of rollouts that name their devices nothing is summed here.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa

from fleet_server.store import evidence_sites
from fleet_server.store.tables import ROLLOUT, ROLLOUT_CELL, ROLLOUT_GROUP, ROLLOUT_MEMBER, ROLLOUT_REGION, ROLLOUT_SITE, ROLLOUT_SUM
from fleet_server.store.upsert import insert_new, insert_or_ignore

_BATCH: Final = 500
_MEMBER: Final = ROLLOUT_MEMBER.c


def assigned(connection: sa.Connection, rollout_id: str, device_id: str) -> None:
    """A device was given the release for the first time."""
    row = _read(connection, rollout_id, device_id)
    if row.cell_us is not None:
        _bump(connection, row, assigned=1)


def began(connection: sa.Connection, rollout_id: str, device_id: str, at: int) -> None:
    """A device said for the first time that it works on the release: it is exposed."""
    row = _read(connection, rollout_id, device_id)
    if row.cell_us is None:
        return
    cell = at // row.cell_us
    ends = (cell + 1) * row.cell_us
    values = {"cell": cell, "counts_from": ends + row.soak_us, "dwelled_at": ends + (row.dwell_us or 0)}
    connection.execute(sa.update(ROLLOUT_MEMBER).where(*_key(rollout_id, device_id)).values(**values))
    _bump(connection, row, begun=1)
    insert_or_ignore(connection, ROLLOUT_CELL, [{"rollout_id": rollout_id, "cell": cell}])
    _add(connection, ROLLOUT_CELL, (rollout_id, cell), begun=1)
    first = bool(insert_new(connection, ROLLOUT_SITE, [{"rollout_id": rollout_id, "site": row.site, "region": row.region}], ("site",)))
    _add(connection, ROLLOUT_SITE, (rollout_id, row.site), exposed=1)
    insert_or_ignore(connection, ROLLOUT_REGION, [{"rollout_id": rollout_id, "region": row.region}])
    _add(connection, ROLLOUT_REGION, (rollout_id, row.region), exposed=1, sites=int(first))
    group = {"rollout_id": rollout_id, "site": row.site, "cell": cell, "region": row.region, "first": first, "look_at": at}
    insert_or_ignore(connection, ROLLOUT_GROUP, [group])
    # Who has left since he was asked can stop the rollout like anybody, and nobody waits for him.
    gone = int(row.left_at is not None)
    _add(connection, ROLLOUT_GROUP, (rollout_id, row.site, cell), exposed=1, gone=gone, unheard=1, unsettled=1 - gone)
    evidence_sites.refresh_if_due(connection, rollout_id, row.site, cell)


def failed(connection: sa.Connection, rollout_id: str, device_id: str) -> None:
    """An explicit failure of a device that began; whatever it said before, it is proven no longer."""
    row = _read(connection, rollout_id, device_id)
    if row.cell_us is None:
        return
    _bump(connection, row, failed=1, proven=-1 if row.proven_at is not None else 0)
    _add(connection, ROLLOUT_CELL, (rollout_id, row.cell), failed=1)
    connection.execute(sa.update(ROLLOUT_MEMBER).where(*_key(rollout_id, device_id)).values(proven_at=None, settled=True))
    if not row.settled:
        _settled(connection, rollout_id, Counter({(row.site, row.cell): 1}))


def heard(connection: sa.Connection, device_ids: Sequence[str], at: int) -> None:
    """Signs of life of some devices: who is past its soak is silent no more, who is past its dwell was heard after it."""
    for start in range(0, len(device_ids), _BATCH):
        piece = device_ids[start : start + _BATCH]
        mine = (_MEMBER.device_id.in_(piece), _MEMBER.active == sa.true())
        soaked = sa.update(ROLLOUT_MEMBER).where(*mine, _MEMBER.heard_at.is_(None), _MEMBER.counts_from < at).values(heard_at=at)
        found = connection.execute(soaked.returning(_MEMBER.rollout_id, _MEMBER.device_id, _MEMBER.site, _MEMBER.cell)).all()
        for (rollout_id, site, cell), count in sorted(Counter((row.rollout_id, row.site, row.cell) for row in found).items()):
            _add(connection, ROLLOUT_GROUP, (rollout_id, site, cell), unheard=-count)
        for rollout_id in sorted({row.rollout_id for row in found}):
            prove(connection, rollout_id, [row.device_id for row in found if row.rollout_id == rollout_id], at)
        dwelled = sa.update(ROLLOUT_MEMBER).where(*mine, _MEMBER.heard_dwell == sa.false(), _MEMBER.dwelled_at <= at)
        after = connection.execute(dwelled.values(heard_dwell=True).returning(_MEMBER.rollout_id, _MEMBER.wave, _MEMBER.stratum)).all()
        for key, count in sorted(Counter(tuple(row) for row in after).items()):
            _add(connection, ROLLOUT_SUM, key, heard_dwell=count)


def prove(connection: sa.Connection, rollout_id: str, device_ids: Sequence[str], at: int) -> None:
    """Devices that have shown everything a promotion asks for: heard after the soak, committed, attested, enough rows; safe to repeat."""
    enough = sa.select(ROLLOUT.c.soak_rows).where(ROLLOUT.c.rollout_id == rollout_id).scalar_subquery()
    shown = [_MEMBER[name].is_not(None) for name in ("heard_at", "committed_at", "attested_at")]
    where = (_MEMBER.rollout_id == rollout_id, _MEMBER.device_id.in_(device_ids), _MEMBER.settled == sa.false(), _MEMBER.rows >= enough)
    statement = sa.update(ROLLOUT_MEMBER).where(*where, *shown).values(proven_at=at, settled=True)
    found = connection.execute(statement.returning(_MEMBER.wave, _MEMBER.stratum, _MEMBER.site, _MEMBER.cell)).all()
    for (wave, stratum), count in sorted(Counter((row.wave, row.stratum) for row in found).items()):
        _add(connection, ROLLOUT_SUM, (rollout_id, wave, stratum), proven=count)
    _settled(connection, rollout_id, Counter((row.site, row.cell) for row in found))


def gone(connection: sa.Connection, rollout_id: str, device_id: str, at: int) -> None:
    """A device is selected no longer: n of PROMOTE loses it, n and k of ABORT keep it."""
    row = _read(connection, rollout_id, device_id)
    if row.left_at is not None:
        return
    connection.execute(sa.update(ROLLOUT_MEMBER).where(*_key(rollout_id, device_id)).values(left_at=at, settled=True))
    if row.cell is None:
        return  # asked, not begun: it is one of the asked still, and of the begun once it begins
    _add(connection, ROLLOUT_GROUP, (rollout_id, row.site, row.cell), gone=1)
    if not row.settled:
        _settled(connection, rollout_id, Counter({(row.site, row.cell): 1}))
    evidence_sites.refresh_if_due(connection, rollout_id, row.site, row.cell)


def removed(connection: sa.Connection, rollout_id: str, device_id: str, at: int) -> None:
    """A device that was asked is taken out of the fleet, before its row is marked so.

    No change of the sums is good news: what has failed, or was silent at its deadline, stays; who was proven is no evidence any more; who
    had not proved himself stays missing for a promotion, and cannot become silent.
    """
    row = _read(connection, rollout_id, device_id)
    if row.cell is None:
        return
    group = (rollout_id, row.site, row.cell)
    due = connection.scalar(sa.select(ROLLOUT_GROUP.c.due).where(*_where(ROLLOUT_GROUP, group)))
    if row.heard_at is None and not due:
        connection.execute(sa.update(ROLLOUT_MEMBER).where(*_key(rollout_id, device_id)).values(heard_at=at))
        _add(connection, ROLLOUT_GROUP, group, unheard=-1)
    if row.proven_at is not None and row.left_at is None:
        connection.execute(sa.update(ROLLOUT_MEMBER).where(*_key(rollout_id, device_id)).values(left_at=at))
        _add(connection, ROLLOUT_GROUP, group, gone=1)
        evidence_sites.refresh_if_due(connection, rollout_id, row.site, row.cell)


def _settled(connection: sa.Connection, rollout_id: str, groups: Counter[tuple[str, int]]) -> None:
    for (site, cell), count in sorted(groups.items()):
        _add(connection, ROLLOUT_GROUP, (rollout_id, site, cell), unsettled=-count)
        evidence_sites.refresh_if_due(connection, rollout_id, site, cell)


def _bump(connection: sa.Connection, row: sa.Row[Any], **counts: int) -> None:
    _add(connection, ROLLOUT_SUM, (row.rollout_id, row.wave, row.stratum), **counts)


def _add(connection: sa.Connection, table: sa.Table, key: Sequence[Any], **counts: int) -> None:
    connection.execute(sa.update(table).where(*_where(table, key)).values({name: table.c[name] + count for name, count in counts.items()}))


def _where(table: sa.Table, key: Sequence[Any]) -> list[sa.ColumnElement[bool]]:
    return [column == value for column, value in zip(table.primary_key.columns, key, strict=True)]


def _read(connection: sa.Connection, rollout_id: str, device_id: str) -> sa.Row[Any]:
    names = ("rollout_id", "wave", "stratum", "site", "region", "cell", "heard_at", "proven_at", "settled", "left_at")
    clock = (ROLLOUT.c.cell_us, ROLLOUT.c.soak_us, ROLLOUT.c.dwell_us)
    query: sa.Select[Any] = sa.select(*(_MEMBER[name] for name in names), *clock).join(ROLLOUT, ROLLOUT.c.rollout_id == _MEMBER.rollout_id)
    return connection.execute(query.where(*_key(rollout_id, device_id))).one()


def _key(rollout_id: str, device_id: str) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
    return _MEMBER.rollout_id == rollout_id, _MEMBER.device_id == device_id
