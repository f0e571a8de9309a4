import math
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgefleet.errors import ConfigError
from fleet_server.rollout import Policy, parse_policy, policy_digest, trial_for
from fleet_server.rollout.policy import plan_waves
from tests.unit.fleet_server.rollout_world import DOCUMENT, policy

DEMO = Path(__file__).parents[3] / "examples" / "digits" / "policy.toml"


def test_the_demo_policy_is_valid_and_says_that_it_proves_nothing() -> None:
    demo = parse_policy(tomllib.loads(DEMO.read_text()))
    assert (demo.name, demo.waves, demo.evidence, demo.trial.min_agreement) == ("demo", (1, 3, "100%"), "posterior", 0.8)
    assert any("proves nothing about rates" in note for note in demo.notes)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"soak_second": 3}, "did you mean 'soak_s'"),
        ({"trial": {"min_agrement": 0.9}}, "did you mean 'min_agreement'"),
        ({"evidence": "bond"}, "did you mean 'bound'"),
        ({"evidence": "auto"}, "need dwell_s"),
        ({"site_budget": 3}, "site_budget has no effect with evidence = 'unanimous'"),
        ({"rule": {"limit": 0.1}}, "rule has no effect with evidence = 'unanimous'"),
        ({"evidence": "unanimus"}, "did you mean 'unanimous'"),
        ({"waves": []}, "0 entries"),
        ({"waves": [3, 1, "100%"]}, "do not increase"),
        ({"waves": [1, 1, "100%"]}, "do not increase"),
        ({"waves": ["10%", "5%", "100%"]}, "do not increase"),
        ({"waves": ["10%", 5, "100%"]}, "device counts come first"),
        ({"waves": [0, "100%"]}, "is empty"),
        ({"waves": [1, 3]}, "must be '100%'"),
        ({"waves": [1, "50%"]}, "must be '100%'"),
        ({"waves": ["12.5%", "100%"]}, "neither a device count nor a whole percentage"),
        ({"waves": ["101%"]}, "neither a device count nor a whole percentage"),
        ({"waves": [True, "100%"]}, "Expected `int | str`"),
        ({"soak_s": math.nan}, "soak_s = nan"),
        ({"soak_s": -1}, "soak_s = -1"),
        ({"soak_s": "3"}, "Expected `float`"),
        ({"hold_s": math.inf}, "hold_s = inf"),
        ({"deadline_s": 0}, "deadline_s = 0"),
        ({"soak_rows": -1}, "soak_rows = -1"),
        ({"dwell_s": [1.0, 2.0]}, "2 numbers for 3 waves"),
        ({"dwell_s": -5.0}, "dwell_s = -5"),
        ({"approvals": 6}, "approvals = 6 is outside 0 to 5"),
        ({"on_abort": "rollback"}, "Invalid enum value"),
        ({"max_explicit_failures_before_abort": -1}, "max_explicit_failures_before_abort = -1"),
        ({"trial": {"soak_s": 10, "timeout_s": 10}}, "must be more than trial.soak_s"),
        ({"trial": {"min_agreement": 1.5}}, "min_agreement = 1.5"),
        ({"trial": {"min_agreement": None}}, "say why"),
        ({"trial": {"attempts": 0}}, "trial.attempts = 0"),
        ({"trial": {"drifted_devices": "ignore"}}, "Invalid enum value"),
        ({"name": ""}, "name has 0 characters"),
        ({"notes": ["x" * 501]}, "notes"),
    ],
)
def test_a_wrong_value_is_refused_when_the_policy_is_created(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_policy(DOCUMENT | change)
    assert says in str(refused.value)


def test_a_stored_policy_is_checked_again_when_it_is_read() -> None:
    tampered = msgspec.json.encode(policy()).replace(b'"approvals":0', b'"approvals":-1')
    with pytest.raises(ConfigError):
        msgspec.json.decode(tampered, type=Policy)


@pytest.mark.parametrize("key", ["name", "waves", "soak_s", "soak_rows", "deadline_s", "hold_s"])
def test_no_threshold_has_a_silent_default(key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        parse_policy({name: value for name, value in DOCUMENT.items() if name != key})


def test_the_digest_follows_the_rules_and_not_the_order_of_the_keys() -> None:
    assert policy_digest(parse_policy(dict(reversed(DOCUMENT.items())))) == policy_digest(policy())
    assert policy_digest(policy(soak_rows=21)) != policy_digest(policy())


@pytest.mark.parametrize(
    ("waves", "devices", "counts"),
    [
        ([1, 3, "100%"], 8, [1, 3, 8]),
        ([1, 3, "100%"], 3, [1, 3]),
        ([1, 3, "100%"], 1, [1]),
        (["5%", "25%", "100%"], 8, [1, 2, 8]),
        (["5%", "10%", "100%"], 8, [1, 8]),
        ([5, "10%", "100%"], 20, [5, 20]),
        (["29%", "100%"], 100, [29, 100]),  # 0.29 * 100 is 28.999999999999996 as a float
    ],
)
def test_waves_are_clipped_to_the_selection_and_empty_ones_are_left_out(waves: list[Any], devices: int, counts: list[int]) -> None:
    assert [wave.devices for wave in plan_waves(policy(waves=waves), devices)] == counts


def test_a_merged_wave_keeps_the_longest_dwell() -> None:
    merged = plan_waves(policy(waves=["5%", "10%", "100%"], dwell_s=[10.0, 30.0, 20.0]), 8)
    assert [(wave.devices, wave.dwell_s) for wave in merged] == [(1, 30.0), (8, 20.0)]


def test_only_a_drifting_device_is_tried_without_the_comparison_and_is_told_why() -> None:
    rules = policy(trial={"drifted_devices": "skip", "soak_s": 3, "timeout_s": 60})
    assert trial_for(rules, drifting=False).min_agreement == 0.9
    skipped = trial_for(rules, drifting=True)
    assert skipped.min_agreement is None
    assert "drift alarm" in skipped.agreement_reason


def test_compare_means_that_drifting_devices_are_compared_too() -> None:
    assert trial_for(policy(), drifting=True) == trial_for(policy(), drifting=False)
