"""Rollouts by evidence that compare devices: real ingest, store, scheduler and engine; devices that answer as before, or slower."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from fleet_server import queries
from fleet_server.rollout.comparisons import COMPARISONS
from fleet_server.store.tables import COMPARISON_TASK, COMPARISON_WEALTH
from tests.unit.fleet_server.compared import window
from tests.unit.fleet_server.evidence_world import Fleet, open_fleet, start, value
from tests.unit.fleet_server.server_world import MadeBundle, World, make_bundle

DEVICES = 80
GATES = {"rows": 200, "before_s": 3_600.0, "wait_s": 1_500.0, "compare": ["p95 latency", "class rate"]}


class Compared:
    """Eighty devices that run release 1 and told what it does; a rollout of release 2, 24 devices first."""

    def __init__(self, tmp_path: Path, **gates: object) -> None:
        self.world = World.open(tmp_path / "data")
        self.old, self.new = make_bundle(tmp_path / "b1"), make_bundle(tmp_path / "b2", "two")
        self.first, self.second = self.world.push(self.old), self.world.push(self.new, "2")
        open_fleet(self.world, DEVICES, hardware=("a",))
        self.fleet = Fleet(self.world, self.new)
        for device in self.world.devices.values():
            device.running, device.model = self.old.digest, self.old.manifest.variants[0].model_digest
        self.fleet.receive(d.reported("committed", self.old.digest) for d in self.world.devices.values())
        self.tell()
        self.world.clock.move(60.0)
        pace = {"first": 24, "every_s": 60.0}
        self.rollout_id = start(self.world, self.second, waves=[24, "100%"], pace=pace, gates=GATES | gates)

    def tell(self, octave: int = 3) -> None:
        """A window of every device; those with the release need 2^octave microseconds."""
        self.fleet.receive(
            window(device, self.bundle_of(device.running), latency_octave=octave if device.running == self.new.digest else 3)
            for device in self.world.devices.values()
        )

    def bundle_of(self, digest: str) -> MadeBundle:
        return self.new if digest == self.new.digest else self.old

    def go_on(self, octave: int = 3, times: int = 12) -> None:
        """The first devices begin; then everybody tells windows, and the server looks."""
        self.fleet.tick(2)
        self.tell(octave)
        self.fleet.tick(times)


@pytest.fixture
def compared(tmp_path: Path) -> Iterator[Compared]:
    made = Compared(tmp_path)
    yield made
    made.world.close()


def test_a_release_that_is_four_times_slower_pauses_the_rollout_in_its_first_wave(compared: Compared) -> None:
    compared.go_on(octave=5)

    view = queries.rollout(compared.world.services.db, compared.rollout_id, compared.world.clock())
    assert view.state == "paused"
    assert "something else than the one before, most in p95 latency" in value(compared.world, compared.rollout_id).last_reason
    assert sum(device.running == compared.new.digest for device in compared.world.devices.values()) <= 24


def test_a_release_that_is_as_fast_is_compared_and_goes_on_to_the_next_wave(compared: Compared) -> None:
    compared.go_on(times=30)

    stored = value(compared.world, compared.rollout_id)
    assert (stored.wave, stored.state.value) == (2, "running")
    given = {view.gate: view.devices for view in queries.comparisons(compared.world.services.db, compared.rollout_id)}
    assert set(given) == {"p95 latency", "class rate"}
    # Two controls each, and every control once: 24 pairs take 48 of the 56 others.
    assert given["p95 latency"] >= 20
    with compared.world.services.db.read() as connection:
        assert set(connection.scalars(sa.select(COMPARISON_WEALTH.c.gate))) == set(given)


def test_a_wave_waits_for_comparisons_and_no_longer_than_the_policy_says(compared: Compared) -> None:
    compared.fleet.tick(45)
    stored = value(compared.world, compared.rollout_id)
    assert stored.wave == 1
    held = queries.rollout(compared.world.services.db, compared.rollout_id, compared.world.clock())
    assert "too few devices have been compared yet for p95 latency, class rate" in str(held.gates)

    compared.fleet.tick(120)

    assert value(compared.world, compared.rollout_id).wave == 2
    reasons = queries.comparisons(compared.world.services.db, compared.rollout_id)[0].left_out
    assert any("rows with the release within" in reason for reason in reasons)


def test_stakes_that_are_no_numbers_pause_the_rollout_and_never_promote_it(compared: Compared) -> None:
    compared.fleet.tick(2)
    with compared.world.services.db.write() as connection:
        row = {"rollout_id": compared.rollout_id, "gate": "p95 latency", "logs": "[[null,null]]", "devices": 24, "left_out": 0}
        connection.execute(sa.insert(COMPARISON_WEALTH).values(**row))

    compared.fleet.tick(40)

    stored = value(compared.world, compared.rollout_id)
    assert (stored.state.value, stored.wave) == ("paused", 1)
    assert "p95 latency" in stored.last_reason


def test_an_ended_rollout_compares_nobody_any_more(compared: Compared) -> None:
    compared.fleet.tick(2)
    view = queries.rollout(compared.world.services.db, compared.rollout_id, compared.world.clock())
    from fleet_server import usecases
    from tests.unit.fleet_server.server_world import OPERATOR

    usecases.rollout_action(
        compared.world.services, compared.rollout_id, "roll-back", version=view.version, reason="enough", actor=OPERATOR
    )
    compared.fleet.tick(6)

    assert value(compared.world, compared.rollout_id).state.value == "rolled-back"
    with compared.world.services.db.read() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(COMPARISON_TASK)) == 0


def test_the_default_policy_has_all_six_gates_in_force(compared: Compared) -> None:
    from fleet_server.rollout.plans import default_policy

    assert default_policy().gates.compare == tuple(COMPARISONS)
