"""Other systems' policies: read as those systems write them, refused where they are wrong, and doing what their sources say."""

from typing import Any

import numpy as np
import pytest

from edgefleet.errors import ConfigError
from fleet_server.simulate.availability import Availability
from fleet_server.simulate.reference import AwsJob, HawkbitRollout, MenderDeployment, read_reference, simulate_reference
from fleet_server.simulate.reference.history import History
from fleet_server.simulate.reference.known import DOCUMENTS, known
from fleet_server.simulate.run import Outcome
from fleet_server.simulate.scene import BEHAVIOURS, PER_HOUR, SCENES, Behaviour

CHURN = SCENES["churn"]
THRESHOLD = {"condition": "THRESHOLD", "expression": "50"}
ABORT = {"action": "CANCEL", "failureType": "ALL", "minNumberOfExecutedThings": 100, "thresholdPercentage": 5}


def outcome(name: str, release: str, seed: int = 1, devices: int = 10_000) -> Outcome:
    return simulate_reference(devices, CHURN, BEHAVIOURS[release], seed, known(name))


def test_hawkbits_percentages_are_of_the_targets_that_remain() -> None:
    rollout = known("hawkbit-50")
    assert isinstance(rollout, HawkbitRollout)

    assert [group.cumulative for group in rollout.groups] == pytest.approx([0.01, 0.05, 0.25, 1.0])
    assert {(group.success, group.error) for group in rollout.groups} == {(50, 50)}


def test_hawkbits_amount_of_groups_makes_equal_ones_with_the_rollouts_conditions() -> None:
    found = read_reference("hawkbit", {"name": "r", "amountGroups": 4, "successCondition": THRESHOLD})
    assert isinstance(found, HawkbitRollout)

    assert [group.cumulative for group in found.groups] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert found.groups[0].error is None


def test_a_groups_own_condition_beats_the_rollouts() -> None:
    strict = {"targetPercentage": 10, "errorCondition": {"condition": "THRESHOLD", "expression": "1"}}
    found = read_reference("hawkbit", {"groups": [strict, {}], "successCondition": THRESHOLD, "errorCondition": THRESHOLD})
    assert isinstance(found, HawkbitRollout)

    assert [group.error for group in found.groups] == [1, 50]


def test_a_job_has_its_rates_criteria_and_timeout() -> None:
    job = known("aws-10")
    assert isinstance(job, AwsJob)

    assert (job.base_per_minute, job.factor, job.rise_after, job.most_per_minute, job.timeout_h) == (10, 2, 1000, 1000, 2.0)
    assert job.aborts[0].failures == {"FAILED", "REJECTED", "TIMED_OUT"}


def test_a_deployments_phases_are_hours_after_its_first() -> None:
    deployment = known("time-phased")
    assert isinstance(deployment, MenderDeployment)

    assert [phase.cumulative for phase in deployment.phases] == pytest.approx([0.01, 0.05, 0.25, 1.0])
    assert [phase.start_h for phase in deployment.phases] == [0, 24, 48, 72]


@pytest.mark.parametrize(
    ("language", "document", "says"),
    [
        ("jenkins", {}, "'jenkins' is unknown; known: hawkbit, aws, mender"),
        ("hawkbit", [], "expected a JSON object, found list"),
        ("hawkbit", {"groups": [{"targetPercentage": 10}], "successCondition": THRESHOLD}, "take 10 % of the targets"),
        ("hawkbit", {"groups": [{}]}, "successCondition is missing"),
        (
            "hawkbit",
            {"groups": [{}], "successCondition": {"condition": "THRESHOLD", "expression": "half"}},
            "'half' is no whole percentage",
        ),
        ("hawkbit", {"groups": [{}], "successCondition": {"condition": "THRESHOLD", "expression": "101"}}, "'101' is no whole percentage"),
        ("hawkbit", {"groups": [{"targetPercentage": float("nan")}], "successCondition": THRESHOLD}, "no number from 0 to 100"),
        ("hawkbit", {"amountGroups": 0, "successCondition": THRESHOLD}, "amountGroups = 0 is no whole number from 1"),
        ("hawkbit", {"groups": [{}] * 501, "successCondition": THRESHOLD}, "a list of 1 to 500"),
        ("aws", {"jobExecutionsRolloutConfig": {"maximumPerMinute": 1001}}, "1001 is no number from 1 to 1000"),
        (
            "aws",
            {"jobExecutionsRolloutConfig": {"exponentialRate": {"baseRatePerMinute": 5, "incrementFactor": 9}}},
            "9 is no number from 1.1 to 5",
        ),
        (
            "aws",
            {
                "jobExecutionsRolloutConfig": {
                    "exponentialRate": {
                        "baseRatePerMinute": 5,
                        "incrementFactor": 2,
                        "rateIncreaseCriteria": {"numberOfSucceededThings": 9},
                    }
                }
            },
            "rateIncreaseCriteria.numberOfSucceededThings is not simulated",
        ),
        ("aws", {"abortConfig": {"criteriaList": [ABORT | {"failureType": "SLOW"}]}}, "failureType = 'SLOW'"),
        ("aws", {"abortConfig": {"criteriaList": [ABORT | {"action": "PAUSE"}]}}, "action = 'PAUSE'"),
        ("aws", {"abortConfig": {"criteriaList": [ABORT | {"minNumberOfExecutedThings": 0}]}}, "no whole number from 1"),
        ("aws", {"timeoutConfig": {"inProgressTimeoutInMinutes": True}}, "no whole number from 1 to 10080"),
        (
            "mender",
            {"phases": [{"batch_size": 10}, {"batch_size": 20, "start_ts": "2026-01-05T00:00:00Z"}]},
            "phases[0].start_ts is missing",
        ),
        ("mender", {"phases": [{}, {}]}, "batch_size is missing"),
        (
            "mender",
            {"phases": [{"batch_size": 50, "start_ts": "2026-01-05T00:00:00Z"}, {"start_ts": "2026-01-05T00:00:00Z"}]},
            "come after",
        ),
        ("mender", {"phases": [{"batch_size": 50, "start_ts": "tomorrow"}, {}]}, "'tomorrow' is no time"),
        ("mender", {"phases": [{"batch_size": 50, "start_ts": "2026-01-05"}, {}]}, "has no time zone"),
        ("mender", {"phases": [{"batch_size": 50}]}, "take 50 % of the devices"),
        ("mender", {"name": ""}, "a name of 1 to 120"),
        ("mender", {"phase": []}, "mender: unknown key 'phase' (did you mean 'phases'?)"),
        ("mender", {"phases": [{"batchsize": 10}, {}]}, "mender.phases[0]: unknown key 'batchsize' (did you mean 'batch_size'?)"),
        ("mender", {"max_devices": 5}, "mender.max_devices is not simulated"),
        ("hawkbit", {"amountGroup": 4}, "hawkbit: unknown key 'amountGroup' (did you mean 'amountGroups'?)"),
        ("hawkbit", {"groups": [{"errorConditon": {}}], "successCondition": THRESHOLD}, "did you mean 'errorCondition'"),
        ("hawkbit", {"groups": [{"targetFilterQuery": "id==a"}], "successCondition": THRESHOLD}, "targetFilterQuery is not simulated"),
        ("hawkbit", {"groups": [{}], "successCondition": THRESHOLD | {"expresion": "5"}}, "did you mean 'expression'"),
        (
            "hawkbit",
            {"groups": [{}], "successCondition": THRESHOLD, "successAction": {"action": "PAUSE"}},
            "successAction.action = 'PAUSE' is not simulated; expected NEXTGROUP",
        ),
        ("aws", {"jobExecutionsRolloutConfig": {"maximumPerMinut": 5}}, "unknown key 'maximumPerMinut' (did you mean 'maximumPerMinute'?)"),
        ("aws", {"abortConfig": {"criteria": []}}, "aws.abortConfig: unknown key 'criteria'"),
        ("aws", {"abortConfig": {"criteriaList": [ABORT | {"thresholdPercent": 5}]}}, "did you mean 'thresholdPercentage'"),
        ("aws", {"timeoutConfig": {"inProgressTimeout": 5}}, "aws.timeoutConfig: unknown key 'inProgressTimeout'"),
        ("aws", {"schedulingConfig": {"endTime": "2026-01-05"}}, "aws.schedulingConfig is not simulated"),
    ],
)
def test_a_document_that_its_own_system_would_refuse_is_refused(language: str, document: Any, says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read_reference(language, document)
    assert says in str(refused.value)


def test_keys_of_no_matter_here_and_deciding_ones_that_are_off_are_left_alone() -> None:
    read_reference("hawkbit", {"amountGroups": 2, "successCondition": THRESHOLD, "distributionSetId": 1, "dynamic": False, "type": "soft"})
    read_reference("aws", {"targets": ["arn:x"], "targetSelection": "SNAPSHOT", "jobExecutionsRetryConfig": {}, "tags": []})
    read_reference("mender", {"artifact_name": "a", "devices": ["d"], "retries": 2, "max_devices": 0})


def test_the_history_answers_as_a_search_through_all_ticks_does() -> None:
    devices, ticks = 60, 96
    availability = Availability(np.random.default_rng(3), devices, CHURN, ticks)
    again = Availability(np.random.default_rng(3), devices, CHURN, ticks)
    seen = np.array([again.tick(number) for number in range(ticks)])
    history = History(availability, ticks)
    asked = np.linspace(0, 25, 70)

    for device in range(devices):
        found = history.heard_from(asked, np.full(len(asked), device))
        for hours, at in zip(asked, found, strict=True):
            tick = int(hours * PER_HOUR)
            later = [number for number in range(tick, ticks) if seen[number, device]]
            expected = np.inf if not later else hours if later[0] == tick else later[0] / PER_HOUR
            assert at == pytest.approx(expected)


def test_a_history_too_large_to_be_kept_gives_the_same_answers() -> None:
    asked = np.linspace(0, 24, 60)

    kept, made = (History(Availability(np.random.default_rng(3), 60, CHURN, 96), 96, kept=kept).heard_from(asked) for kept in (10**9, 0))

    assert np.array_equal(kept, made)


# Medians of 300 runs of the study that the rules were taken from; devices that never come in 14 days are not counted as harmed here.
@pytest.mark.parametrize(
    ("name", "release", "low", "high"),
    [
        ("time-phased", "10 %", 900, 1_060),
        ("hawkbit-50", "10 %", 900, 1_060),
        ("aws-1000", "10 %", 400, 500),
        ("aws-10", "10 %", 14, 28),
        ("aws-1000", "50 %", 2_050, 2_350),
        ("time-phased", "10 % after 12 h", 900, 1_060),
        ("hawkbit-95", "10 % after 12 h", 900, 1_060),
        ("aws-1000", "10 % after 12 h", 900, 1_060),
        ("aws-1000", "10 % dark", 790, 910),
        ("aws-1000", "80 % of one model in ten", 310, 420),
        ("hawkbit-50", "one model in a hundred", 75, 125),
    ],
)
def test_other_rules_harm_as_many_devices_as_the_study_says(name: str, release: str, low: float, high: float) -> None:
    assert low <= outcome(name, release).harmed <= high


def test_hawkbits_error_threshold_pauses_and_its_success_threshold_can_wait_for_ever() -> None:
    prompt = outcome("hawkbit-95", "10 %")
    dark = simulate_reference(2_000, CHURN, Behaviour("dark", 0.3, "dark"), 1, known("hawkbit-95"))

    assert prompt.stopped == "paused"
    assert "more than 5 % of 100 in error" in prompt.reason
    assert (dark.stopped, dark.hours) == ("stuck", 336.0)


def test_the_same_seed_tells_the_same_story_of_other_rules_too() -> None:
    one, again, other = (outcome("aws-10", "10 %", seed, 2_000) for seed in (1, 1, 2))

    assert one == again != other


def test_every_known_policy_is_a_document_of_its_language() -> None:
    assert {language for language, _ in DOCUMENTS.values()} == {"hawkbit", "aws", "mender"}
    assert [known(name).name for name in DOCUMENTS] == [
        "time-phased 24 h",
        "hawkBit 50/50",
        "hawkBit 95/5",
        "AWS 5 %, 1000/min",
        "AWS 5 %, 10/min x2",
    ]
