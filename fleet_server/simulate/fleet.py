"""A fleet that a release goes through, counted as the server counts it.

A device begins at its first sign of life after its batch may begin. Sums are kept up by increments.
"""

import numpy as np

from fleet_server.rollout.tally import Stratum, Tally
from fleet_server.simulate.availability import Availability
from fleet_server.simulate.cells import Ints, Mask
from fleet_server.simulate.controls import Controls
from fleet_server.simulate.drawn import Devices, Order
from fleet_server.simulate.groups import Groups
from fleet_server.simulate.outages import SiteOutages
from fleet_server.simulate.scene import MODELS, PER_HOUR, Behaviour


class VirtualFleet:
    """Devices, their release, and what is known of them.

    Args:
        devices: Model of each, and on which the release fails.
        order: In which the waves take them.
        availability: Who is heard when.
        behaviour: Of the release.
        ticks: How many there will be.
        soak: Ticks after which a sign of life counts.
        deadline: Ticks until which it must come.
    """

    def __init__(
        self, devices: Devices, order: Order, availability: Availability, behaviour: Behaviour, ticks: int, soak: int, deadline: int
    ) -> None:
        n, self._soak = len(availability.site), soak
        self._availability, self._behaviour, self._devices, self._order = availability, behaviour, devices, order
        self._began = np.full(n, -1, np.int64)
        self._failed: Mask = np.zeros(n, bool)
        self._heard_after_soak: Mask = np.zeros(n, bool)
        self._last_heard = np.full(n, -1, np.int64)
        self._dark_sites: Mask = np.zeros(availability.sites, bool)
        self._exposed: Ints = np.empty(0, np.int64)
        before_last = order.sizes[-2] if len(order.sizes) > 1 else 0
        self._controls = Controls(availability, order.devices, order.held, before_last, ticks, soak)
        self._groups = Groups(availability.sites, ticks, self._controls, soak, deadline)
        self._outages = SiteOutages(availability.sites, self._controls)
        self._reached = 0

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

    def advance(self, number: int, reach: int, *, last_wave: bool) -> None:
        """One tick: who is heard, who begins, who fails, whose time is over.

        Args:
            number: Of the tick, rising by one.
            reach: Devices of the order that may have begun by now.
            last_wave: Whether the last wave is open: its members are controls no longer.
        """
        heard = self._availability.tick(number)
        if self._behaviour.kind == "dark":
            heard = heard & ~(self._devices.bad & (self._began >= 0))
        if self._dark_sites.any():
            heard = heard & ~self._dark_sites[self._availability.site]
        self._last_heard[heard] = number
        if last_wave:
            self._controls.last_wave(number)
        self._controls.tick(number, heard)
        self._tell(number, heard)
        self._begin(number, heard, reach)
        self._groups.come_due(number)
        self._outages.tick(number)

    def tally(self, number: int, opened: int, dwell: int) -> Tally:
        """What the server knows after a tick; `dwell` in ticks."""
        models = len(MODELS)
        model = self._devices.model[self._exposed]
        exposed = np.bincount(model, minlength=models)
        failed = np.bincount(model[self._failed[self._exposed]], minlength=models)
        began = self._began[self._exposed]
        old = self._exposed[began <= number - dwell]
        sites_exposed, sites_out, share = self._outages.counts(number)
        return Tally(
            opened=opened,
            strata={f"model-{i}": Stratum(int(exposed[i]), int(failed[i])) for i in range(models) if exposed[i]},
            quiet=self._groups.silence(),
            dwelled=len(old),
            dwelled_failed=int(self._failed[old].sum()),
            heard_after_dwell=int((self._last_heard[old] >= self._began[old] + dwell).sum()),
            sites_exposed=sites_exposed,
            sites_out=sites_out,
            sites_out_share=share,
        )

    def _tell(self, number: int, heard: Mask) -> None:
        """Devices that began and are heard: failures show, soaked ones are no longer missing."""
        here = self._exposed[heard[self._exposed]]
        if not len(here):
            return
        age = number - self._began[here]
        if self._behaviour.kind in ("prompt", "late"):
            delay = int(self._behaviour.delay_h * PER_HOUR) if self._behaviour.kind == "late" else 1
            self._failed[here[self._devices.bad[here] & (age > delay)]] = True
        soaked = here[(age > self._soak) & ~self._heard_after_soak[here]]
        self._heard_after_soak[soaked] = True
        self._groups.heard(self._availability.site[soaked], self._began[soaked])

    def _begin(self, number: int, heard: Mask, reach: int) -> None:
        self._reached = max(self._reached, reach)
        waiting = self._order.devices[: self._reached]
        begins = waiting[heard[waiting] & (self._began[waiting] < 0)]
        if not len(begins):
            return
        self._began[begins] = number
        self._exposed = np.concatenate([self._exposed, begins])
        site = self._availability.site[begins]
        self._groups.begin(number, site)
        self._outages.begin(number, site)
        if self._behaviour.kind == "site":
            # A device that the release fails on takes the gateway of its site down; from the next tick on nobody there is heard.
            self._dark_sites[site[self._devices.bad[begins]]] = True
