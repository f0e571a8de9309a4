"""Our rule keeps its limits over many simulated rollouts, and other systems' rules harm what they were stored to harm."""

import json

import pytest

from benchmarks.rollout import REFERENCE_RUNS, RUNS, SEED, STORED, references, words
from benchmarks.rollout_cells import MAIN, SCENES, SITES, SMALL, Asked, figures_of, own_dwell_h
from fleet_server.rollout.plans import default_policy
from fleet_server.simulate.study import behaviour_named, scene_named, study

pytestmark = pytest.mark.rollouts


@pytest.mark.parametrize("asked", [*MAIN, *SCENES, *SMALL, *SITES], ids=lambda asked: asked.name)
def test_the_default_policy_keeps_its_limits(asked: Asked) -> None:
    ours, behaviour = {"edgefleet": default_policy()}, behaviour_named(asked.release)
    (found,) = study(ours, [behaviour], scene_named(asked.scene), devices=asked.devices, runs=RUNS[False], seed=SEED)

    assert [figure for figure in figures_of(asked, found, own_dwell_h(asked)) if not figure.ok] == []


def test_other_rules_harm_what_was_stored() -> None:
    stored = json.loads(STORED.read_text(encoding="utf-8"))

    found = list(references(REFERENCE_RUNS))

    assert {(one.policy, one.release): words(one) for one in found} == {
        (policy, release): text for policy, releases in stored.items() for release, text in releases.items()
    }
