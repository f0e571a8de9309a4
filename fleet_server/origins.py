"""Where the devices of a new rollout come from: a rollout that it supersedes, or one that it mends. They come first, and are told apart."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import sqlalchemy as sa

from fleet_server.errors import ConflictError
from fleet_server.queries.errors import NotFoundError
from fleet_server.rollout import RolloutState
from fleet_server.rollout.conflicts import bring_forward, stratum_from
from fleet_server.rollout.outline import Outline, all_first
from fleet_server.store import rollouts
from fleet_server.store.evidence_members import Selected
from fleet_server.store.tables import ROLLOUT_MEMBER

_MENDED = (RolloutState.ABORTED, RolloutState.ROLLING_BACK, RolloutState.ROLLED_BACK, RolloutState.PAUSED_RB)


@dataclass(frozen=True)
class Origins:
    """Device -> the rollout that it comes from; `harmed` have failed there, `running` have its release."""

    harmed: dict[str, str]
    running: dict[str, str]


def of(connection: sa.Connection, project: str, superseded: Sequence[str], fixes: str) -> Origins:
    """Where devices come from.

    Args:
        connection: A transaction.
        project: Of the new rollout.
        superseded: Rollouts that its start will end.
        fixes: Rollout that it mends, "" for none.

    Raises:
        NotFoundError: There is no rollout of that id to mend.
        ConflictError: It is of another project, or was not aborted.
    """
    harmed: dict[str, str] = {}
    if fixes:
        mended = rollouts.load(connection, fixes)
        if mended is None:
            raise NotFoundError("rollout", fixes)
        if mended.rollout.project != project or mended.rollout.state not in _MENDED:
            is_now = f"{mended.rollout.state.value} and of project {mended.rollout.project}"
            raise ConflictError(
                f"rollout {fixes} is {is_now}; a fix is for one of {project} that was aborted or taken back. Nothing was created."
            )
        harmed = dict.fromkeys(_members(connection, fixes, failed=True), fixes)
    running = {device_id: owner for owner in superseded for device_id in _members(connection, owner, failed=False)}
    return Origins(harmed, {device_id: owner for device_id, owner in running.items() if device_id not in harmed})


def marked(chosen: Sequence[Selected], origins: Origins) -> list[Selected]:
    """The devices with strata that say where they come from."""
    found = []
    for one in chosen:
        device = one.candidate
        came_from = origins.harmed.get(device.device_id) or origins.running.get(device.device_id)
        if came_from is not None:
            stratum = stratum_from(device.stratum, came_from, harmed=device.device_id in origins.harmed)
            one = replace(one, candidate=replace(device, stratum=stratum))  # noqa: PLW2901  # the same device, told apart
        found.append(one)
    return found


def ordered(planned: Outline, chosen: Sequence[Selected], origins: Origins) -> Outline:
    """The plan with harmed devices first, and of each superseded rollout at least one device in wave 1."""
    if planned.membership is not None:
        strata = sorted({one.candidate.stratum for one in chosen if one.candidate.device_id in origins.harmed})
        return all_first(planned, [one.candidate for one in chosen], strata)
    in_order = [device_id for wave in planned.waves for device_id in wave]
    first = [device_id for device_id in in_order if device_id in origins.harmed]
    for owner in sorted(set(origins.running.values())):
        first += [device_id for device_id in in_order if origins.running.get(device_id) == owner][:1]
    return replace(planned, waves=bring_forward(planned.waves, first))


def _members(connection: sa.Connection, rollout_id: str, *, failed: bool) -> list[str]:
    member = ROLLOUT_MEMBER.c
    which = member.failed_at.is_not(None) if failed else sa.and_(member.counter.is_not(None), member.failed_at.is_(None))
    query = sa.select(member.device_id).where(member.rollout_id == rollout_id, member.removed_at.is_(None), which)
    return list(connection.scalars(query.order_by(member.device_id)))
