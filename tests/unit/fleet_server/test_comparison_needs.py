"""How many devices comparisons need, against virtual devices that are looked at one by one."""

import doctest
import math

import numpy as np
import pytest

from fleet_server.rollout import comparison_needs, planner_silence
from fleet_server.rollout.comparison_needs import needs
from fleet_server.rollout.comparisons import COMPARISONS
from fleet_server.rollout.gate_rules import GateRules
from fleet_server.rollout.planner_silence import silent_counts_at
from fleet_server.rollout.rules import Rule, counts_at
from fleet_server.simulate.models import CHANGES, differences, paused_after

SIZES = (95, 475, 2_375, 9_500)
# Change of a virtual model -> the comparison that is to see it.
SEEN_BY = {
    "8 % disagree": "shadow agreement",
    "2 points less accurate": "label metric",
    "20 % slower": "p95 latency",
    "memory + 15 %": "memory",
    "class rate + 3 points": "class rate",
    "scores shifted 0.2 sd": "score bins",
}


def test_the_examples_in_the_docstrings_are_true() -> None:
    for module in (comparison_needs, planner_silence):
        result = doctest.testmod(module)
        assert result.attempted > 0
        assert result.failed == 0


@pytest.mark.parametrize("change", SEEN_BY)
def test_four_of_five_virtual_rollouts_pause_after_so_many_devices(change: str) -> None:
    # Virtual devices answer 500 rows a window, and 50 of them have labels.
    found = {one.gate: one for one in needs(GateRules(rows=500, labelled_rows=50), SIZES, 10_000)}
    rng = np.random.default_rng(5)

    paused = [paused_after(rng, CHANGES[change], 300) or 300 for _ in range(40)]

    # The formula takes noise as normal and one gambler of one column for all: a fifth is what that and 40 runs may differ.
    assert found[SEEN_BY[change]].devices == pytest.approx(np.quantile(paused, 0.8), rel=0.2)


def test_what_is_assumed_of_devices_is_what_virtual_ones_do() -> None:
    drawn = differences(np.random.default_rng(1), CHANGES["nothing changed"], 5_000)
    rules = GateRules(rows=500, labelled_rows=50)

    for name in ("label metric", "p95 latency", "memory", "class rate", "score bins"):
        assumed = comparison_needs._USUAL[name].deviation(COMPARISONS[name], rules)
        assert assumed == pytest.approx(float(drawn[name].std(0).max()), rel=0.1), name


def test_fewer_rows_and_labels_need_more_devices() -> None:
    many = needs(GateRules(rows=5_000, labelled_rows=500), SIZES, 10_000)
    few = needs(GateRules(rows=100, labelled_rows=20), SIZES, 10_000)

    for name in ("shadow agreement", "label metric", "score bins"):
        less, more = (next(one.devices for one in found if one.gate == name) for found in (many, few))
        assert less is not None
        assert more is not None
        assert less < more


def test_the_wave_is_the_first_in_which_so_many_devices_have_two_controls_each() -> None:
    memory = GateRules(compare=("memory",))

    assert [one.wave for one in needs(memory, (20, 40, 80), 200)] == [2]
    # 30 of 100 begun leave 70: 35 pairs are too few for 36; nor are there more later.
    assert [one.wave for one in needs(memory, (30, 60, 95), 100)] == [None]
    assert [one.wave for one in needs(GateRules(compare=("shadow agreement",)), (30, 60, 200), 200)] == [3]


def test_gates_that_are_not_in_force_need_nothing() -> None:
    assert needs(GateRules(compare=()), SIZES, 10_000) == ()


@pytest.mark.parametrize(("devices", "grown"), [(10, 0), (92, 0), (184, 1), (475, 0)])
def test_dark_devices_promote_like_failures_and_lean_no_further_than_the_limit(devices: int, grown: int) -> None:
    rule = Rule("bound")
    dark, failed = silent_counts_at(rule, devices, grown), counts_at(rule, devices, grown)

    assert dark.promote == failed.promote
    assert dark.extend == max(math.floor(rule.limit * devices), dark.promote)
    assert dark.stop > failed.stop
