"""Sums kept up by increments are the sums of the members, after any history of reports, signs of life, openings, joins and leaves."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from fleet_server import usecases
from fleet_server.rollout import Rollout
from fleet_server.rollout.groups import Controls, Group, Timing, look, too_few
from fleet_server.rollout.silence import Silence, SiteGroup, silence
from fleet_server.rollout.tally import Stratum, Tally
from fleet_server.store import devices, evidence_members, evidence_sites, evidence_sums, evidence_tally, members, rollouts
from fleet_server.store.members import Member
from fleet_server.store.moments import from_micros, to_micros
from fleet_server.store.tables import DEVICE_SEEN, ROLLOUT_MEMBER
from tests.unit.fleet_server.evidence_world import POLICY, open_fleet
from tests.unit.fleet_server.server_world import OPERATOR, World, make_bundle

DEVICES = 24
WAVES: dict[str, Any] = {"waves": ["25%", "50%", "100%"], "dwell_s": [60.0, 30.0, 0.0], "hold_back": {"smallest_fleet": 1, "fraction": 0.2}}
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.integers(1, 90)),
        st.tuples(st.just("heard"), st.integers(0, 2**DEVICES - 1)),
        st.tuples(st.sampled_from(["ask", "begin", "commit", "attest", "rows", "fail", "leave", "remove"]), st.integers(0, DEVICES - 1)),
        st.tuples(st.sampled_from(["batch", "batch done", "fail"]), st.integers(0, DEVICES - 1)),
        st.tuples(st.just("hours"), st.integers(1, 4)),
        st.tuples(st.sampled_from(["open", "all"]), st.integers(1, 3)),
    ),
    min_size=15,
    max_size=50,
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("sums")
    opened = World.open(folder / "data")
    open_fleet(opened, DEVICES, sites=3)
    opened.push(make_bundle(folder / "bundle"))
    yield opened
    opened.close()


class History:
    """One rollout: what happens goes to the store, and into the lists from which everything is counted anew."""

    def __init__(self, world: World, connection: sa.Connection, rollout_id: str) -> None:
        self.world, self.connection, self.rollout_id = world, connection, rollout_id
        self.timing = Timing.of(self.rollout.policy)
        self.heard: dict[str, list[int]] = defaultdict(list)
        self.groups: dict[tuple[str, int], Group] = {}
        self.last_wave: dict[tuple[str, int], bool] = {}

    @property
    def now(self) -> datetime:
        return self.world.clock()

    @property
    def rollout(self) -> Rollout:
        stored = rollouts.load(self.connection, self.rollout_id)
        assert stored is not None
        return stored.rollout

    def rows(self) -> list[Any]:
        query = sa.select(ROLLOUT_MEMBER).where(ROLLOUT_MEMBER.c.rollout_id == self.rollout_id)
        return list(self.connection.execute(query.order_by(ROLLOUT_MEMBER.c.device_id)))

    def step(self, name: str, number: int) -> None:
        at = to_micros(self.now)
        if name == "wait":
            self.world.clock.move(number)
        elif name == "heard":
            self._heard([f"d{i:05d}" for i in range(DEVICES) if number >> i & 1], at)
        elif name == "all":
            self._heard([f"d{i:05d}" for i in range(DEVICES)], at)
        elif name == "hours":
            for _ in range(3 * number):
                self.world.clock.move(20)
                self._look()
        elif name.startswith("batch"):
            self._batch(("commit", "attest", "rows", "rows") if name.endswith("done") else ("ask", "begin"), number, at)
        elif name == "open":
            self._open()
        else:
            self._told(name, f"d{number:05d}", at)

    def _batch(self, events: Iterable[str], first: int, at: int) -> None:
        for number in range(first, first + 8):
            for name in events:
                self._told(name, f"d{number % DEVICES:05d}", at)

    def _heard(self, device_ids: list[str], at: int) -> None:
        evidence_sums.heard(self.connection, device_ids, at)
        devices.seen(self.connection, dict.fromkeys(device_ids, at))
        removed = {row.device_id for row in self.rows() if row.removed_at is not None}
        for device_id in set(device_ids) - removed:
            self.heard[device_id].append(at)

    def _told(self, name: str, device_id: str, at: int) -> None:
        row = next((row for row in self.rows() if row.device_id == device_id), None)
        if row is None or row.removed_at is not None or not 0 < row.wave <= self.rollout.wave:
            return
        member = Member(self.rollout_id, device_id, "", row.counter, True)
        if name == "ask":
            members.note_assigned(self.connection, self.rollout_id, device_id, None, 5, at)
        elif name == "leave":
            (evidence_sums.gone if row.counter is not None else evidence_members.drop)(
                self.connection, self.rollout_id, device_id, *([at] if row.counter is not None else [])
            )
        elif name == "remove":
            self._remove(row, at)
        elif row.counter is not None:
            if name == "rows" and row.began_at is not None:
                self.connection.execute(
                    sa.update(ROLLOUT_MEMBER)
                    .where(ROLLOUT_MEMBER.c.rollout_id == self.rollout_id, ROLLOUT_MEMBER.c.device_id == device_id)
                    .values(rows=ROLLOUT_MEMBER.c.rows + 15)
                )
                evidence_sums.prove(self.connection, self.rollout_id, [device_id], at)
            elif name in ("begin", "fail") or row.began_at is not None:
                note = {"begin": members.note_began, "commit": members.note_committed, "attest": members.note_attested}.get(name)
                if note is not None:
                    note(self.connection, member, at)
                elif name == "fail":
                    members.note_failed(self.connection, member, at, "it failed")

    def _remove(self, row: Any, at: int) -> None:
        """As when a device is taken out of the fleet."""
        if row.counter is None:
            evidence_members.drop(self.connection, self.rollout_id, row.device_id)
            return
        evidence_sums.removed(self.connection, self.rollout_id, row.device_id, at)
        mine = (ROLLOUT_MEMBER.c.rollout_id == self.rollout_id, ROLLOUT_MEMBER.c.device_id == row.device_id)
        self.connection.execute(sa.update(ROLLOUT_MEMBER).where(*mine).values(removed_at=at, active=False))

    def _open(self) -> None:
        stored = rollouts.load(self.connection, self.rollout_id)
        assert stored is not None
        rollout = stored.rollout
        if rollout.course is None or rollout.wave >= rollout.wave_count:
            return
        wave = rollout.wave + 1
        after = replace(rollout, wave=wave, opened_at=(*rollout.opened_at, self.now), course=rollout.course.opened(wave, self.now))
        rollouts.save(self.connection, stored, after, None)
        evidence_members.reopen(self.connection, self.rollout_id, rollout.course.dwell_s[wave - 1])

    def _look(self) -> None:
        """The store looks, and so does the test, with counts of its own."""
        rollout, cell_us = self.rollout, int(1e6 * self.timing.cell_s)
        rows, at = self.rows(), to_micros(self.now)
        for row in rows:
            if row.began_at is not None:
                key = (row.site, row.began_at // cell_us)
                self.groups.setdefault(key, Group(begins_at=from_micros(key[1] * cell_us), look_at=from_micros(row.began_at)))
        for (site, cell), group in sorted(self.groups.items()):
            if group.look_at is None or group.look_at > self.now:
                continue
            key = (site, cell)
            last = self.last_wave.setdefault(key, rollout.wave >= rollout.wave_count)
            own = self._controls(rows, group, last, lambda row, site=site: row.site == site)
            few = group.live is not None and not group.due and too_few(group.live)
            region = self._controls(rows, group, last, lambda _row: True) if few else None
            unheard = sum(
                self._unheard(row) and row.removed_at is None
                for row in rows
                if row.began_at is not None and (row.site, row.began_at // cell_us) == key
            )
            self.groups[key] = look(group, unheard, own, region, self.timing, self.now)
        evidence_sites.come_due(self.connection, rollout, self.now)
        assert at == to_micros(self.now)

    def _controls(self, rows: list[Any], group: Group, last: bool, where: Any) -> Controls:
        begins = to_micros(group.begins_at)
        count = self.rollout.wave_count
        seen = []
        for row in [row for row in rows if row.removed_at is None]:
            old = row.wave < count and row.began_at is not None and row.began_at < begins - 1e6 * self.timing.soak_s
            if where(row) and (row.wave == 0 or (old if last else row.wave == count)) and self.heard[row.device_id]:
                seen.append(max(self.heard[row.device_id]))
        seen = [moment for moment in seen if moment >= begins - 1e6 * self.timing.cell_s]
        return Controls(len(seen), sum(moment <= to_micros(group.counts_from(self.timing)) for moment in seen))

    def _ends(self, row: Any) -> int:
        cell_us = int(1e6 * self.timing.cell_s)
        return int((row.began_at // cell_us + 1) * cell_us)

    def _unheard(self, row: Any) -> bool:
        return not any(moment > self._ends(row) + 1e6 * self.timing.soak_s for moment in self._since(row))

    def _since(self, row: Any) -> list[int]:
        return [moment for moment in self.heard[row.device_id] if moment >= row.began_at]

    def _proven(self, row: Any) -> bool:
        shown = row.committed_at is not None and row.attested_at is not None and row.rows >= self.rollout.policy.soak_rows
        return shown and not self._unheard(row)

    def counted_anew(self) -> Tally:
        rollout, cell_us = self.rollout, int(1e6 * self.timing.cell_s)
        course = rollout.course
        assert course is not None
        rows = self.rows()
        begun = [row for row in rows if row.began_at is not None]
        strata: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        for row in begun:
            strata[row.stratum][0] += 1
            strata[row.stratum][1] += row.failed_at is not None
        dwell_us = int(1e6 * course.dwell_s[rollout.wave - 1]) if rollout.wave else 0
        old = [row for row in begun if rollout.wave and self._ends(row) + dwell_us <= to_micros(self.now)]
        after = sum(any(moment >= self._ends(row) + dwell_us for moment in self._since(row)) for row in old)
        return Tally(
            opened=course.sizes[rollout.wave - 1] if rollout.wave else 0,
            strata={name: Stratum(*both) for name, both in sorted(strata.items())},
            quiet=self._quiet(begun, cell_us),
            dwelled=len(old),
            dwelled_failed=sum(row.failed_at is not None for row in old),
            heard_after_dwell=after,
            asked=sum(row.counter is not None for row in rows),
        )

    def _quiet(self, begun: list[Any], cell_us: int) -> Silence:
        """k and n of ABORT with the devices that left, those of PROMOTE without them."""
        keys = sorted({(row.site, row.began_at // cell_us) for row in begun})
        everybody = silence(self._site_group(key, begun, cell_us, lambda _row: True) for key in keys)
        staying = silence(self._site_group(key, begun, cell_us, lambda row: row.left_at is None) for key in keys)
        promote = {name: getattr(staying, name) for name in ("due", "missing", "silent_baseline", "missing_baseline")}
        return replace(everybody, **promote)

    def _site_group(self, key: tuple[str, int], begun: list[Any], cell_us: int, counts: Callable[[Any], bool]) -> SiteGroup:
        mine = [row for row in begun if (row.site, row.began_at // cell_us) == key]
        group = self.groups.get(key, Group(begins_at=self.now))
        kept = [row for row in mine if counts(row)]
        missing = sum(row.failed_at is None and not self._proven(row) for row in kept)
        return SiteGroup(
            site=key[0],
            region="eu",
            exposed=len(mine),
            due=len(kept) if group.due else 0,
            silent=min(group.silent, len(kept)) if group.due else 0,
            missing=missing if group.due else 0,
            controls=(group.live or 0) if group.due else 0,
            controls_silent=group.controls_silent,
            controls_missing=group.controls_missing,
        )


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(steps=STEPS)
def test_sums_by_increments_are_the_sums_of_the_members(world: World, steps: list[tuple[str, int]]) -> None:
    release_id = _release(world)
    view = usecases.create_rollout(world.services, release_id=release_id, policy=POLICY | WAVES, selection={}, actor=OPERATOR)
    try:
        with world.services.db.write() as connection:
            connection.execute(sa.delete(DEVICE_SEEN))
            history = History(world, connection, view.rollout_id)
            history.step("open", 1)
            history.step("open", 2)
            for name, number in steps:
                history.step(name, number)
                kept, anew = evidence_tally.read(connection, history.rollout, history.now), history.counted_anew()
                _same(kept, anew)
            due, quiet = kept.quiet.due, kept.quiet
            event(f"due {due > 0}, silent {quiet.silent > 0}, missing {quiet.missing > 0}, proven {due > quiet.missing}")
    finally:
        with world.services.db.write() as connection:
            rollouts.release_members(connection, view.rollout_id)


def _release(world: World) -> str:
    from fleet_server import queries

    return queries.releases(world.services.db)[0].release_id


def _same(kept: Tally, anew: Tally) -> None:
    for name in ("opened", "strata", "dwelled", "dwelled_failed", "heard_after_dwell", "asked", "exposed", "failed"):
        assert getattr(kept, name) == getattr(anew, name), name
    for name in ("exposed", "silent", "due", "missing"):
        assert getattr(kept.quiet, name) == getattr(anew.quiet, name), name
    for name in ("silent_baseline", "missing_baseline"):
        assert getattr(kept.quiet, name) == pytest.approx(getattr(anew.quiet, name)), name
    if anew.quiet.silent:
        assert kept.quiet.evidence(0.05) == pytest.approx(anew.quiet.evidence(0.05))
    assert np.isfinite(kept.quiet.missing_baseline)
