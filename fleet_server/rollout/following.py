"""The hold-back over many rollouts: nobody is held back for ever, and who was held back follows a week after the completion."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from fleet_server.rollout.pacing import Pace

MOST_IN_A_ROW: Final = 2
FOLLOW_AFTER: Final = timedelta(days=7)


def held_too_often(waves_before: Mapping[str, Sequence[int]]) -> frozenset[str]:
    """Devices that must not be held back again.

    Args:
        waves_before: Device -> its wave (0: held back) in the rollouts of this model that it was selected for, newest first.
    """
    return frozenset(
        device_id
        for device_id, waves in waves_before.items()
        if len(waves) >= MOST_IN_A_ROW and all(wave == 0 for wave in waves[:MOST_IN_A_ROW])
    )


def following(completed_at: datetime, now: datetime, pace: Pace, exposed: int) -> int:
    """How many of the hold-back may have the release by now: none for a week, then in batches like any wave.

    Args:
        completed_at: Of the rollout.
        now: Aware.
        pace: Of the policy.
        exposed: Devices that had the release at the completion; the first batch already may be that large, so for most fleets all follow
            at once, and a fleet that was hardly exposed still goes slowly.
    """
    open_s = (now - completed_at - FOLLOW_AFTER).total_seconds()
    return 0 if open_s < 0 else max(pace.allowed(exposed, open_s) - exposed, 0)
