import math
from typing import Any

import msgspec
import pytest

from edgefleet.errors import ConfigError
from fleet_server.rollout import Policy, parse_policy, policy_digest
from fleet_server.rollout.membership import Candidate, members_by_wave, plan_membership
from fleet_server.rollout.plans import course_of, default_policy, fitted, kind_of, per_stratum
from fleet_server.rollout.posterior import History
from tests.unit.fleet_server.rollout_world import policy

DOCUMENT: dict[str, Any] = {"name": "evidence", "evidence": "auto", "soak_s": 3600, "soak_rows": 0, "deadline_s": 7200, "hold_s": 86400}
HOUR = 3600.0


def evidence(**changes: Any) -> Policy:
    return parse_policy(DOCUMENT | changes)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"rule": {"limt": 0.1}}, "policy.rule: unknown key 'limt' (did you mean 'limit'?)"),
        ({"rule": {"limit": 0}}, "rule.limit = 0 is no share above 0 and below 1"),
        ({"rule": {"limit": math.nan}}, "rule.limit = nan"),
        ({"rule": {"limit": 0.02}}, "rule.warn_limit = 0.03 with rule.limit = 0.02: choose it"),
        ({"rule": {"abort_at": 1}}, "rule.abort_at = 1 must be above 1"),
        ({"rule": {"abort_at": math.nan}}, "rule.abort_at = nan must be above 1"),
        ({"rule": {"warn_at": math.inf}}, "rule.warn_at = inf"),
        ({"rule": {"confidence": 1}}, "rule.confidence = 1 is no share"),
        ({"rule": {"promote_below": 0.6}}, "rule.promote_below = 0.6 is above rule.extend_below = 0.5"),
        ({"rule": {"lean": 0.5}}, "rule.lean = 0.5 is outside 1 to 10"),
        ({"rule": {"extends": 11}}, "rule.extends = 11 is outside 0 to 10"),
        ({"strata": ["a", "a"]}, "at most 4 different label keys"),
        ({"strata": ["a b"]}, "strata: label"),
        ({"per_stratum": -1}, "per_stratum = -1 is outside 0"),
        ({"least_first_wave": 0}, "least_first_wave = 0 is outside 1"),
        ({"site_budget": 0}, "site_budget = 0 is outside 1"),
        ({"hold_back": {"fraction": 0.6}}, "hold_back.fraction = 0.6 is outside 0 to 0.5"),
        ({"hold_back": {"share": 0.1}}, "policy.hold_back: unknown key 'share'"),
        ({"rate": {"per_hour": 0}}, "rate.per_hour = 0"),
        ({"rate": {"kind": "cubic", "per_hour": 5}}, "Invalid enum value 'cubic'"),
        ({"rate": {"kind": "linear", "per_hour": 5}}, "rate.kind = 'linear' needs step_per_hour above 0"),
        ({"rate": {"per_hour": 5, "step_per_hour": 2}}, "rate.step_per_hour = 2 has no effect with kind = 'constant'; it is for 'linear'"),
        ({"rate": {"kind": "linear", "per_hour": 5, "step_per_hour": 2, "factor": 3}}, "rate.factor = 3 has no effect"),
        ({"rate": {"kind": "exponential", "per_hour": 5, "step_per_hour": 2}}, "rate.step_per_hour = 2 has no effect"),
        ({"pace": {"first": 0}}, "pace.first = 0"),
        ({"pace": {"evry_s": 60}}, "did you mean 'every_s'"),
        ({"windows": [{"days": ["monday"]}]}, "window.days ['monday']"),
        ({"windows": [{"from": "08:00"}]}, "policy.windows: unknown key 'from'"),
        ({"windows": [{"start": "25:00"}]}, "window.start = '25:00'"),
        ({"windows": [{}] * 22}, "windows has 22 entries, the limit is 21"),
        ({"patience_s": math.inf}, "patience_s = inf"),
        ({"stall_s": 0}, "stall_s = 0 is outside 1"),
        ({"late_joiners": "wait"}, "Invalid enum value 'wait'"),
        ({"emergency": 1}, "Expected `bool`"),
        ({"deadline_s": 3600}, "deadline_s = 3600 must be more than soak_s = 3600"),
        ({"waves": [5, "100%"]}, "need dwell_s"),
        ({"waves": [5, "100%"], "dwell_s": [1.0]}, "1 numbers for 2 waves"),
        ({"dwell_s": [1.0, 2.0]}, "2 numbers for 0 waves"),
    ],
)
def test_a_wrong_limit_of_evidence_is_refused_with_its_value(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        evidence(**change)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("devices", "sizes", "dwell_h"),
    [
        (8, (1, 2, 4, 8), (24, 12, 12, 0)),
        (20, (2, 5, 10, 20), (24, 12, 12, 0)),
        (45, (3, 6, 12, 24, 45), (24, 12, 12, 12, 0)),
        (100, (5, 10, 20, 40, 95), (24, 12, 12, 12, 0)),
        (300, (10, 20, 40, 80, 160, 285), (24, 14, 14, 14, 14, 0)),
        (1_500, (10, 20, 40, 80, 200, 1_425), (24, 14, 14, 14, 14, 0)),
        (10_000, (95, 475, 2_375, 9_500), (24, 12, 2, 0)),
    ],
)
def test_waves_and_dwells_follow_the_size_of_the_fleet(devices: int, sizes: tuple[int, ...], dwell_h: tuple[int, ...]) -> None:
    course = course_of(evidence(), devices)

    assert course.sizes == sizes
    assert course.dwell_s == tuple(HOUR * hours for hours in dwell_h)


@pytest.mark.parametrize(
    ("asked", "devices", "kind"),
    [("auto", 1_999, "posterior"), ("auto", 2_000, "bound"), ("bound", 50, "bound"), ("posterior", 5_000, "posterior")],
)
def test_auto_changes_the_rule_at_two_thousand_devices(asked: str, devices: int, kind: str) -> None:
    assert kind_of(evidence(evidence=asked), devices) == course_of(evidence(evidence=asked), devices).rule.kind == kind


def test_a_policy_with_unanimous_evidence_has_no_course() -> None:
    with pytest.raises(ConfigError, match="names every device"):
        course_of(policy(), 8)


def test_the_first_wave_of_a_bound_reaches_77_devices_unless_the_policy_says_otherwise() -> None:
    waves: dict[str, Any] = {"waves": ["1%", "10%", "100%"], "dwell_s": 60.0, "evidence": "bound"}

    assert course_of(evidence(**waves), 500).sizes == (77, 475)
    assert course_of(evidence(**waves, least_first_wave=5), 500).sizes == (5, 48, 475)


def test_limits_of_the_policy_reach_the_rule() -> None:
    history = History(6, 3, 500)
    course = course_of(evidence(rule={"limit": 0.1, "extends": 1}, patience_s=60, stall_s=120), 300, history)

    assert (course.rule.limit, course.rule.extends, course.rule.history) == (0.1, 1, history)
    assert (course.patience_s, course.stall_s, course.hold_s) == (60, 120, 86_400)


def test_one_dwell_for_all_waves_leaves_the_last_one_open_ended() -> None:
    assert course_of(evidence(dwell_s=60.0), 20).dwell_s == (60.0, 60.0, 60.0, 0.0)


@pytest.mark.parametrize(("devices", "least"), [(1_999, 2), (2_000, 10)])
def test_a_small_fleet_spares_two_devices_for_each_stratum(devices: int, least: int) -> None:
    assert per_stratum(evidence(), devices) == least
    assert per_stratum(evidence(per_stratum=1), devices) == 1


def test_a_wave_that_would_add_nobody_is_merged_and_the_longer_dwell_stays() -> None:
    # Four strata of two devices each are in wave 1 whole: the second wave has nobody left.
    candidates = [Candidate(f"d{i}", str(i % 4)) for i in range(8)]
    course = course_of(evidence(waves=[1, 2, "100%"], dwell_s=[10.0, 30.0, 20.0]), 8)
    membership = plan_membership("salt", candidates, course.sizes, per_stratum=2)
    added = [len(devices) for number, devices in sorted(members_by_wave(membership, candidates).items()) if number]

    real, thresholds = fitted(course, membership, added)

    assert added == [8, 0, 0]
    assert (real.sizes, real.dwell_s) == ((8,), (30.0,))
    assert [len(found) for found in members_by_wave(thresholds, candidates).values()] == [0, 8]


def test_a_late_device_of_another_stratum_finds_a_wave_after_the_merge() -> None:
    candidates = [Candidate(f"d{i}", str(i % 4)) for i in range(8)]
    course = course_of(evidence(waves=[1, 2, "100%"], dwell_s=10.0), 8)
    membership = plan_membership("salt", candidates, course.sizes, per_stratum=2)

    _, thresholds = fitted(course, membership, [8, 0, 0])

    assert {thresholds.wave_of(f"late{i}", "other", "") for i in range(20)} == {1}


def test_policies_without_evidence_keep_the_digest_they_had() -> None:
    # Made before there were rules of evidence; rollouts and approvals name it.
    assert policy_digest(policy()) == "26bd16cbb6ad2339dc0d3941b856888c49b5e6dc78cb5b14c0ada0faf2aacafe"
    assert policy_digest(evidence(rule={"limit": 0.04})) != policy_digest(evidence())


def test_a_policy_stored_before_there_was_evidence_can_be_read() -> None:
    stored = msgspec.to_builtins(policy())
    old = {key: value for key, value in stored.items() if key in {"name", "waves", "soak_s", "soak_rows", "deadline_s", "hold_s", "trial"}}

    assert msgspec.json.decode(msgspec.json.encode(old), type=Policy) == policy()


def test_the_default_policy_decides_by_the_size_of_the_fleet() -> None:
    assert default_policy().evidence == "auto"
    assert parse_policy(msgspec.to_builtins(default_policy())) == default_policy()
