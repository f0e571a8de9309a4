"""Groups in number: counted alike one by one and together, page by page; and changed by adding and taking away, looked at before."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from benchmarks import groups as benchmark
from edgefleet.errors import ConfigError, EdgefleetError, InputError
from edgefleet.signing import SigningKey
from fleet_server import queries, relabelling, usecases
from fleet_server.errors import ConflictError
from fleet_server.grouping import GroupView, digest_of, group_of, groups_of, remove_group, set_group
from fleet_server.queries import NotFoundError
from fleet_server.regrouping import GroupChange, How, change, preview, read_wanted
from fleet_server.removing import remove_device
from fleet_server.selection import MAX_CHARACTERS, written
from fleet_server.store import Database
from tests.unit.fleet_server.evidence_world import POLICY, open_fleet
from tests.unit.fleet_server.server_world import OPERATOR, PROJECT, World, make_bundle

COUNT = 24  # four sites s0 to s3, hardware a and b in turns
KINDS = ("site = s1", "site != s2 and hardware = a", "device(d00001, d00002, d00003)", "has(region) and not device(d00004)", "hardware = b")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    opened = World.open(tmp_path / "data")
    open_fleet(opened, COUNT)
    yield opened
    opened.close()


def group(world: World, name: str, selection: str) -> GroupView:
    return set_group(world.services, PROJECT, name, selection=selection, reason="for tests", actor=OPERATOR)


def look(world: World, how: How, wanted: str, name: str = "pilots") -> GroupChange:
    return preview(world.services.db, PROJECT, name, how, wanted)


def do(world: World, how: How, wanted: str, digest: str, name: str = "pilots") -> GroupView:
    return change(world.services, PROJECT, name, how, wanted, digest=digest, reason="for tests", actor=OPERATOR)


def questions(world: World) -> int:
    """Statements that the list of groups sends to the database."""
    sent: list[str] = []

    def note(*event: object) -> None:
        sent.append(str(event[2]))

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        groups_of(world.services.db)
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)
    return len(sent)


def test_many_groups_are_counted_as_each_is_alone(world: World) -> None:
    alone = {group(world, f"g{number}", selection).name: selection for number, selection in enumerate(KINDS)}
    remove_device(world.services, "d00002", reason="scrapped", actor=OPERATOR)

    together = {view.name: view.devices for view in groups_of(world.services.db)}

    assert together == {name: group_of(world.services.db, PROJECT, name).devices for name in alone}
    assert together == {"g0": 6, "g1": 6, "g2": 2, "g3": 22, "g4": 12}


def test_the_benchmarks_groups_are_counted_as_the_database_counts_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.measure(Database(f"sqlite:///{tmp_path / 'fleet.db'}"), devices=1_000, count=60) == 0
    assert "60 groups, 1,000 devices, sqlite" in capsys.readouterr().out


def test_a_longer_list_of_groups_asks_the_database_no_more_often(world: World) -> None:
    for number in range(10):
        group(world, f"g{number}", KINDS[number % len(KINDS)])
    few = questions(world)

    for number in range(10, 40):
        group(world, f"g{number}", KINDS[number % len(KINDS)])

    assert questions(world) == few


def test_a_group_that_means_nothing_any_more_spoils_no_other_count(world: World) -> None:
    relabelling.set_labels(world.services, "d00000", put={"line": "4"}, reason="new", actor=OPERATOR)
    for number, selection in enumerate((*KINDS, "has(line)", "line != 4 and site = s0", "line = 4 or site = s0")):
        group(world, f"g{number}", selection)

    relabelling.set_labels(world.services, "d00000", put={}, drop=["line"], reason="over", actor=OPERATOR)

    views = {view.name: view for view in groups_of(world.services.db)}
    assert [views[f"g{number}"].devices for number in range(8)] == [6, 6, 3, 23, 12, None, None, None]
    assert all("no device of digits has a label 'line'" in views[f"g{number}"].trouble for number in (5, 6, 7))
    assert [views[name].trouble for name in ("g0", "g1", "g2", "g3", "g4")] == [""] * 5


def test_groups_are_listed_page_by_page(world: World) -> None:
    for number in range(7):
        group(world, f"g{number}", KINDS[number % len(KINDS)])
    client, headers = world.client(), {"Authorization": f"Bearer {world.admin_token()}"}

    first = client.get("/api/v1/groups?limit=4", headers=headers).get_json()
    second = client.get(f"/api/v1/groups?limit=4&after={PROJECT}/{first[-1]['name']}", headers=headers).get_json()
    refused = client.get("/api/v1/groups?limit=0", headers=headers)

    assert [one["name"] for one in first + second] == [f"g{number}" for number in range(7)]
    assert [one["devices"] for one in second] == [view.devices for view in groups_of(world.services.db)[4:]]
    assert refused.status_code == 422


@pytest.mark.parametrize(
    ("before", "how", "wanted", "after", "came", "went"),
    [
        ("device(d00001)", "add", "d00003\nd00002, d00001", "device(d00001, d00002, d00003)", ["d00002", "d00003"], []),
        ("device(d00001, d00002)", "take", "d00002;d00005", "device(d00001)", [], ["d00002"]),
        ("hardware = b and site = s1", "take", "d00005 d00009", "hardware = b and not device(d00005, d00009) and site = s1", [],
         ["d00005", "d00009"]),
        ("hardware = b and not device(d00005, d00009) and site = s1", "add", "d00005",
         "device(d00005) or hardware = b and not device(d00005, d00009) and site = s1", ["d00005"], []),
        ("device(d00005) or hardware = b and not device(d00005, d00009) and site = s1", "take", "d00005",
         "hardware = b and not device(d00005, d00009) and site = s1", [], ["d00005"]),
        ("device(d00000) or site = s1", "take", "site = s1 and not device(d00001)",
         "(device(d00000) or site = s1) and not (not device(d00001) and site = s1)", [],
         ["d00005", "d00009", "d00013", "d00017", "d00021"]),
        ("device(d00001)", "say", "device(d00002)", "device(d00002)", ["d00002"], ["d00001"]),
    ],
)  # fmt: skip
def test_what_is_shown_is_what_is_done(
    world: World, before: str, how: How, wanted: str, after: str, came: list[str], went: list[str]
) -> None:
    group(world, "pilots", before)

    shown = look(world, how, wanted)
    unchanged = group_of(world.services.db, PROJECT, "pilots").selection
    done = do(world, how, wanted, shown.digest)

    assert (shown.after, shown.came, shown.comes, shown.went, shown.goes) == (after, came, len(came), went, len(went))
    assert (unchanged, done.selection, done.devices) == (before, after, shown.devices)


def test_a_group_is_made_of_pasted_names_and_stands_in_the_log(world: World) -> None:
    shown = look(world, "make", "d00001 d00002")
    made = do(world, "make", "d00001 d00002", shown.digest)

    assert (shown.before, shown.devices, shown.came) == ("", 2, ["d00001", "d00002"])
    assert (made.selection, made.changed_by) == ("device(d00001, d00002)", OPERATOR.name)
    newest = queries.recent_events(world.services.db, 1)[0]
    assert (newest.actor, newest.action) == (OPERATOR.name, "set-group")
    assert "pilots: device(d00001, d00002): for tests" in newest.detail


def test_named_devices_that_a_change_does_not_concern_are_told(world: World) -> None:
    group(world, "pilots", "device(d00001, d00002)")

    assert look(world, "add", "d00001 d00003").told == ["In it already: d00001."]
    assert look(world, "take", "d00001 d00003").told == ["Not in it: d00003."]


@pytest.mark.parametrize(
    ("how", "wanted", "kind", "words"),
    [
        ("add", "  ", InputError, "no device is named; write names, or a selection"),
        ("add", "d00003 nobody", ConfigError, "group pilots: not in project digits: device nobody; enroll it, or take it out"),
        ("add", "Press 7", InputError, "device 'Press' is not an identifier"),
        ("add", "sit = s1", ConfigError, r"no device of digits has a label 'sit' \(did you mean 'site'\?\)"),
        ("add", "group(others)", InputError, "names the group 'others'; write out what that one selects"),
        ("add", "d00001", InputError, "group 'pilots' means exactly that already"),
        ("take", "d00001 d00002", InputError, "group 'pilots' would be empty; remove it instead"),
        ("make", "d00001", InputError, "project digits has a group 'pilots' already"),
        ("add", "x" * (MAX_CHARACTERS + 1), InputError, f"the devices have {MAX_CHARACTERS + 1} characters, the limit is {MAX_CHARACTERS}"),
    ],
)
def test_a_change_that_cannot_be_meant_is_refused_when_it_is_looked_at_and_when_it_is_done(
    world: World, how: How, wanted: str, kind: type[EdgefleetError], words: str
) -> None:
    group(world, "pilots", "device(d00001, d00002)" if how == "take" else "device(d00001)")
    before = groups_of(world.services.db)

    with pytest.raises(kind, match=words):
        look(world, how, wanted)
    with pytest.raises((kind, ConflictError)):
        do(world, how, wanted, digest_of("any"))

    assert groups_of(world.services.db) == before


def test_what_was_not_shown_is_not_done(world: World) -> None:
    group(world, "pilots", "device(d00001)")
    digest = look(world, "add", "d00002").digest
    attempts: list[tuple[How, str, str]] = [("add", "d00003", digest), ("say", "d00002", digest), ("add", "d00002", "")]

    for how, wanted, seen in attempts:
        with pytest.raises((ConflictError, InputError), match="shown"):
            do(world, how, wanted, seen)
    group(world, "pilots", "device(d00001, d00004)")
    with pytest.raises(ConflictError, match="this is not the change of group pilots that was shown"):
        do(world, "add", "d00002", digest)

    assert group_of(world.services.db, PROJECT, "pilots").selection == "device(d00001, d00004)"


def test_a_group_that_was_looked_at_is_not_made_under_another_name_or_in_another_project(world: World, tmp_path: Path) -> None:
    key = SigningKey.load_or_create(tmp_path / "e00001.key").public.hex
    usecases.enroll_device(world.services, device_id="e00001", project="letters", public_key=key, labels={"site": "s1"}, actor=OPERATOR)
    digest = look(world, "make", "site = s1").digest

    with pytest.raises(ConflictError, match="this is not the change of group others that was shown"):
        do(world, "make", "site = s1", digest, name="others")
    with pytest.raises(ConflictError, match="this is not the change of group pilots that was shown"):
        change(world.services, "letters", "pilots", "make", "site = s1", digest=digest, reason="so", actor=OPERATOR)

    assert groups_of(world.services.db) == []


def test_a_group_that_somebody_else_changed_or_removed_is_not_changed_by_its_old_digest(world: World) -> None:
    seen = group(world, "pilots", "device(d00001)").digest
    group(world, "pilots", "device(d00002)")
    changed = r"group pilots means device\(d00002\) by now, says olga\. Nothing was changed"
    with pytest.raises(ConflictError, match=changed):
        remove_group(world.services, PROJECT, "pilots", reason="over", actor=OPERATOR, digest=seen)
    with pytest.raises(ConflictError, match=changed):
        set_group(world.services, PROJECT, "pilots", selection="site = s1", reason="so", actor=OPERATOR, digest=seen)
    remove_group(world.services, PROJECT, "pilots", reason="over", actor=OPERATOR)

    with pytest.raises(ConflictError, match="group pilots is not there any more"):
        set_group(world.services, PROJECT, "pilots", selection="site = s1", reason="so", actor=OPERATOR, digest=seen)
    with pytest.raises(NotFoundError):
        look(world, "add", "d00001")


def test_only_rollouts_that_are_not_over_and_were_planned_with_a_group_are_named(world: World, tmp_path: Path) -> None:
    release_id = world.push(make_bundle(tmp_path / "bundle"))
    for name in ("pilots", "others"):
        group(world, name, "site = s1")

    def create(selection: str) -> str:
        made = usecases.create_rollout(world.services, release_id=release_id, policy=POLICY, selection=selection, actor=OPERATOR)
        return made.rollout_id

    def named() -> dict[str, list[str]]:
        return {view.name: view.rollouts for view in groups_of(world.services.db)}

    first = create("group(pilots) and hardware = b")
    assert named() == {"pilots": [first], "others": []}
    version = queries.rollout(world.services.db, first, world.clock()).version
    usecases.rollout_action(world.services, first, "abort", version=version, reason="over", actor=OPERATOR)
    second = create("not group(others)")

    assert named() == {"pilots": [], "others": [second]}
    assert look(world, "add", "d00000", "others").rollouts == [second]
    assert remove_group(world.services, PROJECT, "others", reason="over", actor=OPERATOR) == [second]


def test_as_many_names_as_a_selection_may_have_are_read_and_one_more_is_refused(world: World) -> None:
    assert written(read_wanted("\n".join(f"d{number:05d}" for number in range(1_000)))).startswith("device(d00000, d00001")
    with pytest.raises(ConfigError, match="not in project digits"):
        look(world, "make", " ".join(f"d{number:05d}" for number in range(1_000)))
    with pytest.raises(ConfigError, match="the selection names more than 1000 labels, values and devices"):
        look(world, "make", " ".join(f"d{number:05d}" for number in range(1_001)))
