"""One decision of the engine, saved with everything that follows from it.

`settle` asks the engine until it holds; each action is one transaction: new value, assignments, signed documents, outbox, log, change.
`sync_desired` is level-triggered: it compares what the rollout wants on each of its devices with what is assigned, so that it can be
repeated at any time.
"""

import logging
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa

from edgefleet.errors import EdgefleetError
from fleet_server import audit
from fleet_server.rollout import Action, ActionKind, Facts, Rollout, RolloutState, apply, decide, next_due, progress, wants
from fleet_server.rollout.transitions import FINAL
from fleet_server.scheduler import by_evidence, comparing, winner
from fleet_server.scheduler.assigning import assign_new, assign_previous
from fleet_server.scheduler.changing import held_up
from fleet_server.services import Services
from fleet_server.store import assignments, changes, decisions, evidence_sites, facts, halts, looks, members, rollouts
from fleet_server.store.moments import to_micros

LOG = logging.getLogger(__name__)

ENGINE: Final = "engine"
LEASE_US: Final = 30_000_000
# In all other states a device may keep the release, and nobody gets it: one that went back stays back, whatever it reports later.
ASKING: Final = frozenset({RolloutState.RUNNING, RolloutState.SOAKING})
READ_AGAIN: Final = timedelta(minutes=1)  # what could not be read may have been repaired, and may hold evidence that stops the rollout
DATABASE_TRIES: Final = 3
MAX_ACTIONS: Final = 400  # invariant: at most 5 x (waves + 1) actions, and 64 waves are the limit


def settle(services: Services, rollout_id: str) -> int:
    """Apply the engine's actions until it holds; the number of actions taken."""
    taken = failures = 0
    while taken < MAX_ACTIONS:
        try:
            comparing.bring_up(services, rollout_id)
            if not _step(services, rollout_id):
                return taken
            taken += 1
        except Exception as err:  # a rollout whose decision fails must stop, and must not stop the others
            failures += 1
            if isinstance(err, sa.exc.OperationalError) and failures < DATABASE_TRIES:
                # A lock or a deadlock with somebody else: the transaction was undone as a whole, and says nothing of the rollout.
                LOG.warning("rollout %s: the database refused, it is tried again: %s", rollout_id, err.orig)
                continue
            LOG.exception("rollout %s: the decision failed", rollout_id)
            _stop(services, rollout_id, f"Pause: the decision failed ({type(err).__name__}: {str(err)[:200]}).")
            return taken
    _stop(services, rollout_id, f"Pause: no decision was final after {MAX_ACTIONS} actions.")
    return MAX_ACTIONS


def sync_desired(connection: sa.Connection, services: Services, rollout: Rollout, known: Facts, now: datetime) -> int:
    """Assign what the rollout wants where something else is assigned; the number of devices changed.

    Of a rollout by evidence a bounded number at a time: the scheduler comes back for the others. Nothing while the fleet is
    halted.
    """
    if halts.is_halted(connection, services.config.fleet):
        return 0
    if rollout.course is not None:
        return by_evidence.take_back(connection, services, rollout, now)
    owned = rollouts.owned(connection, rollout.rollout_id)
    candidates = [device_id for device_id in rollout.members if device_id in owned and device_id in known.devices]
    assigned = assignments.current(connection, rollout.project, candidates)
    fresh = [device_id for device_id in candidates if assigned.get(device_id) != (rollout.release_id, rollout.rollout_id)]
    held = held_up(connection, rollout, fresh, now)
    previous = members.previous_releases(connection, rollout.rollout_id)
    changed = 0
    for device_id in candidates:
        word, _ = progress(known.devices[device_id], rollout.bundle_digest, rollout.policy, now)
        wanted = wants(rollout, device_id, word)
        has = assigned.get(device_id)
        if wanted == "new" and rollout.state in ASKING and has != (rollout.release_id, rollout.rollout_id) and device_id not in held:
            assign_new(connection, services, rollout, device_id, now)
            changed += 1
        elif wanted == "previous" and has is not None and has[0] == rollout.release_id:
            assign_previous(connection, services, rollout, device_id, previous.get(device_id), now)
            changed += 1
    if changed:
        changes.touch(connection, to_micros(now), "devices", "overview", f"rollout:{rollout.rollout_id}")
    return changed


def note_action(connection: sa.Connection, rollout: Rollout, action: str, actor: str, detail: str, now: datetime) -> None:
    """Write an action into the log and tell the live pages."""
    at = to_micros(now)
    audit.record(connection, at, actor=actor, action=action, subject=("rollout", rollout.rollout_id), detail=detail)
    changes.touch(connection, at, f"rollout:{rollout.rollout_id}", "overview", "rollouts")


def _step(services: Services, rollout_id: str) -> bool:
    """One action, or none: then the assignments are compared and the next look is planned. Whether something was done."""
    now = services.clock()
    with services.db.write() as connection:
        stored = rollouts.load(connection, rollout_id)
        if stored is None or halts.is_halted(connection, services.config.fleet):
            return False
        if stored.rollout.course is not None:
            evidence_sites.come_due(connection, stored.rollout, now)
        known = facts.read(connection, stored.rollout, now)
        action = decide(stored.rollout, known, now)
        if action is None and stored.rollout.course is not None:
            due_at = by_evidence.carry_on(connection, services, stored.rollout, known, now)
            rollouts.save(connection, stored, stored.rollout, comparing.no_later(connection, stored.rollout, due_at))
            return False
        if action is None:
            sync_desired(connection, services, stored.rollout, known, now)
            due_at = comparing.no_later(connection, stored.rollout, next_due(stored.rollout, known, now))
            if known.unreadable and stored.rollout.state not in FINAL:
                due_at = min(due_at or now + READ_AGAIN, now + READ_AGAIN)
            rollouts.save(connection, stored, stored.rollout, due_at)
            return False
        after = apply(stored.rollout, action, now)
        if not rollouts.save_and_look(connection, stored, after, now):
            return True  # somebody acted meanwhile: look again
        if after.course is not None:
            by_evidence.follow(connection, stored.rollout, after, action)
        else:
            sync_desired(connection, services, after, known, now)
        facts_digest = decisions.keep(connection, stored, known, action, now)
        note_action(connection, after, action.kind.value, ENGINE, audit.with_facts(action.reason, facts_digest), now)
        if action.kind is ActionKind.CONCLUDE:
            draft = winner.draft(connection, after, now)
            note_action(connection, draft, "create", ENGINE, draft.last_reason, now)
    if action.kind is ActionKind.COMPLETE:
        services.completed.set()
    return True


def _stop(services: Services, rollout_id: str, reason: str) -> None:
    """Pause a rollout whose decision failed, and read it again in a while; one that cannot even be paused waits until a person acts."""
    now = services.clock()
    try:
        with services.db.write() as connection:
            stored = rollouts.load(connection, rollout_id, lock=True)
            if stored is None:
                return
            before = stored.rollout
            if before.changed_at is not None and now < before.changed_at:
                # By a clock that was set back nothing is decided, and nothing is promoted meanwhile.
                rollouts.save(connection, stored, before, before.changed_at)
                return
            paused = _paused(before, reason, now)
            if (paused.state, paused.last_reason) == (before.state, before.last_reason):
                # It stands and says why already: each look would add the same line to the log.
                rollouts.save(connection, stored, before, None if before.state in FINAL else now + READ_AGAIN)
                return
            rollouts.save(connection, stored, paused, now + READ_AGAIN)
            note_action(connection, paused, ActionKind.PAUSE.value, ENGINE, reason, now)
    except Exception:  # the value itself cannot be read: leave it, but do not look again and again
        LOG.exception("rollout %s: cannot be read, it is left alone until a person looks", rollout_id)
        with services.db.write() as connection:
            looks.look_at(connection, rollout_id, None)


def _paused(rollout: Rollout, reason: str, now: datetime) -> Rollout:
    try:
        return apply(rollout, Action(ActionKind.PAUSE, rollout.wave, reason), now)
    except EdgefleetError:
        stays = rollout.state if rollout.state is not RolloutState.APPROVED else RolloutState.DRAFT
        return replace(rollout, state=stays, last_reason=reason, changed_at=now)
