"""A device that is taken out of the fleet: what it holds stops working, its log stays, and no rollout gets better by it."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from edgefleet.errors import InputError, StorageError
from edgefleet.topics import device_topic
from fleet_server import auth, queries, usecases
from fleet_server.errors import ConflictError
from fleet_server.queries import NotFoundError
from fleet_server.read_models import RolloutView
from fleet_server.removing import Removed, remove_device
from fleet_server.sampling import Whom, order_sampling
from fleet_server.scheduler.relay import Relay
from fleet_server.store import aside, rollouts, tokens
from fleet_server.store.tables import DESIRED, ROLLOUT_MEMBER
from tests.unit.fleet_server.server_world import OPERATOR, MadeBundle, SimulatedDevice, World, make_bundle
from tests.unit.fleet_server.steered import complete, small_fleet, start, tick, wanting


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    yield from small_fleet(tmp_path, 5, lambda number: {"site": "north", "hall": str(number % 2)})


def remove(world: World, device_id: str) -> Removed:
    return remove_device(world.services, device_id, reason="the press was scrapped", actor=OPERATOR)


def view(world: World, rollout_id: str) -> RolloutView:
    return queries.rollout(world.services.db, rollout_id, world.clock())


def wave(world: World, rollout_id: str) -> int:
    with world.services.db.read() as connection:
        stored = rollouts.load(connection, rollout_id)
    assert stored is not None
    return stored.rollout.wave


def act(world: World, rollout_id: str, action: str) -> None:
    version = view(world, rollout_id).version
    usecases.rollout_action(world.services, rollout_id, action, version=version, reason="", actor=OPERATOR)
    tick(world)


def asked(world: World, bundle: MadeBundle) -> SimulatedDevice:
    (device_id,) = wanting(world, bundle) - {d for d, one in world.devices.items() if one.running == bundle.digest}
    return world.devices[device_id]


class Taken:
    """A broker that takes everything."""

    connected = True

    def __init__(self) -> None:
        self.messages: list[tuple[str, bytes]] = []

    def publish_all(self, messages: list[tuple[str, bytes]], timeout_s: float) -> list[bool]:
        assert timeout_s > 0
        self.messages += messages
        return [True] * len(messages)


def test_token_password_and_retained_documents_of_a_removed_device_are_gone_and_its_log_is_readable(
    world: World, bundle: MadeBundle, tmp_path: Path
) -> None:
    start(world, world.push(bundle))
    device = asked(world, bundle)
    with world.services.db.write() as connection:
        secret = auth.issue_token(connection, world.services.now_us(), "a device", "device", device.device_id)

    done = remove(world, device.device_id)

    with world.services.db.read() as connection:
        assert tokens.find(connection, auth.digest(secret), world.services.now_us()) is None
        assert connection.execute(sa.select(DESIRED).where(DESIRED.c.device_id == device.device_id)).first() is None
    broker = Taken()
    relay = Relay(world.services, broker)
    relay.publish_waiting()
    cleared = {topic for topic, payload in broker.messages if not payload}
    assert cleared == {device_topic(device.device_id, leaf) for leaf in ("desired", "acked", "reported", "presence")}
    broker.messages.clear()
    relay.publish_everything()
    assert not [topic for topic, _ in broker.messages if device.device_id in topic]
    shown = queries.device(world.services.db, device.device_id, world.clock())
    assert shown.device.removed_at == done.removed_at
    assert "Removed from the fleet on 2026-03-01" in shown.device.why
    assert any("the press was scrapped" in event.detail for event in shown.events)
    assert device.device_id not in {row.device_id for row in queries.devices(world.services.db, world.clock())}
    assert device.device_id in view(world, next(iter(done.rollouts))).events[0].detail


def test_the_broker_password_goes_with_the_device_and_without_that_nothing_happens(tmp_path: Path) -> None:
    passwords = tmp_path / "passwords"
    opened = World.open(tmp_path / "data", mosquitto_password_file=passwords)
    try:
        opened.enroll("d0", tmp_path)
        opened.enroll("d1", tmp_path)
        passwords.rename(tmp_path / "elsewhere")
        passwords.mkdir()
        with pytest.raises(StorageError, match="could still reach the broker, so it stays"):
            remove(opened, "d0")
        assert queries.device(opened.services.db, "d0", opened.clock()).device.removed_at is None

        passwords.rmdir()
        (tmp_path / "elsewhere").rename(passwords)
        remove(opened, "d0")

        assert [line.partition(":")[0] for line in passwords.read_text().splitlines()] == ["d1"]
    finally:
        opened.close()


def test_what_a_removed_device_still_says_is_refused_and_counted(world: World, bundle: MadeBundle) -> None:
    world.push(bundle)
    device = world.devices["d0"]
    remove(world, "d0")

    acked = world.receive(device.heartbeat(), device.reported("idle"), device.window(bundle), device.message("presence", b""))

    assert acked == {}
    with world.services.db.read() as connection:
        assert aside.tallies(connection) == {"removed-device": 3}  # an empty message only clears a topic
    assert queries.device(world.services.db, "d0", world.clock()).device.rows_total == 0


def test_removing_the_only_device_of_an_open_wave_pauses_and_a_resume_does_not_make_it_evidence(world: World, bundle: MadeBundle) -> None:
    rollout_id = start(world, world.push(bundle))
    device = asked(world, bundle)
    world.receive(*device.install(bundle), device.window(bundle))
    world.clock.move(4.0)
    world.receive(device.heartbeat())

    remove(world, device.device_id)
    tick(world)

    shown = view(world, rollout_id)
    assert (shown.state, wave(world, rollout_id)) == ("paused", 1)
    assert f"Pause: 1 device was removed from the fleet: {device.device_id}." in shown.sentence
    act(world, rollout_id, "resume")
    assert view(world, rollout_id).sentence == "Hold: wave 1 has no device that is ok, and nobody is no evidence."
    tick(world, 200.0)
    assert (view(world, rollout_id).state, wave(world, rollout_id)) == ("paused", 1)


def test_a_rollout_goes_on_without_a_removed_device_once_a_person_says_so(world: World, bundle: MadeBundle) -> None:
    rollout_id = start(world, world.push(bundle))
    first = asked(world, bundle)
    world.receive(*first.install(bundle), first.window(bundle))
    tick(world, 4.0)
    world.receive(first.heartbeat())
    tick(world, 1.0)
    waiting = sorted(wanting(world, bundle) - {first.device_id})
    assert len(waiting) == 2

    remove(world, waiting[0])
    tick(world)
    assert view(world, rollout_id).state == "paused"
    act(world, rollout_id, "resume")

    complete(world, rollout_id, bundle)
    assert world.devices[waiting[0]].running == ""


def test_a_device_that_is_removed_before_its_wave_opens_is_left_out_and_nobody_is_asked_about_it(world: World, bundle: MadeBundle) -> None:
    rollout_id = start(world, world.push(bundle))
    last = view(world, rollout_id).waves[-1].members[0].device_id

    assert remove(world, last).rollouts == {rollout_id: "its wave is not open yet, and will go without it"}

    complete(world, rollout_id, bundle)


def test_a_failure_stays_one_when_the_device_is_removed(world: World, bundle: MadeBundle) -> None:
    rollout_id = start(world, world.push(bundle), max_explicit_failures_before_abort=1)
    device = asked(world, bundle)
    world.receive(*device.fail(bundle))
    tick(world)
    assert view(world, rollout_id).state == "paused"

    remove(world, device.device_id)
    tick(world)

    member = view(world, rollout_id).waves[0].members[0]
    assert (member.progress, member.reason) == ("failed", "rolled-back: disagrees with the running model")
    act(world, rollout_id, "resume")
    assert wave(world, rollout_id) == 1
    assert "nobody is no evidence" in view(world, rollout_id).sentence


def test_a_quarantine_that_only_the_last_report_told_stays_a_failure(world: World, bundle: MadeBundle) -> None:
    rollout_id = start(world, world.push(bundle))
    device = asked(world, bundle)
    device.quarantined, device.counter = [bundle.digest], 0  # it has not heard of the assignment, and refuses the bundle already
    world.receive(device.reported("idle"))

    remove(world, device.device_id)

    with world.services.db.read() as connection:
        row = connection.execute(sa.select(ROLLOUT_MEMBER).where(ROLLOUT_MEMBER.c.device_id == device.device_id)).one()
    assert (row.failure, row.active) == ("quarantined: this bundle failed here", False)
    tick(world)
    assert view(world, rollout_id).state == "paused"


def test_a_rollback_does_not_wait_for_a_removed_device(world: World, bundle: MadeBundle, tmp_path: Path) -> None:
    complete(world, start(world, world.push(bundle)), bundle)
    newer = make_bundle(tmp_path / "newer", "two")
    rollout_id = start(world, world.push(newer, "2"))
    device = asked(world, newer)
    world.receive(*device.install(newer))

    remove(world, device.device_id)
    act(world, rollout_id, "roll-back")

    assert view(world, rollout_id).state == "rolled-back"


def test_nothing_can_be_ordered_of_a_removed_device(world: World) -> None:
    remove(world, "d0")

    with pytest.raises(ConflictError, match=r"device 'd0' was removed from the fleet at 2026-03-01 12:00 UTC; nothing was changed"):
        remove(world, "d0")
    until = world.clock() + timedelta(hours=1)
    with pytest.raises(NotFoundError, match="d0"):
        order_sampling(world.services, Whom(device_ids=["d0"]), rows_per_hour=1, redact=[], bytes_per_day=1, until=until, actor=OPERATOR)


@pytest.mark.parametrize(
    ("device_id", "reason", "error", "words"),
    [
        ("d9", "because", NotFoundError, "d9"),
        ("../x", "because", InputError, "device id"),
        ("d0", "  ", InputError, "the reason has 0 characters, expected 1 to 500"),
        ("d0", "x" * 501, InputError, "the reason has 501 characters"),
    ],
)
def test_a_removal_that_names_nothing_or_no_reason_is_refused(
    world: World, device_id: str, reason: str, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        remove_device(world.services, device_id, reason=reason, actor=OPERATOR)

    assert len(queries.devices(world.services.db, world.clock())) == 5


def test_a_removed_device_is_in_no_later_selection_and_no_queue(world: World, bundle: MadeBundle) -> None:
    remove(world, "d0")

    created = usecases.create_rollout(
        world.services, release_id=world.push(bundle), policy={"name": "all"} | QUEUE, selection={"hall": "0"}, actor=OPERATOR
    )

    assert sorted(one.device_id for wave in created.waves for one in wave.members) == ["d2", "d4"]


QUEUE: dict[str, Any] = {"soak_s": 1.0, "soak_rows": 0, "deadline_s": 60.0, "hold_s": 60.0, "waves": ["100%"], "on_conflict": "queue"}


@pytest.mark.parametrize("evidence", ["unanimous", "posterior"])
@pytest.mark.parametrize("action", ["abort", "roll-back", "resume"])
def test_nothing_is_left_to_do_with_an_aborted_rollout_whose_devices_were_all_removed_and_that_is_said(
    world: World, bundle: MadeBundle, evidence: str, action: str
) -> None:
    rollout_id = start(world, world.push(bundle), waves=["100%"], evidence=evidence, dwell_s=10.0)
    act(world, rollout_id, "abort")
    for device_id in world.devices:
        remove(world, device_id)

    with pytest.raises(ConflictError, match=r"devices of rollout .* were all removed from the fleet; there is nothing left to act on here"):
        act(world, rollout_id, action)
    refused = {one.name: one.refused for one in view(world, rollout_id).actions}
    assert refused["roll-back"] == "Its devices were all removed from the fleet."


def test_a_running_rollout_whose_devices_were_all_removed_is_aborted_by_a_person(world: World, bundle: MadeBundle) -> None:
    rollout_id = start(world, world.push(bundle), waves=["100%"])
    for device_id in world.devices:
        remove(world, device_id)

    assert {one.name: one.refused for one in view(world, rollout_id).actions}["abort"] == ""
    act(world, rollout_id, "abort")
    assert view(world, rollout_id).state == "aborted"


def test_of_an_aborted_rollout_both_the_removed_devices_and_those_of_a_later_one_are_named(
    world: World, bundle: MadeBundle, tmp_path: Path
) -> None:
    old = start(world, world.push(bundle), waves=["100%"])
    act(world, old, "abort")
    remove(world, "d0")
    start(world, world.push(make_bundle(tmp_path / "next", "2"), "2"))

    with pytest.raises(ConflictError, match=r"belong to a later rollout, 1 of 5 were removed from the fleet; there is nothing left"):
        act(world, old, "roll-back")
