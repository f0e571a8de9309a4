"""Policies to compare with, as those systems' users would write them: four steps of 1, 5, 25 and 100 %, or a rate with an abort."""

from collections.abc import Mapping
from typing import Any, Final

from fleet_server.simulate.reference.documents import Reference, read_reference


def _hawkbit(success: str, error: str) -> dict[str, Any]:
    """Each group's percentage is of the targets that remain."""
    return {
        "name": f"hawkBit {success}/{error}",
        "targetFilterQuery": "controllerId==*",
        "groups": [{"targetPercentage": percent} for percent in (1, 400 / 99, 2000 / 95, 100)],
        "successCondition": {"condition": "THRESHOLD", "expression": success},
        "successAction": {"action": "NEXTGROUP", "expression": ""},
        "errorCondition": {"condition": "THRESHOLD", "expression": error},
        "errorAction": {"action": "PAUSE", "expression": ""},
    }


def _aws(job_id: str, rollout: dict[str, Any]) -> dict[str, Any]:
    criterion = {"action": "CANCEL", "failureType": "ALL", "minNumberOfExecutedThings": 100, "thresholdPercentage": 5}
    return {
        "jobId": job_id,
        "jobExecutionsRolloutConfig": rollout,
        "abortConfig": {"criteriaList": [criterion]},
        "timeoutConfig": {"inProgressTimeoutInMinutes": 120},
    }


_RISING: Final = {"baseRatePerMinute": 10, "incrementFactor": 2, "rateIncreaseCriteria": {"numberOfNotifiedThings": 1000}}
# Name -> (language, document).
DOCUMENTS: Final[Mapping[str, tuple[str, dict[str, Any]]]] = {
    "time-phased": (
        "mender",
        {
            "name": "time-phased 24 h",
            "artifact_name": "release",
            "phases": [
                {"batch_size": 1, "start_ts": "2026-01-05T00:00:00Z"},
                {"batch_size": 4, "start_ts": "2026-01-06T00:00:00Z"},
                {"batch_size": 20, "start_ts": "2026-01-07T00:00:00Z"},
                {"start_ts": "2026-01-08T00:00:00Z"},
            ],
        },
    ),
    "hawkbit-50": ("hawkbit", _hawkbit("50", "50")),
    "hawkbit-95": ("hawkbit", _hawkbit("95", "5")),
    "aws-1000": ("aws", _aws("AWS 5 %, 1000/min", {"maximumPerMinute": 1000})),
    "aws-10": ("aws", _aws("AWS 5 %, 10/min x2", {"exponentialRate": _RISING, "maximumPerMinute": 1000})),
}


def known(name: str) -> Reference:
    """One of `DOCUMENTS`, read."""
    return read_reference(*DOCUMENTS[name])
