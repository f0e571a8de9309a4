"""What the evidence of a wave is, read a second time from the rows themselves, without the engine's words for it."""

from collections.abc import Iterable
from datetime import datetime

from fleet_server.rollout import Rollout
from fleet_server.rollout.policy import plan_waves
from fleet_server.store.moments import to_micros
from tests.properties.rollout_fleet.seen import Seen
from tests.properties.rollout_fleet.stage import Stage

_TRYING = frozenset({"downloading", "verified", "self-test", "trial"})


def open_members(seen: Seen, rollout: Rollout) -> tuple[str, ...]:
    """Devices of the open waves; wave 0 is the hold-back."""
    return tuple(sorted(d for d, row in seen.members_of(rollout.rollout_id).items() if 1 <= row.wave <= rollout.wave))


def why_unproven(stage: Stage, seen: Seen, rollout: Rollout, device_id: str, at: datetime) -> str:
    """Why a device is no evidence for a release, "" when it is."""
    row, said = seen.members.get((rollout.rollout_id, device_id)), seen.said.get(device_id)
    if row is None or said is None or row.counter is None:
        return "nothing was asked of it"
    if row.removed_at is not None:
        return "it was removed"
    device, digest = stage.devices[device_id], rollout.bundle_digest
    if device.honest and digest not in device.ever_ran:
        return "it never ran the release"
    if row.failed_at is not None:
        return "it failed"
    if row.committed_at is None or said.running != digest:
        return "it does not run the release"
    if row.attested_at is None or seen.attested.get(device_id) != digest:
        return "it has not signed that it runs the release"
    soaked = row.committed_at + int(rollout.policy.soak_s * 1e6)
    if to_micros(at) < soaked or seen.heard.get(device_id, 0) < soaked:
        return "it was not heard after its soak"
    return "" if row.rows >= rollout.policy.soak_rows else f"it scored {row.rows} of {rollout.policy.soak_rows} rows"


def unproven(stage: Stage, seen: Seen, rollout: Rollout, devices: Iterable[str], at: datetime) -> dict[str, str]:
    """Devices that are no evidence and were not accepted as failed by a person, with the reason."""
    reasons = {d: why_unproven(stage, seen, rollout, d, at) for d in devices if d not in rollout.accepted}
    return {device_id: why for device_id, why in reasons.items() if why}


def failures(seen: Seen, rollout: Rollout) -> list[str]:
    """Devices of the open waves that failed explicitly at any time."""
    return [d for d in open_members(seen, rollout) if (row := seen.members.get((rollout.rollout_id, d))) and row.failed_at is not None]


def is_back(seen: Seen, rollout: Rollout, device_id: str) -> bool:
    """Whether a device neither runs nor tries the release, by its last report."""
    said = seen.said.get(device_id)
    row = seen.members[rollout.rollout_id, device_id]
    if said is None or row.removed_at is not None:
        return True
    trying = said.state in _TRYING and said.subject == rollout.bundle_digest and said.counter >= (row.counter or 0)
    return said.running != rollout.bundle_digest and not trying


def dwell_s(rollout: Rollout, wave: int) -> float:
    """Least seconds that a wave stays open, by the plan."""
    planned = plan_waves(rollout.policy, sum(len(one) for one in rollout.waves))
    return planned[wave - 1].dwell_s
