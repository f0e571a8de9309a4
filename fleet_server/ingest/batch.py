"""One batch, one transaction: decode each message by its topic, store what it says, move the acknowledgements on."""

import logging
from collections.abc import Callable, Sequence
from typing import Final

import sqlalchemy as sa

from edgefleet.errors import EdgefleetError, InputError
from edgefleet.messages import Acked, Heartbeat, Presence, Reported, Telemetry, decode
from edgefleet.topics import parse_device_topic
from fleet_server.ingest import reported, telemetry
from fleet_server.ingest.fleet_facts import FleetFacts
from fleet_server.ingest.inbox import Effects, Incoming
from fleet_server.rollout.hearing import Hearing
from fleet_server.store import acks, aside, changes, comparison_rows, devices, evidence_sums, hearing, heartbeats, looks, peaks, rollouts
from fleet_server.store.database import Database

LOG = logging.getLogger(__name__)

MAX_SEQ: Final = 1 << 62
SIGN_OF_LIFE_DELAY_US: Final = 500_000


def store_batch(db: Database, messages: Sequence[Incoming], at: int, heard: Hearing | None = None) -> dict[str, Acked]:
    """Store a batch and return what `acked` should now say, by device.

    Safe to run twice on the same messages: records are known by (device, boot, seq), states are compared before they are written. What a
    message says is noted at `at`, when it was stored; that its sender lived, at the earliest moment at which it may have been sent.

    Args:
        db: The truth.
        messages: In the order of their arrival.
        at: Now, microseconds UTC.
        heard: Kept in the same transaction, for the next process; None: it is kept already.

    Raises:
        sqlalchemy.exc.DatabaseError: Nothing was stored; the caller keeps the messages and tries again.
    """
    with db.write() as connection:
        facts, effects = FleetFacts(connection), Effects()
        records: list[telemetry.Record] = []
        for message in messages:
            try:
                _sort(connection, facts, message, at, effects, records)
            except EdgefleetError as err:
                _put_aside(connection, message, str(err), at, effects)
        oldest = telemetry.store(connection, facts, records, at, effects)
        acks.advance(connection, oldest, at)
        alive = {
            one: max(effects.seen.get(one, 0), effects.online.get(one, 0)) for one in {*effects.seen, *effects.online} if facts.knows(one)
        }
        for moment in sorted(set(alive.values())):
            evidence_sums.heard(connection, sorted(device_id for device_id, its in alive.items() if its == moment), moment)
        devices.seen(connection, {device_id: moment for device_id, moment in effects.seen.items() if facts.knows(device_id)})
        if heard is not None:
            hearing.keep(connection, heard)
        rollouts.mark_due(connection, effects.dirty, looks.at_once(at))
        comparison_rows.look_again(connection, (device_id for device_id, _ in effects.dirty), at)
        # A mere sign of life may end a soak, but a large fleet sends many: one look a second is enough for them.
        rollouts.mark_due(connection, [(device_id, facts.project(device_id)) for device_id in effects.seen], at + SIGN_OF_LIFE_DELAY_US)
        changes.touch(connection, at, *sorted(effects.topics))
        return acks.of_devices(connection, sorted(effects.acked), at)


def _sort(
    connection: sa.Connection, facts: FleetFacts, message: Incoming, at: int, effects: Effects, records: list[telemetry.Record]
) -> None:
    device_id, leaf = parse_device_topic(message.topic)
    if not message.payload:
        return  # an empty retained message only clears the topic
    if not facts.knows(device_id):
        aside.count(connection, "removed-device" if facts.was_removed(device_id) else "unknown-device")
        return
    if leaf == "t":
        records.append(_record(device_id, message))
        effects.acked.add(device_id)
    elif (handle := _HANDLERS.get(leaf)) is not None:
        handle(connection, facts, device_id, message, at, effects)
    if message.is_sign_of_life and leaf != "presence":
        effects.seen[device_id] = _moment(message, at)


def _moment(message: Incoming, at: int) -> int:
    return at if message.sent_after is None else message.sent_after


def _record(device_id: str, message: Incoming) -> telemetry.Record:
    record = decode(Telemetry, message.payload)
    if not (1 <= record.oldest_seq <= record.seq < MAX_SEQ and 0 <= record.boot < 1 << 64):
        raise InputError(
            f"telemetry of {device_id}: boot {record.boot}, sequence {record.seq}, oldest {record.oldest_seq} contradict each other"
        )
    return telemetry.Record(device_id, str(record.boot), record)


def _on_reported(connection: sa.Connection, facts: FleetFacts, device_id: str, message: Incoming, at: int, effects: Effects) -> None:
    reported.store(connection, facts, device_id, decode(Reported, message.payload), at, effects)


def _on_presence(connection: sa.Connection, _facts: FleetFacts, device_id: str, message: Incoming, at: int, effects: Effects) -> None:
    state = decode(Presence, message.payload).state
    if message.is_sign_of_life:
        devices.presence(connection, device_id, state == "online", _moment(message, at))
        if state == "online":
            effects.online[device_id] = _moment(message, at)
    else:
        devices.connected(connection, device_id, state == "online")
    effects.topics |= {"devices", "overview", f"device:{device_id}"}


def _on_heartbeat(connection: sa.Connection, _facts: FleetFacts, device_id: str, message: Incoming, at: int, effects: Effects) -> None:
    if not message.retained:
        beat = decode(Heartbeat, message.payload)
        if message.is_sign_of_life:
            heartbeats.store(connection, device_id, beat, at, alive_at=_moment(message, at))
        if beat.load is not None:
            peaks.note(connection, device_id, beat.load.rss_bytes, at)
        effects.topics |= {"devices", f"device:{device_id}"}


_Handler = Callable[[sa.Connection, FleetFacts, str, Incoming, int, Effects], None]
_HANDLERS: Final[dict[str, _Handler]] = {"reported": _on_reported, "presence": _on_presence, "hb": _on_heartbeat}


def _put_aside(connection: sa.Connection, message: Incoming, reason: str, at: int, effects: Effects) -> None:
    LOG.warning("message on %s put aside: %s", message.topic[:120], reason)
    aside.put(connection, topic=message.topic, payload=message.payload, reason=reason, at=at)
    effects.aside += 1
