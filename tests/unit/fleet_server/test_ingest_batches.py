"""What one batch of messages does to the database: once, in any order, and never blocked by what cannot be understood."""

import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import sqlalchemy as sa

from edgefleet import latency
from edgefleet.messages import (
    MAX_MESSAGE_BYTES,
    AttributionSums,
    ExplanationBody,
    PayloadBody,
    Reported,
    Telemetry,
    WindowBody,
    decode,
    encode,
)
from edgefleet.shadow_counts import ShadowCounts
from edgefleet.signing import SigningKey
from fleet_server import queries, usecases
from fleet_server.ingest.inbox import Incoming
from fleet_server.scheduler.loop import Scheduler
from fleet_server.store import aside
from fleet_server.store.moments import to_micros
from fleet_server.store.tables import ATTESTATION, DEAD_LETTER, DEVICE_SEEN, STATISTICS, TELEMETRY
from tests.unit.fleet_server.server_world import OPERATOR, POLICY, MadeBundle, SimulatedDevice, World, make_bundle, window_body


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    opened = World.open(tmp_path / "data")
    opened.enroll("d0", tmp_path, site="north")
    yield opened
    opened.close()


@pytest.fixture
def bundle(world: World, tmp_path: Path) -> MadeBundle:
    made = make_bundle(tmp_path / "bundle")
    world.push(made)
    return made


@pytest.fixture
def device(world: World) -> SimulatedDevice:
    return world.devices["d0"]


def stored(acked: dict[str, Any], device: SimulatedDevice) -> int | None:
    message = acked.get(device.device_id)
    return None if message is None else dict(message.stored).get(device.boot)


def rows_total(world: World) -> int:
    return queries.devices(world.services.db, world.clock())[0].rows_total


def count(world: World, table: sa.Table) -> int:
    with world.services.db.read() as connection:
        return int(connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0)


def tally(world: World, name: str) -> int:
    with world.services.db.read() as connection:
        return aside.tallies(connection).get(name, 0)


def test_a_record_that_comes_twice_counts_once(world: World, device: SimulatedDevice, bundle: MadeBundle) -> None:
    message = device.window(bundle, rows=10)

    world.receive(message, message)
    world.receive(message)

    assert rows_total(world) == 10
    assert count(world, TELEMETRY) == 1


def test_what_a_device_says_of_a_second_model_changes_no_sum(world: World, device: SimulatedDevice, bundle: MadeBundle) -> None:
    body = window_body(bundle, 5)
    counts = ShadowCounts(running=bundle.digest, shadow="cd" * 32, offered=5, compared=4, agreed=3, shed=1, confusion=[(0, 1, 1)])

    acked = world.receive(
        device.telemetry("window", encode(body)),
        device.telemetry("window", encode(msgspec.structs.replace(body, shadow=counts, share_1024=512))),
    )

    assert stored(acked, device) == 2
    assert rows_total(world) == 10
    with world.services.db.read() as connection:
        assert connection.execute(sa.select(STATISTICS.c.windows, STATISTICS.c.rows)).one() == (2, 10)
        assert set(connection.execute(sa.select(TELEMETRY.c.kind)).scalars()) == {"window"}


def test_records_in_any_order_give_the_same_sums(world: World, device: SimulatedDevice, bundle: MadeBundle) -> None:
    messages = [device.window(bundle, rows=n + 1) for n in range(12)]
    shuffled = messages + messages[::3]
    random.Random(4).shuffle(shuffled)  # noqa: S311  # an order, no secret

    for start in range(0, len(shuffled), 5):
        acked = world.receive(*shuffled[start : start + 5])

    assert rows_total(world) == sum(range(1, 13))
    assert stored(acked, device) == 12
    with world.services.db.read() as connection:
        assert connection.execute(sa.select(STATISTICS.c.windows, STATISTICS.c.rows)).one() == (12, 78)


def test_acked_stops_before_a_gap_and_jumps_when_it_is_filled(world: World, device: SimulatedDevice) -> None:
    first, second, third, fourth = (device.event() for _ in range(4))

    assert stored(world.receive(first, third, fourth), device) == 1
    assert stored(world.receive(second), device) == 4


def test_what_the_device_dropped_itself_is_no_gap(world: World, device: SimulatedDevice) -> None:
    assert stored(world.receive(device.telemetry("event", b"", seq=50, oldest=50)), device) == 50
    assert stored(world.receive(device.telemetry("event", b"", seq=90, oldest=90)), device) == 90


def test_an_old_record_after_newer_ones_does_not_move_acked_back(world: World, device: SimulatedDevice) -> None:
    world.receive(device.telemetry("event", b"", seq=10, oldest=8))

    assert stored(world.receive(device.telemetry("event", b"", seq=3, oldest=3)), device) == 7
    assert stored(world.receive(*[device.telemetry("event", b"", seq=s, oldest=8) for s in (8, 9)]), device) == 10


def test_a_record_that_cannot_be_used_is_set_aside_and_is_no_gap(world: World, device: SimulatedDevice) -> None:
    acked = world.receive(device.telemetry("window", b"no window"), device.event())

    assert stored(acked, device) == 2
    assert count(world, DEAD_LETTER) == 1
    assert tally(world, "put-aside") == 1


def test_acked_names_the_four_newest_starts(world: World, device: SimulatedDevice) -> None:
    for boot in range(1, 8):
        device.boot = boot
        world.clock.move(1)
        acked = world.receive(device.telemetry("event", b"", seq=1))

    assert [boot for boot, _ in acked["d0"].stored] == [7, 6, 5, 4]


def test_a_boot_of_sixty_four_bits_comes_back_unchanged(world: World, device: SimulatedDevice) -> None:
    device.boot = (1 << 64) - 1

    acked = world.receive(device.telemetry("event", b"", seq=1))

    assert acked["d0"].stored == [((1 << 64) - 1, 1)]


BROKEN: list[tuple[str, str, bytes]] = [
    ("no msgpack", "t", b"\xc1"),
    ("another version", "t", msgspec.msgpack.encode([2, 1, 1, 1, "event", "digits", "", 0, 0, b""])),
    ("nested 100,000 deep", "reported", b"\x91" * 100_000),
    ("too large", "t", b"\x00" * (MAX_MESSAGE_BYTES + 1)),
    ("sequence 0", "t", msgspec.msgpack.encode([1, 1, 0, 0, "event", "digits", "", 0, 0, b""])),
    ("oldest behind seq", "t", msgspec.msgpack.encode([1, 1, 1, 5, "event", "digits", "", 0, 0, b""])),
    ("negative boot", "t", msgspec.msgpack.encode([1, -1, 1, 1, "event", "digits", "", 0, 0, b""])),
    ("a digest that is none", "reported", encode(Reported(epoch=1, counter=1, projects={}, quarantined=["../../etc/passwd"]))),
    ("a counter beyond a database", "reported", encode(Reported(epoch=1, counter=1 << 63, projects={}))),
    ("text for a number", "hb", msgspec.msgpack.encode([1, "x", 0, {}])),
]


@pytest.mark.parametrize(("leaf", "payload"), [pytest.param(leaf, payload, id=name) for name, leaf, payload in BROKEN])
def test_a_broken_message_is_put_aside_and_blocks_nothing(world: World, device: SimulatedDevice, leaf: str, payload: bytes) -> None:
    acked = world.receive(device.message(leaf, payload), device.event())

    assert stored(acked, device) == 1
    assert tally(world, "put-aside") == 1


def test_dead_letters_are_bounded(world: World, device: SimulatedDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aside, "KEPT", 10)

    world.receive(*[device.message("t", b"\xc1") for _ in range(50)])

    assert count(world, DEAD_LETTER) == 10
    assert tally(world, "put-aside") == 50


def test_a_device_that_is_not_enrolled_is_counted_and_ignored(world: World) -> None:
    world.receive(Incoming("ef/v1/d/stranger/t", b"x", False, 1, 1, 1))

    assert tally(world, "unknown-device") == 1
    assert count(world, DEAD_LETTER) == 0


def test_a_retained_replay_is_no_sign_of_life(world: World, device: SimulatedDevice) -> None:
    world.receive(device.presence())
    before = queries.devices(world.services.db, world.clock())[0].last_seen_at

    world.clock.move(500)
    world.receive(device.reported("idle", retained=True), device.presence(retained=True))

    assert queries.devices(world.services.db, world.clock())[0].last_seen_at == before


def test_a_lost_connection_is_seen_and_is_no_sign_of_life(world: World, device: SimulatedDevice) -> None:
    world.receive(device.presence())
    seen = queries.devices(world.services.db, world.clock())[0].last_seen_at
    world.clock.move(60)

    world.receive(device.presence("lost"))

    row = queries.devices(world.services.db, world.clock())[0]
    assert (row.connected, row.last_seen_at) == (False, seen)
    assert count(world, DEVICE_SEEN) == 1


def test_a_window_of_an_unknown_bundle_is_set_aside(world: World, device: SimulatedDevice, tmp_path: Path) -> None:
    stranger = make_bundle(tmp_path / "other", "other")

    world.receive(device.window(stranger))

    assert rows_total(world) == 0
    assert count(world, DEAD_LETTER) == 1


@pytest.mark.parametrize("changes", [{"answered": -1}, {"classes": [1]}, {"latency_us": [0] * 100}, {"scores": [1, 2]}])
def test_a_window_that_contradicts_its_bundle_is_set_aside(
    world: World, device: SimulatedDevice, bundle: MadeBundle, changes: dict[str, Any]
) -> None:
    body = msgspec.structs.replace(window_body(bundle, 5), **changes)

    world.receive(device.telemetry("window", encode(body)))

    assert rows_total(world) == 0
    assert count(world, DEAD_LETTER) == 1


def test_windows_of_another_project_are_set_aside(world: World, device: SimulatedDevice, bundle: MadeBundle) -> None:
    world.receive(device.window(bundle, project="another"))

    assert rows_total(world) == 0


def assigned(world: World, bundle: MadeBundle) -> None:
    release = queries.releases(world.services.db)[0]
    view = usecases.create_rollout(world.services, release_id=release.release_id, policy=POLICY, selection={}, actor=OPERATOR)
    usecases.rollout_action(world.services, view.rollout_id, "start", version=view.version, reason="", actor=OPERATOR)
    Scheduler(world.services, None).decide_due()
    wanted = world.desired("d0")
    assert wanted is not None
    assert wanted.bundle_digest == bundle.digest


def test_an_attestation_counts_with_signature_nonce_and_counter(world: World, device: SimulatedDevice, bundle: MadeBundle) -> None:
    assigned(world, bundle)

    world.receive(*device.install(bundle))

    assert queries.devices(world.services.db, world.clock())[0].attested_digest == bundle.digest


@pytest.mark.parametrize(
    "changes",
    [{"nonce": "0" * 32}, {"counter": 0}, {"epoch": 9}, {"bundle_digest": "a" * 64}, {"device": "d1"}, {"model_digest": "b" * 64}],
)
def test_an_attestation_that_says_something_else_proves_nothing(
    world: World, device: SimulatedDevice, bundle: MadeBundle, changes: dict[str, Any]
) -> None:
    assigned(world, bundle)
    *said, _ = device.install(bundle)

    world.receive(*said, device.attestation(**changes))

    assert count(world, ATTESTATION) == 0


def test_an_attestation_by_another_key_proves_nothing(world: World, device: SimulatedDevice, bundle: MadeBundle, tmp_path: Path) -> None:
    assigned(world, bundle)
    *said, _ = device.install(bundle)
    device.key = SigningKey.load_or_create(tmp_path / "stolen.key")

    world.receive(*said, device.attestation())

    assert count(world, ATTESTATION) == 0
    assert count(world, DEAD_LETTER) == 1


def test_a_report_about_an_older_assignment_says_nothing_about_the_rollout(
    world: World, device: SimulatedDevice, bundle: MadeBundle
) -> None:
    late = device.reported("rolled-back", bundle.digest, "from another time")
    assigned(world, bundle)

    world.receive(late)
    Scheduler(world.services, None).decide_due()

    row = queries.rollouts(world.services.db, world.clock())[0]
    assert row.state == "running"
    assert row.wave_progress == [{"not-begun": 1}]


def test_explanations_are_shown_newest_first_and_bounded(world: World, device: SimulatedDevice, bundle: MadeBundle) -> None:
    for number in range(25):
        world.receive(device.explanation(bundle, label=f"class {number}"))

    views = queries.explanations(world.services.db, limit=100)

    assert len(views) == 20
    assert views[0].label == "class 24"
    assert views[0].names == ["f0", "f1", "f2"]
    assert views[0].base + sum(views[0].contributions) == pytest.approx(views[0].margin)


@pytest.mark.parametrize(("segments", "shown"), [([], 1), ([[0.5] * 3, [0.0] * 3], 1), ([[0.5] * 3, [0.0] * 2], 0), ([[0.1] * 3] * 9, 0)])
def test_time_segments_of_an_explanation_are_shown_or_the_record_is_set_aside(
    world: World, device: SimulatedDevice, bundle: MadeBundle, segments: list[list[float]], shown: int
) -> None:
    body = ExplanationBody(
        bundle_digest=bundle.digest,
        label="a",
        score=0.9,
        margin=1.7,
        base=0.2,
        contributions=[0.5] * 3,
        method="sampled",
        segments=segments,
    )

    world.receive(device.telemetry("explanation", encode(body)))

    assert [view.segments for view in queries.explanations(world.services.db)] == [segments] * shown


def test_latency_and_rejected_rows_are_those_of_the_windows(world: World, device: SimulatedDevice, bundle: MadeBundle) -> None:
    body = msgspec.structs.replace(window_body(bundle, 100), latency_us=[0] * 10 + [100], rejected={"range": 3})
    world.receive(device.telemetry("window", encode(body)))

    row = queries.devices(world.services.db, world.clock())[0]

    # All latencies lie in [1024, 2048) us, spread over eight buckets: the middle one of them, and the last.
    assert row.latency_p50_ms == pytest.approx(1.024 + 3.5 * 0.128)
    assert queries.overview(world.services.db, world.clock()).latency_p95_ms == pytest.approx(1.024 + 7.5 * 0.128)


def test_finer_latencies_are_used_where_a_device_sends_them(world: World, device: SimulatedDevice, bundle: MadeBundle) -> None:
    counts = latency.count_latencies([1_030_000] * 100)
    fine = {"latency_us": latency.power_of_two(counts), "latency_eighths": latency.to_wire(counts)}
    world.receive(device.telemetry("window", encode(msgspec.structs.replace(window_body(bundle, 100), **fine))))

    assert queries.devices(world.services.db, world.clock())[0].latency_p50_ms == pytest.approx(1.03, rel=latency.QUANTILE_ERROR_FRACTION)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"latency_eighths": [263, 1, 1]}, "are no latency histogram"),
        ({"latency_eighths": [8, -1]}, "a count is outside 0 to"),
        ({"attribution": AttributionSums(rows=1, total=[1.0], absolute=[1.0])}, "do not fit 3 inputs"),
        ({"attribution": AttributionSums(rows=1, total=[math.nan] * 3, absolute=[1.0] * 3)}, "not finite"),
        ({"attribution": AttributionSums(rows=-1)}, "outside 0 to"),
    ],
)
def test_a_window_with_impossible_extras_is_set_aside_and_is_no_gap(
    world: World, device: SimulatedDevice, bundle: MadeBundle, changes: dict[str, Any], said: str
) -> None:
    acked = world.receive(device.telemetry("window", encode(msgspec.structs.replace(window_body(bundle, 10), **changes))))

    assert (stored(acked, device), rows_total(world)) == (1, 0)
    with world.services.db.read() as connection:
        assert said in str(connection.scalar(sa.select(DEAD_LETTER.c.reason)))


def test_a_window_with_attribution_sums_counts_and_keeps_them(world: World, device: SimulatedDevice, bundle: MadeBundle) -> None:
    sums = AttributionSums(rows=2, total=[0.5, -1.0, 0.0], absolute=[0.5, 1.0, 0.25], skipped=3)
    world.receive(device.telemetry("window", encode(msgspec.structs.replace(window_body(bundle, 10), attribution=sums))))

    assert rows_total(world) == 10
    with world.services.db.read() as connection:
        assert decode(WindowBody, connection.scalar(sa.select(TELEMETRY.c.body)) or b"").attribution == sums


def test_acked_tells_the_servers_time(world: World, device: SimulatedDevice) -> None:
    assert world.receive(device.event())["d0"].at == to_micros(world.clock())


def test_a_sampled_row_is_kept_and_an_unknown_bundle_is_refused(world: World, device: SimulatedDevice, bundle: MadeBundle) -> None:
    good = PayloadBody(bundle_digest=bundle.digest, row={"f0": 1.0, "f2": None})
    world.receive(device.telemetry("payload", encode(good)))
    world.receive(device.telemetry("payload", encode(msgspec.structs.replace(good, bundle_digest="f" * 64))))

    assert count(world, DEAD_LETTER) == 1
    with world.services.db.read() as connection:
        kept = connection.scalars(sa.select(TELEMETRY.c.body).where(TELEMETRY.c.kind == "payload")).all()
    assert [decode(PayloadBody, body) for body in kept] == [good]


def test_a_telemetry_record_that_is_no_struct_of_ours_keeps_its_sender_waiting_only(world: World, device: SimulatedDevice) -> None:
    record = Telemetry(
        boot=1, seq=1, oldest_seq=1, kind="event", project="x" * 500, model_digest="", start_at=-5, end_at=1 << 63 - 1, body=b"\x00" * 1000
    )

    world.receive(device.message("t", encode(record)))

    assert count(world, TELEMETRY) == 1
    assert count(world, DEAD_LETTER) == 1


def test_statistics_with_values_that_are_not_finite_are_set_aside(world: World, device: SimulatedDevice, bundle: MadeBundle) -> None:
    body = window_body(bundle, 3)
    poisoned = msgspec.msgpack.decode(body.statistics)
    poisoned[6][0] = float("nan")

    world.receive(device.telemetry("window", encode(msgspec.structs.replace(body, statistics=msgspec.msgpack.encode(poisoned)))))

    assert count(world, STATISTICS) == 0
    assert np.isnan(poisoned[6][0])
