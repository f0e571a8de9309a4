"""What each device should run, and the signed document that tells it so. The counter of a device only grows."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from edgefleet.desired import DesiredModel, DesiredPayload, TrialPolicy, sign_desired
from edgefleet.messages import encode
from edgefleet.signing import SigningKey
from edgefleet.topics import device_topic
from fleet_server.store import activations, floors, lifts, outbox, sampling_orders
from fleet_server.store.tables import ASSIGNMENT, ATTESTATION, DESIRED, DEVICE, RELEASE, REPORTED
from fleet_server.store.upsert import insert_or_update

EPOCH: Final = 1
_BATCH: Final = 500  # names of one question: PostgreSQL takes 65,535


@dataclass(frozen=True)
class Director:
    """Who signs, for which fleet."""

    key: SigningKey
    fleet: str


@dataclass(frozen=True)
class Wish:
    """What one project on one device should run, because of which rollout, tried how."""

    release_id: str
    rollout_id: str
    trial: TrialPolicy


def current(connection: sa.Connection, project: str, device_ids: Sequence[str]) -> dict[str, tuple[str, str]]:
    """(release id, rollout id) assigned to each of the devices."""
    found: dict[str, tuple[str, str]] = {}
    for start in range(0, len(device_ids), _BATCH):
        query = sa.select(ASSIGNMENT.c.device_id, ASSIGNMENT.c.release_id, ASSIGNMENT.c.rollout_id)
        query = query.where(ASSIGNMENT.c.project == project, ASSIGNMENT.c.device_id.in_(device_ids[start : start + _BATCH]))
        found |= {row.device_id: (row.release_id, row.rollout_id) for row in connection.execute(query)}
    return found


def assign(
    connection: sa.Connection, director: Director, device_id: str, project: str, wish: Wish | None, at: int, *, forward: bool = True
) -> int:
    """Change what a device should run, sign it, queue it for publishing.

    Args:
        connection: The transaction of the cause.
        director: Signs.
        device_id: An enrolled device.
        project: Which of its models.
        wish: None takes the project's desired model away.
        at: Microseconds UTC.
        forward: Whether it goes to a new release, or back.

    Returns:
        The new counter.
    """
    counter = _next_counter(connection, device_id)
    before = current(connection, project, [device_id]).get(device_id, (None, ""))[0]
    after, cause = (None, "") if wish is None else (wish.release_id, wish.rollout_id)
    activations.note(connection, device_id, project, before=before, after=after, rollout_id=cause, forward=forward, at=at)
    _put(connection, director, device_id, project, wish, counter, at)
    return counter


def withdraw(
    connection: sa.Connection, director: Director, device_id: str, project: str, wish: Wish | None, at: int, *, rollout_id: str
) -> int:
    """Ask a device no longer for what a rollout wanted and it never heard of; as `assign`, and no change of the device."""
    counter = _next_counter(connection, device_id)
    activations.forget(connection, device_id, project, rollout_id)
    _put(connection, director, device_id, project, wish, counter, at)
    return counter


def _put(connection: sa.Connection, director: Director, device_id: str, project: str, wish: Wish | None, counter: int, at: int) -> None:
    if wish is None:
        connection.execute(sa.delete(ASSIGNMENT).where(ASSIGNMENT.c.device_id == device_id, ASSIGNMENT.c.project == project))
    else:
        insert_or_update(connection, ASSIGNMENT, [_assignment(connection, device_id, project, wish, counter, at)])
    _issue(connection, director, device_id, counter, at)


def issue_again(connection: sa.Connection, director: Director, device_id: str, at: int) -> int:
    """Sign and queue a device's desired state under a new counter, because something beside its models has changed; the new counter."""
    counter = _next_counter(connection, device_id)
    _issue(connection, director, device_id, counter, at)
    return counter


def lift(connection: sa.Connection, director: Director, device_id: str, bundle_digest: str, at: int, by: str) -> int:
    """Sign and queue a person's word that a bundle may be tried again where it failed; the counter of the document that says so."""
    counter = _next_counter(connection, device_id)
    lifts.put(connection, device_id, bundle_digest, counter=counter, at=at, by=by)
    _issue(connection, director, device_id, counter, at)
    return counter


def committed_release(connection: sa.Connection, device_id: str, project: str) -> str | None:
    """The release that the device runs by its own report (else by its attestation), None when it is none of ours."""
    for table in (REPORTED, ATTESTATION):
        digest = sa.select(table.c.bundle_digest).where(table.c.device_id == device_id, table.c.project == project).scalar_subquery()
        found: str | None = connection.scalar(
            sa.select(RELEASE.c.release_id).where(RELEASE.c.project == project, RELEASE.c.bundle_digest == digest)
        )
        if found is not None:
            return found
    return None


def desired_after(connection: sa.Connection, device_id: str, limit: int) -> list[tuple[str, bytes]]:
    """(device, signed message) of the devices after `device_id`, in order: for publishing everything again, piece by piece."""
    query = sa.select(DESIRED.c.device_id, DESIRED.c.message).where(DESIRED.c.device_id > device_id)
    return [(row.device_id, row.message) for row in connection.execute(query.order_by(DESIRED.c.device_id).limit(limit))]


def _next_counter(connection: sa.Connection, device_id: str) -> int:
    where = DEVICE.c.device_id == device_id
    connection.execute(sa.update(DEVICE).where(where).values(desired_counter=DEVICE.c.desired_counter + 1))
    return int(connection.scalar(sa.select(DEVICE.c.desired_counter).where(where)) or 0)


def _assignment(connection: sa.Connection, device_id: str, project: str, wish: Wish, counter: int, at: int) -> dict[str, Any]:
    digest = connection.scalar(sa.select(RELEASE.c.bundle_digest).where(RELEASE.c.release_id == wish.release_id))
    return {
        "device_id": device_id,
        "project": project,
        "release_id": wish.release_id,
        "rollout_id": wish.rollout_id,
        "bundle_digest": digest,
        "nonce": secrets.token_hex(16),
        "trial": msgspec.json.encode(wish.trial).decode(),
        "epoch": EPOCH,
        "counter": counter,
        "assigned_at": at,
    }


def _issue(connection: sa.Connection, director: Director, device_id: str, counter: int, at: int) -> None:
    query = (
        sa.select(ASSIGNMENT, RELEASE.c.version, RELEASE.c.counter.label("release_counter"))
        .join(RELEASE, RELEASE.c.release_id == ASSIGNMENT.c.release_id)
        .where(ASSIGNMENT.c.device_id == device_id)
    )
    models = {
        row.project: DesiredModel(
            bundle_digest=row.bundle_digest,
            release=row.version,
            release_counter=row.release_counter,
            rollout=row.rollout_id,
            nonce=row.nonce,
            trial=msgspec.json.decode(row.trial, type=TrialPolicy),
        )
        for row in connection.execute(query)
    }
    own = connection.scalar(sa.select(DEVICE.c.project).where(DEVICE.c.device_id == device_id)) or ""
    kept = floors.of_projects(connection, {own, *models})
    order = sampling_orders.in_force(connection, at, [device_id]).get(device_id)
    payload = DesiredPayload(
        format_version=1,
        fleet=director.fleet,
        device=device_id,
        epoch=EPOCH,
        counter=counter,
        issued_at=at,
        models=models,
        sampling=None if order is None else order.order,
        lifted=lifts.waiting(connection, device_id),
        floors=kept,
    )
    message = encode(sign_desired(payload, director.key))
    row = {"device_id": device_id, "epoch": EPOCH, "counter": counter, "message": message, "issued_at": at, "floor": kept.get(own, 0)}
    insert_or_update(connection, DESIRED, [row])
    outbox.put(connection, device_topic(device_id, "desired"), message, at)
