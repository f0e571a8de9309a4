"""The 28 invariants of a rollout over the real store, scheduler, relay and ingest: 2,000 steps here, 20,000 in the second stage.

Any number: `python -m tests.properties.rollout_fleet 200000 [SEED]`.
"""

import importlib
from pathlib import Path

import pytest

from tests.properties.rollout_fleet.kept import COUNT, INVARIANTS
from tests.properties.rollout_fleet.run import run_steps
from tests.properties.rollout_fleet.table import render_markdown

PAGE = Path(__file__).parents[2] / "docs" / "rollout-invariants.md"


@pytest.mark.timeout(900)
def test_two_thousand_steps_of_any_fleet_keep_the_28_invariants(capsys: pytest.CaptureFixture[str]) -> None:
    ran = run_steps(2_000, seed=0)

    with capsys.disabled():
        print(f" [{ran['steps']} steps in {ran['runs']} runs]", end="")  # noqa: T201 how many ran is part of what is claimed
    assert ran["steps"] >= 2_000
    assert ran["promotions"] > 0
    assert ran["failures"] > 0
    assert ran["deaths"] > 0
    assert ran["published"] > 0


@pytest.mark.conversions
@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_twenty_thousand_steps_of_any_fleet_keep_the_28_invariants() -> None:
    ran = run_steps(20_000, seed=1)

    assert ran["steps"] >= 20_000
    assert {"ended completed", "ended aborted", "ended paused", "ended rolled-back", "ended superseded"} <= set(ran)


def test_each_invariant_is_judged_and_the_page_says_where() -> None:
    assert sorted(INVARIANTS) == list(range(1, COUNT + 1))
    assert PAGE.read_text() == render_markdown(), (
        "write render_markdown() of tests.properties.rollout_fleet.table to docs/rollout-invariants.md"
    )


def test_the_page_names_only_code_that_exists() -> None:
    for one in INVARIANTS.values():
        for name in one.kept_by:
            module, _, path = name.partition(":")
            found = importlib.import_module(module)
            for part in path.split("."):
                found = getattr(found, part)
