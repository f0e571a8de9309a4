"""A rollout by evidence over PostgreSQL: the same sums, the same decisions as over SQLite."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from edgefleet.errors import InputError
from fleet_server import audit, queries, usecases
from fleet_server.auth import Actor, ensure_admin_token
from fleet_server.errors import ConflictError
from fleet_server.flooring import floor_of, raise_floor
from fleet_server.grouping import group_of, groups_of, remove_group, set_group
from fleet_server.people import add_person, people_of, remove_person
from fleet_server.regrouping import How, change, preview
from fleet_server.relabelling import set_labels
from fleet_server.removing import remove_device
from fleet_server.scheduler.loop import Scheduler
from fleet_server.store import Database, evidence_tally, stays
from fleet_server.unquarantining import lift_quarantine
from tests.unit.fleet_server.evidence_world import Fleet, asked, open_fleet, start, value
from tests.unit.fleet_server.server_world import OPERATOR, PROJECT, World, make_bundle
from tests.unit.fleet_server.test_evidence_rollouts import until
from tests.unit.fleet_server.test_places_given_back import SLEEPS_S, asleep, parked
from tests.unit.fleet_server.test_ways_back_counted import check
from tests.unit.trainer.test_trainer_search_workers import postgres

__all__ = ["postgres"]

OTHER = {"admin": "anna", "anna": "admin"}
QUICK: dict[str, Any] = {"waves": ["30%", "100%"], "dwell_s": [60.0, 0.0], "pace": {"first": 20, "every_s": 20.0, "growth": 2.0}}


@pytest.fixture
def worlds(tmp_path: Path, postgres: str) -> Iterator[list[World]]:
    lite, full = World.open(tmp_path / "lite"), World.open(tmp_path / "full")
    database = Database(postgres.replace("postgresql://", "postgresql+psycopg://"))
    database.upgrade()
    full.services.db.close()
    full.services = replace(full.services, db=database)
    yield [lite, full]
    with database.write() as connection:  # the next test begins with an empty one
        connection.execute(sa.text("DROP SCHEMA public CASCADE"))
        connection.execute(sa.text("CREATE SCHEMA public"))
    for world in (lite, full):
        world.services.db.close()


def begun(world: World, folder: Path) -> tuple[Fleet, str]:
    """Forty devices, one of which fails, and a rollout of which nobody has heard yet."""
    bundle = make_bundle(folder)
    release_id = world.push(bundle)
    open_fleet(world, 40)
    fleet = Fleet(world, bundle)
    fleet.tick()
    rollout_id = start(world, release_id, **QUICK)
    fleet.bad = lambda device_id: device_id == "d00007"
    return fleet, rollout_id


@pytest.mark.conversions
def test_a_rollout_over_postgresql_is_decided_as_over_sqlite(worlds: list[World], tmp_path: Path) -> None:
    told = []
    for number, world in enumerate(worlds):
        fleet, rollout_id = begun(world, tmp_path / f"bundle{number}")
        for tick in range(40):
            fleet.dark = {"d00003"} if tick > 3 else set()
            fleet.tick()
        rollout = value(world, rollout_id)
        with world.services.db.read() as connection:
            counts = evidence_tally.by_wave(connection, rollout_id)
            tally = evidence_tally.read(connection, rollout, world.clock())
        told.append((rollout.state, rollout.opened_at, rollout.promoted_at, rollout.last_reason, counts, tally.strata, str(tally.quiet)))

    assert told[0] == told[1]
    assert len(told[0][2]) >= 1


@pytest.mark.conversions
def test_a_selection_over_postgresql_means_whom_it_means_over_sqlite(worlds: list[World]) -> None:
    asked = "not (site in (s0, s1) and hardware = a) and (has(region) or device(d00001)) and not group(pilots)"
    many = " or ".join(f"(device(d{number:05d}) and site = s{place})" for number in range(40) for place in range(4))
    found = []
    for world in worlds:
        open_fleet(world, 40)
        set_group(world.services, PROJECT, "pilots", selection="device(d00002) or site = s3", reason="for tests", actor=OPERATOR)
        for name, selection in (("one", "has(region) and site != s1"), ("two", "hardware = b"), ("three", "not device(d00001, d00009)")):
            set_group(world.services, PROJECT, name, selection=selection, reason="for tests", actor=OPERATOR)
        rows = queries.devices(world.services.db, world.clock(), project=PROJECT, selection=asked)
        long = queries.devices(world.services.db, world.clock(), project=PROJECT, selection=many)
        remove_device(world.services, "d00009", reason="for tests", actor=OPERATOR)
        found.append(([row.device_id for row in rows], [(group.name, group.devices) for group in groups_of(world.services.db)], len(long)))

    assert found[0] == found[1]
    assert len(found[0][0]) == 19  # of forty without s0 (all are a), s3 and d00002
    assert found[0][1] == [("one", 30), ("pilots", 11), ("three", 38), ("two", 19)]  # counted together, without d00009
    assert found[0][2] == 40


@pytest.mark.conversions
def test_entries_that_are_appended_at_the_same_time_over_postgresql_make_one_chain(worlds: list[World]) -> None:
    world = worlds[1]
    together = threading.Barrier(6)

    def append(number: int) -> None:
        with world.services.db.write() as connection:
            connection.execute(sa.select(1))
            together.wait(60)
            audit.record(connection, 1, actor=f"p{number}", action="test", subject=("project", "x"))

    with ThreadPoolExecutor(6) as pool:
        for done in [pool.submit(append, number) for number in range(6)]:
            done.result()

    with world.services.db.read() as connection:
        assert audit.verify(connection) >= 6


@pytest.mark.conversions
def test_of_two_people_who_act_on_one_page_at_the_same_time_over_postgresql_one_is_refused(worlds: list[World], tmp_path: Path) -> None:
    world = worlds[1]
    release_id = world.push(make_bundle(tmp_path / "bundle"))
    open_fleet(world, 10)
    rollout_id = start(world, release_id)
    version = queries.rollout(world.services.db, rollout_id, world.clock()).version
    together = threading.Barrier(2)

    def act(action: str) -> str:
        together.wait(60)
        try:
            usecases.rollout_action(world.services, rollout_id, action, version=version, reason="", actor=OPERATOR)
        except ConflictError:
            return "refused"
        return action

    with ThreadPoolExecutor(2) as pool:
        done = sorted(pool.map(act, ["pause", "abort"]))

    assert done in (["abort", "refused"], ["pause", "refused"])
    assert value(world, rollout_id).state.value == {"abort": "aborted", "pause": "paused"}[done[0]]


@pytest.mark.conversions
def test_of_two_people_who_change_one_group_at_the_same_time_over_postgresql_one_is_refused(worlds: list[World]) -> None:
    world = worlds[1]
    open_fleet(world, 10)

    def changed(how: How) -> list[str]:
        digests = [preview(world.services.db, PROJECT, "pilots", how, device_id).digest for device_id in ("d00001", "d00002")]
        together = threading.Barrier(2)

        def act(device_id: str, digest: str) -> str:
            together.wait(10)
            try:
                change(world.services, PROJECT, "pilots", how, device_id, digest=digest, reason="for tests", actor=OPERATOR)
            except (ConflictError, InputError):
                return "refused"
            return device_id

        with ThreadPoolExecutor(2) as pool:
            return sorted(pool.map(act, ("d00001", "d00002"), digests))

    set_group(world.services, PROJECT, "pilots", selection="device(d00000)", reason="for tests", actor=OPERATOR)
    for _ in range(5):
        first, second = changed("add")
        assert (second, group_of(world.services.db, PROJECT, "pilots").selection) == ("refused", f"device(d00000, {first})")
        set_group(world.services, PROJECT, "pilots", selection="device(d00000)", reason="for tests", actor=OPERATOR)
    remove_group(world.services, PROJECT, "pilots", reason="for tests", actor=OPERATOR)
    for _ in range(5):
        first, second = changed("make")
        assert (second, group_of(world.services.db, PROJECT, "pilots").selection) == ("refused", f"device({first})")
        remove_group(world.services, PROJECT, "pilots", reason="for tests", actor=OPERATOR)


@pytest.mark.conversions
def test_devices_are_relabelled_removed_and_enrolled_again_over_postgresql_as_over_sqlite(worlds: list[World], tmp_path: Path) -> None:
    told = []
    for number, world in enumerate(worlds):
        fleet, rollout_id = begun(world, tmp_path / f"bundle{number}")
        for tick in range(30):
            fleet.tick()
            if tick < 6:
                remove_device(world.services, f"d{5 * tick:05d}", reason="scrapped", actor=OPERATOR)
                set_labels(world.services, f"d{5 * tick + 1:05d}", put={"site": "s9"}, reason="moved", actor=OPERATOR)
        world.enroll("d00005", tmp_path / "again")
        with world.services.db.read() as connection:
            held = stays.quarantined(connection, "d00007")
        if held:
            lift_quarantine(world.services, "d00007", bundle=held[0], reason="mended", actor=OPERATOR)
        rollout = value(world, rollout_id)
        with world.services.db.read() as connection:
            counts = evidence_tally.by_wave(connection, rollout_id)
            tally = evidence_tally.read(connection, rollout, world.clock())
        told.append((rollout.state, rollout.promoted_at, rollout.last_reason, counts, tally.strata, str(tally.quiet), held))

    assert told[0] == told[1]


@pytest.mark.conversions
def test_where_devices_go_back_to_is_asked_and_answered_over_postgresql_as_over_sqlite(
    worlds: list[World], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, world in enumerate(worlds):
        folder = tmp_path / str(number)
        folder.mkdir()
        for one in range(5):
            device = world.enroll(f"d{one}", folder, site="hall")
            world.receive(device.presence(), device.heartbeat())
        check(world, folder, monkeypatch)
        monkeypatch.undo()


@pytest.mark.conversions
def test_sleeping_devices_give_their_places_back_and_floors_are_told_over_postgresql_as_over_sqlite(
    worlds: list[World], tmp_path: Path
) -> None:
    told = []
    for number, world in enumerate(worlds):
        fleet, rollout_id, sleeping = asleep(world, tmp_path / str(number))
        raise_floor(world.services, PROJECT, release_id=value(world, rollout_id).release_id, reason="a hole", actor=OPERATOR)
        Scheduler(world.services, None).tell_floors()
        world.clock.move(SLEEPS_S)
        fleet.tick(2)
        aside, begun = parked(world), asked(world, fleet.bundle)
        assert (len(aside), len(begun - sleeping)) == (len(sleeping), 4)
        fleet.dark = set()
        fleet.tick(12)
        assert asked(world, fleet.bundle) == set(world.devices)
        told.append((until(fleet, rollout_id, "completed"), floor_of(world.services, PROJECT).devices))
    assert told == [("completed", 12), ("completed", 12)]


@pytest.mark.conversions
def test_two_admins_at_the_same_time_over_postgresql_neither_add_one_name_twice_nor_leave_nobody_who_is_admin(worlds: list[World]) -> None:
    services = worlds[1].services
    ensure_admin_token(services)
    admins = [Actor(name, "admin") for name in ("admin", "anna")]

    def both(act: Callable[[Actor], object]) -> list[str]:
        together = threading.Barrier(2)

        def done(actor: Actor) -> str:
            together.wait(10)
            try:
                act(actor)
            except ConflictError:
                return "refused"
            return "done"

        with ThreadPoolExecutor(2) as pool:
            return sorted(pool.map(done, admins))

    def add(name: str, actor: Actor) -> None:
        add_person(services, name, role="viewer", reason="r", actor=actor)

    for number in range(5):
        assert both(partial(add, f"ben-{number}")) == ["done", "refused"]
        add_person(services, "anna", role="admin", reason="r", actor=admins[0])
        assert both(lambda actor: remove_person(services, OTHER[actor.name], reason="r", actor=actor)) == ["done", "refused"]
        left = [one.name for one in people_of(services.db, services.now_us()) if one.role == "admin"]
        assert len(left) == 1
        add_person(services, OTHER[left[0]], role="admin", reason="r", actor=admins[0])
        remove_person(services, "anna", reason="r", actor=admins[0])
