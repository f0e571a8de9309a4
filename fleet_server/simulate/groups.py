"""Exposed devices by site and the quarter of an hour in which they began: each group becomes due when its controls say so."""

from dataclasses import dataclass, fields
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fleet_server.rollout.silence import Silence
from fleet_server.simulate.cells import Ints, Mask
from fleet_server.simulate.controls import Controls
from fleet_server.simulate.scene import PER_HOUR

NEVER: Final = np.iinfo(np.int64).max // 2
_WITHOUT_HISTORY: Final = 0.03


def earliest_deadline(began: Ints, soak: int, deadline: int, deaf_until: int | None) -> Ints:
    """Tick until which devices that began then must be heard: later where the server could hear nobody after their soak."""
    earliest = began + deadline
    return earliest if deaf_until is None else np.where(deaf_until > began + soak, np.maximum(earliest, deaf_until), earliest)


@dataclass
class _Rows:
    """Growing arrays, one place per (site, tick)."""

    site: Ints
    tick: Ints
    exposed: Ints
    heard_at: Ints
    due: Mask
    silent: Ints

    @classmethod
    def fresh(cls, site: Ints, tick: int, exposed: Ints) -> "_Rows":
        """Groups that began at a tick."""
        n = len(site)
        return cls(site, np.full(n, tick), exposed, np.full(n, NEVER), np.zeros(n, bool), np.zeros(n, np.int64))

    def joined(self, more: "_Rows") -> "_Rows":
        """Both, one behind the other."""
        return _Rows(*(np.concatenate([getattr(self, one.name), getattr(more, one.name)]) for one in fields(self)))


class Groups:
    """Silence of the exposed devices, beside that of their controls.

    Args:
        sites: How many there are.
        ticks: How many there will be.
        controls: Of the exposed devices.
        soak: Ticks after which a sign of life counts.
        deadline: Ticks until which it must come, unless the controls ask for more.
    """

    def __init__(self, sites: int, ticks: int, controls: Controls, soak: int, deadline: int) -> None:
        self._sites, self._controls, self._soak, self._deadline = sites, controls, soak, deadline
        self._unheard = np.zeros((ticks, sites), np.int32)  # not heard since their soak
        nothing = np.empty(0, np.int64)
        self._rows = _Rows.fresh(nothing, 0, nothing)
        self._site_once: Mask = np.zeros(sites, bool)
        self._by_site = np.zeros((sites, 2), np.int64)  # silent and exposed
        self._due, self._baseline = 0, 0.0  # devices, and their sum of silent shares of controls

    def begin(self, number: int, site: Ints) -> None:
        """Devices of these sites begin."""
        per_site = np.bincount(site, minlength=self._sites)
        sites = np.flatnonzero(per_site)
        self._unheard[number, sites] = per_site[sites]
        self._by_site[:, 1] += per_site
        self._rows = self._rows.joined(_Rows.fresh(sites, number, per_site[sites]))

    def heard(self, site: Ints, began: Ints) -> None:
        """Devices that began then are heard for the first time after their soak."""
        np.subtract.at(self._unheard, (began, site), 1)

    def come_due(self, number: int, deaf_until: int | None) -> None:
        """Groups whose controls were heard again, or which have waited long enough with controls that never were away.

        Args:
            number: Of the tick.
            deaf_until: First tick in which devices could be heard again, None when they always could.
        """
        rows = self._rows
        open_ = np.flatnonzero(~rows.due)
        if not len(open_):
            return
        site, tick = rows.site[open_], rows.tick[open_]
        live, unheard, own = self._controls.of(site, tick)
        back = (number > tick + self._soak) & (10 * (live - unheard) >= 7 * live)
        rows.heard_at[open_[back & (rows.heard_at[open_] == NEVER)]] = number
        earliest, at = earliest_deadline(tick, self._soak, self._deadline, deaf_until), rows.heard_at[open_]
        over = number >= np.where(at <= earliest, earliest, at + PER_HOUR)
        due = open_[over]
        if not len(due):
            return
        rows.due[due] = True
        rows.silent[due] = self._once_per_site(rows.site[due], self._unheard[rows.tick[due], rows.site[due]].astype(np.int64), own[over])
        np.add.at(self._by_site[:, 0], rows.site[due], rows.silent[due])
        self._due += int(rows.exposed[due].sum())
        self._baseline += _of_all(self._controls.missing_share(rows.site[due], rows.tick[due]), rows.exposed[due])

    def silence(self) -> Silence:
        """What is known now."""
        rows, total = self._rows, self._due
        due = np.flatnonzero(rows.due)
        n, site, tick = rows.exposed[due], rows.site[due], rows.tick[due]
        return Silence(
            exposed=int(self._by_site[:, 1].sum()),
            silent=int(self._by_site[:, 0].sum()),
            silent_baseline=self._baseline / total if total else _WITHOUT_HISTORY,
            due=total,
            missing=int(self._unheard[tick, site].sum()),
            missing_baseline=_of_all(self._controls.missing_share(site, tick), n) / total if total else _WITHOUT_HISTORY,
            sites=self._by_site[self._by_site[:, 1] > 0],
        )

    def _once_per_site(self, site: Ints, silent: Ints, own: Mask) -> Ints:
        """Where a site has no controls of its own, all its silent devices are one event."""
        counted = np.where(own, silent, 0)
        alone = np.flatnonzero(~own & (silent > 0))
        fresh = alone[~self._site_once[site[alone]]]
        first = fresh[np.unique(site[fresh], return_index=True)[1]]
        self._site_once[site[first]], counted[first] = True, 1
        return counted


def _of_all(share: NDArray[np.float64], devices: Ints) -> float:
    """Sum of shares of devices; not by `@`, whose threads cost a second core, and add up in another order on another machine."""
    return float((share * devices).sum())
