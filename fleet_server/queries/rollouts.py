"""Rollouts: the verdict sentence first, then waves, gates, log, and what a person can do."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Final, get_args

import sqlalchemy as sa

from fleet_server.ownership import why_nothing_is_left
from fleet_server.queries import by_evidence
from fleet_server.queries.actions import Scale, actions
from fleet_server.queries.before_start import waits_for
from fleet_server.queries.by_evidence import Counted
from fleet_server.queries.decisions import newest as newest_decision
from fleet_server.queries.errors import NotFoundError
from fleet_server.queries.events import of_subject
from fleet_server.queries.releases import one as release_row
from fleet_server.queries.releases import versions
from fleet_server.queries.waves import Judged, judge, wave_views
from fleet_server.read_evidence import EvidenceView
from fleet_server.read_explain import ExplainView
from fleet_server.read_models import EventView, GateView, Progress, RolloutRow, RolloutView, Verdict, WaveView
from fleet_server.rollout import Facts, gates, view
from fleet_server.selection import written
from fleet_server.store import Database, facts, members
from fleet_server.store import rollouts as rows
from fleet_server.store.rollouts import Stored
from fleet_server.store.tables import RELEASE, REPORTED

LISTED: Final = 100
_EVENTS: Final = 200
_PROGRESS: Final[tuple[Progress, ...]] = get_args(Progress)
_GRAVEST: Final[tuple[Verdict, ...]] = ("abort", "pause", "hold", "extend", "waiting", "promote", "done")


@dataclass(frozen=True)
class _Read:
    """One rollout in a snapshot; `counted` is there of one by evidence, `judged` of one that names its devices."""

    stored: Stored
    known: Facts
    judged: Mapping[str, Judged]
    counted: Counted | None
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
        read = _one(connection, rollout_id, now)
        value = read.stored.rollout
        verdict, sentence, missing = view(value, read.known, now)
        log = of_subject(connection, "rollout", rollout_id, _EVENTS)
        return RolloutView(
            rollout_id=rollout_id,
            release=release_row(connection, value.release_id),
            replaces=_replaces(connection, read.stored),
            state=value.state.value,
            version=read.stored.version,
            verdict=verdict,
            sentence=sentence,
            missing=waits_for(connection, value, missing),
            waves=_waves(connection, read, log, now),
            gates=_gates(read, now),
            events=log,
            actions=actions(value, _scale(read), gone=why_nothing_is_left(connection, value), first_timers=_first_timers(connection, read)),
            policy_name=value.policy.name,
            policy_notes=list(value.policy.notes),
            policy_digest=read.stored.policy_digest,
            selection=written(read.stored.selection),
            created_at=value.created_at,
            evidence=_evidence(connection, read, now),
        )


def explain(db: Database, rollout_id: str, now: datetime) -> ExplainView:
    """Why a rollout stands where it stands, without its devices.

    Raises:
        NotFoundError: There is none of that id.
    """
    with db.read() as connection:
        read = _one(connection, rollout_id, now)
        value = read.stored.rollout
        verdict, sentence, missing = view(value, read.known, now)
        gates_now = _gates(read, now)
        more = _evidence(connection, read, now)
        gravest = min(gates_now, key=lambda gate: _GRAVEST.index(gate.verdict), default=None)
        return ExplainView(
            rollout_id=rollout_id,
            state=value.state.value,
            version=read.stored.version,
            wave=value.wave,
            waves=value.wave_count,
            verdict=verdict,
            sentence=sentence,
            missing=waits_for(connection, value, missing),
            decides=more.decides if more is not None else gravest.name if gravest is not None else "",
            gates=gates_now,
            waits=[] if more is None else more.waits,
            chances=[] if more is None else more.chances,
            runs=0 if more is None else more.runs,
            decided=newest_decision(connection, rollout_id),
        )


def _one(connection: sa.Connection, rollout_id: str, now: datetime) -> _Read:
    stored = rows.load(connection, rollout_id)
    if stored is None:
        raise NotFoundError("rollout", rollout_id)
    return _read(connection, stored, now)


def _read(connection: sa.Connection, stored: Stored, now: datetime) -> _Read:
    value = stored.rollout
    known = facts.read(connection, value, now)
    if value.course is not None:
        counted = by_evidence.count(connection, value, value.course, known)
        return _Read(stored, known, {}, counted, rows.owns_any(connection, value.rollout_id))
    owned = rows.owned(connection, value.rollout_id)
    return _Read(stored, known, judge(value, known, owned, now), None, bool(owned))


def _row(read: _Read, named: Mapping[tuple[str, str], str], now: datetime) -> RolloutRow:
    value = read.stored.rollout
    verdict, sentence, _ = view(value, read.known, now)
    per_wave = _per_wave(read)
    everybody = sum(sum(counts.values()) for counts in per_wave)
    return RolloutRow(
        rollout_id=value.rollout_id,
        release=named.get((value.project, value.bundle_digest), value.bundle_digest[:12]),
        project=value.project,
        state=value.state.value,
        verdict=verdict,
        wave=value.wave,
        waves=value.wave_count,
        begun_devices=everybody - sum(counts.get("not-begun", 0) for counts in per_wave),
        all_devices=everybody,
        sentence=sentence,
        wave_progress=[{word: counts[word] for word in _PROGRESS if counts.get(word)} for counts in per_wave],
        created_at=value.created_at,
        asks=value.course is not None and value.course.asked is not None,
    )


def _per_wave(read: _Read) -> Sequence[Mapping[Progress, int]]:
    if read.counted is not None:
        return list(read.counted.waves.values())
    return [Counter(read.judged[device_id].progress for device_id in wave) for wave in read.stored.rollout.waves]


def _scale(read: _Read) -> Scale:
    per_wave, wave = _per_wave(read), read.stored.rollout.wave
    sizes = [sum(counts.values()) for counts in per_wave]
    not_ok = sum(count for counts in per_wave[:wave] for word, count in counts.items() if word != "ok")
    return Scale(first=sizes[0] if sizes else 0, open=sum(sizes[:wave]), not_ok=not_ok, later=sum(sizes[wave:]))


def _waves(connection: sa.Connection, read: _Read, log: list[EventView], now: datetime) -> list[WaveView]:
    value = read.stored.rollout
    if read.counted is not None:
        return by_evidence.wave_views(connection, value, read.counted, log, now, owned=read.owned)
    return wave_views(value, read.judged, read.known, log)


def _gates(read: _Read, now: datetime) -> list[GateView]:
    value = read.stored.rollout
    if read.counted is not None:
        return by_evidence.gate_views(value, read.known, now) if read.owned else []
    if not read.owned or any(device_id not in read.known.devices for device_id in value.members):
        return []
    return [GateView(**asdict(result)) for result in gates(value, read.known, now)]


def _evidence(connection: sa.Connection, read: _Read, now: datetime) -> EvidenceView | None:
    value = read.stored.rollout
    if value.course is None or read.counted is None:
        return None
    return by_evidence.evidence_view(connection, value, value.course, read.known, read.counted, now)


def _first_timers(connection: sa.Connection, read: _Read) -> int:
    """Devices that have nothing to go back to."""
    value = read.stored.rollout
    return 0 if value.policy.baseline else members.count_without_previous(connection, value.rollout_id)


def _replaces(connection: sa.Connection, stored: Stored) -> str:
    """What most of its devices ran before, by version; what they run now before it has begun; empty when that is nothing of ours."""
    value = stored.rollout
    before = members.most_had(connection, value.rollout_id)
    if before is not None:
        return connection.scalar(sa.select(RELEASE.c.version).where(RELEASE.c.release_id == before)) or ""
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
