"""What the invariants are worth: each fault that is put in is noticed, and without it the same story passes."""

import logging
import math
from collections.abc import Callable, Iterator

import pytest

from fleet_server.rollout import eprocess
from fleet_server.rollout.rules import Rule
from tests.properties.rollout_fleet.evidence_rule import e_value, promotes
from tests.properties.rollout_fleet.kept import Broken
from tests.properties.rollout_fleet.machine import FleetMachine
from tests.properties.rollout_fleet.mutants import MUTANTS, Mutant


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def played(mutant: Mutant, *, faulty: bool) -> int | None:
    """Number of the invariant that broke, None when none did."""
    machine = FleetMachine()
    policy, devices, hours = mutant.start
    try:
        machine.begin(devices, policy, hours)
        if not faulty:
            mutant.story(machine)
            return None
        with mutant.fault(machine):
            mutant.story(machine)
    except Broken as broken:
        return broken.number
    finally:
        machine.teardown()
    return None


@pytest.mark.parametrize("name", MUTANTS)
def test_the_fault_is_noticed(name: str) -> None:
    mutant = MUTANTS[name]
    assert played(mutant, faulty=False) is None
    assert played(mutant, faulty=True) in mutant.caught_by


def _untruncated(failures: float, n: float, limit: float) -> float:
    """The trap: a prior that also believes in rates below the limit is evidence against every flawless release in the end."""
    a, b = 1.0, 1 / (2 * limit) - 1
    shape = math.lgamma(a + failures) + math.lgamma(b + n - failures) - math.lgamma(a + b + n)
    shape -= math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
    return math.exp(shape - failures * math.log(limit) - (n - failures) * math.log(1 - limit))


def _differing(product: Callable[[int, int, float], float]) -> list[tuple[int, int, float]]:
    """Counts for which the product's evidence is not that of the formula, to nine digits."""
    grid = [(k, n, limit) for n in (1, 5, 20, 77, 200) for k in (0, 1, 2, 5, 10, 20) if k <= n for limit in (0.01, 0.05, 0.2)]
    return [one for one in grid if not math.isclose(product(*one), e_value(*one), rel_tol=1e-9)]


def test_the_evidence_is_that_of_the_formula_and_an_untruncated_prior_is_noticed() -> None:
    assert _differing(eprocess.e_value) == []
    assert _untruncated(0, 500, 0.05) > 20 > 1 > e_value(0, 500, 0.05)
    assert _differing(_untruncated) != []


def test_the_rules_promote_what_the_formulas_promote_and_one_failure_more_is_noticed() -> None:
    for rule in (Rule("bound"), Rule("bound", limit=0.3, confidence=0.6), Rule("posterior")):
        for n in (1, 5, 11, 45, 77, 200):
            right = [promotes(k, n, rule) for k in range(n + 1)]
            assert [rule.promotes(k, n) for k in range(n + 1)] == right, (rule, n)
            if right[0]:
                assert [rule.promotes(max(k - 1, 0), n) for k in range(n + 1)] != right
