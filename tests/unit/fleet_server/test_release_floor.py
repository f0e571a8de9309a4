"""The release floor: it only rises, stops what is below it, and nobody is given anything older, neither forward nor on a way back."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from edgefleet.errors import InputError
from fleet_server import audit, planning, queries, usecases
from fleet_server.errors import ConflictError
from fleet_server.flooring import FloorView, floor_of, raise_floor
from fleet_server.queries import NotFoundError
from fleet_server.store.tables import ASSIGNMENT, EVENT, ROLLOUT
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
