"""The release floor on a device: kept for good from the signed word that raised it, whoever forgets it later."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgefleet.bundle import Bundle
from edgefleet.desired import DesiredModel, TrialPolicy
from edgefleet.signing import SigningKey
from tests.unit.device_agent.agent_world import PROJECT, QUICK, blob_server, weights
from tests.unit.device_agent.test_update_updater import PATIENT, Bench, Device


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with blob_server() as server:
        yield Bench(tmp_path, server)


@pytest.fixture
def two(bench: Bench) -> tuple[Bundle, Bundle]:
    return bench.bundle("a", weights(1)), bench.bundle("b", weights(1) * np.float32(1.01))


def want(bench: Bench, device: Device, bundle: Bundle, counter: int, *, floor: int = 0, trial: TrialPolicy = QUICK) -> Device:
    """The next desired state, for a release of that counter."""
    model = DesiredModel(
        bundle_digest=bundle.digest, release=f"r{counter}", release_counter=counter, rollout="o", nonce=f"n{counter}", trial=trial
    )
    floors = {PROJECT: floor} if floor else {}
    device.updater.receive(bench.enrolled.desired(bundle.digest, models={PROJECT: model}, floors=floors))
    return device.work()


def test_what_lies_below_the_floor_is_refused_with_both_numbers_and_what_runs_goes_on(bench: Bench, two: tuple[Bundle, Bundle]) -> None:
    a, b = two
    device = want(bench, bench.device_running(a), a, 2, floor=2)

    want(bench, device, b, 1)

    assert device.state == ("refused", b.digest, a.digest)
    assert device.updater.progress.reason.startswith("release r1 has counter 1, the release floor of this device is 2; the server must")
    want(bench, device, b, 2)
    assert device.state == ("committed", b.digest, b.digest)


def test_a_server_that_forgot_the_floor_lowers_none_also_after_a_restart(bench: Bench, two: tuple[Bundle, Bundle]) -> None:
    a, b = two
    device = want(bench, bench.device_running(a), a, 2, floor=2)
    want(bench, device, a, 2)

    device = want(bench, device.again(), b, 1, floor=1)

    assert device.updater.director.floors() == {PROJECT: 2}
    assert device.state == ("refused", b.digest, a.digest)


def test_what_runs_below_a_raised_floor_goes_on_until_it_is_replaced(bench: Bench, two: tuple[Bundle, Bundle]) -> None:
    device = want(bench, bench.device_running(two[0]), two[0], 1, floor=3)

    assert device.state == ("committed", two[0].digest, two[0].digest)


def test_a_trial_that_is_under_way_ends_when_the_floor_rises_above_it(bench: Bench, two: tuple[Bundle, Bundle]) -> None:
    a, b = two
    device = want(bench, bench.device_running(a), b, 1, trial=PATIENT)
    assert device.state == ("trial", b.digest, a.digest)

    want(bench, device, b, 1, floor=2, trial=PATIENT)

    assert device.state == ("refused", b.digest, a.digest)
    assert device.again().work().state == ("refused", b.digest, a.digest)


def test_the_floor_of_another_director_is_none(bench: Bench, two: tuple[Bundle, Bundle]) -> None:
    a, b = two
    device = want(bench, bench.device_running(a), a, 2, floor=9)
    other = SigningKey.load_or_create(bench.folder / "other.key")
    identity = bench.enrolled.folder / "identity.json"
    identity.write_text(identity.read_text().replace(bench.enrolled.director.public.hex, other.public.hex))
    bench.enrolled.director = other

    device = want(bench, device.again(), b, 1)

    assert device.updater.director.floors() == {}
    assert device.state == ("committed", b.digest, b.digest)
    problem = next(detail for name, detail in device.told if name == "desired-unusable")
    assert "the stored release floor cannot be used" in problem
    assert "the stored desired state cannot be used" in problem
