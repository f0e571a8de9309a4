"""The frozen values of the engine: a rollout, the facts it is judged by, the actions it takes."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from fleet_server.rollout.course import Course
from fleet_server.rollout.evidence import DeviceFacts
from fleet_server.rollout.experiment_plan import Ending, Experiment
from fleet_server.rollout.experiment_sums import Sums
from fleet_server.rollout.findings import Accepted, Confirmed
from fleet_server.rollout.policy import Policy
from fleet_server.rollout.tally import Tally
from fleet_server.rollout.transitions import RolloutState


@dataclass(frozen=True)
class Rollout:
    """A release on its way; stored as it is (msgspec.json), replaced as a whole.

    Attributes:
        waves: Device ids that each wave adds.
        wave: Number of the last open wave; 0 = none is open.
        opened_at: One time per opened wave.
        promoted_at: One time per promoted wave.
        salt: Of the order of the devices.
        hold_since: From when a hold is counted: the opening of the wave, or a person's resume.
        last_reason: Of the last change, for people.
        changed_at: Time of the last change; a clock that stands before it decides nothing.
        paused_for: Devices whose failure or removal is the cause of the pause.
        accepted: Devices whose failure or removal a person accepted by resuming, and those that a person removed before their wave opened.
        experiment: The plan of an A/B experiment, whose batches of both arms are the waves.
        course: Sizes and clocks of a rollout by evidence; None: every device is named in `waves` and must prove itself.
    """

    rollout_id: str
    project: str
    release_id: str
    bundle_digest: str
    release_counter: int
    state: RolloutState
    waves: tuple[tuple[str, ...], ...]
    wave: int
    opened_at: tuple[datetime, ...]
    promoted_at: tuple[datetime, ...]
    policy: Policy
    salt: str
    created_at: datetime
    created_by: str
    hold_since: datetime | None = None
    last_reason: str = ""
    changed_at: datetime | None = None
    paused_for: tuple[str, ...] = ()
    accepted: tuple[str, ...] = ()
    course: Course | None = None
    experiment: Experiment | None = None

    @property
    def wave_count(self) -> int:
        """Waves of the plan."""
        return len(self.waves) if self.course is None else len(self.course.sizes)

    @property
    def members(self) -> tuple[str, ...]:
        """Devices of the open waves, in order."""
        return tuple(device_id for wave in self.waves[: self.wave] for device_id in wave)

    @property
    def all_promoted(self) -> bool:
        """Whether a promotion is stored for every wave."""
        return len(self.promoted_at) == self.wave_count > 0


@dataclass(frozen=True)
class Facts:
    """What is known when a decision is made.

    Attributes:
        devices: Facts per device; a device of an open wave that is missing here pauses the rollout.
        unreadable: Devices whose facts could not be read.
        tally: Sums over the devices, for a rollout by evidence.
        arms: Sums of both arms, for an experiment.
        away: Devices that still run or try the release, for a rollout by evidence that is rolled back.
        stuck: Of these, devices on which what they were to go back to has failed.
    """

    devices: Mapping[str, DeviceFacts]
    unreadable: tuple[str, ...] = ()
    tally: Tally | None = None
    arms: Sums | None = None
    away: int | None = None
    stuck: tuple[str, ...] = ()


class ActionKind(StrEnum):
    """What the engine can do. To hold is to do nothing."""

    OPEN_WAVE = "open-wave"
    MATURE = "mature"
    EXTEND = "extend"
    PROMOTE = "promote"
    PAUSE = "pause"
    ABORT = "abort"
    ROLL_BACK = "roll-back"
    COMPLETE = "complete"
    CONCLUDE = "conclude"
    ROLLED_BACK = "rolled-back"


@dataclass(frozen=True)
class Action:
    """One step of the engine.

    Attributes:
        wave: The wave it is about (for OPEN_WAVE the one to open).
        reason: One sentence with numbers.
        devices: For PAUSE: the failed or removed devices that are its cause.
        size: For EXTEND: devices that the wave reaches now.
        shown: For PAUSE: what a person accepts by resuming.
        asked: For PAUSE: what she confirms by confirming; None: it asks for no confirmation.
        ending: For an experiment: how it ended.
    """

    kind: ActionKind
    wave: int
    reason: str
    devices: tuple[str, ...] = ()
    size: int = 0
    shown: Accepted | None = None
    asked: Confirmed | None = None
    ending: Ending = ""
