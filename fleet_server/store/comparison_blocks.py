"""Blocks of devices that share one pair of controls, where there are more devices than pairs: the mean of a block is one difference.

A control may be used once. A block's size follows from the sizes of the waves alone, never from what devices showed; its devices wait as
`in-block` until it is full, or until nobody else is on the way, and then count in one step.
"""

from dataclasses import dataclass, replace
from typing import Final

import msgspec
import numpy as np
import sqlalchemy as sa

from fleet_server.rollout import Rollout
from fleet_server.rollout.betting import CONTROLS_OF_A_PAIR, pairs_possible
from fleet_server.rollout.clips import gate_of
from fleet_server.rollout.comparisons import Comparison
from fleet_server.store import comparison_rows
from fleet_server.store.comparison_rows import GIVEN, IN_BLOCK, WITH_NEWS
from fleet_server.store.tables import COMPARISON, COMPARISON_TASK, ROLLOUT_MEMBER, ROLLOUT_SUM

_C: Final = COMPARISON.c


@dataclass(frozen=True)
class Block:
    """A block that is not full.

    Attributes:
        leader: Device whose controls it shares.
        size: Devices of the full block.
        kind: What its devices have in common: the bundle before, and the stratum.
    """

    leader: str
    size: int
    kind: str

    def __str__(self) -> str:
        return f"{self.size} {self.kind} {self.leader}"


def size_for(connection: sa.Connection, rollout: Rollout) -> int:
    """Devices of a block such that the controls that are left by the waves serve the devices of the open ones; 1: each has its own pair."""
    query = sa.select(ROLLOUT_SUM.c.wave, sa.func.sum(ROLLOUT_SUM.c.members)).where(ROLLOUT_SUM.c.rollout_id == rollout.rollout_id)
    members = {wave: int(count) for wave, count in connection.execute(query.group_by(ROLLOUT_SUM.c.wave))}
    exposed = sum(count for wave, count in members.items() if 0 < wave <= rollout.wave)
    controls = sum(members.values()) - exposed
    if controls < CONTROLS_OF_A_PAIR or not exposed:
        return 1
    return -(-exposed // pairs_possible(exposed, controls))


def open_block(connection: sa.Connection, rollout_id: str, gate: Comparison, kind: str) -> Block | None:
    """A block of a gate that takes one more device of that kind."""
    for block in _open(connection, rollout_id, gate):
        if block.kind == kind:
            return block
    return None


def close_full(connection: sa.Connection, rollout_id: str, gate: Comparison, name: str) -> None:
    """Count the block of that name (`str(block)`) if its last device has just come."""
    block = _parsed(name)
    if len(_rows(connection, rollout_id, gate, block)) >= block.size:
        _close(connection, rollout_id, gate, block)


def close_rest(connection: sa.Connection, rollout: Rollout) -> None:
    """Count the blocks that nobody can fill any more: no device that began waits to be compared."""
    task, member = COMPARISON_TASK.c, ROLLOUT_MEMBER.c
    same = sa.and_(member.rollout_id == task.rollout_id, member.device_id == task.device_id)
    on_the_way = sa.select(task.device_id).select_from(COMPARISON_TASK.join(ROLLOUT_MEMBER, same))
    where = (task.rollout_id == rollout.rollout_id, sa.or_(member.began_at.is_not(None), task.look_at < WITH_NEWS))
    if connection.execute(on_the_way.where(*where).limit(1)).first() is not None:
        return
    for name in rollout.policy.gates.compare:
        gate = gate_of(rollout, name)
        for block in _open(connection, rollout.rollout_id, gate):
            _close(connection, rollout.rollout_id, gate, block)


def _open(connection: sa.Connection, rollout_id: str, gate: Comparison) -> list[Block]:
    query = sa.select(_C.reason).where(_C.rollout_id == rollout_id, _C.gate == gate.name, _C.state == IN_BLOCK)
    return [_parsed(name) for name in connection.scalars(query.distinct().order_by(_C.reason))]


def _parsed(name: str) -> Block:
    size, kind, leader = name.split(" ", 2)
    return Block(leader, int(size), kind)


def _rows(connection: sa.Connection, rollout_id: str, gate: Comparison, block: Block) -> list[tuple[float, ...]]:
    where = (_C.rollout_id == rollout_id, _C.gate == gate.name, _C.state == IN_BLOCK, _C.reason == str(block))
    rows = connection.scalars(sa.select(_C.differences).where(*where).order_by(_C.device_id))
    return [msgspec.json.decode(row, type=tuple[float, ...]) for row in rows]


def _close(connection: sa.Connection, rollout_id: str, gate: Comparison, block: Block) -> None:
    """The mean of a block is one difference; its devices have given theirs."""
    before = comparison_rows.wealth_of(connection, rollout_id, gate, lock=True)
    rows = _rows(connection, rollout_id, gate, block)
    after = before.after(gate, [np.mean(rows, axis=0).tolist()])
    comparison_rows.keep_wealth(connection, rollout_id, gate, replace(after, devices=before.devices + len(rows)))
    where = (_C.rollout_id == rollout_id, _C.gate == gate.name, _C.state == IN_BLOCK, _C.reason == str(block))
    connection.execute(
        sa.update(COMPARISON).where(*where).values(state=GIVEN, reason=f"one of {len(rows)} with the controls of {block.leader}")
    )
