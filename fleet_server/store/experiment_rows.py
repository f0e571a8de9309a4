"""Experiments as rows: the sums of both arms, one number per device, and the rollout that the winner became."""

from dataclasses import dataclass

import msgspec
import sqlalchemy as sa

from edgefleet.errors import StorageError
from fleet_server.rollout import Rollout
from fleet_server.rollout.experiment_sums import Sums
from fleet_server.store.tables import EXPERIMENT, EXPERIMENT_VALUE
from fleet_server.store.upsert import insert_or_update


@dataclass(frozen=True)
class Measured:
    """A device whose period is over.

    Attributes:
        arm: 0 = A, 1 = B.
        delivered: Whether it answered enough rows.
        value: Its number, None where it has none.
        reason: Why it has none, "" where it has.
    """

    device_id: str
    arm: int
    delivered: bool
    value: float | None
    reason: str


def sums(connection: sa.Connection, rollout_id: str, *, lock: bool = False) -> Sums:
    """What the experiment has seen; nothing before its first device. Locked for whoever adds to it in the same transaction.

    Raises:
        StorageError: A row that is not what was stored; whoever cannot read must pause.
    """
    query = sa.select(EXPERIMENT.c.sums).where(EXPERIMENT.c.rollout_id == rollout_id)
    text = connection.scalar(query.with_for_update() if lock else query)
    if text is None:
        return Sums()
    try:
        return msgspec.json.decode(text, type=Sums)
    except (msgspec.DecodeError, UnicodeDecodeError) as err:
        raise StorageError(f"sums of experiment {rollout_id} cannot be read: {str(err)[:100]}") from err


def to_measure(connection: sa.Connection, rollout: Rollout, batch: int, limit: int) -> list[str]:
    """Devices of a batch that have no entry yet, in the batch's own order, which knows nothing of arms or values."""
    where = (EXPERIMENT_VALUE.c.rollout_id == rollout.rollout_id, EXPERIMENT_VALUE.c.device_id.in_(rollout.waves[batch - 1]))
    known = set(connection.scalars(sa.select(EXPERIMENT_VALUE.c.device_id).where(*where)))
    return [device_id for device_id in rollout.waves[batch - 1] if device_id not in known][:limit]


def is_measured(connection: sa.Connection, rollout_id: str, device_id: str) -> bool:
    """Whether a device has an entry."""
    where = (EXPERIMENT_VALUE.c.rollout_id == rollout_id, EXPERIMENT_VALUE.c.device_id == device_id)
    return connection.execute(sa.select(EXPERIMENT_VALUE.c.device_id).where(*where)).first() is not None


def store(connection: sa.Connection, rollout_id: str, measured: Measured, after: Sums, at: int) -> None:
    """Keep what is known of a device, once, and the sums with it.

    Args:
        connection: The transaction in which `after` was made from the sums before.
        rollout_id: Of the experiment.
        measured: The device.
        after: The sums with this device.
        at: Microseconds UTC.

    Raises:
        sqlalchemy.exc.IntegrityError: The device has an entry already; nothing was changed.
    """
    row = {"rollout_id": rollout_id, "device_id": measured.device_id, "arm": measured.arm, "delivered": measured.delivered}
    row |= {"value": measured.value, "reason": measured.reason[:200], "at": at}
    connection.execute(sa.insert(EXPERIMENT_VALUE).values(**row))
    insert_or_update(connection, EXPERIMENT, [{"rollout_id": rollout_id, "sums": msgspec.json.encode(after).decode()}])


def note_winner(connection: sa.Connection, rollout_id: str, winner_rollout_id: str) -> None:
    """The winner became the draft of a rollout."""
    connection.execute(sa.update(EXPERIMENT).where(EXPERIMENT.c.rollout_id == rollout_id).values(winner_rollout_id=winner_rollout_id))


def winner(connection: sa.Connection, rollout_id: str) -> str | None:
    """The rollout that the winner became."""
    found: str | None = connection.scalar(sa.select(EXPERIMENT.c.winner_rollout_id).where(EXPERIMENT.c.rollout_id == rollout_id))
    return found
