"""What the server knows of a virtual fleet, from the messages that reached it: sums that are kept up by increments.

The rule is that of the real ingest: an outcome that was seen once stays seen, whoever fails has begun, and a message that comes again, or
behind a younger one, changes nothing. So each device counts once, whatever the wire does. What the broker held for a server that was away
is a sign of life of the last tick at which the server was there.
"""

import numpy as np

from fleet_server.rollout.hearing import Hearing
from fleet_server.rollout.tally import Stratum, Tally
from fleet_server.simulate.availability import Availability
from fleet_server.simulate.cells import Ints, Mask
from fleet_server.simulate.controls import Controls
from fleet_server.simulate.drawn import Order
from fleet_server.simulate.groups import Groups
from fleet_server.simulate.outages import SiteOutages
from fleet_server.simulate.scene import MODELS
from fleet_server.simulate.wire import Word


class Ledger:
    """Counts of the devices that said that they began.

    Args:
        model: [N] hardware model of each device.
        availability: Of the fleet; sites and time zones are taken from it.
        order: In which the waves take the devices.
        ticks: How many there will be.
        soak: Ticks after which a sign of life counts.
        deadline: Ticks until which it must come.

    Attributes:
        began: [N] tick at which each device was first known to have begun, -1 before.
        devices: Those that began, in that order.
        failed: [N] devices that said that the release failed there.
        answered: [N] ticks since then in which each of them was heard, and answered rows.
        last_heard: [N] tick of the last sign of life of each device, -1 before.
        next_tick: The one after the last whose messages were counted.
    """

    def __init__(self, model: Ints, availability: Availability, order: Order, ticks: int, soak: int, deadline: int) -> None:
        n, self._soak, self._model, self._site = len(model), soak, model, availability.site
        self.began: Ints = np.full(n, -1, np.int64)
        self.devices: Ints = np.empty(0, np.int64)
        self._fresh: list[Ints] = []  # of this tick
        self.failed: Mask = np.zeros(n, bool)
        self.answered: Ints = np.zeros(n, np.int64)
        self._committed: Mask = np.zeros(n, bool)
        self._heard_after_soak: Mask = np.zeros(n, bool)
        self.last_heard: Ints = np.full(n, -1, np.int64)
        self._controls = Controls(availability, order.devices, order.held, order.before_last, ticks, soak)
        self._groups = Groups(availability.sites, ticks, self._controls, soak, deadline)
        self._outages = SiteOutages(availability.sites, self._controls, soak)
        self._hearing = Hearing(-1)
        self._deaf_until: int | None = None
        self.next_tick = 0

    def last_wave(self, number: int) -> None:
        """The last wave opened: its members are controls no longer."""
        self._controls.last_wave(number)

    def alive(self, number: int, heard: Mask, *, deaf: bool = False) -> None:
        """[N] signs of life of a tick: soaked devices are no longer missing; `deaf`: nobody can be heard in it."""
        if not deaf:
            self._hearing = self._hearing.passed(number, number, absent=1)
        self.answered[self.devices[heard[self.devices]]] += 1
        self._lived(number, heard)

    def held(self, word: Word, devices: Ints) -> None:
        """A message each that the broker held while the server was away: they lived when it was last there, or later."""
        if word is Word.ALIVE:
            self.answered[devices[self.began[devices] >= 0]] += 1
        lived: Mask = np.zeros(len(self.began), bool)
        lived[devices] = self.last_heard[devices] < self._hearing.since
        self._lived(self._hearing.since, lived)

    def _lived(self, number: int, heard: Mask) -> None:
        self.last_heard[heard] = number
        self._controls.tick(number, heard)
        here = self.devices[heard[self.devices]]
        age = number - self.began[here]
        self._committed[here[age > 0]] = True
        soaked = here[(age > self._soak) & ~self._heard_after_soak[here]]
        self._heard_after_soak[soaked] = True
        self._groups.heard(self._site[soaked], self.began[soaked])

    def told(self, number: int, word: Word, devices: Ints) -> None:
        """Devices say that they began, or that the release failed there."""
        fresh = np.unique(devices[self.began[devices] < 0])
        if word is Word.FAILED:
            self.failed[devices] = True
        if not len(fresh):
            return
        self.began[fresh] = number
        self._fresh.append(fresh)

    def close(self, number: int) -> None:
        """The tick is over: who is new, whose time is over, which sites are dark."""
        if self._fresh:
            site = self._site[np.concatenate(self._fresh)]
            self.devices = np.concatenate([self.devices, *self._fresh])
            self._groups.begin(number, site)
            self._outages.begin(number, site)
            self._fresh = []
        # A tick is as long as devices get to be heard again.
        self._deaf_until = self._hearing.back_at or None if self._hearing.since == number else number + 1
        self._groups.come_due(number, self._deaf_until)
        self._outages.tick(number, self._deaf_until)
        self.next_tick = number + 1

    def deaf_until(self, number: int) -> int | None:
        """First tick in which devices could be heard again, asked at a tick; None: they always could."""
        if self.next_tick < number:  # the server was away, and has not counted yet what the broker held
            return number + 1
        return self._deaf_until

    def in_activation(self, asked: Ints) -> Ints:
        """[S] devices per site that were given the release and have neither committed nor failed."""
        open_ = asked[~(self._committed[asked] | self.failed[asked])]
        return np.bincount(self._site[open_], minlength=int(self._site.max()) + 1)

    def tally(self, number: int, opened: int, dwell: int, asked: int) -> Tally:
        """What is known after a tick.

        Args:
            number: Of the tick.
            opened: Devices that may begin.
            dwell: In ticks.
            asked: Devices that were given the release.
        """
        models = len(MODELS)
        model, began = self._model[self.devices], self.began[self.devices]
        exposed = np.bincount(model, minlength=models)
        failed = np.bincount(model[self.failed[self.devices]], minlength=models)
        old = self.devices[began <= number - dwell]
        sites_exposed, sites_out, share = self._outages.counts(number)
        return Tally(
            opened=opened,
            strata={f"model-{i}": Stratum(int(exposed[i]), int(failed[i])) for i in range(models) if exposed[i]},
            quiet=self._groups.silence(),
            dwelled=len(old),
            dwelled_failed=int(self.failed[old].sum()),
            heard_after_dwell=int((self.last_heard[old] >= self.began[old] + dwell).sum()),
            sites_exposed=sites_exposed,
            sites_out=sites_out,
            sites_out_share=share,
            asked=asked,
        )
