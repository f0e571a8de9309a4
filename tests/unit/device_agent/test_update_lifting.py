"""A quarantine that a person lifts: the device forgets, once, and runs nothing that it was not asked to."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgefleet.bundle import Bundle
from edgefleet.signing import SigningKey
from tests.unit.device_agent.agent_world import blob_server, weights
from tests.unit.device_agent.test_update_halt import halt
from tests.unit.device_agent.test_update_updater import Bench, Device


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with blob_server() as server:
        yield Bench(tmp_path, server)


def failed(bench: Bench) -> tuple[Device, Bundle, Bundle]:
    """A device that runs the first bundle, and on which the second crashed until it was quarantined."""
    good, bad = bench.bundle("good", weights(1)), bench.bundle("bad", weights(1) * np.float32(1.01))
    device = bench.device_running(good)
    device.crashing.add(bad.digest)
    device.want(bad.digest)
    assert device.state == ("quarantined", bad.digest, good.digest)
    return device, good, bad


def lift(bench: Bench, device: Device, bundle: Bundle, wanted: str | None, *, counter: int | None = None) -> Device:
    """The next desired state, with a person's word about a bundle; `counter` is the one that the word came with first."""
    word = {bundle.digest: bench.enrolled.counter + 1 if counter is None else counter}
    device.updater.receive(bench.enrolled.desired(wanted, lifted=word))
    return device.work()


def held(device: Device) -> list[str]:
    return [digest for digest, _ in device.updater.progress.quarantined]


def test_a_lifted_bundle_that_is_wanted_is_tried_again_with_all_its_attempts(bench: Bench) -> None:
    device, _, bad = failed(bench)
    device.crashing.clear()

    lift(bench, device, bad, bad.digest)

    assert device.state == ("committed", bad.digest, bad.digest)
    assert held(device) == []
    assert ("quarantine-lifted", "a person lifted it; the bundle is tried again when it is asked for") in device.told


def test_a_lifted_bundle_that_nobody_wants_is_not_run(bench: Bench) -> None:
    device, good, bad = failed(bench)
    device.crashing.clear()
    bench.server.requests.clear()

    lift(bench, device, bad, good.digest)

    assert device.state == ("idle", "", good.digest)
    assert held(device) == []
    assert not [one for one in bench.server.requests if bad.digest in str(one)]


def test_a_lift_counts_once_whatever_is_delivered_again_and_whoever_restarts(bench: Bench) -> None:
    device, good, bad = failed(bench)
    lift(bench, device, bad, bad.digest)
    word = bench.enrolled.counter
    assert device.state == ("quarantined", bad.digest, good.digest)  # it crashed three times more

    device = device.again()
    device.crashing.add(bad.digest)
    device.work()
    assert held(device) == [bad.digest]
    lift(bench, device, bad, bad.digest, counter=word)

    assert device.state == ("quarantined", bad.digest, good.digest)
    assert dict(device.updater.progress.lifted) == {bad.digest: word}
    device.crashing.clear()
    assert lift(bench, device, bad, bad.digest).state == ("committed", bad.digest, bad.digest)


def test_a_kill_after_the_document_was_kept_and_before_it_was_obeyed_loses_no_lift(bench: Bench) -> None:
    device, _, bad = failed(bench)
    message = bench.enrolled.desired(bad.digest, lifted={bad.digest: bench.enrolled.counter + 1})
    device.updater.director.accept(message)

    device = device.again().work()

    assert device.state == ("committed", bad.digest, bad.digest)


def test_a_halted_device_hears_a_lift_and_begins_nothing(bench: Bench) -> None:
    device, good, bad = failed(bench)
    device.crashing.clear()
    halt(bench, device)

    lift(bench, device, bad, bad.digest)

    assert device.state == ("idle", "", good.digest)
    assert held(device) == []
    halt(bench, device, 2, halted=False).work()
    assert device.state == ("committed", bad.digest, bad.digest)


def test_a_lift_that_somebody_else_signed_changes_nothing(bench: Bench, tmp_path: Path) -> None:
    device, good, bad = failed(bench)
    bench.enrolled.director = SigningKey.load_or_create(tmp_path / "stranger.key")

    lift(bench, device, bad, bad.digest)

    assert device.state == ("quarantined", bad.digest, good.digest)
    assert held(device) == [bad.digest]
    assert "desired-refused" in [name for name, _ in device.told]
