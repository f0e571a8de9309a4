"""What the page needs from the rest of the server: read models, one use-case, and who the visitor is.

In production `fleet_server.page.database` answers; tests of the screens answer with invented values, so that each state can be shown.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol

from flask import Request, Response

from fleet_server.auth import Actor
from fleet_server.grouping import GroupView
from fleet_server.read_approval import ApprovalView
from fleet_server.read_drift import DriftView
from fleet_server.read_halt import HaltView
from fleet_server.read_models import (
    DeviceRow,
    DeviceView,
    EventView,
    OverviewView,
    ReleaseRow,
    RolloutRow,
    RolloutView,
)
from fleet_server.read_plan import LastPolicy, PlanView, Vocabulary
from fleet_server.regrouping import GroupChange, How

ActionName = Literal["start", "pause", "confirm", "resume", "abort", "roll-back"]


ChangeWord = Literal["labels", "unquarantine", "remove"]


@dataclass(frozen=True)
class DeviceChange:
    """What a person wants changed about one device; `labels` and `were` (as seen) for `labels`, `bundle` for `unquarantine`."""

    word: ChangeWord
    reason: str
    labels: dict[str, str]
    were: dict[str, str]
    bundle: str


class Source(Protocol):
    """Everything the page reads and does; times are aware UTC.

    What does not exist is answered with `NotFoundError`, what may not be done with another `EdgefleetError`: the page shows its message.
    """

    def overview(self, now: datetime) -> OverviewView:
        """The overview."""

    def rollouts(self, now: datetime) -> list[RolloutRow]:
        """All rollouts, newest first."""

    def rollout(self, rollout_id: str, now: datetime) -> RolloutView:
        """One rollout."""

    def releases(self) -> list[ReleaseRow]:
        """All releases, newest first."""

    def devices(self, now: datetime) -> list[DeviceRow]:
        """All devices."""

    def groups(self) -> Mapping[tuple[str, str], str]:
        """Groups of devices: (project, name) -> text of the selection, in order."""

    def group_rows(self, after: tuple[str, str], limit: int) -> list[GroupView]:
        """So many groups behind this (project, name), with how many devices each selects now."""

    def group(self, project: str, name: str) -> GroupView:
        """One group."""

    def group_devices(self, project: str, name: str, limit: int) -> list[str]:
        """The first devices, by id, that it selects now; none where its selection means nothing any more."""

    def group_change(self, project: str, name: str, how: How, wanted: str) -> GroupChange:
        """What a change of a group would do; nothing is changed."""

    def change_group(self, project: str, name: str, how: How, wanted: str, *, digest: str, reason: str, actor: Actor) -> None:
        """Do the change of this digest, else raise and change nothing."""

    def remove_group(self, project: str, name: str, *, digest: str, reason: str, actor: Actor) -> None:
        """Forget a group that still has this digest, else raise and change nothing."""

    def projects(self) -> list[str]:
        """Names of all projects."""

    def device(self, device_id: str, now: datetime) -> DeviceView:
        """One device."""

    def drift(self, project: str | None, now: datetime) -> DriftView | None:
        """Drift of one project, of the first one when none is named; None when there is no project yet."""

    def events(self, limit: int) -> list[EventView]:
        """The log, newest first."""

    def newest_change(self) -> int:
        """Sequence number of the newest change."""

    def changes_after(self, seq: int) -> Sequence[tuple[int, str]]:
        """(seq, topic) of changes after `seq`, oldest first."""

    def approvals(self, rollout_id: str) -> ApprovalView:
        """Where the approvals of a rollout stand, with the digest that an approval must name."""

    def approve(self, rollout_id: str, *, digest: str, note: str, actor: Actor) -> None:
        """Approve the plan of this digest, else raise and change nothing."""

    def vocabulary(self, project: str) -> Vocabulary:
        """Labels and groups that a selection of the project may name."""

    def measured_policy(self) -> dict[str, Any]:
        """The measured defaults, as a policy file says them."""

    def last_policy(self, release_id: str) -> LastPolicy | None:
        """The policy of the newest rollout of the release's project; None when there was none."""

    def plan(self, release_id: str, policy: dict[str, Any], selection: str, now: datetime) -> PlanView:
        """What a rollout would do; nothing is changed."""

    def create_rollout(self, release_id: str, policy: dict[str, Any], selection: str, *, digest: str, actor: Actor) -> str:
        """Make the rollout of the plan of this digest, else raise and change nothing. Its id."""

    def halt(self) -> HaltView:
        """Whether the fleet is halted."""

    def act(self, rollout_id: str, action: ActionName, *, version: int, reason: str, actor: Actor) -> None:
        """Do one action on a rollout that still has this version, else raise and change nothing."""

    def change_device(self, device_id: str, change: DeviceChange, *, actor: Actor) -> None:
        """Do it, else raise and change nothing."""

    def actor(self, asked: Request) -> Actor | None:
        """Who makes this request; None is nobody."""

    def actor_now(self, asked: Request) -> Actor | None:
        """Who made a request that goes on, looked up anew; None also when the person may do nothing any more."""

    def sign_in(self, token: str, response: Response) -> None:
        """Open a session for a token and hand it to the browser with this response, or raise UnauthorizedError."""

    def sign_out(self, asked: Request, response: Response) -> None:
        """End the visitor's session and take it from the browser."""
