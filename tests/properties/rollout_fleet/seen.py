"""What stands in the database after a commit, read by plain SQL: the invariants must not trust the code that they judge."""

import sqlite3
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NamedTuple

import msgspec

from edgefleet.desired import DesiredPayload
from edgefleet.messages import Desired, decode
from fleet_server.rollout import Rollout
from fleet_server.rollout.membership import Membership


class MemberRow(NamedTuple):
    """A device in a rollout, as stored; times in microseconds."""

    wave: int
    active: bool
    previous_release: str | None
    counter: int | None
    began_at: int | None
    committed_at: int | None
    attested_at: int | None
    failed_at: int | None
    rows: int
    assigned_at: int | None
    place: int
    stratum: str
    site: str
    left_at: int | None
    removed_at: int | None
    parked_at: int | None


class Assigned(NamedTuple):
    """What a device should run."""

    release_id: str
    rollout_id: str
    bundle_digest: str
    counter: int


class Issued(NamedTuple):
    """The signed document that says so."""

    counter: int
    message: bytes


class Entry(NamedTuple):
    """One line of the log of actions."""

    seq: int
    at: int
    actor: str
    action: str
    subject_kind: str
    subject: str
    detail: str
    hash: str


class Said(NamedTuple):
    """What a device said last, as stored."""

    counter: int
    running: str
    state: str
    subject: str


@dataclass(frozen=True)
class Seen:
    """The database after one commit."""

    rollouts: dict[str, Rollout]
    versions: dict[str, int]
    members: dict[tuple[str, str], MemberRow]
    assigned: dict[str, Assigned]
    issued: dict[str, Issued]
    counters: dict[str, int]
    entries: tuple[Entry, ...]
    said: dict[str, Said]
    attested: dict[str, str]
    heard: dict[str, int]
    quarantined: dict[str, frozenset[str]]
    waiting: frozenset[bytes]
    sums: dict[tuple[str, int], tuple[int, int, int, int]]
    silence: dict[str, tuple[int, int]]
    zones: dict[str, str]
    memberships: dict[str, Membership]
    approvals: frozenset[tuple[str, str, str]]
    halted: bool
    floor: int
    removed: frozenset[str]

    def members_of(self, rollout_id: str) -> dict[str, MemberRow]:
        """Device -> row."""
        return {device_id: row for (owner, device_id), row in self.members.items() if owner == rollout_id}


NOTHING: Final = Seen({}, {}, {}, {}, {}, {}, (), {}, {}, {}, {}, frozenset(), {}, {}, {}, {}, frozenset(), False, 0, frozenset())

_SQL: Final = {
    "rollouts": "SELECT rollout_id, version, engine FROM rollout",
    "members": "SELECT rollout_id, device_id, wave, active, previous_release, counter, began_at, committed_at, attested_at, failed_at, "
    "rows, assigned_at, place, stratum, site, left_at, removed_at, parked_at FROM rollout_member",
    "sums": "SELECT rollout_id, wave, sum(members), sum(assigned), sum(begun), sum(failed) FROM rollout_sum GROUP BY rollout_id, wave",
    "silence": "SELECT rollout_id, sum(silent), sum(exposed) FROM rollout_site GROUP BY rollout_id",
    "zones": "SELECT device_id, value FROM device_label WHERE key = 'time-zone'",
    "memberships": "SELECT rollout_id, document FROM rollout_membership",
    "approvals": "SELECT rollout_id, approver, digest FROM rollout_approval",
    "halted": "SELECT halted FROM fleet_halt",
    "floor": "SELECT counter FROM release_floor",
    "removed": "SELECT device_id FROM device WHERE removed_at IS NOT NULL",
    "assigned": "SELECT device_id, release_id, rollout_id, bundle_digest, counter FROM assignment",
    "issued": "SELECT device_id, counter, message FROM desired",
    "counters": "SELECT device_id, desired_counter FROM device",
    "said": "SELECT device_id, counter, bundle_digest, state, subject_digest FROM reported",
    "attested": "SELECT device_id, bundle_digest FROM attestation",
    "heard": "SELECT device_id, seen_at FROM device_seen",
    "quarantined": "SELECT device_id, quarantined FROM device_fact",
    "waiting": "SELECT payload FROM outbox",
}
_ENTRIES: Final = "SELECT seq, at, actor, action, subject_kind, subject, detail, hash FROM event WHERE seq > ? ORDER BY seq"


class Eye:
    """Reads snapshots; decodes only what has changed since the last one."""

    def __init__(self, path: str) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._raw: dict[str, list[Any]] = {}
        self.last = NOTHING

    def close(self) -> None:
        """Let the file go."""
        self._connection.close()

    def look(self) -> Seen:
        """The database now; the same object when nothing has changed that matters."""
        self._connection.execute("BEGIN")
        raw = {name: self._connection.execute(sql).fetchall() for name, sql in _SQL.items()}
        newest = self.last.entries[-1].seq if self.last.entries else 0
        entries = [Entry(*row) for row in self._connection.execute(_ENTRIES, (newest,))]
        self._connection.execute("COMMIT")
        if raw == self._raw and not entries:
            return self.last
        changed = {name for name in _SQL if raw[name] != self._raw.get(name)}
        parts = {name: _PARTS[name](raw[name]) if name in changed else getattr(self.last, name) for name in _PARTS}
        versions = {row[0]: row[1] for row in raw["rollouts"]}
        self._raw = raw
        self.last = Seen(versions=versions, entries=(*self.last.entries, *entries), **parts)
        return self.last

    def execute(self, sql: str, *values: Any) -> None:
        """What no code of the server does: damage, and its repair."""
        self._connection.execute(sql, values)

    def value(self, sql: str, *values: Any) -> Any:
        """One value, None when there is none."""
        row = self._connection.execute(sql, values).fetchone()
        return None if row is None else row[0]


@lru_cache(maxsize=4096)
def opened(message: bytes) -> DesiredPayload:
    """What a signed document says; its signature is the device's business."""
    return msgspec.json.decode(decode(Desired, message).payload, type=DesiredPayload)


@lru_cache(maxsize=1024)
def _rollout(engine: str) -> Rollout | None:
    try:
        return msgspec.json.decode(engine, type=Rollout)
    except msgspec.DecodeError:
        return None  # damaged on purpose; such a value is judged by what is not done with it


def _rollouts(rows: list[Any]) -> dict[str, Rollout]:
    return {row[0]: found for row in rows if (found := _rollout(row[2])) is not None}


def _quarantined(rows: list[Any]) -> dict[str, frozenset[str]]:
    found = {}
    for device_id, text in rows:
        try:
            found[device_id] = frozenset(msgspec.json.decode(text, type=list[str]))
        except msgspec.DecodeError:
            found[device_id] = frozenset()
    return found


_PARTS: Final[dict[str, Any]] = {
    "rollouts": _rollouts,
    "members": lambda rows: {(row[0], row[1]): MemberRow(row[2], bool(row[3]), *row[4:]) for row in rows},
    "assigned": lambda rows: {row[0]: Assigned(*row[1:]) for row in rows},
    "issued": lambda rows: {row[0]: Issued(*row[1:]) for row in rows},
    "counters": dict,
    "said": lambda rows: {row[0]: Said(*row[1:]) for row in rows},
    "attested": dict,
    "heard": dict,
    "quarantined": _quarantined,
    "waiting": lambda rows: frozenset(row[0] for row in rows),
    "sums": lambda rows: {(row[0], row[1]): tuple(row[2:]) for row in rows},
    "silence": lambda rows: {row[0]: (row[1], row[2]) for row in rows},
    "zones": dict,
    "memberships": lambda rows: {row[0]: msgspec.json.decode(row[1], type=Membership) for row in rows},
    "approvals": lambda rows: frozenset(tuple(row) for row in rows),
    "halted": lambda rows: any(row[0] for row in rows),
    "floor": lambda rows: max((row[0] for row in rows), default=0),
    "removed": lambda rows: frozenset(row[0] for row in rows),
}
