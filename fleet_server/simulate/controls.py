"""Who is a control of whom: the devices that a rollout has not exposed, by site and quarter of an hour, and those of the time zone."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from fleet_server.rollout.silence import OWN_CONTROLS
from fleet_server.simulate.availability import Availability
from fleet_server.simulate.cells import Cells, Ints, Mask

_SHRINK: Final = 5.0


class Controls:
    """Controls of all waves but the last, and from its opening on those of the last.

    Args:
        availability: Of the fleet.
        order: Devices in the order in which waves take them.
        held: The hold-back.
        before_last: Devices of the order that all waves but the last take.
        ticks: How many there will be.
        soak: Ticks after which a sign of life counts.
    """

    def __init__(self, availability: Availability, order: Ints, held: Ints, before_last: int, ticks: int, soak: int) -> None:
        self._availability, self._order, self._held, self._ticks, self._soak = availability, order, held, ticks, soak
        self._switched_at: int | None = None
        self._parts = [self._watch(np.concatenate([held, order[before_last:]]))]

    def tick(self, number: int, heard: Mask) -> None:
        """Count one tick."""
        for cells, watched in self._parts:
            cells.tick(number, heard[watched])

    def last_wave(self, number: int) -> None:
        """The last wave opens: who may begin from now on is no control any longer; what was counted of him stays.

        Its controls are the hold-back and the devices that were exposed first, long ago.
        """
        if self._switched_at is None:
            self._switched_at = number
            self._parts.append(self._watch(np.concatenate([self._held, self._order[: len(self._order) // 4]])))

    def of(self, site: Ints, tick: Ints) -> tuple[Ints, Ints, Mask]:
        """(live, unheard since, whether the site has enough of its own) for groups; those of the time zone where it has too few."""
        live, unheard, zone_live, zone_unheard = self._counts(site, tick)
        own = live >= OWN_CONTROLS
        return np.where(own, live, zone_live), np.where(own, unheard, zone_unheard), own

    def own(self, site: Ints, tick: Ints) -> tuple[Ints, Ints]:
        """(live, unheard since) of the sites themselves."""
        live, unheard, _, _ = self._counts(site, tick)
        return live, unheard

    def missing_share(self, site: Ints, tick: Ints) -> NDArray[np.float64]:
        """Share of the controls that have not been heard since, a site's own shrunk to that of its time zone."""
        live, unheard, zone_live, zone_unheard = self._counts(site, tick)
        region = zone_unheard / np.maximum(zone_live, 1)
        found: NDArray[np.float64] = (unheard + _SHRINK * region) / (live + _SHRINK)
        return found

    def _counts(self, site: Ints, tick: Ints) -> tuple[Ints, Ints, Ints, Ints]:
        zone = self._availability.zone[site]
        found = [self._counts_of(cells, site, zone, tick) for cells, _ in self._parts]
        if self._switched_at is None:
            return found[0]
        late = tick >= self._switched_at
        return tuple(np.where(late, after, before) for before, after in zip(*found, strict=True))

    @staticmethod
    def _counts_of(cells: Cells, site: Ints, zone: Ints, tick: Ints) -> tuple[Ints, Ints, Ints, Ints]:
        return cells.live[tick, site], cells.unheard[tick, site], cells.zone_live[tick, zone], cells.zone_unheard[tick, zone]  # type: ignore[return-value]

    def _watch(self, devices: Ints) -> tuple[Cells, Ints]:
        watched = np.sort(devices)
        return Cells(self._availability.site[watched], self._availability.zone, self._ticks, self._soak), watched
