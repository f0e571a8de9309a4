"""An aborted rollout that owns no device any more: nothing can be done with it, and why."""

import sqlalchemy as sa

from fleet_server.rollout import Rollout, RolloutState
from fleet_server.store import members, rollouts


def why_nothing_is_left(connection: sa.Connection, rollout: Rollout) -> str:
    """Why nobody can act on a rollout any more, as the end of "its devices ..."; "" while it owns one, or is not aborted.

    Only an aborted rollout loses its devices to others: it is over, and waits for nobody but a person who may roll it back.
    """
    if rollout.state is not RolloutState.ABORTED or rollouts.owns_any(connection, rollout.rollout_id):
        return ""
    all_of_them, removed = members.how_many(connection, rollout.rollout_id)
    if all_of_them == removed:
        return "were all removed from the fleet"
    rest = f", {removed} of {all_of_them} were removed from the fleet" if removed else ""
    return f"belong to a later rollout{rest}"
