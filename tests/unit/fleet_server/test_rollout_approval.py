"""Approval by n of m people, bound to one plan: pure rules, and over a real database."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet_server import audit, queries, usecases
from fleet_server.approving import approvals_of, approve_rollout
from fleet_server.auth import Actor, Role
from fleet_server.errors import ConflictError, ForbiddenError
from fleet_server.rollout import TransitionError
from fleet_server.rollout.approval import Superseded, plan_digest, plan_parts, what_changed
from tests.unit.fleet_server.rollout_world import draft
from tests.unit.fleet_server.server_world import OPERATOR, POLICY, World, make_bundle
from tests.unit.fleet_server.steered import tick


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    opened = World.open(tmp_path / "data")
    for number in range(4):
        device = opened.enroll(f"d{number}", tmp_path)
        opened.receive(device.presence(), device.heartbeat())
    yield opened
    opened.close()


def person(name: str, role: Role = "operator") -> Actor:
    return Actor(name, role)


def planned(world: World, tmp_path: Path, needed: int = 2, **changes: Any) -> str:
    release_id = world.push(make_bundle(tmp_path / "b1"))
    policy = POLICY | {"approvals": needed} | changes
    return usecases.create_rollout(world.services, release_id=release_id, policy=policy, selection={}, actor=OPERATOR).rollout_id


def approve(world: World, rollout_id: str, actor: Actor, digest: str = "") -> None:
    digest = digest or approvals_of(world.services.db, rollout_id).digest
    approve_rollout(world.services, rollout_id, digest=digest, actor=actor)


def start(world: World, rollout_id: str) -> None:
    version = queries.rollout(world.services.db, rollout_id, world.clock()).version
    usecases.rollout_action(world.services, rollout_id, "start", version=version, reason="", actor=OPERATOR)


def test_a_rollout_starts_once_two_others_have_approved_it(world: World, tmp_path: Path) -> None:
    rollout_id = planned(world, tmp_path)
    approve(world, rollout_id, person("anna"))
    with pytest.raises(ConflictError, match=r"1 of 2 approvals are there \(anna\); missing: 1 from operators or admins other than olga"):
        start(world, rollout_id)

    approve(world, rollout_id, person("ben", "admin"))
    assert queries.rollout(world.services.db, rollout_id, world.clock()).state == "approved"
    start(world, rollout_id)
    tick(world)

    assert len(world.devices) == 4
    assert sum(world.desired(d) is not None for d in world.devices) == 1
    with world.services.db.read() as connection:
        assert audit.verify(connection) > 0
    assert [e.action for e in queries.recent_events(world.services.db)].count("approve") == 2


@pytest.mark.parametrize(
    ("actor", "words"),
    [
        (OPERATOR, "olga planned rollout .*; somebody else must approve it"),
        (person("vera", "viewer"), "vera is viewer; approving needs operator or admin"),
        (person("d0", "device"), "d0 is device"),
    ],
)
def test_the_creator_a_viewer_and_a_device_may_not_approve(world: World, tmp_path: Path, actor: Actor, words: str) -> None:
    rollout_id = planned(world, tmp_path)

    with pytest.raises(ForbiddenError, match=words):
        approve(world, rollout_id, actor)

    assert approvals_of(world.services.db, rollout_id).approvals == []


def test_a_person_counts_once(world: World, tmp_path: Path) -> None:
    rollout_id = planned(world, tmp_path)
    approve(world, rollout_id, person("anna"))

    with pytest.raises(ConflictError, match="anna has approved this plan already"):
        approve(world, rollout_id, person("anna", "admin"))

    assert approvals_of(world.services.db, rollout_id).missing.startswith("1 of 2")


def test_a_digest_of_another_plan_is_refused_with_what_changed(world: World, tmp_path: Path) -> None:
    rollout_id = planned(world, tmp_path)

    with pytest.raises(ConflictError, match=r"you looked at plan aaaaaaaaaaaa .*; changed: what its start would end: now nothing"):
        approve(world, rollout_id, person("anna"), "a" * 64)


def test_a_rollout_that_asks_for_no_approval_takes_none(world: World, tmp_path: Path) -> None:
    rollout_id = planned(world, tmp_path, needed=0)

    with pytest.raises(ConflictError, match="asks for no approval"):
        approve(world, rollout_id, person("anna"))


def test_a_rollout_that_runs_cannot_be_approved_any_more(world: World, tmp_path: Path) -> None:
    rollout_id = planned(world, tmp_path, needed=1)
    approve(world, rollout_id, person("anna"))
    start(world, rollout_id)

    with pytest.raises(TransitionError, match="running does not know 'approve'"):
        approve(world, rollout_id, person("ben"))


def test_a_start_without_any_approval_reaches_no_device(world: World, tmp_path: Path) -> None:
    rollout_id = planned(world, tmp_path)

    with pytest.raises(ConflictError, match="0 of 2 approvals are there; missing: 2"):
        start(world, rollout_id)
    tick(world)

    assert all(world.desired(device_id) is None for device_id in world.devices)


def test_a_plan_is_one_digest_and_every_part_of_it_counts() -> None:
    rollout = draft()
    moved = Superseded("r-0", "running", 1, 4)
    plans = [
        plan_parts(rollout, {"site": "north"}),
        plan_parts(rollout, {"site": "south"}),
        plan_parts(draft(approvals=1), {"site": "north"}),
        plan_parts(draft(devices=9), {"site": "north"}),
        plan_parts(rollout, {"site": "north"}, membership={"salt": "x"}),
        plan_parts(rollout, {"site": "north"}, superseded=[moved]),
        plan_parts(rollout, {"site": "north"}, superseded=[Superseded("r-0", "paused", 1, 5)]),
    ]

    assert len({plan_digest(parts) for parts in plans}) == len(plans)
    assert plan_digest(plan_parts(draft(), {"site": "north"})) == plan_digest(plans[0])
    assert what_changed(plans[5], plans[6]) == (
        "the rollout that it supersedes (r-0 is running in wave 1 (version 4); now r-0 is paused in wave 1 (version 5))"
    )
    assert what_changed(plans[0], plans[0]) == "nothing"


def test_the_api_approves_the_named_digest_and_refuses_an_old_one(world: World, tmp_path: Path) -> None:
    from fleet_server import auth

    rollout_id = planned(world, tmp_path)
    with world.services.db.write() as connection:
        token = auth.issue_token(connection, world.services.now_us(), "anna", "operator")
        viewer = auth.issue_token(connection, world.services.now_us(), "vera", "viewer")
    path, headers = f"/api/v1/rollouts/{rollout_id}", {"Authorization": f"Bearer {token}"}
    digest = world.client().get(f"{path}/approvals", headers=headers).get_json()["digest"]

    stale = world.client().post(f"{path}/approve", json={"digest": "b" * 64}, headers=headers)
    forbidden = world.client().post(f"{path}/approve", json={"digest": digest}, headers={"Authorization": f"Bearer {viewer}"})
    good = world.client().post(f"{path}/approve", json={"digest": digest, "note": "looks well"}, headers=headers)

    assert (stale.status_code, forbidden.status_code, good.status_code) == (409, 403, 200)
    assert "changed" in stale.get_json()["detail"]
    assert [(row["approver"], row["counts"], row["note"]) for row in good.get_json()["approvals"]] == [("anna", True, "looks well")]
