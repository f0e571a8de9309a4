"""What people change about one device on its page: its labels, a quarantine, whether it is of the fleet. Each asks for a reason first."""

from typing import Final, cast, get_args

from flask import Blueprint, abort, g, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from edgefleet.errors import InputError
from fleet_server.page.security import acting_operator, for_roles
from fleet_server.page.source import ChangeWord, DeviceChange, Source

_MAX_LINES: Final = 100
_MAX_BUNDLE: Final = 64


def add_device_views(page: Blueprint, source: Source) -> None:
    """Add the views to the page's blueprint."""

    @page.get("/devices/<device_id>/<any(labels, unquarantine, remove):word>")
    @for_roles("viewer")
    def ask_change(device_id: str, word: str) -> str:
        view = source.device(device_id, g.page_now)
        bundle = request.args.get("bundle", "")[:_MAX_BUNDLE]
        if view.device.removed_at is not None or (word == "unquarantine" and bundle not in view.device.quarantined):
            abort(404)
        return render_template("device_change.html", device=view.device, word=word, bundle=bundle, lines=_lines(view.device.labels))

    @page.post("/devices/<device_id>/<any(labels, unquarantine, remove):word>")
    @for_roles("operator")
    def change(device_id: str, word: str) -> AnyResponse:
        actor = acting_operator()
        form = request.form
        wanted = DeviceChange(
            word=cast(ChangeWord, word) if word in get_args(ChangeWord) else abort(404),
            reason=form.get("reason", "").strip(),
            labels=_labels(form.get("labels", "")),
            were=_labels(form.get("were", "")),
            bundle=form.get("bundle", "")[:_MAX_BUNDLE],
        )
        source.change_device(device_id, wanted, actor=actor)
        return redirect(url_for("page.device", device_id=device_id), 303)


def _lines(labels: dict[str, str]) -> str:
    return "\n".join(f"{key}={value}" for key, value in sorted(labels.items()))


def _labels(text: str) -> dict[str, str]:
    """Labels of a form: one a line, as key=value.

    Raises:
        InputError: A line that is not of this form, or a label that stands there twice.
    """
    found: dict[str, str] = {}
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) > _MAX_LINES:
        raise InputError(f"{len(lines)} lines exceed the limit of {_MAX_LINES}. Nothing was done.")
    for line in lines:
        key, equals, value = (part.strip() for part in line.partition("="))
        if not (key and equals and value) or key in found:
            why = "stands there twice" if key in found else "is not understood; write one label a line, as key=value"
            raise InputError(f"label {line[:80]!r} {why}. Nothing was done.")
        found[key] = value
    return found
