"""The page's source in production: a thin line from each question to `fleet_server.queries`, `usecases` and `auth`."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from flask import Request, Response

from fleet_server import approving, auth, grouping, planning, queries, regrouping, relabelling, removing, unquarantining, usecases
from fleet_server.auth import Actor
from fleet_server.grouping import GroupView
from fleet_server.page.devices_filter import MAX_LOOKED_AT
from fleet_server.page.source import ActionName, DeviceChange
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
from fleet_server.rollout.plans import default_policy
from fleet_server.services import Services


class DatabaseSource:
    """Answers from the database of one server."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def overview(self, now: datetime) -> OverviewView:
        """See `queries.overview`."""
        return queries.overview(self._services.db, now)

    def rollouts(self, now: datetime) -> list[RolloutRow]:
        """See `queries.rollouts`."""
        return queries.rollouts(self._services.db, now)

    def rollout(self, rollout_id: str, now: datetime) -> RolloutView:
        """See `queries.rollout`."""
        return queries.rollout(self._services.db, rollout_id, now)

    def releases(self) -> list[ReleaseRow]:
        """See `queries.releases`."""
        return queries.releases(self._services.db)

    def devices(self, now: datetime) -> list[DeviceRow]:
        """See `queries.devices`."""
        return queries.devices(self._services.db, now, limit=MAX_LOOKED_AT)

    def groups(self) -> Mapping[tuple[str, str], str]:
        """See `grouping.texts_of`."""
        return grouping.texts_of(self._services.db)

    def group_rows(self, after: tuple[str, str], limit: int) -> list[GroupView]:
        """See `grouping.groups_of`."""
        return grouping.groups_of(self._services.db, after=after, limit=limit)

    def group(self, project: str, name: str) -> GroupView:
        """See `grouping.group_of`."""
        return grouping.group_of(self._services.db, project, name)

    def group_devices(self, project: str, name: str, limit: int) -> list[str]:
        """See `grouping.devices_of`."""
        return grouping.devices_of(self._services.db, project, name, limit)

    def group_change(self, project: str, name: str, how: How, wanted: str) -> GroupChange:
        """See `regrouping.preview`."""
        return regrouping.preview(self._services.db, project, name, how, wanted)

    def change_group(self, project: str, name: str, how: How, wanted: str, *, digest: str, reason: str, actor: Actor) -> None:
        """See `regrouping.change`."""
        regrouping.change(self._services, project, name, how, wanted, digest=digest, reason=reason, actor=actor)

    def remove_group(self, project: str, name: str, *, digest: str, reason: str, actor: Actor) -> None:
        """See `grouping.remove_group`."""
        grouping.remove_group(self._services, project, name, reason=reason, actor=actor, digest=digest)

    def projects(self) -> list[str]:
        """See `queries.projects`."""
        return queries.projects(self._services.db)

    def device(self, device_id: str, now: datetime) -> DeviceView:
        """See `queries.device`."""
        return queries.device(self._services.db, device_id, now)

    def drift(self, project: str | None, now: datetime) -> DriftView | None:
        """See `queries.drift`."""
        return queries.drift(self._services.db, project, now)

    def events(self, limit: int) -> list[EventView]:
        """The newest entries of the log, newest first."""
        return queries.recent_events(self._services.db, limit)

    def newest_change(self) -> int:
        """See `queries.newest_change`."""
        return queries.newest_change(self._services.db)

    def changes_after(self, seq: int) -> Sequence[tuple[int, str]]:
        """See `queries.changes_after`."""
        return queries.changes_after(self._services.db, seq)

    def approvals(self, rollout_id: str) -> ApprovalView:
        """See `approving.approvals_of`."""
        return approving.approvals_of(self._services.db, rollout_id)

    def approve(self, rollout_id: str, *, digest: str, note: str, actor: Actor) -> None:
        """See `approving.approve_rollout`."""
        approving.approve_rollout(self._services, rollout_id, digest=digest, note=note, actor=actor)

    def vocabulary(self, project: str) -> Vocabulary:
        """See `queries.vocabulary`."""
        return queries.vocabulary(self._services.db, project)

    def measured_policy(self) -> dict[str, Any]:
        """See `rollout.plans.default_policy`."""
        document: dict[str, Any] = msgspec.to_builtins(default_policy())
        return document

    def last_policy(self, release_id: str) -> LastPolicy | None:
        """See `queries.last_policy`."""
        return queries.last_policy(self._services.db, release_id)

    def plan(self, release_id: str, policy: dict[str, Any], selection: str, now: datetime) -> PlanView:
        """See `planning.plan`."""
        return planning.plan(self._services.db, now, release_id=release_id, policy=policy, selection=selection)

    def create_rollout(self, release_id: str, policy: dict[str, Any], selection: str, *, digest: str, actor: Actor) -> str:
        """See `usecases.create_rollout`."""
        made = usecases.create_rollout(
            self._services, release_id=release_id, policy=policy, selection=selection, digest=digest, actor=actor
        )
        return made.rollout_id

    def halt(self) -> HaltView:
        """See `queries.halt`."""
        return queries.halt(self._services.db, self._services.config.fleet)

    def act(self, rollout_id: str, action: ActionName, *, version: int, reason: str, actor: Actor) -> None:
        """See `usecases.rollout_action`."""
        usecases.rollout_action(self._services, rollout_id, action, version=version, reason=reason, actor=actor)

    def change_device(self, device_id: str, change: DeviceChange, *, actor: Actor) -> None:
        """See `relabelling`, `unquarantining` and `removing`."""
        services = self._services
        if change.word == "labels":
            relabelling.replace_labels(services, device_id, labels=change.labels, were=change.were, reason=change.reason, actor=actor)
        elif change.word == "unquarantine":
            unquarantining.lift_quarantine(services, device_id, bundle=change.bundle, reason=change.reason, actor=actor)
        else:
            removing.remove_device(services, device_id, reason=change.reason, actor=actor)

    def actor(self, asked: Request) -> Actor | None:
        """See `auth.current_actor`."""
        return auth.current_actor(asked)

    def actor_now(self, asked: Request) -> Actor | None:
        """See `auth.actor_now`."""
        return auth.actor_now(self._services, asked)

    def sign_in(self, token: str, response: Response) -> None:
        """Open a session and set its cookie."""
        auth.set_session_cookie(response, auth.sign_in(self._services, token))

    def sign_out(self, asked: Request, response: Response) -> None:
        """End the session and delete its cookie."""
        auth.sign_out(self._services, asked.cookies.get(auth.SESSION_COOKIE, ""))
        response.delete_cookie(auth.SESSION_COOKIE, httponly=True, samesite="Lax")
