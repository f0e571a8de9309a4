"""What a virtual fleet goes through, and what the release does to it."""

from dataclasses import dataclass
from typing import Final, Literal

from edgefleet.errors import ConfigError

TICK_S: Final = 900
PER_HOUR: Final = 3600 // TICK_S
PER_DAY: Final = 24 * PER_HOUR
MOST_LATE_H: Final = 48
MOST_AWAY_H: Final = 240
# Shares of the hardware models of a virtual fleet.
MODELS: Final = (0.10, 0.01, 0.19, 0.20, 0.25, 0.25)


@dataclass(frozen=True)
class Scene:
    """Availability of a fleet.

    Attributes:
        day_fraction: Share of devices that are on from 8 to 18 o'clock of their own time on weekdays only.
        outage_days: Mean days between outages (6 to 24 hours) of a site; None: none.
        broker_hours: Length of four outages of our own broker; 0: none.
        slow_fraction: Share of devices of which one heartbeat in four comes through.
        large_site, small_site: Devices per site; half of the fleet lives in each kind.
        battery_fraction: Share of devices that run on a battery (`batteries.py`).
        duplicate_fraction: Share of messages of which a copy comes as well, at once or up to `late_h` later.
        late_fraction: Share of messages that come up to `late_h` later, behind younger ones.
        late_h: At most.
        drift_fraction: Share of sites whose inputs shift at some hour of the first three days, for the release and for all others.
        joiner_fraction: Share of devices that are enrolled only after the start, in the first four days.
        away_hours: Of every `away_every_hours` our own server is away so long, and the broker holds what devices send; 0: never.
        away_every_hours: From the beginning of one absence to that of the next.
    """

    name: str
    day_fraction: float = 0.0
    outage_days: float | None = None
    broker_hours: float = 0.0
    slow_fraction: float = 0.0
    large_site: int = 200
    small_site: int = 20
    battery_fraction: float = 0.0
    duplicate_fraction: float = 0.0
    late_fraction: float = 0.0
    late_h: float = 0.0
    drift_fraction: float = 0.0
    joiner_fraction: float = 0.0
    away_hours: float = 0.0
    away_every_hours: float = 6.0

    def __post_init__(self) -> None:
        for name in ("day", "slow", "battery", "duplicate", "late", "drift", "joiner"):
            share = getattr(self, f"{name}_fraction")
            if not 0 <= share <= 1:
                raise ConfigError(f"scene {self.name!r}: {name}_fraction = {share} is no share from 0 to 1")
        if not 0 <= self.late_h <= MOST_LATE_H:
            raise ConfigError(f"scene {self.name!r}: late_h = {self.late_h} is outside 0 to {MOST_LATE_H} hours")
        if not 0 <= self.away_hours < self.away_every_hours <= MOST_AWAY_H:
            raise ConfigError(
                f"scene {self.name!r}: a server that is away {self.away_hours} of every {self.away_every_hours} hours cannot be simulated; "
                f"choose 0 to less than all of at most {MOST_AWAY_H} hours"
            )
        if self.joiner_fraction > 0.9:
            raise ConfigError(
                f"scene {self.name!r}: joiner_fraction = {self.joiner_fraction} leaves hardly a fleet to begin with; at most 0.9"
            )


SCENES: Final = {
    scene.name: scene
    for scene in (
        Scene("churn"),
        Scene("day and night", day_fraction=0.6),
        Scene("site outages", outage_days=6),
        Scene("broker down", broker_hours=4),
        Scene("slow links", slow_fraction=0.2),
        Scene("all together", day_fraction=0.6, outage_days=6, broker_hours=4, slow_fraction=0.2),
        Scene("batteries", battery_fraction=0.6),
        Scene("duplicates", duplicate_fraction=0.3, late_h=1),
        Scene("reordering", late_fraction=0.2, late_h=1),
        Scene("drift", drift_fraction=0.5),
        Scene("late joiners", joiner_fraction=0.2),
        Scene("server away", away_hours=5.5),
        Scene(
            "everything",
            day_fraction=0.3,
            outage_days=6,
            broker_hours=4,
            slow_fraction=0.2,
            battery_fraction=0.3,
            duplicate_fraction=0.3,
            late_fraction=0.2,
            late_h=1,
            drift_fraction=0.5,
            joiner_fraction=0.2,
        ),
    )
}


@dataclass(frozen=True)
class Behaviour:
    """What the release does.

    Attributes:
        failing: Share of devices on which it fails, of those it can fail on.
        kind: `prompt` = the device says so at its next sign of life; `late` = after `delay_h`; `dark` = after `delay_h` nobody hears of
            it any more;
            `site` = its site's gateway dies, and nobody there is heard of again; `failing` is then a share of sites.
        delay_h: Hours until a late failure, or until it goes dark.
        model: Hardware model (by number) that alone can fail; None: any.
    """

    name: str
    failing: float
    kind: Literal["prompt", "late", "dark", "site"] = "prompt"
    delay_h: float = 0.0
    model: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.failing <= 1:
            raise ConfigError(f"failing = {self.failing} is no share from 0 to 1")
        if not 0 <= self.delay_h <= 24 * 90:
            raise ConfigError(f"delay_h = {self.delay_h} is outside 0 to {24 * 90} hours")
        if self.model is not None and not 0 <= self.model < len(MODELS):
            raise ConfigError(f"model = {self.model} is none of the {len(MODELS)} of a virtual fleet; choose 0 to {len(MODELS) - 1}")


BEHAVIOURS: Final = {
    behaviour.name: behaviour
    for behaviour in (
        Behaviour("0.5 %", 0.005),
        Behaviour("1 %", 0.01),
        Behaviour("3 %", 0.03),
        Behaviour("10 %", 0.1),
        Behaviour("50 %", 0.5),
        Behaviour("10 % after 12 h", 0.1, "late", 12.0),
        Behaviour("10 % dark", 0.1, "dark"),
        Behaviour("80 % of one model in ten", 0.8, model=0),
        Behaviour("one model in a hundred", 1.0, model=1),
        Behaviour("30 % of sites down", 0.3, "site"),
    )
}
