"""What is known of the devices that a rollout has exposed, as sums: by stratum, by site and hour, and over the open waves.

Sums are kept up by increments, so that a decision about 100,000 devices costs no more than one about a hundred. Nothing here is ever
subtracted because a device disappears: who is deleted stays in the counts with what was last known of him.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from edgefleet.errors import ConfigError
from fleet_server.rollout.comparisons import Wealth
from fleet_server.rollout.silence import Silence

HARMED: Final = "harmed by "  # how the name of such a stratum goes on: the rollout that did it


@dataclass(frozen=True)
class Stratum:
    """Devices of one hardware model or region: `failed` of `exposed`, explicitly, at any time."""

    exposed: int
    failed: int

    def __post_init__(self) -> None:
        if not 0 <= self.failed <= self.exposed:
            raise ConfigError(f"{self.failed} failures of {self.exposed} devices cannot be; expected 0 <= failures <= devices")


@dataclass(frozen=True)
class Tally:
    """Sums over the open waves.

    Attributes:
        opened: Devices that may begin.
        strata: Stratum -> exposed and failed.
        quiet: Who is silent or missing, and how the controls of the same site and hour fare.
        dwelled: Devices exposed for the whole dwell of the open wave.
        dwelled_failed: Of them, failed.
        heard_after_dwell: Of them, heard after it.
        sites_exposed: Sites in which a device has begun.
        sites_out: Of them, dark within two hours of their first exposure.
        sites_out_share: How often a site goes dark in two hours by itself.
        wealth: Comparison gate -> its stakes.
        asked: Devices that were given the release; None: all that may begin.
        unreadable: Devices whose facts could not be read.
    """

    opened: int
    strata: Mapping[str, Stratum]
    quiet: Silence
    dwelled: int = 0
    dwelled_failed: int = 0
    heard_after_dwell: int = 0
    sites_exposed: int = 0
    sites_out: int = 0
    sites_out_share: float = 0.0
    wealth: Mapping[str, Wealth] = field(default_factory=dict)
    asked: int | None = None
    unreadable: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.quiet.exposed != self.exposed:
            raise ConfigError(f"{self.exposed} devices by stratum are {self.quiet.exposed} by site; the counts must be made again")
        pairs = {
            "exposed / opened": (self.exposed, self.opened),
            "failed / dwelled": (self.dwelled_failed, self.dwelled),
            "heard after the dwell / dwelled": (self.heard_after_dwell, self.dwelled),
            "dwelled / exposed": (self.dwelled, self.exposed),
            "sites out / exposed": (self.sites_out, self.sites_exposed),
        }
        for name, (part, whole) in pairs.items():
            if not 0 <= part <= whole:
                raise ConfigError(f"{name}: {part} of {whole} cannot be; the counts must be made again")
        if not 0 <= self.sites_out_share < 1:
            raise ConfigError(f"a site's share of outages is {self.sites_out_share}; expected 0 up to 1")

    @property
    def all_asked(self) -> bool:
        """Whether everybody of the open waves was given the release."""
        return self.asked is None or self.asked >= self.opened

    @property
    def exposed(self) -> int:
        """Devices that began."""
        return sum(stratum.exposed for stratum in self.strata.values())

    @property
    def failed(self) -> int:
        """Of them, explicit failures."""
        return sum(stratum.failed for stratum in self.strata.values())

    @property
    def aside(self) -> Stratum:
        """Devices that an aborted rollout had harmed: evidence against the release, and none for it."""
        apart = [stratum for name, stratum in self.strata.items() if HARMED in name]
        return Stratum(sum(one.exposed for one in apart), sum(one.failed for one in apart))

    @property
    def failed_of_others(self) -> int:
        """Explicit failures of devices that were well before."""
        return self.failed - self.aside.failed
