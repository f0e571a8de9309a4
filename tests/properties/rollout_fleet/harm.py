"""What a fleet does to its server: rows that are damaged, devices that lie."""

from typing import Any, Final

from edgefleet.messages import ProjectState
from fleet_server.ingest.inbox import Incoming
from fleet_server.scheduler.steering import READ_AGAIN
from tests.properties.rollout_fleet import probes
from tests.properties.rollout_fleet.device import FieldDevice
from tests.properties.rollout_fleet.stage import Stage

# Table, column, what is written there. A rollout that names its devices reads their rows, one by evidence its sums.
_DAMAGES: Final[dict[bool, dict[str, tuple[str, str, Any]]]] = {
    False: {
        "first": ("device_fact", "quarantined", "{"),
        "second": ("rollout_member", "committed_at", "yesterday"),
        "third": ("device_seen", "seen_at", "NaN"),
    },
    True: {
        "first": ("rollout_sum", "failed", 1_000),
        "second": ("rollout_sum", "begun", -3),
        "third": ("rollout_sum", "begun", 10_000),
    },
}


def damage(stage: Stage, rollout_id: str, device_id: str, how: str) -> None:
    """Damage a value, look, put it right again, and wait until the server has read it again."""
    table, column, value = _DAMAGES[stage.seen.rollouts[rollout_id].course is not None][how]
    keys = {"rollout_sum": {"rollout_id": rollout_id}, "rollout_member": {"rollout_id": rollout_id, "device_id": device_id}}
    of = keys.get(table, {"device_id": device_id})
    where = " AND ".join(f"{key} = ?" for key in of)
    row = stage.eye.value(f"SELECT max(rowid) FROM {table} WHERE {where}", *of.values())  # noqa: S608 names are ours
    if row is None:
        return
    before = stage.eye.value(f"SELECT {column} FROM {table} WHERE rowid = ?", row)  # noqa: S608 names are ours
    change = f"UPDATE {table} SET {column} = ? WHERE rowid = ?"  # noqa: S608 names are ours
    try:
        probes.what_cannot_be_read_pauses(stage, rollout_id, change, value, row)
    finally:
        stage.damage(change, before, row)
    stage.clock.move(READ_AGAIN.total_seconds())


def lie(device: FieldDevice, how: str, digest: str) -> list[Incoming]:
    """Words that are not so."""
    wanted = device.wanted.bundle_digest if device.wanted is not None else digest
    runs = ProjectState(bundle_digest=wanted, model_digest=device.models.get(wanted, ""), state="committed", subject_digest=wanted)
    if how == "committed":
        return [device.report(runs), device.heartbeat()]
    if how == "failed":
        failed = ProjectState(bundle_digest=device.running, model_digest="", state="quarantined", reason="no", subject_digest=wanted)
        return [device.report(failed, quarantined=[wanted])]
    if how == "future":
        return [device.report(runs, counter=1 << 61)]
    if how == "garbage":
        return [device.message("reported", b"\x93\x01\xff"), device.message("t", b""), device.message("hb", b"\xc1" * 40)]
    if how == "clock":
        return [device.report(runs, counter=0)]
    forged = {"nonce": {"nonce": "0" * 32}, "model": {"model_digest": "0" * 64}, "other": {"device": "somebody-else"}}[how]
    body = device.attestation(bundle_digest=wanted, **forged)
    if body is not None:
        device.put_attestation(body)
    return device.talk()
