"""A device's signed word for what it runs: PROMOTE rests on it, so it is believed only with the right signature and nonce."""

import sqlalchemy as sa

from edgefleet.errors import InputError
from edgefleet.messages import AttestationBody, attestation_payload
from edgefleet.signing import PublicKey
from fleet_server.ingest.fleet_facts import FleetFacts
from fleet_server.store import members
from fleet_server.store.tables import ASSIGNMENT, ATTESTATION
from fleet_server.store.upsert import insert_or_update


def store(connection: sa.Connection, facts: FleetFacts, device_id: str, body: AttestationBody, at: int) -> None:
    """Verify and keep an attestation; one that answers an assignment that is over changes nothing.

    Raises:
        InputError: For another device, not signed by this device's key, or a model that is not in the bundle.
    """
    if body.device != device_id:
        raise InputError(f"attestation names device {body.device[:64]!r}, it came from {device_id!r}")
    if not PublicKey(facts.public_key(device_id)).verifies(body.signature, attestation_payload(body)):
        raise InputError(f"attestation of {device_id} is not signed by the key of its enrolment; enrol the device again if its key changed")
    project = facts.project(device_id)
    where = (ASSIGNMENT.c.device_id == device_id, ASSIGNMENT.c.project == project)
    assigned = connection.execute(sa.select(ASSIGNMENT).where(*where)).first()
    if assigned is None or body.nonce != assigned.nonce or body.bundle_digest != assigned.bundle_digest:
        return
    # A later desired state for another project of the device keeps the nonce and raises the counter.
    if body.epoch != assigned.epoch or body.counter < assigned.counter:
        return
    release = facts.release(body.bundle_digest)
    if release is None or body.model_digest not in release.model_digests:
        raise InputError(f"attestation of {device_id}: model {body.model_digest[:12]} is not a variant of bundle {body.bundle_digest[:12]}")
    row = {
        "device_id": device_id,
        "project": project,
        "bundle_digest": body.bundle_digest,
        "model_digest": body.model_digest,
        "epoch": body.epoch,
        "counter": min(body.counter, (1 << 62)),
        "floor": min(max(body.floors.get(project, 0), 0), 1 << 62),
        "attested_at": at,
    }
    insert_or_update(connection, ATTESTATION, [row])
    for member in members.of_device(connection, device_id, project):
        if member.bundle_digest == body.bundle_digest and member.counter is not None and member.counter <= body.counter:
            members.note_attested(connection, member, at)
