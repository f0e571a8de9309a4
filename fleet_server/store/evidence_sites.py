"""Groups that come due, and the sums of a site over its due groups: silence against the controls of the same site."""

from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from fleet_server.rollout.groups import Controls, Group, Timing, look, too_few
from fleet_server.rollout.model import Rollout
from fleet_server.rollout.silence import OWN_CONTROLS, SHRINK, site_out
from fleet_server.store import exposure, hearing
from fleet_server.store.moments import from_micros, to_micros
from fleet_server.store.tables import DEVICE_SEEN, ROLLOUT_GROUP, ROLLOUT_MEMBER, ROLLOUT_REGION, ROLLOUT_SITE

LOOKS_AT_ONCE: Final = 100  # of some 2 ms each, and the write lock is everybody's
# Controls of a region that are asked, the first by place, which is a salted hash: of these, 70 % heard is told within 3 points.
REGION_SAMPLE: Final = 2_000
_G: Final = ROLLOUT_GROUP.c
_WAVE: Final = ROLLOUT_MEMBER.c.wave


def come_due(connection: sa.Connection, rollout: Rollout, now: datetime, limit: int = LOOKS_AT_ONCE) -> int:
    """Look at the groups whose time it is; how many were looked at (`limit`: there may be more)."""
    timing, looks = Timing.of(rollout.policy), _Looks(connection, rollout)
    query = sa.select(ROLLOUT_GROUP).where(_G.rollout_id == rollout.rollout_id, _G.look_at <= to_micros(now))
    rows = connection.execute(query.order_by(_G.look_at, _G.site, _G.cell).limit(limit).with_for_update()).all()
    deaf_until = hearing.deaf_until(connection, now)
    sites = set()
    for row in rows:
        before = _group(row, timing)
        last_wave = row.last_wave if before.live is not None else rollout.wave >= rollout.wave_count
        own = looks.controls(before, timing, last_wave, site=row.site)
        few = before.live is not None and not before.due and too_few(before.live)
        region = looks.controls(before, timing, last_wave, region=row.region) if few else None
        after = look(before, row.unheard, own, region, timing, now, deaf_until)
        _store(connection, row, after, last_wave)
        if row.first and after.out and not before.out:
            _store_others(connection, row, looks.others_out(after, timing, last_wave))
        if (after.due, after.controls_missing, after.out, after.live) != (before.due, before.controls_missing, before.out, before.live):
            sites.add(row.site)
    for site in sorted(sites):
        refresh(connection, rollout.rollout_id, site)
    return len(rows)


def next_look(connection: sa.Connection, rollout_id: str) -> datetime | None:
    """When time alone may settle a group."""
    found: int | None = connection.scalar(sa.select(sa.func.min(_G.look_at)).where(_G.rollout_id == rollout_id))
    return None if found is None else from_micros(found)


def refresh_if_due(connection: sa.Connection, rollout_id: str, site: str, cell: int) -> None:
    """After a change of a group: its site's sums, when the group is in them."""
    where = (_G.rollout_id == rollout_id, _G.site == site, _G.cell == cell)
    if connection.scalar(sa.select(_G.due).where(*where)):
        refresh(connection, rollout_id, site)


def refresh(connection: sa.Connection, rollout_id: str, site: str) -> None:
    """Sum up the groups of a site anew, a few rows; its region gets the difference."""
    where = (ROLLOUT_SITE.c.rollout_id == rollout_id, ROLLOUT_SITE.c.site == site)
    # Locked before the groups are read: of two transactions the second one sees what the first one changed.
    before = connection.execute(sa.select(ROLLOUT_SITE).where(*where).with_for_update()).one()._mapping
    n, live = _G.exposed - _G.gone, _G.live
    due = sa.case((_G.due, 1), else_=0)
    own = sa.and_(_G.due, live >= OWN_CONTROLS)
    # Without controls of its own a whole site may have been off: it is one event, however many devices it has.
    once = sa.func.max(sa.case((sa.and_(_G.due, live < OWN_CONTROLS, _G.silent > 0), 1), else_=0))
    sums = {
        "due": sa.func.sum(due * n),
        "silent": sa.func.sum(sa.case((own, _G.silent), else_=0)) + once,
        "missing": sa.func.sum(due * _G.unsettled),
        "controls": sa.func.sum(due * live),
        "controls_silent": sa.func.sum(due * _G.controls_silent),
        "controls_missing": sa.func.sum(due * _G.controls_missing),
        "own_silent": sa.func.sum(due * n * _G.controls_silent / (live + SHRINK)),
        "own_missing": sa.func.sum(due * n * _G.controls_missing / (live + SHRINK)),
        "region_weight": sa.func.sum(due * n * SHRINK / (live + SHRINK)),
    }
    flags = {
        "judged": sa.func.max(sa.case((live >= OWN_CONTROLS, 1), else_=0)),
        "out": sa.func.max(sa.case((_G.out, 1), else_=0)),
        "dark": sa.func.max(sa.case((sa.and_(_G.out, sa.not_(_G.due)), 1), else_=0)),
    }
    columns = [value.label(name) for name, value in (sums | flags).items()]
    row = connection.execute(sa.select(*columns).where(_G.rollout_id == rollout_id, _G.site == site)).one()._mapping
    values: dict[str, Any] = {name: row[name] or 0 for name in sums} | {name: bool(row[name]) for name in flags}
    connection.execute(sa.update(ROLLOUT_SITE).where(*where).values(**values))
    added = {name: type(before[name] + 0)(value) - before[name] for name, value in values.items()}
    region = (ROLLOUT_REGION.c.rollout_id == rollout_id, ROLLOUT_REGION.c.region == before["region"])
    moved = {name: ROLLOUT_REGION.c[name] + more for name, more in added.items() if more}
    if moved:
        connection.execute(sa.update(ROLLOUT_REGION).where(*region).values(moved))


class _Looks:
    """Counts of controls; those of a region serve all its sites in one transaction."""

    def __init__(self, connection: sa.Connection, rollout: Rollout) -> None:
        self._connection, self._rollout_id, self._last = connection, rollout.rollout_id, rollout.wave_count
        self._known: dict[tuple[Any, ...], Controls] = {}
        self._others: dict[tuple[datetime, bool], float] = {}

    def controls(self, group: Group, timing: Timing, last_wave: bool, **where: str) -> Controls:
        """Controls of a group's site or region.

        Until everybody may begin: the hold-back and the last wave. Then: the hold-back and the devices that were exposed long before.
        """
        key = (group.begins_at, last_wave, *where.items())
        if key not in self._known:
            self._known[key] = self._count(group, timing, last_wave, where)
        return self._known[key]

    def others_out(self, group: Group, timing: Timing, last_wave: bool) -> float:
        """Share of sites that are dark as well, of those whose first device did not begin within the same time.

        That is how often sites do so by themselves, an outage of our own broker included.
        """
        key = (group.begins_at, last_wave)
        if key not in self._others:
            member, deadline_us = ROLLOUT_MEMBER.c, int(1e6 * timing.deadline_s)
            lately = sa.select(_G.site).where(
                _G.rollout_id == self._rollout_id,
                _G.first,
                _G.cell * int(1e6 * timing.cell_s) > to_micros(group.begins_at) - deadline_us,
            )
            query = self._asked(group, timing, last_wave).add_columns(member.site).where(member.site.not_in(lately)).group_by(member.site)
            sites = [Controls(int(row[0]), int(row[1] or 0)) for row in self._connection.execute(query)]
            told = [site_out(site.seen, site.unheard) for site in sites if site.seen >= OWN_CONTROLS]
            self._others[key] = sum(told) / len(told) if told else 0.0
        return self._others[key]

    def _count(self, group: Group, timing: Timing, last_wave: bool, where: dict[str, str]) -> Controls:
        member = ROLLOUT_MEMBER.c
        here = [member[name] == value for name, value in where.items()]
        if "site" in where:
            # A sum is in no index: without it a database may read a whole wave by its number to find the few devices of a site.
            query = self._asked(group, timing, last_wave, wave=member.wave + 0).where(*here)
        else:
            first = self._asked(group, timing, last_wave).where(*here).with_only_columns(DEVICE_SEEN.c.seen_at)
            sample = first.order_by(member.wave, member.place).limit(REGION_SAMPLE).subquery()
            query = sa.select(sa.func.count(), sa.func.sum(_unheard(sample.c.seen_at, group, timing))).select_from(sample)
        seen, silent = self._connection.execute(query).one()
        return Controls(int(seen), int(silent or 0))

    def _asked(self, group: Group, timing: Timing, last_wave: bool, wave: sa.ColumnElement[int] = _WAVE) -> sa.Select[int, int]:
        """(controls, unheard)."""
        member, begins = ROLLOUT_MEMBER.c, to_micros(group.begins_at)
        cell_us = int(1e6 * timing.cell_s)
        old = sa.and_(wave < self._last, member.began_at < begins - int(1e6 * timing.soak_s))
        who = sa.or_(wave == 0, old if last_wave else wave == self._last)
        return (
            sa.select(sa.func.count(), sa.func.sum(_unheard(DEVICE_SEEN.c.seen_at, group, timing)))
            .select_from(ROLLOUT_MEMBER.join(DEVICE_SEEN, DEVICE_SEEN.c.device_id == member.device_id))
            .where(member.rollout_id == self._rollout_id, member.removed_at.is_(None))
            .where(who, DEVICE_SEEN.c.seen_at >= begins - cell_us, ~exposure.elsewhere(member.device_id, self._rollout_id, begins))
        )


def _unheard(seen_at: sa.ColumnElement[int], group: Group, timing: Timing) -> sa.ColumnElement[int]:
    return sa.case((seen_at <= to_micros(group.counts_from(timing)), 1), else_=0)


def _store_others(connection: sa.Connection, row: sa.Row[Any], share: float) -> None:
    key = (_G.rollout_id == row.rollout_id, _G.site == row.site, _G.cell == row.cell)
    connection.execute(sa.update(ROLLOUT_GROUP).where(*key).values(others_out=share))


def _group(row: sa.Row[Any], timing: Timing) -> Group:
    return Group(
        begins_at=from_micros(row.cell * int(1e6 * timing.cell_s)),
        live=row.live,
        back_at=None if row.back_at is None else from_micros(row.back_at),
        due=row.due,
        silent=row.silent,
        controls_silent=row.controls_silent,
        controls_missing=row.controls_missing,
        out=row.out,
        look_at=None if row.look_at is None else from_micros(row.look_at),
    )


def _store(connection: sa.Connection, row: sa.Row[Any], group: Group, last_wave: bool) -> None:
    values = {
        "live": group.live,
        "back_at": None if group.back_at is None else to_micros(group.back_at),
        "due": group.due,
        "silent": group.silent,
        "controls_silent": group.controls_silent,
        "controls_missing": group.controls_missing,
        # Only what happens within two hours of a site's first device speaks of the release.
        "out": group.out and row.first,
        "look_at": None if group.look_at is None else to_micros(group.look_at),
        "last_wave": last_wave,
    }
    key = (_G.rollout_id == row.rollout_id, _G.site == row.site, _G.cell == row.cell)
    connection.execute(sa.update(ROLLOUT_GROUP).where(*key).values(**values))
