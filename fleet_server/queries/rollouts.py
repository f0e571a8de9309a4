"""Rollouts: the verdict sentence first, then waves, gates, log, and what a person can do."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Final, get_args

import sqlalchemy as sa

from fleet_server.labels import describe
from fleet_server.queries.actions import actions
from fleet_server.queries.errors import NotFoundError
from fleet_server.queries.events import of_subject
from fleet_server.queries.releases import one as release_row
from fleet_server.queries.releases import versions
from fleet_server.queries.waves import Judged, judge, wave_views
from fleet_server.read_models import GateView, Progress, RolloutRow, RolloutView
from fleet_server.rollout import Facts, gates, view
from fleet_server.store import Database, facts, members
from fleet_server.store import rollouts as rows
from fleet_server.store.rollouts import Stored
from fleet_server.store.tables import RELEASE, REPORTED

LISTED: Final = 100
_EVENTS: Final = 200
_PROGRESS: Final[tuple[Progress, ...]] = get_args(Progress)


@dataclass(frozen=True)
class _Read:
    stored: Stored
    known: Facts
    judged: Mapping[str, Judged]
    owned: bool


def newest(connection: sa.Connection, now: datetime, limit: int = LISTED) -> list[RolloutRow]:
    """The newest rollouts in the caller's snapshot."""
    named = versions(connection)
    return [_row(_read(connection, stored, now), named, now) for stored in rows.load_newest(connection, limit)]


def rollouts(db: Database, now: datetime) -> list[RolloutRow]:
    """The newest rollouts, newest first."""
    with db.read() as connection:
        return newest(connection, now)


def rollout(db: Database, rollout_id: str, now: datetime) -> RolloutView:
    """One rollout.

    Raises:
        NotFoundError: There is none of that id.
    """
    with db.read() as connection:
        stored = rows.load(connection, rollout_id)
        if stored is None:
            raise NotFoundError("rollout", rollout_id)
        read = _read(connection, stored, now)
        value = stored.rollout
        verdict, sentence, missing = view(value, read.known, now)
        log = of_subject(connection, "rollout", rollout_id, _EVENTS)
        return RolloutView(
            rollout_id=rollout_id,
            release=release_row(connection, value.release_id),
            replaces=_replaces(connection, stored),
            state=value.state.value,
            version=stored.version,
            verdict=verdict,
            sentence=sentence,
            missing=missing,
            waves=wave_views(value, read.judged, read.known, log),
            gates=_gates(read, now),
            events=log,
            actions=actions(
                value,
                {device_id: one.progress for device_id, one in read.judged.items()},
                owned=read.owned,
                first_timers=len(members.without_previous(connection, rollout_id)),
            ),
            policy_name=value.policy.name,
            policy_notes=list(value.policy.notes),
            policy_digest=stored.policy_digest,
            selection=describe(stored.selection),
            created_at=value.created_at,
        )


def _read(connection: sa.Connection, stored: Stored, now: datetime) -> _Read:
    known = facts.read(connection, stored.rollout, now)
    owned = rows.owned(connection, stored.rollout.rollout_id)
    return _Read(stored, known, judge(stored.rollout, known, owned, now), bool(owned))


def _row(read: _Read, named: Mapping[tuple[str, str], str], now: datetime) -> RolloutRow:
    value = read.stored.rollout
    verdict, sentence, _ = view(value, read.known, now)
    per_wave = [Counter(read.judged[device_id].progress for device_id in wave) for wave in value.waves]
    begun = sum(count for counts in per_wave for word, count in counts.items() if word != "not-begun")
    return RolloutRow(
        rollout_id=value.rollout_id,
        release=named.get((value.project, value.bundle_digest), value.bundle_digest[:12]),
        project=value.project,
        state=value.state.value,
        verdict=verdict,
        wave=value.wave,
        waves=len(value.waves),
        begun_devices=begun,
        all_devices=len(read.judged),
        sentence=sentence,
        wave_progress=[{word: counts[word] for word in _PROGRESS if counts[word]} for counts in per_wave],
        created_at=value.created_at,
    )


def _gates(read: _Read, now: datetime) -> list[GateView]:
    if not read.owned or any(device_id not in read.known.devices for device_id in read.stored.rollout.members):
        return []
    return [GateView(**asdict(result)) for result in gates(read.stored.rollout, read.known, now)]


def _replaces(connection: sa.Connection, stored: Stored) -> str:
    """What most of its devices ran before, by version; what they run now before it has begun; empty when that is nothing of ours."""
    value = stored.rollout
    before = Counter(release for release in members.previous_releases(connection, value.rollout_id).values() if release)
    if before:
        return connection.scalar(sa.select(RELEASE.c.version).where(RELEASE.c.release_id == before.most_common(1)[0][0])) or ""
    if value.wave:
        return ""
    query = (
        sa.select(RELEASE.c.version, sa.func.count().label("devices"))
        .join(REPORTED, sa.and_(REPORTED.c.bundle_digest == RELEASE.c.bundle_digest, REPORTED.c.project == RELEASE.c.project))
        .where(RELEASE.c.project == value.project, RELEASE.c.bundle_digest != value.bundle_digest)
        .group_by(RELEASE.c.version)
        .order_by(sa.desc("devices"))
    )
    found = connection.execute(query.limit(1)).first()
    return "" if found is None else str(found.version)
