"""Halt every rollout on every device, and lift that again: one signed retained document, kept, queued and logged in one transaction.

A halt beats everything, an emergency rollback as well: until it is lifted the server decides and assigns nothing, and a device begins
nothing, whether the server lives or not. People may still pause, abort and roll back; what follows from that waits for the lift.
"""

from dataclasses import replace
from typing import Final

import sqlalchemy as sa

from fleet_server import audit
from fleet_server.auth import Actor
from fleet_server.errors import ConflictError
from fleet_server.queries.halt import pending, view
from fleet_server.read_halt import HaltView
from fleet_server.reasons import MAX_REASON, reason_of
from fleet_server.rollout.standstill import stood_still
from fleet_server.services import Services
from fleet_server.store import changes, halts, looks, rollouts
from fleet_server.store.assignments import Director
from fleet_server.store.moments import from_micros, to_micros

_READ_BY: Final = f"expected 1 to {MAX_REASON}: people at the devices will read it"


def halt_fleet(services: Services, *, reason: str, actor: Actor) -> HaltView:
    """Stop every rollout on every device. Halting a halted fleet again renews the document with the newer reason.

    Args:
        services: The server's parts.
        reason: For the people at the devices, 1 to MAX_REASON characters.
        actor: Who halts.

    Raises:
        InputError: No reason, or one that is too long.
    """
    words = reason_of(reason, _READ_BY)
    with services.db.write() as connection:
        _issue(connection, services, halted=True, reason=words, actor=actor)
        shown = view(connection, services.config.fleet)
    services.wake.set()
    return shown


def lift_halt(services: Services, *, reason: str, actor: Actor) -> HaltView:
    """Let rollouts go on. The answer lists what was waiting, rollbacks first.

    Raises:
        InputError: No reason, or one that is too long.
        ConflictError: The fleet is not halted.
    """
    words = reason_of(reason, _READ_BY)
    with services.db.write() as connection:
        before = halts.current(connection, services.config.fleet)
        if before is None or not before.halted:
            raise ConflictError("the fleet is not halted; nothing was changed")
        _issue(connection, services, halted=False, reason=words, actor=actor)
        _go_on(connection, services, before.since)
        shown = view(connection, services.config.fleet)
    services.wake.set()
    return shown


def refuse_while_halted(connection: sa.Connection, services: Services, what: str) -> None:
    """Refuse what would let devices begin.

    Raises:
        ConflictError: The fleet is halted.
    """
    stored = halts.current(connection, services.config.fleet)
    if stored is not None and stored.halted:
        since = f"{from_micros(stored.since):%Y-%m-%d %H:%M} UTC"
        raise ConflictError(f"{what}: the fleet is halted since {since} by {stored.ordered_by} ({stored.reason}); lift that first")


def _issue(connection: sa.Connection, services: Services, *, halted: bool, reason: str, actor: Actor) -> None:
    director, at = Director(services.director, services.config.fleet), services.now_us()
    stored = halts.put(connection, director, halted=halted, reason=reason, ordered_by=actor.name[:120], at=at)
    action, subject = "fleet-halt" if halted else "fleet-lift", ("fleet", services.config.fleet)
    audit.record(connection, at, actor=actor.name, action=action, subject=subject, detail=f"{reason} (document {stored.counter})")
    changes.touch(connection, at, "overview", "rollouts", "devices")


def _go_on(connection: sa.Connection, services: Services, since: int) -> None:
    """Every rollout deserves a look now, and its clocks stood still."""
    now = services.clock()
    for waiting in pending(connection):
        stored = rollouts.load_readable(connection, waiting.rollout_id, lock=True)
        if stored is None:
            looks.look_at(connection, waiting.rollout_id, looks.at_once(to_micros(now)))
            continue
        moved = stood_still(stored.rollout, from_micros(since), now)
        rollouts.save_and_look(connection, stored, replace(moved, changed_at=stored.rollout.changed_at), now)
        changes.touch(connection, to_micros(now), f"rollout:{waiting.rollout_id}")
