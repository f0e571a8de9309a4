"""Short sequences of the machine's steps in which a fault must show."""

from collections.abc import Callable
from functools import partial

from fleet_server.scheduler import steering
from tests.properties.rollout_fleet import care, probes
from tests.properties.rollout_fleet.machine import FleetMachine
from tests.properties.rollout_fleet.stage import Server


def hours(count: int) -> Callable[[FleetMachine], None]:
    def story(machine: FleetMachine) -> None:
        for _ in range(count):
            machine.a_good_hour(1, -1)

    return story


def until_it_is_judged(machine: FleetMachine) -> None:
    """An hour after controls were heard again, by the field's clock, which the machine's other times do not shorten."""
    hours(6)(machine)
    machine.stage.clock.move(3_650.0)
    hours(4)(machine)


def asleep(machine: FleetMachine) -> None:
    for device in machine.stage.devices.values():
        device.online = False
    hours(3)(machine)


def the_asked_fall_asleep(machine: FleetMachine) -> None:
    """Others of their site could begin, by their own clocks as well; and then all are heard again."""
    machine.stage.damage("UPDATE device_label SET value = 'Europe/Berlin' WHERE key = 'time-zone'")
    for device in machine.stage.devices.values():
        device.online = False
    hours(8)(machine)
    for device in machine.stage.devices.values():
        device.online = True
    hours(4)(machine)


def held_mail(machine: FleetMachine) -> None:
    machine.the_broker_holds_mail_for_a_server_that_is_away(0, 5_000.0)


def one_asleep(machine: FleetMachine) -> None:
    open_now = [d for (_, d), row in machine.stage.seen.members.items() if row.counter is not None]
    machine.stage.devices[open_now[-1]].online = False
    hours(4)(machine)


def one_asleep_is_removed(machine: FleetMachine) -> None:
    one_asleep(machine)
    asleep_now = next(device_id for device_id, device in machine.stage.devices.items() if not device.online)
    care.remove(machine.stage, asleep_now)


def one_fails(machine: FleetMachine) -> None:
    machine.a_device_that_was_asked_fails(0)
    hours(2)(machine)
    machine.stage.clock.move(30.0)
    hours(1)(machine)


def abort(machine: FleetMachine) -> None:
    machine.a_person_ends_it(0, "abort", 0, 0)
    hours(3)(machine)


def planned_anew(machine: FleetMachine) -> None:
    machine.a_person_ends_it(0, "abort", 0, 0)
    machine.a_person_plans(1, "", 0)


def roll_back_soon(machine: FleetMachine) -> None:
    hours(2)(machine)
    roll_back(machine)


def roll_back(machine: FleetMachine) -> None:
    machine.a_person_ends_it(0, "roll-back", 0, 0)
    machine.a_scheduler_decides(0)
    hours(1)(machine)


def roll_back_above_the_floor(machine: FleetMachine) -> None:
    """The release that most devices go back to lies below the floor by then."""
    machine.stage.raise_floor(1, machine.people[0])
    roll_back_soon(machine)


def set_back(machine: FleetMachine) -> None:
    machine.stage.clock.move(-60.0)
    for rollout_id in machine.stage.live():
        machine.stage.eye.execute("UPDATE rollout SET due_at = 0 WHERE rollout_id = ?", rollout_id)
    machine.a_scheduler_decides_one(0)


def mixed(machine: FleetMachine) -> None:
    for device in machine.stage.devices.values():
        if device.running:
            device.score(machine.stage.template.windows[device.running])
    machine.mail_is_mixed(0)


def approved_once(machine: FleetMachine) -> None:
    machine.a_person_ends_it(0, "abort", 0, 0)
    machine.a_person_plans(1, "", 0)
    for rollout_id in machine.stage.live():
        machine.stage.approve(rollout_id, machine.people[1])
        machine.stage.act(rollout_id, "start", machine.people[0])


def asleep_and_ask(machine: FleetMachine) -> None:
    probes.decide_is_pure(machine.stage, machine.stage.live()[0])


def never_due(machine: FleetMachine) -> None:
    machine.a_good_hour(1, -1)
    machine.a_good_hour(1, -1)
    machine.stage.clock.move(400.0)
    machine.a_scheduler_decides(0)


def damaged(machine: FleetMachine) -> None:
    machine.a_row_is_damaged(0, 0, "second", 0)


def proves_itself_late(machine: FleetMachine) -> None:
    machine.a_person_ends_it(0, "abort", 0, 0)
    for device in machine.stage.devices.values():
        if device.running:
            device.score(machine.stage.template.windows[device.running])
            device.score(machine.stage.template.windows[device.running])
            machine.stage.broker.uplink += device.talk()
    machine.stage.clock.move(10.0)
    machine.mail_arrives("in order", -1)
    machine.stage.clock.move(2.0)
    for rollout_id in list(machine.stage.seen.rollouts):
        machine.stage.as_server(partial(_settle, rollout_id))


def asked_again(machine: FleetMachine) -> None:
    machine.a_device_that_was_asked_fails(0)
    machine.a_scheduler_decides(0)
    machine.a_person_ends_it(0, "abort", 0, 0)
    machine.a_person_plans(0, "", 0)
    for rollout_id in machine.stage.live():
        machine.stage.act(rollout_id, "start", machine.people[0])
    machine.a_scheduler_decides(0)
    hours(4)(machine)


def rows_are_lost(machine: FleetMachine) -> None:
    rollout_id = machine.stage.live()[0]
    for device_id, row in machine.stage.seen.members_of(rollout_id).items():
        if row.counter is not None:
            probes.silence_is_never_good_news(machine.stage, rollout_id, device_id, "rows")


def shared_outage(machine: FleetMachine) -> None:
    machine.what_if_an_outage_had_come(3_700, [3_600, 3_700, 3_800], 20_000)


def _settle(rollout_id: str, server: Server) -> None:
    steering.settle(server.services, rollout_id)
