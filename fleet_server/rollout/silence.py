"""Silence against the controls of the same site and hour: is it the release, or the night, the site, our own broker?

Devices are grouped by site and by when they began; each group knows how its controls - devices of the site that the rollout had not exposed
and that were live then - fared over the same time. Within a site and hour exposed and unexposed devices are exchangeable (membership is a
salted hash), so what the controls miss is what the exposed would have missed anyway. No list of outages enters a verdict.

ABORT looks at who was silent at his deadline, which is never undone; PROMOTE at who is missing now.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgefleet.errors import ConfigError
from fleet_server.rollout.eprocess import e_value

OWN_CONTROLS: Final = 3  # fewer: the group is judged by its region, and a site counts once
_AFTER_HEARD: Final = timedelta(hours=1)
SHRINK: Final = 5.0  # devices' worth of the region in a site's baseline
_MARGIN: Final = 0.01  # for the baseline being an estimate
WITHOUT_HISTORY: Final = 0.03
_SITES_FOR_LEAVING_ONE_OUT: Final = 3


@dataclass(frozen=True)
class SiteGroup:
    """Devices of one site that began in the same quarter of an hour, and their controls.

    Attributes:
        exposed: Devices that began.
        due: Of them, devices whose deadline is over.
        silent: Of these, not heard between their soak and their deadline.
        missing: Of these, not heard since their soak until now.
        controls: Devices of the site that were not exposed and live when the group began.
        controls_silent: Of them, silent at the group's deadline.
        controls_missing: Of them, not heard since the group's soak until now.
    """

    site: str
    region: str
    exposed: int
    due: int
    silent: int
    missing: int
    controls: int
    controls_silent: int
    controls_missing: int

    def __post_init__(self) -> None:
        nested = 0 <= max(self.silent, self.missing) <= self.due <= self.exposed
        if not (nested and min(self.silent, self.missing) >= 0 and 0 <= max(self.controls_silent, self.controls_missing) <= self.controls):
            raise ConfigError(f"the counts of site {self.site!r} contradict each other: {self}")
        if min(self.controls_silent, self.controls_missing) < 0:
            raise ConfigError(f"the counts of site {self.site!r} contradict each other: {self}")


@dataclass(frozen=True)
class Silence:
    """What is known of silence.

    Attributes:
        exposed: n of ABORT: all that began.
        silent: k of ABORT.
        silent_baseline: Mean share of the controls that were silent too.
        due: n of PROMOTE.
        missing: k of PROMOTE.
        missing_baseline: Mean share of the controls that are missing too.
        sites: [S, 2] silent and exposed of each site.
    """

    exposed: int
    silent: int
    silent_baseline: float
    due: int
    missing: int
    missing_baseline: float
    sites: NDArray[np.int64]

    def evidence(self, limit: float) -> float:
        """e-value of "the release silences more than `limit` beyond what the controls miss".

        The smallest of three: all sites, all but the one with the largest excess (one site's trouble is not the release's), and all with
        counts deflated by how much sites differ among themselves (devices of a site fall silent together).
        """
        share = min(limit + self.silent_baseline + _MARGIN, 0.99)
        found = [e_value(self.silent, self.exposed, share)]
        if found[0] < 1:
            return found[0]  # says nothing: the other two would only say less
        silent, exposed = self.sites[:, 0], self.sites[:, 1]
        if (exposed > 0).sum() > _SITES_FOR_LEAVING_ONE_OUT:
            worst = int(np.argmax(silent - exposed * share))
            found.append(e_value(self.silent - int(silent[worst]), self.exposed - int(exposed[worst]), share))
        effect = design_effect(self.sites)
        found.append(e_value(self.silent / effect, self.exposed / effect, share))
        return min(found)

    def limit_now(self, limit: float) -> float:
        """The share of missing devices that a promotion may be judged by."""
        return min(limit + self.missing_baseline, 0.99)


def silence(groups: Iterable[SiteGroup]) -> Silence:
    """Sum up groups; the empty sum knows nothing and promotes nothing."""
    groups = list(groups)
    regions = _regions(groups)
    silent, seen = 0, set[str]()
    by_site: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for group in groups:
        counted = group.silent
        if group.controls < OWN_CONTROLS:
            # Without controls of its own a whole site may have been off: it is one event, however many devices it has.
            counted = int(group.silent > 0 and group.site not in seen)
            seen |= {group.site} if group.silent else set()
        silent += counted
        before = by_site[group.site]
        by_site[group.site] = before[0] + counted, before[1] + group.exposed
    due = sum(group.due for group in groups)
    return Silence(
        exposed=sum(group.exposed for group in groups),
        silent=silent,
        silent_baseline=_baseline(groups, regions, due, "controls_silent"),
        due=due,
        missing=sum(group.missing for group in groups),
        missing_baseline=_baseline(groups, regions, due, "controls_missing"),
        sites=np.array(list(by_site.values()), np.int64).reshape(-1, 2),
    )


def due_at(began_at: datetime, deadline: timedelta, soak: timedelta, controls_heard_at: Sequence[datetime | None]) -> datetime | None:
    """When a device that began then must have been heard: its deadline, or an hour after 70 % of the controls were heard again.

    Night, weekend, an outage of the site and one of our own broker are thereby one case.

    Args:
        began_at: Of the device.
        deadline: Least time it has.
        soak: Only signs of life after it count.
        controls_heard_at: Per control of its site its first sign of life after `began_at + soak`, None while there is none.

    Returns:
        None while too few controls were heard to say.
    """
    earliest = began_at + deadline
    if not controls_heard_at:
        return earliest
    needed = -(-7 * len(controls_heard_at) // 10)
    heard = sorted(at for at in controls_heard_at if at is not None)
    return deadline_after(earliest, heard[needed - 1]) if len(heard) >= needed else None


def enough_heard(heard: int, controls: int) -> bool:
    """Whether so many controls are back that the devices of their site must be back as well: 70 %."""
    return 10 * heard >= 7 * controls


def deadline_after(earliest: datetime, back_at: datetime) -> datetime:
    """When a device must have been heard whose controls were heard again at `back_at`.

    Controls that never were away ask for no more time.
    """
    return earliest if back_at <= earliest else back_at + _AFTER_HEARD


def site_out(controls: int, silent: int) -> bool:
    """Whether a site went dark: 70 % of its controls are silent, and there were enough to tell."""
    return controls >= OWN_CONTROLS and 10 * silent >= 7 * controls


def site_evidence(sites_out: int, sites_exposed: int, historic_share: float) -> float:
    """e-value of "the release takes whole sites down": sites that went dark soon after their first exposure, against how often sites do.

    What controls cannot see: a model that kills its site's gateway silences the controls too, and would be excused by them.
    """
    return e_value(sites_out, sites_exposed, min(historic_share + 0.02, 0.99))


def design_effect(sites: NDArray[np.int64]) -> float:
    """How many times fewer independent devices there are than counted: the variance between sites over that of independent devices.

    Args:
        sites: [S, 2] silent and exposed.

    Reference:
        Rao, Scott (1992), A simple method for the analysis of clustered binary data, Biometrics 48.

    >>> design_effect(np.array([[0, 10], [10, 10], [0, 10], [10, 10]])) > 10
    True
    >>> design_effect(np.array([[1, 10], [1, 10], [1, 10]]))
    1.0
    """
    k, n = sites[sites[:, 1] > 0].T.astype(np.float64)
    silent, exposed = float(k.sum()), float(n.sum())
    if len(n) < 2 or silent in (0.0, exposed):
        return 1.0
    share = silent / exposed
    between = float(((k - n * share) ** 2 / (n * share * (1 - share))).sum())
    return max(1.0, between / (len(n) - 1))


def _regions(groups: Sequence[SiteGroup]) -> dict[str, tuple[int, int, int]]:
    """Region -> (controls, silent, missing)."""
    found: dict[str, tuple[int, int, int]] = defaultdict(lambda: (0, 0, 0))
    for group in groups:
        controls, silent, missing = found[group.region]
        found[group.region] = controls + group.controls, silent + group.controls_silent, missing + group.controls_missing
    return found


def _baseline(groups: Sequence[SiteGroup], regions: Mapping[str, tuple[int, int, int]], due: int, of: str) -> float:
    """Mean over due devices of the share of controls, a site's own shrunk towards its region's."""
    if due == 0:
        return WITHOUT_HISTORY
    total = 0.0
    for group in groups:
        controls, silent, missing = regions[group.region]
        region = (silent if of == "controls_silent" else missing) / controls if controls else WITHOUT_HISTORY
        own = group.controls_silent if of == "controls_silent" else group.controls_missing
        total += group.due * (own + SHRINK * region) / (group.controls + SHRINK)
    return total / due
