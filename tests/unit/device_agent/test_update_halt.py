"""A fleet halt on one device: what it stops, what it leaves alone, what it survives, and what is refused."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgefleet.halt import HaltPayload, sign_halt
from edgefleet.messages import encode
from edgefleet.signing import SigningKey
from tests.unit.device_agent.agent_world import FLEET, blob_server, weights
from tests.unit.device_agent.test_update_updater import PATIENT, Bench, Device

NEARLY = weights(1) * np.float32(1.01)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with blob_server() as server:
        yield Bench(tmp_path, server)


def document(bench: Bench, counter: int, *, halted: bool = True, key: SigningKey | None = None, **changes: Any) -> bytes:
    values: dict[str, Any] = {"format_version": 1, "fleet": FLEET, "epoch": 1, "issued_at": 1, "reason": "fire", "ordered_by": "olga"}
    payload = HaltPayload(**(values | {"counter": counter, "halted": halted} | changes))
    return encode(sign_halt(payload, key or bench.enrolled.director))


def halt(bench: Bench, device: Device, counter: int = 1, **changes: Any) -> Device:
    device.updater.halt.receive(document(bench, counter, **changes))
    return device.work(2)


def known(device: Device) -> tuple[bool, int, int]:
    halt = device.updater.halt
    return halt.halted, halt.counter, halt.refused


def test_a_halted_device_begins_no_update_and_begins_it_after_the_lift(bench: Bench) -> None:
    a, b = bench.bundle("a", weights(1)), bench.bundle("b", NEARLY)
    device = halt(bench, bench.device_running(a))
    bench.server.requests.clear()

    device.want(b.digest)
    assert device.state == ("committed", a.digest, a.digest)
    assert bench.server.requests == []

    halt(bench, device, 2, halted=False).work()
    assert device.state == ("committed", b.digest, b.digest)


def test_what_runs_goes_on_scoring_while_the_fleet_is_halted(bench: Bench) -> None:
    device = halt(bench, bench.device_running(bench.bundle("a", weights(1))))
    before = device.models.rows

    device.work(2)

    assert device.models.rows == before + 10


def test_a_trial_under_way_ends_uncounted_and_begins_anew_after_the_lift(bench: Bench) -> None:
    a, b = bench.bundle("a", weights(1)), bench.bundle("b", NEARLY)
    device = bench.device_running(a).want(b.digest, PATIENT)
    assert device.state == ("trial", b.digest, a.digest)

    halt(bench, device)
    assert device.state == ("verified", b.digest, a.digest)
    assert device.models.trial is None
    assert device.updater.progress.attempt == 0

    halt(bench, device, 2, halted=False).work()
    assert device.state == ("trial", b.digest, a.digest)
    assert device.updater.progress.attempt == 1


def test_a_bundle_that_was_refused_and_is_asked_for_again_during_the_halt_is_tried_after_the_lift(bench: Bench) -> None:
    a, b = bench.bundle("a", weights(1)), bench.bundle("b", NEARLY)
    bench.server.refuse[b.digest] = 404
    device = bench.device_running(a).want(b.digest)
    assert device.state == ("refused", b.digest, a.digest)

    bench.server.refuse.clear()
    halt(bench, device).want(b.digest)
    assert device.state == ("refused", b.digest, a.digest)

    halt(bench, device, 2, halted=False).work()
    assert device.state == ("committed", b.digest, b.digest)


def test_a_halt_survives_a_kill_and_an_old_lift_does_not_end_it(bench: Bench) -> None:
    a, b = bench.bundle("a", weights(1)), bench.bundle("b", NEARLY)
    device = halt(bench, bench.device_running(a), 7).again()
    assert known(device) == (True, 7, 0)

    halt(bench, device, 6, halted=False).want(b.digest)

    assert device.state == ("committed", a.digest, a.digest)
    assert known(device) == (True, 7, 1)


def test_going_back_waits_for_the_lift_too(bench: Bench) -> None:
    a, b = bench.bundle("a", weights(1)), bench.bundle("b", NEARLY)
    device = halt(bench, bench.device_running(a).want(b.digest))

    device.want(a.digest)
    assert device.models.running_digest() == b.digest

    halt(bench, device, 2, halted=False).work()
    assert device.models.running_digest() == a.digest


@pytest.mark.parametrize("hostile", ["another key", "another fleet", "malformed", "equivocation", "older", "too large"])
def test_a_hostile_document_is_refused_counted_and_changes_nothing(bench: Bench, tmp_path: Path, hostile: str) -> None:
    device = halt(bench, bench.device_running(bench.bundle("a", weights(1))), 5)
    stranger = SigningKey.load_or_create(tmp_path / "stranger.key")
    content = {
        "another key": document(bench, 9, halted=False, key=stranger),
        "another fleet": document(bench, 9, halted=False, fleet="away"),
        "malformed": b"\x93\x01",
        "equivocation": document(bench, 5, halted=False),
        "older": document(bench, 4, halted=False),
        "too large": document(bench, 9, halted=False, reason="x" * 5_000),
    }[hostile]

    device.updater.halt.receive(content)
    device.work(1)

    assert known(device) == (True, 5, 1)
    assert [name for name, _ in device.told if name.startswith("halt")] == ["halted", "halt-refused"]


def test_the_same_document_again_is_neither_news_nor_refused(bench: Bench) -> None:
    device = halt(bench, bench.device_running(bench.bundle("a", weights(1))), 5)

    halt(bench, device, 5)

    assert known(device) == (True, 5, 0)


def test_a_stored_halt_that_cannot_be_read_is_a_halt_until_the_next_document(bench: Bench) -> None:
    a, b = bench.bundle("a", weights(1)), bench.bundle("b", NEARLY)
    halt(bench, bench.device_running(a), 5).models.close()
    (bench.enrolled.folder / "halt").write_bytes(b"\0" * 40)

    device = Device(bench.enrolled).want(b.digest)
    assert device.state == ("committed", a.digest, a.digest)
    assert "halt-unusable" in [name for name, _ in device.told]

    halt(bench, device, 6, halted=False).work()
    assert device.models.running_digest() == b.digest


def test_a_halt_that_the_disk_cannot_keep_holds_all_the_same_and_is_kept_later(bench: Bench) -> None:
    device = bench.device_running(bench.bundle("a", weights(1)))
    # A folder stands in the way of the part file: what a disk that refuses looks like, also to root.
    (bench.enrolled.folder / ".part-halt").mkdir()

    halt(bench, device, 5)
    assert device.updater.halt.halted
    assert ".part-halt" in device.updater.storage_problem

    (bench.enrolled.folder / ".part-halt").rmdir()
    device.work(1)
    assert (bench.enrolled.folder / "halt").exists()
    assert known(device) == (True, 5, 0)
