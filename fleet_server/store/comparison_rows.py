"""Comparisons as rows: who is to be compared, who was compared with whom, what came out, and the stakes that follow from it.

A difference is stored once, and the stakes of its gate grow in the same transaction; nothing is ever computed again from all devices.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import msgspec
import numpy as np
import sqlalchemy as sa

from edgefleet.errors import StorageError
from fleet_server.rollout.comparisons import COMPARISONS, Comparison, Wealth
from fleet_server.store.tables import COMPARISON, COMPARISON_CONTROL, COMPARISON_TASK, COMPARISON_WEALTH
from fleet_server.store.upsert import insert_new, insert_or_ignore, insert_or_update

GIVEN: Final = "given"
LEFT_OUT: Final = "left-out"
UNREADABLE: Final = "unreadable"
IN_BLOCK: Final = "in-block"
WITH_NEWS: Final = 1 << 62  # a time that never comes
_BATCH: Final = 500


@dataclass(frozen=True)
class Answer:
    """What a gate knows of a device: its difference, or why there is none."""

    state: str
    differences: tuple[float, ...] = ()
    reason: str = ""


def enlist(connection: sa.Connection, rollout_id: str, device_id: str) -> None:
    """A device was given the release: it is to be compared as soon as there is news of it; safe to repeat."""
    row = {"device_id": device_id, "rollout_id": rollout_id, "look_at": WITH_NEWS}
    insert_or_ignore(connection, COMPARISON_TASK, [row])


def look_again(connection: sa.Connection, device_ids: Iterable[str], at: int) -> None:
    """News of some devices: those that are still to be compared are looked at now."""
    named = sorted(set(device_ids))
    for start in range(0, len(named), _BATCH):
        where = (COMPARISON_TASK.c.device_id.in_(named[start : start + _BATCH]), COMPARISON_TASK.c.look_at > at)
        connection.execute(sa.update(COMPARISON_TASK).where(*where).values(look_at=at))


def due(connection: sa.Connection, rollout_id: str, at: int, limit: int) -> list[str]:
    """Devices that are to be looked at now, longest due first."""
    table = COMPARISON_TASK
    query = sa.select(table.c.device_id).where(table.c.rollout_id == rollout_id, table.c.look_at <= at)
    return list(connection.scalars(query.order_by(table.c.look_at, table.c.device_id).limit(limit)))


def next_look(connection: sa.Connection, rollout_id: str) -> int | None:
    """When time alone makes a device due, None when only news can."""
    where = (COMPARISON_TASK.c.rollout_id == rollout_id, COMPARISON_TASK.c.look_at < WITH_NEWS)
    found: int | None = connection.scalar(sa.select(sa.func.min(COMPARISON_TASK.c.look_at)).where(*where))
    return found


def end(connection: sa.Connection, rollout_id: str) -> None:
    """The rollout is over: nobody is compared any more."""
    connection.execute(sa.delete(COMPARISON_TASK).where(COMPARISON_TASK.c.rollout_id == rollout_id))


def put_off(connection: sa.Connection, rollout_id: str, device_id: str, look_at: int | None) -> None:
    """Look again at `look_at` or when there is news; None: everything has been answered."""
    where = (COMPARISON_TASK.c.rollout_id == rollout_id, COMPARISON_TASK.c.device_id == device_id)
    if look_at is None:
        connection.execute(sa.delete(COMPARISON_TASK).where(*where))
    else:
        connection.execute(sa.update(COMPARISON_TASK).where(*where).values(look_at=look_at))


def answers(connection: sa.Connection, rollout_id: str, device_id: str) -> dict[str, str]:
    """Gate -> state of what is stored for a device."""
    query = sa.select(COMPARISON.c.gate, COMPARISON.c.state).where(*_of_device(rollout_id, device_id))
    return {row.gate: row.state for row in connection.execute(query)}


def store(connection: sa.Connection, rollout_id: str, device_id: str, gate: Comparison, answer: Answer, at: int) -> None:
    """Keep an answer and let the gate's stakes follow; a difference that is there already is not touched.

    Raises:
        ConfigError: A difference that is no finite number.
    """
    where = (*_of_device(rollout_id, device_id), COMPARISON.c.gate == gate.name)
    known = connection.scalar(sa.select(COMPARISON.c.state).where(*where))
    if known in (GIVEN, IN_BLOCK) or known == answer.state:
        return
    before = wealth_of(connection, rollout_id, gate, lock=True)
    left_out = before.left_out + (answer.state == LEFT_OUT) - (known == LEFT_OUT)
    after = before.after(gate, [answer.differences]) if answer.state == GIVEN else before
    row = {"rollout_id": rollout_id, "gate": gate.name, "device_id": device_id, "state": answer.state}
    row |= {"differences": msgspec.json.encode(answer.differences).decode(), "reason": answer.reason[:200]}
    insert_or_update(connection, COMPARISON, [{**row, "at": at}])
    keep_wealth(connection, rollout_id, gate, replace(after, left_out=left_out))


def wealth(connection: sa.Connection, rollout_id: str, gates: Sequence[str]) -> dict[str, Wealth]:
    """Stakes of the gates that the policy names: what the engine judges by; a gate that saw nobody yet stands at its start.

    Raises:
        StorageError: A row that is not what was stored; whoever cannot read must pause.
    """
    return {name: wealth_of(connection, rollout_id, COMPARISONS[name]) for name in gates}


def wealth_of(connection: sa.Connection, rollout_id: str, gate: Comparison, *, lock: bool = False) -> Wealth:
    """Stakes of one gate; `lock`: the caller is about to replace them.

    Raises:
        StorageError: A row that is not what was stored.
    """
    table, start = COMPARISON_WEALTH, Wealth.start(gate)
    query = sa.select(table).where(table.c.rollout_id == rollout_id, table.c.gate == gate.name)
    row = connection.execute(query.with_for_update() if lock else query).first()
    if row is None:
        return start
    try:
        logs = np.asarray(msgspec.json.decode(row.logs, type=list[list[float]]), np.float64)
    except (msgspec.DecodeError, ValueError) as err:
        raise StorageError(f"stakes of {gate.name!r} in rollout {rollout_id} cannot be read: {str(err)[:100]}") from err
    if logs.shape != start.logs.shape or not np.isfinite(logs).all():
        raise StorageError(f"stakes of {gate.name!r} in rollout {rollout_id} are not {start.logs.shape} finite numbers")
    return Wealth(logs, row.devices, row.left_out)


def keep_wealth(connection: sa.Connection, rollout_id: str, gate: Comparison, value: Wealth) -> None:
    """Replace the stakes of a gate, read with `lock` in the same transaction."""
    stakes = {"rollout_id": rollout_id, "gate": gate.name, "logs": msgspec.json.encode(value.logs.tolist()).decode()}
    insert_or_update(connection, COMPARISON_WEALTH, [{**stakes, "devices": value.devices, "left_out": value.left_out}])


def use_controls(connection: sa.Connection, rollout_id: str, device_id: str, controls: Sequence[str], at: int) -> bool:
    """Take controls for a device's pair; False, and nothing was taken, when one of them is in another pair already."""
    rows = [{"rollout_id": rollout_id, "control_id": control, "device_id": device_id, "used_at": at} for control in controls]
    taken = insert_new(connection, COMPARISON_CONTROL, rows, ("control_id",))
    if len(taken) == len(rows):
        return True
    mine = (COMPARISON_CONTROL.c.rollout_id == rollout_id, COMPARISON_CONTROL.c.control_id.in_([control for (control,) in taken]))
    connection.execute(sa.delete(COMPARISON_CONTROL).where(*mine))
    return False


def controls_of(connection: sa.Connection, rollout_id: str, device_id: str) -> list[str]:
    """Controls of a device's pair."""
    where = (COMPARISON_CONTROL.c.rollout_id == rollout_id, COMPARISON_CONTROL.c.device_id == device_id)
    return list(connection.scalars(sa.select(COMPARISON_CONTROL.c.control_id).where(*where).order_by(COMPARISON_CONTROL.c.control_id)))


def used_at(connection: sa.Connection, rollout_id: str, device_id: str) -> int:
    """When a device was last a control of this rollout, 0 when it never was."""
    where = (COMPARISON_CONTROL.c.rollout_id == rollout_id, COMPARISON_CONTROL.c.control_id == device_id)
    return int(connection.scalar(sa.select(COMPARISON_CONTROL.c.used_at).where(*where)) or 0)


def _of_device(rollout_id: str, device_id: str) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
    return COMPARISON.c.rollout_id == rollout_id, COMPARISON.c.device_id == device_id
