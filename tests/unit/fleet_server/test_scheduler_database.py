"""A database that refuses for a moment stops no rollout; one that goes on refusing does."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from fleet_server import queries
from fleet_server.scheduler import comparing, steering
from fleet_server.services import Services
from tests.unit.fleet_server.server_world import World, make_bundle
from tests.unit.fleet_server.steered import start, wanting


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    opened = World.open(tmp_path / "data")
    device = opened.enroll("d0", tmp_path, site="north")
    opened.receive(device.presence(), device.heartbeat())
    yield opened
    opened.close()


@pytest.mark.parametrize(("refusals", "state"), [(steering.DATABASE_TRIES - 1, "running"), (steering.DATABASE_TRIES, "paused")])
def test_a_locked_database_is_asked_again_before_a_rollout_pauses_for_it(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusals: int, state: str
) -> None:
    bundle = make_bundle(tmp_path / "b1")
    rollout_id = start(world, world.push(bundle), waves=["100%"])
    asked = []
    real = comparing.bring_up

    def refuse(services: Services, rollout_id: str) -> None:
        asked.append(rollout_id)
        if len(asked) <= refusals:
            raise sa.exc.OperationalError("UPDATE", {}, Exception("database is locked"))
        real(services, rollout_id)

    monkeypatch.setattr(comparing, "bring_up", refuse)
    steering.settle(world.services, rollout_id)

    view = queries.rollout(world.services.db, rollout_id, world.clock())
    assert view.state == state
    assert ("database is locked" in view.sentence) == (state == "paused")
    assert wanting(world, bundle) == {"d0"}
