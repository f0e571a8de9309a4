"""A rollout by evidence for people: waves by sums, the devices that need a look, gates with what would change them, waits, outlook.

Thousands of devices are counted, not listed: what is read grows with the waves, the sites and the failures.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Final

import msgspec
import numpy as np
import sqlalchemy as sa

from edgefleet.spans import span
from fleet_server.queries.chances import chance_view, need_views
from fleet_server.queries.waves import Judged as Word
from fleet_server.queries.waves import at_the_end, wave_state
from fleet_server.read_evidence import ChanceView, EvidenceView, WaitView
from fleet_server.read_models import EventView, GateView, Progress, WaveMember, WaveView
from fleet_server.rollout import ActionKind, Facts, Rollout, RolloutState
from fleet_server.rollout.course import Course
from fleet_server.rollout.foresight import chances
from fleet_server.rollout.judgement import decisive
from fleet_server.rollout.outline import plan_seed
from fleet_server.rollout.outlook_evidence import judged
from fleet_server.rollout.planner import RUNS
from fleet_server.store import evidence_members, evidence_tally
from fleet_server.store.evidence_shown import Shown, shown, silent_by_wave
from fleet_server.store.evidence_tally import WaveCounts
from fleet_server.store.moments import from_micros

NAMED: Final = 100  # devices of a rollout up to which all are named
NEED_A_LOOK: Final = 60
_NOBODY: Final = WaveCounts(0, 0, 0, 0, 0)
_WAITS: Final = {
    "pace": "their batch has not begun yet: never more at once than have begun before",
    "rate": "the rate of the policy",
    "site budget": "others of their site are in activation",
    "window": "by their own clock it is outside the hours of the policy, or their time zone is not known",
    "busy": "another rollout changes them, or they were changed less than activation_gap_s ago (a day, if the policy does not name it)",
    "site out": "a site went dark soon after its first device; nobody begins until it is back or a person decides",
}
_BACK: Final = frozenset({RolloutState.ROLLING_BACK, RolloutState.PAUSED_RB, RolloutState.ROLLED_BACK})


@dataclass(frozen=True)
class Counted:
    """Devices of a rollout by evidence.

    Attributes:
        waves: Wave -> counts by state, every wave named.
        held_back: Controls.
    """

    waves: Mapping[int, Mapping[Progress, int]]
    held_back: int

    @property
    def begun(self) -> int:
        """Devices that began."""
        return self.everybody - sum(counts["not-begun"] for counts in self.waves.values())

    @property
    def everybody(self) -> int:
        """Devices of all waves."""
        return sum(sum(counts.values()) for counts in self.waves.values())


def count(connection: sa.Connection, rollout: Rollout, course: Course, known: Facts) -> Counted:
    """States of all devices, from the sums."""
    sums = evidence_tally.by_wave(connection, rollout.rollout_id)
    missing = known.tally is not None and known.tally.quiet.missing > 0
    silent = silent_by_wave(connection, rollout.rollout_id) if missing else {}
    waves = {number: _states(sums.get(number, _NOBODY), silent.get(number, 0)) for number in range(1, len(course.sizes) + 1)}
    return Counted(waves, sums.get(0, _NOBODY).members)


def wave_views(
    connection: sa.Connection, rollout: Rollout, counted: Counted, log: list[EventView], now: datetime, *, owned: bool
) -> list[WaveView]:
    """The waves; of a rollout of more than a hundred devices only failed and silent ones are named, at most sixty."""
    everybody = counted.everybody <= NAMED
    rows = shown(connection, rollout.rollout_id, need_a_look=not everybody, limit=NAMED if everybody else NEED_A_LOOK)
    promotions = [event.detail for event in reversed(log) if event.action == ActionKind.PROMOTE.value]
    views = []
    for number, counts in counted.waves.items():
        state = wave_state(rollout, number)
        reason = promotions[number - 1] if state == "promoted" and number <= len(promotions) else ""
        words = [(row, _word(rollout, row, now, owned=owned)) for row in rows if row.wave == number]
        views.append(
            WaveView(
                number=number,
                state=state,
                members=[WaveMember(row.device_id, word.progress, word.reason, row.site) for row, word in words],
                opened_at=rollout.opened_at[number - 1] if number <= len(rollout.opened_at) else None,
                promoted_at=rollout.promoted_at[number - 1] if number <= len(rollout.promoted_at) else None,
                reason=reason or (rollout.last_reason if state in ("open", "halted") else ""),
                counts={state: count for state, count in counts.items() if count} or {"not-begun": 0},
            )
        )
    return views


def gate_views(rollout: Rollout, known: Facts, now: datetime) -> list[GateView]:
    """The gates of the open wave."""
    seen = judged(rollout, known, now)
    if seen is None:
        return []
    return [
        GateView(one.gate, one.word, one.now, one.limit, one.n, one.sentence, one.level, seen.turns.get(one.gate, ""))
        for one in seen.findings
    ]


def evidence_view(
    connection: sa.Connection, rollout: Rollout, course: Course, known: Facts, counted: Counted, now: datetime
) -> EvidenceView:
    """Rule, waits and outlook."""
    seen = judged(rollout, known, now)
    waits = evidence_members.waits(connection, rollout.rollout_id) if rollout.state in (RolloutState.RUNNING, RolloutState.SOAKING) else {}
    return EvidenceView(
        rule=course.rule.kind,
        limit=course.rule.limit,
        decides="" if seen is None else decisive(seen.findings).gate,
        held_back=counted.held_back,
        waits=[WaitView(why, devices, _wait_sentence(why, rollout, course, now)) for why, devices in waits.items() if devices],
        chances=list(_chances(_unbegun(course), rollout.salt)),
        runs=RUNS,
        needs=need_views(rollout.policy.gates, _unbegun(course).sizes, course.sizes[-1] + counted.held_back),
    )


@lru_cache(maxsize=64)
def _chances(course: Course, salt: str) -> tuple[ChanceView, ...]:
    """Seeded from the plan, and kept: a page that is looked at every second asks for the same numbers."""
    return tuple(chance_view(one) for one in chances(course, np.random.default_rng(plan_seed(salt, course.sizes))))


def _unbegun(course: Course) -> Course:
    return msgspec.structs.replace(course, exposed_before=0, stage_at=None, judged_at=None, grown=0)


def _states(counts: WaveCounts, silent: int) -> dict[Progress, int]:
    pending = max(counts.begun - counts.failed - counts.proven - silent, 0)
    return {
        "not-begun": max(counts.members - counts.begun, 0),
        "pending": pending,
        "ok": counts.proven,
        "failed": counts.failed,
        "silent": silent,
    }


def _word(rollout: Rollout, row: Shown, now: datetime, *, owned: bool) -> Word:
    """The word for one device, and why."""
    if row.failed_at is not None:
        return Word("failed", row.failure or "failed")
    if row.removed:
        return Word("not-begun" if row.began_at is None else "pending", "removed from the fleet, neither a success nor a failure")
    if row.began_at is None:
        asked = row.asked and owned and rollout.state not in _BACK
        return Word("not-begun", "was given the release, has not begun" if asked else "")
    if not owned or rollout.state in _BACK:
        attested = row.committed_at is not None and row.attested_at is not None
        return at_the_end(rollout, ok=row.proven, in_open_wave=row.wave == rollout.wave, attested=attested)
    if row.proven:
        return Word("ok", "committed, attested, heard after its soak")
    if row.silent:
        seen = "it never was" if row.seen_at is None else f"last {span((now - from_micros(row.seen_at)).total_seconds())} ago"
        return Word("silent", f"not heard since its soak, {seen}")
    if row.committed_at is None:
        return Word("pending", "has begun")
    return Word("pending", "committed" + ("" if row.attested_at is not None else ", not attested yet") + ", its soak is not over")


def _wait_sentence(why: str, rollout: Rollout, course: Course, now: datetime) -> str:
    said = _WAITS.get(why, why)
    due = course.next_batch_at(rollout.wave, now) if why == "pace" and rollout.wave else None
    return f"{said}; the next one begins in {span((due - now).total_seconds())}." if due is not None else f"{said}."
