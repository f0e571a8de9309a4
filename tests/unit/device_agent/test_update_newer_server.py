"""An agent that is older than its server: it says what it ignored, and refuses what it would have to understand."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgefleet.bundle import Bundle
from edgefleet.messages import Desired, decode, encode
from tests.unit.device_agent.agent_world import PROJECT, blob_server, weights
from tests.unit.device_agent.test_update_updater import Bench, Device


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with blob_server() as server:
        yield Bench(tmp_path, server)


def newer(bench: Bench, bundle: Bundle, ignorable: list[str]) -> bytes:
    """The next desired state, by a server whose trials can do more."""
    raw: dict[str, Any] = msgspec.json.decode(decode(Desired, bench.enrolled.desired(bundle.digest)).payload)
    raw["models"][PROJECT]["trial"]["warmup_s"] = 5
    content = msgspec.json.encode(raw | {"may_ignore": ignorable})
    director = bench.enrolled.director
    return encode(Desired(payload=content, signatures=[(director.public.keyid, director.sign(content))]))


def said(device: Device, name: str) -> list[str]:
    return [detail for told, detail in device.told if told == name]


def test_what_may_be_ignored_is_ignored_and_told_and_the_rest_obeyed_also_after_a_restart(bench: Bench) -> None:
    a, b = bench.bundle("a", weights(1)), bench.bundle("b", weights(2))
    device = bench.device_running(a)

    device.updater.receive(message := newer(bench, b, ["models.*.trial.warmup_s"]))
    device.work()

    assert device.updater.director.position == (1, bench.enrolled.counter)
    assert device.updater.progress.subject == b.digest
    assert said(device, "desired-fields-ignored") == ["this agent does not know models.*.trial.warmup_s, and may ignore it; update it"]
    device = device.again()
    assert device.updater.director.position == (1, bench.enrolled.counter)
    device.updater.receive(message)
    assert said(device.work(), "desired-refused") == []


def test_what_must_be_understood_is_refused_by_name_and_nothing_changes(bench: Bench) -> None:
    a, b = bench.bundle("a", weights(1)), bench.bundle("b", weights(2))
    device = bench.device_running(a)
    before = device.updater.director.position

    device.updater.receive(newer(bench, b, ["sampling"]))
    device.work()

    (refusal,) = said(device, "desired-refused")
    assert "does not know models.*.trial.warmup_s, which must be understood; update the agent" in refusal
    assert (device.updater.director.position, device.state[1:]) == (before, (a.digest, a.digest))
