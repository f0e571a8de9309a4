"""What a rollout that waits for others' devices says of them, however many there are."""

from pathlib import Path

import pytest
import sqlalchemy as sa

from fleet_server import usecases
from fleet_server.queries.before_start import waits_for
from fleet_server.store import rollouts
from tests.unit.fleet_server.evidence_world import POLICY, open_fleet, start
from tests.unit.fleet_server.server_world import OPERATOR, World, make_bundle


@pytest.mark.parametrize("devices", [20, 1_200])
def test_for_whose_devices_a_rollout_waits_is_asked_of_the_database_a_few_times_however_many_they_are(tmp_path: Path, devices: int) -> None:
    world = World.open(tmp_path / "data")
    open_fleet(world, devices)
    first = start(world, world.push(make_bundle(tmp_path / "one")))
    later = world.push(make_bundle(tmp_path / "two", "two", seed=1), "2")
    queued = usecases.create_rollout(
        world.services, release_id=later, policy=POLICY | {"on_conflict": "queue"}, selection={}, actor=OPERATOR
    ).rollout_id
    sent: list[str] = []

    def note(*event: object) -> None:
        sent.append(str(event[2]))

    with world.services.db.read() as connection:
        stored = rollouts.load(connection, queued)
        assert stored is not None
        sa.event.listen(connection, "before_cursor_execute", note)
        said = waits_for(connection, stored.rollout, "A person starts it.")

    assert said == f"A person starts it. Then it is queued behind {first}."
    assert len(sent) == 3
    world.close()
