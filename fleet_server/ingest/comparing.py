"""From what devices report to one difference per device and gate: at maturity, against controls of its own, stored once.

A device of a wave is compared with what it showed before it was given the release; its two controls, in the same periods, take away what
happened to everybody. What never comes is waited for as long as the policy says and then left out with the reason; a number that cannot
be read is no difference either, and such a device keeps its wave from being mature.
"""

import functools
import logging
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from edgefleet.digests import sha256_hex
from edgefleet.errors import EdgefleetError
from fleet_server.rollout import Rollout
from fleet_server.rollout.behaviour import Pair, difference, tells
from fleet_server.rollout.betting import CONTROLS_OF_A_PAIR
from fleet_server.rollout.clips import gate_of
from fleet_server.rollout.comparisons import Comparison
from fleet_server.rollout.gate_rules import GateRules
from fleet_server.store import comparison_blocks, comparison_rows, controls, shown
from fleet_server.store.comparison_blocks import Block
from fleet_server.store.comparison_rows import GIVEN, IN_BLOCK, LEFT_OUT, UNREADABLE, Answer
from fleet_server.store.moments import to_micros
from fleet_server.store.tables import RELEASE, ROLLOUT_MEMBER

LOG = logging.getLogger(__name__)

AT_ONCE: Final = 5  # devices of one transaction: some 50 ms of reading each, and the write lock is everybody's
_TRIED: Final = 8
_AGAIN_US: Final = 3_600_000_000


@dataclass(frozen=True)
class _Subject:
    """A device of a wave and its periods, in microseconds of the server's clock."""

    device_id: str
    began_at: int
    assigned_at: int
    committed_at: int | None
    failed: bool
    previous: str
    since: int


class _Pool:
    """Controls that are left, by what they run and their stratum; read once per transaction."""

    def __init__(self, connection: sa.Connection, rollout: Rollout) -> None:
        self._connection, self._rollout = connection, rollout
        self._left: dict[tuple[str, tuple[str, ...]], list[str]] = {}
        self._keys = rollout.policy.strata if rollout.policy.strata is not None else controls.DEFAULT_STRATA

    @functools.cached_property
    def block_size(self) -> int:
        """Devices that share a pair of controls."""
        return comparison_blocks.size_for(self._connection, self._rollout)

    def kind(self, subject: _Subject) -> str:
        """Devices of one kind may share controls."""
        values = controls.stratum(self._connection, subject.device_id, self._keys)
        return sha256_hex("|".join((subject.previous, *values)).encode())[:16]

    def of(self, subject: _Subject) -> list[str]:
        """Candidates for a device, in the order in which they are to be taken; the caller removes and reorders."""
        keys = self._keys
        values = controls.stratum(self._connection, subject.device_id, keys)
        place = (subject.previous, values)
        if place not in self._left:
            labels = dict(zip(keys, values, strict=True))
            limit = AT_ONCE * _TRIED
            self._left[place] = controls.unused(self._connection, self._rollout, subject.previous, labels, limit)
        return self._left[place]


class _Look:
    """One look at one device: what was read for one gate serves the others."""

    def __init__(self, connection: sa.Connection, rollout: Rollout, subject: _Subject, at: int, pool: _Pool) -> None:
        self._connection, self._rollout, self._subject, self._at, self._pool = connection, rollout, subject, at, pool
        self._rules = rollout.policy.gates

    def answer(self, gate: Comparison) -> Answer | None:
        """What the gate knows of the device now; None: it waits."""
        try:
            if gate.name == "shadow agreement":
                return self._agreement()
            return self._labels() if gate.name == "label metric" else self._against_controls(gate)
        except EdgefleetError as err:
            return Answer(UNREADABLE, reason=str(err))
        except Exception as err:  # a gate that fails on one device must neither promote nor stop the fleet's other decisions
            LOG.exception("rollout %s: %s of %s failed", self._rollout.rollout_id, gate.name, self._subject.device_id)
            return Answer(UNREADABLE, reason=f"the comparison failed ({type(err).__name__}: {err})")

    def _agreement(self) -> Answer | None:
        subject, project = self._subject, self._rollout.project
        tried = self._rollout.bundle_digest
        seen = shown.compared(self._connection, subject.device_id, project, subject.previous, tried, subject.assigned_at, self._at + 1)
        if seen.rows >= self._rules.rows:
            return Answer(GIVEN, seen.difference)
        missing = f"{seen.rows} of {self._rules.rows} rows were compared in the trial"
        # The windows of a trial come before those of the release in service; a device that told none before tells none of its trial.
        over = self._own.now.rows > 0 or not self._own.before.rows
        return Answer(LEFT_OUT, reason=missing) if over else self._given_up(missing)

    def _labels(self) -> Answer | None:
        subject, digest = self._subject, self._rollout.bundle_digest
        project = self._rollout.project
        seen = shown.labelled(self._connection, subject.device_id, project, digest, subject.previous, subject.assigned_at)
        if seen.rows >= self._rules.labelled_rows:
            return Answer(GIVEN, seen.difference)
        waits = self._at < subject.began_at + int(1e6 * self._rules.label_wait_s)
        return None if waits else Answer(LEFT_OUT, reason=f"{seen.rows} of {self._rules.labelled_rows} labelled rows")

    def _against_controls(self, gate: Comparison) -> Answer | None:
        own, needed = self._own, self._rules.rows
        if not tells(gate, own.before, needed):
            what = "no memory was told" if gate.name == "memory" else f"{own.before.rows} of {needed} rows"
            return Answer(LEFT_OUT, reason=f"nothing to compare with: {what} before")
        if not tells(gate, own.now, needed):
            what = "no whole hour of memory was told" if gate.name == "memory" else f"{own.now.rows} of {needed} rows"
            return self._given_up(f"{what} with the release")
        joined = self._block(gate)
        pairs = self._controls if joined is None else [self._control(control) for control in self._controls_of(joined.leader)]
        if pairs is None:
            return Answer(LEFT_OUT, reason="no control is left")
        telling = [pair for pair in pairs if tells(gate, pair.before, needed) and tells(gate, pair.now, needed)]
        if not telling:
            return self._given_up("its controls told too little")
        block = joined or Block(self._subject.device_id, self._pool.block_size, self._pool.kind(self._subject))
        state, reason = (GIVEN, "") if block.size == 1 else (IN_BLOCK, str(block))
        return Answer(state, difference(gate, own, telling), reason)

    def _block(self, gate: Comparison) -> Block | None:
        """A block of the gate that the device can join; who has controls of its own leads one."""
        if self._pool.block_size == 1 or self._controls_of(self._subject.device_id):
            return None
        return comparison_blocks.open_block(self._connection, self._rollout.rollout_id, gate, self._pool.kind(self._subject))

    def _controls_of(self, device_id: str) -> list[str]:
        return comparison_rows.controls_of(self._connection, self._rollout.rollout_id, device_id)

    @functools.cached_property
    def _own(self) -> Pair:
        """The device before it was given the release, and since it runs it."""
        subject, project = self._subject, self._rollout.project
        read = functools.partial(shown.of_bundle, self._connection, subject.device_id, project)
        before = read(subject.previous, subject.since, subject.assigned_at)
        since = self._at + 1 if subject.committed_at is None else subject.committed_at
        return Pair(before, read(self._rollout.bundle_digest, since, self._at + 1))

    @functools.cached_property
    def _controls(self) -> list[Pair] | None:
        """The device's controls in its periods, empty as long as none has told enough, None when none is left."""
        rollout_id, device_id = self._rollout.rollout_id, self._subject.device_id
        known = self._controls_of(device_id)
        if known:
            return [self._control(control) for control in known]
        left = self._pool.of(self._subject)
        if len(left) < CONTROLS_OF_A_PAIR:
            return None
        tried = {control: self._control(control) for control in left[:_TRIED]}
        ready = [c for c, pair in tried.items() if min(pair.before.rows, pair.now.rows) >= self._rules.rows][:CONTROLS_OF_A_PAIR]
        if len(ready) < CONTROLS_OF_A_PAIR:
            left[:] = left[_TRIED:] + left[:_TRIED]
            return []
        left[:] = [control for control in left if control not in ready]
        taken = comparison_rows.use_controls(self._connection, rollout_id, device_id, ready, self._at)
        return [tried[control] for control in ready] if taken else []

    def _control(self, control: str) -> Pair:
        """A control in the periods of the device, as long as it ran what the device ran before."""
        subject = self._subject
        read = functools.partial(shown.of_bundle, self._connection, control, self._rollout.project, subject.previous)
        since = subject.committed_at or subject.assigned_at
        return Pair(read(subject.since, subject.assigned_at), read(since, self._at + 1))

    def _given_up(self, what: str) -> Answer | None:
        """Nothing yet; left out once the wait is over."""
        wait_s = self._rules.wait_s
        over = self._at >= self._subject.began_at + int(1e6 * wait_s)
        return Answer(LEFT_OUT, reason=f"{what} within {wait_s / 3600:.3g} h") if over else None


def compare_due(connection: sa.Connection, rollout: Rollout, now: datetime, limit: int = AT_ONCE) -> int:
    """Look at the devices that are due for comparison; the number looked at. Repeat until it is 0, each time in a transaction of its own.

    Args:
        connection: The transaction; differences and stakes are written in it.
        rollout: One by evidence whose policy names gates.
        now: Aware UTC.
        limit: Devices at most.
    """
    rules, at = rollout.policy.gates, to_micros(now)
    pool = _Pool(connection, rollout)
    tasks = comparison_rows.due(connection, rollout.rollout_id, at, limit)
    for device_id in tasks:
        subject = _subject(connection, rollout, device_id)
        if subject is None:
            comparison_rows.put_off(connection, rollout.rollout_id, device_id, comparison_rows.WITH_NEWS)
            continue
        known = comparison_rows.answers(connection, rollout.rollout_id, device_id)
        gates = [gate_of(rollout, name) for name in rules.compare if known.get(name) not in (GIVEN, IN_BLOCK, UNREADABLE)]
        look = _Look(connection, rollout, subject, at, pool)
        waiting = False
        for gate in gates:
            answer = _no_comparison(subject) or look.answer(gate)
            waiting = waiting or answer is None
            if answer is not None:
                comparison_rows.store(connection, rollout.rollout_id, device_id, gate, answer, at)
                if answer.state == IN_BLOCK:
                    comparison_blocks.close_full(connection, rollout.rollout_id, gate, answer.reason)
        comparison_rows.put_off(connection, rollout.rollout_id, device_id, _next_look(rules, subject.began_at, at) if waiting else None)
    if tasks and pool.block_size > 1:
        comparison_blocks.close_rest(connection, rollout)
    return len(tasks)


def _no_comparison(subject: _Subject) -> Answer | None:
    """Why a device can give no difference at all."""
    if subject.failed:
        return Answer(LEFT_OUT, reason="the release failed here")
    return None if subject.previous else Answer(LEFT_OUT, reason="it ran nothing before that is known here")


def _next_look(rules: GateRules, began_at: int, at: int) -> int:
    """In an hour, when another peak of memory is complete, or at the end of a wait; never now, or the same look is repeated."""
    ends = [began_at + int(1e6 * wait_s) for wait_s in (rules.wait_s, rules.label_wait_s)]
    return min([end for end in ends if end > at] + [at + _AGAIN_US])


def _subject(connection: sa.Connection, rollout: Rollout, device_id: str) -> _Subject | None:
    """The device and its periods, None as long as it has not begun."""
    table = ROLLOUT_MEMBER
    where = (table.c.rollout_id == rollout.rollout_id, table.c.device_id == device_id)
    query = sa.select(table, RELEASE.c.bundle_digest.label("previous")).outerjoin(RELEASE, RELEASE.c.release_id == table.c.previous_release)
    row = connection.execute(query.where(*where)).first()
    if row is None or row.assigned_at is None or row.began_at is None:
        return None
    # What it showed as a control has been counted; its own "before" begins after that.
    counted_until = comparison_rows.used_at(connection, rollout.rollout_id, device_id)
    since = max(row.assigned_at - int(1e6 * rollout.policy.gates.before_s), counted_until + 1)
    return _Subject(device_id, row.began_at, row.assigned_at, row.committed_at, row.failed_at is not None, row.previous or "", since)
