"""What the invariants are worth: each fault that is put in is noticed, and without it the same story passes."""

import logging
from collections.abc import Iterator

import pytest

from fleet_server.rollout import eprocess
from tests.properties.rollout_fleet.evidence_rule import e_value
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
