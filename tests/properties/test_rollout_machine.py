"""A fleet that does what it likes, two schedulers, people, a clock that jumps: what must hold after every step.

The numbers in the names are those of the invariants in the design of the rollout engine.
"""

import contextlib
from dataclasses import replace
from datetime import timedelta

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fleet_server.rollout import (
    Action,
    ActionKind,
    DeviceFacts,
    Facts,
    Rollout,
    RolloutState,
    TransitionError,
    apply,
    apply_person,
    assign_waves,
    decide,
    gates,
    next_due,
    progress,
    view,
    wants,
)
from fleet_server.rollout.gates import combine
from tests.unit.fleet_server.rollout_world import NEW, OLD, T0, failed, idle, policy, proven, trying

PICK = st.integers(0, 7)
GOOD = frozenset({ActionKind.PROMOTE, ActionKind.OPEN_WAVE, ActionKind.COMPLETE})


class Fleet(RuleBasedStateMachine):
    """Facts change by rules; only `tick` lets the engine act."""

    def __init__(self) -> None:
        super().__init__()
        self.now = T0
        self.devices: dict[str, DeviceFacts] = {}
        self.steps = 0
        self.lost: set[str] = set()
        self.unreadable: set[str] = set()

    @initialize(
        count=st.sampled_from([1, 3, 5, 8]),
        salt=st.text("abc", min_size=1, max_size=4),
        abort=st.sampled_from(["stop", "roll-back"]),
        dwell=st.booleans(),
    )
    def create(self, count: int, salt: str, abort: str, dwell: bool) -> None:
        rules = policy(on_abort=abort, dwell_s=[30.0, 10.0, 0.0] if dwell else 0.0)
        self.devices = {f"d{i}": idle(f"d{i}") for i in range(count)}
        waves = assign_waves(salt, {device_id: {} for device_id in self.devices}, rules)
        # 4: the same answer in any order.
        assert waves == assign_waves(salt, {device_id: {"x": "y"} for device_id in reversed(self.devices)}, rules)
        self.rollout = Rollout("r", "p", "rel", NEW, 1, RolloutState.DRAFT, waves, 0, (), (), rules, salt, T0, "someone")
        self.rollout = apply_person(self.rollout, "start", "go", self.now)
        self.tick()

    @property
    def facts(self) -> Facts:
        return Facts({d: one for d, one in self.devices.items() if d not in self.lost}, tuple(sorted(self.unreadable)))

    def _some(self, pick: int) -> str:
        return sorted(self.devices)[pick % len(self.devices)]

    def _asked(self, device_id: str) -> bool:
        return wants(self.rollout, device_id, progress(self.devices[device_id], NEW, self.rollout.policy, self.now)[0]) == "new"

    @rule(pick=PICK)
    def activates(self, pick: int) -> None:
        device_id = self._some(pick)
        if self._asked(device_id) and self.devices[device_id].began_at is None:
            self.devices[device_id] = trying(device_id, self.now)

    @rule(pick=PICK, rows=st.sampled_from([0, 19, 20, 500]))
    def succeeds(self, pick: int, rows: int) -> None:
        device_id = self._some(pick)
        known = self.devices[device_id]
        if known.began_at is not None and known.failed_at is None:
            since = known.committed_at or self.now
            self.devices[device_id] = proven(
                device_id, since, began_at=known.began_at, rows_since_commit=max(rows, known.rows_since_commit), last_heard_at=self.now
            )

    @rule(pick=PICK)
    def fails(self, pick: int) -> None:
        device_id = self._some(pick)
        if self.devices[device_id].began_at is not None and self.steps % 3 == 0:  # else nearly every rollout ends in wave 1
            before = self._verdicts()
            self.devices[device_id] = failed(device_id, self.devices[device_id].began_at or self.now)
            # 9: a failure never turns hold, pause or abort into promote.
            self._is_no_better_than(before)

    @rule(pick=PICK)
    def is_forgotten(self, pick: int) -> None:
        # 10: a report that never came never turns anything into promote.
        device_id = self._some(pick)
        known = self.devices[device_id]
        if known.failed_at is None:
            before = self._verdicts()
            self.devices[device_id] = replace(known, committed_at=None, attested_at=None, rows_since_commit=0)
            self._is_no_better_than(before)

    @rule(pick=PICK)
    def falls_silent(self, pick: int) -> None:
        device_id = self._some(pick)
        before = self._verdicts()
        known = self.devices[device_id]
        self.devices[device_id] = replace(known, last_heard_at=None)
        self._is_no_better_than(before)

    @rule(pick=PICK)
    def revives(self, pick: int) -> None:
        device_id = self._some(pick)
        self.devices[device_id] = replace(self.devices[device_id], last_heard_at=self.now)

    @rule(pick=PICK)
    def goes_back(self, pick: int) -> None:
        device_id = self._some(pick)
        if self.rollout.state is RolloutState.ROLLING_BACK:
            began_at = self.devices[device_id].began_at
            self.devices[device_id] = idle(device_id, began_at=began_at, state="committed", subject_digest=OLD, last_heard_at=self.now)

    @rule(pick=PICK, how=st.sampled_from(["lost", "unreadable"]))
    def the_database_fails_for_one_look(self, pick: int, how: str) -> None:
        getattr(self, how).add(self._some(pick))
        self.tick()
        self.lost.clear()
        self.unreadable.clear()

    @rule(event=st.sampled_from(["start", "pause", "resume", "resume", "resume", "resume"]), seconds=st.integers(-5, 0))
    def a_person_acts(self, event: str, seconds: int) -> None:
        try:
            after = apply_person(self.rollout, event, "because", self.now + timedelta(seconds=seconds))
        except TransitionError:
            return
        self._moved(after)

    @precondition(lambda self: self.steps > 12)
    @rule(event=st.sampled_from(["abort", "roll-back", "supersede"]))
    def a_person_ends_it(self, event: str) -> None:
        self.a_person_acts(event, 0)

    @rule(seconds=st.integers(0, 40))
    def the_open_wave_proves_itself(self, seconds: int) -> None:
        self._wave(seconds, {})

    @rule(seconds=st.integers(0, 40), pick=PICK, how=st.sampled_from(["trying", "unattested", "few rows", "failed"]))
    def the_open_wave_proves_itself_but_for_one(self, seconds: int, pick: int, how: str) -> None:
        members = self.rollout.members
        self._wave(seconds, {members[-1 - pick % len(members)]: how} if members else {})

    def _wave(self, seconds: int, others: dict[str, str]) -> None:
        for device_id in self.rollout.members:
            known = self.devices[device_id]
            if known.failed_at is not None or not self._asked(device_id):
                continue
            since, began_at = known.committed_at or self.now, known.began_at or self.now
            heard_at = self.now + timedelta(seconds=seconds)
            good = proven(device_id, since, began_at=began_at, last_heard_at=heard_at)
            self.devices[device_id] = {
                "trying": trying(device_id, began_at, last_heard_at=heard_at),
                "unattested": replace(good, attested_digest=OLD),
                "few rows": replace(good, rows_since_commit=19),
                "failed": failed(device_id, began_at),
            }.get(others.get(device_id, ""), good)
        self.now += timedelta(seconds=seconds)
        self.tick()

    @rule(seconds=st.integers(0, 100))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule(seconds=st.integers(1, 400))
    def a_clock_set_back_changes_nothing(self, seconds: int) -> None:
        # 25
        earlier = (self.rollout.changed_at or T0) - timedelta(seconds=seconds)
        assert decide(self.rollout, self.facts, earlier) is None

    @rule()
    def tick(self) -> None:
        # 8: a fixed point after at most 5 x (waves + 1) actions.
        for _ in range(5 * (len(self.rollout.waves) + 1)):
            action = decide(self.rollout, self.facts, self.now)
            # 7: pure.
            assert action == decide(self.rollout, self.facts, self.now)
            # 11: the order in which reports came is not in the facts, and the order of the facts is not in the answer.
            assert action == decide(
                self.rollout, replace(self.facts, devices={d: self.facts.devices[d] for d in reversed(list(self.facts.devices))}), self.now
            )
            if action is None:
                break
            self._check(action)
            after = apply(self.rollout, action, self.now)
            # 7: the second scheduler with the same action changes nothing more.
            with contextlib.suppress(TransitionError):
                assert apply(after, action, self.now).state is RolloutState.ROLLING_BACK
            self._moved(after)
        assert decide(self.rollout, self.facts, self.now) is None

    def _check(self, action: Action) -> None:
        readable = all(d in self.facts.devices and d not in self.unreadable for d in self.rollout.members)
        if action.kind in GOOD and self.rollout.wave:
            # 15: no good news without facts.
            assert readable
            words = [progress(self.devices[d], NEW, self.rollout.policy, self.now)[0] for d in self.rollout.members]
            if action.kind is not ActionKind.OPEN_WAVE:
                # The evidence itself, not the word for it: signed, running, with its rows.
                for device_id in set(self.rollout.members) - set(self.rollout.accepted):
                    known = self.devices[device_id]
                    assert (known.running_digest, known.attested_digest, known.failed_at) == (NEW, NEW, None)
                    assert known.rows_since_commit >= 20
                # 12: never without a device that is ok; 5: what is stored as a promotion was one.
                assert "ok" in words
                assert all(w == "ok" or d in self.rollout.accepted for d, w in zip(self.rollout.members, words, strict=True))
                assert combine(gates(self.rollout, self.facts, self.now)).verdict == "promote"
            else:
                # 5: the wave before has a stored promotion.
                assert len(self.rollout.promoted_at) == self.rollout.wave

    def _moved(self, after: Rollout) -> None:
        before = self.rollout
        # 3: open waves only grow, members never change.
        assert after.waves == before.waves
        assert after.wave in (before.wave, before.wave + 1)
        assert set(before.members) <= set(after.members)
        assert after.promoted_at[: len(before.promoted_at)] == before.promoted_at
        if before.state is not RolloutState.RUNNING:
            # 6: no further device after pause, abort or roll back, until a person resumes.
            assert after.members == before.members
        if after.state is RolloutState.COMPLETED:
            # 28: everybody is there, or was given up by a person; the last wave is promoted.
            assert len(after.promoted_at) == len(after.waves)
            for device_id in after.members:
                word, _ = progress(self.devices[device_id], NEW, after.policy, self.now)
                assert word == "ok" or device_id in after.accepted
            assert {d for wave in after.waves for d in wave} == set(after.members)
        if after.changed_at is not None and before.changed_at is not None:
            assert after.changed_at >= before.changed_at
        self.rollout = after

    def _verdicts(self) -> bool:
        action = decide(self.rollout, self.facts, self.now)
        return action is not None and action.kind in GOOD

    def _is_no_better_than(self, good_before: bool) -> None:
        if not good_before:
            assert not self._verdicts()

    @invariant()
    def steps_are_counted(self) -> None:
        self.steps += 1

    @invariant()
    def only_open_waves_want_the_release(self) -> None:
        # 1
        later = {d for wave in self.rollout.waves[self.rollout.wave :] for d in wave}
        for device_id in later:
            assert wants(self.rollout, device_id, "not-begun") is None

    @invariant()
    def every_device_is_counted_once(self) -> None:
        # 13
        if not self.rollout.wave or self.lost or self.unreadable:
            return
        words = [progress(self.devices[d], NEW, self.rollout.policy, self.now)[0] for d in self.rollout.members]
        explicit = gates(self.rollout, self.facts, self.now)[0]
        assert int(explicit.now) == words.count("failed")
        assert explicit.n == len(words) - words.count("not-begun")
        assert words.count("failed") + words.count("silent") <= explicit.n

    @invariant()
    def the_page_always_has_a_sentence(self) -> None:
        verdict, sentence, missing = view(self.rollout, self.facts, self.now)
        assert verdict in ("promote", "hold", "pause", "abort", "done", "waiting")
        assert sentence
        assert missing

    @invariant()
    def the_next_look_is_not_in_the_past(self) -> None:
        due = next_due(self.rollout, self.facts, self.now)
        assert due is None or due >= self.now


Fleet.TestCase.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
TestFleet = Fleet.TestCase
