"""What people do about single devices: other labels, out of the fleet, another device under the same id, a quarantine lifted."""

import hashlib
from dataclasses import replace

from edgefleet.signing import SigningKey
from fleet_server import relabelling, usecases
from fleet_server.removing import remove_device
from fleet_server.unquarantining import lift_quarantine
from tests.properties.rollout_fleet import probes
from tests.properties.rollout_fleet.device import FieldDevice
from tests.properties.rollout_fleet.invariants import newly
from tests.properties.rollout_fleet.kept import keeps, require
from tests.properties.rollout_fleet.process import what_if
from tests.properties.rollout_fleet.seen import Seen
from tests.properties.rollout_fleet.stage import PEOPLE, Stage, labels_of
from tests.unit.fleet_server.server_world import PROJECT

LEAST_LEFT = 3  # devices, so that there is a fleet to look at


def relabel(stage: Stage, device_id: str, site: str) -> None:
    """A person moves a device to another site."""
    stage.person(lambda services: relabelling.set_labels(services, device_id, put={"site": site}, reason="moved", actor=PEOPLE[2]))


def remove(stage: Stage, device_id: str) -> None:
    """A person takes a device out; the broker lets it in no more, so that only what is under way already can still arrive."""
    if device_id in stage.seen.removed or len(stage.devices) - len(stage.seen.removed) <= LEAST_LEFT:
        return
    for rollout_id in stage.live():
        row = stage.seen.members.get((rollout_id, device_id))
        one = stage.seen.rollouts.get(rollout_id)
        if row is not None and row.counter is not None and one is not None and one.state in probes.JUDGED:
            a_removal_is_never_good_news(stage, rollout_id, device_id)
    if stage.person(lambda services: remove_device(services, device_id, reason="scrapped", actor=PEOPLE[0])) is not None:
        stage.devices[device_id].online = False


def come_back(stage: Stage, device_id: str) -> None:
    """Another device is enrolled under the id of a removed one; what the first one said is not delivered any more."""
    if device_id not in stage.seen.removed:
        return
    old = stage.devices[device_id]
    key = SigningKey(hashlib.sha256(f"{device_id} {old.key.public.hex}".encode()).digest())
    labels = labels_of(int(device_id[1:]))
    enrolled = stage.person(
        lambda services: usecases.enroll_device(
            services, device_id=device_id, project=PROJECT, public_key=key.public.hex, labels=labels, actor=PEOPLE[0]
        )
    )
    if enrolled is not None:
        broker = stage.broker
        broker.uplink = [message for message in broker.uplink if f"/{device_id}/" not in message.topic]
        broker.delivered = [message for message in broker.delivered if f"/{device_id}/" not in message.topic]
        stage.devices[device_id] = FieldDevice(device_id, key, old.director, old.fleet, old.models, boot=old.boot + 1_000)


def lift(stage: Stage, device_id: str, pick: int) -> None:
    """A person lets a device try a bundle again; what she may not is refused."""
    held = sorted(stage.seen.quarantined.get(device_id, frozenset()))
    if held:
        bundle = held[pick % len(held)]
        stage.person(lambda services: lift_quarantine(services, device_id, bundle=bundle, reason="the sensor was mended", actor=PEOPLE[1]))


def a_removal_is_never_good_news(stage: Stage, rollout_id: str, device_id: str) -> None:
    """Part of 9: to take a device out that was asked turns nothing into a promotion."""
    with what_if(stage.shared) as db:
        before, _ = probes.answer(stage, db, rollout_id)
        remove_device(replace(stage.template.services, db=db, clock=stage.clock), device_id, reason="what if", actor=PEOPLE[0])
        after, _ = probes.answer(stage, db, rollout_id)
        require(9, probes.is_good(before) or not probes.is_good(after), f"{rollout_id}: without {device_id} {before} became {after}")


@keeps(18, "commit", "fleet_server.scheduler.steering:sync_desired")
def a_quarantined_bundle_does_not_come_back(stage: Stage, before: Seen, now: Seen) -> None:
    """A device that quarantined digest D never gets D as desired again, except by an audited un-quarantine."""
    for device_id, one in newly(before, now).items():
        known = one.bundle_digest in before.quarantined.get(device_id, frozenset())
        lifts = [e for e in now.entries if (e.action, e.subject) == ("unquarantine", device_id) and one.bundle_digest[:12] in e.detail]
        # What the device says after it heard of the last one counts again.
        said = before.said.get(device_id)
        lifted = bool(lifts) and (said is None or said.counter < _lifted_at(stage, device_id, one.bundle_digest))
        require(18, not known or lifted, f"{device_id} is asked for {one.bundle_digest[:12]}, which it quarantined")


def _lifted_at(stage: Stage, device_id: str, digest: str) -> int:
    """Counter of the document that said first that the bundle may be tried again."""
    query = "SELECT counter FROM quarantine_lift WHERE device_id = ? AND bundle_digest = ?"
    return int(stage.eye.value(query, device_id, digest) or 0)
