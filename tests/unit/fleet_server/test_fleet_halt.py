"""The fleet halt on the server: signed, kept, queued, logged; nothing is decided or assigned until it is lifted."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from edgefleet.errors import InputError
from edgefleet.halt import HaltPayload, open_halt
from edgefleet.messages import Halt, decode
from edgefleet.signing import PublicKey
from edgefleet.topics import HALT
from fleet_server import audit, queries, usecases
from fleet_server.errors import ConflictError
from fleet_server.halting import halt_fleet, lift_halt
from fleet_server.rollout.standstill import stood_still
from fleet_server.scheduler.relay import Relay
from fleet_server.store import halts, looks
from fleet_server.store.tables import OUTBOX, ROLLOUT
from tests.unit.fleet_server.rollout_world import at, in_wave_two
from tests.unit.fleet_server.server_world import OPERATOR, POLICY, World, make_bundle
from tests.unit.fleet_server.steered import complete, start, tick, wanting


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    opened = World.open(tmp_path / "data")
    for number in range(4):
        device = opened.enroll(f"d{number}", tmp_path)
        opened.receive(device.presence(), device.heartbeat())
    yield opened
    opened.close()


def waiting_document(world: World) -> HaltPayload:
    with world.services.db.read() as connection:
        content = connection.scalar(sa.select(OUTBOX.c.payload).where(OUTBOX.c.topic == HALT))
    assert content is not None
    return open_halt(decode(Halt, content), PublicKey(world.services.director.public.hex), "fleet")


def act(world: World, rollout_id: str, action: str) -> None:
    version = queries.rollout(world.services.db, rollout_id, world.clock()).version
    usecases.rollout_action(world.services, rollout_id, action, version=version, reason="", actor=OPERATOR)


def test_a_halt_is_signed_queued_for_the_whole_fleet_and_logged(world: World) -> None:
    shown = halt_fleet(world.services, reason="fire in the hall", actor=OPERATOR)

    document = waiting_document(world)
    assert (document.halted, document.reason, document.ordered_by) == (True, "fire in the hall", "olga")
    assert shown.halted
    assert "0 of 4 devices" in shown.sentence
    with world.services.db.read() as connection:
        assert audit.verify(connection) > 0
    assert [e.action for e in queries.recent_events(world.services.db)].count("fleet-halt") == 1


def test_each_document_has_a_higher_counter_also_when_the_clock_goes_back(world: World) -> None:
    first = halt_fleet(world.services, reason="a", actor=OPERATOR).counter
    world.clock.move(-3_600)
    second = lift_halt(world.services, reason="b", actor=OPERATOR).counter
    third = halt_fleet(world.services, reason="c", actor=OPERATOR).counter

    assert first < second < third


def test_a_halted_fleet_gives_nobody_a_release_and_goes_on_after_the_lift(world: World, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b1")
    rollout_id = start(world, world.push(bundle), waves=[1, "100%"])
    (first,) = wanting(world, bundle)
    halt_fleet(world.services, reason="fire", actor=OPERATOR)
    world.receive(*world.devices[first].install(bundle))
    tick(world, 4.0)
    world.receive(world.devices[first].window(bundle))
    tick(world, 1.0)
    assert wanting(world, bundle) == {first}

    lift_halt(world.services, reason="out", actor=OPERATOR)

    complete(world, rollout_id, bundle)


def test_a_rollout_that_cannot_be_read_keeps_nobody_from_lifting_the_halt(world: World, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b1")
    rollout_id = start(world, world.push(bundle), waves=[1, "100%"])
    halt_fleet(world.services, reason="fire", actor=OPERATOR)
    with world.services.db.write() as connection:
        connection.execute(sa.update(ROLLOUT).where(ROLLOUT.c.rollout_id == rollout_id).values(engine='{"rollout_id": 7}', due_at=None))

    lift_halt(world.services, reason="out", actor=OPERATOR)

    with world.services.db.read() as connection:
        assert not halts.is_halted(connection, world.services.config.fleet)
        assert looks.any_due(connection, world.services.now_us())
    tick(world)


def test_a_hold_does_not_run_out_while_the_fleet_is_halted(world: World, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b1")
    rollout_id = start(world, world.push(bundle))
    halt_fleet(world.services, reason="fire", actor=OPERATOR)
    tick(world, 10 * POLICY["hold_s"])
    lift_halt(world.services, reason="out", actor=OPERATOR)
    tick(world)
    assert queries.rollout(world.services.db, rollout_id, world.clock()).state == "running"

    tick(world, POLICY["hold_s"] + 1)

    assert queries.rollout(world.services.db, rollout_id, world.clock()).state == "paused"


def test_nothing_starts_or_goes_on_while_halted_and_the_refusal_says_since_when_and_by_whom(world: World, tmp_path: Path) -> None:
    view = usecases.create_rollout(
        world.services, release_id=world.push(make_bundle(tmp_path / "b1")), policy=POLICY, selection={}, actor=OPERATOR
    )
    halt_fleet(world.services, reason="fire", actor=OPERATOR)

    with pytest.raises(ConflictError, match=r"cannot start: the fleet is halted since 2026-03-01 12:00 UTC by olga \(fire\)"):
        act(world, view.rollout_id, "start")


def test_a_halt_is_told_in_whole_sentences_and_an_aborted_rollout_goes_back_if_anywhere(world: World, tmp_path: Path) -> None:
    rollout_id = start(world, world.push(make_bundle(tmp_path / "b1")))
    act(world, rollout_id, "abort")

    shown = [halt_fleet(world.services, reason=reason, actor=OPERATOR) for reason in ("fire", "Fire in hall 3.")]

    assert shown[0].sentence.startswith("Halted by olga: fire. Nothing begins on any device; ")
    assert shown[1].sentence.startswith("Halted by olga: Fire in hall 3. Nothing begins")
    assert [(row.state, row.is_rollback) for row in shown[0].pending] == [("aborted", True)]


def test_a_roll_back_during_the_halt_waits_for_the_lift_and_is_listed_first(world: World, tmp_path: Path) -> None:
    old, new = (make_bundle(tmp_path / f"b{n}", str(n)) for n in range(2))
    complete(world, start(world, world.push(old)), old)
    rollout_id = start(world, world.push(new, "2"), waves=["100%"])
    for device_id in sorted(wanting(world, new)):
        world.receive(*world.devices[device_id].install(new))
    tick(world)
    halt_fleet(world.services, reason="fire", actor=OPERATOR)
    act(world, rollout_id, "roll-back")
    tick(world, 1.0)
    assert wanting(world, old) == set()

    shown = lift_halt(world.services, reason="out", actor=OPERATOR)
    assert next((row.rollout_id, row.is_rollback) for row in shown.pending) == (rollout_id, True)
    tick(world)
    assert wanting(world, old) == set(world.devices)


def test_a_lift_of_a_fleet_that_is_not_halted_is_refused(world: World) -> None:
    with pytest.raises(ConflictError, match="not halted"):
        lift_halt(world.services, reason="out", actor=OPERATOR)


@pytest.mark.parametrize("reason", ["", "   ", "x" * 501])
def test_a_halt_needs_a_reason_that_people_can_read(world: World, reason: str) -> None:
    with pytest.raises(InputError, match="expected 1 to 500"):
        halt_fleet(world.services, reason=reason, actor=OPERATOR)


class EmptyBroker:
    """A broker that has forgotten everything and confirms all; keeps what it is given."""

    connected = True

    def __init__(self) -> None:
        self.retained: dict[str, bytes] = {}

    def publish_all(self, messages: list[tuple[str, bytes]], timeout_s: float) -> list[bool]:
        self.retained |= dict(messages)
        return [True] * len(messages)


def test_a_broker_that_forgot_everything_is_told_of_the_halt_again(world: World) -> None:
    halt_fleet(world.services, reason="fire", actor=OPERATOR)
    document, broker = waiting_document(world), EmptyBroker()

    Relay(world.services, broker).publish_everything()

    found = decode(Halt, broker.retained[HALT])
    assert open_halt(found, world.services.director.public, "fleet") == document


def test_after_a_standstill_batches_and_patience_go_on_where_they_were() -> None:
    rollout = in_wave_two()
    since, until = at(15), at(15) + timedelta(days=2)

    moved = stood_still(rollout, since, until)

    assert moved.opened_at[0] == rollout.opened_at[0]
    assert moved.opened_at[1] - rollout.opened_at[1] == timedelta(days=2)
    assert moved.hold_since is not None
    assert rollout.hold_since is not None
    assert moved.hold_since - rollout.hold_since == timedelta(days=2)
    assert stood_still(rollout, until, since) == rollout


def test_a_clock_that_began_within_the_standstill_moves_to_its_end() -> None:
    rollout = in_wave_two()

    moved = stood_still(rollout, at(-50), at(100))

    assert moved.opened_at[1] == at(100)


def test_a_halt_comes_first_of_what_needs_a_person_until_it_is_lifted(world: World) -> None:
    halt_fleet(world.services, reason="fire", actor=OPERATOR)
    shown = queries.overview(world.services.db, world.clock()).needs_you
    assert [(line.severity, line.sentence) for line in shown] == [("halt", "The fleet is halted: fire")]

    lift_halt(world.services, reason="out", actor=OPERATOR)

    assert queries.overview(world.services.db, world.clock()).needs_you == []


def test_the_overview_tells_the_price_of_many_rollouts(world: World, tmp_path: Path) -> None:
    view = usecases.create_rollout(
        world.services, release_id=world.push(make_bundle(tmp_path / "b1")), policy=POLICY, selection={}, actor=OPERATOR
    )
    with world.services.db.write() as connection:
        row = connection.execute(sa.select(ROLLOUT).where(ROLLOUT.c.rollout_id == view.rollout_id)).one()._mapping
        copies = [{**row, "rollout_id": f"r-{n}", "state": "completed"} for n in range(30)]
        connection.execute(sa.insert(ROLLOUT), copies)

    notes = queries.overview(world.services.db, world.clock()).notes

    assert any("1.5 good releases a year are stopped by chance" in note for note in notes)
