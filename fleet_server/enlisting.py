"""Who is in a rollout: when it is created, and when devices come into its selection or leave it afterwards."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from edgefleet.errors import ConfigError
from fleet_server.errors import ConflictError
from fleet_server.releases.floor import refuse_below
from fleet_server.rollout import Policy, Rollout, RolloutState
from fleet_server.rollout.opening_hours import ZONE, Hours
from fleet_server.rollout.outline import candidates
from fleet_server.selecting import refuse_unknown_labels, remarks, resolved
from fleet_server.selection import Selection, logged, matches, written
from fleet_server.store import devices, evidence_members, evidence_sums, removals, rollouts, selecting, stays
from fleet_server.store.evidence_members import Selected
from fleet_server.store.moments import to_micros
from fleet_server.store.tables import RELEASE, ROLLOUT, ROLLOUT_MEMBER

LOG = logging.getLogger(__name__)

REGION: Final = "region"
_NOT_STARTED: Final = (RolloutState.DRAFT, RolloutState.APPROVED)
# As long as these last, who comes into the selection is let in.
OPEN: Final = (*_NOT_STARTED, RolloutState.RUNNING, RolloutState.SOAKING, RolloutState.PAUSED)


@dataclass(frozen=True)
class Reached:
    """Devices of a selection, in order, without `left_out` others on which the bundle failed before.

    Attributes:
        selection: What the selection means, without groups.
    """

    selection: Selection
    device_ids: list[str]
    left_out: int


def reached(connection: sa.Connection, release: sa.Row[Any], policy: Policy, wanted: Selection) -> Reached:
    """Whom a rollout of a release would reach: the same for its dry run and for its creation.

    Raises:
        ConfigError: A label, group, device or baseline that the project does not have, or nobody is selected.
        ConflictError: The release or the policy's baseline lies below the release floor, or the bundle failed before on all devices.
    """
    refuse_below(connection, release.project, release.release_id, release.counter, "no rollout can be made")
    if policy.baseline is not None:
        _refuse_baseline(connection, release, policy.baseline)
    selection = resolved(connection, release.project, wanted)
    refuse_unknown_labels(connection, release.project, policy.strata or (), "strata")
    chosen = selecting.select_ids(connection, release.project, selection)
    if not chosen:
        told = " ".join(remarks(connection, release.project, selection)) or "Its parts exclude each other, or no device is enrolled."
        raise ConfigError(
            f"the selection matches no device of {release.project}, nothing to roll out: `{logged(written(selection))}`. {told} "
            f"`edgefleet devices list --project {release.project}` lists what there is."
        )
    refusing = stays.refusing(connection, release.bundle_digest)
    found = Reached(selection, [device_id for device_id in chosen if device_id not in refusing], len(refusing.intersection(chosen)))
    if found.left_out and not found.device_ids:
        raise ConflictError(
            f"bundle {release.bundle_digest[:12]} failed before on all {found.left_out} selected devices; push a better one"
        )
    return found


def selected(
    connection: sa.Connection, policy: Policy, device_ids: Sequence[str], never_held: frozenset[str] = frozenset()
) -> list[Selected]:
    """The devices with what their labels say of stratum, site and region, and those that were held back too often before.

    Raises:
        ConfigError: A label's value cannot be the name of a stratum or site.
    """
    labels = devices.labels_of(connection, device_ids)
    found = candidates(policy, device_ids, labels)
    told = [replace(one, never_held=True) if one.device_id in never_held else one for one in found]
    return [Selected(one, labels.get(one.device_id, {}).get(REGION, "")) for one in told]


def hours(connection: sa.Connection, policy: Policy, device_ids: Sequence[str]) -> Hours:
    """When the devices may begin, by the policy's windows and their own clocks.

    Raises:
        ConfigError: The policy has windows, and no device has a clock.
    """
    if not policy.windows or policy.emergency:
        return Hours()
    zones = devices.label(connection, ZONE, device_ids)
    found = Hours.of(policy.windows, {device_id: zones.get(device_id) for device_id in device_ids})
    found.refuse_if_nobody_may_begin()
    return found


def _refuse_baseline(connection: sa.Connection, release: sa.Row[Any], baseline: str) -> None:
    """Refuse a baseline that no device of the project could be given on its way back.

    Raises:
        ConfigError: It is no release of the project, or what is rolled out.
        ConflictError: It lies below the release floor.
    """
    known = connection.execute(sa.select(RELEASE).where(RELEASE.c.release_id == baseline, RELEASE.c.project == release.project)).first()
    if known is None:
        raise ConfigError(f"baseline = {baseline[:80]!r} is no release of {release.project}; name one that devices can go back to")
    if known.bundle_digest == release.bundle_digest:
        raise ConfigError(f"baseline = {baseline!r} is what is rolled out; name an earlier release, or leave it away")
    refuse_below(connection, known.project, known.release_id, known.counter, "it can be no baseline")


def admit(
    connection: sa.Connection, *, device_id: str, project: str, public_key: str, labels: Mapping[str, str], at: int, actor: str
) -> None:
    """Keep a device that is enrolled. Under the id of a removed one it is another device: with a key of its own, and without its past.

    Raises:
        ConflictError: The id is taken, or the key is that of the removed device.
    """
    known = devices.lock(connection, device_id)
    if known is None:
        devices.insert(connection, device_id=device_id, project=project, public_key=public_key, labels=labels, at=at, actor=actor)
        return
    if known.removed_at is None:
        raise ConflictError(f"device {device_id!r} is enrolled already; choose another id, or use the identity folder it was given")
    if known.public_key == public_key:
        raise ConflictError(f"this key is that of the device {device_id!r} that was removed; make another one, in another identity folder")
    removals.enroll_again(connection, device_id=device_id, project=project, public_key=public_key, at=at, actor=actor)
    devices.set_labels(connection, device_id, labels)


def follow(connection: sa.Connection, project: str, device_id: str, now: datetime) -> None:
    """A device was enrolled or labelled anew: it joins the open rollouts that select it and leaves those that do not any more.

    It keeps the waves: a device that joins gets the wave that its salted hash gives it, and begins when that is open, at its rate. One
    that leaves before it was asked is dropped; afterwards it stays in the evidence that can stop the rollout.

    Args:
        connection: The transaction of the change.
        project: Of the device.
        device_id: Which.
        now: Aware UTC.
    """
    by_evidence = (ROLLOUT.c.project == project, ROLLOUT.c.cell_us.is_not(None), ROLLOUT.c.state.in_([state.value for state in OPEN]))
    labels = devices.labels_of(connection, [device_id]).get(device_id, {})
    for rollout_id in connection.scalars(sa.select(ROLLOUT.c.rollout_id).where(*by_evidence).order_by(ROLLOUT.c.created_at)).all():
        stored = rollouts.load_readable(connection, rollout_id)
        if stored is None or stored.rollout.course is None:
            continue
        if (_join if matches(stored.selection, device_id, labels) else _leave)(connection, stored.rollout, device_id, now):
            _resize(connection, rollout_id, now)


def _resize(connection: sa.Connection, rollout_id: str, now: datetime) -> None:
    """The waves have other sizes now; the row is locked after the sums, in the order of the ingest: else each might wait for the other."""
    stored = rollouts.load(connection, rollout_id, lock=True)
    if stored is not None and stored.rollout.course is not None:
        course = evidence_members.sizes(connection, rollout_id, stored.rollout.course)
        rollouts.save_and_look(connection, stored, replace(stored.rollout, course=course), now)


def _join(connection: sa.Connection, rollout: Rollout, device_id: str, _now: datetime) -> bool:
    if rollout.policy.late_joiners == "ignore" or _member(connection, rollout.rollout_id, device_id) is not None:
        return False
    # A rollout that queues or will supersede takes its devices at its start, this one with them.
    takes_later = rollout.state in _NOT_STARTED and not rollouts.owns_any(connection, rollout.rollout_id)
    if not takes_later and rollouts.owners(connection, rollout.project, [device_id]):
        return False  # one owner of a device and model
    membership = evidence_members.membership_of(connection, rollout.rollout_id)
    if membership is None:
        return False
    try:
        (one,) = selected(connection, rollout.policy, [device_id])
    except ConfigError as err:
        LOG.warning("rollout %s: %s does not join: %s", rollout.rollout_id, device_id, err)
        return False
    return evidence_members.join(connection, rollout, membership, one, active=not takes_later) > 0


def _leave(connection: sa.Connection, rollout: Rollout, device_id: str, now: datetime) -> bool:
    member = _member(connection, rollout.rollout_id, device_id)
    if member is None:
        return False
    if member.counter is None:
        evidence_members.drop(connection, rollout.rollout_id, device_id)
        if member.wave > 0:
            evidence_members.close_ranks(connection, rollout.rollout_id, max(member.wave, rollout.wave), rollout.wave_count)
        return bool(member.wave > 0)
    evidence_sums.gone(connection, rollout.rollout_id, device_id, to_micros(now))
    return False


def _member(connection: sa.Connection, rollout_id: str, device_id: str) -> sa.Row[Any] | None:
    where = (ROLLOUT_MEMBER.c.rollout_id == rollout_id, ROLLOUT_MEMBER.c.device_id == device_id)
    query: sa.Select[Any] = sa.select(ROLLOUT_MEMBER.c.counter, ROLLOUT_MEMBER.c.wave).where(*where)
    return connection.execute(query).first()
