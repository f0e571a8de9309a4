"""What people do, whether on the page or by the API: the same functions, with the name of who did it.

Each is one transaction that holds the change, its consequences and its entry in the log. Publishing comes after the commit.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from edgefleet.errors import EdgefleetError, InputError
from edgefleet.identifiers import check_id
from edgefleet.signing import PublicKey
from fleet_server import audit, auth, enlisting, origins, queries
from fleet_server.approving import refuse_another_plan, refuse_unapproved
from fleet_server.auth import Actor
from fleet_server.drafts import draft_of
from fleet_server.enroll.credentials import give_password
from fleet_server.errors import ConflictError
from fleet_server.halting import refuse_while_halted
from fleet_server.labels import check_labels, described
from fleet_server.ownership import why_nothing_is_left
from fleet_server.queries import NotFoundError
from fleet_server.read_models import ReleaseRow, RolloutView
from fleet_server.reasons import MAX_REASON
from fleet_server.releases.floor import refuse_below
from fleet_server.releases.push import store_release
from fleet_server.rollout import Event, Rollout, RolloutState, apply_person, parse_policy
from fleet_server.rollout.cautions import refuse_hopeless
from fleet_server.rollout.judgement import OWN_SITES
from fleet_server.rollout.outline import outline, plan_salt
from fleet_server.scheduler import claiming
from fleet_server.scheduler.steering import note_action, sync_desired
from fleet_server.selection import Document, document_of, groups_in, meant, read_document
from fleet_server.services import Services
from fleet_server.store import (
    assignments,
    changes,
    evidence_members,
    facts,
    floors,
    groups,
    held_back,
    links,
    members,
    past_rollouts,
    rollouts,
)
from fleet_server.store.moments import from_micros, to_micros
from fleet_server.store.rollouts import Stored
from fleet_server.store.tables import EVENT, RELEASE

ACTIONS: Final = ("start", "pause", "confirm", "resume", "abort", "roll-back")


@dataclass(frozen=True)
class Enrolled:
    """What a device must know; token and password are shown this once."""

    device_id: str
    project: str
    fleet: str
    director_key: str
    token: str
    broker_url: str
    mqtt_username: str
    mqtt_password: str


def enroll_device(
    services: Services, *, device_id: str, project: str, public_key: str, labels: Mapping[str, str], actor: Actor
) -> Enrolled:
    """Let a device into the fleet.

    Args:
        services: The server's parts.
        device_id: Identifier that is not taken.
        project: What it will run.
        public_key: Ed25519, 32 bytes in hex; the private half stays on the device.
        labels: For selections; `site` is shown on the page.
        actor: Who enrols it.

    Raises:
        InputError: An identifier, key or label is not accepted.
        ConflictError: The id is taken: another key under the same name would lock the first device out.
    """
    check_id(device_id, "device id")
    check_id(project, "project")
    key = PublicKey(public_key)
    accepted = check_labels(labels)
    at = services.now_us()
    with services.db.write() as connection:
        enlisting.admit(connection, device_id=device_id, project=project, public_key=key.hex, labels=accepted, at=at, actor=actor.name)
        token = auth.issue_token(connection, at, f"device {device_id}", "device", device_id)
        enlisting.follow(connection, project, device_id, services.clock())
        if floors.counter_of(connection, project):
            assignments.issue_again(connection, assignments.Director(services.director, services.config.fleet), device_id, at)
        audit.record(connection, at, actor=actor.name, action="enroll", subject=("device", device_id), detail=described(accepted))
        changes.touch(connection, at, "devices", "overview", f"device:{device_id}")
        # Inside the transaction: a device whose password could not be written is not enrolled.
        user, password = _broker_account(services, device_id)
    url = services.config.public_broker_url or services.config.broker_url or ""
    director = services.director.public.hex
    return Enrolled(device_id, project, services.config.fleet, director, token, url, user, password)


def push_release(services: Services, *, project: str, version: str, manifest: bytes, note: str, actor: Actor) -> ReleaseRow:
    """Take a bundle whose files have arrived as a release of its project. See `releases.push.store_release`."""
    release_id = store_release(services, project=project, version=version, manifest=manifest, note=note, actor=actor.name)
    return queries.release(services.db, release_id)


def create_rollout(
    services: Services,
    *,
    release_id: str,
    policy: dict[str, Any],
    selection: Document,
    actor: Actor,
    fixes: str = "",
    digest: str = "",
) -> RolloutView:
    """Plan a rollout: fixed waves over the devices that are selected now; nothing happens until it is started.

    Args:
        services: The server's parts.
        release_id: What is rolled out.
        policy: As in a policy file.
        selection: Which devices: labels that a device must have, or an expression; empty: all of the project.
        actor: Who plans it.
        fixes: A rollout that was aborted or taken back and that this one mends; empty: none.
        digest: Of the plan that the person looked at, or its first MIN_DIGITS digits or more; empty: whatever it is now.

    Raises:
        NotFoundError: No such release.
        ConfigError: The policy is not valid, or the selection matches no device.
        ConflictError: A device belongs to another rollout that is not over, or the plan is another one than that of `digest`.
    """
    parsed = parse_policy(policy)
    asked = read_document(selection)
    now = services.clock()
    at = to_micros(now)
    with services.db.write() as connection:
        release = connection.execute(sa.select(RELEASE).where(RELEASE.c.release_id == release_id)).first()
        if release is None:
            raise NotFoundError("release", release_id)
        reached = enlisting.reached(connection, release, parsed, asked)
        device_ids, left_out = reached.device_ids, reached.left_out
        enlisting.hours(connection, parsed, device_ids)  # refuses windows in which nobody could ever begin
        chosen = enlisting.selected(connection, parsed, device_ids, held_back.too_often(connection, release.project))
        salt = plan_salt(release.bundle_digest, parsed, document_of(reached.selection), rollouts.of_release(connection, release_id))
        claimed = claiming.at_creation(connection, services, release.project, device_ids, parsed)
        came_from = origins.of(connection, release.project, claimed.owners if claimed.word == "supersede" else (), fixes)
        chosen = origins.marked(chosen, came_from)
        planned = outline(parsed, [one.candidate for one in chosen], salt, past_rollouts.history(connection, release.project))
        planned = origins.ordered(planned, chosen, came_from)
        if planned.course is not None:
            refuse_hopeless(planned.course)
        waves = planned.waves if planned.course is None else ()
        rollout = draft_of(release, parsed, salt, now, actor.name, waves=waves, course=planned.course)
        has = claimed.word == "free"
        rollouts.insert(connection, rollout, reached.selection, at, active=has)
        groups.plan_with(connection, rollout.rollout_id, groups_in(asked))
        if planned.membership is not None:
            evidence_members.insert(connection, rollout, planned.membership, chosen, active=has)
        claiming.link(connection, rollout.rollout_id, claimed, at)
        if fixes:
            links.add(connection, rollout.rollout_id, "fixes", (fixes,), at)
        if digest:
            refuse_another_plan(connection, rollout.rollout_id, digest)
        whom = f"{len(device_ids)} devices ({meant(asked, reached.selection)})"
        detail = f"{release.project} {release.version} to {whom} under policy {parsed.name!r}"
        detail += f", without {left_out} on which the bundle failed before" if left_out else ""
        note_action(connection, rollout, "create", actor.name, detail, now)
    return queries.rollout(services.db, rollout.rollout_id, now)


def rollout_action(services: Services, rollout_id: str, action: str, *, version: int, reason: str, actor: Actor) -> RolloutView:
    """Start, pause, confirm, resume, abort or roll back a rollout that is still as the person saw it.

    Args:
        services: The server's parts.
        rollout_id: Which.
        action: One of ACTIONS.
        version: Of the rollout that the person looked at.
        reason: The person's words, at most MAX_REASON characters.
        actor: Who acts.

    Raises:
        NotFoundError: No such rollout.
        ConflictError: It has changed since; the message says who did what.
        TransitionError: Its state does not know the action, or nothing waits for a confirmation.
    """
    if action not in ACTIONS:
        raise InputError(f"action {action[:40]!r} is unknown: one of {', '.join(ACTIONS)}")
    if len(reason) > MAX_REASON:
        raise InputError(f"the reason has {len(reason)} characters, the limit is {MAX_REASON}")
    now = services.clock()
    with services.db.write() as connection:
        stored = rollouts.load(connection, rollout_id, lock=True)
        if stored is None:
            raise NotFoundError("rollout", rollout_id)
        _refuse_action(connection, services, stored, action, version)
        if action == "start" and stored.rollout.state in (RolloutState.DRAFT, RolloutState.APPROVED):
            refuse_unapproved(connection, stored)
            if not claiming.at_start(connection, services, stored, actor.name, now):
                action = ""  # it waits in the queue, and starts by itself
        if action:
            words = reason.strip() or f"{actor.name} chose {action}"
            dark_sites = _dark_sites(connection, stored.rollout, now) if action == "resume" else 0
            after = apply_person(stored.rollout, Event(action).value, words, now, dark_sites=dark_sites)
            # A clock that was set back must not make the engine wait for the old time.
            rollouts.save_and_look(connection, stored, after, now)
            if action in ("abort", "roll-back"):
                sync_desired(connection, services, after, facts.read(connection, after, now), now)
            note_action(connection, after, action, actor.name, reason.strip(), now)
    services.wake.set()
    return queries.rollout(services.db, rollout_id, now)


def _refuse_action(connection: sa.Connection, services: Services, stored: Stored, action: str, version: int) -> None:
    rollout_id = stored.rollout.rollout_id
    if stored.version != version:
        raise ConflictError(_what_happened(connection, stored.rollout, version, stored.version))
    if gone := why_nothing_is_left(connection, stored.rollout):
        raise ConflictError(f"the devices of rollout {rollout_id} {gone}; there is nothing left to act on here. Nothing was done.")
    stuck = [] if action != "roll-back" or stored.rollout.policy.baseline else members.without_previous(connection, rollout_id)
    if stuck:
        names = ", ".join(stuck[:3])
        why = "ran no release before and the policy names no baseline, so they cannot go back"
        raise ConflictError(f"{len(stuck)} devices ({names}) {why}; abort, and push a better one")
    if action in ("start", "confirm", "resume"):
        if stored.rollout.state is not RolloutState.PAUSED_RB:  # what goes back does not go to the release itself
            value = stored.rollout
            refuse_below(connection, value.project, value.release_id, value.release_counter, f"rollout {rollout_id} cannot {action}")
        refuse_while_halted(connection, services, f"rollout {rollout_id} cannot {action}")


def _dark_sites(connection: sa.Connection, rollout: Rollout, now: datetime) -> int:
    """Sites that keep the opening waiting, where there are too few for a statistic."""
    try:
        tally = facts.read(connection, rollout, now).tally
    except EdgefleetError:
        return 0  # what cannot be read pauses it again at the next look
    return tally.sites_out if tally is not None and tally.sites_exposed < OWN_SITES else 0


def _broker_account(services: Services, device_id: str) -> tuple[str, str]:
    config = services.config
    if config.mosquitto_password_file is None:
        return "", ""
    return device_id, give_password(device_id, config.mosquitto_password_file, config.mosquitto_pid_file)


def _what_happened(connection: sa.Connection, rollout: Rollout, seen: int, version: int) -> str:
    newest = sa.select(EVENT).where(EVENT.c.subject_kind == "rollout", EVENT.c.subject == rollout.rollout_id).order_by(EVENT.c.seq.desc())
    event = connection.execute(newest.limit(1)).first()
    who = "" if event is None else f"{event.actor} did {event.action} at {from_micros(event.at):%H:%M:%S} UTC; "
    return (
        f"you saw version {seen} of this rollout, it is at {version}: {who}it is {rollout.state.value} now. Nothing was done; look again."
    )
