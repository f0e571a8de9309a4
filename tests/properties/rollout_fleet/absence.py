"""Steps in which no server is there while devices talk."""

from hypothesis import strategies as st
from hypothesis.stateful import rule

from fleet_server.store.moments import to_micros
from tests.properties.rollout_fleet import probes
from tests.properties.rollout_fleet.people import PICK, PeopleMachine


class AbsentServerMachine(PeopleMachine):
    """The broker holds what devices say."""

    @rule(pick=PICK, seconds=st.sampled_from([40.0, 130.0, 5_000.0]))
    def the_broker_holds_mail_for_a_server_that_is_away(self, pick: int, seconds: float) -> None:
        """Devices talk, one of them dies, and only then somebody is there to listen."""
        stage = self.stage
        left_at = to_micros(stage.clock())
        names = sorted(stage.devices)
        talking = [stage.devices[names[(pick + more) % len(names)]] for more in range(3)]
        for device in talking:
            if device.online:
                stage.broker.uplink += device.talk()
        talking[0].online = False
        stage.clock.move(seconds)
        held, stage.broker.uplink = stage.broker.uplink, []
        probes.held_mail_is_no_life_of_now(stage, held, left_at)
