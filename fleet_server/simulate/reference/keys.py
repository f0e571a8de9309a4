"""Keys of other systems' documents: which are used, which do not matter here, and which decide something that is not simulated.

A key that is in none of these lists is refused: misspelt, it would be left out without a word, and the comparison would be with a policy
that nobody wrote.
"""

from collections.abc import Mapping
from typing import Any, Final

from edgefleet.errors import ConfigError
from fleet_server.rollout.limits import did_you_mean

# Level of a document -> (used, of no matter here, not simulated).
_HAWKBIT_ACTIONS: Final = ("successCondition", "successAction", "errorCondition", "errorAction")
_KEYS: Final[Mapping[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]]] = {
    "hawkbit": (
        ("name", "groups", "amountGroups", *_HAWKBIT_ACTIONS),
        ("description", "targetFilterQuery", "distributionSetId", "startAt", "forcetime", "type", "weight"),
        ("dynamic", "dynamicGroupTemplate", "confirmationRequired"),
    ),
    "hawkbit.groups": (
        ("name", "targetPercentage", *_HAWKBIT_ACTIONS),
        ("description",),
        ("targetFilterQuery", "confirmationRequired"),
    ),
    "hawkbit.condition": (("condition", "expression"), (), ()),
    "hawkbit.action": (("action",), ("expression",), ()),
    "aws": (
        ("jobId", "jobExecutionsRolloutConfig", "abortConfig", "timeoutConfig"),
        ("targets", "document", "documentSource", "documentParameters", "description", "presignedUrlConfig", "targetSelection", "tags",
         "namespaceId", "jobTemplateArn", "destinationPackageVersions"),
        ("schedulingConfig", "jobExecutionsRetryConfig"),
    ),
    "aws.jobExecutionsRolloutConfig": (("maximumPerMinute", "exponentialRate"), (), ()),
    "aws.exponentialRate": (("baseRatePerMinute", "incrementFactor", "rateIncreaseCriteria"), (), ()),
    "aws.rateIncreaseCriteria": (("numberOfNotifiedThings",), (), ("numberOfSucceededThings",)),
    "aws.abortConfig": (("criteriaList",), (), ()),
    "aws.criteriaList": (("failureType", "action", "thresholdPercentage", "minNumberOfExecutedThings"), (), ()),
    "aws.timeoutConfig": (("inProgressTimeoutInMinutes",), (), ()),
    "mender": (
        ("name", "phases"),
        ("artifact_name", "devices", "all_devices", "filter_id", "force_installation", "retries", "autogenerate_delta", "type", "group"),
        ("max_devices", "update_control_map", "configuration"),
    ),
    "mender.phases": (("batch_size", "start_ts"), (), ()),
}  # fmt: skip


def check_keys(level: str, where: str, table: Mapping[str, Any]) -> None:
    """Refuse keys that the other system does not have, and those that decide something that is not simulated.

    Args:
        level: Of `_KEYS`.
        where: As a person finds it in the document.
        table: The object there.

    Raises:
        ConfigError: With the key, and what is known.
    """
    used, idle, undone = _KEYS[level]
    for key, value in table.items():
        if key in undone and value not in (None, False, "", [], {}):
            raise ConfigError(f"{where}.{key} is not simulated, and decides how devices are reached; leave it out to compare the rest")
        if key not in (*used, *idle, *undone):
            known = sorted({*used, *idle})
            raise ConfigError(f"{where}: unknown key {str(key)[:60]!r}{did_you_mean(str(key), known)}; known: {', '.join(known)}")
