"""From reports of devices to one difference per device and gate: who is compared with whom, once, and what is said of the others."""

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from edgefleet.errors import StorageError
from fleet_server import queries
from fleet_server.rollout import Rollout
from fleet_server.rollout.comparisons import COMPARISONS, Wealth, compare
from fleet_server.scheduler.comparing import bring_up
from fleet_server.store import comparison_rows
from fleet_server.store.tables import COMPARISON, COMPARISON_CONTROL, COMPARISON_TASK, COMPARISON_WEALTH
from tests.unit.fleet_server.compared import HOUR_S, beat, committed, give, policy, put_rollout, trial, window
from tests.unit.fleet_server.server_world import MadeBundle, World, make_bundle

WAVE = ("d0", "d1")
CONTROLS = ("d2", "d3", "d4", "d5")


class Scene:
    """Six devices on release 1; a rollout of release 2 whose first wave is d0 and d1."""

    def __init__(self, tmp_path: Path, **gates: object) -> None:
        self.world = World.open(tmp_path / "data")
        self.old, self.new = make_bundle(tmp_path / "b1"), make_bundle(tmp_path / "b2", "two")
        self.first, self.second = self.world.push(self.old), self.world.push(self.new, "2")
        for number in range(6):
            device = self.world.enroll(f"d{number}", tmp_path, hardware="cam")
            device.running, device.model = self.old.digest, self.old.manifest.variants[0].model_digest
            self.world.receive(device.presence(), device.reported("committed", self.old.digest))
        self.rollout: Rollout = put_rollout(self.world, self.second, self.new, (WAVE, CONTROLS), policy(**gates))

    def tell(self, bundle: MadeBundle, *device_ids: str, memory: int = 100_000_000, **how: float) -> None:
        for device_id in device_ids:
            device = self.world.devices[device_id]
            self.world.receive(window(device, bundle, **how), beat(device, memory))  # type: ignore[arg-type]

    def before(self) -> None:
        """A day of the old release, on all devices alike."""
        self.tell(self.old, *WAVE, *CONTROLS)
        self.world.clock.move(2 * HOUR_S)

    def give(self, *device_ids: str) -> None:
        for device_id in device_ids:
            give(self.world, self.rollout, self.world.devices[device_id], self.first)
        self.world.clock.move(60.0)
        for device_id in device_ids:
            committed(self.world, self.world.devices[device_id], self.new)
        self.world.clock.move(HOUR_S)

    def look(self) -> None:
        bring_up(self.world.services, self.rollout.rollout_id)

    def wealth(self) -> dict[str, Wealth]:
        with self.world.services.db.read() as connection:
            return comparison_rows.wealth(connection, self.rollout.rollout_id, self.rollout.policy.gates.compare)

    def stored(self, gate: str) -> dict[str, tuple[str, str, str]]:
        query = sa.select(COMPARISON).where(COMPARISON.c.gate == gate)
        with self.world.services.db.read() as connection:
            return {row.device_id: (row.state, row.differences, row.reason) for row in connection.execute(query)}

    def count(self, table: sa.Table) -> int:
        with self.world.services.db.read() as connection:
            return int(connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path, rows=200)
    yield made
    made.world.close()


def test_a_device_gives_each_gate_one_difference_against_two_controls_of_its_own(scene: Scene) -> None:
    scene.before()
    scene.give("d0")
    scene.tell(scene.new, "d0", share_b=0.6, latency_octave=11, memory=130_000_000)
    scene.tell(scene.old, *CONTROLS, share_b=0.55)
    scene.world.clock.move(2 * HOUR_S)

    scene.world.receive(scene.world.devices["d0"].event())
    scene.look()

    found = {gate: scene.stored(gate)["d0"] for gate in COMPARISONS}
    assert {gate for gate, (state, _, _) in found.items() if state == "given"} == {"p95 latency", "memory", "class rate", "score bins"}
    views = {view.gate: view for view in queries.comparisons(scene.world.services.db, scene.rollout.rollout_id)}
    # Everybody went from .5 to .55, the device to .6: its own part is .05.
    assert views["class rate"].mean == pytest.approx(0.05)
    assert views["p95 latency"].mean == pytest.approx(math.log(2), abs=0.02)
    assert views["memory"].mean == pytest.approx(math.log(1.3))
    with scene.world.services.db.read() as connection:
        assert len(comparison_rows.controls_of(connection, scene.rollout.rollout_id, "d0")) == 2


def test_a_difference_is_stored_once_whatever_comes_later(scene: Scene) -> None:
    scene.before()
    scene.give("d0")
    scene.tell(scene.new, "d0", share_b=0.6)
    scene.tell(scene.old, *CONTROLS)
    scene.look()
    stakes = scene.wealth()["class rate"]

    scene.tell(scene.new, "d0", share_b=1.0)
    for _ in range(3):
        scene.world.clock.move(HOUR_S)
        scene.look()

    again = scene.wealth()["class rate"]
    assert again.devices == stakes.devices == 1
    assert again.logs.tolist() == stakes.logs.tolist()
    expected = Wealth.start(COMPARISONS["class rate"]).after(COMPARISONS["class rate"], [(0.1,)])
    assert stakes.evidence == pytest.approx(expected.evidence, rel=1e-9)


def test_each_control_stands_in_one_pair_only_and_who_finds_none_is_left_out(scene: Scene) -> None:
    scene.before()
    scene.tell(scene.old, *WAVE, *CONTROLS)
    scene.give("d0", "d1", "d5")  # d5 is exposed now and is a control no more: three are left
    scene.tell(scene.new, "d0", "d1", "d5")
    scene.tell(scene.old, *CONTROLS[:3])

    scene.look()

    states = {device_id: state for device_id, (state, _, _) in scene.stored("class rate").items()}
    assert sorted(states.values()) == ["given", "left-out", "left-out"]
    assert scene.count(COMPARISON_CONTROL) == 2
    assert scene.wealth()["class rate"].left_out == 2


def test_a_device_without_rows_is_waited_for_and_then_left_out_with_the_reason(scene: Scene) -> None:
    scene.before()
    scene.give("d0")
    scene.tell(scene.new, "d0", rows=20)
    scene.look()
    assert "class rate" not in {
        view.gate for view in queries.comparisons(scene.world.services.db, scene.rollout.rollout_id) if view.left_out
    }

    scene.world.clock.move(24 * HOUR_S)
    scene.look()

    assert scene.stored("class rate")["d0"] == ("left-out", "[]", "20 of 200 rows with the release within 24 h")


def test_where_no_telemetry_ever_came_there_is_nothing_to_compare_and_nothing_is_blocked(scene: Scene) -> None:
    scene.give("d0", "d1")

    scene.look()

    found = compare(scene.wealth(), 2)
    assert found.immature == ()
    assert found.nothing == tuple(COMPARISONS)
    assert scene.count(COMPARISON_TASK) == 0


def test_the_trial_tells_the_agreement_without_any_control(scene: Scene) -> None:
    give(scene.world, scene.rollout, scene.world.devices["d0"], scene.first)
    scene.world.receive(window(scene.world.devices["d0"], scene.old, shadow=trial(scene.old, scene.new, 400, 380)))
    committed(scene.world, scene.world.devices["d0"], scene.new)

    scene.look()

    assert scene.stored("shadow agreement")["d0"][:2] == ("given", "[0.05]")


def test_labels_count_whenever_they_come(scene: Scene, tmp_path: Path) -> None:
    scene.before()
    scene.give("d0")
    scene.tell(scene.new, "d0")
    scene.tell(scene.old, *CONTROLS)
    scene.world.clock.move(30 * HOUR_S)
    scene.look()
    assert scene.stored("label metric")["d0"][0] == "left-out"
    assert scene.count(COMPARISON_TASK) == 0

    client, path = scene.world.client(), "/api/v1/devices/d0/labelled"
    header = {"Authorization": f"Bearer {scene.world.admin_token()}"}
    said = {"bundle_digest": scene.new.digest, "rows": 100, "right": 88, "baseline_digest": scene.old.digest, "baseline_right": 90}
    at = {"rows_at": scene.world.clock.now.isoformat()}
    assert client.post(path, json=said | at, headers=header).status_code == 200
    scene.look()

    assert scene.stored("label metric")["d0"][:2] == ("given", "[0.02]")
    assert scene.wealth()["label metric"].left_out == 0
    for wrong, words in (({"right": 101}, "101"), ({"rows_at": "2031-01-01T00:00:00Z"}, "2031"), ({"bundle_digest": "ab" * 32}, "release")):
        answer = client.post(path, json=said | at | wrong, headers=header)
        assert answer.status_code == 400 or answer.status_code == 422
        assert words in answer.get_json()["detail"]


def test_a_number_that_cannot_be_read_is_said_and_keeps_the_wave_from_being_mature(scene: Scene) -> None:
    scene.before()
    scene.give("d0", "d1")
    scene.tell(scene.new, *WAVE, memory=0)
    scene.tell(scene.old, *CONTROLS)
    scene.world.clock.move(2 * HOUR_S)

    scene.world.receive(*(scene.world.devices[d].event() for d in WAVE))
    scene.look()

    assert scene.stored("memory")["d0"][0] == "unreadable"
    assert "0 bytes" in scene.stored("memory")["d0"][2]
    assert "memory" in compare(scene.wealth(), 2).immature


def test_a_gate_that_raises_gives_no_difference_and_stops_no_other_gate(scene: Scene) -> None:
    scene.before()
    scene.give("d0")
    scene.tell(scene.new, "d0")
    scene.tell(scene.old, *CONTROLS)
    with scene.world.services.db.write() as connection:
        connection.execute(sa.text("UPDATE device_peak SET rss_bytes = 'damaged' WHERE device_id = 'd0'"))
    scene.world.clock.move(2 * HOUR_S)

    scene.world.receive(scene.world.devices["d0"].event())
    scene.look()

    assert scene.stored("memory")["d0"][0] == "unreadable"
    assert "TypeError" in scene.stored("memory")["d0"][2]
    assert scene.stored("p95 latency")["d0"][0] == "given"
    assert "memory" in compare(scene.wealth(), 1).immature


@pytest.mark.parametrize("damaged", ["[[null]]", "[[1.0]]", "nonsense"])
def test_stakes_that_are_not_what_was_stored_are_refused(scene: Scene, damaged: str) -> None:
    with scene.world.services.db.write() as connection:
        row = {"rollout_id": scene.rollout.rollout_id, "gate": "memory", "logs": damaged, "devices": 3, "left_out": 0}
        connection.execute(sa.insert(COMPARISON_WEALTH).values(**row))

    with pytest.raises(StorageError, match="memory"):
        scene.wealth()


def test_a_device_that_was_a_control_is_judged_by_what_it_showed_after_that(scene: Scene) -> None:
    scene.before()
    scene.give("d0")
    scene.tell(scene.new, "d0")
    scene.tell(scene.old, *CONTROLS, share_b=0.9)
    scene.look()
    with scene.world.services.db.read() as connection:
        used = comparison_rows.controls_of(connection, scene.rollout.rollout_id, "d0")[0]

    scene.world.clock.move(60.0)
    scene.give(used)
    scene.tell(scene.new, used)
    scene.look()

    assert scene.stored("class rate")[used][0] == "left-out"
    assert "0 of 200 rows before" in scene.stored("class rate")[used][2]


def test_beside_the_gates_stand_drift_and_attribution_without_a_vote(scene: Scene) -> None:
    scene.before()
    scene.give("d0")

    header = {"Authorization": f"Bearer {scene.world.admin_token()}"}
    answer = scene.world.client().get(f"/api/v1/rollouts/{scene.rollout.rollout_id}/comparisons", headers=header).get_json()

    assert answer["beside"]["exposed"] == 1
    assert answer["beside"]["attribution_overlap"] is None
    assert "0 of 1 devices" in answer["beside"]["sentence"]
    assert [gate["gate"] for gate in answer["gates"]] == list(COMPARISONS)
