"""What is known about one device in a rollout, and the one word for it."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from edgefleet.messages import DeviceState
from fleet_server.read_models import Progress
from fleet_server.rollout.policy import Policy

FAILED_STATES: Final = frozenset({"refused", "rolled-back", "quarantined"})
TRYING_STATES: Final = frozenset({"downloading", "verified", "self-test", "trial"})
WITHDRAWN: Final = "withdrawn"


@dataclass(frozen=True)
class DeviceFacts:
    """One device as the server's database knows it; all times are aware UTC, by the server's clock.

    Attributes:
        site: Label `site`, "" when it has none.
        began_at: When it first said that it works on the rollout's bundle.
        state: State of its last report for this project.
        subject_digest: The bundle that the state speaks of.
        reason: The device's own words for the state.
        running_digest: The bundle it says it runs, "" when it never said.
        committed_at: When it was first seen running the rollout's bundle, committed.
        attested_digest: The bundle of its last verified attestation.
        rows_since_commit: Rows scored by the rollout's bundle after the commit.
        last_heard_at: Last sign of life of any kind.
        quarantined: The rollout's bundle is on the device's own list of refused digests.
        failed_at: When an explicit failure was first stored; an outcome seen once stays seen.
        failure: The device's words for it.
        deaf_until: Until then the server could hear nobody, whoever was to blame: silence counts from there on. None: it never was so.
        removed: It was taken out of the fleet; all that is known of it is what this rollout had seen by then.
    """

    device_id: str
    site: str
    began_at: datetime | None
    state: DeviceState
    subject_digest: str
    reason: str
    running_digest: str
    committed_at: datetime | None
    attested_digest: str
    attested_at: datetime | None
    rows_since_commit: int
    last_heard_at: datetime | None
    quarantined: bool
    failed_at: datetime | None = None
    failure: str = ""
    removed: bool = False
    deaf_until: datetime | None = None


def progress(facts: DeviceFacts, rollout_digest: str, policy: Policy, now: datetime) -> tuple[Progress, str]:
    """The word for one device, and one sentence why.

    An explicit failure comes before everything and a proven device stays ok; silence is judged only for devices without an outcome.

    Args:
        facts: The device.
        rollout_digest: Bundle digest of the rollout's release.
        policy: Soak and deadline.
        now: Aware UTC.
    """
    failure = _failure(facts, rollout_digest)
    if failure:
        return "failed", failure
    if facts.removed:
        return "pending", "removed from the fleet, neither a success nor a failure"
    missing = _missing(facts, rollout_digest, policy, now)
    if not missing:
        return "ok", f"committed, attested, {facts.rows_since_commit} rows in soak"
    if facts.began_at is None and facts.committed_at is None:
        return "not-begun", "has not said that it works on this release"
    silent_s = silence_s(facts, now)
    if silent_s >= policy.deadline_s:
        return "silent", f"no sign of life for {silent_s:.0f} s (deadline {policy.deadline_s:g} s)"
    return "pending", missing


def silence_s(facts: DeviceFacts, now: datetime) -> float:
    """Seconds since the last sign of life, or since it began when nothing was heard afterwards; the server's own absence is none of it."""
    quiet_from = silent_from(facts)
    return 0.0 if quiet_from is None else (now - quiet_from).total_seconds()


def silent_from(facts: DeviceFacts) -> datetime | None:
    """Since when it could have been heard and was not, None of a device that never was."""
    heard = [moment for moment in (facts.began_at, facts.committed_at, facts.last_heard_at) if moment is not None]
    return max([*heard, *([] if facts.deaf_until is None else [facts.deaf_until])]) if heard else None


def is_back(facts: DeviceFacts, rollout_digest: str) -> bool:
    """Whether the device neither runs nor tries the rollout's bundle, by its own report (before its first release it runs nothing)."""
    trying = facts.state in TRYING_STATES and facts.subject_digest == rollout_digest
    # Of a device that was removed nothing more is heard; a rollback does not wait for it.
    return facts.removed or (facts.running_digest != rollout_digest and not trying)


def failed_on_the_way_back(facts: DeviceFacts, rollout_digest: str) -> bool:
    """Whether the device refused, rolled back or quarantined the bundle that it was to go back to, and still runs the rollout's."""
    other = facts.subject_digest not in ("", rollout_digest)
    return facts.state in FAILED_STATES and other and facts.running_digest == rollout_digest


def soaked_at(facts: DeviceFacts, policy: Policy) -> datetime | None:
    """When the time part of the soak ends, or None before the commit."""
    return None if facts.committed_at is None else facts.committed_at + timedelta(seconds=policy.soak_s)


def _failure(facts: DeviceFacts, rollout_digest: str) -> str:
    if facts.failed_at is not None:
        return facts.failure or "failed"
    if facts.quarantined:
        return f"quarantined: {facts.reason or 'this bundle failed here'}"
    reported = facts.state in FAILED_STATES and facts.subject_digest == rollout_digest
    # A device that went back because the server took the release away has not failed.
    if reported and not facts.reason.startswith(WITHDRAWN):
        return f"{facts.state}: {facts.reason or 'no reason given'}"
    return ""


def _missing(facts: DeviceFacts, rollout_digest: str, policy: Policy, now: datetime) -> str:
    """What still keeps a device from being ok, or nothing."""
    soak_end = soaked_at(facts, policy)
    if soak_end is None or facts.running_digest != rollout_digest:
        doing = facts.state if facts.subject_digest == rollout_digest else "waiting"
        return "committed, to be seen running" if doing == "committed" else f"{doing}, not committed yet"
    if facts.attested_digest != rollout_digest or facts.attested_at is None:
        return "committed, waits for its signed attestation"
    if now < soak_end or facts.last_heard_at is None or facts.last_heard_at < soak_end:
        return f"soaking, to be heard after {policy.soak_s:g} s"
    if facts.rows_since_commit < policy.soak_rows:
        return f"soaking, {facts.rows_since_commit} of {policy.soak_rows} rows"
    return ""
