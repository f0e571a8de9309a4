"""Steps of people: plan, approve, start, pause, confirm, resume, abort, roll back, halt, at any time and over what has changed since."""

from typing import Any, Final

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from fleet_server.halting import halt_fleet, lift_halt
from fleet_server.rollout import RolloutState
from fleet_server.selection import Document
from tests.properties.rollout_fleet import care, probes
from tests.properties.rollout_fleet.stage import PEOPLE, RELEASES, SITES, Stage

PICK: Final = st.integers(0, 17)
_SITES: Final = [{"site": site} for site in SITES]
SELECTIONS: Final[list[Document]] = ["", "", *_SITES, f"site != {SITES[0]}", f"not (site = {SITES[0]} and has(site))"]


class PeopleMachine(RuleBasedStateMachine):
    """One fleet and its people."""

    stage: Stage
    policy: dict[str, Any]
    people = PEOPLE

    @rule(release=st.integers(0, RELEASES - 1), selection=st.sampled_from(SELECTIONS), who=st.integers(0, 2))
    def a_person_plans(self, release: int, selection: Document, who: int) -> None:
        self.stage.plan(release, self.policy, selection, PEOPLE[who])

    @rule(pick=PICK, who=st.integers(0, 3), other=st.booleans())
    def a_person_approves(self, pick: int, who: int, other: bool) -> None:
        rollout_id = self._rollout(pick)
        if rollout_id is not None:
            approved = self.stage.approve(rollout_id, PEOPLE[who], digest="0" * 64 if other else None)
            assert not (approved and other), "a plan that is not there was approved"

    @rule(release=st.integers(0, RELEASES - 2), really=st.integers(0, 4))
    def a_person_raises_the_release_floor(self, release: int, really: int) -> None:
        if really == 0:  # a floor never falls, and under a high one little is left to look at
            self.stage.raise_floor(release, PEOPLE[0])

    @rule(pick=PICK)
    def a_plan_is_edited(self, pick: int) -> None:
        rollout_id = self._rollout(pick)
        if rollout_id is not None and self.stage.seen.rollouts[rollout_id].state in (RolloutState.DRAFT, RolloutState.APPROVED):
            probes.an_edited_plan_is_not_approved(self.stage, rollout_id)

    @rule(what=st.sampled_from(["lift", "lift", "nothing", "nothing", "halt"]))
    def the_fleet_is_halted_or_lifted(self, what: str) -> None:
        if what == "nothing":  # a halt stops everything that is to be looked at here
            return
        halt = lift_halt if what == "lift" else halt_fleet
        self.stage.person(lambda services: halt(services, reason="because", actor=PEOPLE[1]))

    @rule(pick=PICK, who=st.integers(0, 2))
    def a_person_starts(self, pick: int, who: int) -> None:
        self._acts(pick, "start", who)

    @rule(pick=PICK, action=st.sampled_from(["pause", "resume", "resume", "confirm"]), who=st.integers(0, 2), stale=st.booleans())
    def a_person_pauses_confirms_or_resumes(self, pick: int, action: str, who: int, stale: bool) -> None:
        rollout_id = self._rollout(pick)
        if rollout_id is not None:
            version = self.stage.seen.versions[rollout_id] - stale
            acted = self.stage.act(rollout_id, action, PEOPLE[who], version=version)
            assert not (acted and stale), f"{action} was taken for a rollout that had changed since"

    @rule(pick=PICK, action=st.sampled_from(["abort", "roll-back"]), who=st.integers(0, 2), really=st.integers(0, 3))
    def a_person_ends_it(self, pick: int, action: str, who: int, really: int) -> None:
        if really == 0:  # else nearly every rollout ends before it has begun
            self._acts(pick, action, who)

    @rule(again=st.integers(-1, 1))
    def a_person_goes_on(self, again: int) -> None:
        """Somebody looks after the fleet: devices are switched on, the halt ends, what stands goes on, something is planned."""
        for device in self.stage.devices.values():
            device.online = device.device_id not in self.stage.seen.removed
        if self.stage.seen.halted:
            self.the_fleet_is_halted_or_lifted("lift")
        live = self.stage.live()
        if not live:
            self.a_person_plans(again if again >= 0 else len(self.stage.seen.rollouts) % RELEASES, "", 0)
        for rollout_id in self.stage.live():
            if rollout_id not in self.stage.seen.rollouts:
                continue
            one = self.stage.seen.rollouts[rollout_id]
            for person in PEOPLE[1 : 2 + one.policy.approvals] if one.policy.approvals else ():
                self.stage.approve(rollout_id, person)
            asked = one.course is not None and one.course.asked is not None
            action = "start" if one.state in (RolloutState.DRAFT, RolloutState.APPROVED) else "confirm" if asked else "resume"
            self.stage.act(rollout_id, action, PEOPLE[0])

    @rule(pick=st.integers(0, 40), really=st.integers(0, 2))
    def a_person_removes_a_device(self, pick: int, really: int) -> None:
        names = sorted(self.stage.devices)
        if really == 0:  # else there is soon no fleet
            care.remove(self.stage, names[pick % len(names)])

    @rule(pick=st.integers(0, 40), site=st.sampled_from(SITES))
    def a_person_relabels_a_device(self, pick: int, site: str) -> None:
        names = sorted(self.stage.devices)
        care.relabel(self.stage, names[pick % len(names)], site)

    @rule(pick=PICK)
    def a_device_comes_back(self, pick: int) -> None:
        removed = sorted(self.stage.seen.removed)
        if removed:
            care.come_back(self.stage, removed[pick % len(removed)])

    @rule(pick=st.integers(0, 40))
    def a_person_lifts_a_quarantine(self, pick: int) -> None:
        held = sorted(device_id for device_id, digests in self.stage.seen.quarantined.items() if digests)
        if held:
            care.lift(self.stage, held[pick % len(held)], pick)

    def _rollout(self, pick: int) -> str | None:
        live = self.stage.live()
        return live[pick % len(live)] if live else None

    def _acts(self, pick: int, action: str, who: int) -> None:
        rollout_id = self._rollout(pick)
        if rollout_id is not None:
            self.stage.act(rollout_id, action, PEOPLE[who])
