"""Where comparisons cut off one device: from the project's completed rollouts under `auto`, fixed in the plan, else the default."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import sqlalchemy as sa

from fleet_server import queries
from fleet_server.rollout.clips import clips_from, gate_of
from fleet_server.rollout.comparisons import COMPARISONS
from fleet_server.rollout.plans import course_of, default_policy
from fleet_server.store import comparison_rows, past_rollouts, rollouts
from fleet_server.store.comparison_rows import GIVEN, Answer
from fleet_server.store.moments import to_micros
from fleet_server.store.tables import COMPARISON, ROLLOUT
from tests.unit.fleet_server.evidence_world import open_fleet, start, value
from tests.unit.fleet_server.server_world import PROJECT, World, make_bundle


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    opened = World.open(tmp_path / "data")
    yield opened
    opened.close()


def remember(world: World, tmp_path: Path, releases: int, deviation: float) -> str:
    """Completed rollouts, each with the memory of 60 devices compared; the next release."""
    rng = np.random.default_rng(5)
    open_fleet(world, 12)
    template_id = start(world, world.push(make_bundle(tmp_path / "b0", "0"), "0"))
    template = value(world, template_id)
    with world.services.db.write() as connection:
        for number in range(releases):
            rollout_id = f"r-{number}"
            row = dict(connection.execute(sa.select(ROLLOUT).where(ROLLOUT.c.rollout_id == template_id)).one()._mapping)
            connection.execute(sa.insert(ROLLOUT).values(row | {"rollout_id": rollout_id, "state": "completed", "due_at": None}))
            told = [{"differences": msgspec.json.encode([x]).decode()} for x in rng.normal(0.0, deviation, 60).tolist()]
            same = {"rollout_id": rollout_id, "gate": "memory", "state": GIVEN, "at": 0}
            connection.execute(sa.insert(COMPARISON), [same | one | {"device_id": f"d{i}"} for i, one in enumerate(told)])
        stored = rollouts.load(connection, template_id)
        assert stored is not None
        rollouts.save(connection, stored, replace(template, state=type(template.state)("discarded")), None)
    return world.push(make_bundle(tmp_path / "b1", "one"), "1")


def test_under_auto_a_rollout_cuts_off_at_four_deviations_of_earlier_ones(world: World, tmp_path: Path) -> None:
    release_id = remember(world, tmp_path, 5, 0.03)
    rollout_id = start(world, release_id, gates={"compare": ["memory", "class rate"]})

    rollout = value(world, rollout_id)
    assert gate_of(rollout, "memory").clip == pytest.approx(0.12, rel=0.1)
    assert gate_of(rollout, "memory").tolerance == COMPARISONS["memory"].tolerance
    assert gate_of(rollout, "class rate") == COMPARISONS["class rate"]
    said = {view.gate: view.difference for view in queries.comparisons(world.services.db, rollout_id)}
    assert "from 5 rollouts" in said["memory"]
    assert "from" not in said["class rate"].split("one device")[1]


def test_differences_are_cut_off_where_the_plan_says(world: World, tmp_path: Path) -> None:
    rollout_id = start(world, remember(world, tmp_path, 5, 0.03), gates={"compare": ["memory"]})
    gate = gate_of(value(world, rollout_id), "memory")
    with world.services.db.write() as connection:
        comparison_rows.store(connection, rollout_id, "d00000", gate, Answer(GIVEN, (0.5,)), to_micros(world.clock()))
        found = comparison_rows.wealth(connection, rollout_id, ["memory"])["memory"]
    assert found.logs == pytest.approx(type(found).start(gate).after(gate, [(gate.clip,)]).logs)
    assert found.evidence != pytest.approx(type(found).start(gate).after(COMPARISONS["memory"], [(0.5,)]).evidence)


def test_four_rollouts_or_a_rule_that_somebody_wrote_leave_the_default(world: World, tmp_path: Path) -> None:
    remember(world, tmp_path, 5, 0.03)
    with world.services.db.read() as connection:
        known = past_rollouts.history(connection, PROJECT)
    assert dict(known.clips).keys() == {"memory"}
    assert course_of(msgspec.structs.replace(default_policy(), evidence="bound"), 3_000, known).clips == ()
    assert clips_from({"memory": [[0.03], [-0.03]] * 200}, 4) == {}
    assert clips_from({"memory": [[0.03], [-0.03]] * 40}, 9) == {}


@pytest.mark.parametrize(("deviation", "clip"), [(0.0, 2 * COMPARISONS["memory"].tolerance), (9.0, 0.4)])
def test_one_odd_history_makes_no_gate_blind(deviation: float, clip: float) -> None:
    assert clips_from({"memory": [[deviation], [-deviation]] * 200}, 5)["memory"] == pytest.approx(clip, abs=1e-5)
