"""The comparisons of a virtual rollout: by the policy's gates, against concurrent controls, so that drift of everybody pauses nothing."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from fleet_server.rollout.comparisons import COMPARISONS, PAUSE_AT, Wealth
from fleet_server.rollout.gate_rules import GateRules
from fleet_server.rollout.plans import default_policy
from fleet_server.simulate.availability import Availability
from fleet_server.simulate.blocks import block_size
from fleet_server.simulate.drawn import Order
from fleet_server.simulate.ledger import Ledger
from fleet_server.simulate.models import CHANGES, LABELS, ROWS, controls_part, own_part
from fleet_server.simulate.run import simulate
from fleet_server.simulate.scene import BEHAVIOURS, SCENES
from fleet_server.simulate.watching import Drift, ModelWatch, ticks_needed
from fleet_server.simulate.wire import Word

DEVICES, BEGUN = 400, 40
NOTHING = CHANGES["nothing changed"]


def watched(rules: GateRules, ticks: int, drift: Drift | None = None, failed: int = 0, size: int = 1) -> ModelWatch:
    """A watch over devices 0 to 39, which begin at once and are always heard; the others are controls."""
    availability = Availability(np.random.default_rng(1), DEVICES, SCENES["churn"], 100)
    order = Order(np.arange(DEVICES - 20), np.arange(DEVICES - 20, DEVICES), (BEGUN, DEVICES - 20), np.repeat([1, 2], [BEGUN, 340]))
    ledger = Ledger(np.zeros(DEVICES, np.int64), availability, order, 200, 4, 8)
    nobody = Drift(np.zeros(DEVICES, bool), 0)
    watch = ModelWatch(np.random.default_rng(2), NOTHING, rules, order, nobody if drift is None else drift)
    for number in range(ticks):
        ledger.alive(number, np.ones(DEVICES, bool))
        if number == 0:
            ledger.told(0, Word.BEGAN, np.arange(BEGUN))
            ledger.told(0, Word.FAILED, np.arange(failed))
        ledger.close(number)
        watch.tick(number, ledger, np.arange(BEGUN), size)
    return watch


def test_only_the_gates_of_the_policy_are_compared_and_after_the_rows_that_it_asks_for() -> None:
    rules = GateRules(compare=("class rate", "label metric"), rows=500, labelled_rows=100)
    needed = {name: ticks_needed(name, rules) for name in rules.compare}

    assert needed == {"class rate": 16, "label metric": 32}
    before, after, both = (watched(rules, ticks).wealth for ticks in (16, 17, 33))
    assert set(before) == {"class rate", "label metric"}
    assert [one["class rate"].devices for one in (before, after)] == [0, BEGUN]
    assert [one["label metric"].devices for one in (after, both)] == [0, BEGUN]


def test_devices_without_labels_and_those_that_failed_are_left_out_and_never_counted_twice() -> None:
    wealth = watched(GateRules(), 12, failed=3).wealth

    assert (wealth["label metric"].devices, wealth["label metric"].left_out) == (0, BEGUN)
    assert (wealth["class rate"].devices, wealth["class rate"].left_out) == (BEGUN - 3, 3)


def test_who_does_not_answer_enough_in_time_is_left_out() -> None:
    rules = GateRules(compare=("class rate",), rows=10_000, wait_s=3_600.0)

    assert [watched(rules, ticks).wealth["class rate"].left_out for ticks in (4, 5)] == [0, BEGUN]


def test_each_control_stands_in_one_pair_and_none_was_given_the_release() -> None:
    used = watched(GateRules(), 12).blocks.pairs.ravel().tolist()

    assert len(used) == len(set(used)) == 2 * BEGUN
    assert min(used) >= BEGUN


def test_devices_that_share_controls_count_when_their_block_is_full_or_nobody_else_is_on_the_way() -> None:
    shared = watched(GateRules(compare=("class rate",)), 12, size=16)
    early = watched(GateRules(compare=("class rate", "memory")), 6, size=16)

    assert (len(shared.blocks.pairs), shared.wealth["class rate"].devices) == (3, BEGUN)
    assert [early.wealth[name].devices for name in ("class rate", "memory")] == [0, BEGUN]
    assert shared.blocks.sizes.tolist() == [16, 16, 16]


@pytest.mark.parametrize(("exposed", "controls"), [(95, 9_905), (1_900, 100), (7, 1), (0, 50), (30, 60), (31, 60)])
def test_a_block_is_as_large_as_the_controls_that_the_waves_leave_ask_for(exposed: int, controls: int) -> None:
    size = block_size(exposed, controls)

    assert size == {(95, 9_905): 1, (1_900, 100): 38, (7, 1): 1, (0, 50): 1, (30, 60): 1, (31, 60): 2}[exposed, controls]


@pytest.mark.parametrize("gate", ["class rate", "score bins"])
def test_a_drift_of_everybody_is_no_difference_and_one_of_the_devices_alone_pauses(gate: str) -> None:
    n, one = 300, COMPARISONS[gate]
    evidence = []
    for others in (1.0, 0.0):
        rng = np.random.default_rng(3)
        own = own_part(rng, gate, NOTHING, np.zeros(n), np.ones(n), ROWS, LABELS)
        rows = own - controls_part(rng, gate, NOTHING, np.zeros((n, 2)), np.full((n, 2), others), ROWS)
        evidence.append(Wealth.start(one).after(one, rows.tolist()).evidence)

    assert evidence[0] < 2
    assert evidence[1] > PAUSE_AT * len(COMPARISONS)


def test_inputs_of_half_the_devices_that_shift_between_before_and_now_give_no_evidence() -> None:
    drifting = np.random.default_rng(4).random(DEVICES) < 0.5

    wealth = watched(GateRules(), 12, Drift(drifting, 0)).wealth

    assert max(one.evidence for one in wealth.values()) < PAUSE_AT
    assert wealth["class rate"].devices == BEGUN


def test_a_fleet_whose_inputs_drift_completes_a_good_release_and_pauses_for_a_model_that_changes_alone() -> None:
    good = [simulate(300, SCENES["drift"], BEHAVIOURS["0.5 %"], seed) for seed in (1, 2)]
    changed = simulate(300, SCENES["drift"], BEHAVIOURS["0.5 %"], 1, change=CHANGES["class rate + 3 points"])

    assert [one.stopped for one in good] == ["", ""]
    assert changed.stopped == "paused"
    assert "class rate" in changed.reason


def test_a_policy_that_says_how_to_compare_is_compared_and_waits_for_the_rows() -> None:
    scene, release = SCENES["churn"], BEHAVIOURS["0.5 %"]
    slow = msgspec.structs.replace(default_policy(), gates=GateRules(rows=2_000))

    plain, patient = (simulate(300, scene, release, 1, policy=one) for one in (default_policy(), slow))

    assert (plain.stopped, patient.stopped) == ("", "")
    assert patient.hours > plain.hours


def test_disagreement_has_no_controls_so_a_drift_that_makes_models_disagree_more_than_is_tolerated_pauses() -> None:
    outcome = simulate(2_000, SCENES["drift"], BEHAVIOURS["0.5 %"], 1, change=replace(NOTHING, disagree=0.09))

    assert outcome.stopped == "paused"
    assert "shadow agreement" in outcome.reason
