"""Rollouts steered over a real database: simulated devices, the real ingest, the real engine, a clock that tests move."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from fleet_server import audit, queries, usecases
from fleet_server.errors import ConflictError
from fleet_server.rollout import TransitionError
from fleet_server.scheduler.steering import LEASE_US, READ_AGAIN, settle
from fleet_server.store import looks
from fleet_server.store.tables import ASSIGNMENT, DEVICE_FACT, OUTBOX, ROLLOUT, ROLLOUT_MEMBER
from tests.unit.fleet_server.server_world import OPERATOR, POLICY, World, make_bundle
from tests.unit.fleet_server.steered import complete, start, tick, wanting


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    opened = World.open(tmp_path / "data")
    for number in range(6):
        device = opened.enroll(f"d{number}", tmp_path, site="north" if number < 3 else "south")
        opened.receive(device.presence(), device.heartbeat())
    yield opened
    opened.close()


def assigned_counters(world: World) -> dict[str, int]:
    with world.services.db.read() as connection:
        return {row.device_id: row.counter for row in connection.execute(sa.select(ASSIGNMENT.c.device_id, ASSIGNMENT.c.counter))}


def test_a_good_release_goes_wave_by_wave_to_all_devices(world: World, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b1")
    rollout_id = start(world, world.push(bundle))
    assert len(wanting(world, bundle)) == 1

    complete(world, rollout_id, bundle)

    view = queries.rollout(world.services.db, rollout_id, world.clock())
    assert [len(wave.members) for wave in view.waves] == [1, 2, 3]
    assert {wave.state for wave in view.waves} == {"promoted"}
    assert all(wave.reason for wave in view.waves)
    assert queries.releases(world.services.db)[0].attested_devices == 6
    rows = queries.devices(world.services.db, world.clock())
    assert {(row.running_release, row.why) for row in rows} == {("1", "Runs 1 and is well.")}
    with world.services.db.read() as connection:
        assert audit.verify(connection) >= 6 + 1 + 2 + 3


def test_no_device_of_wave_two_is_asked_before_wave_one_is_promoted(world: World, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b1")
    start(world, world.push(bundle))
    (first,) = wanting(world, bundle)

    world.receive(*world.devices[first].install(bundle))
    tick(world, 1.0)
    assert wanting(world, bundle) == {first}
    tick(world, 3.0)
    world.receive(world.devices[first].window(bundle, rows=19))
    tick(world)
    assert wanting(world, bundle) == {first}
    world.receive(world.devices[first].window(bundle, rows=1))
    tick(world)

    assert len(wanting(world, bundle)) == 3


def test_a_heartbeat_after_the_soak_is_enough_to_go_on(world: World, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b1")
    start(world, world.push(bundle))
    (first,) = wanting(world, bundle)
    world.receive(*world.devices[first].install(bundle), world.devices[first].window(bundle))
    tick(world)
    tick(world, 3.5)
    assert wanting(world, bundle) == {first}

    world.receive(world.devices[first].heartbeat())
    tick(world, 1.0)

    assert len(wanting(world, bundle)) == 3


def test_a_commit_without_an_attestation_promotes_nothing(world: World, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b1")
    start(world, world.push(bundle))
    (first,) = wanting(world, bundle)
    *said, _ = world.devices[first].install(bundle)

    world.receive(*said)
    tick(world, 4.0)
    world.receive(world.devices[first].window(bundle, rows=50))
    tick(world)

    assert wanting(world, bundle) == {first}


@pytest.mark.parametrize("leased", [False, True], ids=["nobody works on it", "a scheduler died in the middle"])
def test_a_failure_counts_at_once_also_when_the_clock_is_set_back_before_anybody_has_looked(
    world: World, tmp_path: Path, leased: bool
) -> None:
    bundle = make_bundle(tmp_path / "b1")
    rollout_id = start(world, world.push(bundle), deadline_s=90_000.0, hold_s=90_000.0)
    (first,) = wanting(world, bundle)
    tick(world, 7_200.0)
    assert queries.rollout(world.services.db, rollout_id, world.clock()).state == "running"

    world.receive(*world.devices[first].fail(bundle))
    if leased:
        with world.services.db.write() as connection:
            assert looks.claim(connection, "who dies", world.services.now_us(), LEASE_US) == rollout_id
    tick(world, -3_600.0)

    assert queries.rollout(world.services.db, rollout_id, world.clock()).state == "paused"


def test_the_first_failure_pauses_and_nobody_else_ever_gets_the_release(world: World, tmp_path: Path) -> None:
    good, bad = make_bundle(tmp_path / "b1"), make_bundle(tmp_path / "b2", "two")
    complete(world, start(world, world.push(good)), good)
    rollout_id = start(world, world.push(bad, "2"))
    (first,) = wanting(world, bad)

    world.receive(*world.devices[first].fail(bad))
    tick(world)

    view = queries.rollout(world.services.db, rollout_id, world.clock())
    assert (view.state, view.verdict) == ("paused", "pause")
    assert [m.progress for wave in view.waves for m in wave.members].count("failed") == 1
    usecases.rollout_action(world.services, rollout_id, "abort", version=view.version, reason="it is bad", actor=OPERATOR)
    assert wanting(world, bad) == set()
    assert wanting(world, good) == set(world.devices)


def test_a_failure_that_the_device_reported_once_stays_a_failure(world: World, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b1")
    rollout_id = start(world, world.push(bundle))
    (first,) = wanting(world, bundle)

    world.receive(*world.devices[first].fail(bundle))
    world.devices[first].quarantined.clear()
    world.receive(world.devices[first].reported("idle"))
    tick(world)

    assert queries.rollout(world.services.db, rollout_id, world.clock()).state == "paused"


def test_an_aborted_rollout_gives_its_devices_to_the_next_one(world: World, tmp_path: Path) -> None:
    bad, next_one = make_bundle(tmp_path / "b1"), make_bundle(tmp_path / "b2", "two")
    rollout_id = start(world, world.push(bad))
    view = queries.rollout(world.services.db, rollout_id, world.clock())
    usecases.rollout_action(world.services, rollout_id, "abort", version=view.version, reason="", actor=OPERATOR)

    start(world, world.push(next_one, "2"))

    assert wanting(world, bad) == set()
    assert len(wanting(world, next_one)) == 1
    assert not [line for line in queries.overview(world.services.db, world.clock()).needs_you if line.severity == "abort"]
    old = queries.rollout(world.services.db, rollout_id, world.clock())
    assert [action.refused for action in old.actions if action.name == "roll-back"] == ["Its devices belong to a later rollout."]
    with pytest.raises(ConflictError, match="later rollout"):
        usecases.rollout_action(world.services, rollout_id, "roll-back", version=old.version, reason="", actor=OPERATOR)


def test_a_device_belongs_to_one_unfinished_rollout_only(world: World, tmp_path: Path) -> None:
    first, second = make_bundle(tmp_path / "b1"), make_bundle(tmp_path / "b2", "two")
    rollout_id = start(world, world.push(first))
    release_id = world.push(second, "2")

    with pytest.raises(ConflictError, match=rollout_id):
        usecases.create_rollout(world.services, release_id=release_id, policy=POLICY, selection={"site": "south"}, actor=OPERATOR)

    with world.services.db.read() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(ROLLOUT)) == 1


def test_the_database_itself_refuses_a_second_owner(world: World, tmp_path: Path) -> None:
    start(world, world.push(make_bundle(tmp_path / "b1")))
    member = ROLLOUT_MEMBER.c
    values = [sa.literal("r-other"), member.device_id, member.project, member.wave, member.active]
    second = sa.insert(ROLLOUT_MEMBER).from_select(["rollout_id", "device_id", "project", "wave", "active"], sa.select(*values))

    with world.services.db.write() as connection, pytest.raises(sa.exc.IntegrityError, match="UNIQUE"):
        connection.execute(second)


def test_an_old_version_is_refused_with_who_did_what(world: World, tmp_path: Path) -> None:
    view = usecases.create_rollout(
        world.services, release_id=world.push(make_bundle(tmp_path / "b1")), policy=POLICY, selection={}, actor=OPERATOR
    )
    usecases.rollout_action(world.services, view.rollout_id, "start", version=view.version, reason="", actor=OPERATOR)

    with pytest.raises(ConflictError, match="olga did start"):
        usecases.rollout_action(world.services, view.rollout_id, "abort", version=view.version, reason="", actor=OPERATOR)


def test_an_action_that_the_table_does_not_know_changes_nothing(world: World, tmp_path: Path) -> None:
    view = usecases.create_rollout(
        world.services, release_id=world.push(make_bundle(tmp_path / "b1")), policy=POLICY, selection={}, actor=OPERATOR
    )

    with pytest.raises(TransitionError):
        usecases.rollout_action(world.services, view.rollout_id, "resume", version=view.version, reason="", actor=OPERATOR)

    assert queries.rollout(world.services.db, view.rollout_id, world.clock()).version == view.version


def test_rolling_back_sends_every_device_to_what_it_ran_before(world: World, tmp_path: Path) -> None:
    old, new = make_bundle(tmp_path / "b1"), make_bundle(tmp_path / "b2", "two")
    complete(world, start(world, world.push(old)), old)
    rollout_id = start(world, world.push(new, "2"), waves=[3, "100%"])
    for device_id in sorted(wanting(world, new)):
        world.receive(*world.devices[device_id].install(new))
    tick(world)
    view = queries.rollout(world.services.db, rollout_id, world.clock())
    assert view.replaces == "1"

    usecases.rollout_action(world.services, rollout_id, "roll-back", version=view.version, reason="no", actor=OPERATOR)
    assert wanting(world, old) == set(world.devices)
    for device in world.devices.values():
        if device.running != old.digest:
            world.receive(*device.install(old))
    tick(world)

    ended = queries.rollout(world.services.db, rollout_id, world.clock())
    assert ended.state == "rolled-back"
    assert {row.running_release for row in queries.devices(world.services.db, world.clock())} == {"1"}


def test_a_first_release_cannot_be_rolled_back_and_the_page_says_so_beforehand(world: World, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b1")
    rollout_id = start(world, world.push(bundle))
    view = queries.rollout(world.services.db, rollout_id, world.clock())
    assert [a.refused for a in view.actions if a.name == "roll-back"] == ["1 device ran no release before: there is nothing to go back to."]
    with pytest.raises(ConflictError, match="ran no release before"):
        usecases.rollout_action(world.services, rollout_id, "roll-back", version=view.version, reason="", actor=OPERATOR)
    assert queries.rollout(world.services.db, rollout_id, world.clock()).state == "running"


def test_a_device_without_an_earlier_release_has_its_model_taken_away(world: World, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b1")
    rollout_id = start(world, world.push(bundle))
    (first,) = wanting(world, bundle)
    view = queries.rollout(world.services.db, rollout_id, world.clock())

    usecases.rollout_action(world.services, rollout_id, "abort", version=view.version, reason="", actor=OPERATOR)

    assert world.desired(first) is None
    with world.services.db.read() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(ASSIGNMENT)) == 0


def test_a_silent_device_is_seen_without_any_news(world: World, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b1")
    rollout_id = start(world, world.push(bundle))
    (first,) = wanting(world, bundle)
    world.receive(world.devices[first].reported("downloading", bundle.digest))
    tick(world)

    tick(world, 61.0)

    members = queries.rollout(world.services.db, rollout_id, world.clock()).waves[0].members
    assert members[0].progress == "silent"


def test_a_second_scheduler_decides_nothing_twice(world: World, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b1")
    rollout_id = start(world, world.push(bundle))
    before = len(queries.events(world.services.db))
    counters = assigned_counters(world)

    assert settle(world.services, rollout_id) == 0
    assert settle(world.services, rollout_id) == 0

    assert len(queries.events(world.services.db)) == before
    assert assigned_counters(world) == counters


def test_a_rollout_that_cannot_be_read_does_not_stop_the_others(world: World, tmp_path: Path) -> None:
    first, second = make_bundle(tmp_path / "b1"), make_bundle(tmp_path / "b2", "two")
    ids = []
    for bundle, version, site in ((first, "1", "north"), (second, "2", "south")):
        view = usecases.create_rollout(
            world.services, release_id=world.push(bundle, version), policy=POLICY, selection={"site": site}, actor=OPERATOR
        )
        usecases.rollout_action(world.services, view.rollout_id, "start", version=view.version, reason="", actor=OPERATOR)
        ids.append(view.rollout_id)
    with world.services.db.write() as connection:
        connection.execute(sa.update(ROLLOUT).where(ROLLOUT.c.rollout_id == ids[0]).values(engine="{}"))

    tick(world)

    assert len(wanting(world, second)) == 1
    assert wanting(world, first) == set()


def test_a_rollout_that_cannot_be_read_hides_no_other_one_and_is_named(world: World, tmp_path: Path) -> None:
    release_id = world.push(make_bundle(tmp_path / "b1"))
    first, second = (
        usecases.create_rollout(world.services, release_id=release_id, policy=POLICY, selection={"site": site}, actor=OPERATOR).rollout_id
        for site in ("north", "south")
    )
    with world.services.db.write() as connection:
        connection.execute(sa.update(ROLLOUT).where(ROLLOUT.c.rollout_id == first).values(engine="{"))

    shown = queries.overview(world.services.db, world.clock())

    assert [row.rollout_id for row in queries.rollouts(world.services.db, world.clock())] == [second]
    assert [row.rollout_id for row in shown.rollouts] == [second]
    assert any(f"Rollout {first} cannot be read" in note for note in shown.notes)


def test_facts_that_could_not_be_read_are_read_again_and_the_failures_behind_them_abort(world: World, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b1")
    rollout_id = start(world, world.push(bundle), waves=["100%"], max_explicit_failures_before_abort=0)
    names = sorted(wanting(world, bundle))
    world.receive(world.devices[names[0]].reported("idle"))
    spoil(world, names[0], "{")
    tick(world)
    assert queries.rollout(world.services.db, rollout_id, world.clock()).state == "paused"
    world.receive(*world.devices[names[1]].fail(bundle))
    tick(world)
    assert queries.rollout(world.services.db, rollout_id, world.clock()).state == "paused"

    spoil(world, names[0], "[]")
    tick(world, READ_AGAIN.total_seconds())

    assert queries.rollout(world.services.db, rollout_id, world.clock()).state == "aborted"


def spoil(world: World, device_id: str, text: str) -> None:
    """Nobody tells the server: a row is as it is when somebody has repaired it."""
    with world.services.db.write() as connection:
        connection.execute(sa.update(DEVICE_FACT).where(DEVICE_FACT.c.device_id == device_id).values(quarantined=text))


def test_only_the_newest_document_of_a_device_waits_in_the_outbox(world: World, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b1")
    rollout_id = start(world, world.push(bundle))
    view = queries.rollout(world.services.db, rollout_id, world.clock())
    usecases.rollout_action(world.services, rollout_id, "abort", version=view.version, reason="", actor=OPERATOR)

    with world.services.db.read() as connection:
        topics = list(connection.scalars(sa.select(OUTBOX.c.topic)))

    assert len(topics) == len(set(topics)) == 1


def test_a_killed_server_goes_on_where_it_was(world: World, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b1")
    rollout_id = start(world, world.push(bundle))
    (first,) = wanting(world, bundle)
    world.receive(*world.devices[first].install(bundle))
    # Nothing is closed: what a killed process leaves is what the database holds.
    again = World.open(world.services.config.data_dir)
    again.clock, again.devices = world.clock, world.devices
    again.services = type(again.services)(**{**vars(again.services), "clock": world.clock})

    complete(again, rollout_id, bundle)

    again.close()


def test_a_device_that_proves_itself_after_the_abort_is_not_asked_a_second_time(world: World, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b1")
    rollout_id = start(world, world.push(bundle))
    (first,) = wanting(world, bundle)
    world.receive(*world.devices[first].install(bundle))
    view = queries.rollout(world.services.db, rollout_id, world.clock())
    usecases.rollout_action(world.services, rollout_id, "abort", version=view.version, reason="no more", actor=OPERATOR)
    assert wanting(world, bundle) == set()

    tick(world, 4.0)
    world.receive(world.devices[first].window(bundle), world.devices[first].heartbeat())
    tick(world, 1.0)

    assert wanting(world, bundle) == set()


def test_a_device_on_which_the_bundle_failed_is_left_out_of_the_next_rollout_of_it(world: World, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b1")
    release_id = world.push(bundle)
    rollout_id = start(world, release_id)
    (first,) = wanting(world, bundle)
    world.receive(*world.devices[first].fail(bundle))
    tick(world)
    view = queries.rollout(world.services.db, rollout_id, world.clock())
    usecases.rollout_action(world.services, rollout_id, "abort", version=view.version, reason="no more", actor=OPERATOR)

    complete(world, start(world, release_id), bundle)

    assert wanting(world, bundle) == set(world.devices) - {first}
    with world.services.db.read() as connection:
        assert audit.verify(connection)


def test_a_device_whose_failure_is_told_after_the_plan_was_made_is_a_failure_and_is_not_asked(world: World, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b1")
    rollout_id = start(world, world.push(bundle))
    late = next(d for d in sorted(world.devices) if d not in wanting(world, bundle))
    world.devices[late].quarantined.append(bundle.digest)
    world.receive(world.devices[late].reported("quarantined", bundle.digest, "failed here before"))
    for _ in range(3):
        for device_id in sorted(wanting(world, bundle)):
            if world.devices[device_id].running != bundle.digest:
                world.receive(*world.devices[device_id].install(bundle))
        tick(world, 4.0)
        world.receive(*[world.devices[d].window(bundle) for d in sorted(wanting(world, bundle))])
        tick(world, 0.5)

    assert late not in wanting(world, bundle)
    assert queries.rollout(world.services.db, rollout_id, world.clock()).state == "paused"
