"""The state machine: any order of devices, people, losses, deaths and clocks, over the real store, scheduler, relay and ingest."""

from collections import Counter
from datetime import timedelta
from functools import lru_cache
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from edgefleet.topics import parse_device_topic
from fleet_server.ingest.inbox import Incoming
from fleet_server.scheduler.steering import settle
from tests.properties.rollout_fleet import invariants_back, invariants_evidence, probes
from tests.properties.rollout_fleet.absence import AbsentServerMachine
from tests.properties.rollout_fleet.device import FieldDevice
from tests.properties.rollout_fleet.figures import figures
from tests.properties.rollout_fleet.harm import damage, lie
from tests.properties.rollout_fleet.invariants import judge_commit, saved_before_it_is_published
from tests.properties.rollout_fleet.people import PICK
from tests.properties.rollout_fleet.policies import POLICIES
from tests.properties.rollout_fleet.stage import FLEETS, PEOPLE, RELEASES, SITES, Stage, Templates

STEPS: Counter[str] = Counter()  # steps that ran in this process, by name: the tests print and assert them


@lru_cache(maxsize=1)
def templates() -> Templates:
    """Of this process."""
    return Templates()


class FleetMachine(AbsentServerMachine):
    """One fleet, up to two servers, some rollouts one after the other."""

    @initialize(devices=st.sampled_from(FLEETS), policy=st.sampled_from(sorted(POLICIES)), hours=st.sampled_from([4, 3, 7, 1, 2, 10, 0, 5]))
    def begin(self, devices: int, policy: str, hours: int) -> None:
        """A fleet in which a first release has come some way, or has come through and a second one has begun."""
        self.stage = Stage(templates().of(devices))
        self.stage.watchers += [judge_commit, invariants_back.what_was_decided_is_decided_again]
        self.stage.broker.on_publish = self.stage.judged(saved_before_it_is_published)
        self.policy = POLICIES[policy]
        self.a_person_goes_on(0)
        for _ in range(hours):
            self.a_good_hour(1, -1)
        if not self.stage.live():
            self.a_person_goes_on(1)

    def teardown(self) -> None:
        if hasattr(self, "stage"):
            STEPS.update(figures(self.stage))
            self.stage.close()

    @invariant()
    def count(self) -> None:
        STEPS["steps"] += 1

    # Devices.

    @rule(pick=PICK)
    def a_device_hears(self, pick: int) -> None:
        device = self._device(pick)
        if device.online:
            self.stage.hear(device.device_id)

    @rule(pick=PICK, back=st.integers(0, 30))
    def a_device_hears_an_old_message(self, pick: int, back: int) -> None:
        device = self._device(pick)
        old = [payload for device_id, payload in self.stage.broker.sent if device_id == device.device_id]
        if device.online and old:
            device.hear(old[-1 - back % len(old)])

    @rule(pick=PICK, good=st.sampled_from([True, True, False]))
    def a_device_works(self, pick: int, good: bool) -> None:
        device = self._device(pick)
        device.work(good=good)
        self._says(device, [device.reported()])

    @rule(pick=PICK)
    def a_device_fails_late(self, pick: int) -> None:
        device = self._device(pick)
        device.fail_late()
        self._says(device, [device.reported()])

    @rule(pick=PICK)
    def a_device_talks(self, pick: int) -> None:
        device = self._device(pick)
        self._scores(device)
        self._says(device, device.talk())

    @rule(pick=PICK)
    def a_device_loses_power(self, pick: int) -> None:
        device = self._device(pick)
        device.lose_power()
        self._says(device, [device.reported()])

    @rule(pick=PICK)
    def a_device_falls_silent_or_revives(self, pick: int) -> None:
        device = self._device(pick)
        # A removed one reaches the broker no more.
        device.online = not device.online and device.device_id not in self.stage.seen.removed

    @rule(pick=PICK, how=st.sampled_from(["committed", "failed", "future", "nonce", "model", "other", "garbage", "clock"]))
    def a_device_lies(self, pick: int, how: str) -> None:
        device = self._device(pick)
        device.honest = False
        self._says(device, lie(device, how, self._digest(pick)))

    @rule()
    def a_device_appears(self) -> None:
        self.stage.join()

    @rule(pick=PICK, site=st.sampled_from(SITES))
    def a_device_moves(self, pick: int, site: str) -> None:
        device = self._device(pick)
        self.stage.eye.execute("UPDATE device_label SET value = ? WHERE device_id = ? AND key = 'site'", site, device.device_id)

    # The network.

    @rule(how=st.sampled_from(["in order", "in order", "reversed", "twice", "half lost", "first only", "again"]), dies=st.integers(-6, 3))
    def mail_arrives(self, how: str, dies: int) -> None:
        broker = self.stage.broker
        waiting, broker.uplink = broker.uplink, []
        if how == "first only":
            waiting, broker.uplink = waiting[:1], waiting[1:]
        arriving = {
            "reversed": waiting[::-1],
            "twice": [*waiting, *waiting],
            "half lost": waiting[::2],
            "again": [*broker.delivered, *waiting],
        }.get(how, waiting)
        self.stage.receive(arriving, dies_after=dies if dies >= 0 else None)

    @rule(pick=PICK)
    def mail_is_mixed(self, pick: int) -> None:
        # Of two lies about the reason of a failure the first one stays: only who tells the truth says the same in any order.
        honest = {device_id for device_id, device in self.stage.devices.items() if device.honest}
        messages = [one for one in self.stage.broker.uplink[:20] if parse_device_topic(one.topic)[0] in honest]
        for device in {one.device_id: one for one in self._some(pick, 3)}.values():
            if device.honest:
                messages += device.talk()
        probes.the_order_of_reports_does_not_matter(self.stage, messages, [*messages[::-1], *messages[::2]])

    @rule(up=st.sampled_from([True, True, False]), fate=st.lists(st.sampled_from(["ok", "lost", "unconfirmed"]), max_size=6))
    def the_broker_changes(self, up: bool, fate: list[str]) -> None:
        self.stage.broker.up, self.stage.broker.fate = up, fate

    # The servers.

    @rule(number=st.integers(0, 1), dies=st.integers(-12, 9))
    def a_relay_publishes(self, number: int, dies: int) -> None:
        self.stage.publish(number=number, dies_after=dies if dies >= 0 else None)

    @rule(number=st.integers(0, 1))
    def a_relay_starts_anew(self, number: int) -> None:
        self.stage.as_server(lambda server: server.relay.publish_everything() if self.stage.broker.up else 0, number=number)

    @rule(number=st.integers(0, 1), dies=st.integers(0, 12))
    def a_scheduler_dies(self, number: int, dies: int) -> None:
        self.stage.tick(number=number, dies_after=dies)

    @rule(number=st.integers(0, 1))
    def a_scheduler_decides(self, number: int) -> None:
        deaths = self.stage.deaths
        self.stage.tick(number=number)
        if self.stage.deaths == deaths:
            probes.nothing_is_overdue(self.stage)

    @rule(pick=PICK)
    def a_scheduler_decides_one(self, pick: int) -> None:
        rollout_id = self._rollout(pick)
        if rollout_id is not None:
            actions = self.stage.as_server(lambda server: settle(server.services, rollout_id))
            probes.judge_tick(self.stage, rollout_id, actions)
            invariants_evidence.evidence_ends_it(self.stage, rollout_id)
            probes.decide_is_pure(self.stage, rollout_id)

    @rule(pick=PICK)
    def two_schedulers_at_once(self, pick: int) -> None:
        rollout_id = self._rollout(pick)
        if rollout_id is not None:
            self.stage.servers[0].db.let_in = lambda: self._settle(self.stage.servers[1].services, rollout_id)
            self.stage.as_server(lambda server: settle(server.services, rollout_id))

    def _settle(self, services: Any, rollout_id: str) -> None:
        settle(services, rollout_id)

    # Questions.

    @rule(pick=PICK, member=PICK)
    def what_if_one_failed(self, pick: int, member: int) -> None:
        self._ask(pick, member, probes.a_failure_is_never_good_news)

    @rule(pick=PICK, member=PICK, what=st.sampled_from(["report", "attestation", "life", "rows", "commit"]))
    def what_if_nothing_had_come(self, pick: int, member: int, what: str) -> None:
        self._ask(pick, member, lambda stage, r, d: probes.silence_is_never_good_news(stage, r, d, what))

    @rule(
        heard=st.integers(3_600, 7_200),
        controls=st.lists(st.integers(3_600, 30_000), min_size=3, max_size=8),
        outage=st.integers(0, 40_000),
    )
    def what_if_an_outage_had_come(self, heard: int, controls: list[int], outage: int) -> None:
        probes.a_shared_outage_is_no_silence(heard, controls, (min(heard, *controls), outage))

    @rule(pick=PICK, member=PICK, how=st.sampled_from(["first", "second", "third"]), really=st.integers(0, 2))
    def a_row_is_damaged(self, pick: int, member: int, how: str, really: int) -> None:
        if really == 0:
            self._ask(pick, member, lambda stage, r, d: damage(stage, r, d, how))

    # Time.

    @rule(seconds=st.sampled_from([0.2, 1.0, 4.0, 31.0, 65.0, 130.0, 5_000.0, 30_000.0]))
    def time_passes(self, seconds: float) -> None:
        self.stage.clock.move(seconds)

    @rule()
    def time_passes_until_something_is_due(self) -> None:
        due = self.stage.due_next()
        if due is not None and self.stage.clock() < due < self.stage.clock() + timedelta(days=30):
            self.stage.clock.now = due
        self.a_scheduler_decides(0)

    @rule(seconds=st.sampled_from([0.5, 5.0, 60.0]))
    def the_clock_jumps_back(self, seconds: float) -> None:
        self.stage.clock.move(-seconds)

    @rule(pick=PICK)
    def a_device_that_was_asked_fails(self, pick: int) -> None:
        """It hears, tries, fails and says so."""
        asked = [d for d, row in sorted(self.stage.seen.members.items()) if row.counter is not None and row.active]
        if asked:
            device = self.stage.devices[asked[pick % len(asked)][1]]
            self.stage.publish()
            self.stage.hear(device.device_id)
            for _ in range(2):
                device.work(good=False)
                self._says(device, [device.reported()])
            device.fail_late()
            self._says(device, [device.reported()])
            self.mail_arrives("in order", -1)

    @rule(rounds=st.integers(1, 3), pick=PICK, back=st.integers(0, 7))
    def some_good_hours(self, rounds: int, pick: int, back: int) -> None:
        """The same again, so that rollouts come far enough for all that can go wrong there; of a few the way back."""
        if back == 0:
            self._acts(pick, "roll-back", 0)
        self.a_good_hour(rounds, -1)

    @rule(really=st.integers(0, 2))
    def what_has_a_way_back_goes_back(self, really: int) -> None:
        """A person takes back what replaced something, and the fleet obeys; rarely, for little is left to look at afterwards."""
        if really == 0:
            for rollout_id in self.stage.live():
                self.stage.act(rollout_id, "roll-back", PEOPLE[0])
            for device in self.stage.devices.values():  # one that sleeps holds up the end of it
                device.online = device.device_id not in self.stage.seen.removed
            self.a_good_hour(4, -1)

    @rule(rounds=st.integers(1, 3), but=st.sampled_from([-1, -1, -1, -1, 0, 1, 2]))
    def a_good_hour(self, rounds: int, but: int) -> None:
        """Every device that is awake hears, works and talks; one may fail."""
        stage = self.stage
        stage.broker.up = True
        for _ in range(rounds):
            for device_id, device in stage.devices.items():
                if device.online and device_id in stage.broker.retained:
                    stage.hear(device_id)
                    device.work(good=but < 0 or not device_id.endswith(str(but)))
                    self._scores(device)
                self._says(device, device.talk() if device_id in stage.broker.retained else [device.heartbeat()])
            waiting, stage.broker.uplink = stage.broker.uplink, []
            stage.receive(waiting)
            stage.clock.move(4.0 if self.policy["name"].startswith("unanimous") else 21.0)
            stage.tick()
            stage.publish()

    # What the rules are made of.

    def _device(self, pick: int) -> FieldDevice:
        """An even number names a device of an open wave, where there is one: the others have little to tell."""
        devices, members = self.stage.devices, self.stage.seen.members.items()
        asked = sorted({d for (_, d), row in members if row.counter is not None and row.active}) if pick % 2 == 0 else []
        names = asked or sorted(devices)
        return devices[names[pick // 2 % len(names)]]

    def _some(self, pick: int, count: int) -> list[FieldDevice]:
        return [self._device(pick + n) for n in range(count)]

    def _digest(self, pick: int) -> str:
        return self.stage.template.bundles[pick % RELEASES].digest

    def _scores(self, device: FieldDevice) -> None:
        """Rows for the evidence, as long as it lacks some: they are the dearest messages."""
        lacking = any(row.rows < 20 and row.active for (_, d), row in self.stage.seen.members.items() if d == device.device_id)
        if device.running and lacking and not any(record.kind == "window" for record in device.spool.values()):
            device.score(self.stage.template.windows[device.running])

    def _says(self, device: FieldDevice, messages: list[Incoming]) -> None:
        if device.online:
            self.stage.broker.uplink += messages

    def _ask(self, pick: int, member: int, question: Any) -> None:
        rollout_id = self._rollout(pick)
        if rollout_id is None:
            return
        rollout = self.stage.seen.rollouts[rollout_id]
        asked = sorted(d for d, row in self.stage.seen.members_of(rollout_id).items() if row.counter is not None and not row.removed_at)
        if rollout.state in probes.JUDGED and asked:
            question(self.stage, rollout_id, asked[member % len(asked)])
