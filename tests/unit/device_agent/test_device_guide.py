"""The sizes in docs/device.md are those that the encoders give."""

import re
from pathlib import Path

import msgspec
import numpy as np
import pytest

from device_agent.decision import Decision
from device_agent.telemetry.windows import WindowCollector
from edgefleet.manifest import Input
from edgefleet.messages import (
    Acked,
    AttestationBody,
    AttributionSums,
    DeviceLoad,
    ExplanationBody,
    Heartbeat,
    PayloadBody,
    Telemetry,
    TelemetryKind,
    encode,
)
from edgefleet.reference import build_reference

GUIDE = (Path(__file__).resolve().parents[3] / "docs" / "device.md").read_text()
TABLE = {
    int(row[0]): [int(cell) for cell in row[1:]] for row in re.findall(r"^\| (\d+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", GUIDE, re.M)
}
DIGEST, NOW_US = "a" * 64, 1_790_000_000_000_000


def size(kind: TelemetryKind, body: bytes) -> int:
    message = Telemetry(
        boot=2**62,
        seq=5000,
        oldest_seq=4990,
        kind=kind,
        project="press-line",
        model_digest=DIGEST,
        start_at=NOW_US,
        end_at=NOW_US + 3_600_000_000,
        body=body,
    )
    return len(encode(message))


@pytest.mark.parametrize("features", [5, 20, 64, 784])
def test_the_sizes_on_the_wire_are_those_of_the_guide(features: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2000, features)).astype(np.float32)
    reference = build_reference(x, [Input(name=f"f{i}") for i in range(features)], block_rows=50, classes=3)
    collector = WindowCollector(reference, Decision(3, ("a", "b", "c")), DIGEST, DIGEST, NOW_US)
    shares = rng.dirichlet([1, 1, 1], 500).astype(np.float32)
    collector.fold(x[:500], np.hstack([shares, shares]), np.ones(500, bool))
    collector.fold_latencies(rng.lognormal(9.5, 0.3, 500).astype(int).tolist())
    window = collector.take(NOW_US + 10)
    assert window is not None
    sums = AttributionSums(rows=25, total=rng.normal(size=features).tolist(), absolute=rng.random(features).tolist())
    explanation = ExplanationBody(
        bundle_digest=DIGEST,
        label="bad",
        score=0.5,
        margin=1.5,
        base=0.25,
        contributions=rng.normal(size=features).tolist(),
        method="treeshap",
    )
    row = PayloadBody(bundle_digest=DIGEST, row={f"f{i}": float(v) for i, v in enumerate(x[0])}, label="bad", score=0.5)

    sizes = [
        size("window", encode(window.body)),
        size("window", encode(msgspec.structs.replace(window.body, attribution=sums))),
        size("explanation", encode(explanation)),
        size("payload", encode(row)),
    ]

    # The guide names round causes; a field that is appended may move them a little, a kind of thing that is added may not.
    assert TABLE[features] == pytest.approx(sizes, rel=0.03)


def test_the_sizes_of_the_small_messages_are_those_of_the_guide() -> None:
    load = DeviceLoad(cpu_permille=120, rss_bytes=90_000_000, disk_free_bytes=10**10, temperature_c=41.5, clock_offset_ms=-12)
    beat = Heartbeat(boot=2**62, at=NOW_US, running={"press-line": DIGEST}, rows=10**6, spooled=3, rejected=12, load=load)
    attestation = AttestationBody(
        device="press-7", epoch=1, counter=40, bundle_digest=DIGEST, model_digest=DIGEST, nonce="n" * 32, signature=b"s" * 64
    )

    said = re.search(r"A heartbeat has (\d+) bytes, an attestation (\d+), .* an acknowledgement (\d+)\.", GUIDE)

    assert said is not None
    sizes = [len(encode(beat)), size("attestation", encode(attestation)), len(encode(Acked(stored=[(2**62, 5000)], at=NOW_US)))]
    assert [int(number) for number in said.groups()] == pytest.approx(sizes, rel=0.05)
