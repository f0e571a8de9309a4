"""The virtual server's counts beside those of the real ingest and database, message by message."""

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from fleet_server.ingest.inbox import Incoming
from fleet_server.simulate.availability import Availability
from fleet_server.simulate.drawn import Order
from fleet_server.simulate.ledger import Ledger
from fleet_server.simulate.scene import SCENES
from fleet_server.simulate.wire import Word
from fleet_server.store import evidence_tally
from fleet_server.store.tables import DESIRED
from tests.unit.fleet_server.evidence_world import Fleet, open_fleet, start, value
from tests.unit.fleet_server.server_world import MadeBundle, SimulatedDevice, World, make_bundle

DEVICES, ROUNDS = 24, 8


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    opened = World.open(tmp_path / "data")
    yield opened
    opened.close()


def virtual() -> Ledger:
    everybody = np.arange(DEVICES)
    availability = Availability(np.random.default_rng(1), DEVICES, SCENES["churn"], ROUNDS)
    order = Order(everybody, everybody[:0], (DEVICES,), np.ones(DEVICES, np.int64))
    return Ledger(everybody % 2, availability, order, ROUNDS + 8, 4, 8)


def said(device: SimulatedDevice, bundle: MadeBundle, word: Word) -> Incoming:
    return device.reported("rolled-back" if word is Word.FAILED else "downloading", bundle.digest, "it does not start")


@pytest.mark.parametrize("seed", [1, 2])
def test_messages_twice_and_in_any_order_are_counted_as_the_real_ingest_counts_them(world: World, tmp_path: Path, seed: int) -> None:
    bundle, rng, ledger = make_bundle(tmp_path / "bundle"), random.Random(seed), virtual()  # noqa: S311  # a test's draw
    release_id = world.push(bundle)
    open_fleet(world, DEVICES)
    Fleet(world, bundle).tick()
    pace = {"first": DEVICES, "every_s": 60.0, "growth": 2.0}
    rollout_id = start(world, release_id, waves=["100%"], hold_back={"fraction": 0.0}, pace=pace, rule={"warn_at": 1e9, "abort_at": 1e9})
    with world.services.db.read() as connection:
        for row in connection.execute(sa.select(DESIRED)):
            world.devices[row.device_id].obey(row.message)
    ids = sorted(world.devices)
    so_far: list[tuple[int, Word]] = []

    for number in range(ROUNDS):
        fresh = [(rng.randrange(DEVICES), rng.choice([Word.BEGAN, Word.BEGAN, Word.FAILED])) for _ in range(4)]
        so_far += fresh
        messages = fresh + rng.choices(so_far, k=4)
        rng.shuffle(messages)
        world.clock.move(10.0)
        world.receive(*(said(world.devices[ids[device]], bundle, word) for device, word in messages))
        ledger.alive(number, np.isin(np.arange(DEVICES), [device for device, _ in messages]))
        for device, word in messages:
            ledger.told(number, word, np.array([device]))
        ledger.close(number)

        with world.services.db.read() as connection:
            real = evidence_tally.read(connection, value(world, rollout_id), world.clock())
        mine = ledger.tally(number, DEVICES, 0, DEVICES)
        # Hardware of the real devices goes with the parity of their number, as the models of the virtual ones.
        assert [(one.exposed, one.failed) for _, one in sorted(real.strata.items())] == [
            (one.exposed, one.failed) for _, one in sorted(mine.strata.items())
        ]
        assert (real.quiet.exposed, real.asked) == (mine.quiet.exposed, mine.asked)

    assert 0 < real.failed < real.exposed <= len(set(so_far))
