"""A rollout's clocks stood still while nothing was allowed to begin: batches, patience and holds go on where they were."""

from dataclasses import replace
from datetime import datetime

import msgspec

from fleet_server.rollout.model import Rollout


def stood_still(rollout: Rollout, since: datetime, until: datetime) -> Rollout:
    """The rollout with its clocks moved on by the standstill.

    Without it a wave would have "been open" all the time: after two days its whole rest would begin at once, and a hold would be over.

    Args:
        rollout: As it was.
        since: Start of the standstill.
        until: Its end, not before `since`.
    """
    if until <= since:
        return rollout

    def moved(moment: datetime) -> datetime:
        return moment if moment >= until else moment + (until - max(moment, since))

    def moved_if(moment: datetime | None) -> datetime | None:
        return None if moment is None else moved(moment)

    course = rollout.course and msgspec.structs.replace(
        rollout.course, stage_at=moved_if(rollout.course.stage_at), judged_at=moved_if(rollout.course.judged_at)
    )
    is_open = len(rollout.promoted_at) < rollout.wave == len(rollout.opened_at)
    opened_at = (*rollout.opened_at[:-1], moved(rollout.opened_at[-1])) if is_open else rollout.opened_at
    return replace(rollout, hold_since=moved_if(rollout.hold_since), opened_at=opened_at, course=course)
