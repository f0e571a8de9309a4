"""What needs me now, and the fleet in a few numbers."""

from collections import Counter
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from fleet_server.queries.devices import all_rows
from fleet_server.queries.explanations import newest as newest_explanations
from fleet_server.queries.latency import merged, quantile_ms, stored
from fleet_server.queries.rollouts import LISTED
from fleet_server.queries.rollouts import newest as newest_rollouts
from fleet_server.read_models import DeviceRow, NeedsYou, OverviewView, RolloutRow, Severity
from fleet_server.rollout import RolloutState
from fleet_server.rollout.precedence import expected_false_stops
from fleet_server.rollout.transitions import FINAL
from fleet_server.store import Database, aside, champions, halts, hearing, rollouts
from fleet_server.store.champions import Registered
from fleet_server.store.drift_rows import Alarm, open_alarms
from fleet_server.store.halts import StoredHalt
from fleet_server.store.moments import from_micros
from fleet_server.store.tables import TOTALS

SHOWN_ROLLOUTS: Final = 20
_WORTH_SAYING: Final = 0.5
_FAILED: Final = frozenset({"rolled-back", "quarantined", "refused"})
_RANK: Final[dict[Severity, int]] = {"halt": 0, "abort": 1, "pause": 2, "approval": 3, "drift": 4, "notice": 5}
_BUTTONS: Final[dict[str, tuple[Severity, str]]] = {
    RolloutState.ABORTED.value: ("abort", "Look at it"),
    RolloutState.PAUSED.value: ("pause", "Decide"),
    RolloutState.PAUSED_RB.value: ("pause", "Decide"),
    RolloutState.DRAFT.value: ("approval", "Review and start"),
    RolloutState.APPROVED.value: ("approval", "Review and start"),
}


def overview(db: Database, now: datetime) -> OverviewView:
    """The overview, in one snapshot."""
    with db.read() as connection:
        rows = newest_rollouts(connection, now)
        fleet = all_rows(connection)
        alarms = open_alarms(connection)
        explained = newest_explanations(connection, limit=1)
        latencies = [stored(text) for text in connection.scalars(sa.select(TOTALS.c.last_latency))]
        running = [row for row in rows if row.state not in {state.value for state in FINAL}]
        ended = [row for row in rows if row not in running]
        return OverviewView(
            needs_you=_needs_you(connection, running, alarms),
            rollouts=[*running, *ended][:SHOWN_ROLLOUTS],
            devices_total=len(fleet),
            devices_connected=sum(device.connected for device in fleet),
            devices_as_desired=sum(_as_desired(device) for device in fleet),
            devices_rolled_back=sum(device.state in _FAILED for device in fleet),
            rows_total=sum(device.rows_total for device in fleet),
            latency_p95_ms=quantile_ms(merged(latencies), 0.95),
            releases_in_field=Counter(device.running_release for device in fleet if device.running_release).most_common(),
            explanation=explained[0] if explained else None,
            as_of=now,
            notes=[*_unreadable(connection, rows), *_notes(connection, now)],
        )


def _as_desired(device: DeviceRow) -> bool:
    return bool(device.desired_digest) and device.desired_digest == device.running_digest == device.attested_digest


def _needs_you(connection: sa.Connection, running: list[RolloutRow], alarms: dict[str, Alarm]) -> list[NeedsYou]:
    found = [_halt_line(stored) for stored in halts.in_force(connection)]
    for row in running:
        if row.state not in _BUTTONS:
            continue
        # An aborted rollout whose devices a later one has taken over needs nobody any more.
        if row.state == RolloutState.ABORTED.value and not rollouts.owns_any(connection, row.rollout_id):
            continue
        severity, button = _BUTTONS[row.state] if not row.asks else ("pause", "Look and confirm")
        detail = f"Wave {row.wave} of {row.waves}, {row.begun_devices} of {row.all_devices} devices have begun."
        sentence = f"{row.project} {row.release}: {row.sentence}"
        found.append(NeedsYou(severity=severity, sentence=sentence, detail=detail, link=f"/rollouts/{row.rollout_id}", button=button))
    for project in sorted({alarm.project for alarm in alarms.values()}):
        found.append(_drift_line(project, [alarm for alarm in alarms.values() if alarm.project == project]))
    found += [_registry_line(known) for _, known in sorted(champions.registered(connection).items()) if known.trouble]
    return sorted(found, key=lambda line: _RANK[line.severity])


def _halt_line(stored: StoredHalt) -> NeedsYou:
    return NeedsYou(
        severity="halt",
        sentence=f"The fleet is halted: {stored.reason}",
        detail=f"By {stored.ordered_by} since {from_micros(stored.since):%Y-%m-%d %H:%M} UTC; nothing goes on until it is lifted.",
        link="/",
        button="Look at rollouts",
    )


def _drift_line(project: str, alarms: list[Alarm]) -> NeedsYou:
    names = ", ".join(sorted(alarm.device_id for alarm in alarms)[:4]) + (f" and {len(alarms) - 4} more" if len(alarms) > 4 else "")
    counted = Counter(feature for alarm in alarms for feature in alarm.features)
    inputs = ", ".join(feature for feature, _ in counted.most_common(4)) or "no single input"
    return NeedsYou(
        severity="drift",
        sentence=f"{project}: {names} {'differs from its' if len(alarms) == 1 else 'differ from their'} peers.",
        detail=f"Inputs: {inputs}{f' and {len(counted) - 4} more' if len(counted) > 4 else ''}.",
        link=f"/drift?project={project}",
        button="Look at drift",
    )


def _registry_line(known: Registered) -> NeedsYou:
    return NeedsYou(
        severity="notice",
        sentence=f"{known.project}: the release in service is not registered in MLflow.",
        detail=known.trouble,
        link="/releases",
        button="Look at releases",
    )


def _unreadable(connection: sa.Connection, rows: list[RolloutRow]) -> list[str]:
    """A rollout that cannot be shown is named here, so that it is not forgotten."""
    shown = {row.rollout_id for row in rows}
    lost = [rollout_id for rollout_id in rollouts.newest_ids(connection, LISTED) if rollout_id not in shown]
    return [f"Rollout {rollout_id} cannot be read: nothing more is decided about it; the server's log says why." for rollout_id in lost]


def _notes(connection: sa.Connection, now: datetime) -> list[str]:
    tallies = aside.tallies(connection)
    notes = []
    deaf_since = hearing.deaf_since(connection, now)
    if deaf_since is not None:
        # 0 stands for a clock that was set back: nobody knows.
        since = f" since {deaf_since:%Y-%m-%d %H:%M} UTC" if deaf_since.timestamp() > 0 else ""
        notes.append(
            f"No device can be heard{since}: nothing comes back over the broker, or it still delivers what it held. "
            "Nobody's silence counts meanwhile; the server's log says more."
        )
    if tallies.get("put-aside"):
        notes.append(f"{tallies['put-aside']:,} messages could not be used and were put aside.")
    if tallies.get("unknown-device"):
        notes.append(f"{tallies['unknown-device']:,} messages came from devices that are not enrolled.")
    price = expected_false_stops(rollouts.started_at(connection, now), now)
    if price >= _WORTH_SAYING:
        notes.append(f"At the pace of the last year, {price:.1f} good releases a year are stopped by chance (5 % of each rollout).")
    return notes
