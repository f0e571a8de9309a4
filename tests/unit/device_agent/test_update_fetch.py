"""Blobs over HTTP: resumed, bounded, hashed, and never believed."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_agent.config import AgentConfig, load_identity
from device_agent.update.arrival import Arrival
from device_agent.update.disk import Disk
from device_agent.update.fetch import REFUSALS, Fetcher, backoff_s
from device_agent.update.plan import Event
from device_agent.update.store import Store
from edgefleet.bundle import Bundle
from edgefleet.errors import StorageError
from tests.unit.device_agent.agent_world import TOKEN, BlobServer, blob_server, enroll, make_bundle, weights


class Bench:
    """A server with one bundle, and an empty device."""

    def __init__(self, folder: Path, server: BlobServer) -> None:
        self.server, self.bundle = server, make_bundle(folder / "bundle", weights(1), extra_bytes=100_000)
        server.add(self.bundle)
        self.identity = load_identity(enroll(folder / "device", server.url).folder)
        self.folder = folder / "device"
        self.store = Store(self.folder, Disk())
        self.stop = False

    def arrival(self, runtimes: tuple[str, ...] | None = None) -> Arrival:
        config = AgentConfig(dir=self.folder, runtimes=runtimes)  # type: ignore[arg-type]
        return Arrival(self.identity, config, self.store, Disk(), lambda: self.stop)

    def digest_of(self, name: str) -> str:
        return self.bundle.manifest.files[name].sha256

    def parts(self) -> list[Path]:
        return list(self.folder.rglob(".part-*"))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with blob_server() as server:
        yield Bench(tmp_path, server)


def test_the_manifest_and_the_chosen_variants_files_are_fetched_and_nothing_else(bench: Bench) -> None:
    outcome = bench.arrival().attempt(bench.bundle.digest)

    wanted = {bench.bundle.digest} | {bench.digest_of(name) for name in bench.bundle.manifest.variant_files("onnx-fp32")}
    assert outcome.event is Event.FETCHED
    assert {digest for digest, _ in bench.server.requests} == wanted
    assert bench.digest_of("card.md") not in wanted
    opened, variant = bench.store.open_slot(bench.bundle.digest)
    assert (opened.digest, variant.name) == (bench.bundle.digest, "onnx-fp32")
    assert bench.store.blob_path(bench.bundle.digest).stat().st_mode & 0o777 == 0o444


def test_what_is_here_is_not_fetched_again(bench: Bench) -> None:
    bench.arrival().attempt(bench.bundle.digest)
    bench.server.requests.clear()

    bench.arrival().attempt(bench.bundle.digest)

    assert bench.server.requests == []


def test_a_broken_download_is_resumed_where_it_ended(bench: Bench) -> None:
    digest = bench.digest_of("reference.npz")
    bench.server.cut_after[digest] = 1000

    first = bench.arrival().attempt(bench.bundle.digest)
    second = bench.arrival().attempt(bench.bundle.digest)

    assert (first.event, second.event) == (None, Event.FETCHED)
    assert "it is resumed" in first.reason
    assert [wanted for name, wanted in bench.server.requests if name == digest] == [None, "bytes=1000-"]


def test_a_part_of_other_bytes_is_dropped_and_fetched_anew(bench: Bench) -> None:
    digest = bench.digest_of("reference.npz")
    bench.store.make_room_for(digest)
    bench.store.part_path(digest).write_bytes(b"x" * 500)

    outcome = bench.arrival().attempt(bench.bundle.digest)

    assert outcome.event is Event.FETCHED
    assert bench.parts() == []


def test_wrong_bytes_twice_convict_and_leave_nothing(bench: Bench) -> None:
    digest = bench.digest_of("onnx-fp32.onnx")
    bench.server.replace[digest] = bytes(len(bench.server.blobs[digest]))

    outcome = bench.arrival().attempt(bench.bundle.digest)

    assert outcome.event is Event.WRONG_BYTES
    assert "another hash, twice" in outcome.reason
    assert not bench.store.has_blob(digest)
    assert bench.parts() == []


def test_an_endless_answer_costs_one_byte_more_than_the_manifest_promises(bench: Bench) -> None:
    digest = bench.digest_of("golden.npz")
    bench.server.replace[digest] = bytes(20_000_000)

    outcome = bench.arrival().attempt(bench.bundle.digest)

    assert outcome.event is Event.WRONG_BYTES
    assert sum(path.stat().st_size for path in bench.folder.rglob("*") if path.is_file()) < 1_000_000


def test_a_blob_that_the_server_does_not_have_is_asked_for_a_few_times_and_then_refused(bench: Bench) -> None:
    bench.server.refuse[bench.bundle.digest] = 404
    arrival = bench.arrival()

    outcomes = [arrival.attempt(bench.bundle.digest) for _ in range(REFUSALS)]

    assert [outcome.event for outcome in outcomes] == [None] * (REFUSALS - 1) + [Event.REFUSED]
    assert "answer 404" in outcomes[-1].reason


def test_a_server_that_is_busy_is_waited_for_without_end(bench: Bench) -> None:
    bench.server.refuse[bench.bundle.digest] = 503
    arrival = bench.arrival()

    outcomes = [arrival.attempt(bench.bundle.digest) for _ in range(REFUSALS + 3)]

    assert {outcome.event for outcome in outcomes} == {None}
    assert all(outcome.wait_s >= 0 for outcome in outcomes)


def test_a_server_that_is_away_is_said_so(bench: Bench, tmp_path: Path) -> None:
    identity = load_identity(enroll(tmp_path / "lonely", "http://127.0.0.1:9").folder)

    outcome = Arrival(identity, AgentConfig(dir=bench.folder), bench.store, Disk(), lambda: False).attempt(bench.bundle.digest)

    assert outcome.event is None
    assert "is the server up?" in outcome.reason


def test_a_newer_wish_ends_the_download(bench: Bench) -> None:
    bench.stop = True
    assert bench.arrival().attempt(bench.bundle.digest).event is None


@pytest.mark.parametrize(
    ("change", "said"),
    [({"project": "another"}, "is for project another, this device runs tiny"), ({"runtime": "litert"}, "the bundle needs litert")],
)
def test_a_bundle_that_is_not_for_this_device_is_refused(bench: Bench, tmp_path: Path, change: dict[str, str], said: str) -> None:
    other: Bundle = make_bundle(tmp_path / "other", weights(2), **change)  # type: ignore[arg-type]
    bench.server.add(other)

    outcome = bench.arrival(("onnxruntime",)).attempt(other.digest)

    assert outcome.event is Event.REFUSED
    assert said in outcome.reason


def test_a_bundle_larger_than_the_free_space_is_refused_before_it_is_fetched(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("device_agent.update.fetch.MIN_FREE_BYTES", 1 << 60)
    fetcher = Fetcher(bench.store, Disk(), bench.server.url, TOKEN, lambda: False)
    manifest = fetcher.manifest(bench.bundle.digest)
    asked = len(bench.server.requests)

    with pytest.raises(StorageError, match=r"needs \d+ bytes and \d+ spare, \d+ are free"):
        fetcher.variant(manifest, "onnx-fp32")
    assert len(bench.server.requests) == asked


def test_waits_are_full_jitter_with_a_cap() -> None:
    rng = random.Random(1)  # noqa: S311  # jitter
    waits = [backoff_s(failures, rng) for failures in range(200)]

    assert max(waits) <= 300.0
    assert max(waits[10:]) > 200.0
    assert min(waits[10:]) < 60.0
