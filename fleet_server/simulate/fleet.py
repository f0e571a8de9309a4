"""A fleet that a release goes through: who begins when, on whom it fails, and what each device says of it.

A device begins at its first sign of life after it was given the release; one on a battery that is too low waits. What the server makes of
the messages is kept by `ledger.py`.
"""

import numpy as np

from fleet_server.simulate.availability import Availability
from fleet_server.simulate.cells import Ints, Mask
from fleet_server.simulate.drawn import Devices
from fleet_server.simulate.ledger import Ledger
from fleet_server.simulate.scene import PER_HOUR, Behaviour
from fleet_server.simulate.wire import Wire, Word


class VirtualFleet:
    """Devices and their release.

    Args:
        devices: On which the release fails.
        availability: Who is up when.
        behaviour: Of the release.
        ledger: Of the server.
        wire: From the devices to the server.
    """

    def __init__(self, devices: Devices, availability: Availability, behaviour: Behaviour, ledger: Ledger, wire: Wire) -> None:
        n = len(availability.site)
        self._availability, self._behaviour, self._devices, self._wire = availability, behaviour, devices, wire
        self.ledger = ledger
        self._began: Ints = np.full(n, -1, np.int64)
        self._said: Mask = np.zeros(n, bool)  # that it failed
        self._dark_sites: Mask = np.zeros(availability.sites, bool)
        self._exposed: Ints = np.empty(0, np.int64)

    @property
    def exposed(self) -> int:
        """Devices that began."""
        return len(self._exposed)

    @property
    def harmed(self) -> int:
        """Devices on which the release fails, known or not; all devices of a site that it took down."""
        if self._behaviour.kind == "site":
            return int(self._dark_sites[self._availability.site].sum())
        return int(self._devices.bad[self._exposed].sum())

    def advance(self, number: int, given: Ints, *, last_wave: bool, server_away: bool = False) -> None:
        """One tick: who is up, who fails, who begins, and what of it the server hears.

        Args:
            number: Of the tick, rising by one.
            given: Devices that were given the release by now.
            last_wave: Whether the last wave is open: its members are controls no longer.
            server_away: Whether the server hears nothing of it now.
        """
        up = self._availability.tick(number)
        if self._behaviour.kind == "dark":
            lasts = int(self._behaviour.delay_h * PER_HOUR)
            up = up & ~(self._devices.bad & (self._began >= 0) & (number - self._began > lasts))
        if self._dark_sites.any():
            up = up & ~self._dark_sites[self._availability.site]
        if last_wave:
            self.ledger.last_wave(number)
        failing, begins = self._failing(number, up), self._beginning(up, given)
        self._said[failing], self._began[begins] = True, number
        self._exposed = np.concatenate([self._exposed, begins])
        self._tell(number, up, failing, begins, server_away=server_away)
        if self._behaviour.kind == "site":
            # A device that the release fails on takes the gateway of its site down; from the next tick on nobody there is heard.
            self._dark_sites[self._availability.site[begins[self._devices.bad[begins]]]] = True

    def _failing(self, number: int, up: Mask) -> Ints:
        """Devices that find now that the release failed on them."""
        if self._behaviour.kind not in ("prompt", "late"):
            return np.empty(0, np.int64)
        here = self._exposed[up[self._exposed] & self._devices.bad[self._exposed] & ~self._said[self._exposed]]
        delay = int(self._behaviour.delay_h * PER_HOUR) if self._behaviour.kind == "late" else 1
        return here[number - self._began[here] > delay]

    def _beginning(self, up: Mask, given: Ints) -> Ints:
        begins = given[up[given] & (self._began[given] < 0)]
        willing = self._availability.willing
        return begins if willing is None else begins[willing[begins]]

    def _tell(self, number: int, up: Mask, failing: Ints, begins: Ints, *, server_away: bool) -> None:
        """Messages of the tick are sent, and those that arrive are counted: signs of life first, then failures, then beginnings."""
        broker_up = not self._availability.broker_off(number)
        heard = up
        told = [(Word.FAILED, failing), (Word.BEGAN, begins)]
        if not self._wire.plain:
            for word, devices in (*reversed(told), (Word.ALIVE, np.flatnonzero(up))):
                self._wire.send(number, word, devices)
            if server_away:
                self._wire.hold(number, broker_up=broker_up)
                return
            held = self._wire.held()
            for word, devices in held:
                self.ledger.held(word, devices)
            arrived = list(self._wire.arrive(number, broker_up=broker_up))
            heard = np.zeros(len(up), bool)
            for _, devices in arrived:
                heard[devices] = True
            told = [(word, devices) for word, devices in (*held, *arrived) if word is not Word.ALIVE]
        self.ledger.alive(number, heard, deaf=not broker_up)
        for word, devices in told:
            self.ledger.told(number, word, devices)
        self.ledger.close(number)
