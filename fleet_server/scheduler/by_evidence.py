"""What follows from the decisions about a rollout by evidence: devices begin in their order, a bounded number at a time, or go back.

Nobody begins who was not let in by the wave, the pace, the rate, the window, and the site's budget; why the others wait is counted.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final

import sqlalchemy as sa

from fleet_server.rollout import Action, ActionKind, Facts, Rollout, RolloutState
from fleet_server.rollout.course import Course
from fleet_server.rollout.judgement import OWN_SITES
from fleet_server.rollout.opening_hours import ZONE
from fleet_server.rollout.outlook import next_due
from fleet_server.rollout.pacing import Ready, Wait, begin, local_time
from fleet_server.scheduler import parking, sharing
from fleet_server.scheduler.assigning import assign_new, assign_previous, targets_for
from fleet_server.scheduler.changing import held_up
from fleet_server.services import Services
from fleet_server.store import changes, devices, evidence_members, evidence_sites, evidence_tally, members, parked, ways_back
from fleet_server.store.evidence_members import Unasked
from fleet_server.store.moments import to_micros

AT_ONCE: Final = 200  # devices of one transaction: some 3 ms each, and the write lock is everybody's
SCANNED: Final = 20_000  # of those that wait, where windows or budgets decide one by one
_LOOK_AGAIN: Final = timedelta(minutes=1)
# Times in which no more devices begin than the rate names for them, and how far back they are counted: a little less, because devices are
# asked some looks after the rate lets them, and the next of a steady rate would wait for that delay again and again.
_OF_RATE: Final = ((3_600.0, timedelta(minutes=58)), (600.0, timedelta(minutes=9)))
_ALMOST: Final = 0.97  # the same, of a longer time
_NEARLY: Final = 0.9  # devices are asked some moments after their batch may begin
_OPENING: Final = (RolloutState.RUNNING, RolloutState.SOAKING)
# Not while a way back is paused: it failed somewhere, or a person wants nobody else to be changed.
_BACK: Final = (RolloutState.ABORTED, RolloutState.ROLLING_BACK, RolloutState.ROLLED_BACK)


def carry_on(connection: sa.Connection, services: Services, rollout: Rollout, known: Facts, now: datetime) -> datetime | None:
    """Do what the rollout's state lets happen now; when to look again, None: only with news."""
    waits: Counter[str] = Counter()
    more = slowly = False
    if rollout.state in _OPENING and rollout.wave:
        again, back = False, Counter[str]()
        if rollout.policy.site_budget is not None:
            # First: they come before those that were never asked, and the gates have waited for them all the while.
            again, back = _ask_again(connection, services, rollout, known, now)
        more, waits = _begin(connection, services, rollout, known, now)
        more, waits = again or more, waits + back
        if rollout.policy.site_budget is not None:
            more = parking.set_aside(connection, services, rollout, now) > 0 or more
        evidence_members.note_waits(connection, rollout.rollout_id, waits)
    elif rollout.state in _BACK:
        more = take_back(connection, services, rollout, now) == AT_ONCE
        slowly = rollout.state is RolloutState.ROLLING_BACK and bounded_back(rollout)
    if more:
        return now
    moments = [next_due(rollout, known, now), evidence_sites.next_look(connection, rollout.rollout_id)]
    # After a standstill the wave's clock names no further batch, and devices wait for those that were asked last.
    clock_is_ahead = rollout.course is not None and rollout.course.next_batch_at(rollout.wave, now) is None
    if slowly or set(waits) - {"pace"} or (waits and clock_is_ahead):
        moments.append(now + _LOOK_AGAIN)
    return min((moment for moment in moments if moment is not None), default=None)


def follow(connection: sa.Connection, before: Rollout, after: Rollout, action: Action) -> None:
    """What an action changes in the members: a growth moves devices into the open wave, an opening starts another dwell."""
    if after.course is None or before.course is None:
        return
    if action.kind is ActionKind.EXTEND:
        evidence_members.grow(connection, after.rollout_id, after.wave, before.course, action.size)
    if action.kind is ActionKind.OPEN_WAVE:
        evidence_members.reopen(connection, after.rollout_id, after.course.dwell_s[after.wave - 1])


def take_back(connection: sa.Connection, services: Services, rollout: Rollout, now: datetime) -> int:
    """Assign what they ran before to devices that must not keep the release, at most `AT_ONCE`; how many."""
    if rollout.state not in _BACK:
        return 0
    aborted = rollout.state is RolloutState.ABORTED
    kept = members.keeping(rollout.policy.on_abort, rollout.wave) if aborted else None
    turned = rollout.state is RolloutState.ROLLING_BACK
    budget = rollout.policy.site_budget if turned else None
    limit = AT_ONCE if budget is None else SCANNED
    going = members.holding(connection, rollout.rollout_id, rollout.release_id, limit=limit, but=kept)
    if budget is not None:
        may = set(ways_back.within_budget(connection, rollout.rollout_id, [device_id for device_id, _ in going], budget))
        going = [one for one in going if one[0] in may]
    if not (aborted and rollout.policy.on_abort == "keep"):
        going += _woken_to_nothing(connection, rollout)
    going = going[:AT_ONCE]
    if going and turned and bounded_back(rollout):
        going = going[: _left_back(connection, rollout, now)]
    for device_id, previous in going:
        assign_previous(connection, services, rollout, device_id, previous, now)
    if going:
        changes.touch(connection, to_micros(now), "devices", "overview", f"rollout:{rollout.rollout_id}")
    return len(going)


def _woken_to_nothing(connection: sa.Connection, rollout: Rollout) -> list[tuple[str, str | None]]:
    """Of those that gave their place back and whose document names no release, the ones that have somewhere to go back to.

    Had they begun unheard, they would keep the release.
    """
    if rollout.policy.baseline is None and rollout.experiment is None:
        return []
    found = parked.asked_nothing(connection, rollout.rollout_id, SCANNED)
    targets = targets_for(connection, rollout, dict(found))
    return [one for one in found if targets[one[0]].release_id is not None]


def bounded_back(rollout: Rollout) -> bool:
    """Whether the rate of the policy bounds a rollback; only where the operator asked for it, for a rollback may be from harm."""
    rate = rollout.policy.rate
    return rate is not None and rate.backward and not rollout.policy.emergency


def _left_back(connection: sa.Connection, rollout: Rollout, now: datetime) -> int:
    """Devices that the rate lets go back now."""
    rate = rollout.policy.rate
    began = ways_back.began_at(connection, rollout.rollout_id)
    since_s = 0.0 if began is None else (to_micros(now) - began) / 1e6
    if rate is None:
        return AT_ONCE
    left = [rate.allowed(since_s) - ways_back.told(connection, rollout.rollout_id, rollout.release_id)]
    for span_s, back in _of_rate_spans(rate.one_in_s(since_s)):
        lately = ways_back.told(connection, rollout.rollout_id, rollout.release_id, to_micros(now - back))
        left.append(rate.allowed_within(span_s, since_s) - lately)
    return max(min(left), 0)


def _begin(connection: sa.Connection, services: Services, rollout: Rollout, known: Facts, now: datetime) -> tuple[bool, Counter[str]]:
    """Ask the next devices; (whether to look again at once, for what the others wait)."""
    course, policy = rollout.course, rollout.policy
    by_wave = evidence_tally.by_wave(connection, rollout.rollout_id)
    asked = sum(counts.assigned for counts in by_wave.values())
    left: dict[Wait, int] = course.left(rollout.wave, asked, now) if course is not None else {"pace": 0}
    if course is not None and left["pace"]:
        # The wave's clock ran on while it was paused, outside its windows, or out of budget; no batch grows by that.
        long_ago = now - timedelta(seconds=_NEARLY * course.pace.every_s)
        settled = asked - evidence_members.asked_since(connection, rollout.rollout_id, to_micros(long_ago))
        left["pace"] = min(left["pace"], max(course.batch_after(settled) - asked, 0))
        if course.rests_at(rollout.wave) < course.sizes[rollout.wave - 1]:
            # Nor is the rest of wave 1 over before those in front of it had it.
            ahead = now - timedelta(seconds=max(course.rest_s - (1 - _NEARLY) * course.pace.every_s, 0.0))
            rested = asked - evidence_members.asked_since(connection, rollout.rollout_id, to_micros(ahead))
            if rested < course.rests_at(rollout.wave):
                left["pace"] = min(left["pace"], max(course.rests_at(rollout.wave) - asked, 0))
    if course is not None and left.get("rate"):
        left["rate"] = min(left["rate"], *_of_rate(connection, rollout, course, now))
    waiting = sum(counts.members - counts.assigned for wave, counts in by_wave.items() if 0 < wave <= rollout.wave)
    if not waiting:
        return False, Counter()
    if _site_is_out(rollout, known):
        return False, Counter({"site out": waiting})
    picky = bool(policy.windows and not policy.emergency) or policy.site_budget is not None
    few = max(0, min(AT_ONCE + 1, *left.values()))
    queue, busy = _first_in_line(connection, rollout, few, SCANNED if picky and few else max(few, 1), now)
    chosen, waits = let_begin(connection, rollout, queue, busy, left, now)
    for device_id in chosen[:AT_ONCE]:
        assign_new(connection, services, rollout, device_id, now)
    if chosen:
        changes.touch(connection, to_micros(now), "devices", "overview", f"rollout:{rollout.rollout_id}")
    # Those behind the ones looked at wait for the first limit that is used up.
    unseen = waiting - len(queue)
    if unseen and left:
        waits[min(left, key=lambda name: left[name])] += unseen
    # Who was just asked may have been the last one that the gates waited for.
    return bool(chosen), Counter({str(name): count for name, count in waits.items()})


def _of_rate_spans(one_in_s: float) -> tuple[tuple[float, timedelta], ...]:
    """Those times, and a longer one where the rate lets less than one device an hour begin."""
    slow = one_in_s > _OF_RATE[0][0]
    return (*_OF_RATE, (one_in_s, timedelta(seconds=_ALMOST * one_in_s))) if slow else _OF_RATE


def _of_rate(connection: sa.Connection, rollout: Rollout, course: Course, now: datetime) -> list[int]:
    """How many more devices the rate lets begin in an hour or longer, and in some minutes: a standstill is not caught up with."""
    found = []
    for span_s, back in _of_rate_spans(course.one_in_s(rollout.wave, now)):
        allowed = course.rate_within(rollout.wave, span_s, now)
        if allowed is not None:
            since = max(now - back, course.stage_at or now)
            found.append(max(allowed - evidence_members.asked_since(connection, rollout.rollout_id, to_micros(since)), 0))
    return found


def _site_is_out(rollout: Rollout, known: Facts) -> bool:
    """Whether nobody is asked because a site fell silent, where there are too few sites to judge that by statistics."""
    tally, accepted = known.tally, rollout.course.accepted.sites_out if rollout.course is not None else 0
    return tally is not None and tally.sites_out > accepted and tally.sites_exposed < OWN_SITES


def _ask_again(connection: sa.Connection, services: Services, rollout: Rollout, known: Facts, now: datetime) -> tuple[bool, Counter[str]]:
    """Ask devices again that gave their place back and were heard since; (whether some were asked, for what the others wait)."""
    queue = parked.heard_again(connection, rollout.rollout_id, SCANNED)
    if not queue:
        return False, Counter()
    if _site_is_out(rollout, known):
        return False, Counter({"site out": len(queue)})
    busy = busy_devices(connection, rollout, [one.device_id for one in queue], now)
    # Pace and rate have counted them when they were asked first.
    chosen, waits = let_begin(connection, rollout, queue, busy, {}, now)
    for device_id in chosen[:AT_ONCE]:
        assign_new(connection, services, rollout, device_id, now)
    return bool(chosen), Counter({str(name): count for name, count in waits.items()})


def let_begin(
    connection: sa.Connection,
    rollout: Rollout,
    queue: Sequence[Unasked],
    busy: set[str],
    most: dict[Wait, int],
    now: datetime,
    also_in_activation: Mapping[str, int] = MappingProxyType({}),
) -> tuple[tuple[str, ...], Counter[Wait]]:
    """Of devices in their order, those that may begin now: by the limits of `most`, the policy's windows, and its budget for a site.

    Args:
        connection: The transaction.
        rollout: Whose devices.
        queue: In the order in which they are asked.
        busy: Those of them that must not be changed now.
        most: How many more each limit allows.
        now: Aware UTC.
        also_in_activation: Site -> devices in activation that no rollout owns any more.

    Returns:
        Who begins, and how many of the others wait for what.
    """
    policy = rollout.policy
    zones = devices.label(connection, ZONE, [one.device_id for one in queue]) if policy.windows else {}
    ready = [Ready(one.device_id, one.site, local_time(now, zones.get(one.device_id)), one.device_id in busy) for one in queue]
    taken: Counter[str] = Counter()
    if policy.site_budget is not None:
        taken = sharing.taken(connection, rollout, sorted({one.site for one in queue}), now) + Counter(also_in_activation)
    windows = () if policy.emergency else policy.windows
    return begin(ready, most=most, windows=windows, site_budget=policy.site_budget, in_activation=taken)


def _first_in_line(connection: sa.Connection, rollout: Rollout, few: int, limit: int, now: datetime) -> tuple[list[Unasked], set[str]]:
    """The next members, and those of them that must not be changed now; behind these more are looked at, so that they hold up nobody."""
    while True:
        queue = evidence_members.unasked(connection, rollout, limit)
        busy = busy_devices(connection, rollout, [one.device_id for one in queue], now) if few else set()
        if len(queue) < limit or len(queue) - len(busy) >= few or limit >= SCANNED:
            return queue, busy
        limit = min(4 * limit, SCANNED)


def busy_devices(connection: sa.Connection, rollout: Rollout, device_ids: list[str], now: datetime) -> set[str]:
    """Of these, the devices that another rollout changes, or that were changed too lately, or that refuse the bundle."""
    elsewhere = evidence_members.busy_elsewhere(connection, rollout.rollout_id, device_ids, to_micros(now))
    return elsewhere | held_up(connection, rollout, device_ids, now).keys()
