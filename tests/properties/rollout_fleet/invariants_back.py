"""Invariants of what devices go back to, and of what is kept to look back at, judged after each commit."""

import zlib

from fleet_server.rollout import RolloutState
from fleet_server.rollout.replay import again
from tests.properties.rollout_fleet.evidence import is_back, open_members
from tests.properties.rollout_fleet.invariants import changed, forward, newly
from tests.properties.rollout_fleet.kept import keeps, require
from tests.properties.rollout_fleet.seen import Seen
from tests.properties.rollout_fleet.stage import Stage


@keeps(
    23,
    "commit",
    "fleet_server.rollout.rollback_targets:target_of",
    "fleet_server.releases.floor:refuse_below",
    "fleet_server.scheduler.changing:held_up",
)
def back_only_to_what_ran_there(stage: Stage, before: Seen, now: Seen) -> None:
    """Rollback targets only a release that device had committed before and that is not below the release floor; else nothing is changed
    there, and the device says so. Nor is anything below the floor given to a device in any other way, and the floor never falls.
    """
    asked = forward(before, now)
    require(23, now.floor >= before.floor, f"the release floor fell from {before.floor} to {now.floor}")
    for device_id, one in newly(before, now).items():
        counter = _counter(stage, one.bundle_digest)
        require(23, counter >= before.floor, f"{device_id} is given release {counter}, below the floor {before.floor}")
        device = stage.devices[device_id]
        if device_id not in asked and device.honest:
            require(23, one.bundle_digest in device.ever_ran, f"{device_id} is sent back to {one.release_id}, which never ran there")
    for device_id, old in before.assigned.items():
        if device_id not in now.assigned and device_id not in now.removed:
            left = (
                _completed_there(now, device_id) - {now.rollouts[old.rollout_id].bundle_digest} if old.rollout_id in now.rollouts else set()
            )
            left -= before.quarantined.get(device_id, frozenset())
            left = {digest for digest in left if _counter(stage, digest) >= now.floor}
            require(23, not left, f"{device_id} is told to keep what it runs, {left} were completed there")


def _counter(stage: Stage, bundle_digest: str) -> int:
    """Of the release of a bundle."""
    return int(stage.eye.value("SELECT counter FROM release WHERE bundle_digest = ?", bundle_digest))


def _completed_there(seen: Seen, device_id: str) -> set[str]:
    """Bundles of rollouts that were completed and that the device committed."""
    mine = {r for (r, d), row in seen.members.items() if d == device_id and row.committed_at is not None and not row.removed_at}
    return {seen.rollouts[r].bundle_digest for r in mine if r in seen.rollouts and seen.rollouts[r].state is RolloutState.COMPLETED}


@keeps(24, "commit", "fleet_server.rollout.engine:decide", "fleet_server.rollout.evidence:is_back")
def a_rollback_is_a_rollout(stage: Stage, before: Seen, now: Seen) -> None:
    """A rollback is a rollout: it obeys the budget of a site, waits for no window, and its own failures are counted."""
    for old, new in changed(before, now):
        if new.state is RolloutState.ROLLED_BACK and old.state is not RolloutState.ROLLED_BACK:
            away = [d for d in open_members(now, old) if not is_back(now, old, d)]
            require(24, not away, f"{new.rollout_id} is rolled back, {away} are not")


def what_was_decided_is_decided_again(stage: Stage, before: Seen, now: Seen) -> None:
    """Invariant 7 over stored facts: what the engine did is what it does again on what was kept."""
    for rollout_id, version in now.versions.items():
        if version > before.versions.get(rollout_id, version):
            _decided_again(stage, rollout_id, before.versions[rollout_id])


def _decided_again(stage: Stage, rollout_id: str, version: int) -> None:
    packed, action = (
        stage.eye.value(f"SELECT {name} FROM decision WHERE rollout_id = ? AND version = ?", rollout_id, version)  # noqa: S608 two names
        for name in ("facts", "action")
    )
    if packed is not None:
        decided = again(zlib.decompress(packed))
        require(7, decided is not None and decided.kind.value == action, f"{rollout_id}: {action} was done, {decided} is decided again")
