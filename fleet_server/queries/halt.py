"""Whether the fleet is halted, who knows it, and what waits for the lift."""

import sqlalchemy as sa

from fleet_server.read_halt import HaltView, PendingRollout
from fleet_server.rollout import RolloutState
from fleet_server.rollout.transitions import FINAL
from fleet_server.store import Database, halts
from fleet_server.store.halts import StoredHalt
from fleet_server.store.moments import from_micros
from fleet_server.store.tables import DEVICE, ROLLOUT

# An aborted one sends devices back or does nothing; it never goes on.
_BACKWARD = frozenset({RolloutState.ROLLING_BACK.value, RolloutState.PAUSED_RB.value, RolloutState.ABORTED.value})
_WAITING = frozenset({state.value for state in RolloutState} - {state.value for state in FINAL} - {"draft"})


def halt(db: Database, fleet: str) -> HaltView:
    """The fleet halt in one snapshot."""
    with db.read() as connection:
        return view(connection, fleet)


def view(connection: sa.Connection, fleet: str) -> HaltView:
    """The same in the caller's transaction."""
    stored = halts.current(connection, fleet)
    if stored is None:
        return HaltView(halted=False, sentence="The fleet is not halted, and never was.")
    know, refused = halts.heard(connection, stored)
    devices = int(connection.scalar(sa.select(sa.func.count()).select_from(DEVICE).where(DEVICE.c.removed_at.is_(None))) or 0)
    return HaltView(
        halted=stored.halted,
        sentence=_sentence(stored, know, devices),
        since=from_micros(stored.since),
        issued_at=from_micros(stored.issued_at),
        reason=stored.reason,
        ordered_by=stored.ordered_by,
        counter=stored.counter,
        devices_know=know,
        devices_all=devices,
        documents_refused=refused,
        pending=pending(connection),
    )


def pending(connection: sa.Connection) -> list[PendingRollout]:
    """Rollouts that are not over, those that go back first, then the oldest."""
    columns = (ROLLOUT.c.rollout_id, ROLLOUT.c.project, ROLLOUT.c.state)
    query = sa.select(*columns).where(ROLLOUT.c.state.in_(_WAITING)).order_by(ROLLOUT.c.created_at, ROLLOUT.c.rollout_id)
    rows = [PendingRollout(row.rollout_id, row.project, row.state, row.state in _BACKWARD) for row in connection.execute(query)]
    return sorted(rows, key=lambda row: not row.is_rollback)


def _sentence(stored: StoredHalt, know: int, devices: int) -> str:
    known = f"{know} of {devices} devices have said that they know it."
    if stored.halted:
        return f"Halted by {stored.ordered_by}: {stored.reason.rstrip('.')}. Nothing begins on any device; {known}"
    return f"Lifted by {stored.ordered_by}: {stored.reason or 'no reason given'}; {known}"
