"""What people see of a rollout by evidence over a real database: sums become waves, gates, waits and words for devices."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from fleet_server import planning, queries, usecases
from fleet_server.approving import approvals_of
from fleet_server.queries.by_evidence import NEED_A_LOOK
from fleet_server.read_models import RolloutView
from fleet_server.store.tables import ROLLOUT_MEMBER, ROLLOUT_SUM
from tests.unit.fleet_server.server_world import OPERATOR, MadeBundle, World, make_bundle
from tests.unit.fleet_server.steered import tick, wanting

DEVICES = 24
POLICY: dict[str, Any] = {
    "name": "seconds", "evidence": "posterior", "soak_s": 4.0, "soak_rows": 0, "deadline_s": 20.0, "hold_s": 600.0,
    "waves": [5, 10, "100%"], "dwell_s": 30.0, "pace": {"every_s": 10.0}, "gates": {"compare": []},
    "hold_back": {"fraction": 0.1, "smallest_fleet": 10},
}  # fmt: skip


@dataclass
class Watched:
    """A world with a rollout, whose devices install, fail or fall silent as a test says."""

    world: World
    bundle: MadeBundle
    rollout_id: str = ""
    answered: set[str] = field(default_factory=set)
    failing: set[str] = field(default_factory=set)
    silent: set[str] = field(default_factory=set)

    def view(self) -> RolloutView:
        return queries.rollout(self.world.services.db, self.rollout_id, self.world.clock())

    def create(self, **changes: Any) -> RolloutView:
        view = usecases.create_rollout(
            self.world.services, release_id=self.release_id, policy=POLICY | changes, selection={}, actor=OPERATOR
        )
        self.rollout_id = view.rollout_id
        return view

    def act(self, action: str) -> RolloutView:
        return usecases.rollout_action(
            self.world.services, self.rollout_id, action, version=self.view().version, reason="because", actor=OPERATOR
        )

    def live(self, seconds: float) -> None:
        """Let time pass; devices that are asked answer once, and beat unless they are silent."""
        for _ in range(int(seconds / 2)):
            if self.view().state == "completed":
                return
            tick(self.world, 2.0)
            beating = [device for name, device in self.world.devices.items() if not (name in self.silent and name in self.answered)]
            self.world.receive(*[device.heartbeat() for device in beating])
            for name in sorted(wanting(self.world, self.bundle) - self.answered):
                self.answered.add(name)
                device = self.world.devices[name]
                self.world.receive(*(device.fail(self.bundle) if name in self.failing else device.install(self.bundle)))

    release_id: str = ""


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    world = World.open(tmp_path / "data")
    bundle = make_bundle(tmp_path / "bundle")
    release_id = world.push(bundle)
    for number in range(DEVICES):
        world.enroll(f"d-{number:02}", tmp_path, site=f"s{number % 6}", hardware="a" if number % 2 else "b")
    world.receive(*[device.presence() for device in world.devices.values()])
    yield Watched(world, bundle, release_id=release_id)
    world.close()


def members(view: RolloutView, wave: int) -> list[str]:
    return [member.device_id for member in view.waves[wave - 1].members]


def words(view: RolloutView) -> dict[str, str]:
    return {member.device_id: member.progress for wave in view.waves for member in wave.members}


def test_a_draft_shows_the_very_waves_that_its_plan_named(watched: Watched) -> None:
    now = watched.world.clock()
    plan = planning.plan(watched.world.services.db, now, release_id=watched.release_id, policy=POLICY, selection={}, with_devices=True)

    view = watched.create()

    assert [sorted(members(view, wave.number)) for wave in plan.waves] == [sorted(wave.device_ids) for wave in plan.waves]
    assert view.evidence is not None
    assert view.evidence.held_back == plan.held_back > 0
    assert view.evidence.chances == plan.chances
    assert approvals_of(watched.world.services.db, view.rollout_id).digest == plan.digest
    assert (view.verdict, view.gates) == ("waiting", [])
    assert view.sentence == f"Waiting: {DEVICES - plan.held_back} devices in 3 waves; no device has begun."


def test_an_open_wave_counts_ok_failed_silent_and_waiting_devices_and_says_why(watched: Watched) -> None:
    view = watched.create()
    first = members(view, 1)
    watched.failing, watched.silent = {first[0]}, {first[1]}
    watched.act("start")
    watched.live(60)

    view = watched.view()

    assert view.waves[0].counts == {"ok": 3, "failed": 1, "silent": 1}
    assert view.waves[1].counts == {"not-begun": 5}
    said = words(view)
    assert (said[first[0]], said[first[1]]) == ("failed", "silent")
    reasons = {member.device_id: member.reason for member in view.waves[0].members}
    assert reasons[first[0]] == "rolled-back: disagrees with the running model"
    assert re.fullmatch(r"not heard since its soak, last \d+ s ago", reasons[first[1]])
    assert [gate.name for gate in view.gates] == ["facts", "stop", "early warning", "sites", "comparisons", "time", "evidence"]
    assert view.verdict == "hold"
    assert view.evidence is not None
    assert view.evidence.decides == "evidence"
    assert view.sentence == next(gate.sentence for gate in view.gates if gate.name == "evidence")


def test_a_wave_that_opens_in_batches_says_who_waits_for_the_next_one(watched: Watched) -> None:
    watched.create(waves=[15, "100%"])
    watched.act("start")
    watched.live(4)

    view = watched.view()

    assert view.evidence is not None
    (wait,) = view.evidence.waits
    assert (wait.why, wait.devices) == ("pace", 10)
    assert re.search(r"never more at once than have begun before; the next one begins in \d+ s\.", wait.sentence)


def test_all_that_go_well_promote_wave_after_wave_to_the_end(watched: Watched) -> None:
    watched.create()
    watched.act("start")
    watched.live(300)

    view = watched.view()

    assert view.state == "completed"
    assert view.verdict == "done"
    assert [wave.state for wave in view.waves] == ["promoted"] * 3
    assert all(set(wave.counts) == {"ok"} for wave in view.waves)
    assert all(wave.reason.startswith("Promote: 0 of") for wave in view.waves)
    assert view.gates == []


def test_two_failures_of_five_pause_it_and_the_early_warning_is_named(watched: Watched) -> None:
    watched.failing = set(members(watched.create(), 1)[:2])
    watched.act("start")
    watched.live(10)

    view, explained = watched.view(), queries.explain(watched.world.services.db, watched.rollout_id, watched.world.clock())

    assert (view.state, view.verdict) == ("paused", "pause")
    assert view.missing.startswith("A person decides")
    assert "holds back no promotion" in next(action.effect for action in view.actions if action.name == "resume")
    assert explained.decides == "early warning"
    assert [gate.turns for gate in explained.gates if gate.name == "early warning"] == [
        "A person: resume accepts these failures for now, abort ends it."
    ]
    assert [round(100 * one.failing) for one in explained.chances] == [1, 3, 5, 10, 20, 50]
    assert (explained.wave, explained.waves) == (1, 3)


def test_after_an_abort_and_a_rollback_the_devices_are_said_to_have_gone_back(watched: Watched) -> None:
    watched.create()
    watched.act("start")
    watched.live(10)
    view = watched.act("abort")

    assert (view.state, view.verdict) == ("aborted", "abort")
    assert [action.refused for action in view.actions if action.name == "roll-back"] == [
        "5 devices ran no release before: there is nothing to go back to."
    ]
    assert next(action.effect for action in watched.view().actions if action.name == "abort").startswith("It ends: ")


@pytest.mark.parametrize(("on_abort", "words_of_wave_1"), [("stop", {"ok"}), ("wave", {"not-begun"})])
def test_devices_that_kept_the_release_of_an_abort_are_said_to_be_ok_also_when_a_later_rollout_has_them(
    watched: Watched, on_abort: str, words_of_wave_1: set[str]
) -> None:
    watched.create(on_abort=on_abort)
    watched.act("start")
    watched.live(24)
    first = members(watched.view(), 1)
    assert {words(watched.view())[device_id] for device_id in first} == {"ok"}
    watched.act("abort")
    aborted = watched.rollout_id
    watched.create(notes=["the later one"])
    watched.act("start")

    watched.rollout_id = aborted

    assert {words(watched.view())[device_id] for device_id in first} == words_of_wave_1


def test_the_list_and_the_overview_count_by_the_sums(watched: Watched) -> None:
    watched.create()
    watched.act("start")
    watched.live(6)

    (row,) = queries.rollouts(watched.world.services.db, watched.world.clock())

    assert (row.wave, row.waves, row.begun_devices) == (1, 3, 5)
    assert row.all_devices == sum(sum(wave.values()) for wave in row.wave_progress)
    assert queries.overview(watched.world.services.db, watched.world.clock()).rollouts[0] == row


def test_of_many_devices_only_those_that_need_a_look_are_named(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    first = members(watched.create(), 1)
    watched.failing, watched.silent = {first[0]}, {first[1]}
    watched.act("start")
    watched.live(60)
    monkeypatch.setattr("fleet_server.queries.by_evidence.NAMED", 10)

    view = watched.view()

    assert words(view) == {first[0]: "failed", first[1]: "silent"}
    assert NEED_A_LOOK <= 60
    assert view.waves[0].counts == {"ok": 3, "failed": 1, "silent": 1}


def test_a_hundred_thousand_devices_are_shown_from_a_few_rows(watched: Watched) -> None:
    view = watched.create()
    watched.act("start")
    watched.live(6)
    read: list[str] = []

    def note(_c: object, _u: object, statement: str, *_more: object) -> None:
        read.append(statement)

    engine = watched.world.services.db._reader
    sa.event.listen(engine, "before_cursor_execute", note)
    watched.view()
    few = len(read)
    with watched.world.services.db.write() as connection:
        connection.execute(sa.update(ROLLOUT_SUM).where(ROLLOUT_SUM.c.wave == 3).values(members=100_000))
    read.clear()
    view = watched.view()
    sa.event.remove(engine, "before_cursor_execute", note)

    assert view.waves[2].counts["not-begun"] >= 100_000
    assert len([one for one in read if not one.startswith(("UPDATE", "BEGIN"))]) <= few
    assert not [one for one in read if ROLLOUT_MEMBER.name in one and "LIMIT" not in one and "count(" not in one and "sum(" not in one]


def test_the_page_and_the_api_show_it(watched: Watched) -> None:
    watched.create()
    watched.act("start")
    watched.live(6)
    client = watched.world.client()
    headers = {"Authorization": f"Bearer {watched.world.admin_token()}"}

    explained = client.get(f"/api/v1/rollouts/{watched.rollout_id}/explain", headers=headers).get_json()
    page = client.get(f"/rollouts/{watched.rollout_id}", headers=headers)

    assert explained["decides"] == "time"
    assert explained["gates"][5]["turns"].startswith("It needs ")
    assert page.status_code == 200
    assert "Gates of the open wave" in page.get_data(as_text=True)
    assert client.get("/api/v1/rollouts/none/explain", headers=headers).status_code == 404


def test_a_person_who_resumes_after_an_early_warning_goes_on_and_what_she_accepted_holds_nothing_back(watched: Watched) -> None:
    watched.failing = set(members(watched.create(), 1)[:2])
    watched.act("start")
    watched.live(10)
    assert watched.view().state == "paused"

    watched.act("resume")
    watched.live(4)

    assert watched.view().state == "running"
    watched.live(300)
    view = watched.view()
    assert view.state == "completed"
    assert view.waves[0].counts == {"ok": 3, "failed": 2}
    assert "beside those that a person accepted" in view.waves[0].reason


def test_what_was_accepted_still_counts_for_an_abort_and_new_failures_pause_again(watched: Watched) -> None:
    first = members(watched.create(), 1)
    watched.failing = set(first[:2])
    watched.act("start")
    watched.live(10)
    watched.act("resume")
    watched.failing |= set(members(watched.view(), 2))

    watched.live(120)

    view = watched.view()
    assert view.state in ("paused", "aborted")
    assert sum(word == "failed" for word in words(view).values()) > 2
