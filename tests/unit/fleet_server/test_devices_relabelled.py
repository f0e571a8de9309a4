"""Other labels for a device, and a quarantine that is lifted: checked, logged, and without an effect on what was decided before."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgefleet.desired import open_desired
from edgefleet.errors import InputError
from edgefleet.messages import Desired, decode
from edgefleet.signing import PublicKey
from fleet_server import queries, usecases
from fleet_server.errors import ConflictError
from fleet_server.queries import NotFoundError
from fleet_server.relabelling import replace_labels, set_labels
from fleet_server.removing import remove_device
from fleet_server.store import assignments
from fleet_server.unquarantining import Lifted, lift_quarantine
from tests.unit.fleet_server.server_world import OPERATOR, MadeBundle, World, make_bundle
from tests.unit.fleet_server.steered import complete, small_fleet, start, tick, wanting

BEFORE = {"site": "north", "line": "1"}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    yield from small_fleet(tmp_path, 3, lambda _: BEFORE)


def labels(world: World, device_id: str = "d0") -> dict[str, str]:
    return queries.device(world.services.db, device_id, world.clock()).device.labels


def newest(world: World) -> str:
    return queries.recent_events(world.services.db, 1)[0].detail


def test_single_labels_are_set_and_dropped_and_the_others_stay(world: World) -> None:
    after = set_labels(world.services, "d0", put={"site": "south", "hall": "3"}, drop=["line"], reason="it was moved", actor=OPERATOR)

    assert after == labels(world) == {"site": "south", "hall": "3"}
    assert "line=1, site=north became hall=3, site=south: it was moved" in newest(world)


def test_all_labels_are_replaced_if_they_are_still_what_was_seen(world: World) -> None:
    replace_labels(world.services, "d0", labels={"site": "south"}, were=BEFORE, reason="moved", actor=OPERATOR)
    assert labels(world) == {"site": "south"}

    with pytest.raises(ConflictError, match="device 'd0' has other labels by now: site=south"):
        replace_labels(world.services, "d0", labels={}, were=BEFORE, reason="moved", actor=OPERATOR)
    assert labels(world) == {"site": "south"}


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"put": {}}, "no label is named"),
        ({"put": {"site": "x"}, "drop": ["site"]}, "label 'site' is to be set and to be dropped"),
        ({"put": {}, "drop": ["lime"]}, "device 'd0' has no label 'lime'; its labels: line, site"),
        ({"put": {"site": ""}}, "label site='' is not accepted"),
        ({"put": {"a b": "x"}}, "label"),
        ({"put": {f"k{n}": "v" for n in range(31)}}, "33 labels exceed the limit of 32"),
        ({"put": {"site": "x"}, "reason": ""}, "the reason has 0 characters"),
    ],
)
def test_labels_that_cannot_be_are_refused_and_nothing_changes(world: World, how: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        set_labels(world.services, "d0", **({"reason": "because"} | how), actor=OPERATOR)

    assert labels(world) == BEFORE


def test_an_unknown_or_removed_device_is_not_relabelled(world: World) -> None:
    remove_device(world.services, "d0", reason="scrapped", actor=OPERATOR)

    with pytest.raises(NotFoundError, match="d9"):
        set_labels(world.services, "d9", put={"site": "x"}, reason="because", actor=OPERATOR)
    with pytest.raises(ConflictError, match="was removed from the fleet"):
        set_labels(world.services, "d0", put={"site": "x"}, reason="because", actor=OPERATOR)


def test_the_same_labels_again_leave_no_line_in_the_log(world: World) -> None:
    before = newest(world)

    set_labels(world.services, "d0", put={"site": "north"}, reason="because", actor=OPERATOR)

    assert newest(world) == before


def test_a_rollout_that_names_its_devices_keeps_a_relabelled_one_and_a_later_one_does_not(
    world: World, bundle: MadeBundle, tmp_path: Path
) -> None:
    release_id = world.push(bundle)
    policy = {"name": "p", "soak_s": 1.0, "soak_rows": 0, "deadline_s": 60.0, "hold_s": 60.0, "waves": ["100%"]}
    first = usecases.create_rollout(world.services, release_id=release_id, policy=policy, selection={"site": "north"}, actor=OPERATOR)

    set_labels(world.services, "d0", put={"site": "south"}, reason="moved", actor=OPERATOR)

    usecases.rollout_action(world.services, first.rollout_id, "start", version=first.version, reason="", actor=OPERATOR)
    tick(world)
    assert wanting(world, bundle) == {"d0", "d1", "d2"}
    newer = world.push(make_bundle(tmp_path / "newer", "two"), "2")
    usecases.rollout_action(world.services, first.rollout_id, "abort", version=version(world, first.rollout_id), reason="", actor=OPERATOR)
    later = usecases.create_rollout(world.services, release_id=newer, policy=policy, selection={"site": "north"}, actor=OPERATOR)
    assert sorted(one.device_id for one in later.waves[0].members) == ["d1", "d2"]


def version(world: World, rollout_id: str) -> int:
    return queries.rollout(world.services.db, rollout_id, world.clock()).version


def failed_once(world: World, bundle: MadeBundle) -> str:
    """A rollout on one device of which it fails; the device."""
    rollout_id = start(world, world.push(bundle), waves=[1, "100%"])
    (device_id,) = wanting(world, bundle)
    world.receive(*world.devices[device_id].fail(bundle))
    tick(world)
    usecases.rollout_action(world.services, rollout_id, "abort", version=version(world, rollout_id), reason="", actor=OPERATOR)
    tick(world)
    world.desired(device_id)
    world.receive(world.devices[device_id].reported("idle"))
    return device_id


def lift(world: World, device_id: str, bundle: str) -> Lifted:
    return lift_quarantine(world.services, device_id, bundle=bundle, reason="the sensor was mended", actor=OPERATOR)


def lifted(world: World, device_id: str) -> dict[str, int]:
    """What the signed document says to the device."""
    with world.services.db.read() as connection:
        content = dict(assignments.desired_after(connection, "", 100))[device_id]
    director = PublicKey(world.services.director.public.hex)
    return open_desired(decode(Desired, content), director, "fleet", device_id).lifted


def test_a_lifted_quarantine_travels_signed_until_the_device_answers_and_the_bundle_is_asked_for_again(
    world: World, bundle: MadeBundle
) -> None:
    device_id = failed_once(world, bundle)
    device = world.devices[device_id]
    with pytest.raises(ConflictError, match="failed before on all 1 selected devices"):
        only(world, bundle, device_id)

    done = lift(world, device_id, bundle.digest[:8])

    assert lifted(world, device_id) == {bundle.digest: done.counter}
    shown = queries.device(world.services.db, device_id, world.clock())
    assert shown.device.lifting == [bundle.digest]
    assert f"bundle {bundle.digest[:12]} may be tried again: the sensor was mended" in {event.detail for event in shown.events}
    rollout_id = only(world, bundle, device_id)  # before the device has heard
    usecases.rollout_action(world.services, rollout_id, "start", version=version(world, rollout_id), reason="", actor=OPERATOR)
    tick(world)
    assert device_id in wanting(world, bundle)
    assert queries.rollout(world.services.db, rollout_id, world.clock()).state == "running"
    assert lifted(world, device_id) == {bundle.digest: done.counter}

    device.quarantined.clear()
    world.receive(*device.install(bundle))

    assert queries.device(world.services.db, device_id, world.clock()).device.lifting == []
    world.receive(device.window(bundle))
    complete(world, rollout_id, bundle)


def test_a_bundle_that_fails_again_after_the_lift_is_refused_again(world: World, bundle: MadeBundle) -> None:
    device_id = failed_once(world, bundle)
    done = lift(world, device_id, bundle.digest)
    world.devices[device_id].counter = done.counter

    world.receive(world.devices[device_id].reported("quarantined", bundle.digest, "again"))

    with pytest.raises(ConflictError, match="failed before on all 1 selected devices"):
        only(world, bundle, device_id)
    assert lift(world, device_id, bundle.digest).counter > done.counter


def only(world: World, bundle: MadeBundle, device_id: str) -> str:
    """A rollout to one device."""
    release_id = queries.releases(world.services.db)[0].release_id
    set_labels(world.services, device_id, put={"alone": "yes"}, reason="a test", actor=OPERATOR)
    policy = {"name": "one", "soak_s": 3.0, "soak_rows": 20, "deadline_s": 60.0, "hold_s": 600.0, "waves": ["100%"]}
    view = usecases.create_rollout(world.services, release_id=release_id, policy=policy, selection={"alone": "yes"}, actor=OPERATOR)
    return view.rollout_id


def test_a_lift_takes_no_failure_back_from_a_rollout(world: World, bundle: MadeBundle) -> None:
    rollout_id = start(world, world.push(bundle), waves=["100%"], max_explicit_failures_before_abort=2)
    device = world.devices["d0"]
    world.desired("d0")
    world.receive(*device.fail(bundle))
    tick(world)

    done = lift(world, "d0", bundle.digest)
    device.counter, device.quarantined = done.counter, []
    world.receive(device.reported("downloading", bundle.digest))
    tick(world)

    shown = queries.rollout(world.services.db, rollout_id, world.clock())
    assert shown.state == "paused"
    assert [one.progress for one in shown.waves[0].members if one.device_id == "d0"] == ["failed"]


def test_what_cannot_be_lifted_is_refused_with_what_there_is(world: World, bundle: MadeBundle) -> None:
    device_id = failed_once(world, bundle)
    other = next(name for name in world.devices if name != device_id)

    with pytest.raises(InputError, match=f"bundle {bundle.digest[:12]} did not fail there: '{other}' lists none"):
        lift(world, other, bundle.digest)
    with pytest.raises(InputError, match=f"did not fail there: '{device_id}' lists {bundle.digest[:12]}"):
        lift(world, device_id, "0" * 64)
    with pytest.raises(InputError, match="is no digest; give its 64 characters, or at least the first 8"):
        lift(world, device_id, bundle.digest[:7])
    lift(world, device_id, bundle.digest)
    with pytest.raises(ConflictError, match="was lifted already; the device has not answered yet"):
        lift(world, device_id, bundle.digest)
