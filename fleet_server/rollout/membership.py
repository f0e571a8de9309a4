"""Who is in which wave, and who is held back: thresholds on a salted hash, fixed when the plan is made.

Membership of a device depends on the salt, its id, its stratum, its site and the plan, on nothing else: the same answer in any process, in
any order, after any restart. A device that joins later falls into its own wave, one that leaves moves nobody, and each wave contains the
one before it.
"""

import bisect
import hashlib
import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from edgefleet.errors import ConfigError

PLACES: Final = 2**63 - 1  # a place fits a signed 64-bit column of any database
HOLD_BACK: Final = 0
OTHER: Final = "*"


@dataclass(frozen=True)
class Candidate:
    """A selected device: `stratum` (hardware model, region: each is represented in wave 1) and `site` (where controls are compared)."""

    device_id: str
    stratum: str = ""
    site: str = ""
    never_held: bool = False

    def __post_init__(self) -> None:
        if OTHER in (self.stratum, self.site):
            raise ConfigError(f"device {self.device_id}: {OTHER!r} is no name of a stratum or site; it stands for those that come later")


class HoldBack(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Control group that gets the release last.

    Attributes:
        fraction: Of each site's devices.
        least: Devices in sites of at least `large_site`.
        large_site: From so many devices on a site has controls of its own.
        smallest_fleet: Below so many devices nobody is held back.
    """

    fraction: float = 0.05
    least: int = 3
    large_site: int = 40
    smallest_fleet: int = 60

    def __post_init__(self) -> None:
        if not 0 <= self.fraction <= 0.5:
            raise ConfigError(f"hold_back.fraction = {self.fraction} is outside 0 to 0.5")
        if self.least < 0 or self.large_site < 1 or self.smallest_fleet < 1:
            raise ConfigError("hold_back: least must be at least 0, large_site and smallest_fleet at least 1")


class Membership(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A plan's thresholds; stored with the rollout.

    Attributes:
        salt: Of this rollout: nobody is always first.
        waves: Per wave, stratum -> places below which a device belongs to it; `OTHER` is for strata that came later.
        held: Site -> places of the second hash below which a device is held back; `OTHER` is for sites that came later.
        never_held: Devices that were held back too often in a row, sorted.
    """

    salt: str
    waves: tuple[dict[str, int], ...]
    held: dict[str, int]
    never_held: tuple[str, ...] = ()

    def wave_of(self, device_id: str, stratum: str, site: str) -> int:
        """Number of the first wave that the device is in, from 1; `HOLD_BACK` when it is a control."""
        if place_of(f"{self.salt}|hold", device_id) < self.held.get(site, self.held[OTHER]) and not self._exempt(device_id):
            return HOLD_BACK
        place = place_of(self.salt, device_id)
        for number, wave in enumerate(self.waves, start=1):
            if place < wave.get(stratum, wave[OTHER]):
                return number
        return len(self.waves)

    def _exempt(self, device_id: str) -> bool:
        at = bisect.bisect_left(self.never_held, device_id)
        return at < len(self.never_held) and self.never_held[at] == device_id


def plan_membership(
    salt: str, candidates: Sequence[Candidate], sizes: Sequence[int], *, per_stratum: int = 10, hold_back: HoldBack | None = None
) -> Membership:
    """Thresholds for the devices that are selected now.

    Args:
        salt: Of the rollout.
        candidates: All selected devices, at least one.
        sizes: Cumulative devices per wave, rising; the last wave is everybody who is not held back, whatever its size says.
        per_stratum: Least devices of each stratum in wave 1; a smaller stratum is in it whole.
        hold_back: None: nobody.

    Raises:
        ConfigError: Nobody selected, a device twice, sizes that do not rise from at least 1.
    """
    if not candidates:
        raise ConfigError("the selection matches no device: nothing to roll out; check its labels")
    if len({one.device_id for one in candidates}) != len(candidates):
        raise ConfigError("the selection names a device twice; each one needs one stratum and one site")
    if not sizes or sizes[0] < 1 or any(later <= size for size, later in itertools.pairwise(sizes)):
        raise ConfigError(f"waves of {list(sizes)[:8]} devices must rise from at least 1")
    held = _held(salt, candidates, hold_back or HoldBack(fraction=0.0, least=0))
    strata: dict[str, list[int]] = defaultdict(list)
    for one in candidates:
        if one.never_held or place_of(f"{salt}|hold", one.device_id) >= held.get(one.site, held[OTHER]):
            strata[one.stratum].append(place_of(salt, one.device_id))
    everybody = sum(len(places) for places in strata.values())
    if everybody == 0:
        raise ConfigError(f"all {len(candidates)} devices are held back: nothing to roll out; lower hold_back.fraction")
    for places in strata.values():
        places.sort()
    counts = {name: len(places) for name, places in strata.items()}
    waves, before = [], dict.fromkeys(counts, 0)
    for size in sizes[:-1]:
        # Rounding may give a stratum one device less in a larger wave; nobody leaves a wave that he was in.
        wanted = {name: max(count, before[name]) for name, count in shares(size, counts, per_stratum).items()}
        # A stratum that nobody had when the plan was made comes in the wave's overall proportion.
        waves.append(
            {name: _below(strata[name], count) for name, count in wanted.items()} | {OTHER: PLACES * min(size, everybody) // everybody}
        )
        before = wanted
    exempt = tuple(sorted(one.device_id for one in candidates if one.never_held))
    return Membership(salt=salt, waves=(*waves, {OTHER: PLACES}), held=held, never_held=exempt)


def members_by_wave(membership: Membership, candidates: Iterable[Candidate]) -> dict[int, tuple[str, ...]]:
    """Devices that each wave adds, `HOLD_BACK` included; waves that add nobody are there, empty."""
    found: dict[int, list[str]] = {number: [] for number in range(len(membership.waves) + 1)}
    for one in candidates:
        found[membership.wave_of(one.device_id, one.stratum, one.site)].append(one.device_id)
    return {number: tuple(sorted(devices)) for number, devices in found.items()}


def place_of(salt: str, device_id: str) -> int:
    """Place of a device in the order of a rollout, 0 to `PLACES`: a salted hash, so that nobody is always first."""
    return int.from_bytes(hashlib.sha256(f"{salt}|{device_id}".encode()).digest()[:8], "big") >> 1


def shares(size: int, strata: Mapping[str, int], least: int) -> dict[str, int]:
    """Devices of a wave per stratum: in proportion, largest remainders first, but at least `least` of each (all of a smaller one).

    Integer arithmetic only; never more than a stratum has. What small strata get beyond their proportion the large ones give, so that the
    wave is as large as it was asked to be; it is larger only where `least` of each are more than that already.

    >>> shares(20, {"a": 90, "b": 9, "c": 1}, 2)
    {'a': 17, 'b': 2, 'c': 1}
    """
    found: dict[str, int] = {}
    open_, left = dict(strata), min(size, sum(strata.values()))
    while open_:
        total = max(sum(open_.values()), 1)
        part = {name: left * count // total for name, count in open_.items()}
        rest = sorted(open_, key=lambda name: (-(left * open_[name] % total), name))
        for name in rest[: left - sum(part.values())]:
            part[name] += 1
        raised = {name: min(count, least) for name, count in open_.items() if part[name] < min(count, least)}
        if not raised:
            return {name: (found | part)[name] for name in strata}
        found |= raised
        open_, left = {name: count for name, count in open_.items() if name not in raised}, max(left - sum(raised.values()), 0)
    return {name: found[name] for name in strata}


def _held(salt: str, candidates: Sequence[Candidate], rule: HoldBack) -> dict[str, int]:
    everywhere = int(PLACES * rule.fraction) if len(candidates) >= rule.smallest_fleet else 0
    found = {OTHER: everywhere}
    if everywhere == 0:
        return found
    sites: dict[str, list[int]] = defaultdict(list)
    for one in candidates:
        sites[one.site].append(place_of(f"{salt}|hold", one.device_id))
    small: list[int] = []
    for site, places in sites.items():
        if len(places) < rule.large_site:
            small += places
        else:
            found[site] = _below(sorted(places), min(len(places), max(_share(len(places), rule.fraction), rule.least)))
    if small:
        threshold = _below(sorted(small), _share(len(small), rule.fraction))
        found |= {site: threshold for site, places in sites.items() if len(places) < rule.large_site}
    return found


def _share(count: int, fraction: float) -> int:
    return round(count * fraction)


def _below(places: Sequence[int], count: int) -> int:
    """The threshold below which exactly `count` of the sorted places lie; all places there are when it takes everybody."""
    return 0 if count == 0 else places[count - 1] + 1 if count < len(places) else PLACES
