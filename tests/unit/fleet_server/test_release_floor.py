"""The release floor: it only rises, stops what is below it, and nobody is given anything older, neither forward nor on a way back."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from edgefleet.cli.devices_show import print_device
from edgefleet.desired import open_desired
from edgefleet.errors import InputError
from edgefleet.messages import Desired, decode, encode
from fleet_server import audit, planning, queries, usecases
from fleet_server.errors import ConflictError
from fleet_server.flooring import FloorView, floor_of, raise_floor
from fleet_server.queries import NotFoundError
from fleet_server.scheduler import telling
from fleet_server.scheduler.loop import Scheduler
from fleet_server.store.tables import ASSIGNMENT, DEAD_LETTER, DESIRED, EVENT, ROLLOUT
from tests.unit.fleet_server.server_world import OPERATOR, POLICY, PROJECT, MadeBundle, World, make_bundle
from tests.unit.fleet_server.steered import complete, small_fleet, start, tick, wanting

AT_ONCE = ["100%"]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    yield from small_fleet(tmp_path, 3, lambda _: {"site": "hall"})


@pytest.fixture
def releases(world: World, tmp_path: Path) -> list[tuple[str, MadeBundle]]:
    """Three releases, with counters 1 to 3."""
    made = [make_bundle(tmp_path / f"b{number}", str(number)) for number in (1, 2, 3)]
    return [(world.push(bundle, str(number)), bundle) for number, bundle in enumerate(made, start=1)]


def raised(world: World, release_id: str, reason: str = "a hole in the reader") -> FloorView:
    return raise_floor(world.services, PROJECT, release_id=release_id, reason=reason, actor=OPERATOR)


def act(world: World, rollout_id: str, action: str) -> None:
    version = queries.rollout(world.services.db, rollout_id, world.clock()).version
    usecases.rollout_action(world.services, rollout_id, action, version=version, reason="", actor=OPERATOR)


def planned(world: World, release_id: str, **changes: Any) -> str:
    view = usecases.create_rollout(world.services, release_id=release_id, policy=POLICY | changes, selection={}, actor=OPERATOR)
    return view.rollout_id


def log(world: World, subject: str) -> list[tuple[str, str]]:
    with world.services.db.read() as connection:
        audit.verify(connection)
        return [(row.action, row.detail) for row in connection.execute(sa.select(EVENT).where(EVENT.c.subject == subject))]


def test_a_floor_is_raised_with_a_reason_in_the_log_and_never_lowered(world: World, releases: list[tuple[str, MadeBundle]]) -> None:
    assert floor_of(world.services, PROJECT).counter == 0

    view = raised(world, releases[1][0])

    assert (view.counter, view.release_id, view.raised_by) == (2, releases[1][0], OPERATOR.name)
    assert ("raise-floor", "from 0 to 2 (2): a hole in the reader") in log(world, PROJECT)
    for number in (0, 1):
        with pytest.raises(
            ConflictError, match=f"the floor of {PROJECT} is 2, release .* has counter {number + 1}: a floor is never lowered"
        ):
            raised(world, releases[number][0])
    assert floor_of(world.services, PROJECT) == view


def test_a_rollout_that_cannot_be_read_keeps_no_floor_where_it_is(world: World, releases: list[tuple[str, MadeBundle]]) -> None:
    rollout_id = planned(world, releases[0][0], waves=AT_ONCE)
    act(world, rollout_id, "start")
    with world.services.db.write() as connection:
        connection.execute(sa.update(ROLLOUT).where(ROLLOUT.c.rollout_id == rollout_id).values(engine="{"))

    assert raised(world, releases[1][0]).counter == 2


def test_nothing_below_it_is_planned_or_started(world: World, releases: list[tuple[str, MadeBundle]]) -> None:
    old, _ = releases[0]
    draft = planned(world, old)
    raised(world, releases[1][0])

    for refused in (
        lambda: planned(world, old),
        lambda: planning.plan(world.services.db, world.clock(), release_id=old, policy=POLICY, selection={}),
        lambda: act(world, draft, "start"),
    ):
        with pytest.raises(ConflictError, match=r"has counter 1, the release floor of .* is 2; .* raised it to release .*a hole"):
            refused()
    act(world, draft, "abort")
    assert planned(world, releases[1][0])


def test_a_rollout_that_is_under_way_below_it_is_paused_and_only_ends(world: World, releases: list[tuple[str, MadeBundle]]) -> None:
    (old, bundle), (newer, _), _ = releases
    rollout_id = start(world, old, waves=[1, "100%"])
    assert len(wanting(world, bundle)) == 1

    view = raised(world, newer)

    assert view.paused == (rollout_id,)
    assert view.devices_below == 1
    tick(world, 60.0)
    assert len(wanting(world, bundle)) == 1
    assert "the release floor was raised to 2" in queries.rollout(world.services.db, rollout_id, world.clock()).sentence
    with pytest.raises(ConflictError, match=r"cannot resume: release .* has counter 1"):
        act(world, rollout_id, "resume")
    act(world, rollout_id, "abort")


def test_a_way_back_that_lies_below_it_is_not_taken_and_a_person_is_told(world: World, releases: list[tuple[str, MadeBundle]]) -> None:
    (first, one), (second, two), _ = releases
    complete(world, start(world, first, waves=AT_ONCE), one)
    rollout_id = start(world, second, waves=AT_ONCE)
    raised(world, second)

    act(world, rollout_id, "roll-back")
    tick(world)

    with world.services.db.read() as connection:
        assert first not in set(connection.scalars(sa.select(ASSIGNMENT.c.release_id)))
    assert wanting(world, one) == wanting(world, two) == set()
    kept = [detail for action, detail in log(world, "d0") if action == "go-keep"]
    assert len(kept) == 1
    assert "no completed release at or above the floor" in kept[0]


def test_a_way_back_goes_to_the_baseline_where_only_that_is_above_the_floor(world: World, releases: list[tuple[str, MadeBundle]]) -> None:
    (first, one), (second, two), (third, _) = releases
    complete(world, start(world, first, waves=AT_ONCE), one)
    rollout_id = start(world, third, waves=AT_ONCE, baseline=second)
    raised(world, second)

    act(world, rollout_id, "roll-back")
    tick(world)

    assert wanting(world, two) == set(world.devices)


def tell(world: World) -> dict[str, dict[str, int]]:
    """The scheduler tells the floor; what the documents of the devices say about it."""
    Scheduler(world.services, None).tell_floors()
    with world.services.db.read() as connection:
        documents = connection.execute(sa.select(DESIRED)).all()
    director, fleet = world.services.director.public, world.services.config.fleet
    return {row.device_id: open_desired(decode(Desired, row.message), director, fleet, row.device_id).floors for row in documents}


def test_each_device_is_told_the_floor_once_also_one_that_was_asked_nothing_yet(
    world: World, releases: list[tuple[str, MadeBundle]]
) -> None:
    start(world, releases[1][0], waves=[1, "100%"])
    assert set(map(str, tell(world).values())) == {"{}"}
    raised(world, releases[1][0])

    assert tell(world) == {device_id: {PROJECT: 2} for device_id in world.devices}
    with world.services.db.read() as connection:
        before = connection.execute(sa.select(DESIRED.c.device_id, DESIRED.c.counter)).all()
    tell(world)
    with world.services.db.read() as connection:
        assert connection.execute(sa.select(DESIRED.c.device_id, DESIRED.c.counter)).all() == before


def test_a_floor_is_told_in_pieces_and_none_is_forgotten(
    world: World, releases: list[tuple[str, MadeBundle]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telling, "AT_ONCE", 2)
    raised(world, releases[1][0])

    assert [len(tell(world)) for _ in range(3)] == [2, 3, 3]
    raised(world, releases[2][0])
    tell(world)
    assert sorted(floors[PROJECT] for floors in tell(world).values()) == [3, 3, 3]


def test_a_device_that_is_enrolled_later_is_told_the_floor_at_once(
    world: World, releases: list[tuple[str, MadeBundle]], tmp_path: Path
) -> None:
    raised(world, releases[2][0])

    world.enroll("late", tmp_path, site="hall")

    assert tell(world)["late"] == {PROJECT: 3}


def test_who_does_not_keep_the_floor_yet_is_counted_and_shown_on_the_device(world: World, releases: list[tuple[str, MadeBundle]]) -> None:
    raised(world, releases[1][0])
    assert floor_of(world.services, PROJECT).sentence.endswith("; 0 devices are to run one. 3 of 3 do not keep it yet.")

    for device_id, floor in (("d0", 2), ("d1", 5), ("d2", 1)):
        world.receive(world.devices[device_id].reported("idle", floors={PROJECT: floor, "another": 9}))

    view = floor_of(world.services, PROJECT)
    assert (view.devices, view.devices_keeping) == (3, 2)
    assert view.sentence.endswith("1 of 3 does not keep it yet.")
    shown = {row.device_id: (row.floor, row.floor_in_force) for row in queries.devices(world.services.db, world.clock())}
    assert shown == {"d0": (2, 2), "d1": (5, 2), "d2": (1, 2)}
    client, headers = world.client(), {"Authorization": f"Bearer {world.admin_token()}"}
    assert client.get("/api/v1/devices/d2", headers=headers).get_json()["device"]["floor"] == 1


def test_page_and_command_line_say_who_does_not_keep_the_floor_in_force(
    world: World, releases: list[tuple[str, MadeBundle]], capsys: pytest.CaptureFixture[str]
) -> None:
    client, token = world.client(), world.admin_token()
    client.post("/login", data={"token": token}, headers={"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"})
    assert "Release floor" not in client.get("/devices/d0").get_data(as_text=True)
    raised(world, releases[1][0])
    world.receive(world.devices["d0"].reported("idle", floors={PROJECT: 2}))

    keeps, lacks = (client.get(f"/devices/{device_id}").get_data(as_text=True) for device_id in ("d0", "d1"))
    for device_id in ("d0", "d1"):
        print_device(client.get(f"/api/v1/devices/{device_id}", headers={"Authorization": f"Bearer {token}"}).get_json(), world.clock())

    assert "Release floor" in keeps
    assert "does not yet keep" not in keeps
    assert "does not yet keep 2, the floor in force" in lacks
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("release floor")]
    assert printed == [
        "release floor: it takes no release below 2 (by its word)",
        "release floor: it keeps none; it does not yet keep 2, the floor in force",
    ]


def test_a_device_signs_the_floor_that_it_keeps_and_a_changed_one_is_not_believed(
    world: World, releases: list[tuple[str, MadeBundle]]
) -> None:
    _, bundle = releases[1]
    start(world, releases[1][0], waves=AT_ONCE)
    device = world.devices["d0"]
    assert world.desired("d0") is not None
    world.receive(*device.install(bundle)[:2], device.attestation(floors={PROJECT: 2}))

    assert queries.device(world.services.db, "d0", world.clock()).device.floor_attested == 2
    forged = msgspec.structs.replace(device.attested(floors={PROJECT: 2}), floors={PROJECT: 1})
    world.receive(device.telemetry("attestation", encode(forged)))
    assert queries.device(world.services.db, "d0", world.clock()).device.floor_attested == 2


def test_a_floor_that_no_database_holds_is_refused(world: World, releases: list[tuple[str, MadeBundle]]) -> None:
    raised(world, releases[1][0])

    world.receive(
        world.devices["d0"].reported("idle", floors={PROJECT: 1 << 63}), world.devices["d1"].reported("idle", floors={PROJECT: -1})
    )

    assert floor_of(world.services, PROJECT).devices_keeping == 0
    with world.services.db.read() as connection:
        assert sorted(connection.scalars(sa.select(DEAD_LETTER.c.reason))) == [
            "reported state of d0: floor 9223372036854775808 outside 0 to 2^62",
            "reported state of d1: floor -1 outside 0 to 2^62",
        ]


@pytest.mark.parametrize(("reason", "error"), [("", InputError), (" \n", InputError), ("x" * 501, InputError)])
def test_a_floor_without_a_reason_is_refused(
    world: World, releases: list[tuple[str, MadeBundle]], reason: str, error: type[Exception]
) -> None:
    with pytest.raises(error, match="say why in 1 to 500"):
        raised(world, releases[1][0], reason)


def test_what_does_not_exist_is_not_a_floor(world: World, releases: list[tuple[str, MadeBundle]]) -> None:
    with pytest.raises(NotFoundError, match="release of project"):
        raised(world, "digits-9-ffffff")
    with pytest.raises(NotFoundError, match="project"):
        floor_of(world.services, "elsewhere")


def test_the_api_raises_and_shows_it(world: World, releases: list[tuple[str, MadeBundle]]) -> None:
    client, headers = world.client(), {"Authorization": f"Bearer {world.admin_token()}"}
    path = f"/api/v1/projects/{PROJECT}/floor"

    answer = client.post(path, json={"release_id": releases[2][0], "reason": "a hole"}, headers=headers)
    again = client.post(path, json={"release_id": releases[1][0], "reason": "a hole"}, headers=headers)

    assert (answer.status_code, answer.get_json()["counter"]) == (200, 3)
    assert again.status_code == 409
    assert client.get(path, headers=headers).get_json()["sentence"].startswith(f"No release of {PROJECT} below 3")
