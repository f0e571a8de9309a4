"""Where a device goes back to: not merely what it had before, but the last release that proved itself on it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Stay:
    """A release that a device committed, in the order of time.

    Attributes:
        counter: Of the release; rises with each one of a project.
        bundle_digest: Of the release.
        completed: Whether the rollout that brought it was completed.
    """

    release_id: str
    counter: int
    bundle_digest: str
    completed: bool


@dataclass(frozen=True)
class Target:
    """Where a device goes.

    Attributes:
        word: `completed` = the last release whose rollout was completed there; `baseline` = what the project names for that case; `keep` =
            nothing else is left: it keeps what it runs, and a person is told.
        release_id: None to keep.
    """

    word: Literal["completed", "baseline", "keep"]
    release_id: str | None
    sentence: str


def target_of(
    stays: Sequence[Stay], *, leaving: str, floor: int = 0, quarantined: Iterable[str] = (), baseline: Stay | None = None
) -> Target:
    """The release that a device goes back to.

    Args:
        stays: What it committed, oldest first.
        leaving: Release that it goes back from.
        floor: Least counter that a device may run.
        quarantined: Bundle digests that failed on it.
        baseline: Release for devices that have nothing to go back to, None: there is none.
    """
    bad = set(quarantined)

    def fits(one: Stay) -> bool:
        return one.release_id != leaving and one.counter >= floor and one.bundle_digest not in bad

    for one in reversed(stays):
        if one.completed and fits(one):
            return Target("completed", one.release_id, f"back to {one.release_id}, whose rollout was completed here")
    if baseline is not None and fits(baseline):
        return Target("baseline", baseline.release_id, f"to the baseline {baseline.release_id}: no completed release is left to go back to")
    return Target(
        "keep", None, "nothing to go back to: no completed release at or above the floor that has not failed here; it keeps what it runs"
    )
