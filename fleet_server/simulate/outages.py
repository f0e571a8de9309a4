"""Sites that go dark as a whole soon after their first device began: the harm that controls of the same site cannot show.

How often sites do so by themselves is asked of the other sites at the same time: those whose own first exposure is not so recent. An outage
of our own broker silences them all, and excuses them all.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from fleet_server.rollout.silence import OWN_CONTROLS
from fleet_server.simulate.cells import Ints, Mask
from fleet_server.simulate.controls import Controls
from fleet_server.simulate.groups import NEVER, earliest_deadline
from fleet_server.simulate.scene import PER_HOUR

FEW_SITES: Final = 5
_SOON: Final = 2 * PER_HOUR
_HISTORIC_SHARE: Final = 0.002  # of sites go dark in any two hours: one outage of a site in six weeks


class SiteOutages:
    """Sites exposed, and those of them that went dark within two hours."""

    def __init__(self, sites: int, controls: Controls, soak: int) -> None:
        self._controls, self._every, self._soak = controls, np.arange(sites), soak
        self._judged: Mask = np.zeros(sites, bool)
        self._first: Ints = np.full(sites, NEVER)
        self._out: Mask = np.zeros(sites, bool)
        self._others: NDArray[np.float64] = np.zeros(sites)

    def begin(self, number: int, site: Ints) -> None:
        """Devices of these sites begin."""
        self._first[site] = np.minimum(self._first[site], number)

    def tick(self, number: int, deaf_until: int | None) -> None:
        """Judge the sites whose two hours are over, and those of whom the server could hear nobody then."""
        open_ = ~self._judged & (self._first <= number - _SOON)
        if not open_.any():
            return
        over = open_ & (earliest_deadline(self._first, self._soak, _SOON, deaf_until) <= number)
        for then in np.unique(self._first[over]):
            judged = over & (self._first == then)
            dark, live = self._dark(int(then))
            others = live & (np.abs(np.where(self._first == NEVER, -NEVER, self._first) - then) > _SOON)
            self._out |= judged & dark
            self._others[judged] = dark[others].mean() if others.any() else 0.0
        self._judged |= over

    def counts(self, number: int) -> tuple[int, int, float]:
        """(sites exposed, of them gone dark, share that goes dark by itself); of few sites only those that still are dark count."""
        exposed = self._first <= number
        n = int(exposed.sum())
        out = self._out & exposed
        if 0 < n < FEW_SITES and out.any():
            still = np.flatnonzero(out)
            live, unheard = self._controls.own(still, self._first[still])
            out[still] = 10 * unheard >= 7 * live
        share = float(self._others[exposed].mean()) if n else 0.0
        return n, int(out.sum()), min(max(share, _HISTORIC_SHARE), 0.95)

    def _dark(self, then: int) -> tuple[Mask, Mask]:
        live, unheard = self._controls.own(self._every, np.full(len(self._every), then))
        enough = live >= OWN_CONTROLS
        return enough & (10 * unheard >= 7 * live), enough
