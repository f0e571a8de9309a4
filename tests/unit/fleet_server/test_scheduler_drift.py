"""Drift rounds over a real database: simulated devices send windows, the real rule judges, alarms begin, move and end."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from fleet_server import queries, usecases
from fleet_server.drift import DriftPolicy
from fleet_server.drift_rounds import run_rounds
from fleet_server.scheduler.loop import Scheduler
from fleet_server.store import statistics
from fleet_server.store.tables import DRIFT_ALARM, STATISTICS
from tests.unit.fleet_server.server_world import OPERATOR, POLICY, MadeBundle, World, make_bundle

LIMITS = DriftPolicy(baseline_rounds=4, clear_rounds=3, minimum_rows=50, minimum_peers=5)
DEVICES = 8


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    opened = World.open(tmp_path / "data", drift_policy=LIMITS)
    for number in range(DEVICES):
        device = opened.enroll(f"d{number}", tmp_path, site="north")
        opened.receive(device.presence())
    yield opened
    opened.close()


def run(world: World, bundle: MadeBundle) -> None:
    """All devices say that they run a bundle."""
    for device in world.devices.values():
        device.running, device.model = bundle.digest, bundle.manifest.variants[0].model_digest
        world.receive(device.reported("idle"))


def rounds(world: World, bundle: MadeBundle, count: int, shift: dict[str, float] | None = None, seed: int = 1) -> None:
    """So many rounds in which every device scores 100 rows; `shift` moves f1 of some devices."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        for device_id, device in world.devices.items():
            x = rng.normal(size=(100, len(bundle.manifest.inputs))).astype(np.float32)
            x[:, 1] += (shift or {}).get(device_id, 0.0)
            world.receive(device.window(bundle, x=x))
        world.clock.move(10)
        assert run_rounds(world.services) == 1


def alarmed(world: World) -> dict[str, str]:
    view = queries.drift(world.services.db, None, world.clock())
    assert view is not None
    return {device.device_id: device.features[0].feature for device in view.devices if device.state == "alarm"}


def test_two_faulty_devices_are_named_with_their_input(world: World, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b1")
    world.push(bundle)
    run(world, bundle)
    rounds(world, bundle, 5)
    assert alarmed(world) == {}

    rounds(world, bundle, 8, {"d2": 2.0, "d5": -2.0}, seed=2)

    assert alarmed(world) == {"d2": "f1", "d5": "f1"}
    view = queries.drift(world.services.db, "digits", world.clock())
    assert view is not None
    assert view.sentence == "Drift alarm: d2, d5 differ from their peers."
    worst = next(histogram for device_id, histogram in view.histograms if device_id == "d2" and histogram.feature == "f1")
    assert sum(worst.reference) == pytest.approx(1.0)
    assert sum(worst.current) == pytest.approx(1.0)
    assert worst.current[-2] > 5 * worst.reference[-2] or worst.current[-3] > 2 * worst.reference[-3]
    lines = queries.overview(world.services.db, world.clock()).needs_you
    assert [(line.severity, line.link) for line in lines] == [("drift", "/drift?project=digits")]
    assert queries.device(world.services.db, "d2", world.clock()).device.drifting


def test_the_drift_of_images_is_named_by_their_summaries(world: World, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "images", features=17 * 17, shape=(17, 17))
    world.push(bundle)
    run(world, bundle)
    rounds(world, bundle, 5)

    # One element of 289 that is wholly wrong: a broken pixel.
    rounds(world, bundle, 8, {"d2": 30.0}, seed=2)

    view = queries.drift(world.services.db, "digits", world.clock())
    assert view is not None
    assert set(alarmed(world)) == {"d2"}
    named = {found.feature for device in view.devices for found in device.features if found.state == "alarm"}
    assert named & {"maximum", "standard deviation", "edge energy", "patch 1,1"}
    assert named <= set(bundle.manifest.statistics)


def test_an_alarm_ends_when_a_release_that_knows_the_inputs_runs_quietly(world: World, tmp_path: Path) -> None:
    old, new = make_bundle(tmp_path / "b1"), make_bundle(tmp_path / "b2", "two", seed=7)
    world.push(old)
    world.push(new, "2")
    run(world, old)
    rounds(world, old, 5)
    rounds(world, old, 8, {"d2": 2.0}, seed=2)
    assert set(alarmed(world)) == {"d2"}

    run(world, new)
    rounds(world, new, 3, {"d2": 2.0}, seed=3)
    assert set(alarmed(world)) == {"d2"}, "it stays open until the device has shown that it is over"
    rounds(world, new, 6, {"d2": 2.0}, seed=4)

    assert alarmed(world) == {}
    with world.services.db.read() as connection:
        assert connection.execute(sa.select(DRIFT_ALARM.c.cleared_at, DRIFT_ALARM.c.cleared_why)).one()[0] is not None
    actions = [event.action for event in queries.recent_events(world.services.db)]
    assert actions.index("drift-clear") < actions.index("drift-alarm")


def test_a_drifting_device_is_tried_without_the_comparison_when_the_policy_says_so(world: World, tmp_path: Path) -> None:
    old, new = make_bundle(tmp_path / "b1"), make_bundle(tmp_path / "b2", "two")
    world.push(old)
    run(world, old)
    rounds(world, old, 5)
    rounds(world, old, 8, {"d2": 2.0}, seed=2)
    release_id = world.push(new, "2")

    view = usecases.create_rollout(world.services, release_id=release_id, policy=POLICY | {"waves": ["100%"]}, selection={}, actor=OPERATOR)
    usecases.rollout_action(world.services, view.rollout_id, "start", version=view.version, reason="", actor=OPERATOR)
    Scheduler(world.services, None).decide_due()

    trials = {device_id: wanted.trial for device_id in world.devices if (wanted := world.desired(device_id)) is not None}
    assert len(trials) == DEVICES
    assert trials["d2"].min_agreement is None
    assert "drift alarm" in trials["d2"].agreement_reason
    assert {trials[d].min_agreement for d in trials if d != "d2"} == {0.8}


def test_rows_that_are_too_few_wait_for_the_next_round(world: World, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b1")
    world.push(bundle)
    run(world, bundle)
    for device in world.devices.values():
        world.receive(device.window(bundle, rows=30))
    run_rounds(world.services)
    with world.services.db.read() as connection:
        assert {row.round_at for row in connection.execute(sa.select(STATISTICS.c.round_at))} == {statistics.PENDING}

    for device in world.devices.values():
        world.receive(device.window(bundle, rows=30))
    run_rounds(world.services)

    view = queries.drift(world.services.db, "digits", world.clock())
    assert view is not None
    assert {(device.rows, device.windows) for device in view.devices} == {(60, 2)}


def test_the_histograms_remember_a_bounded_number_of_rounds(world: World, tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b1")
    world.push(bundle)
    run(world, bundle)

    rounds(world, bundle, statistics.KEPT_ROUNDS + 3)

    with world.services.db.read() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(STATISTICS)) == statistics.KEPT_ROUNDS * DEVICES


def test_a_fleet_that_is_too_small_is_told_so(tmp_path: Path) -> None:
    world = World.open(tmp_path / "data", drift_policy=LIMITS)
    world.enroll("d0", tmp_path)
    bundle = make_bundle(tmp_path / "b1")
    world.push(bundle)
    run(world, bundle)

    rounds(world, bundle, 1)

    view = queries.drift(world.services.db, "digits", world.clock())
    assert view is not None
    assert view.sentence == "Too few devices to compare: a round needs at least five peers."
    world.close()
