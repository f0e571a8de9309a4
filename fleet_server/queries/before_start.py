"""What a rollout that has not started waits for, and what its start would end: other rollouts, which the engine does not see."""

import sqlalchemy as sa

from fleet_server.rollout import Rollout, RolloutState
from fleet_server.store import links, rollouts

_NOT_STARTED = (RolloutState.DRAFT, RolloutState.APPROVED)


def waits_for(connection: sa.Connection, rollout: Rollout, missing: str) -> str:
    """What is missing for a rollout to go on, with its place among others.

    Args:
        connection: A transaction.
        rollout: Any.
        missing: What the engine says of it.

    Returns:
        `missing` as it was, of a rollout that was started or that has nothing to do with others.
    """
    if rollout.state not in _NOT_STARTED:
        return missing
    found = [rollouts.load(connection, owner) for owner in links.owners_of_waiting(connection, rollout.rollout_id)]
    # Devices of an aborted one are there for the asking.
    names = ", ".join(one.rollout.rollout_id for one in found if one is not None and one.rollout.state is not RolloutState.ABORTED)
    if not names:
        return missing
    if rollout.policy.on_conflict == "supersede":
        return f"{missing} Its start ends {names}."
    wanted_by = links.wanted_start(connection, rollout.rollout_id)
    if wanted_by:
        return f"Started by {wanted_by}: it is queued behind {names}, and begins by itself once its devices are free."
    return f"{missing} Then it is queued behind {names}."
