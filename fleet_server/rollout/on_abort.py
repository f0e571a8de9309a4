"""Who goes back when a rollout is aborted, by evidence or by a person: the policy says it.

Who was asked and has not begun is always told to stay where he is. A rollback by a person sends everybody back, whatever the policy says.
"""

from typing import Final, Literal

OnAbort = Literal["stop", "wave", "roll-back", "keep"]
# In words, after "It ends: " or at the beginning of a sentence.
GOES_BACK: Final[dict[OnAbort, str]] = {
    "stop": "devices that are not ok go back",
    "wave": "devices that are not ok go back, and all of the open wave",
    "roll-back": "all devices go back",
    "keep": "nobody who has begun goes back",
}


def keeps(on_abort: OnAbort, *, ok: bool, begun: bool, in_open_wave: bool) -> bool:
    """Whether a device keeps the release of a rollout that was aborted; by `roll-back` the rollback that follows takes it.

    Args:
        on_abort: Of the policy.
        ok: It has proved itself.
        begun: It was heard of the release.
        in_open_wave: It belongs to the wave that was open, and not to one before.

    >>> [keeps(one, ok=True, begun=True, in_open_wave=True) for one in ("stop", "wave", "roll-back", "keep")]
    [True, False, True, True]
    """
    if on_abort == "keep":
        return begun
    return ok and not (on_abort == "wave" and in_open_wave)


def said(on_abort: OnAbort) -> str:
    """What becomes of the devices of an aborted rollout, and what a person can do."""
    left = {"roll-back": "", "keep": "; a person can roll them back"}.get(on_abort, "; a person can roll back the others")
    return f"{GOES_BACK[on_abort].capitalize()}{left}."
