"""Orders about rows: checked, signed, logged, ended; only one of two keys, and the device's desired model never changes by them."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from edgefleet.desired import DesiredPayload, PayloadOrder, open_desired
from edgefleet.errors import InputError
from edgefleet.messages import Desired, PayloadBody, decode, encode
from fleet_server import audit, auth, queries
from fleet_server.queries import NotFoundError
from fleet_server.sampling import MAX_DEVICES, Whom, end_orders, order_sampling, stop_sampling
from fleet_server.store.moments import to_micros
from fleet_server.store.tables import DESIRED, OUTBOX
from tests.unit.fleet_server.server_world import OPERATOR, POLICY, MadeBundle, World, make_bundle

HOUR = timedelta(hours=1)
D0 = Whom(["d0"])


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    opened = World.open(tmp_path / "data")
    for name, site in (("d0", "north"), ("d1", "north"), ("d2", "south")):
        opened.enroll(name, tmp_path, site=site)
    yield opened
    opened.close()


@pytest.fixture
def bundle(world: World, tmp_path: Path) -> MadeBundle:
    made = make_bundle(tmp_path / "bundle")
    world.push(made)
    return made


def order(world: World, whom: Whom = D0, **changes: Any) -> list[str]:
    values: dict[str, Any] = {"rows_per_hour": 60.0, "redact": [], "bytes_per_day": 1000, "until": world.clock() + HOUR} | changes
    return [view.device_id for view in order_sampling(world.services, whom, actor=OPERATOR, **values)]


def document(world: World, device_id: str = "d0") -> DesiredPayload | None:
    """What the device was sent last, verified with the contract's code."""
    with world.services.db.read() as connection:
        content = connection.scalar(sa.select(DESIRED.c.message).where(DESIRED.c.device_id == device_id))
    device = world.devices[device_id]
    return None if content is None else open_desired(decode(Desired, content), device.director, device.fleet, device_id)


def sampling_of(world: World, device_id: str = "d0") -> PayloadOrder | None:
    payload = document(world, device_id)
    return None if payload is None else payload.sampling


def test_an_order_reaches_the_device_in_its_signed_desired_state_and_goes_out(world: World, bundle: MadeBundle) -> None:
    order(world, redact=["f2", "f0", "f2"])

    until = to_micros(world.clock() + HOUR)
    assert sampling_of(world) == PayloadOrder(rows_per_hour=60.0, redact=["f0", "f2"], bytes_per_day=1000, until=until)
    with world.services.db.read() as connection:
        assert list(connection.scalars(sa.select(OUTBOX.c.topic))) == ["ef/v1/d/d0/desired"]
    assert document(world, "d1") is None


def test_a_selection_orders_each_of_its_devices_and_no_other(world: World, bundle: MadeBundle) -> None:
    assert order(world, Whom(project="digits", selection={"site": "north"})) == ["d0", "d1"]

    assert [view.device_id for view in queries.sampling(world.services.db, world.clock())] == ["d0", "d1"]
    assert sampling_of(world, "d2") is None


def test_the_desired_model_stays_under_an_order_and_the_order_stays_under_a_new_model(world: World, tmp_path: Path) -> None:
    from fleet_server import usecases
    from fleet_server.scheduler.loop import Scheduler

    release_id = world.push(make_bundle(tmp_path / "b"))
    order(world)
    view = usecases.create_rollout(
        world.services, release_id=release_id, policy=POLICY | {"waves": ["100%"]}, selection={"site": "north"}, actor=OPERATOR
    )
    usecases.rollout_action(world.services, view.rollout_id, "start", version=view.version, reason="", actor=OPERATOR)
    Scheduler(world.services, None).decide_due()
    assigned = document(world)
    order(world, rows_per_hour=5.0)
    ordered = document(world)

    assert assigned is not None
    assert ordered is not None
    assert assigned.sampling is not None
    assert assigned.models.keys() == {"digits"}
    assert ordered.models == assigned.models
    assert ordered.counter == assigned.counter + 1
    assert ordered.sampling is not None
    assert ordered.sampling.rows_per_hour == 5.0


def test_off_takes_the_order_back_once(world: World, bundle: MadeBundle) -> None:
    order(world)

    assert stop_sampling(world.services, Whom(["d0", "d1"]), actor=OPERATOR) == ["d0"]

    assert sampling_of(world) is None
    assert queries.sampling(world.services.db, world.clock()) == []
    assert stop_sampling(world.services, D0, actor=OPERATOR) == []


def test_an_order_ends_by_itself_at_the_server(world: World, bundle: MadeBundle) -> None:
    order(world)
    assert end_orders(world.services) == []

    world.clock.move(3600)

    assert queries.sampling(world.services.db, world.clock()) == []
    assert end_orders(world.services) == ["d0"]
    assert sampling_of(world) is None
    assert end_orders(world.services) == []


def test_an_order_ends_at_the_device_by_its_own_clock(world: World, bundle: MadeBundle) -> None:
    order(world)
    payload, until = document(world), to_micros(world.clock() + HOUR)

    assert payload is not None
    assert payload.sampling_at(until - 1) == payload.sampling
    assert payload.sampling_at(until) is None


def test_orders_and_their_ends_stand_in_the_log(world: World, bundle: MadeBundle) -> None:
    order(world, redact=["f1"])
    stop_sampling(world.services, D0, actor=OPERATOR)
    order(world)
    world.clock.move(3600)
    end_orders(world.services)

    lines = [line for _, line in queries.events(world.services.db, limit=500) if line.action in ("sample-rows", "stop-rows")]

    assert [(line.actor, line.action) for line in lines] == [
        ("olga", "sample-rows"), ("olga", "stop-rows"), ("olga", "sample-rows"), ("scheduler", "stop-rows"),
    ]  # fmt: skip
    assert "d0: at most 60 rows an hour until 2026-03-01 13:00 UTC, without f1" in lines[0].detail
    with world.services.db.read() as connection:
        assert audit.verify(connection) > 0


@pytest.mark.parametrize("rate", [0.0, -1.0, 3601.0, float("nan"), float("inf")])
def test_a_rate_out_of_range_is_refused_with_its_limit(world: World, rate: float) -> None:
    with pytest.raises(InputError, match="rows an hour are out of range, expected above 0 and at most 3600"):
        order(world, rows_per_hour=rate)


@pytest.mark.parametrize("ahead", [timedelta(0), timedelta(seconds=-1), timedelta(days=32)])
def test_an_end_in_the_past_or_beyond_a_month_is_refused(world: World, ahead: timedelta) -> None:
    with pytest.raises(InputError, match="at most 31 days"):
        order(world, until=world.clock() + ahead)


def test_an_end_without_a_time_zone_is_refused(world: World) -> None:
    with pytest.raises(InputError, match="no time zone"):
        order(world, until=datetime(2026, 3, 1, 13, 0))  # noqa: DTZ001  # that is the point


@pytest.mark.parametrize("size", [0, -5, (1 << 30) + 1])
def test_bytes_out_of_range_are_refused(world: World, size: int) -> None:
    with pytest.raises(InputError, match="bytes a day are out of range"):
        order(world, bytes_per_day=size)


def test_a_misspelt_input_is_refused_because_the_right_one_would_leave(world: World, bundle: MadeBundle) -> None:
    with pytest.raises(InputError, match="'F1' is in none of the 1 releases of project 'digits': did you mean 'f1'"):
        order(world, redact=["f0", "F1"])

    assert sampling_of(world) is None


@pytest.mark.parametrize(
    "whom",
    [Whom(), Whom(project="digits"), Whom(["d0"], "digits", {"site": "north"}), Whom(project="digits", selection={"site": "west"})],
)
def test_nobody_is_ordered_in_passing(world: World, whom: Whom) -> None:
    with pytest.raises(InputError, match=r"name devices, or a project and a selection|no device of project 'digits'"):
        order(world, whom)


def test_an_unknown_device_leaves_the_known_ones_alone(world: World, bundle: MadeBundle) -> None:
    with pytest.raises(NotFoundError, match="'none'"):
        order(world, Whom(["d0", "none"]))

    assert sampling_of(world) is None


def test_too_many_devices_are_refused_with_the_limit(world: World) -> None:
    with pytest.raises(InputError, match=f"exceed the limit of {MAX_DEVICES}"):
        order(world, Whom([f"x{i}" for i in range(MAX_DEVICES + 1)]))


def test_the_api_orders_lists_and_stops(world: World, bundle: MadeBundle) -> None:
    client, headers = world.client(), {"Authorization": f"Bearer {world.admin_token()}"}
    body = {"device_ids": ["d1"], "rows_per_hour": 12, "until_at": "2026-03-01T14:00:00+01:00", "redact": ["f0"]}

    bad = client.post("/api/v1/sampling", json=body | {"rows_per_hour": 0}, headers=headers)
    vague = client.post("/api/v1/sampling", json=body | {"until_at": "soon"}, headers=headers)
    answer = client.post("/api/v1/sampling", json=body, headers=headers).get_json()
    shown = client.get("/api/v1/devices/d1", headers=headers).get_json()["sampling"]
    stopped = client.post("/api/v1/sampling/stop", json={"project": "digits", "selection": {"site": "north"}}, headers=headers).get_json()

    assert (bad.status_code, vague.status_code) == (422, 422)
    assert answer == [shown]
    assert (shown["rows_per_hour"], shown["redact"], shown["until_at"], shown["ordered_by"]) == (
        12,
        ["f0"],
        "2026-03-01T13:00:00Z",
        "admin",
    )
    assert stopped == {"stopped": ["d1"]}
    assert client.get("/api/v1/sampling", headers=headers).get_json() == []


def test_rows_that_came_are_shown_to_operators_only(world: World, bundle: MadeBundle) -> None:
    row = PayloadBody(bundle_digest=bundle.digest, row={"f0": 1.5, "f1": None}, label="a", score=0.75)
    world.receive(world.devices["d0"].telemetry("payload", encode(row)))
    with world.services.db.write() as connection:
        roles: tuple[auth.Role, ...] = ("viewer", "operator")
        tokens = {role: auth.issue_token(connection, world.services.now_us(), role, role) for role in roles}

    answers = {
        role: world.client().get("/api/v1/devices/d0/samples", headers={"Authorization": f"Bearer {token}"})
        for role, token in tokens.items()
    }

    assert answers["viewer"].status_code == 403
    (found,) = answers["operator"].get_json()
    assert (found["row"], found["label"], found["score"], found["release"]) == ({"f0": 1.5, "f1": None}, "a", 0.75, "1")
    assert queries.observed(world.services.db, world.clock(), device_id="d0").sampled_rows == 1
    with pytest.raises(NotFoundError):
        queries.sampled_rows(world.services.db, "none")
