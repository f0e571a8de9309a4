"""The update as a pure state machine: a table of transitions, no clock, no random, no disk.

The caller journals what `step` returns and then does what the state asks for: `downloading` fetches, `verified` hashes again and
starts a self-test, `self-test` runs it, `trial` scores with both models, `committed` renames the pointer.
A pair that is not in the table is an error.
"""

from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from edgefleet.errors import EdgefleetError
from edgefleet.messages import DeviceState

MAX_REMEMBERED: Final = 64
MAX_REASON_CHARS: Final = 500


class Event(Enum):
    """What can happen to an update."""

    DESIRED_NEW = "another bundle is wanted than the one that runs"
    DESIRED_SAME = "the bundle that is being worked on is still wanted"
    DESIRED_RUNNING = "the running bundle is wanted"
    DESIRED_QUARANTINED = "a bundle is wanted that failed here"
    DESIRED_BELOW_FLOOR = "a bundle is wanted whose release is below the floor"
    WITHDRAWN = "nothing is wanted"
    FETCHED = "all files are here and their hashes are right"
    REFUSED = "the bundle is not for this device, or cannot be had"
    WRONG_BYTES = "the bytes are not the promised ones, twice"
    DAMAGED = "files that were right are no longer"
    SELFTEST_STARTED = "the self-test begins; counted before the model is loaded"
    SELFTEST_OK = "the golden rows agree"
    SELFTEST_KNOWN = "the golden rows agree, and this bundle was the good one before"
    SELFTEST_FAILED = "the golden rows disagree"
    TRIAL_OK = "soaked and agreeing"
    TRIAL_REJECTED = "it disagrees with the running model"
    CRASHED = "the model ended its process, or the trial took too long"
    EXHAUSTED = "the same, and no attempt is left"
    STOPPED = "the agent was asked to stop"
    RESTARTED = "the agent starts after a crash or a power cut"


# State -> event -> next state.
_ANY: Final[dict[Event, DeviceState]] = {
    Event.DESIRED_NEW: "downloading",
    Event.DESIRED_RUNNING: "idle",
    Event.DESIRED_QUARANTINED: "quarantined",
    Event.DESIRED_BELOW_FLOOR: "refused",
    Event.WITHDRAWN: "idle",
}
TRANSITIONS: Final[dict[DeviceState, dict[Event, DeviceState]]] = {
    "idle": _ANY | {Event.STOPPED: "idle", Event.RESTARTED: "idle"},
    "refused": _ANY | {Event.STOPPED: "refused", Event.RESTARTED: "refused"},
    "downloading": _ANY
    | {
        Event.DESIRED_SAME: "downloading",
        Event.FETCHED: "verified",
        Event.REFUSED: "refused",
        Event.WRONG_BYTES: "quarantined",
        Event.STOPPED: "downloading",
        Event.RESTARTED: "downloading",
    },
    "verified": _ANY
    | {
        Event.DESIRED_SAME: "verified",
        Event.DAMAGED: "downloading",
        Event.SELFTEST_STARTED: "self-test",
        Event.EXHAUSTED: "quarantined",
        Event.STOPPED: "verified",
        Event.RESTARTED: "verified",
    },
    "self-test": _ANY
    | {
        Event.DESIRED_SAME: "self-test",
        Event.SELFTEST_OK: "trial",
        Event.SELFTEST_KNOWN: "committed",
        Event.SELFTEST_FAILED: "quarantined",
        Event.CRASHED: "verified",
        Event.EXHAUSTED: "quarantined",
        Event.STOPPED: "verified",
        Event.RESTARTED: "verified",
    },
    "trial": _ANY
    | {
        Event.DESIRED_SAME: "trial",
        Event.TRIAL_OK: "committed",
        Event.TRIAL_REJECTED: "rolled-back",
        Event.CRASHED: "verified",
        Event.EXHAUSTED: "rolled-back",
        Event.STOPPED: "verified",
        Event.RESTARTED: "verified",
    },
    "committed": _ANY
    | {
        Event.DESIRED_RUNNING: "committed",
        Event.DAMAGED: "downloading",
        Event.STOPPED: "committed",
        Event.RESTARTED: "committed",
    },
    "rolled-back": _ANY | {Event.STOPPED: "rolled-back", Event.RESTARTED: "rolled-back"},
    "quarantined": _ANY | {Event.STOPPED: "quarantined", Event.RESTARTED: "quarantined"},
}
WORKING: Final[frozenset[DeviceState]] = frozenset({"downloading", "verified", "self-test", "trial"})
_TESTING: Final[frozenset[DeviceState]] = frozenset({"self-test", "trial"})
_CONVICTING: Final = frozenset({Event.WRONG_BYTES, Event.SELFTEST_FAILED, Event.TRIAL_REJECTED, Event.EXHAUSTED})
_STARTING: Final = frozenset({Event.DESIRED_NEW, Event.DESIRED_QUARANTINED, Event.DESIRED_BELOW_FLOOR})


class PlanError(EdgefleetError):
    """An event came in a state that does not know it: a programming error, never a default."""


@dataclass(frozen=True)
class Progress:
    """Where the update stands.

    Attributes:
        state: State as the server sees it.
        subject: Digest of the bundle the state speaks of, "" when idle.
        reason: Why it is so, for people.
        tries: Attempts made per digest; they survive a restart and a change of mind of the server.
        quarantined: Digests that failed here, oldest first, with the reason.
        lifted: Digests whose quarantine a person lifted, with the counter of the desired state that said so.
    """

    state: DeviceState = "idle"
    subject: str = ""
    reason: str = ""
    tries: tuple[tuple[str, int], ...] = ()
    quarantined: tuple[tuple[str, str], ...] = ()
    lifted: tuple[tuple[str, int], ...] = ()

    @property
    def attempt(self) -> int:
        """Attempts made with the subject."""
        return dict(self.tries).get(self.subject, 0)

    def state_while(self, running: str) -> DeviceState:
        """The state as it may be told: what is decided but does not run yet is still on trial, never a success."""
        return "trial" if self.state == "committed" and running != self.subject else self.state

    def conviction(self, digest: str) -> str | None:
        """Why a digest is quarantined here, or None."""
        return dict(self.quarantined).get(digest)


def judge_desired(progress: Progress, wanted: str | None, running: str, *, below_floor: bool = False) -> Event:
    """The event that a desired state is.

    Args:
        progress: Where the update stands.
        wanted: Bundle digest the director wants, None when it names none for this project.
        running: Digest of the committed bundle, "" when there is none.
        below_floor: Whether the release of the wanted bundle is older than this device may take; what runs already is not asked.
    """
    if wanted is None:
        return Event.WITHDRAWN
    if wanted == running:
        return Event.DESIRED_RUNNING
    if progress.conviction(wanted) is not None:
        return Event.DESIRED_QUARANTINED
    if below_floor:
        return Event.DESIRED_BELOW_FLOOR
    if wanted == progress.subject and progress.state in WORKING:
        return Event.DESIRED_SAME
    return Event.DESIRED_NEW


def step(progress: Progress, event: Event, *, subject: str = "", reason: str = "", attempts: int = 3) -> Progress:
    """The progress after an event.

    Args:
        progress: Where the update stands.
        event: What happened.
        subject: Digest that is wanted, for the events DESIRED_NEW, DESIRED_QUARANTINED and DESIRED_BELOW_FLOOR.
        reason: Why, for people.
        attempts: Tries that the policy allows per digest.

    Raises:
        PlanError: The table does not list the pair.
    """
    # The server may have lowered the policy meanwhile, so more than `attempts` is possible.
    used_up = progress.attempt >= attempts
    if used_up and (event is Event.CRASHED or (event is Event.RESTARTED and progress.state in _TESTING) or event is Event.SELFTEST_STARTED):
        reason = reason or f"interrupted or crashed in {progress.attempt} of {attempts} attempts"
        event = Event.EXHAUSTED
    following = TRANSITIONS[progress.state].get(event)
    if following is None:
        raise PlanError(f"the event {event.name} is unknown in the state {progress.state!r}")
    about = subject if event in _STARTING else ("" if following == "idle" else progress.subject)
    tries, quarantined = dict(progress.tries), dict(progress.quarantined)
    if event is Event.SELFTEST_STARTED:
        tries[about] = tries.get(about, 0) + 1
    if event is Event.STOPPED and progress.state in _TESTING:
        # A stop on request is no failure of the model: this try does not count.
        tries[about] = max(tries.get(about, 0) - 1, 0)
    if following == "committed":
        tries.pop(about, None)
    if event in _CONVICTING:
        quarantined[about] = reason[:MAX_REASON_CHARS]
    if event is Event.DESIRED_QUARANTINED:
        reason = f"failed here before: {quarantined.get(about, '')}"
    unchanged = following == progress.state and about == progress.subject and not reason
    return replace(
        progress,
        state=following,
        subject=about,
        reason=progress.reason if unchanged else reason[:MAX_REASON_CHARS],
        tries=tuple(tries.items())[-MAX_REMEMBERED:],
        quarantined=tuple(quarantined.items())[-MAX_REMEMBERED:],
    )
