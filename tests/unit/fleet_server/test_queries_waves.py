"""The word for each device of a rollout that let go of its devices."""

from dataclasses import replace
from typing import NoReturn

from fleet_server.queries.waves import judge
from fleet_server.rollout import RolloutState
from tests.unit.fleet_server.rollout_world import T0, at, facts, in_wave_two, proven


class Unsearched(tuple[str, ...]):
    """A wave that may be gone through once and not searched for each of its devices."""

    def __contains__(self, key: object) -> NoReturn:
        raise AssertionError(f"the wave is searched for {key}")


def test_the_devices_of_an_aborted_rollout_are_judged_without_a_search_for_each_and_by_their_own_wave() -> None:
    rollout = in_wave_two(on_abort="wave")
    waves = tuple(Unsearched(wave) for wave in rollout.waves)
    aborted = replace(rollout, state=RolloutState.ABORTED, waves=waves)
    known = facts(rollout, *(proven(device_id, T0) for device_id in rollout.members))

    judged = judge(aborted, known, set(), at(60))

    assert {judged[one].reason for one in waves[0]} == {"committed and attested"}
    assert {judged[one].reason for one in waves[1]} == {"went back to what it ran before"}
    assert {judged[one].progress for one in waves[2]} == {"not-begun"}
