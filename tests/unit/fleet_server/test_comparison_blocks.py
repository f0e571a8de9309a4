"""More devices than pairs of controls: devices share controls, and the mean of a block is one difference."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from fleet_server.rollout.comparisons import COMPARISONS, Wealth
from fleet_server.store import comparison_blocks
from fleet_server.store.tables import COMPARISON_CONTROL, ROLLOUT_SUM
from tests.unit.fleet_server.compared import HOUR_S, policy, put_rollout
from tests.unit.fleet_server.test_ingest_comparing import Scene

GATE = COMPARISONS["class rate"]
FOUR, TWO = ("d0", "d1", "d2", "d3"), ("d4", "d5")


class Crowded(Scene):
    """Four devices of a wave, and two devices that can be their controls."""

    def __init__(self, tmp_path: Path) -> None:
        super().__init__(tmp_path, rows=200)
        with self.world.services.db.write() as connection:
            connection.execute(sa.text("DELETE FROM rollout_member"))
            connection.execute(sa.text("DELETE FROM rollout"))
        self.rollout = put_rollout(self.world, self.second, self.new, (FOUR, TWO), policy(rows=200, compare=[GATE.name]))
        sums = [{"rollout_id": self.rollout.rollout_id, "wave": wave, "stratum": "", "members": n} for wave, n in ((1, 4), (2, 2))]
        with self.world.services.db.write() as connection:
            connection.execute(sa.insert(ROLLOUT_SUM), sums)
        self.before()

    def show(self, shares: dict[str, float]) -> None:
        """The devices run the release, and so much of what they say is of class b; for the controls it stays a half."""
        for device_id, share in shares.items():
            self.tell(self.new, device_id, share_b=share)
        self.tell(self.old, *TWO)
        self.world.clock.move(HOUR_S)
        self.look()


@pytest.fixture
def crowded(tmp_path: Path) -> Iterator[Crowded]:
    made = Crowded(tmp_path)
    yield made
    made.world.close()


def test_four_devices_with_one_pair_of_controls_are_one_step_of_the_evidence(crowded: Crowded) -> None:
    crowded.give(*FOUR)
    shares = dict(zip(FOUR, (0.6, 0.5, 0.62, 0.54), strict=True))
    crowded.show(dict(list(shares.items())[:3]))
    assert {state for state, _, _ in crowded.stored(GATE.name).values()} == {"in-block"}
    assert (crowded.wealth()[GATE.name].devices, crowded.wealth()[GATE.name].evidence) == (0, 1.0)

    crowded.show({FOUR[3]: shares[FOUR[3]]})

    found = crowded.wealth()[GATE.name]
    expected = Wealth.start(GATE).after(GATE, [[float(np.mean(list(shares.values()))) - 0.5]])
    assert found.devices == 4
    assert found.logs == pytest.approx(expected.logs)
    assert {state for state, _, _ in crowded.stored(GATE.name).values()} == {"given"}
    assert crowded.count(COMPARISON_CONTROL) == 2  # each control once


def test_a_block_that_nobody_can_fill_any_more_counts_with_what_it_has(crowded: Crowded) -> None:
    crowded.give(*FOUR[:3])
    crowded.show(dict.fromkeys(FOUR[:2], 0.6))
    assert crowded.wealth()[GATE.name].devices == 0  # the third one began, and may tell yet

    crowded.world.clock.move(25 * HOUR_S)
    crowded.look()

    assert crowded.stored(GATE.name)[FOUR[2]][0] == "left-out"
    assert crowded.wealth()[GATE.name].devices == 2


@pytest.mark.parametrize(
    ("waves", "size"), [({0: 5, 1: 5, 2: 90}, 1), ({1: 40, 2: 60}, 2), ({0: 5, 1: 95}, 48), ({1: 9}, 1), ({1: 9, 2: 1}, 1)]
)
def test_a_block_is_as_large_as_the_waves_make_it(crowded: Crowded, waves: dict[int, int], size: int) -> None:
    with crowded.world.services.db.write() as connection:
        connection.execute(sa.delete(ROLLOUT_SUM))
        rows = [{"rollout_id": crowded.rollout.rollout_id, "wave": wave, "stratum": "", "members": n} for wave, n in waves.items()]
        connection.execute(sa.insert(ROLLOUT_SUM), rows)
        assert comparison_blocks.size_for(connection, crowded.rollout) == size
