"""A small fleet for the rollout tests: eight devices, a policy in seconds, facts that say exactly what a test wants them to say."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from fleet_server.rollout import DeviceFacts, Facts, Policy, Rollout, RolloutState, apply, apply_person, assign_waves, decide, parse_policy

T0 = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
NEW = "a" * 64
OLD = "b" * 64
DOCUMENT: dict[str, Any] = {
    "name": "test",
    "waves": [1, 3, "100%"],
    "soak_s": 3,
    "soak_rows": 20,
    "deadline_s": 60,
    "hold_s": 120,
}


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def policy(**changes: Any) -> Policy:
    return parse_policy(DOCUMENT | changes)


def draft(devices: int = 8, **changes: Any) -> Rollout:
    rules = policy(**changes)
    waves = assign_waves("salt", {f"d{i}": {} for i in range(devices)}, rules)
    return Rollout("r-1", "digits", "rel-2", NEW, 2, RolloutState.DRAFT, waves, 0, (), (), rules, "salt", T0, "someone")


def idle(device_id: str, **changes: Any) -> DeviceFacts:
    """Runs the old release, has heard of nothing."""
    facts = DeviceFacts(device_id, "hall", None, "idle", OLD, "", OLD, None, OLD, T0, 0, T0, False)
    return replace(facts, **changes)


def trying(device_id: str, since: datetime, **changes: Any) -> DeviceFacts:
    return replace(idle(device_id, began_at=since, state="trial", subject_digest=NEW, last_heard_at=since), **changes)


def proven(device_id: str, since: datetime, **changes: Any) -> DeviceFacts:
    """Committed at `since`, attested, scored enough, heard long after its soak."""
    facts = idle(
        device_id,
        began_at=since,
        state="committed",
        subject_digest=NEW,
        running_digest=NEW,
        committed_at=since,
        attested_digest=NEW,
        attested_at=since,
        rows_since_commit=1000,
        last_heard_at=since + timedelta(days=30),
    )
    return replace(facts, **changes)


def failed(device_id: str, since: datetime, **changes: Any) -> DeviceFacts:
    reason = "trial failed: 21 of 50 rows agree"
    return replace(trying(device_id, since, state="quarantined", reason=reason, failed_at=since, failure=reason), **changes)


def facts(rollout: Rollout, *known: DeviceFacts) -> Facts:
    """The given devices; all others of the rollout are idle."""
    everybody = {device_id: idle(device_id) for wave in rollout.waves for device_id in wave}
    return Facts(everybody | {one.device_id: one for one in known})


def proved(rollout: Rollout, devices: Iterable[str], since: datetime = T0) -> Facts:
    return facts(rollout, *(proven(device_id, since) for device_id in devices))


def settle(rollout: Rollout, known: Facts, now: datetime) -> tuple[Rollout, list[str]]:
    """Decide and apply until the engine holds; the kinds of the actions."""
    kinds: list[str] = []
    while (action := decide(rollout, known, now)) is not None:
        rollout = apply(rollout, action, now)
        kinds.append(action.kind.value)
        assert len(kinds) <= 5 * (len(rollout.waves) + 1), kinds
    return rollout, kinds


def started(devices: int = 8, **changes: Any) -> Rollout:
    """Running, wave 1 open since T0."""
    rollout = apply_person(draft(devices, **changes), "start", "go", T0)
    return settle(rollout, facts(rollout), T0)[0]


def in_wave_two(**changes: Any) -> Rollout:
    """Wave 1 promoted at T0 + 10 s, wave 2 open."""
    rollout = started(**changes)
    return settle(rollout, proved(rollout, rollout.members), at(10))[0]
