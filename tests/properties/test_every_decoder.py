"""Every decoder of the device before damaged and invented bytes: a value, or an error of ours."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.seeds import seeds
from tests.fuzz.targets import TARGETS, Device, survives
from tests.properties.test_device_decoders import damaged, edits
from tests.unit.device_agent.agent_world import make_bundle, weights

TFLITE = Path(__file__).resolve().parents[1] / "faults" / "ends_litert.tflite"
PLACES = 60
BRIEF = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    folder = tmp_path_factory.mktemp("decoders")
    made = Device(make_bundle(folder / "bundle", weights(1)).locate("manifest.json").parent, folder)
    yield made
    made.close()


class Good(dict[str, list[bytes]]):
    """Hypothesis shows arguments when a test fails: not these 80 kB."""

    def __repr__(self) -> str:
        return "good"


@pytest.fixture(scope="module")
def good(device: Device, tmp_path_factory: pytest.TempPathFactory) -> Good:
    return Good(seeds(device.scorer.bundle, tmp_path_factory.mktemp("seeds"), TFLITE.read_bytes()))


@pytest.mark.parametrize("target", TARGETS)
def test_good_bytes_are_taken(device: Device, good: Good, target: str) -> None:
    assert [content[:80] for content in good[target] if not survives(device, target, content)] == []


@pytest.mark.parametrize("target", TARGETS)
def test_a_byte_that_is_no_text_is_taken_or_refused_wherever_it_stands(device: Device, good: Good, target: str) -> None:
    """The libraries raise another exception for it than for other damage."""
    for content in good[target]:
        for place in range(0, len(content), max(len(content) // PLACES, 1)):
            survives(device, target, content[:place] + b"\x80" + content[place:])

    assert survives(device, target, good[target][0])


@pytest.mark.parametrize("target", TARGETS)
@BRIEF
@given(choice=st.integers(0, 10), changes=edits, invented=st.binary(max_size=60))
def test_damaged_and_invented_bytes_are_taken_or_refused(
    device: Device, good: Good, target: str, choice: int, changes: list[tuple[float, int, bytes]], invented: bytes
) -> None:
    seed = good[target][choice % len(good[target])]

    for content in (damaged(seed, changes), invented):
        survives(device, target, content)  # any exception that is not ours fails here

    assert survives(device, target, seed)  # and nothing of it hurts what comes next
