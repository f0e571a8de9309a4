"""An agent's budget of memory: it decides which variant of an arriving bundle is fetched, and the status says why."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from device_agent.choose import memory_needed
from device_agent.config import AgentConfig
from edgefleet.bundle import Bundle
from edgefleet.digests import sha256_hex
from edgefleet.errors import ConfigError
from edgefleet.manifest import FileEntry, manifest_bytes
from tests.unit.device_agent.agent_world import BlobServer, blob_server, enroll, make_bundle, weights
from tests.unit.device_agent.test_update_updater import ALONE, Device


@pytest.fixture
def server() -> Iterator[BlobServer]:
    with blob_server() as one:
        yield one


def two_variants(folder: Path) -> Bundle:
    """The same graph twice; the first variant is preferred, and carries an explainer that needs memory."""
    made = make_bundle(folder, weights(1))
    (rich,) = made.manifest.variants
    (folder / "large.npz").write_bytes(large := b"x" * 400_000)
    plain = msgspec.structs.replace(rich, name="onnx-plain", explainer=None, explain_method=None)
    files = {**made.manifest.files, "large.npz": FileEntry(sha256=sha256_hex(large), size_bytes=len(large))}
    variants = [msgspec.structs.replace(rich, explainer="large.npz"), plain]
    manifest = msgspec.structs.replace(made.manifest, variants=variants, files=files)
    (folder / "manifest.json").write_bytes(manifest_bytes(manifest))
    return Bundle.open(folder)


def test_a_variant_beyond_the_budget_is_passed_over_and_the_reason_is_kept_over_a_restart(tmp_path: Path, server: BlobServer) -> None:
    server.add(bundle := two_variants(tmp_path / "bundle"))
    needed = [memory_needed(bundle.manifest, variant) for variant in bundle.manifest.variants]
    budget = sum(needed) // 2
    enrolled = enroll(tmp_path / "device", server.url)

    device = Device(enrolled, memory_bytes=budget).want(bundle.digest, ALONE)
    running = device.models.running
    device.models.close()
    restarted = Device(enrolled, memory_bytes=budget).models.running

    assert running is not None
    assert restarted is not None
    for model in (running, restarted):
        assert model.variant.name == "onnx-plain"
        assert f"skipped: onnx-fp32 (it needs about {needed[0]} bytes of memory, the budget is {budget})" in model.chosen_because
    restarted.close()


def test_a_bundle_of_which_nothing_fits_is_refused_with_the_numbers(tmp_path: Path, server: BlobServer) -> None:
    server.add(bundle := make_bundle(tmp_path / "bundle", weights(1)))

    device = Device(enroll(tmp_path / "device", server.url), memory_bytes=1000).want(bundle.digest, ALONE)

    assert device.models.running is None
    assert device.updater.progress.state == "refused"
    assert "bytes of memory, the budget is 1000" in device.updater.progress.reason


def test_a_budget_that_was_lowered_does_not_take_away_the_model_that_runs(tmp_path: Path, server: BlobServer) -> None:
    server.add(bundle := make_bundle(tmp_path / "bundle", weights(1)))
    enrolled = enroll(tmp_path / "device", server.url)
    Device(enrolled).want(bundle.digest, ALONE).models.close()

    running = Device(enrolled, memory_bytes=1000).models.running

    assert running is not None
    assert running.chosen_because.startswith("onnx-fp32 was chosen when the bundle came; now none would be: ")
    assert "the budget is 1000" in running.chosen_because
    running.close()


def test_a_budget_below_one_byte_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="model_memory_bytes 0 is out of range"):
        AgentConfig(dir=tmp_path, model_memory_bytes=0)
