"""Approve a rollout's plan, and refuse to start one that lacks approvals."""

from typing import Final

import sqlalchemy as sa

from edgefleet.errors import InputError
from edgefleet.identifiers import check_digest
from fleet_server.auth import Actor
from fleet_server.errors import ConflictError, ForbiddenError
from fleet_server.queries.errors import NotFoundError
from fleet_server.read_approval import ApprovalRow, ApprovalView
from fleet_server.rollout import Event, Rollout, RolloutState, apply_person, next_state
from fleet_server.rollout.approval import Approval, Standing, Superseded, plan_digest, plan_parts, refusal, standing, what_changed
from fleet_server.scheduler.steering import note_action
from fleet_server.selection import document_of
from fleet_server.services import Services
from fleet_server.store import Database, approvals, links, rollouts
from fleet_server.store.rollouts import Stored

MAX_NOTE: Final = 500
MIN_DIGITS: Final = 12


def approve_rollout(services: Services, rollout_id: str, *, digest: str, note: str = "", actor: Actor) -> ApprovalView:
    """Approve the plan that the person looked at.

    Args:
        services: The server's parts.
        rollout_id: A rollout that has not started.
        digest: Of the plan, as `approvals_of` shows it.
        note: The person's words.
        actor: Operator or admin, not the creator.

    Raises:
        NotFoundError: No such rollout.
        ForbiddenError: Another role, or the creator.
        ConflictError: The plan has changed since (the message says what), or this person approved it already.
        TransitionError: It is past approval.
    """
    check_digest(digest, "plan digest")
    if len(note) > MAX_NOTE:
        raise InputError(f"the note has {len(note)} characters, the limit is {MAX_NOTE}")
    now = services.clock()
    with services.db.write() as connection:
        stored = _load(connection, rollout_id, lock=True)
        next_state(stored.rollout.state, Event.APPROVE)
        parts = parts_of(connection, stored)
        before = approvals.of_rollout(connection, rollout_id)
        state = standing(stored.rollout, parts, before)
        _refuse(stored.rollout, state, actor)
        if digest != state.digest:
            raise ConflictError(_moved(digest, state, parts, before, rollout_id))
        approvals.add(connection, rollout_id, Approval(actor.name, digest, now, note.strip(), parts))
        given = approvals.of_rollout(connection, rollout_id)
        after = standing(stored.rollout, parts, given)
        detail = f"plan {digest[:12]}, {len(after.valid)} of {after.needed} approvals" + (f": {note.strip()}" if note.strip() else "")
        changed = stored.rollout
        if not after.missing and changed.state is RolloutState.DRAFT:
            changed = apply_person(changed, Event.APPROVE.value, detail, now)
            rollouts.save(connection, stored, changed, None)
        note_action(connection, changed, "approve", actor.name, detail, now)
        return _view(_load(connection, rollout_id), parts, given)


def approvals_of(db: Database, rollout_id: str) -> ApprovalView:
    """Where the approvals of a rollout stand, with the digest that an approval must name.

    Raises:
        NotFoundError: No such rollout.
    """
    with db.read() as connection:
        stored = _load(connection, rollout_id)
        return _view(stored, parts_of(connection, stored), approvals.of_rollout(connection, rollout_id))


def refuse_unapproved(connection: sa.Connection, stored: Stored) -> None:
    """Refuse a start that lacks approvals of the plan as it is now.

    Raises:
        ConflictError: The message says what is missing.
    """
    if stored.rollout.policy.approvals == 0:
        return
    rollout_id = stored.rollout.rollout_id
    state = standing(stored.rollout, parts_of(connection, stored), approvals.of_rollout(connection, rollout_id))
    if state.missing:
        raise ConflictError(f"rollout {rollout_id} cannot start: {state.missing}. Nothing was done.")


def refuse_another_plan(connection: sa.Connection, rollout_id: str, digest: str) -> None:
    """Refuse a rollout whose plan is not the one that a person looked at.

    Args:
        connection: The transaction that made the rollout; refusing takes it back.
        rollout_id: Which.
        digest: Of the plan, or its first MIN_DIGITS digits or more.

    Raises:
        InputError: It is no such digest.
        ConflictError: It is that of another plan.
    """
    if len(digest) < MIN_DIGITS:
        raise InputError(f"plan {digest!r} has {len(digest)} digits; give at least {MIN_DIGITS} of the 64")
    now = plan_digest(parts_of(connection, _load(connection, rollout_id)))
    if not now.startswith(digest.lower()):
        raise ConflictError(
            f"you looked at plan {digest[:MIN_DIGITS]}, it is {now[:MIN_DIGITS]} now: devices, labels, other rollouts or what you "
            "asked for have changed. Nothing was created; look again."
        )


def parts_of(connection: sa.Connection, stored: Stored) -> dict[str, str]:
    """The parts of a rollout's plan as they are now."""
    rollout = stored.rollout
    found = [rollouts.load(connection, other) for other in links.others(connection, rollout.rollout_id, "supersedes")]
    ends = [Superseded(one.rollout.rollout_id, one.rollout.state.value, one.rollout.wave, one.version) for one in found if one is not None]
    membership = approvals.membership_document(connection, rollout.rollout_id)
    return plan_parts(rollout, document_of(stored.selection), membership=membership, superseded=ends)


def _refuse(rollout: Rollout, state: Standing, actor: Actor) -> None:
    why = refusal(rollout, state, actor.name, actor.role)
    if not why:
        return
    if actor.name in state.valid or state.needed == 0:
        raise ConflictError(f"{why}. Nothing was done.")
    raise ForbiddenError(f"{why}. Nothing was done.")


def _moved(digest: str, state: Standing, parts: dict[str, str], given: list[Approval], rollout_id: str) -> str:
    known = next((one for one in given if one.digest == digest), None)
    # Of a plan that nobody approved only its digest is known; after a plan is made, only what it supersedes can move.
    changed = what_changed(known.parts, parts) if known is not None else f"what its start would end: now {parts['supersedes']}"
    return (
        f"you looked at plan {digest[:12]} of rollout {rollout_id}, it is {state.digest[:12]} now; changed: {changed}. Nothing was done; "
        "look again."
    )


def _load(connection: sa.Connection, rollout_id: str, *, lock: bool = False) -> Stored:
    stored = rollouts.load(connection, rollout_id, lock=lock)
    if stored is None:
        raise NotFoundError("rollout", rollout_id)
    return stored


def _view(stored: Stored, parts: dict[str, str], given: list[Approval]) -> ApprovalView:
    state = standing(stored.rollout, parts, given)
    rows = [
        ApprovalRow(one.approver, one.approved_at, one.note, one.digest == state.digest and one.approver in state.valid) for one in given
    ]
    value = stored.rollout
    return ApprovalView(
        value.rollout_id, value.state.value, stored.version, state.digest, state.needed, rows, state.missing, parts["supersedes"]
    )
