"""What other systems call a policy, read from the documents that their interfaces take; `keys.py` says which keys they have.

- hawkBit: the body of `POST /rest/v1/rollouts` (`groups` with `targetPercentage` of the targets that remain, or `amountGroups`).
- AWS IoT: the input of `CreateJob` (`jobExecutionsRolloutConfig`, `abortConfig`, `timeoutConfig`).
- Mender: the body of a new deployment (`phases` with `batch_size` in percent and `start_ts`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from edgefleet.errors import ConfigError
from fleet_server.simulate.reference.keys import check_keys

_MOST_PARTS: Final = 500
_AWS_MOST_PER_MINUTE: Final = 1000


@dataclass(frozen=True)
class HawkbitGroup:
    """One group.

    Attributes:
        cumulative: Share of the targets in it and the groups before.
        success: Percent of the group that must be finished before the next one starts.
        error: Percent of the group; with more in error the rollout pauses. None: never.
    """

    cumulative: float
    success: int
    error: int | None


@dataclass(frozen=True)
class HawkbitRollout:
    """Groups that start one after another."""

    name: str
    groups: tuple[HawkbitGroup, ...]


@dataclass(frozen=True)
class AwsAbort:
    """A criterion: cancels when more than `percent` of at least `executed` executions ended in one of these ways."""

    failures: frozenset[str]
    percent: float
    executed: int


@dataclass(frozen=True)
class AwsJob:
    """A job.

    Attributes:
        base_per_minute: Executions per minute at the start.
        factor: By which the rate rises.
        rise_after: Notified things after which it rises once more; None: never.
        most_per_minute: Highest rate.
        aborts: Any of them cancels.
        timeout_h: Hours after which an execution that is in progress counts as TIMED_OUT; None: never.
    """

    name: str
    base_per_minute: float
    factor: float
    rise_after: int | None
    most_per_minute: float
    aborts: tuple[AwsAbort, ...]
    timeout_h: float | None


@dataclass(frozen=True)
class MenderPhase:
    """Devices up to the cumulative share start after so many hours, whatever happened before."""

    cumulative: float
    start_h: float


@dataclass(frozen=True)
class MenderDeployment:
    """Phases in time."""

    name: str
    phases: tuple[MenderPhase, ...]


Reference = HawkbitRollout | AwsJob | MenderDeployment


def read_reference(language: str, document: Any) -> Reference:
    """Read a policy of another system.

    Args:
        language: One of `LANGUAGES`.
        document: Parsed JSON.

    Raises:
        ConfigError: Another language, a key that is missing, unknown or not simulated, or a value that the other system would refuse.
    """
    reader = LANGUAGES.get(language)
    if reader is None:
        raise ConfigError(f"language {language[:40]!r} is unknown; known: {', '.join(LANGUAGES)}")
    if not isinstance(document, Mapping):
        raise ConfigError(f"{language}: expected a JSON object, found {type(document).__name__}")
    check_keys(language, language, document)
    return reader(document)


def _hawkbit(document: Mapping[str, Any]) -> HawkbitRollout:
    name = _name("hawkbit", document)
    raw = document.get("groups")
    if raw is None:
        count = _whole("hawkbit.amountGroups", document.get("amountGroups"), 1, _MOST_PARTS)
        raw = [{"targetPercentage": 100 / (count - i)} for i in range(count)]
    groups, done = [], 0.0
    for i, one in enumerate(_parts("hawkbit.groups", raw)):
        where = f"hawkbit.groups[{i}]"
        check_keys("hawkbit.groups", where, one)
        _actions(where, one, document)
        done += (1 - done) * _number(f"{where}.targetPercentage", one.get("targetPercentage", 100), 0, 100) / 100
        success = _threshold(where, "successCondition", one, document)
        if success is None:
            raise ConfigError(f"{where}: successCondition is missing, here and for the rollout")
        groups.append(HawkbitGroup(done, success, _threshold(where, "errorCondition", one, document)))
    if done < 1 - 1e-9:
        raise ConfigError(f"hawkbit.groups take {100 * done:.4g} % of the targets; the last one must take 100 % of those that remain")
    return HawkbitRollout(name, tuple(groups))


def _threshold(where: str, key: str, group: Mapping[str, Any], rollout: Mapping[str, Any]) -> int | None:
    condition = group.get(key, rollout.get(key))
    if condition is None:
        return None
    if not isinstance(condition, Mapping) or condition.get("condition", "THRESHOLD") != "THRESHOLD":
        raise ConfigError(f"{where}.{key}: expected {{'condition': 'THRESHOLD', 'expression': '50'}}")
    check_keys("hawkbit.condition", f"{where}.{key}", condition)
    text = str(condition.get("expression"))
    if not (text.isascii() and text.isdigit() and int(text) <= 100):
        # hawkBit itself answers "no error" to an expression that it cannot parse; a comparison must not.
        raise ConfigError(f"{where}.{key}.expression = {text[:40]!r} is no whole percentage from 0 to 100")
    return int(text)


def _actions(where: str, group: Mapping[str, Any], rollout: Mapping[str, Any]) -> None:
    """Refuse another action than the one that is simulated: the next group, or a pause."""
    for key, expected in (("successAction", "NEXTGROUP"), ("errorAction", "PAUSE")):
        action = group.get(key, rollout.get(key, {}))
        check_keys("hawkbit.action", f"{where}.{key}", _table(f"{where}.{key}", action))
        if action.get("action", expected) != expected:
            raise ConfigError(f"{where}.{key}.action = {str(action['action'])[:40]!r} is not simulated; expected {expected}")


def _aws(document: Mapping[str, Any]) -> AwsJob:
    rollout = _table("aws.jobExecutionsRolloutConfig", document.get("jobExecutionsRolloutConfig", {}))
    where = "aws.jobExecutionsRolloutConfig"
    check_keys(where, where, rollout)
    most = _number(f"{where}.maximumPerMinute", rollout.get("maximumPerMinute", _AWS_MOST_PER_MINUTE), 1, _AWS_MOST_PER_MINUTE)
    base, factor, rise = most, 1.0, None
    if "exponentialRate" in rollout:
        rate = _table(f"{where}.exponentialRate", rollout["exponentialRate"])
        check_keys("aws.exponentialRate", f"{where}.exponentialRate", rate)
        base = _number(f"{where}.exponentialRate.baseRatePerMinute", rate.get("baseRatePerMinute"), 1, _AWS_MOST_PER_MINUTE)
        factor = _number(f"{where}.exponentialRate.incrementFactor", rate.get("incrementFactor"), 1.1, 5)
        criteria = _table(f"{where}.exponentialRate.rateIncreaseCriteria", rate.get("rateIncreaseCriteria"))
        check_keys("aws.rateIncreaseCriteria", f"{where}.exponentialRate.rateIncreaseCriteria", criteria)
        rise = _whole(
            f"{where}.exponentialRate.rateIncreaseCriteria.numberOfNotifiedThings", criteria.get("numberOfNotifiedThings"), 1, 10**9
        )
    abort = _table("aws.abortConfig", document.get("abortConfig", {"criteriaList": []}))
    check_keys("aws.abortConfig", "aws.abortConfig", abort)
    aborts = abort.get("criteriaList")
    times = _table("aws.timeoutConfig", document.get("timeoutConfig", {}))
    check_keys("aws.timeoutConfig", "aws.timeoutConfig", times)
    timeout = times.get("inProgressTimeoutInMinutes")
    return AwsJob(
        name=_name("aws", document, "jobId"),
        base_per_minute=base,
        factor=factor,
        rise_after=rise,
        most_per_minute=most,
        aborts=tuple(_abort(i, one) for i, one in enumerate(_parts("aws.abortConfig.criteriaList", aborts, least=0))),
        timeout_h=None if timeout is None else _whole("aws.timeoutConfig.inProgressTimeoutInMinutes", timeout, 1, 10_080) / 60,
    )


def _abort(i: int, one: Mapping[str, Any]) -> AwsAbort:
    where, kind = f"aws.abortConfig.criteriaList[{i}]", one.get("failureType")
    check_keys("aws.criteriaList", where, one)
    if kind not in ("FAILED", "REJECTED", "TIMED_OUT", "ALL"):
        raise ConfigError(f"{where}.failureType = {str(kind)[:40]!r}; expected FAILED, REJECTED, TIMED_OUT or ALL")
    if one.get("action", "CANCEL") != "CANCEL":
        raise ConfigError(f"{where}.action = {str(one['action'])[:40]!r}; expected CANCEL")
    kinds = frozenset(("FAILED", "REJECTED", "TIMED_OUT")) if kind == "ALL" else frozenset((str(kind),))
    return AwsAbort(
        kinds,
        _number(f"{where}.thresholdPercentage", one.get("thresholdPercentage"), 0, 100),
        _whole(f"{where}.minNumberOfExecutedThings", one.get("minNumberOfExecutedThings"), 1, 10**9),
    )


def _mender(document: Mapping[str, Any]) -> MenderDeployment:
    raw = _parts("mender.phases", document.get("phases", [{}]))
    phases: list[MenderPhase] = []
    done, first = 0.0, None
    for i, one in enumerate(raw):
        where, size = f"mender.phases[{i}]", one.get("batch_size")
        check_keys("mender.phases", where, one)
        if size is None and i < len(raw) - 1:
            raise ConfigError(f"{where}.batch_size is missing; only the last phase may leave it out")
        done = 1.0 if size is None else done + _number(f"{where}.batch_size", size, 0, 100) / 100
        at = _time(f"{where}.start_ts", one.get("start_ts"), optional=i == 0)
        first = at if i == 0 else first
        if i and first is None and at is not None:
            raise ConfigError("mender.phases[0].start_ts is missing; the hours between the phases cannot be told without it")
        hours = 0.0 if at is None or first is None else (at - first).total_seconds() / 3600
        if phases and hours <= phases[-1].start_h:
            raise ConfigError(f"{where}.start_ts does not come after the phase before")
        phases.append(MenderPhase(done, hours))
    if not abs(done - 1) < 1e-9:
        raise ConfigError(f"mender.phases take {100 * done:.4g} % of the devices; leave batch_size of the last phase out")
    return MenderDeployment(_name("mender", document), tuple(phases))


LANGUAGES: Final[Mapping[str, Callable[[Mapping[str, Any]], Reference]]] = {"hawkbit": _hawkbit, "aws": _aws, "mender": _mender}


def _name(language: str, document: Mapping[str, Any], key: str = "name") -> str:
    name = document.get(key, language)
    if not isinstance(name, str) or not 0 < len(name) <= 120:
        raise ConfigError(f"{language}.{key}: expected a name of 1 to 120 characters")
    return name


def _table(where: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: expected an object, found {type(value).__name__}")
    return value


def _parts(where: str, value: Any, least: int = 1) -> list[Mapping[str, Any]]:
    if not isinstance(value, list) or not least <= len(value) <= _MOST_PARTS:
        raise ConfigError(f"{where}: expected a list of {least} to {_MOST_PARTS} objects")
    return [_table(f"{where}[{i}]", one) for i, one in enumerate(value)]


def _number(where: str, value: Any, least: float, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise ConfigError(f"{where} = {str(value)[:40]} is no number from {least:g} to {most:g}")
    return float(value)


def _whole(where: str, value: Any, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ConfigError(f"{where} = {str(value)[:40]} is no whole number from {least} to {most}")
    return value


def _time(where: str, value: Any, *, optional: bool) -> datetime | None:
    if value is None and optional:
        return None
    try:
        found = datetime.fromisoformat(str(value))
    except ValueError as err:
        raise ConfigError(f"{where} = {str(value)[:40]!r} is no time like '2026-01-05T00:00:00Z'") from err
    if found.tzinfo is None:
        raise ConfigError(f"{where} = {str(value)[:40]!r} has no time zone; write a Z or +00:00 after it")
    return found
