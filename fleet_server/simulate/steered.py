"""The engine over a virtual fleet: what it is told, and which devices its decisions let begin."""

from dataclasses import replace
from datetime import datetime

from fleet_server.rollout.course import Course
from fleet_server.rollout.engine import apply, apply_person, decide
from fleet_server.rollout.model import ActionKind, Facts, Rollout
from fleet_server.rollout.policy import Policy
from fleet_server.rollout.transitions import Event, RolloutState
from fleet_server.simulate.asking import Asking
from fleet_server.simulate.blocks import block_size
from fleet_server.simulate.cells import Ints
from fleet_server.simulate.drawn import Order
from fleet_server.simulate.ledger import Ledger
from fleet_server.simulate.scene import TICK_S
from fleet_server.simulate.watching import ModelWatch


class Steered:
    """A rollout, its devices as the server knows them, the engine that decides, and the person who confirms what the policy asks her."""

    def __init__(
        self, rollout: Rollout, order: Order, ledger: Ledger, watch: ModelWatch | None, asking: Asking | None, answer_s: float = 0.0
    ) -> None:
        self.rollout = rollout
        self._order, self._ledger, self._watch, self._asking = order, ledger, watch, asking
        self._reached, self._answer_s = 0, answer_s

    @property
    def asks(self) -> bool:
        """Whether it waits for a person to confirm: it is paused, and not stopped."""
        return self.rollout.state is RolloutState.PAUSED and self._course.asked is not None

    @property
    def in_last_wave(self) -> bool:
        """Whether the last wave is open."""
        return self.rollout.wave == len(self._course.sizes)

    def give(self, number: int, now: datetime) -> Ints:
        """Devices of which the release is asked at a tick."""
        wave = self.rollout.wave
        if self._asking is None and self.asks:  # nobody further gets it while a person is asked
            return self.given
        if self._asking is None:
            self._reached = max(self._reached, self._course.reach(wave, now))
            return self.given
        self.rollout = replace(self.rollout, course=self._asking.course(self._course, number))
        if not self.asks:
            self._asking.ask(number, now, self._course, wave, self._ledger)
        return self.given

    def decide(self, number: int, now: datetime) -> Rollout:
        """Let the engine act until it has nothing to do."""
        if self._watch is not None:
            opened = self._course.sizes[self.rollout.wave - 1] if self.rollout.wave else 0
            controls = self._course.sizes[-1] + len(self._order.held) - opened
            self._watch.tick(number, self._ledger, self._asked, block_size(opened, controls))
        while True:
            course, wave = self._course, max(self.rollout.wave, 1)
            tally = self._ledger.tally(number, course.sizes[wave - 1], int(course.dwell_s[wave - 1] / TICK_S), len(self._asked))
            facts = Facts(devices={}, tally=tally if self._watch is None else replace(tally, wealth=self._watch.wealth))
            action = decide(self.rollout, facts, now)
            if action is None and self._answered(now):
                self.rollout = apply_person(self.rollout, Event.CONFIRM.value, "simulated", now)
                continue
            if action is None:
                return self.rollout
            self.rollout = apply(self.rollout, action, now)
            if self._asking is None or self.asks:
                continue
            if action.kind is ActionKind.EXTEND:
                self._asking.grow(wave, course, action.size, number)
            # The first batch of a wave is asked as it opens; it begins at its next sign of life.
            self._asking.ask(number, now, self._course, self.rollout.wave, self._ledger)

    def _answered(self, now: datetime) -> bool:
        """Whether the person who is asked has had her time; `changed_at` is when she was."""
        asked_at = self.rollout.changed_at
        return self.asks and asked_at is not None and (now - asked_at).total_seconds() >= self._answer_s

    @property
    def given(self) -> Ints:
        """Devices of which the release is asked."""
        return self._order.devices[: self._reached] if self._asking is None else self._asking.asking

    @property
    def _asked(self) -> Ints:
        """Those and the ones that gave the place of their site back: in the evidence they stay asked."""
        return self.given if self._asking is None else self._asking.asked

    @property
    def _course(self) -> Course:
        course = self.rollout.course
        assert course is not None  # noqa: S101  # every simulated rollout is by evidence
        return course


def started(policy: Policy, course: Course, at: datetime) -> Rollout:
    """A rollout that a person started."""
    state = RolloutState.DRAFT
    draft = Rollout("r", "p", "rel", "d" * 64, 2, state, (), 0, (), (), policy, "salt", at, "simulation", course=course)
    return apply_person(draft, Event.START.value, "simulated", at)
