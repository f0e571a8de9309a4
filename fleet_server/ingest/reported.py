"""A device's reported state: what runs there, how the update goes, and what that means for the rollout that owns the device.

Reported states are level-triggered and overwritten; outcomes (began, committed, failed) are noted once on the rollout's member row and
stay. A report that answers an older desired state than the rollout's says nothing about the rollout.
"""

from typing import Final

import msgspec
import sqlalchemy as sa

from edgefleet.errors import InputError
from edgefleet.identifiers import check_digest
from edgefleet.messages import MAX_QUARANTINED, ProjectState, Reported
from fleet_server.ingest.fleet_facts import FleetFacts
from fleet_server.ingest.inbox import Effects
from fleet_server.store import late_failures, latecomers, lifts, members
from fleet_server.store.tables import DEVICE_FACT, REPORTED
from fleet_server.store.upsert import insert_or_update

MAX_REASON: Final = 500
_COUNTER_LIMIT: Final = 1 << 62
_FAILED: Final = frozenset({"refused", "rolled-back", "quarantined"})
# The word with which a device says that it went back because the server took the release away: no failure.
_WITHDRAWN: Final = "withdrawn"


def store(connection: sa.Connection, facts: FleetFacts, device_id: str, report: Reported, at: int, effects: Effects) -> None:
    """Keep a report and note the outcomes in it.

    Raises:
        InputError: A digest that is none, or a counter outside of what a database holds.
    """
    project = facts.project(device_id)
    floor = report.floors.get(project, 0)
    counts = {"epoch": report.epoch, "counter": report.counter, "halt_counter": report.halt_counter, "halts_refused": report.halts_refused}
    counts["floor"] = floor
    wrong = [f"{name} {value}" for name, value in counts.items() if not 0 <= value < _COUNTER_LIMIT]
    if wrong:
        raise InputError(f"reported state of {device_id}: {', '.join(wrong)} outside 0 to 2^62")
    quarantined = [check_digest(digest, "quarantined digest") for digest in report.quarantined[:MAX_QUARANTINED]]
    insert_or_update(
        connection,
        DEVICE_FACT,
        [
            {
                "device_id": device_id,
                "quarantined": _json(quarantined),
                "runtimes": _json([runtime[:80] for runtime in report.runtimes[:16]]),
                "agent_version": report.agent_version[:64],
                "halted": report.halted,
                "halt_counter": report.halt_counter,
                "halts_refused": report.halts_refused,
                "floor": floor,
            }
        ],
    )
    lifts.answer(connection, device_id, report.counter)
    state = report.projects.get(project)
    if state is not None:
        _check(device_id, state)
        _store_state(connection, device_id, project, report, state, at)
        if not _note_outcome(connection, device_id, project, report, state, quarantined, at):
            latecomers.note(connection, device_id, project, report.counter, state, at)
        late_failures.note(connection, device_id, project, report.counter, state, quarantined, at)
    effects.dirty.add((device_id, project))
    effects.topics |= {"devices", "overview", f"device:{device_id}"}


def _check(device_id: str, state: ProjectState) -> None:
    for digest in (state.bundle_digest, state.model_digest, state.subject_digest):
        if digest:
            check_digest(digest, f"digest reported by {device_id}")


def _store_state(connection: sa.Connection, device_id: str, project: str, report: Reported, state: ProjectState, at: int) -> None:
    where = (REPORTED.c.device_id == device_id, REPORTED.c.project == project)
    known = connection.execute(sa.select(REPORTED.c.state, REPORTED.c.subject_digest, REPORTED.c.state_at).where(*where)).first()
    same = known is not None and (known.state, known.subject_digest) == (state.state, state.subject_digest)
    row = {
        "device_id": device_id,
        "project": project,
        "epoch": report.epoch,
        "counter": report.counter,
        "bundle_digest": state.bundle_digest,
        "model_digest": state.model_digest,
        "state": state.state,
        "reason": state.reason[:MAX_REASON],
        "attempt": min(max(state.attempt, 0), 1_000_000),
        "subject_digest": state.subject_digest,
        "state_at": known.state_at if known is not None and same else at,
        "reported_at": at,
    }
    insert_or_update(connection, REPORTED, [row])


def _note_outcome(
    connection: sa.Connection, device_id: str, project: str, report: Reported, state: ProjectState, quarantined: list[str], at: int
) -> bool:
    """Note what it means for the rollout that owns the device; whether there is one."""
    owners = members.of_device(connection, device_id, project)
    for member in owners:
        digest = member.bundle_digest
        if member.counter is None or report.counter < member.counter:
            continue
        if digest in (state.bundle_digest, state.subject_digest):
            members.note_began(connection, member, at)
        if state.bundle_digest == digest and state.state in ("committed", "idle"):
            members.note_committed(connection, member, at)
        failed = state.subject_digest == digest and state.state in _FAILED and not state.reason.startswith(_WITHDRAWN)
        if failed or digest in quarantined:
            word = state.state if failed else "quarantined"
            reason = state.reason if state.subject_digest == digest else ""
            members.note_failed(connection, member, at, f"{word}: {reason or 'no reason given'}")
    return bool(owners)


def _json(values: list[str]) -> str:
    return msgspec.json.encode(values).decode()
