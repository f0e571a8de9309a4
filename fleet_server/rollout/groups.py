"""A group of devices that began together at one site: when its deadline is, and what is settled then. Pure; one look after another.

Devices of a group and their controls are asked the same question over the same time: heard between `counts_from` and the deadline? The
controls are known by their last sign of life alone: of those that were live when the group began, the ones whose last sign is not after
`counts_from` have not been heard since. While the server itself could hear nobody nothing is settled, and afterwards everybody has as
long as a cell to be heard: several heartbeats.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from fleet_server.rollout.policy import Policy
from fleet_server.rollout.silence import OWN_CONTROLS, deadline_after, enough_heard, site_out

CELL_S: Final = 900.0
_LEAST_CELL_S: Final = 1.0
_BACK_OFF: Final = 8  # a settled group is looked at again after an eighth of its age


@dataclass(frozen=True)
class Timing:
    """Seconds that are fixed for a rollout.

    Attributes:
        cell_s: Devices of a site that begin within the same cell are one group; a control is live that was heard within one before.
        soak_s: Signs of life count from so long after the end of the cell.
        deadline_s: The deadline is at least so long after the end of the cell.
    """

    cell_s: float
    soak_s: float
    deadline_s: float

    @classmethod
    def of(cls, policy: Policy) -> "Timing":
        """Of a policy: a quarter of an hour, less where the soak is less than an hour."""
        return cls(min(CELL_S, max(policy.soak_s / 4, _LEAST_CELL_S)), policy.soak_s, policy.deadline_s)


@dataclass(frozen=True)
class Controls:
    """Controls of a site, or of its region, at one look.

    Attributes:
        seen: Of those that are live or were when the group began: last heard not before one cell before it.
        unheard: Of them, not heard since the group's `counts_from`.
    """

    seen: int
    unheard: int


@dataclass(frozen=True)
class Group:
    """Devices of one site that began in one cell of time.

    Attributes:
        begins_at: Start of the cell.
        live: Controls of the site that were live then; None before the first look.
        back_at: When 70 % of the controls had been heard again.
        due: Whether the deadline is over; what follows was settled then.
        silent: Devices that had not been heard.
        controls_silent: Live controls that had not been heard.
        controls_missing: Live controls that have not been heard until the last look.
        out: The site was dark at the earliest deadline.
        look_at: When to look again; None: nothing can change any more.
    """

    begins_at: datetime
    live: int | None = None
    back_at: datetime | None = None
    due: bool = False
    silent: int = 0
    controls_silent: int = 0
    controls_missing: int = 0
    out: bool = False
    look_at: datetime | None = None

    def ends_at(self, timing: Timing) -> datetime:
        """End of the cell: all times of the group count from it."""
        return self.begins_at + timedelta(seconds=timing.cell_s)

    def counts_from(self, timing: Timing) -> datetime:
        """Only signs of life after it count."""
        return self.ends_at(timing) + timedelta(seconds=timing.soak_s)

    def earliest(self, timing: Timing) -> datetime:
        """The deadline when no control was away."""
        return self.ends_at(timing) + timedelta(seconds=timing.deadline_s)


def look(
    group: Group, unheard: int, own: Controls, region: Controls | None, timing: Timing, now: datetime, deaf_until: datetime | None = None
) -> Group:
    """The group after a look at its controls.

    Args:
        group: As stored.
        unheard: Its devices that have not been heard since `counts_from`.
        own: Controls of its site now.
        region: Controls of its region, where the site has too few of its own.
        timing: Of the rollout.
        now: Aware UTC.
        deaf_until: Until then the server could hear nobody; `now` while it cannot, None when it never was so.
    """
    cell = timedelta(seconds=timing.cell_s)
    if group.live is None and deaf_until is not None and group.begins_at - cell < deaf_until and now < deaf_until + cell:
        return replace(group, look_at=deaf_until + cell)  # who is live cannot be seen before he had time to say so
    if group.live is None:
        return replace(group, live=own.seen, look_at=max(group.counts_from(timing), now))
    live = group.live
    missing = min(live, own.unheard)
    if group.due:
        rest = max(timing.cell_s, (now - group.begins_at).total_seconds() / _BACK_OFF)
        return replace(group, controls_missing=missing, look_at=now + timedelta(seconds=rest) if missing else None)
    group = replace(group, back_at=_back_at(group, missing, region, timing, now))
    earliest = group.earliest(timing)
    if deaf_until is not None and deaf_until > group.counts_from(timing):
        earliest = max(earliest, deaf_until + cell)
    if now >= earliest and not group.out:
        group = replace(group, out=site_out(live, missing))
    due_at = None if group.back_at is None else deadline_after(earliest, group.back_at)
    if due_at is not None and now >= due_at:
        settled = replace(group, due=True, silent=unheard, controls_silent=missing, controls_missing=missing)
        return replace(settled, look_at=now + timedelta(seconds=timing.cell_s) if missing else None)
    moments = [now + timedelta(seconds=timing.cell_s), earliest, *([] if due_at is None else [due_at])]
    return replace(group, look_at=min(moment for moment in moments if moment > now))


def too_few(live: int) -> bool:
    """Whether a site's controls cannot speak for it, so that its region's do."""
    return live < OWN_CONTROLS


def _back_at(group: Group, missing: int, region: Controls | None, timing: Timing, now: datetime) -> datetime | None:
    """When the controls were heard again; a site and region without any asks for no more time than the deadline."""
    if group.back_at is not None or now <= group.counts_from(timing):
        return group.back_at
    live = group.live or 0
    if region is not None:
        live, missing = region.seen, region.unheard
    return now if enough_heard(live - missing, live) else None
