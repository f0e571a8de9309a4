"""A fleet that a release goes through, counted as the server counts it.

A device begins at its first sign of life after its batch may begin. Sums are kept by increments; groups of a site and quarter of an hour
become due when their controls say so.
"""

from dataclasses import dataclass, fields
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fleet_server.rollout.membership import HOLD_BACK, Candidate, HoldBack, members_by_wave, plan_membership
from fleet_server.rollout.silence import OWN_CONTROLS, Silence
from fleet_server.rollout.tally import Stratum, Tally
from fleet_server.simulate.availability import Availability
from fleet_server.simulate.cells import Cells, Ints, Mask
from fleet_server.simulate.scene import MODELS, PER_HOUR, Behaviour

SOAK: Final = PER_HOUR
DEADLINE: Final = 2 * PER_HOUR
_NEVER: Final = np.iinfo(np.int64).max // 2
_SHRINK: Final = 5.0
_PER_STRATUM: Final = 10


@dataclass
class _Groups:
    """Groups of exposed devices: growing arrays, one place per (site, tick)."""

    site: Ints
    tick: Ints
    exposed: Ints
    heard_at: Ints
    due: Mask
    silent: Ints
    baseline: NDArray[np.float64]

    @classmethod
    def fresh(cls, site: Ints, tick: int, exposed: Ints) -> "_Groups":
        """Groups that began at a tick."""
        n = len(site)
        never = np.full(n, _NEVER)
        return cls(site, np.full(n, tick), exposed, never, np.zeros(n, bool), np.zeros(n, np.int64), np.zeros(n))

    def joined(self, more: "_Groups") -> "_Groups":
        """Both, one behind the other."""
        return _Groups(*(np.concatenate([getattr(self, one.name), getattr(more, one.name)]) for one in fields(self)))


class VirtualFleet:
    """Devices, their release, and what is known of them.

    Attributes:
        order: Devices in the order in which waves take them; the hold-back is not in it.
        harmed: Devices on which the release has failed.
    """

    def __init__(
        self, rng: np.random.Generator, availability: Availability, behaviour: Behaviour, sizes: tuple[int, ...], ticks: int
    ) -> None:
        n = len(availability.site)
        self._availability, self._behaviour, self._ticks = availability, behaviour, ticks
        self._model = rng.choice(len(MODELS), n, p=MODELS)
        touchable = np.ones(n, bool) if behaviour.model is None else self._model == behaviour.model
        self._bad: Mask = touchable & (rng.random(n) < behaviour.failing)
        self.order, self.held, self.sizes = _order(f"salt-{rng.integers(2**62)}", availability, self._model, sizes)
        self._began = np.full(n, -1, np.int64)
        self._failed: Mask = np.zeros(n, bool)
        self._heard_after_soak: Mask = np.zeros(n, bool)
        self._last_heard = np.full(n, -1, np.int64)
        self._exposed: Ints = np.empty(0, np.int64)
        self._unheard = np.zeros((availability.sites, ticks), np.int32)
        nothing = np.empty(0, np.int64)
        self._groups = _Groups.fresh(nothing, 0, nothing)
        self._site_once: Mask = np.zeros(availability.sites, bool)
        self._reached = 0
        self._watch(0)

    @property
    def exposed(self) -> int:
        """Devices that began."""
        return len(self._exposed)

    @property
    def harmed(self) -> int:
        """Devices on which the release fails, known or not."""
        return int(self._bad[self._exposed].sum())

    def advance(self, number: int, reach: int, *, last_wave: bool) -> None:
        """One tick: who is heard, who begins, who fails, whose time is over.

        Args:
            number: Of the tick, rising by one.
            reach: Devices of the order that may have begun by now.
            last_wave: Whether the last wave is open: its members are controls no longer.
        """
        heard = self._availability.tick(number)
        if self._behaviour.kind == "dark":
            heard = heard & ~(self._bad & (self._began >= 0))
        self._last_heard[heard] = number
        if last_wave and not self._last:
            self._watch_last(number)
        for cells, watched in self._cells:
            cells.tick(number, heard[watched])
        self._tell(number, heard)
        self._begin(number, heard, reach)
        self._come_due(number)

    def tally(self, number: int, opened: int, dwell: int) -> Tally:
        """What the server knows after a tick; `dwell` in ticks."""
        models = len(MODELS)
        exposed = np.bincount(self._model[self._exposed], minlength=models)
        failed = np.bincount(self._model[self._exposed[self._failed[self._exposed]]], minlength=models)
        old = self._exposed[self._began[self._exposed] <= number - dwell]
        return Tally(
            opened=opened,
            strata={f"model-{i}": Stratum(int(exposed[i]), int(failed[i])) for i in range(models) if exposed[i]},
            quiet=self._quiet(number),
            dwelled=len(old),
            dwelled_failed=int(self._failed[old].sum()),
            heard_after_dwell=int((self._last_heard[old] >= self._began[old] + dwell).sum()),
        )

    def _tell(self, number: int, heard: Mask) -> None:
        """Devices that began and are heard: failures show, soaked ones are no longer missing."""
        here = self._exposed[heard[self._exposed]]
        if not len(here):
            return
        age = number - self._began[here]
        if self._behaviour.kind != "dark":
            delay = int(self._behaviour.delay_h * PER_HOUR) if self._behaviour.kind == "late" else 1
            self._failed[here[self._bad[here] & (age > delay)]] = True
        soaked = here[(age > SOAK) & ~self._heard_after_soak[here]]
        self._heard_after_soak[soaked] = True
        np.subtract.at(self._unheard, (self._availability.site[soaked], self._began[soaked]), 1)

    def _begin(self, number: int, heard: Mask, reach: int) -> None:
        self._reached = max(self._reached, reach)
        waiting = self.order[: self._reached]
        begins = waiting[heard[waiting] & (self._began[waiting] < 0)]
        if not len(begins):
            return
        self._began[begins] = number
        self._exposed = np.concatenate([self._exposed, begins])
        per_site = np.bincount(self._availability.site[begins], minlength=self._availability.sites)
        sites = np.flatnonzero(per_site)
        self._unheard[sites, number] += per_site[sites].astype(np.int32)
        self._groups = self._groups.joined(_Groups.fresh(sites, number, per_site[sites]))

    def _come_due(self, number: int) -> None:
        """Groups whose controls were heard again, or which have waited long enough with controls that never were away."""
        groups = self._groups
        open_ = np.flatnonzero(~groups.due)
        if not len(open_):
            return
        site, tick = groups.site[open_], groups.tick[open_]
        live, unheard, own = self._controls(site, tick)
        heard = (number > tick + SOAK) & (10 * (live - unheard) >= 7 * live)
        fresh = open_[heard & (groups.heard_at[open_] == _NEVER)]
        groups.heard_at[fresh] = number
        earliest, at = tick + DEADLINE, groups.heard_at[open_]
        over = number >= np.where(at <= earliest, earliest, at + PER_HOUR)
        due = open_[over]
        if not len(due):
            return
        groups.due[due] = True
        silent = self._unheard[groups.site[due], groups.tick[due]].astype(np.int64)
        groups.silent[due] = self._once_per_site(groups.site[due], silent, own[over])
        groups.baseline[due] = self._shrunk(groups.site[due], groups.tick[due])

    def _once_per_site(self, site: Ints, silent: Ints, own: Mask) -> Ints:
        counted = np.where(own, silent, 0)
        for i in np.flatnonzero(~own & (silent > 0)):
            if not self._site_once[site[i]]:
                self._site_once[site[i]], counted[i] = True, 1
        return counted

    def _controls(self, site: Ints, tick: Ints) -> tuple[Ints, Ints, Mask]:
        """(live, unheard, whether the site had controls of its own) of groups; those of the time zone where it had too few."""
        cells = self._cells_of(tick)
        live, unheard = (np.choose(cells, [one[site, tick] for one in part]) for part in self._counts())
        zone = self._availability.zone[site]
        zone_live, zone_unheard = (np.choose(cells, [one[zone, tick] for one in part]) for part in self._zones())
        own = live >= OWN_CONTROLS
        return np.where(own, live, zone_live), np.where(own, unheard, zone_unheard), own

    def _shrunk(self, site: Ints, tick: Ints) -> NDArray[np.float64]:
        """Share of a group's controls that have not been heard, shrunk to that of its time zone."""
        cells, zone = self._cells_of(tick), self._availability.zone[site]
        live, unheard = (np.choose(cells, [one[site, tick] for one in part]) for part in self._counts())
        zone_live, zone_unheard = (np.choose(cells, [one[zone, tick] for one in part]) for part in self._zones())
        region = zone_unheard / np.maximum(zone_live, 1)
        found: NDArray[np.float64] = (unheard + _SHRINK * region) / (live + _SHRINK)
        return found

    def _quiet(self, number: int) -> Silence:
        groups, sites = self._groups, self._availability.sites
        due = np.flatnonzero(groups.due)
        n, site, tick = groups.exposed[due], groups.site[due], groups.tick[due]
        total = int(n.sum())
        by_site = np.stack(
            [
                np.bincount(site, groups.silent[due], sites).astype(np.int64),
                np.bincount(groups.site, groups.exposed, sites).astype(np.int64),
            ],
            axis=1,
        )
        return Silence(
            exposed=len(self._exposed),
            silent=int(groups.silent[due].sum()),
            silent_baseline=float(groups.baseline[due] @ n) / total if total else 0.03,
            due=total,
            missing=int(self._unheard[site, tick].sum()),
            missing_baseline=float(self._shrunk(site, tick) @ n) / total if total else 0.03,
            sites=by_site[by_site[:, 1] > 0],
        )

    def _watch(self, number: int) -> None:
        """Controls of all waves but the last: the hold-back and the last wave's members."""
        watched = np.sort(np.concatenate([self.held, self.order[self.sizes[-2] if len(self.sizes) > 1 else 0 :]]))
        self._cells = [(self._new_cells(watched), watched)]
        self._last, self._switched_at = False, number

    def _watch_last(self, number: int) -> None:
        """Controls of the last wave: the hold-back and the devices that were exposed first, long ago."""
        watched = np.sort(np.concatenate([self.held, self.order[: len(self.order) // 4]]))
        before, members = self._cells[0]
        # Who may begin from now on is no control any longer; what was counted of him stays.
        self._cells = [(before, members), (self._new_cells(watched), watched)]
        self._last, self._switched_at = True, number

    def _new_cells(self, watched: Ints) -> Cells:
        return Cells(self._availability.site[watched], self._availability.sites, self._ticks, SOAK)

    def _cells_of(self, tick: Ints) -> Ints:
        return (tick >= self._switched_at).astype(np.int64) if self._last else np.zeros(len(tick), np.int64)

    def _counts(self) -> tuple[list[NDArray[np.int32]], list[NDArray[np.int32]]]:
        return [cells.live for cells, _ in self._cells], [cells.unheard for cells, _ in self._cells]

    def _zones(self) -> tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]]:
        zone = self._availability.zone
        live, unheard = self._counts()
        return tuple([np.stack([one[zone == z].sum(axis=0) for z in (0, 1)]) for one in part] for part in (live, unheard))  # type: ignore[return-value]


def _order(salt: str, availability: Availability, model: Ints, sizes: tuple[int, ...]) -> tuple[Ints, Ints, tuple[int, ...]]:
    """Devices in the order of the waves, the hold-back, and the waves' real sizes."""
    candidates = [Candidate(str(i), str(model[i]), str(availability.site[i])) for i in range(len(model))]
    plan = plan_membership(salt, candidates, sizes, per_stratum=_PER_STRATUM if len(model) >= 300 else 2, hold_back=HoldBack())
    waves = members_by_wave(plan, candidates)
    held = np.array(waves.pop(HOLD_BACK), dtype=np.int64)
    groups = [np.array(waves[number], dtype=np.int64) for number in sorted(waves) if waves[number]]
    return np.concatenate(groups), held, tuple(int(end) for end in np.cumsum([len(group) for group in groups]))
