"""Who owns which devices when several rollouts of one model want them: decided at the creation, carried out at the start.

A rollout that queues or supersedes is created without its devices: they stay with their owner until it starts. A queued one that somebody
has started begins by itself once its devices are free.
"""

import logging
from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa

from edgefleet.errors import EdgefleetError
from fleet_server.approving import refuse_unapproved
from fleet_server.errors import ConflictError
from fleet_server.halting import refuse_while_halted
from fleet_server.releases.floor import refuse_below
from fleet_server.rollout import Event, Policy, RolloutState, apply_person
from fleet_server.rollout.conflicts import Kind, Owner, Resolution, resolve
from fleet_server.scheduler.steering import note_action, sync_desired
from fleet_server.services import Services
from fleet_server.store import facts, links, looks, rollouts
from fleet_server.store.moments import to_micros
from fleet_server.store.rollouts import Stored

LOG = logging.getLogger(__name__)

_NOT_STARTED = (RolloutState.DRAFT, RolloutState.APPROVED)


def at_creation(
    connection: sa.Connection, services: Services, project: str, device_ids: Sequence[str], policy: Policy, kind: Kind = "rollout"
) -> Resolution:
    """Decide the conflict of a rollout that is being created; devices of ended rollouts are freed if it takes its devices now.

    Raises:
        ConflictError: The policy refuses, or must.
    """
    found = resolve(policy.on_conflict, len(device_ids), _owners(connection, project, device_ids), kind)
    if found.word == "refuse":
        raise ConflictError(f"{found.sentence}. Nothing was created.")
    if found.word == "free":
        _let_go(connection, services, found.lets_go)
    return found


def link(connection: sa.Connection, rollout_id: str, found: Resolution, at: int) -> None:
    """Remember what a rollout that was just created waits for, or will end."""
    if found.word == "queue":
        links.add(connection, rollout_id, "queued-behind", found.owners, at)
    elif found.word == "supersede":
        links.add(connection, rollout_id, "supersedes", found.owners, at)


def at_start(connection: sa.Connection, services: Services, stored: Stored, actor: str, now: datetime) -> bool:
    """Give a rollout its devices; False when it has to wait in the queue, and starts by itself later.

    Raises:
        ConflictError: Its devices belong to another rollout, and its policy neither waits nor supersedes.
    """
    rollout = stored.rollout
    device_ids = rollouts.waiting_members(connection, rollout.rollout_id)
    if not device_ids:
        return True
    found = resolve(rollout.policy.on_conflict, len(device_ids), _owners(connection, rollout.project, device_ids))
    if found.word == "refuse":
        raise ConflictError(f"rollout {rollout.rollout_id} cannot start: {found.sentence}. Nothing was done.")
    if found.word == "queue":
        links.add(connection, rollout.rollout_id, "queued-behind", found.owners, to_micros(now))
        links.want_start(connection, rollout.rollout_id, actor)
        note_action(connection, rollout, "queue", actor, found.sentence, now)
        return False
    for owner in found.owners:
        _supersede(connection, owner, rollout.rollout_id, actor, now)
    _let_go(connection, services, found.lets_go)
    rollouts.take_members(connection, rollout.rollout_id)
    links.forget_queue(connection, rollout.rollout_id)
    return True


def start_queued(services: Services, rollout_id: str) -> bool:
    """Start a rollout whose turn has come; whether it was."""
    now = services.clock()
    with services.db.write() as connection:
        # Locked before its owners are read: one that ends meanwhile wakes it afterwards.
        stored = rollouts.load(connection, rollout_id, lock=True)
        if stored is None or stored.rollout.state not in _NOT_STARTED:
            return False
        wanted_by = links.wanted_start(connection, rollout_id)
        device_ids = rollouts.waiting_members(connection, rollout_id)
        owners = _owners(connection, stored.rollout.project, device_ids)
        living = tuple(one.rollout_id for one in owners if one.state is not RolloutState.ABORTED)
        if not wanted_by or living:
            if wanted_by:
                # Who was faster is waited for like the one before, else nothing would ever wake this one.
                links.add(connection, rollout_id, "queued-behind", living, to_micros(now))
            looks.look_at(connection, rollout_id, None)
            return False
        try:
            refuse_while_halted(connection, services, f"rollout {rollout_id} waits")
            value = stored.rollout
            refuse_below(connection, value.project, value.release_id, value.release_counter, f"rollout {rollout_id} cannot start")
            refuse_unapproved(connection, stored)
        except EdgefleetError as err:
            looks.look_at(connection, rollout_id, None)
            note_action(connection, stored.rollout, "queue", "engine", f"its turn has come, but: {err}", now)
            return False
        at_start(connection, services, stored, wanted_by, now)
        after = apply_person(stored.rollout, Event.START.value, f"its turn in the queue has come, as {wanted_by} wanted", now)
        rollouts.save_and_look(connection, stored, after, now)
        note_action(connection, after, "start", wanted_by, "from the queue", now)
    return True


def _owners(connection: sa.Connection, project: str, device_ids: Sequence[str]) -> list[Owner]:
    held: dict[str, list[str]] = {}
    for device_id, owner in rollouts.owners(connection, project, device_ids).items():
        held.setdefault(owner, []).append(device_id)
    found = []
    for owner, devices in sorted(held.items()):
        stored = rollouts.load(connection, owner)
        if stored is not None:
            kind: Kind = "experiment" if stored.rollout.experiment is not None else "rollout"
            found.append(Owner(owner, stored.rollout.state, tuple(sorted(devices)), kind))
    return found


def _let_go(connection: sa.Connection, services: Services, ended: Sequence[str]) -> None:
    """What an ended rollout wants on its devices is settled before it lets go of them."""
    for owner in ended:
        refuse_while_halted(connection, services, f"the devices of rollout {owner} cannot be taken over")
        stored = rollouts.load(connection, owner)
        now = services.clock()
        if stored is not None:
            known = facts.read(connection, stored.rollout, now)
            while sync_desired(connection, services, stored.rollout, known, now):
                pass
        rollouts.release_members(connection, owner)


def _supersede(connection: sa.Connection, owner: str, by: str, actor: str, now: datetime) -> None:
    """A rollout is final at once; devices that have its release keep it until the later one reaches them."""
    stored = rollouts.load(connection, owner, lock=True)
    if stored is None:
        return
    after = apply_person(stored.rollout, Event.SUPERSEDE.value, f"by rollout {by}", now)
    rollouts.save(connection, stored, after, None)
    note_action(connection, after, "supersede", actor, f"by rollout {by}", now)
