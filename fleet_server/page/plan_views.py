"""Plan a rollout on the page: choose a release and devices, look at what would happen, then create exactly that."""

import tomllib
from dataclasses import dataclass
from typing import Any, Final

from flask import Blueprint, g, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from edgefleet.errors import ConfigError, EdgefleetError, InputError
from fleet_server.errors import status_of
from fleet_server.page.security import acting_operator, for_roles
from fleet_server.page.source import Source
from fleet_server.read_models import ReleaseRow
from fleet_server.read_plan import PlanView

_MAX_SELECTION: Final = 4_000
_MAX_POLICY: Final = 8_000
_MAX_ID: Final = 64
POLICIES: Final = ("measured", "last", "own")


@dataclass(frozen=True)
class Asked:
    """What a person chose; as it stands in the form, so that a refused one is not typed again.

    Attributes:
        policy: measured | last | own.
        own: A policy file's text, where the policy is `own`.
        digest: Of the plan that the form shows; empty: none yet.
    """

    release_id: str = ""
    selection: str = ""
    policy: str = "measured"
    own: str = ""
    digest: str = ""


def add_plan_views(page: Blueprint, source: Source) -> None:
    """Add the views to the page's blueprint."""

    @page.get("/rollouts/new")
    @for_roles("viewer")
    def new_rollout() -> str:
        asked = Asked(release_id=request.args.get("release", "")[:_MAX_ID], selection=request.args.get("select", "")[:_MAX_SELECTION])
        return _screen(source, asked)

    @page.post("/rollouts/new")
    @for_roles("operator")
    def plan_or_create() -> AnyResponse | str | tuple[str, int]:
        actor = acting_operator()
        asked = _asked()
        try:
            policy = _policy(source, asked)
            if request.form.get("do") == "create":
                if not asked.digest:
                    raise InputError("look at the plan first: what is created is the plan that was shown. Nothing was created.")
                rollout_id = source.create_rollout(asked.release_id, policy, asked.selection, digest=asked.digest, actor=actor)
                return redirect(url_for("page.rollout", rollout_id=rollout_id), 303)
            plan = source.plan(asked.release_id, policy, asked.selection, g.page_now)
        except EdgefleetError as err:
            return _screen(source, asked, refusal=str(err)), status_of(err)
        return _screen(source, asked, plan)


def _asked() -> Asked:
    form = request.form
    asked = Asked(
        release_id=form.get("release", "")[:_MAX_ID],
        selection=form.get("select", "").strip(),
        policy=form.get("policy", "measured"),
        own=form.get("own", ""),
        digest=form.get("digest", "")[:_MAX_ID],
    )
    for what, text, limit in (("selection", asked.selection, _MAX_SELECTION), ("policy", asked.own, _MAX_POLICY)):
        if len(text) > limit:
            raise InputError(
                f"the {what} has {len(text)} characters, the page takes {limit}; use `edgefleet rollout plan`. Nothing was done."
            )
    if asked.policy not in POLICIES:
        raise InputError(f"policy {asked.policy[:20]!r} is unknown: one of {', '.join(POLICIES)}. Nothing was done.")
    return asked


def _policy(source: Source, asked: Asked) -> dict[str, Any]:
    if asked.policy == "measured":
        return source.measured_policy()
    if asked.policy == "own":
        try:
            return tomllib.loads(asked.own)
        except tomllib.TOMLDecodeError as err:
            raise ConfigError(f"the policy cannot be read as TOML: {err}") from err
    last = source.last_policy(asked.release_id)
    if last is None:
        raise ConfigError("no rollout of this project was planned before: there is no last policy; choose the measured defaults")
    return last.document


def _screen(source: Source, asked: Asked, plan: PlanView | None = None, refusal: str = "") -> str:
    releases = source.releases()
    chosen = next((one for one in releases if one.release_id == asked.release_id), releases[0] if releases else None)
    return render_template("plan.html", asked=asked, plan=plan, refusal=refusal, releases=releases, chosen=chosen, **_known(source, chosen))


def _known(source: Source, chosen: ReleaseRow | None) -> dict[str, Any]:
    """What the form offers for the chosen release's project."""
    if chosen is None:
        return {"words": None, "last": None}
    return {"words": source.vocabulary(chosen.project), "last": source.last_policy(chosen.release_id)}
