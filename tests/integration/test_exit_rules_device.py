"""What users of Seldon Core and KServe do with a server, asked of a whole agent: a broker, blobs over HTTP, and the HTTP door.

Each test is the device's half of an exit rule; `docs/exit-rules.md` has the table.
"""

import json
import struct
import threading
import urllib.error
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from device_agent import Scorer
from device_agent.telemetry.payload import PayloadSettings
from edgefleet.bundle import Bundle
from edgefleet.desired import PayloadOrder, TrialPolicy
from edgefleet.messages import PayloadBody, decode
from edgefleet.shadow_counts import ShadowCounts
from edgefleet.statistics import InputStatistics
from fleet_server.drift.scores import window_scores
from tests.integration.whole_device import World
from tests.unit.device_agent.agent_world import PROJECT, eventually, rows
from tests.unit.device_agent.test_scorer_decisions import outlier_bundle

pytestmark = pytest.mark.broker
ENDLESS = TrialPolicy(soak_s=0.0, soak_rows=10**9, timeout_s=600.0, agreement_rows=10**9)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def values(answer: bytes) -> dict[str, list[Any]]:
    return {one["name"]: one["data"] for one in json.loads(answer)["outputs"]}


def labels(bundle: Bundle, x: Any) -> list[str]:
    with Scorer.open(bundle) as scorer:
        return [str(label) for label in scorer.score_batch(x).label.tolist()]


def test_a_challenger_that_listens_fails_or_dawdles_changes_no_byte_of_an_answer_and_is_told_to_the_server(world: World) -> None:
    champion, challenger = world.bundle(1), world.bundle(2)
    world.want(champion, 1)
    world.wait_for("committed", champion)
    x = rows(40)
    before = [world.infer(x), *(world.infer(row[np.newaxis]) for row in x[:5])]

    def again() -> list[bytes]:
        return [world.infer(x), *(world.infer(row[np.newaxis]) for row in x[:5])]

    world.want(challenger, 2, ENDLESS)
    eventually("the trial", lambda: world.agent.models.candidate, 60.0)
    assert again() == before
    assert world.agent.models.settle(30.0)

    def compared() -> ShadowCounts | None:
        world.infer(x)  # what was compared travels with a window of rows
        found = [body.shadow for body in world.windows() if body.shadow is not None]
        return sum_of(found) if found and sum(counts.compared for counts in found) >= 45 else None

    counts = eventually("the comparison at the server", compared)
    candidate = world.agent.models.candidate
    assert candidate is not None
    candidate.score_batch = partial(dawdling, candidate.score_batch)  # type: ignore[method-assign]
    assert again() == before
    candidate.close()  # from now on it fails on every row
    assert again() == before

    assert (counts.running, counts.shadow) == (champion.digest, challenger.digest)
    assert counts.agreement == pytest.approx(np.mean(np.array(labels(champion, x)) == labels(challenger, x)), abs=0.15)
    assert 0.0 < abs(counts.difference_mean) < 1.0
    assert 0.0 < (counts.latency_us(0.95) or 0.0) < 1e6


def sum_of(found: list[ShadowCounts]) -> ShadowCounts:
    total = found[0]
    for one in found[1:]:
        total = total.merge(one)
    return total


def dawdling(call: Any, given: Any) -> Any:
    threading.Event().wait(0.2)
    return call(given)


def test_an_absurd_row_is_answered_and_flagged_and_a_drifted_stream_is_told_by_its_input(world: World) -> None:
    made = outlier_bundle(world.folder / "with-detector")
    world.agent.models.install(Scorer.open(made.folder))
    usual, absurd = np.zeros((1, 5), np.float32), np.full((1, 5), 500.0, np.float32)
    drifted = np.random.default_rng(8).permutation(made.x)[:300].copy()
    drifted[:, 2] += 3.0 * made.x[:, 2].std()

    told = [values(world.infer(x)) for x in (usual, absurd)]
    eventually("the window of single rows", lambda: sum(body.answered for body in world.windows()) == 2)
    world.infer(drifted)
    eventually("the drifted window", lambda: sum(body.answered for body in world.windows()) == 302)

    assert [one["outlier"] for one in told] == [[False], [True]]
    assert all(one["label"][0] and np.isfinite(one["score"][0]) for one in told)
    assert sum(body.outliers or 0 for body in world.windows()) >= 1
    late = [body for body in world.windows() if body.answered >= 100]
    scores, _ = window_scores(InputStatistics.from_bytes(late[-1].statistics), made.reference)
    assert int(np.argmax(np.abs(scores))) == 2
    assert abs(scores[2]) > 4 * np.abs(np.delete(scores, 2)).max()


def test_both_versions_answer_by_their_numbers_with_the_network_off_and_going_back_fetches_nothing(world: World) -> None:
    one, two = world.bundle(1), world.bundle(2)
    world.want(one, 1)
    world.wait_for("committed", one)
    world.want(two, 2)
    world.wait_for("committed", two)
    asked = len(world.blobs.requests)
    world.want(one, 1)
    world.wait_for("committed", one)
    assert len(world.blobs.requests) == asked
    world.want(two, 2)
    world.wait_for("committed", two)
    assert len(world.blobs.requests) == asked
    x = rows(30)
    assert labels(one, x) != labels(two, x)

    world.unplugged()
    world.restarted()

    by_version = {version: values(world.infer(x, version))["label"] for version in ("", "1", "2", "1")}
    assert by_version == {"": labels(two, x), "1": labels(one, x), "2": labels(two, x)}
    assert values(world.infer(x[:1], "1"))["label"] == labels(one, x[:1])
    assert world.get(f"/v2/models/{PROJECT}")["versions"] == ["2", "1"]
    assert world.get(f"/v2/models/{PROJECT}/versions/1")["parameters"]["bundle_digest"] == one.digest
    assert world.get(f"/v2/models/{PROJECT}/versions/1/ready") == {"name": PROJECT, "ready": True}
    for wrong in ("3", "%20", "1/versions/2"):
        with pytest.raises(urllib.error.HTTPError) as refusal:
            world.infer(x, wrong)
        assert refusal.value.code == 404
    with pytest.raises(urllib.error.HTTPError) as refusal:
        world.infer(x, "3")
    assert json.loads(refusal.value.read())["error"] == "model 'tiny' has version 2 and 1, not '3'"
    assert world.agent._reports.health().rows == 3 * 30 + 30 + 1


def test_rows_of_each_version_are_counted_in_windows_of_their_own(world: World) -> None:
    one, two = world.bundle(1), world.bundle(2)
    world.want(one, 1)
    world.wait_for("committed", one)
    with pytest.raises(urllib.error.HTTPError, match="404"):
        world.get(f"/v2/models/{PROJECT}/versions/")  # there is none before the first
    world.want(two, 2)
    world.wait_for("committed", two)
    eventually("the windows until now", lambda: sum(body.answered for body in world.windows()) == world.agent.models.rows)
    before = {digest: sum(body.answered for body in world.windows() if body.bundle_digest == digest) for digest in (one.digest, two.digest)}

    world.infer(rows(30), "1")
    world.infer(rows(20))
    eventually("the windows of 50 rows", lambda: sum(body.answered for body in world.windows()) == sum(before.values()) + 50)

    after = {digest: sum(body.answered for body in world.windows() if body.bundle_digest == digest) for digest in before}
    assert {digest: after[digest] - n for digest, n in before.items()} == {one.digest: 30, two.digest: 20}


def test_a_version_whose_files_are_damaged_is_a_503_and_the_running_one_goes_on(world: World) -> None:
    one, two = world.bundle(1), world.bundle(2)
    for release, bundle in ((1, one), (2, two)):
        world.want(bundle, release)
        world.wait_for("committed", bundle)
    store = world.agent._updater.store
    blob = store.blob_path(one.manifest.variants[0].model_digest)
    blob.chmod(0o644)
    blob.write_bytes(b"damaged")

    with pytest.raises(urllib.error.HTTPError) as refusal:
        world.infer(rows(3), "1")

    assert refusal.value.code == 503
    assert "this version cannot be opened" in json.loads(refusal.value.read())["error"]
    assert values(world.infer(rows(3)))["label"] == labels(two, rows(3))


def test_no_byte_that_is_written_or_sent_holds_an_input_that_the_device_does_not_list(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    bundle = world.bundle(1)
    world.restarted(window_s=3600.0, keep_s=0.2, payload=PayloadSettings(3600, only=("f0", "f1")))
    world.want(bundle, 1)
    world.wait_for("committed", bundle)
    for row in ([-49.0] * 5, [49.0] * 5):  # the ends of a window are told: minimum and maximum
        world.agent.score(row)
    marked = np.random.default_rng(4).uniform(1.0, 2.0, (40, 5)).astype(np.float32)
    for row in marked:
        world.agent.score(row)
    world.want(bundle, 2, sampling=PayloadOrder(rows_per_hour=3600))
    eventually("the operator's word", lambda: world.agent._updater.director.payload and world.agent._updater.director.payload.sampling)
    secret = marked[0].tolist()
    eventually("a sampled row", lambda: world.agent.score(secret) and world.fleet.telemetry("payload"))
    world.agent.close()

    (first, *_) = world.fleet.telemetry("payload")
    assert decode(PayloadBody, first.body).row == {"f0": secret[0], "f1": secret[1]}
    written = b"".join(path.read_bytes() for path in world.enrolled.folder.rglob("*") if path.is_file() and "blobs" not in path.parts)
    sent = b"".join(payload for _, payload in world.fleet.got)
    everything = written + sent + caplog.text.encode()
    assert [form for form in forms(secret[0]) if form in sent]  # the search finds what is there
    for value in (*secret[2:], *marked[1:].ravel().tolist()):
        assert not [form for form in forms(value) if form in everything], value


def forms(value: float) -> list[bytes]:
    """How a float32 that came in could stand in a message or a file: binary in both orders and widths, or as text."""
    return [struct.pack(f, value) for f in ("<f", ">f", "<d", ">d")] + [f"{value:.6g}"[:7].encode()]


def test_a_row_larger_than_the_days_limit_does_not_leave_and_is_counted(world: World) -> None:
    bundle = world.bundle(1)
    world.restarted(payload=PayloadSettings(3600, bytes_per_day=40))
    world.want(bundle, 1, sampling=PayloadOrder(rows_per_hour=3600))
    world.wait_for("committed", bundle)

    def refused() -> bool:
        world.agent.score([0.0] * 5)
        return world.agent._reports.samples.payload.too_large >= 1

    eventually("a row that is too large", refused)
    assert world.fleet.telemetry("payload") == []
    assert msgspec.to_builtins(world.agent._reports.health())["rows_sent"] == 0
