"""Members of a rollout by evidence after growths, joins and leaves: wave numbers, sizes and sums go together."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from fleet_server import enlisting
from fleet_server.rollout import Action, ActionKind, Rollout, apply
from fleet_server.rollout.tally import Tally
from fleet_server.scheduler import by_evidence
from fleet_server.store import devices, evidence_members, evidence_tally, rollouts
from fleet_server.store.tables import ROLLOUT_MEMBER
from tests.unit.fleet_server.evidence_world import Fleet, asked, open_fleet, start, value
from tests.unit.fleet_server.server_world import PROJECT, World, make_bundle


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    opened = World.open(tmp_path / "data")
    yield opened
    opened.close()


def begun(world: World, tmp_path: Path, count: int) -> tuple[Fleet, str]:
    bundle = make_bundle(tmp_path / "bundle")
    release_id = world.push(bundle)
    open_fleet(world, count)
    fleet = Fleet(world, bundle)
    fleet.tick()
    rollout_id = start(world, release_id)
    return fleet, rollout_id


def grow(world: World, rollout_id: str, size: int) -> Rollout:
    now = world.clock()
    with world.services.db.write() as connection:
        stored = rollouts.load(connection, rollout_id)
        assert stored is not None
        action = Action(ActionKind.EXTEND, stored.rollout.wave, "more devices can tell", size=size)
        after = apply(stored.rollout, action, now)
        assert rollouts.save(connection, stored, after, now)
        by_evidence.follow(connection, stored.rollout, after, action)
    return after


def cumulative(world: World, rollout_id: str) -> list[int]:
    """Devices that each wave reaches, counted from the members."""
    with world.services.db.read() as connection:
        waves = connection.scalars(sa.select(ROLLOUT_MEMBER.c.wave).where(ROLLOUT_MEMBER.c.rollout_id == rollout_id)).all()
        summed = {wave: counts.members for wave, counts in evidence_tally.by_wave(connection, rollout_id).items()}
    counts = Counter(waves)
    assert {wave: count for wave, count in summed.items() if count} == counts
    return [sum(counts[number] for number in range(1, wave + 1)) for wave in range(1, max(counts) + 1)]


@pytest.mark.parametrize("size", [30, 40, 60, 100])
def test_after_a_growth_the_members_have_the_waves_of_the_course(world: World, tmp_path: Path, size: int) -> None:
    _, rollout_id = begun(world, tmp_path, 300)

    course = grow(world, rollout_id, size).course

    assert course is not None
    assert course.sizes[0] == size
    assert cumulative(world, rollout_id) == list(course.sizes)


def test_a_device_that_joins_after_a_growth_is_in_the_wave_that_took_its_own(world: World, tmp_path: Path) -> None:
    _, rollout_id = begun(world, tmp_path, 300)
    grow(world, rollout_id, 100)
    for number in range(40):
        world.enroll(f"late{number}", tmp_path, site="s1", hardware="a", region="eu")

    course = value(world, rollout_id).course
    assert course is not None
    assert cumulative(world, rollout_id) == list(course.sizes)
    with world.services.db.read() as connection:
        membership = evidence_members.membership_of(connection, rollout_id)
    assert membership is not None
    assert len(membership.waves) == len(course.sizes)


def relabel(world: World, device_id: str, **labels: str) -> None:
    with world.services.db.write() as connection:
        devices.set_labels(connection, device_id, labels)
        enlisting.follow(connection, PROJECT, device_id, world.clock())


def select(world: World, tmp_path: Path) -> tuple[Fleet, str]:
    bundle = make_bundle(tmp_path / "bundle")
    release_id = world.push(bundle)
    open_fleet(world, 60)
    fleet = Fleet(world, bundle)
    fleet.tick()
    return fleet, start(world, release_id, {"hardware": "a"}, hold_back={"fraction": 0.0})


def test_a_device_that_leaves_before_it_was_asked_is_in_no_wave(world: World, tmp_path: Path) -> None:
    fleet, rollout_id = select(world, tmp_path)
    with world.services.db.read() as connection:
        waiting = sa.select(ROLLOUT_MEMBER.c.device_id).where(ROLLOUT_MEMBER.c.counter.is_(None)).order_by(ROLLOUT_MEMBER.c.device_id)
        leaver = connection.scalars(waiting).first()
    assert leaver is not None

    relabel(world, leaver, hardware="b")

    course = value(world, rollout_id).course
    assert course is not None
    assert course.sizes[-1] == 29
    assert cumulative(world, rollout_id) == list(course.sizes)
    assert leaver not in asked(world, fleet.bundle)


def test_a_device_that_leaves_after_it_began_stays_where_it_can_stop_and_goes_where_it_could_promote(world: World, tmp_path: Path) -> None:
    fleet, rollout_id = select(world, tmp_path)
    fleet.tick(13)

    def tally() -> Tally:
        with world.services.db.read() as connection:
            return evidence_tally.read(connection, value(world, rollout_id), world.clock())

    before = tally()
    leaver = sorted(asked(world, fleet.bundle))[0]
    relabel(world, leaver, hardware="b")
    after = tally()

    assert before.quiet.due > 0
    assert (after.exposed, after.quiet.exposed, after.quiet.silent) == (before.exposed, before.quiet.exposed, before.quiet.silent)
    assert after.quiet.due == before.quiet.due - 1

    fleet.receive(world.devices[leaver].fail(fleet.bundle, "it failed after it left"))
    assert tally().failed == before.failed + 1


def test_a_device_that_leaves_between_being_asked_and_beginning_keeps_nobody_from_being_asked_and_is_never_missing(
    world: World, tmp_path: Path
) -> None:
    fleet, rollout_id = select(world, tmp_path)
    leaver = sorted(asked(world, fleet.bundle))[0]
    assert value(world, rollout_id).wave == 1

    relabel(world, leaver, hardware="b")

    with world.services.db.read() as connection:
        summed = sum(one.members - one.assigned for one in evidence_tally.by_wave(connection, rollout_id).values())
        waiting = sa.select(sa.func.count()).select_from(ROLLOUT_MEMBER).where(ROLLOUT_MEMBER.c.counter.is_(None))
        assert summed == connection.scalar(waiting)
    fleet.tick(20)
    with world.services.db.read() as connection:
        quiet = evidence_tally.read(connection, value(world, rollout_id), world.clock()).quiet
        began = connection.scalar(sa.select(ROLLOUT_MEMBER.c.began_at).where(ROLLOUT_MEMBER.c.device_id == leaver))
    assert began is not None
    assert (quiet.due, quiet.missing) == (quiet.exposed - 1, 0)


def test_a_device_that_is_labelled_into_the_selection_joins(world: World, tmp_path: Path) -> None:
    _, rollout_id = select(world, tmp_path)

    relabel(world, "d00001", hardware="a", site="s1")

    course = value(world, rollout_id).course
    assert course is not None
    assert course.sizes[-1] == 31
    assert cumulative(world, rollout_id) == list(course.sizes)
