"""A small fleet whose policy asks a person: by the use-case, the API and the page, over the real database and scheduler."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet_server import queries
from fleet_server.errors import ConflictError
from fleet_server.rollout import TransitionError
from tests.unit.fleet_server.evidence_world import POLICY, Fleet, act, asked, open_fleet, start, value
from tests.unit.fleet_server.server_world import World, make_bundle


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    opened = World.open(tmp_path / "data")
    yield opened
    opened.close()


def fleet_of(world: World, tmp_path: Path, count: int = 8, bad: set[str] | None = None, **changes: Any) -> tuple[Fleet, str]:
    bundle = make_bundle(tmp_path / "bundle")
    release_id = world.push(bundle)
    open_fleet(world, count, sites=1, hardware=("a",))
    fleet = Fleet(world, bundle, (bad or set()).__contains__)
    fleet.tick()
    return fleet, start(world, release_id, **changes)


def paused(fleet: Fleet, rollout_id: str) -> None:
    for _ in range(60):
        if value(fleet.world, rollout_id).state.value == "paused":
            return
        fleet.tick()
    pytest.fail(f"not paused: {value(fleet.world, rollout_id).last_reason}")


def call(world: World, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {world.admin_token()}"}
    answer = world.client().open(f"/api/v1/{path}", method=method, json=body, headers=headers)
    return answer.status_code, answer.get_json()


def test_eight_devices_wait_after_the_first_until_a_person_confirms_the_version_she_saw(world: World, tmp_path: Path) -> None:
    fleet, rollout_id = fleet_of(world, tmp_path, per_stratum=1)
    paused(fleet, rollout_id)
    assert len(asked(world, fleet.bundle)) == 1
    view = queries.rollout(world.services.db, rollout_id, world.clock())
    fleet.tick(30)
    assert len(asked(world, fleet.bundle)) == 1, "it went on although nobody had confirmed"

    old, problem = call(world, "POST", f"rollouts/{rollout_id}/confirm", {"version": view.version - 1, "reason": "an old page"})
    new, answer = call(world, "POST", f"rollouts/{rollout_id}/confirm", {"version": view.version, "reason": "looked at it"})

    assert (old, new) == (409, 200), (problem, answer)
    assert answer["state"] == "running"
    fleet.tick(2)
    assert len(asked(world, fleet.bundle)) == 2
    actions = [(one.actor, one.action) for one in queries.rollout(world.services.db, rollout_id, world.clock()).events]
    assert [action for _, action in actions].count("confirm") == 1
    with pytest.raises(TransitionError, match="does not know 'confirm'"):
        act(world, rollout_id, "confirm")


def test_a_failure_is_put_before_a_person_once_and_the_next_one_again(world: World, tmp_path: Path) -> None:
    bad: set[str] = set()
    fleet, rollout_id = fleet_of(
        world, tmp_path, 20, bad, waves=[10, "100%"], dwell_s=600.0, confirm="failure", pace={"first": 10, "every_s": 10.0}
    )
    first, second = sorted(asked(world, fleet.bundle))[:2]
    fleet.tick(2)
    fleet.receive(world.devices[first].fail(fleet.bundle, "crashed"))
    fleet.tick()
    assert value(world, rollout_id).last_reason.startswith("Pause: 1 of 10 devices failed; the policy asks a person at each failure")

    act(world, rollout_id, "confirm")
    fleet.receive(world.devices[first].fail(fleet.bundle, "crashed"))
    fleet.tick(3)
    assert value(world, rollout_id).state.value == "running"

    fleet.receive(world.devices[second].fail(fleet.bundle, "crashed"))
    fleet.tick()
    assert value(world, rollout_id).state.value == "paused"
    assert value(world, rollout_id).promoted_at == ()


def test_the_page_lists_what_waits_for_a_person_and_offers_to_confirm_only_where_a_policy_asks(world: World, tmp_path: Path) -> None:
    fleet, rollout_id = fleet_of(world, tmp_path)
    paused(fleet, rollout_id)

    need = next(one for one in queries.overview(world.services.db, world.clock()).needs_you if rollout_id in one.link)
    offered = {one.name: one for one in queries.rollout(world.services.db, rollout_id, world.clock()).actions}

    assert need.button == "Look and confirm"
    assert "the policy asks a person before wave 2 opens" in need.sentence
    assert offered["confirm"].refused == ""
    assert "nothing is accepted" in offered["confirm"].effect
    act(world, rollout_id, "pause")
    offered = {one.name: one for one in queries.rollout(world.services.db, rollout_id, world.clock()).actions}
    assert offered["confirm"].refused.startswith("Nothing waits for a confirmation")


def test_a_dry_run_says_when_a_person_is_asked(world: World, tmp_path: Path) -> None:
    fleet_of(world, tmp_path, confirm="never")
    release_id = queries.releases(world.services.db)[0].release_id

    _, small = call(world, "POST", "rollouts/plan", {"release_id": release_id, "policy": POLICY, "selection": {}})
    _, never = call(world, "POST", "rollouts/plan", {"release_id": release_id, "policy": POLICY | {"confirm": "never"}, "selection": {}})

    assert any("A person is asked before wave 2 opens and at each failure" in one for one in small["cautions"])
    assert not any("A person is asked" in one for one in never["cautions"])


def test_a_halted_fleet_is_not_confirmed_past_its_halt(world: World, tmp_path: Path) -> None:
    from fleet_server.halting import halt_fleet
    from tests.unit.fleet_server.server_world import OPERATOR

    fleet, rollout_id = fleet_of(world, tmp_path)
    paused(fleet, rollout_id)
    halt_fleet(world.services, reason="a storm", actor=OPERATOR)

    with pytest.raises(ConflictError, match="halted"):
        act(world, rollout_id, "confirm")
