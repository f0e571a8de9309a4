"""What devices observed: windows added up by period, device and project; loads; and sums that no device can have counted."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import sqlalchemy as sa

from edgefleet import latency
from edgefleet.errors import InputError
from edgefleet.messages import AttributionSums, DeviceLoad, Heartbeat, encode
from edgefleet.shadow_counts import ShadowCounts
from fleet_server import queries
from fleet_server.ingest.inbox import Incoming
from fleet_server.queries import NotFoundError
from fleet_server.queries.adding_up import Added
from fleet_server.read_observed import LoadView, Observed
from fleet_server.store.tables import TELEMETRY
from tests.unit.fleet_server.server_world import MadeBundle, SimulatedDevice, World, make_bundle, window_body

DAY_S = 86_400


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    opened = World.open(tmp_path / "data")
    for name in ("d0", "d1"):
        opened.enroll(name, tmp_path, site="north")
    yield opened
    opened.close()


@pytest.fixture
def old(world: World, tmp_path: Path) -> MadeBundle:
    made = make_bundle(tmp_path / "old")
    world.push(made, "1")
    return made


@pytest.fixture
def new(world: World, tmp_path: Path) -> MadeBundle:
    made = make_bundle(tmp_path / "new", "two")
    world.push(made, "2")
    return made


def window(device: SimulatedDevice, bundle: MadeBundle, rows: int = 10, **changes: Any) -> Incoming:
    return device.telemetry("window", encode(msgspec.structs.replace(window_body(bundle, rows), **changes)))


def seen(world: World, device_id: str | None = None, **changes: Any) -> Observed:
    return queries.observed(world.services.db, world.clock(), project="digits", device_id=device_id, **changes)


def counts(running: MadeBundle, shadow: MadeBundle, differences: list[float], **changes: Any) -> ShadowCounts:
    """Counts of rows that were all compared; `differences` one per row."""
    values = ShadowCounts(
        running=running.digest,
        shadow=shadow.digest,
        offered=len(differences),
        compared=len(differences),
        agreed=sum(abs(d) < 0.1 for d in differences),
        differences=len(differences),
        difference_sum=sum(differences),
        difference_square_sum=sum(d * d for d in differences),
        confusion=[(0, 1, 1)],
    )
    return msgspec.structs.replace(values, **changes)


def test_comparisons_of_several_windows_and_devices_are_those_of_all_rows_together(world: World, old: MadeBundle, new: MadeBundle) -> None:
    first, second = [0.05, -0.2, 0.0], [0.3, 0.01]
    fast, slow = (latency.to_wire(latency.count_latencies([ns] * 20)) for ns in (8_500, 68_000))
    world.receive(window(world.devices["d0"], old, shadow=counts(old, new, first, latency_eighths=fast)))
    world.clock.move(60)
    more: dict[str, Any] = {"shed": 1, "shadow_failed": 2, "running_failed": 1, "latency_eighths": slow}
    world.receive(window(world.devices["d1"], old, shadow=counts(old, new, second, offered=6, **more)))

    (view,) = seen(world).shadow
    (own,) = seen(world, "d0").shadow

    assert (view.running_release, view.shadow_release, view.devices, view.heard_at) == ("1", "2", 2, world.clock())
    assert (view.offered, view.compared, view.agreed, view.shed, view.shadow_failed, view.running_failed) == (9, 5, 3, 1, 2, 1)
    assert view.agreement == pytest.approx(3 / 7)  # a row that only the running model answered is no agreement
    assert view.difference_mean == pytest.approx(np.mean([*first, *second]))
    assert view.difference_sd == pytest.approx(np.std([*first, *second]))
    assert (own.offered, own.devices) == (3, 1)
    assert view.latency_p95_ms == pytest.approx(0.068, rel=0.0625)
    assert own.latency_p95_ms == pytest.approx(0.0085, rel=0.0625)


def test_models_that_share_rows_are_counted_apart_with_the_newest_share(world: World, old: MadeBundle, new: MadeBundle) -> None:
    device = world.devices["d0"]
    fast, slow = latency.to_wire(latency.count_latencies([8_500] * 30)), latency.to_wire(latency.count_latencies([68_000] * 10))
    world.receive(
        window(device, old, 30, share_1024=922, score_sum=27.0, latency_eighths=fast, classes=[20, 10], rejected={"range": 2}),
        window(device, new, 10, share_1024=102, score_sum=8.0, latency_eighths=slow, classes=[4, 6]),
    )
    world.clock.move(60)
    world.receive(window(device, new, 10, share_1024=512, score_sum=9.0, latency_eighths=slow), window(device, old, 5))

    first, second = seen(world, "d0").shares

    assert (first.release, first.answered, first.rejected, first.score_mean, first.classes) == ("1", 30, 2, 0.9, [("a", 20), ("b", 10)])
    assert first.share_percent == pytest.approx(100 * 922 / 1024)
    assert (second.release, second.answered, second.score_mean, second.share_percent) == ("2", 20, 0.85, 50.0)
    assert first.latency_p50_ms == pytest.approx(0.0085, rel=0.0625)
    assert second.latency_p50_ms == pytest.approx(0.068, rel=0.0625)


def test_mean_contributions_are_those_of_all_explained_rows_and_shares_add_up_to_one(world: World, old: MadeBundle) -> None:
    world.receive(
        window(world.devices["d0"], old, attribution=AttributionSums(rows=4, total=[2.0, -1.0, 0.0], absolute=[2.0, 4.0, 0.0], skipped=1)),
        window(world.devices["d1"], old, attribution=AttributionSums(rows=6, total=[-1.0, 0.0, 1.0], absolute=[1.0, 2.0, 1.0])),
        window(world.devices["d1"], old, attribution=AttributionSums(skipped=5)),
    )

    (view,) = seen(world).attribution

    assert (view.release, view.rows, view.skipped, view.devices) == ("1", 10, 6, 2)
    assert [one.feature for one in view.inputs] == ["f1", "f0", "f2"]
    assert [one.mean_absolute for one in view.inputs] == pytest.approx([0.6, 0.3, 0.1])
    assert [one.mean for one in view.inputs] == pytest.approx([-0.1, 0.1, 0.1])
    assert [one.share for one in view.inputs] == pytest.approx([0.6, 0.3, 0.1])


def test_the_release_that_was_explained_last_comes_first(world: World, old: MadeBundle, new: MadeBundle) -> None:
    sums = AttributionSums(rows=1, total=[1.0, 0.0, 0.0], absolute=[1.0, 0.0, 0.0])
    world.receive(window(world.devices["d0"], old, attribution=sums))
    world.clock.move(1)
    world.receive(window(world.devices["d0"], new, attribution=sums))

    assert [view.release for view in seen(world).attribution] == ["2", "1"]


def test_what_arrived_before_the_period_does_not_count(world: World, old: MadeBundle, new: MadeBundle) -> None:
    world.receive(window(world.devices["d0"], old, shadow=counts(old, new, [0.0] * 3)))
    world.clock.move(DAY_S + 1)
    world.receive(window(world.devices["d0"], old, shadow=counts(old, new, [0.0] * 2)))

    assert (seen(world).windows, seen(world).shadow[0].offered) == (1, 2)
    assert (seen(world, hours=25).windows, seen(world, hours=25).shadow[0].offered) == (2, 5)


def test_other_projects_and_devices_are_left_out(world: World, old: MadeBundle) -> None:
    world.receive(window(world.devices["d0"], old))

    assert seen(world, "d1").windows == 0
    assert queries.observed(world.services.db, world.clock(), project="else").windows == 0
    for asked in ({"device_id": "none"}, {"device_id": "d0", "project": "else"}):
        with pytest.raises(NotFoundError, match="does not exist"):
            queries.observed(world.services.db, world.clock(), **asked)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="name a project or a device"):
        queries.observed(world.services.db, world.clock())


def test_a_period_with_too_many_windows_takes_the_newest_and_says_so(world: World, old: MadeBundle, new: MadeBundle) -> None:
    for rows in (1, 2, 3):
        world.receive(window(world.devices["d0"], old, shadow=counts(old, new, [0.0] * rows)))
        world.clock.move(1)

    view, whole = seen(world, "d0", most=2), seen(world, "d0", most=3)

    assert (view.windows, view.complete, view.shadow[0].offered) == (2, False, 5)
    assert (whole.windows, whole.complete, whole.shadow[0].offered) == (3, True, 6)


def test_a_candidate_that_was_never_pushed_here_is_named_by_its_digest(world: World, old: MadeBundle, new: MadeBundle) -> None:
    stranger = msgspec.structs.replace(counts(old, new, [0.0]), shadow="cd" * 32)
    world.receive(window(world.devices["d0"], old, shadow=stranger))

    (view,) = seen(world).shadow

    assert (view.shadow_release, view.shadow_digest) == ("", "cd" * 32)


def test_a_comparison_without_one_compared_row_claims_no_agreement(world: World, old: MadeBundle, new: MadeBundle) -> None:
    world.receive(window(world.devices["d0"], old, shadow=counts(old, new, [], offered=4, shed=4)))

    (view,) = seen(world).shadow

    assert (view.offered, view.agreement, view.difference_mean, view.difference_sd) == (4, None, None, None)


IMPOSSIBLE: dict[str, dict[str, Any]] = {
    "more agreed than compared": {"shadow": {"agreed": 9}},
    "rows that vanish": {"shadow": {"offered": 7}},
    "a count below zero": {"shadow": {"shed": -1, "offered": 2}},
    "differences of no number": {"shadow": {"difference_sum": math.nan}},
    "squares below zero": {"shadow": {"difference_square_sum": -1.0}},
    "no digest": {"shadow": {"shadow": "x"}},
    "latencies of no histogram": {"shadow": {"latency_eighths": [263, 1, 1]}},
    "a share beyond the whole": {"share_1024": 1025},
    "sizes below zero": {"attribution": AttributionSums(rows=1, total=[0.0] * 3, absolute=[1.0, -1.0, 0.0])},
    "another number of inputs": {"attribution": AttributionSums(rows=1, total=[0.0] * 2, absolute=[0.0] * 2)},
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_sums_that_no_device_can_have_counted_are_set_aside(world: World, old: MadeBundle, new: MadeBundle, name: str) -> None:
    changes = dict(IMPOSSIBLE[name])
    if "shadow" in changes:
        changes["shadow"] = msgspec.structs.replace(counts(old, new, [0.0, 0.0, 0.0]), **changes["shadow"])

    world.receive(window(world.devices["d0"], old, **changes))

    assert seen(world).windows == 0
    with world.services.db.read() as connection:
        assert connection.scalar(sa.select(TELEMETRY.c.kind)) == "set-aside"


def test_windows_add_up_to_the_same_in_any_order(old: MadeBundle, new: MadeBundle, world: World) -> None:
    bodies = [
        msgspec.structs.replace(
            window_body(old, 5),
            shadow=counts(old, new, [0.25] * n),
            share_1024=100 * n,
            attribution=AttributionSums(rows=n, total=[1.0] * 3, absolute=[1.0] * 3),
        )
        for n in (1, 2, 3)
    ]
    moments = [world.clock.now.replace(second=n) for n in (1, 2, 3)]
    sums = [Added(), Added()]
    for order, added in zip(([0, 1, 2], [2, 0, 1]), sums, strict=True):
        for i in order:
            added.add(f"d{i}", moments[i], bodies[i])

    assert sums[0].shadow({}) == sums[1].shadow({})
    assert sums[0].shares({}) == sums[1].shares({})
    assert sums[0].attribution({}) == sums[1].attribution({})
    assert sums[0].shares({})[0].share_percent == pytest.approx(100 * 300 / 1024)


def beat(device: SimulatedDevice, load: DeviceLoad | None) -> Incoming:
    return device.message("hb", encode(Heartbeat(boot=7, at=0, running={}, load=load)))


def test_the_newest_load_is_shown_with_the_time_it_was_told(world: World) -> None:
    device = world.devices["d0"]
    world.receive(beat(device, DeviceLoad(cpu_permille=900, rss_bytes=1)))
    world.clock.move(300)
    told = DeviceLoad(
        cpu_permille=35, rss_bytes=74_000_000, disk_free_bytes=5_000, temperature_c=51.5, clock_offset_ms=-1200, clock_jumps=2
    )
    world.receive(beat(device, told))
    told_at = world.clock()
    world.clock.move(60)
    world.receive(beat(device, None))  # an agent of before says nothing about it

    view = queries.device(world.services.db, "d0", world.clock())

    assert view.load == LoadView(3.5, 74_000_000, 5_000, 51.5, -1200, 2, told_at)
    assert view.device.last_seen_at == world.clock()
    assert queries.device(world.services.db, "d1", world.clock()).load is None


def test_an_absurd_load_is_bounded_and_hurts_nobody(world: World) -> None:
    absurd = DeviceLoad(
        cpu_permille=-5, rss_bytes=1 << 63, disk_free_bytes=(1 << 64) - 1, temperature_c=math.nan, clock_offset_ms=-(1 << 63)
    )
    world.receive(beat(world.devices["d0"], absurd), beat(world.devices["d1"], DeviceLoad(cpu_permille=10, rss_bytes=5)))

    view, other = (queries.device(world.services.db, name, world.clock()).load for name in ("d0", "d1"))

    most = (1 << 63) - 1
    assert view == LoadView(0.0, most, most, None, -most, 0, world.clock())
    assert other is not None
    assert replace(other, heard_at=world.clock()) == LoadView(1.0, 5, None, None, None, 0, world.clock())


def test_the_api_answers_for_a_device_and_for_a_project(world: World, old: MadeBundle, new: MadeBundle) -> None:
    world.receive(
        window(world.devices["d0"], old, shadow=counts(old, new, [0.5, 0.0])),
        beat(world.devices["d0"], DeviceLoad(cpu_permille=5, rss_bytes=9)),
    )
    client, headers = world.client(), {"Authorization": f"Bearer {world.admin_token()}"}

    device = client.get("/api/v1/devices/d0?hours=1", headers=headers).get_json()
    project = client.get("/api/v1/observed?project=digits&hours=48", headers=headers).get_json()
    drift = client.get("/api/v1/drift?project=digits", headers=headers).get_json()

    assert device["load"]["cpu_percent"] == 0.5
    assert device["observed"]["shadow"] == project["shadow"] == drift["observed"]["shadow"]
    assert (project["shadow"][0]["agreed"], project["device_id"], project["complete"]) == (1, None, True)
    assert client.get("/api/v1/observed?device=none", headers=headers).status_code == 404
    assert client.get("/api/v1/observed", headers=headers).status_code == 422
    assert client.get("/api/v1/observed?project=digits&hours=0", headers=headers).status_code == 422
