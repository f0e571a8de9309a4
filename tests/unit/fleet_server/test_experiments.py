"""A/B experiments over a real database: both arms measured in the same hours, every ending, and what becomes of the winner."""

import copy
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from click.testing import CliRunner, Result
from werkzeug.serving import make_server

from edgefleet.cli.experiment import experiment
from edgefleet.errors import ConfigError
from fleet_server import queries, usecases
from fleet_server.errors import ConflictError
from fleet_server.experiments import create_experiment
from fleet_server.grouping import set_group
from fleet_server.read_compared import ExperimentView
from fleet_server.removing import remove_device
from fleet_server.rollout import Rollout
from fleet_server.rollout.by_experiment import WARN_AT, WARN_LIMIT
from fleet_server.rollout.eprocess import e_value
from fleet_server.scheduler.comparing import bring_up
from fleet_server.selection import Document, written
from fleet_server.store import rollouts
from fleet_server.store.tables import EXPERIMENT, EXPERIMENT_VALUE, ROLLOUT_MEMBER
from tests.unit.fleet_server.compared import HOUR_S, window
from tests.unit.fleet_server.evidence_world import POLICY as EVIDENCE_POLICY
from tests.unit.fleet_server.evidence_world import Fleet
from tests.unit.fleet_server.server_world import OPERATOR, POLICY, MadeBundle, SimulatedDevice, World, make_bundle
from tests.unit.fleet_server.steered import tick, wanting

DEVICES = 110
PLAN: dict[str, Any] = {
    "metric": "positive share",
    "better": "higher",
    "resolution": 0.05,
    "burn_in_s": HOUR_S,
    "measure_s": 2 * HOUR_S,
    "grace_s": 60.0,
    "rows": 100,
    "guardrails": ["p95 latency"],
    "every_s": 60.0,
    "horizon_s": 48 * HOUR_S,
}
EVIDENCE: dict[str, Any] = EVIDENCE_POLICY | {"soak_rows": 0, "on_abort": "roll-back"}


@dataclass
class Lab:
    """A hundred and ten devices on release 1, and release 2 to be tried against it."""

    world: World
    old: MadeBundle
    new: MadeBundle
    first: str
    second: str
    experiment_id: str = ""

    def plan(self, policy: dict[str, Any] | None = None, selection: Document = "", **changes: Any) -> ExperimentView:
        plan = PLAN | {"baseline_release": self.first} | changes
        view = create_experiment(self.world.services, release_id=self.second, plan=plan, policy=policy, selection=selection, actor=OPERATOR)
        self.experiment_id = view.experiment_id
        return view

    def act(self, action: str) -> None:
        version = self.view().version
        usecases.rollout_action(self.world.services, self.experiment_id, action, version=version, reason="", actor=OPERATOR)
        tick(self.world)

    def view(self) -> ExperimentView:
        return queries.experiment(self.world.services.db, self.experiment_id, self.world.clock())

    def value(self) -> Rollout:
        with self.world.services.db.read() as connection:
            stored = rollouts.load(connection, self.experiment_id)
        assert stored is not None
        return stored.rollout

    def arm(self, device: SimulatedDevice) -> int:
        value = self.value()
        assert value.experiment is not None
        return value.experiment.arm(value.salt, device.device_id)

    def tell(
        self, shares: tuple[float, float], *, octaves: tuple[int, int] = (10, 10), seed: int = 1, arms: tuple[int, ...] = (0, 1)
    ) -> None:
        """A window of every device of the named arms, its share of class b around that of its arm."""
        rng = np.random.default_rng(seed)
        messages = []
        for device in self.world.devices.values():
            arm, noise = self.arm(device), rng.normal(0, 0.02)
            bundle = self.new if device.running == self.new.digest else self.old
            if arm in arms:
                share = min(max(shares[arm] + noise, 0.0), 1.0)
                messages.append(window(device, bundle, share_b=share, latency_octave=octaves[arm]))
        self.world.receive(*messages)

    def begin(self) -> None:
        """Start, and let every batch begin; arm B takes the release on."""
        self.world.clock.move(60.0)
        self.act("start")
        for _ in range(6):
            self.world.receive(*[m for d in self.waiting() for m in d.install(self.new)])
            tick(self.world, 61.0)

    def waiting(self) -> list[SimulatedDevice]:
        return [self.world.devices[d] for d in sorted(wanting(self.world, self.new)) if self.world.devices[d].running != self.new.digest]

    def measure(self, shares: tuple[float, float], **how: Any) -> None:
        """The period of all batches, and its end."""
        self.world.clock.move(1.5 * HOUR_S)
        self.tell(shares, seed=2, **how)
        tick(self.world, 2 * HOUR_S)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Lab]:
    """The fleet, made once; each test works on a copy of its database."""
    folder = tmp_path_factory.mktemp("lab")
    world = World.open(folder / "data")
    old, new = make_bundle(folder / "b1"), make_bundle(folder / "b2", "two")
    lab = Lab(world, old, new, world.push(old), world.push(new, "2"))
    for number in range(DEVICES):
        device = world.enroll(f"d{number:03d}", folder)
        device.running, device.model = old.digest, old.manifest.variants[0].model_digest
        world.receive(device.presence(), device.reported("committed", old.digest))
    world.close()
    return folder, lab


@pytest.fixture
def lab(made: tuple[Path, Lab], tmp_path: Path) -> Iterator[Lab]:
    folder, before = made
    shutil.copytree(folder / "data", tmp_path / "data")
    world = World.open(tmp_path / "data")
    world.devices = copy.deepcopy(before.world.devices)
    yield Lab(world, before.old, before.new, before.first, before.second)
    world.close()


def test_a_better_release_wins_and_becomes_a_rollout_whose_first_wave_is_its_arm(lab: Lab) -> None:
    lab.plan()
    lab.tell((0.5, 0.5))
    lab.begin()
    arm_b = {d.device_id for d in lab.world.devices.values() if lab.arm(d) == 1}
    assert wanting(lab.world, lab.new) == arm_b

    lab.measure((0.5, 0.62))

    view = lab.view()
    assert (view.state, view.ending) == ("completed", "winner B")
    assert view.difference == pytest.approx(0.12, abs=0.02)
    assert view.winner_rollout_id is not None
    draft = queries.rollout(lab.world.services.db, view.winner_rollout_id, lab.world.clock())
    assert draft.state == "draft"
    assert {member.device_id for member in draft.waves[0].members} == arm_b
    assert sum(len(wave.members) for wave in draft.waves) == DEVICES

    usecases.rollout_action(lab.world.services, draft.rollout_id, "start", version=draft.version, reason="it won", actor=OPERATOR)
    tick(lab.world)
    lab.world.receive(*[lab.world.devices[d].reported("committed", lab.new.digest) for d in sorted(arm_b)])
    again = queries.rollout(lab.world.services.db, draft.rollout_id, lab.world.clock())
    assert not [action for action in again.actions if action.name == "roll-back" and action.refused]


def test_a_winner_is_rolled_out_by_the_evidence_that_the_experiments_policy_names(lab: Lab) -> None:
    lab.plan(policy=EVIDENCE)
    lab.tell((0.5, 0.5))
    lab.begin()
    arm_b = {d.device_id for d in lab.world.devices.values() if lab.arm(d) == 1}
    lab.measure((0.5, 0.62))
    services = lab.world.services
    draft_id = lab.view().winner_rollout_id
    assert draft_id is not None
    with services.db.read() as connection:
        stored = rollouts.load(connection, draft_id)
        waves = dict(connection.execute(sa.select(ROLLOUT_MEMBER.c.device_id, ROLLOUT_MEMBER.c.wave).filter_by(rollout_id=draft_id)).all())
    assert stored is not None
    assert stored.rollout.course is not None
    assert stored.rollout.course.rule.kind == "posterior"
    assert {device_id for device_id, wave in waves.items() if wave == 1} >= arm_b
    assert len(waves) == DEVICES
    assert 0 in set(waves.values())  # controls, all of them of arm A

    draft = queries.rollout(services.db, draft_id, lab.world.clock())
    usecases.rollout_action(services, draft_id, "start", version=draft.version, reason="it won", actor=OPERATOR)
    Fleet(lab.world, lab.new).tick(50)
    after = queries.rollout(services.db, draft_id, lab.world.clock())
    begun = sum(count for wave in after.waves for word, count in wave.counts.items() if word != "not-begun")
    assert (after.state, begun > len(arm_b)) in {("running", True), ("soaking", True), ("completed", True)}, after.sentence
    assert len(after.waves) > 1
    assert after.waves[0].state == "promoted"


def test_an_experiment_and_the_rollout_of_its_winner_reach_whom_its_expression_meant_at_its_plan(lab: Lab) -> None:
    services = lab.world.services
    set_group(services, "digits", "kept", selection="device(d000, d001)", reason="for tests", actor=OPERATOR)
    view = lab.plan(policy=EVIDENCE, selection="not group(kept) and not device(d002)")
    set_group(services, "digits", "kept", selection="device(d107, d108, d109)", reason="for tests", actor=OPERATOR)
    lab.tell((0.5, 0.5))
    lab.begin()
    lab.measure((0.5, 0.62))
    draft_id = lab.view().winner_rollout_id
    assert draft_id is not None

    outside = {"d000", "d001", "d002"}
    for rollout_id in (view.experiment_id, draft_id):
        with services.db.read() as connection:
            stored = rollouts.load(connection, rollout_id)
            members = set(connection.scalars(sa.select(ROLLOUT_MEMBER.c.device_id).filter_by(rollout_id=rollout_id)))
        assert stored is not None
        assert written(stored.selection) == "not device(d000, d001, d002)"
        assert members == set(lab.world.devices) - outside
    assert not wanting(lab.world, lab.new) & outside


def test_an_experiment_over_what_the_project_does_not_have_is_refused(lab: Lab) -> None:
    with pytest.raises(ConfigError, match="selection: project digits has no group 'kept'"):
        lab.plan(selection="not group(kept)")


def test_an_experiment_whose_winner_could_never_be_rolled_out_is_refused(lab: Lab) -> None:
    hopeless = EVIDENCE | {"evidence": "bound", "waves": ["50%", "100%"], "rule": {"limit": 0.01, "warn_limit": 0.01, "extends": 0}}
    with pytest.raises(ConfigError, match=r"wave 1 reaches .* can never be promoted"):
        lab.plan(policy=hopeless)


def test_devices_of_both_arms_that_are_removed_have_no_number_and_are_in_no_rollout_of_the_winner(lab: Lab) -> None:
    lab.plan()
    lab.tell((0.5, 0.5))
    lab.begin()
    gone = [next(d.device_id for d in lab.world.devices.values() if lab.arm(d) == arm) for arm in (0, 1)]
    for device_id in gone:
        remove_device(lab.world.services, device_id, reason="scrapped", actor=OPERATOR)

    lab.measure((0.5, 0.62))

    view = lab.view()
    assert view.ending == "winner B"
    with lab.world.services.db.read() as connection:
        rows = {row.device_id: row for row in connection.execute(sa.select(EXPERIMENT_VALUE))}
    assert [(rows[d].delivered, rows[d].value, rows[d].reason) for d in gone] == [(False, None, "removed from the fleet")] * 2
    assert view.winner_rollout_id is not None
    draft = queries.rollout(lab.world.services.db, view.winner_rollout_id, lab.world.clock())
    named = {member.device_id for wave in draft.waves for member in wave.members}
    assert named == set(lab.world.devices) - set(gone)


def test_a_worse_release_loses_and_its_arm_goes_back(lab: Lab) -> None:
    lab.plan()
    lab.tell((0.5, 0.5))
    lab.begin()

    lab.measure((0.5, 0.38))

    assert (lab.view().state, lab.view().ending) == ("rolling-back", "winner A")
    assert wanting(lab.world, lab.new) == set()
    back = [d for d in lab.world.devices.values() if d.running == lab.new.digest]
    lab.world.receive(*[m for d in back for m in d.install(lab.old)])
    tick(lab.world)
    assert lab.view().state == "rolled-back"
    assert lab.view().winner_rollout_id is None


def test_equal_releases_end_with_no_difference_larger_than_the_resolution(lab: Lab) -> None:
    lab.plan()
    lab.tell((0.5, 0.5))
    lab.begin()

    lab.measure((0.5, 0.5))

    view = lab.view()
    assert view.ending == "no difference"
    assert view.half_width is not None
    assert abs(view.difference or 0.0) + view.half_width <= 0.05


def test_what_cannot_be_told_by_the_horizon_is_inconclusive_and_not_no_difference(lab: Lab) -> None:
    lab.plan(resolution=0.001)
    lab.tell((0.5, 0.5))
    lab.begin()
    lab.measure((0.5, 0.5))
    assert lab.view().ending == ""

    tick(lab.world, 48 * HOUR_S)

    assert lab.view().ending == "inconclusive"
    assert wanting(lab.world, lab.new) == set()


def test_a_release_that_is_slower_is_stopped_for_harm_although_its_metric_is_better(lab: Lab) -> None:
    lab.plan()
    lab.tell((0.5, 0.5))
    lab.begin()

    lab.measure((0.5, 0.62), octaves=(10, 12))

    assert lab.view().ending == "harm"
    assert "p95 latency" in lab.value().last_reason


def test_a_release_that_fails_is_stopped_in_the_first_batches(lab: Lab) -> None:
    lab.plan()
    lab.tell((0.5, 0.5))
    lab.act("start")

    for _ in range(4):
        lab.world.receive(*[m for d in lab.waiting() if not d.quarantined for m in d.fail(lab.new)])
        tick(lab.world, 61.0)

    assert lab.view().state in ("rolling-back", "rolled-back", "paused")
    assert sum(lab.arm(d) for d in lab.world.devices.values() if d.quarantined) <= 12


def test_a_person_who_resumes_an_experiment_accepts_its_failures_so_far_and_no_further_ones(lab: Lab) -> None:
    lab.plan(failure_limit=0.5)  # so that it is not stopped for harm before
    lab.act("start")
    while len(lab.waiting()) < 6:
        tick(lab.world, 61.0)
    given = lab.waiting()
    some = next(k for k in range(1, 6) if e_value(k, len(given), WARN_LIMIT) >= WARN_AT)
    bad, good = given[:some], given[some:]
    lab.world.receive(*[m for d in good for m in d.install(lab.new)], *[m for d in bad for m in d.fail(lab.new)])
    tick(lab.world)
    assert lab.view().state == "paused"

    lab.act("resume")
    tick(lab.world, 1.0)
    assert lab.view().state == "running"

    lab.world.receive(*[m for d in good[:3] for m in d.fail(lab.new)])
    tick(lab.world)
    assert lab.view().state == "paused"


def test_arms_that_deliver_in_another_ratio_than_drawn_pause_it_and_nobody_wins(lab: Lab) -> None:
    lab.plan()
    lab.tell((0.5, 0.5))
    lab.begin()

    lab.measure((0.5, 0.9), arms=(0,))

    ratio = next(one for one in lab.view().questions if one.name == "sample ratio")
    assert (lab.view().state, lab.view().ending) == ("paused", "")
    assert ratio.verdict == "pause"
    assert "not comparable" in ratio.sentence


def test_a_device_is_measured_once_however_often_it_is_looked_at(lab: Lab) -> None:
    lab.plan(resolution=0.001)
    lab.tell((0.5, 0.5))
    lab.begin()
    lab.measure((0.5, 0.5))
    before = [(arm.n, arm.mean) for arm in lab.view().arms]

    lab.tell((0.9, 0.1), seed=9)
    for _ in range(3):
        bring_up(lab.world.services, lab.experiment_id)
        tick(lab.world, 60.0)

    assert [(arm.n, arm.mean) for arm in lab.view().arms] == before
    assert sum(n for n, _ in before) == DEVICES


def test_devices_without_a_pre_period_are_left_out_of_both_arms_alike_and_count_as_delivered(lab: Lab) -> None:
    lab.plan()
    lab.begin()

    lab.measure((0.5, 0.62))

    view = lab.view()
    assert [arm.n for arm in view.arms] == [0, 0]
    assert sum(arm.delivered for arm in view.arms) == DEVICES
    with lab.world.services.db.read() as connection:
        assert set(connection.scalars(sa.select(EXPERIMENT_VALUE.c.reason))) == {"no pre-period to centre it by: 0 of 100 rows"}


def test_sums_that_cannot_be_read_pause_the_experiment(lab: Lab) -> None:
    lab.plan()
    lab.tell((0.5, 0.5))
    lab.begin()
    with lab.world.services.db.write() as connection:
        connection.execute(sa.delete(EXPERIMENT))
        connection.execute(sa.insert(EXPERIMENT).values(rollout_id=lab.experiment_id, sums='{"arms":[null]}'))

    lab.measure((0.5, 0.9))

    assert (lab.view().state, lab.view().ending) == ("paused", "")


def test_a_device_on_which_the_release_failed_before_is_in_neither_arm(lab: Lab) -> None:
    device = lab.world.devices["d003"]
    device.quarantined = [lab.new.digest]
    lab.world.receive(device.reported("idle"))

    lab.plan()

    planned = {device_id for batch in lab.value().waves for device_id in batch}
    assert planned == set(lab.world.devices) - {"d003"}


def test_an_experiment_and_a_rollout_of_one_model_exclude_each_other(lab: Lab) -> None:
    lab.plan()
    with pytest.raises(ConflictError, match=lab.experiment_id):
        usecases.create_rollout(lab.world.services, release_id=lab.second, policy=POLICY, selection={}, actor=OPERATOR)
    with pytest.raises(ConflictError, match=lab.experiment_id):
        lab.plan()

    lab.act("abort")

    assert lab.view().state == "discarded"
    made = usecases.create_rollout(lab.world.services, release_id=lab.second, policy=POLICY, selection={}, actor=OPERATOR)
    with pytest.raises(ConflictError, match="110 of 110"):
        lab.plan()

    for action in ("start", "abort"):
        version = queries.rollout(lab.world.services.db, made.rollout_id, lab.world.clock()).version
        usecases.rollout_action(lab.world.services, made.rollout_id, action, version=version, reason="", actor=OPERATOR)
    assert lab.plan().state == "draft"  # devices of an aborted rollout are free for the asking


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"metric": "mood"}, "mood"),
        ({"better": "bigger"}, "higher"),
        ({"resolution": 0.0}, "resolution"),
        ({"resolution": float("nan")}, "resolution"),
        ({"share": 1.0}, "share"),
        ({"guardrails": ["shadow agreement"]}, "shadow agreement"),
        ({"guardrails": ["p95 latency", "p95 latency"]}, "twice"),
        ({"horizon_s": 60.0}, "horizon_s"),
        ({"mesure_s": 60.0}, "did you mean 'measure_s'"),
        ({"ending": "winner B"}, "ending"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused_with_the_reason(lab: Lab, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        lab.plan(**changes)


def test_people_plan_look_and_stop_by_the_api(lab: Lab) -> None:
    client, header = lab.world.client(), {"Authorization": f"Bearer {lab.world.admin_token()}"}
    body = {"release_id": lab.second, "plan": PLAN | {"baseline_release": lab.first}}

    made = client.post("/api/v1/experiments", json=body, headers=header)

    assert made.status_code == 201
    lab.experiment_id = made.get_json()["experiment_id"]
    lab.act("start")
    assert [one["experiment_id"] for one in client.get("/api/v1/experiments", headers=header).get_json()] == [lab.experiment_id]
    seen = client.get(f"/api/v1/experiments/{lab.experiment_id}", headers=header).get_json()
    assert (seen["state"], [arm["begun"] for arm in seen["arms"]]) == ("running", [arm.begun for arm in lab.view().arms])
    stopped = client.post(f"/api/v1/experiments/{lab.experiment_id}/stop", json={"version": seen["version"]}, headers=header)
    assert stopped.get_json()["ending"] == "stopped"
    assert wanting(lab.world, lab.new) == set()
    assert client.get("/api/v1/experiments/r-1", headers=header).status_code == 404


@pytest.fixture
def command(lab: Lab) -> Iterator[Callable[..., Result]]:
    """`edgefleet experiment ...` against a server of this process."""
    web = make_server("127.0.0.1", 0, lab.world.app, threaded=True)
    thread = threading.Thread(target=web.serve_forever)
    thread.start()
    settings = {"EDGEFLEET_SERVER": f"http://127.0.0.1:{web.server_port}", "EDGEFLEET_TOKEN": lab.world.admin_token()}
    yield lambda *arguments: CliRunner().invoke(experiment, arguments, env=settings)
    web.shutdown()
    thread.join()
    web.server_close()


def test_the_command_line_plans_shows_and_stops(lab: Lab, command: Callable[..., Result], tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text(f'baseline_release = "{lab.first}"\nmetric = "mean score"\nbetter = "higher"\nresolution = 0.02\n')

    made = command("create", "--release", lab.second, "--plan", str(plan), "--start", "--json")

    assert made.exit_code == 0, made.output
    lab.experiment_id = json.loads(made.stdout)["experiment_id"]
    tick(lab.world)
    shown = command("status", lab.experiment_id)
    assert "B - A = unknown yet, resolution 0.02, higher is better" in shown.stdout
    assert "the first look is at 100" in shown.stdout
    assert lab.experiment_id in command("status").stdout
    stopped = command("stop", lab.experiment_id, "--reason", "enough")
    assert "stopped" in stopped.stdout
    plan.write_text('metric = "mean score"')
    refused = command("create", "--release", lab.second, "--plan", str(plan))
    assert "baseline_release" in str(refused.exception)


def test_the_page_shows_an_experiment_as_the_rollout_that_carries_it(lab: Lab) -> None:
    lab.plan()
    lab.tell((0.5, 0.5))
    lab.begin()
    client, same = lab.world.client(), {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}
    client.post("/login", data={"token": lab.world.admin_token(), "next": "/"}, headers=same)

    shown = {path: client.get(path) for path in ("/", "/rollouts", f"/rollouts/{lab.experiment_id}", "/devices")}

    assert {answer.status_code for answer in shown.values()} == {200}
    text = shown[f"/rollouts/{lab.experiment_id}"].get_data(as_text=True)
    assert "sample ratio" in text
    assert "the first look is at 100" in text
