"""Lift a quarantine: a bundle that failed on a device may be tried there again when it is asked for.

The word travels in the device's signed desired state and only makes it forget: what it runs is asked as always. What the failure counted in
a rollout stays counted.
"""

from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from edgefleet.errors import InputError
from edgefleet.identifiers import check_digest
from fleet_server import audit
from fleet_server.auth import Actor
from fleet_server.errors import ConflictError
from fleet_server.known_devices import hold
from fleet_server.reasons import reason_of
from fleet_server.services import Services
from fleet_server.store import assignments, changes, lifts, looks, rollouts, stays
from fleet_server.store.assignments import Director

LEAST_PREFIX: Final = 8
_DIGEST_CHARS: Final = 64


@dataclass(frozen=True)
class Lifted:
    """A quarantine that was lifted; the device knows it once it reports under `counter` or a later one."""

    device_id: str
    bundle_digest: str
    counter: int


def lift_quarantine(services: Services, device_id: str, *, bundle: str, reason: str, actor: Actor) -> Lifted:
    """Let a device try a bundle again that failed there.

    Args:
        services: The server's parts.
        device_id: A device of the fleet.
        bundle: Digest of the bundle, or its first characters, at least LEAST_PREFIX.
        reason: For the log.
        actor: Who does it.

    Raises:
        InputError: No reason, no digest, or the bundle is not on the device's list.
        NotFoundError: There is no such device.
        ConflictError: It was removed, or the quarantine was lifted already and the device has not heard.
    """
    words, at = reason_of(reason), services.now_us()
    with services.db.write() as connection:
        project = hold(connection, device_id)
        digest = _chosen(connection, device_id, bundle)
        counter = assignments.lift(connection, Director(services.director, services.config.fleet), device_id, digest, at, actor.name)
        detail = f"bundle {digest[:12]} may be tried again: {words}"
        audit.record(connection, at, actor=actor.name, action="unquarantine", subject=("device", device_id), detail=detail)
        rollouts.mark_due(connection, [(device_id, project)], looks.at_once(at))
        changes.touch(connection, at, "devices", f"device:{device_id}")
    services.wake.set()
    return Lifted(device_id, digest, counter)


def _chosen(connection: sa.Connection, device_id: str, bundle: str) -> str:
    """The bundle on the device's list that is meant."""
    if len(bundle) == _DIGEST_CHARS:
        check_digest(bundle, "bundle digest")
    elif not LEAST_PREFIX <= len(bundle) < _DIGEST_CHARS:
        raise InputError(f"bundle {bundle[:80]!r} is no digest; give its {_DIGEST_CHARS} characters, or at least the first {LEAST_PREFIX}")
    waiting = [digest for digest in lifts.waiting(connection, device_id) if digest.startswith(bundle)]
    if waiting:
        raise ConflictError(
            f"the quarantine of bundle {waiting[0][:12]} on {device_id!r} was lifted already; the device has not answered yet"
        )
    held = stays.quarantined(connection, device_id)
    found = [digest for digest in held if digest.startswith(bundle)]
    if len(found) != 1:
        listed = ", ".join(digest[:12] for digest in held) or "none"
        many = "is ambiguous" if found else "did not fail there"
        raise InputError(f"bundle {bundle[:12]} {many}: {device_id!r} lists {listed}. Nothing was changed.")
    return found[0]
