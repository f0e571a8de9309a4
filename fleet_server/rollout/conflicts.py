"""Two rollouts of one model want a device: decided when the second is created, never by a race."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from fleet_server.rollout.tally import HARMED
from fleet_server.rollout.transitions import Event, RolloutState, TransitionError, next_state

OnConflict = Literal["refuse", "queue", "supersede"]
Kind = Literal["rollout", "experiment"]
_NAMED = 3


@dataclass(frozen=True)
class Owner:
    """A rollout that owns some of the devices that another one wants.

    Attributes:
        devices: Those of the wanted devices that it owns.
        kind: An experiment and a rollout of one model exclude each other, whatever the policy says.
    """

    rollout_id: str
    state: RolloutState
    devices: tuple[str, ...]
    kind: Kind = "rollout"


@dataclass(frozen=True)
class Resolution:
    """What becomes of a conflict.

    Attributes:
        word: `free` = there is none; `refuse` = nothing is created; `queue` = it waits until the owners are over; `supersede` = its
            start ends the owners.
        owners: Rollouts that are waited for or ended.
        lets_go: Ended rollouts whose devices are free for the asking.
        sentence: For people, empty when there is no conflict.
    """

    word: Literal["free", "refuse", "queue", "supersede"]
    owners: tuple[str, ...] = ()
    lets_go: tuple[str, ...] = ()
    sentence: str = ""


def resolve(on_conflict: OnConflict, wanted: int, owners: Sequence[Owner], kind: Kind = "rollout") -> Resolution:
    """Decide a conflict when a rollout is created, and again when it starts.

    Args:
        on_conflict: Of the new rollout's policy.
        wanted: Devices that it selects.
        owners: Rollouts of the same model that own some of them.
        kind: Of the new one.
    """
    ended = tuple(one.rollout_id for one in owners if one.state is RolloutState.ABORTED)
    living = [one for one in owners if one.state is not RolloutState.ABORTED]
    if not living:
        return Resolution("free", lets_go=ended)
    named = "; ".join(_named(one, wanted) for one in living[:_NAMED])
    ids = tuple(one.rollout_id for one in living)
    mixed = [one for one in living if "experiment" in (one.kind, kind)]
    if mixed and on_conflict != "queue":
        return Resolution("refuse", ids, ended, f"{named}: an experiment and a rollout of one model exclude each other; wait or end it")
    if on_conflict == "queue":
        return Resolution("queue", ids, ended, f"It waits in the queue: {named}.")
    if on_conflict == "supersede":
        stuck = [one for one in living if not _may_be_superseded(one.state)]
        if not stuck:
            return Resolution("supersede", ids, ended, f"Its start ends what is on its way: {named}.")
        named = "; ".join(_named(one, wanted) for one in stuck[:_NAMED])
        return Resolution("refuse", ids, ended, f"{named}, and devices on their way back are not taken away; wait until it is over")
    return Resolution("refuse", ids, ended, f"{named}; wait until it is over, abort it, or say on_conflict = 'queue' or 'supersede'")


def stratum_from(stratum: str, came_from: str, *, harmed: bool) -> str:
    """Stratum of devices that come from another rollout: their evidence is told apart, because they are not like the others."""
    name = f"{HARMED}{came_from}" if harmed else f"from {came_from}"
    return f"{stratum}|{name}" if stratum else name


def bring_forward(waves: Sequence[Sequence[str]], first: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """Waves of the same sizes in which the given devices come first, and all others stay in their order.

    >>> bring_forward([["a"], ["b", "c"]], ["c"])
    (('c',), ('a', 'b'))
    """
    chosen = set(first)
    order = [device_id for wave in waves for device_id in wave]
    moved = iter([d for d in order if d in chosen] + [d for d in order if d not in chosen])
    return tuple(tuple(next(moved) for _ in wave) for wave in waves)


def _may_be_superseded(state: RolloutState) -> bool:
    try:
        next_state(state, Event.SUPERSEDE)
    except TransitionError:
        return False
    return True


def _named(owner: Owner, wanted: int) -> str:
    devices = ", ".join(sorted(owner.devices)[:_NAMED])
    return f"{len(owner.devices)} of {wanted} devices ({devices}) belong to {owner.kind} {owner.rollout_id}, which is {owner.state.value}"
