from dataclasses import replace

import numpy as np
import pytest

from edgefleet.errors import InputError
from edgefleet.statistics import InputStatistics
from fleet_server.drift import DriftAlarm, DriftPolicy, DriftState, cleared_by, run_round
from fleet_server.drift.peers import gather
from tests.unit.fleet_server.drift_world import T0, World, counted, faded, normal_reference, scans

MANY = dict.fromkeys(range(20), 1.2)


def _world() -> World:
    return World(normal_reference())


def test_two_faulty_devices_of_eight_are_found_within_three_rounds_and_nobody_else() -> None:
    world, rng = _world(), np.random.default_rng(1)
    world.run(rng, 10)
    world.run(rng, 3, shifts={"d2": MANY, "d5": MANY})
    assert set(world.raised) == {"d2", "d5"}
    # The healthy ones are not drawn in later, with two of their peers gone.
    world.run(rng, 20, shifts={"d2": MANY, "d5": MANY})
    assert set(world.raised) == {"d2", "d5"}
    assert {world.outcomes[f"d{i}"].peers for i in (0, 1, 3, 4, 6, 7)} == {5}


def test_the_named_features_are_the_shifted_ones() -> None:
    world, rng = _world(), np.random.default_rng(2)
    world.run(rng, 10)
    world.run(rng, 12, shifts={"d2": MANY})
    assert world.outcomes["d2"].named == tuple(range(20))
    contrast = world.outcomes["d2"].contrast
    assert float(contrast[:20].min()) > 0.5
    assert float(np.abs(contrast[20:]).max()) < 0.4


@pytest.mark.parametrize("seed", range(30))
def test_a_healthy_fleet_raises_no_alarm(seed: int) -> None:
    world = _world()
    world.run(np.random.default_rng(100 + seed), 20)
    assert world.raised == {}


def test_a_healthy_fleet_raises_no_alarm_in_two_hundred_rounds() -> None:
    world = _world()
    world.run(np.random.default_rng(3), 200)
    assert world.raised == {}


def test_half_a_sigma_in_one_of_64_features_is_found_in_the_end() -> None:
    world, rng = _world(), np.random.default_rng(4)
    world.run(rng, 10)
    world.run(rng, 120, shifts={"d1": {7: 0.5}})
    assert set(world.raised) == {"d1"}
    assert world.outcomes["d1"].named == (7,)


def test_what_moves_every_device_is_weather_and_no_fault() -> None:
    world, rng = _world(), np.random.default_rng(5)
    world.run(rng, 10)
    world.run(rng, 30, shifts={f"d{i}": {-1: 1.0} for i in range(8)})
    assert world.raised == {}


def test_devices_that_always_differed_are_no_fault() -> None:
    world, rng = _world(), np.random.default_rng(6)
    world.run(rng, 60, shifts={"d0": {-1: 0.3}, "d3": {-1: -0.4}, "d4": {5: 1.0}})
    assert world.raised == {}


def test_a_shift_below_the_floor_is_nobodys_business() -> None:
    world, rng = _world(), np.random.default_rng(7)
    world.run(rng, 10)
    world.run(rng, 80, shifts={"d0": {-1: 0.15}})
    assert world.raised == {}


@pytest.mark.parametrize("devices", [1, 4, 5])
def test_a_small_fleet_is_told_that_it_is_too_few(devices: int) -> None:
    world = _world()
    world.run(np.random.default_rng(8), 3, devices=devices)
    assert {outcome.state for outcome in world.outcomes.values()} == {"too-few"}
    assert not any(outcome.used for outcome in world.outcomes.values())
    assert world.outcomes["d0"].feature_states(world.policy) == ["too-few"] * 64


def test_a_device_with_few_rows_waits_and_its_rows_are_kept() -> None:
    world, rng = _world(), np.random.default_rng(9)
    world.run(rng, 3)
    pending = {f"d{i}": counted(world.reference, rng, 60 if i else 49) for i in range(8)}
    outcomes = world.play(pending)
    assert not outcomes["d0"].used
    assert world.states["d0"].rounds == 3
    assert all(outcomes[f"d{i}"].used and outcomes[f"d{i}"].peers == 6 for i in range(1, 8))


def test_a_fleet_that_is_only_late_is_not_too_few() -> None:
    world, rng = _world(), np.random.default_rng(10)
    outcomes = world.play({f"d{i}": counted(world.reference, rng, 60 if i < 3 else 0) for i in range(8)})
    assert {outcome.state for outcome in outcomes.values()} == {"watching"}
    assert not any(outcome.used for outcome in outcomes.values())


def test_the_baseline_is_said_to_be_watching_and_then_quiet() -> None:
    world, rng = _world(), np.random.default_rng(11)
    words = []
    for _ in range(9):
        world.run(rng, 1)
        words.append(world.outcomes["d0"].state)
    assert words == ["watching"] * 7 + ["quiet"] * 2


def test_an_alarm_clears_under_the_same_reference_when_the_fault_is_mended() -> None:
    world, rng = _world(), np.random.default_rng(12)
    world.run(rng, 10)
    world.run(rng, 6, shifts={"d2": MANY})
    assert world.states["d2"].alarm is not None
    world.run(rng, 80)
    assert list(world.cleared) == ["d2"]
    assert len(world.raised["d2"]) == 1
    assert world.outcomes["d2"].state == "quiet"


def test_an_alarm_does_not_clear_while_the_fault_lasts() -> None:
    world, rng = _world(), np.random.default_rng(13)
    world.run(rng, 10)
    world.run(rng, 50, shifts={"d2": MANY})
    assert world.cleared == {}
    assert world.outcomes["d2"].state == "alarm"


def test_a_release_with_another_reference_starts_anew_and_clears_the_old_alarm_after_quiet_rounds() -> None:
    old, rng = _world(), np.random.default_rng(14)
    old.run(rng, 10)
    old.run(rng, 4, shifts={"d2": MANY})
    alarm = old.states["d2"].alarm
    assert alarm is not None
    mended = World(normal_reference(seed=1), states=old.states)
    for _ in range(15):
        shifted = {f"d{i}": counted(mended.reference, rng, 60, MANY if i == 2 else None) for i in range(8)}
        mended.play(shifted)
        assert not cleared_by(alarm, mended.states["d2"])
    mended.play({f"d{i}": counted(mended.reference, rng, 60, MANY if i == 2 else None) for i in range(8)})
    assert mended.states["d2"].rounds == 16
    assert cleared_by(alarm, mended.states["d2"])


def test_an_alarm_is_not_cleared_by_its_own_reference_or_by_a_device_that_drifts_again() -> None:
    alarm = DriftAlarm("old", T0, 12, 2e4, (1,))
    quiet = replace(DriftState.fresh("new", 3), rounds=30, quiet_rounds=8)
    assert cleared_by(alarm, quiet)
    assert not cleared_by(alarm, replace(quiet, quiet_rounds=7))
    assert not cleared_by(alarm, replace(quiet, reference_digest="old"))
    assert not cleared_by(alarm, replace(quiet, alarm=replace(alarm, reference_digest="new")))
    assert cleared_by(alarm, replace(quiet, quiet_rounds=2), DriftPolicy(clear_rounds=2))


def test_missing_values_everywhere_are_no_evidence() -> None:
    world, rng = _world(), np.random.default_rng(15)
    world.run(rng, 12)
    before = world.states["d0"].evidence.copy()
    nothing = InputStatistics.empty(world.reference)
    nothing.update(np.full((60, 64), np.nan, np.float32), world.reference)
    world.play({"d0": nothing} | {f"d{i}": counted(world.reference, rng, 60) for i in range(1, 8)})
    assert np.array_equal(world.states["d0"].evidence, before)


def test_the_same_rounds_give_the_same_bytes() -> None:
    twins = [_world(), _world()]
    for world in twins:
        world.run(np.random.default_rng(16), 12, shifts={"d2": MANY})
    first, second = ({d: state.to_bytes() for d, state in world.states.items()} for world in twins)
    assert first == second


def test_stored_states_go_on_where_they_stopped() -> None:
    world, rng = _world(), np.random.default_rng(17)
    world.run(rng, 10)
    world.states = {device_id: DriftState.from_bytes(state.to_bytes()) for device_id, state in world.states.items()}
    world.run(rng, 3, shifts={"d2": MANY})
    assert set(world.raised) == {"d2"}


def test_statistics_of_another_reference_are_refused() -> None:
    other = normal_reference(seed=2)
    with pytest.raises(InputError):
        run_round({}, {"d0": InputStatistics.empty(other)}, normal_reference(), DriftPolicy(), T0)


def test_a_device_is_compared_with_the_median_of_the_others() -> None:
    reference, rng = normal_reference(), np.random.default_rng(18)
    pending = {f"d{i}": counted(reference, rng, 50 + i) for i in range(9)}
    holes = pending["d3"].counts.copy()
    holes[:5] = 0
    holes[:5, -2] = 53  # five features of one peer are missing throughout
    pending["d3"] = replace(pending["d3"], counts=holes)
    this = gather(pending, reference, 50, alarmed={"d7"})
    for device_id in ("d0", "d3", "d7"):
        peers = [d for d in pending if d not in (device_id, "d7")]
        others = np.stack([this.scores[d] for d in peers])
        contrast, variance = this.contrast(device_id, 5)
        assert np.allclose(contrast, this.scores[device_id] - np.nanmedian(others, axis=0), equal_nan=True)
        inverse = np.where(np.isfinite(others), np.stack([this.inverse_n[d] for d in peers]), 0.0)
        of_median = np.pi / 2 * inverse.sum(axis=0) / np.square(np.isfinite(others).sum(axis=0))
        expected = this.row_variance * (this.inverse_n[device_id] + of_median)
        assert np.allclose(variance, expected)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_two_cameras_with_a_fault_are_found_among_real_scans_and_nobody_else(seed: int) -> None:
    fleet, rng = scans(seed), np.random.default_rng(seed)
    world = World(fleet.reference)
    for turn in range(24):
        cameras = {d: faded if d < 2 and turn >= 12 else None for d in range(8)}
        world.play({f"d{d}": fleet.window(d, rng, int(rng.integers(50, 81)), cameras[d]) for d in range(8)})
    assert set(world.raised) == {"d0", "d1"}
    assert max(rounds[0] for rounds in world.raised.values()) <= 12 + 3
    assert len(world.outcomes["d0"].named) >= 5
