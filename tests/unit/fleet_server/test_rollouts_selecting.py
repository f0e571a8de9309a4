"""Rollouts, orders and lists over an expression or a group: whom it means, what is refused, and that a plan keeps its meaning."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from edgefleet.digests import sha256_hex
from edgefleet.errors import ConfigError, InputError
from fleet_server import planning, queries, relabelling, usecases
from fleet_server.approving import approvals_of, approve_rollout
from fleet_server.auth import Actor
from fleet_server.errors import ConflictError
from fleet_server.grouping import GroupView, groups_of, remove_group, set_group
from fleet_server.queries import NotFoundError
from fleet_server.read_plan import PlanView
from fleet_server.removing import remove_device
from fleet_server.sampling import Whom, order_sampling
from fleet_server.selection import Document
from fleet_server.store.tables import DEVICE_LABEL, ROLLOUT, ROLLOUT_MEMBER
from tests.unit.fleet_server.evidence_world import POLICY, open_fleet
from tests.unit.fleet_server.server_world import OPERATOR, PROJECT, World, make_bundle

COUNT = 24  # four sites s0 to s3, hardware a and b in turns


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    opened = World.open(tmp_path / "data")
    open_fleet(opened, COUNT)
    opened.push(make_bundle(tmp_path / "bundle"))
    yield opened
    opened.close()


def release_of(world: World) -> str:
    return queries.releases(world.services.db)[0].release_id


def plan(world: World, selection: Document) -> PlanView:
    return planning.plan(
        world.services.db, world.clock(), release_id=release_of(world), policy=POLICY, selection=selection, with_devices=True
    )


def chosen(world: World, selection: Document) -> set[int]:
    view = plan(world, selection)
    return {int(one[1:]) for one in [*view.held_back_ids, *(one for wave in view.waves for one in wave.device_ids)]}


def create(world: World, selection: Document, **changes: Any) -> str:
    made = usecases.create_rollout(
        world.services, release_id=release_of(world), policy=POLICY | changes, selection=selection, actor=OPERATOR
    )
    return made.rollout_id


def members(world: World, rollout_id: str) -> set[int]:
    with world.services.db.read() as connection:
        query = sa.select(ROLLOUT_MEMBER.c.device_id).where(ROLLOUT_MEMBER.c.rollout_id == rollout_id)
        return {int(one[1:]) for one in connection.scalars(query)}


def group(world: World, name: str, selection: Document) -> GroupView:
    return set_group(world.services, PROJECT, name, selection=selection, reason="for tests", actor=OPERATOR)


@pytest.mark.parametrize(
    ("selection", "wanted"),
    [
        ("site in (s1, s3)", {1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23}),
        ("site != s0 and hardware = a", {2, 6, 10, 14, 18, 22}),
        ("site = s0 or device(d00001, d00002)", {0, 4, 8, 12, 16, 20, 1, 2}),
        ("not (hardware = a or site in (s1))", {3, 7, 11, 15, 19, 23}),
        ({"site": "s0", "hardware": "a"}, {0, 4, 8, 12, 16, 20}),
    ],
)
def test_a_plan_and_the_rollout_made_of_it_reach_whom_the_expression_means(world: World, selection: Document, wanted: set[int]) -> None:
    assert chosen(world, selection) == wanted
    assert members(world, create(world, selection)) == wanted


def test_one_selection_written_in_two_ways_is_one_plan_and_another_one_is_another(world: World) -> None:
    digests = [plan(world, one).digest for one in ({"site": "s0", "hardware": "a"}, "hardware == a and (site in (s0))")]
    assert digests[0] == digests[1]
    assert plan(world, "site in (s0, s1)").digest == plan(world, "site in (s1, s0, s1)").digest
    assert plan(world, "site in (s0, s1)").digest != plan(world, "site in (s0, s2)").digest


@pytest.mark.parametrize(
    ("selection", "error", "words"),
    [
        (
            "sit = s1",
            ConfigError,
            "no device of digits has a label 'sit' (did you mean 'site'?); known labels: hardware, region, site",
        ),
        ("has(colour)", ConfigError, "no device of digits has a label 'colour'"),
        (
            "site != s11",
            ConfigError,
            "`site != s11` leaves out nobody, no device of digits has that value (did you mean 's1'?); values",
        ),
        ("hardware = a and not (site in (s1, s9))", ConfigError, "`site != s9` leaves out nobody"),
        ("group(pilot)", ConfigError, "project digits has no group 'pilot' (did you mean 'pilots'?); its groups: pilots"),
        ("device(d00001, d7)", ConfigError, "selection: not in project digits: device d7; enroll it, or take it out"),
        (
            "site = s1 and site = s2",
            ConfigError,
            "the selection matches no device of digits, nothing to roll out: `site = s1 and site = s2`. Its parts exclude each other",
        ),
        ("site = s11", ConfigError, "nothing to roll out: `site = s11`. No device of digits has site = s11 yet (did you mean 's1'?)."),
        ("site is s1", InputError, "'is' stands at character 6 behind `site`"),
    ],
)
def test_a_selection_of_unknown_things_is_refused_with_what_there_is(
    world: World, selection: str, error: type[Exception], words: str
) -> None:
    group(world, "pilots", "site = s1")

    for made in (plan, create):
        with pytest.raises(error) as refused:
            made(world, selection)
        assert words in str(refused.value)
    assert queries.rollouts(world.services.db, world.clock()) == []


def test_a_plan_says_what_a_person_may_not_have_meant(world: World) -> None:
    with world.services.db.write() as connection:
        connection.execute(sa.delete(DEVICE_LABEL).where(DEVICE_LABEL.c.device_id == "d00001", DEVICE_LABEL.c.key == "site"))

    view = plan(world, "hardware in (a, b, c) and site != s0")

    assert view.selection == "hardware in (a, b, c) and site != s0"
    assert view.cautions[:2] == [
        "No device of digits has hardware = c yet.",
        "`site != s0` also takes 1 device that has no label site; add `has(site)` to leave such out.",
    ]
    assert "also takes" not in " ".join(plan(world, "hardware = b and site != s0 and has(site)").cautions)


def test_a_plan_remarks_upon_a_value_that_nobody_has_and_once_upon_a_label_that_is_excluded_often(world: World) -> None:
    with world.services.db.write() as connection:
        connection.execute(sa.delete(DEVICE_LABEL).where(DEVICE_LABEL.c.device_id == "d00001", DEVICE_LABEL.c.key == "site"))

    unknown = plan(world, "hardware = a or site in (s11)").cautions
    often = plan(world, "site != s0 and site != s2 and site not in (s3, s2)").cautions

    assert "No device of digits has site = s11 yet (did you mean 's1'?)." in unknown
    assert len([one for one in often if "also takes 1 device that has no label site" in one]) == 1


def test_a_device_without_a_label_that_is_taken_for_another_reason_is_not_remarked_upon(world: World) -> None:
    with world.services.db.write() as connection:
        unlabelled = DEVICE_LABEL.c.device_id.in_(["d00001", "d00002"])
        connection.execute(sa.delete(DEVICE_LABEL).where(unlabelled, DEVICE_LABEL.c.key == "site"))

    either = plan(world, "hardware = a or site != s0").cautions
    never = plan(world, "hardware = a or site != s0 and has(site)").cautions

    assert "`site != s0` also takes 1 device that has no label site; add `has(site)` to leave such out." in either
    assert "also takes" not in " ".join(never)


def test_groups_that_are_too_large_together_are_refused_before_a_rollout_is_lost_that_cannot_be_read_again(world: World) -> None:
    for number in range(3):
        group(world, f"g{number}", "hardware = a or hardware in (" + ", ".join(f"x{number}{one:03d}" for one in range(600)) + ")")

    with pytest.raises(ConfigError, match="selection: written out in full it is too large: the selection names more than 1000"):
        create(world, "group(g0) or group(g1)")
    with pytest.raises(ConfigError, match=r"its groups have \d+ characters written out, the limit is 16384"):
        create(world, "group(g0) and site = s0 or group(g1) and site = s1 or group(g2) and site = s2 or group(g2) and site = s3")
    with pytest.raises(ConfigError, match="group g3: written out in full it is too large: the selection has 1"):
        group(world, "g3", "hardware = a or hardware in(" + ",".join(f"x{one:015d}" for one in range(950)) + ")")
    assert queries.rollouts(world.services.db, world.clock()) == []
    assert [one.name for one in groups_of(world.services.db)] == ["g0", "g1", "g2"]


def test_a_refusal_names_the_group_in_which_the_unknown_thing_stands(world: World) -> None:
    relabelling.set_labels(world.services, "d00003", put={"line": "4"}, reason="new", actor=OPERATOR)
    group(world, "pilots", "has(line) or site in (s0, s9)")
    group(world, "others", "site = s1")
    relabelling.set_labels(world.services, "d00003", put={}, drop=["line"], reason="over", actor=OPERATOR)

    with pytest.raises(ConfigError, match="selection: group pilots: no device of digits has a label 'line'"):
        plan(world, "group(others) or group(pilots)")
    group(world, "pilots", "site in (s0, s9)")
    with pytest.raises(ConfigError, match="selection: group pilots: `site != s9` leaves out nobody"):
        plan(world, "not group(pilots)")
    assert chosen(world, "group(pilots)") == {0, 4, 8, 12, 16, 20}


def test_a_device_joins_and_leaves_an_open_rollout_by_its_expression(world: World) -> None:
    rollout_id = create(world, "site in (s0, s1) and hardware != b")
    assert members(world, rollout_id) == {0, 4, 8, 12, 16, 20}

    relabelling.set_labels(world.services, "d00003", put={"site": "s1", "hardware": "c"}, reason="moved", actor=OPERATOR)
    relabelling.set_labels(world.services, "d00004", put={"site": "s3"}, reason="moved", actor=OPERATOR)

    assert members(world, rollout_id) == {0, 3, 8, 12, 16, 20}


def test_a_device_that_is_enrolled_later_joins_where_a_not_means_it_and_nowhere_else(world: World, tmp_path: Path) -> None:
    rollout_id = create(world, "(site != s0 and hardware = a or not has(hardware)) and not device(d00002)")
    assert members(world, rollout_id) == {6, 10, 14, 18, 22}
    remove_device(world.services, "d00002", reason="scrapped", actor=OPERATOR)

    world.enroll("d00090", tmp_path)
    world.enroll("d00091", tmp_path, hardware="b")
    world.enroll("d00092", tmp_path, hardware="a")
    world.enroll("d00093", tmp_path, hardware="a", site="s0")
    world.enroll("d00002", tmp_path, hardware="a", site="s1")

    assert members(world, rollout_id) == {6, 10, 14, 18, 22, 90, 92}


def test_a_rollout_keeps_what_its_group_meant_when_it_was_planned(world: World) -> None:
    group(world, "pilots", "site = s1")
    rollout_id = create(world, "group(pilots) and hardware = b", approvals=1)
    approve_rollout(world.services, rollout_id, digest=approvals_of(world.services.db, rollout_id).digest, actor=Actor("anna", "operator"))
    before = members(world, rollout_id)

    group(world, "pilots", "site = s3")
    relabelling.set_labels(world.services, "d00007", put={"site": "s1"}, reason="moved", actor=OPERATOR)
    remove_group(world.services, PROJECT, "pilots", reason="not needed", actor=OPERATOR)

    assert before == {1, 5, 9, 13, 17, 21}
    assert members(world, rollout_id) == before | {7}
    view = queries.rollout(world.services.db, rollout_id, world.clock())
    assert view.selection == "hardware = b and site = s1"
    log = " ".join(entry.detail for entry in queries.recent_events(world.services.db))
    assert "24 devices" not in log
    assert "6 devices (group(pilots) and hardware = b, that is hardware = b and site = s1)" in log
    assert "pilots: site = s1 became site = s3: for tests" in log


def test_a_plan_whose_group_means_others_by_now_is_another_plan_and_is_not_created(world: World) -> None:
    group(world, "pilots", "site = s1")
    seen = plan(world, "group(pilots)").digest
    group(world, "pilots", "site in (s1, s2)")

    with pytest.raises(ConflictError, match="you looked at plan"):
        usecases.create_rollout(
            world.services, release_id=release_of(world), policy=POLICY, selection="group(pilots)", actor=OPERATOR, digest=seen
        )
    assert queries.rollouts(world.services.db, world.clock()) == []


def test_the_log_keeps_the_reason_and_the_policy_behind_a_selection_that_it_has_no_room_for(world: World) -> None:
    many = [f"d{number:05d}" for number in range(COUNT)]
    for first in (1, 2):
        group(world, "pilots", f"device({', '.join(many[first:])}) or hardware in (a, {', '.join(f'x{one:03d}' for one in range(500))})")
    text = groups_of(world.services.db)[0].selection
    create(world, "group(pilots)")
    remove_group(world.services, PROJECT, "pilots", reason="not needed", actor=OPERATOR)

    removed, created, changed = (entry.detail for entry in queries.recent_events(world.services.db)[:3])

    assert removed.endswith(f"… ({len(text)} characters, sha256 {sha256_hex(text.encode())}): not needed")
    assert "digits 1 to 23 devices (group(pilots), that is device(d00002, " in created
    assert f"sha256 {sha256_hex(text.encode())})) under policy 'evidence'" in created
    assert " became device(d00002, " in changed
    assert changed.endswith(": for tests")


def test_who_edits_the_selection_of_an_approved_plan_has_no_approval_any_more(world: World) -> None:
    rollout_id = create(world, "site in (s0, s1)", approvals=1)
    approve_rollout(world.services, rollout_id, digest=approvals_of(world.services.db, rollout_id).digest, actor=Actor("anna", "operator"))

    with world.services.db.write() as connection:
        edited = sa.update(ROLLOUT).where(ROLLOUT.c.rollout_id == rollout_id).values(selection='"site in (s0, s2)"')
        connection.execute(edited)

    with pytest.raises(ConflictError, match="since then changed: the selection"):
        usecases.rollout_action(world.services, rollout_id, "start", version=2, reason="", actor=OPERATOR)


@pytest.mark.parametrize(
    ("name", "selection", "error", "words"),
    [
        ("Pilots", "site = s1", InputError, "group 'Pilots' is not an identifier"),
        ("pilots", "", InputError, "group 'pilots' would be every device"),
        ("pilots", "group(old) or site = s1", InputError, "group 'pilots' names the group 'old'"),
        ("pilots", "sit = s1", ConfigError, "group pilots: no device of digits has a label 'sit'"),
        ("pilots", "site ~ s1", InputError, "'~' stands at character 6"),
    ],
)
def test_a_group_that_cannot_be_is_refused_and_the_one_before_stays(
    world: World, name: str, selection: str, error: type[Exception], words: str
) -> None:
    group(world, "pilots", "site = s0")

    with pytest.raises(error) as refused:
        group(world, name, selection)

    assert words in str(refused.value)
    assert [one.selection for one in groups_of(world.services.db, PROJECT)] == ["site = s0"]


def test_groups_are_of_a_project_and_only_one_that_is_there_can_be_forgotten(world: World) -> None:
    group(world, "pilots", "site = s0")

    with pytest.raises(NotFoundError, match="elsewhere"):
        set_group(world.services, "elsewhere", "pilots", selection="site = s0", reason="because", actor=OPERATOR)
    with pytest.raises(NotFoundError, match="others"):
        remove_group(world.services, PROJECT, "others", reason="because", actor=OPERATOR)
    with pytest.raises(InputError, match="the reason has 0 characters"):
        remove_group(world.services, PROJECT, "pilots", reason=" ", actor=OPERATOR)
    assert [(one.name, one.devices, one.trouble) for one in groups_of(world.services.db)] == [("pilots", 6, "")]
    assert groups_of(world.services.db, "elsewhere") == []


def test_a_group_may_name_a_device_that_was_removed_and_the_plan_says_so(world: World) -> None:
    group(world, "pilots", "device(d00003) or site = s0")
    remove_device(world.services, "d00003", reason="scrapped", actor=OPERATOR)

    (view,) = groups_of(world.services.db)

    assert (view.devices, view.trouble) == (6, "")
    assert "Removed from the fleet, so not selected: d00003." in plan(world, "group(pilots)").cautions


def test_lists_and_orders_about_rows_take_the_same_selections(world: World) -> None:
    group(world, "pilots", "site in (s0, s1)")
    asked = "group(pilots) and hardware != a"

    listed = queries.devices(world.services.db, world.clock(), project=PROJECT, selection=asked)
    until = world.clock().replace(year=world.clock().year)
    orders = order_sampling(
        world.services,
        Whom(project=PROJECT, selection=asked),
        rows_per_hour=5.0,
        redact=(),
        bytes_per_day=1_000,
        until=until.replace(hour=until.hour + 1),
        actor=OPERATOR,
    )

    assert {int(row.device_id[1:]) for row in listed} == {1, 5, 9, 13, 17, 21}
    assert [order.device_id for order in orders] == [row.device_id for row in listed]
    with pytest.raises(InputError, match="a selection needs the project"):
        queries.devices(world.services.db, world.clock(), selection=asked)
    with pytest.raises(ConfigError, match="selection: project digit has no device that could be selected"):
        queries.devices(world.services.db, world.clock(), project="digit", selection=asked)
    with pytest.raises(InputError, match=r"project 'x\\n' is not an identifier"):
        queries.devices(world.services.db, world.clock(), project="x\n", selection=asked)


def test_the_api_makes_lists_and_forgets_groups_and_plans_with_them(world: World) -> None:
    client, headers = world.client(), {"Authorization": f"Bearer {world.admin_token()}"}
    path = f"/api/v1/projects/{PROJECT}/groups/pilots"

    made = client.put(path, json={"selection": {"site": "s1"}, "reason": "first"}, headers=headers)
    listed = client.get(f"/api/v1/groups?project={PROJECT}", headers=headers).get_json()
    body = {"release_id": release_of(world), "policy": POLICY, "selection": "group(pilots)"}
    planned = client.post("/api/v1/rollouts/plan", json=body, headers=headers).get_json()
    rows = client.get(f"/api/v1/devices?project={PROJECT}&select=group(pilots)", headers=headers).get_json()
    unreadable = client.get(f"/api/v1/devices?project={PROJECT}&select=site%3D", headers=headers)
    gone = client.post(f"{path}/remove", json={"reason": "over"}, headers=headers)

    assert made.get_json()["selection"] == "site = s1"
    assert [(one["name"], one["devices"]) for one in listed] == [("pilots", 6)]
    assert (planned["devices"], planned["selection"]) == (6, "site = s1")
    assert len(rows) == 6
    assert unreadable.status_code == 422
    assert gone.status_code == 200
    assert client.get("/api/v1/groups", headers=headers).get_json() == []
