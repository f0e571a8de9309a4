"""The planner against exact recursion, worked values and the device-level simulation of the research."""

import doctest

import numpy as np
import pytest

from edgefleet.errors import ConfigError
from fleet_server.rollout import planner, rules
from fleet_server.rollout.planner import Foretold, first_wave_exactly, foretell
from fleet_server.rollout.posterior import History
from fleet_server.rollout.rules import Counts, Rule, counts_at

STRICT = Rule("bound", confidence=0.9)
REACHED = int(0.95 * 0.97 * 10_000)  # without the hold-back and the devices that are never online
WAVES = (92, 460, 2_303, REACHED)
# devices: (least failures that stop, most that promote)
LIMITS = {45: (6, 0), 77: (8, 1), 154: (12, 3), 308: (19, 10), 616: (32, 23)}


def foretold(failing: float, *, late: float = 0.0, seed: int = 1, rule: Rule = STRICT) -> Foretold:
    return foretell(WAVES, rule, failing, np.random.default_rng(seed), late=late)


def test_the_examples_in_the_docstrings_are_true() -> None:
    for module in (planner, rules):
        result = doctest.testmod(module)
        assert result.attempted > 0
        assert result.failed == 0


@pytest.mark.parametrize("devices", LIMITS)
def test_a_wave_of_so_many_devices_has_its_worked_limits(devices: int) -> None:
    found = counts_at(STRICT, devices)

    assert (found.stop, found.promote) == LIMITS[devices]


@pytest.mark.parametrize("rule", [STRICT, Rule("posterior", extends=2)], ids=lambda rule: rule.kind)
def test_bisected_limits_are_those_of_asking_for_every_count(rule: Rule) -> None:
    for n in (1, 2, 7, 23, 60):
        every = range(n + 1)
        stops = [k for k in every if rule.stops(k, n)]
        promoting, growing = [k for k in every if rule.promotes(k, n)], [k for k in every if rule.extend(k, n)]
        expected = Counts(min(stops, default=n + 1), max(promoting, default=-1), max(growing, default=-1))

        assert counts_at(rule, n) == expected


def test_no_devices_promote_nothing() -> None:
    assert counts_at(STRICT, 0).promote == counts_at(Rule("posterior"), 0).promote == -1


@pytest.mark.parametrize(
    ("failing", "exact"),
    [(0.01, (0.0011, 0.18, 0.7692)), (0.05, (0.0889, 0.9027, 3.6626)), (0.1, (0.5862, 0.9971, 5.6729)), (0.5, (1.0, 1.0, 3.2041))],
)
def test_the_first_wave_is_foretold_exactly(failing: float, exact: tuple[float, float, float]) -> None:
    assert first_wave_exactly(77, STRICT, failing) == pytest.approx(exact, abs=5e-5)


def test_drawn_runs_agree_with_the_exact_recursion() -> None:
    alone = Rule("bound", confidence=0.9, extends=0)
    _, not_promoted, _ = first_wave_exactly(77, alone, 0.05)

    drawn = foretell((77, 5_000), alone, 0.05, np.random.default_rng(3))

    # Four standard errors of 10,000 runs.
    assert drawn.stopped_in_first == pytest.approx(not_promoted, abs=4 * (not_promoted * (1 - not_promoted) / 10_000) ** 0.5)


@pytest.mark.parametrize(("failing", "harmed", "p95"), [(0.1, 8, 18), (0.2, 4, 11), (0.5, 3, 5)])
def test_bad_releases_harm_as_few_devices_as_measured(failing: float, harmed: int, p95: int) -> None:
    found = foretold(failing)

    assert found.harmed_median == pytest.approx(harmed, abs=1)
    assert found.harmed_p95 == pytest.approx(p95, abs=1)
    assert found.stopped == 1.0


def test_a_good_release_is_hardly_ever_stopped_and_one_at_the_limit_always() -> None:
    assert foretold(0.01).stopped < 0.005
    assert foretold(0.05).stopped > 0.99


def test_late_failures_cost_more_devices_but_are_stopped_too() -> None:
    prompt, late = foretold(0.5), foretold(0.5, late=1.0)

    assert late.stopped == 1.0
    assert prompt.harmed_median < 10 < late.harmed_median < WAVES[0]


def test_the_same_plan_foretells_the_same_numbers() -> None:
    assert foretold(0.1, seed=7) == foretold(0.1, seed=7) != foretold(0.1, seed=8)


def test_small_fleets_are_planned_by_the_posterior() -> None:
    waves, rule = (10, 20, 40, 80, 160, 300), Rule("posterior", extends=2)
    good, bad = (foretell(waves, rule, failing, np.random.default_rng(1)) for failing in (0.01, 0.1))

    assert good.stopped < 0.02
    assert bad.stopped > 0.98
    assert bad.harmed_median <= 4


def test_history_makes_the_small_fleets_rule_patient() -> None:
    waves, known = (10, 20, 40, 80, 160, 300), History(releases=9, failures=30, exposed=1_000)
    alone = foretell(waves, Rule("posterior", extends=2), 0.03, np.random.default_rng(1))

    with_history = foretell(waves, Rule("posterior", extends=2, history=known), 0.03, np.random.default_rng(1))

    assert with_history.stopped < alone.stopped


@pytest.mark.parametrize("waves", [(), (0, 5), (5, 5), (9, 3)])
def test_waves_that_do_not_rise_are_refused(waves: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="rise"):
        foretell(waves, STRICT, 0.1, np.random.default_rng(1))


@pytest.mark.parametrize(
    "made",
    [
        lambda: Rule("bound", limit=0.0),
        lambda: Rule("bound", confidence=1.0),
        lambda: Rule("bound", warn_limit=0.06),
        lambda: Rule("bound", abort_at=1.0),
        lambda: Rule("bound", extends=11),
        lambda: Rule("beta"),  # type: ignore[arg-type]
        lambda: foretell((5, 9), STRICT, 1.5, np.random.default_rng(1)),
        lambda: foretell((5, 9), STRICT, float("nan"), np.random.default_rng(1)),
    ],
)
def test_limits_that_cannot_be_are_refused(made: object) -> None:
    with pytest.raises(ConfigError):
        made()  # type: ignore[operator]
