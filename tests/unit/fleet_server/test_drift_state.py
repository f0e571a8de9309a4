import math
from typing import Any

import msgspec
import numpy as np
import pytest

from edgefleet.errors import ArtifactError, ConfigError
from fleet_server.drift import DriftAlarm, DriftPolicy, DriftState
from fleet_server.drift.state import BETS, MAX_STATE_BYTES
from tests.unit.fleet_server.drift_world import T0


def _state() -> DriftState:
    rng = np.random.default_rng(0)
    alarm = DriftAlarm("r", T0, 12, 2e4, (0, 2))
    total, squares, variances, recent = rng.normal(size=(4, 3))
    return DriftState("r", 12, np.array([8, 8, 3]), total, squares, variances, rng.random((3, len(BETS))), recent, 4, alarm)


def test_a_state_is_read_as_it_was_written() -> None:
    state = _state()
    again = DriftState.from_bytes(state.to_bytes())
    assert again.to_bytes() == state.to_bytes()
    assert again.alarm == state.alarm
    assert np.array_equal(again.evidence, state.evidence)


def test_a_fresh_state_is_read_as_it_was_written() -> None:
    fresh = DriftState.fresh("r", 64)
    assert DriftState.from_bytes(fresh.to_bytes()).to_bytes() == fresh.to_bytes()


@pytest.mark.parametrize("length", [0, 1, 10, 100])
def test_a_truncated_state_is_refused(length: int) -> None:
    with pytest.raises(ArtifactError, match="malformed"):
        DriftState.from_bytes(_state().to_bytes()[:length])


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        (0, 2, "version 2 is unknown"),
        (2, -1, "negative"),
        (3, [1, 2], "lengths contradict"),
        (3, [1, 2, -3], "negative"),
        (4, [1.0, 2.0], "lengths contradict"),
        (4, [1.0, 2.0, math.nan], "not finite"),
        (7, [0.0], "lengths contradict"),
        (7, [math.inf] * 24, "not finite"),
        (10, msgspec.to_builtins(DriftAlarm("r", T0, 1, 1.0, (3,))), "outside 0 to 2"),
        (10, "x", "malformed"),
    ],
)
def test_a_state_that_contradicts_itself_is_refused(place: int, value: Any, says: str) -> None:
    wire = msgspec.msgpack.decode(_state().to_bytes())
    wire[place] = value
    with pytest.raises(ArtifactError, match=says):
        DriftState.from_bytes(msgspec.msgpack.encode(wire))


def test_an_oversized_state_is_not_even_decoded() -> None:
    with pytest.raises(ArtifactError, match="exceed the limit"):
        DriftState.from_bytes(b"\x00" * (MAX_STATE_BYTES + 1))


@pytest.mark.parametrize(
    "change",
    [
        {"floor_sigma": 0.0},
        {"floor_sigma": math.nan},
        {"alarm": 1.0},
        {"alarm": math.inf},
        {"baseline_rounds": 1},
        {"minimum_rows": 0},
        {"minimum_peers": 4},
        {"clear_rounds": 0},
    ],
)
def test_a_limit_without_sense_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(change))):
        DriftPolicy(**change)
