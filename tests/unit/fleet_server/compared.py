"""A fleet in the middle of a rollout by evidence, and what its devices tell of a model: windows, trials, memory."""

from dataclasses import replace
from typing import Any

import msgspec
import sqlalchemy as sa

from edgefleet.messages import DeviceLoad, Heartbeat, WindowBody, encode
from edgefleet.reference import BINS
from edgefleet.shadow_counts import ShadowCounts
from fleet_server.ingest.inbox import Incoming
from fleet_server.rollout import Rollout, RolloutState
from fleet_server.rollout.course import Course
from fleet_server.rollout.policy import Policy, parse_policy
from fleet_server.rollout.rules import Rule
from fleet_server.selection import EVERYBODY
from fleet_server.store import comparison_rows, members, rollouts
from fleet_server.store.moments import to_micros
from fleet_server.store.tables import ROLLOUT_MEMBER
from tests.unit.fleet_server.server_world import PROJECT, START, MadeBundle, SimulatedDevice, World, window_body

HOUR_S = 3600.0


def policy(**gates: Any) -> Policy:
    return parse_policy(
        {"name": "compared", "evidence": "auto", "soak_s": 60.0, "soak_rows": 0, "deadline_s": 7200.0, "hold_s": 86400.0, "gates": gates}
    )


def put_rollout(world: World, release_id: str, bundle: MadeBundle, waves: tuple[tuple[str, ...], ...], rules: Policy) -> Rollout:
    """A running rollout by evidence with wave 1 open and nobody assigned yet, as a row."""
    sizes = tuple(sum(len(w) for w in waves[: i + 1]) for i in range(len(waves)))
    course = Course(rule=Rule("posterior"), sizes=sizes, dwell_s=(86_400.0,) * len(waves)).opened(1, world.clock())
    rollout = Rollout(
        rollout_id=f"r-{release_id[-6:]}",
        project=PROJECT,
        release_id=release_id,
        bundle_digest=bundle.digest,
        release_counter=2,
        state=RolloutState.RUNNING,
        waves=waves,
        wave=1,
        opened_at=(world.clock(),),
        promoted_at=(),
        policy=rules,
        salt="salt",
        created_at=START,
        created_by="olga",
        course=course,
    )
    with world.services.db.write() as connection:
        rollouts.insert(connection, rollout, EVERYBODY, to_micros(world.clock()))
    return rollout


def give(world: World, rollout: Rollout, device: SimulatedDevice, previous_release: str | None) -> None:
    """The device is given the release, tries it and runs it."""
    at = to_micros(world.clock())
    with world.services.db.write() as connection:
        members.note_assigned(connection, rollout.rollout_id, device.device_id, previous_release, device.counter, at)
        comparison_rows.enlist(connection, rollout.rollout_id, device.device_id)


def told(bundle: MadeBundle, rows: int, *, share_b: float = 0.5, latency_octave: int = 10, **changes: Any) -> WindowBody:
    """A window of so many rows: a share of class b, scores in two bins by it, all latencies in one octave of microseconds."""
    of_b = round(share_b * rows)
    body = window_body(bundle, rows)
    scores = [rows - of_b] + [0] * (BINS - 2) + [of_b]
    latencies = [0] * latency_octave + [rows]
    return msgspec.structs.replace(body, classes=[rows - of_b, of_b], scores=scores, latency_us=latencies, **changes)


def window(device: SimulatedDevice, bundle: MadeBundle, rows: int = 300, **how: Any) -> Incoming:
    return device.telemetry("window", encode(told(bundle, rows, **how)))


def beat(device: SimulatedDevice, rss_bytes: int) -> Incoming:
    load = DeviceLoad(cpu_permille=100, rss_bytes=rss_bytes)
    return device.message("hb", encode(Heartbeat(boot=device.boot, at=0, running={PROJECT: device.running}, load=load)))


def trial(old: MadeBundle, new: MadeBundle, rows: int, agreed: int) -> ShadowCounts:
    return ShadowCounts(running=old.digest, shadow=new.digest, offered=rows, compared=rows, agreed=agreed)


def committed(world: World, device: SimulatedDevice, bundle: MadeBundle) -> None:
    """It says that it began, and that it runs the release."""
    began = device.reported("downloading", bundle.digest)
    device.running, device.model = bundle.digest, bundle.manifest.variants[0].model_digest
    world.receive(began, device.reported("committed", bundle.digest))


def member_value(world: World, rollout: Rollout, device_id: str, column: str) -> Any:
    where = (ROLLOUT_MEMBER.c.rollout_id == rollout.rollout_id, ROLLOUT_MEMBER.c.device_id == device_id)
    with world.services.db.read() as connection:
        return connection.scalar(sa.select(ROLLOUT_MEMBER.c[column]).where(*where))


def with_state(rollout: Rollout, state: RolloutState) -> Rollout:
    return replace(rollout, state=state)
