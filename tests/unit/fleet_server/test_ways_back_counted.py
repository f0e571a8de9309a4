"""Where many devices go back to is found by as many questions as for two of them, and the answers are those of each alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from fleet_server.rollout import Rollout
from fleet_server.scheduler.assigning import targets_for
from fleet_server.store import rollouts, stays
from fleet_server.store.tables import ROLLOUT_MEMBER
from fleet_server.unquarantining import lift_quarantine
from tests.unit.fleet_server.server_world import OPERATOR, World, make_bundle
from tests.unit.fleet_server.steered import complete, small_fleet, start, tick

MOST_QUESTIONS = 6


@contextmanager
def counted(connection: sa.Connection) -> Iterator[list[str]]:
    """The statements of a block."""
    asked: list[str] = []

    def note(_c: object, _u: object, text: str, *_: object) -> None:
        asked.append(text)

    sa.event.listen(connection, "before_cursor_execute", note)
    yield asked
    sa.event.remove(connection, "before_cursor_execute", note)


def two_releases(world: World, folder: Path) -> tuple[str, str, str]:
    """(first release, its baseline, rollout of the last): the first failed later on d0, and on d1 where that was lifted."""
    first, base, last = (make_bundle(folder / name, name) for name in ("first", "base", "last"))
    release_id, baseline = world.push(first, "1"), world.push(base, "2")
    complete(world, start(world, release_id, waves=["100%"]), first)
    rollout_id = start(world, world.push(last, "3"), waves=["100%"], baseline=baseline)
    complete(world, rollout_id, last)
    for device_id in ("d0", "d1"):
        world.devices[device_id].quarantined.append(first.digest)
        world.receive(world.devices[device_id].reported("committed", last.digest))
    lift_quarantine(world.services, "d1", bundle=first.digest, reason="it was the sensor", actor=OPERATOR)
    tick(world)
    return release_id, baseline, rollout_id


def previous(connection: sa.Connection, rollout_id: str) -> dict[str, str | None]:
    query = sa.select(ROLLOUT_MEMBER.c.device_id, ROLLOUT_MEMBER.c.previous_release).where(ROLLOUT_MEMBER.c.rollout_id == rollout_id)
    return {row.device_id: row.previous_release for row in connection.execute(query)}


def check(world: World, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole proof, over the world's database."""
    release_id, baseline, rollout_id = two_releases(world, folder)
    with world.services.db.read() as connection:
        value, of_all = _value(connection, rollout_id), previous(connection, rollout_id)
        with counted(connection) as asked:
            found = targets_for(connection, value, of_all)
        with counted(connection) as of_two:
            targets_for(connection, value, dict(sorted(of_all.items())[:2]))
        alone = {one: targets_for(connection, value, {one: before})[one] for one, before in of_all.items()}
        monkeypatch.setattr(stays, "_BATCH", 2)
        in_pieces = targets_for(connection, value, of_all)

    assert {device_id: target.release_id for device_id, target in found.items()} == {
        device_id: baseline if device_id == "d0" else release_id for device_id in world.devices
    }
    assert found == alone == in_pieces
    assert len(asked) == len(of_two) <= MOST_QUESTIONS


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    yield from small_fleet(tmp_path, 5, lambda _: {"site": "hall"})


def test_as_many_questions_for_all_devices_as_for_two_and_the_answers_of_each_alone(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(world, tmp_path, monkeypatch)


def _value(connection: sa.Connection, rollout_id: str) -> Rollout:
    stored = rollouts.load(connection, rollout_id)
    assert stored is not None
    return stored.rollout
