"""Groups on the page: list them, look at one, make, change and remove it. A change is shown before it is done, and asks for a reason."""

from dataclasses import dataclass
from typing import Final, cast, get_args

from flask import Blueprint, abort, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from edgefleet.errors import EdgefleetError
from fleet_server.errors import status_of
from fleet_server.page.security import acting_operator, for_roles
from fleet_server.page.source import Source
from fleet_server.regrouping import GroupChange, How

PAGE_ROWS: Final = 100
DEVICES_SHOWN: Final = 100
_MAX_ID: Final = 64
_MAX_LINK: Final = 4_000  # characters of a selection in an address


@dataclass(frozen=True)
class Asked:
    """What a person chose; as it stands in the form, so that a refused one is not typed again.

    Attributes:
        how: make | add | take | say.
        wanted: Names of devices, or a selection.
    """

    project: str
    name: str
    how: How
    wanted: str = ""
    reason: str = ""


def add_group_views(page: Blueprint, source: Source) -> None:
    """Add the views to the page's blueprint."""

    @page.get("/groups")
    @for_roles("viewer")
    def groups() -> str:
        names = list(source.groups())
        pages = max(1, -(-len(names) // PAGE_ROWS))
        number = min(max(request.args.get("page", 1, type=int), 1), pages)
        first = (number - 1) * PAGE_ROWS
        rows = source.group_rows(names[first - 1] if first else ("", ""), PAGE_ROWS)
        projects = {project for project, _ in names}
        return render_template("groups.html", rows=rows, total=len(names), several=len(projects) > 1, page=number, pages=pages)

    @page.get("/groups/new")
    @for_roles("viewer")
    def new_group() -> str:
        select, project = request.args.get("select", ""), request.args.get("project", "")[:_MAX_ID]
        if len(select) <= _MAX_LINK:
            return _screen(source, Asked(project, "", "make", select))
        # Cut off it could mean other devices.
        refusal = f"The selection in the address has {len(select)} characters, the limit there is {_MAX_LINK}; paste it here instead."
        return _screen(source, Asked(project, "", "make"), refusal=refusal)

    @page.post("/groups/new")
    @for_roles("operator")
    def make_group() -> AnyResponse | str | tuple[str, int]:
        form = request.form
        return _look_or_do(source, _asked(form.get("project", ""), form.get("name", "").strip(), "make"))

    @page.get("/groups/<project>/<name>")
    @for_roles("viewer")
    def group(project: str, name: str) -> str:
        view = source.group(project, name)
        return render_template("group.html", view=view, devices=source.group_devices(project, name, DEVICES_SHOWN))

    @page.get("/groups/<project>/<name>/change")
    @for_roles("viewer")
    def ask_group_change(project: str, name: str) -> str:
        source.group(project, name)
        return _screen(source, Asked(project, name, "add"))

    @page.post("/groups/<project>/<name>/change")
    @for_roles("operator")
    def change_group(project: str, name: str) -> AnyResponse | str | tuple[str, int]:
        how = request.form.get("how", "")
        known = how in get_args(How) and how != "make"
        return _look_or_do(source, _asked(project, name, cast(How, how) if known else abort(404)))

    @page.get("/groups/<project>/<name>/remove")
    @for_roles("viewer")
    def ask_group_removal(project: str, name: str) -> str:
        return render_template("group_remove.html", view=source.group(project, name))

    @page.post("/groups/<project>/<name>/remove")
    @for_roles("operator")
    def remove_group(project: str, name: str) -> AnyResponse:
        actor, form = acting_operator(), request.form
        source.remove_group(project, name, digest=form.get("digest", "")[:_MAX_ID], reason=form.get("reason", ""), actor=actor)
        return redirect(url_for("page.groups"), 303)


def _asked(project: str, name: str, how: How) -> Asked:
    form = request.form
    return Asked(project[: _MAX_ID + 1], name[: _MAX_ID + 1], how, form.get("wanted", "").strip(), form.get("reason", "").strip())


def _look_or_do(source: Source, asked: Asked) -> AnyResponse | str | tuple[str, int]:
    actor = acting_operator()
    seen = (asked.project, asked.name, asked.how, asked.wanted)
    try:
        if request.form.get("do") == "change":
            digest = request.form.get("digest", "")[:_MAX_ID]
            source.change_group(*seen, digest=digest, reason=asked.reason, actor=actor)
            return redirect(url_for("page.group", project=asked.project, name=asked.name), 303)
        change = source.group_change(*seen)
    except EdgefleetError as err:
        return _screen(source, asked, refusal=str(err)), status_of(err)
    return _screen(source, asked, change)


def _screen(source: Source, asked: Asked, change: GroupChange | None = None, refusal: str = "") -> str:
    projects = source.projects()
    project = asked.project if asked.project in projects else projects[0] if projects else ""
    words = source.vocabulary(project) if project else None
    return render_template(
        "group_change.html", asked=asked, change=change, refusal=refusal, projects=projects, project=project, words=words
    )
