"""What every answer of the page carries and what every form must bring.

There is no inline script and no inline style, so the policy needs no nonce; a test greps for both.
"""

from collections.abc import Callable
from typing import Any, Final, TypeVar, cast
from urllib.parse import urlsplit

from flask import Request, Response, g

from fleet_server.auth import MAY, Actor
from fleet_server.errors import ForbiddenError

HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; worker-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
MAX_FORM_BYTES: Final = 16_384
MAX_GROUP_FORM_BYTES: Final = 65_536  # a thousand names, as a browser writes the space between them
LARGE_FORMS: Final = frozenset({"page.make_group", "page.change_group"})
View = TypeVar("View", bound=Callable[..., Any])


def protect(response: Response) -> Response:
    """Add the headers; what shows the state of the fleet is never stored."""
    for name, value in HEADERS.items():
        response.headers[name] = value
    response.headers.setdefault("Cache-Control", "no-store")
    return response


def check_form(asked: Request) -> None:
    """Refuse a form that another site sent, with or without a session (signing in is an action too).

    Raises:
        ForbiddenError: Origin or Sec-Fetch-Site says that it comes from elsewhere, or neither was sent.
    """
    origin, site = asked.headers.get("Origin"), asked.headers.get("Sec-Fetch-Site")
    same = urlsplit(origin).netloc == asked.host if origin is not None else site == "same-origin"
    if not same or site not in {None, "same-origin"}:
        raise ForbiddenError(f"This form came from {origin or site or 'an unknown place'}, not from this page. Nothing was done.")


def form_limit(endpoint: str | None) -> int:
    """Bytes of a form that this view takes."""
    return MAX_GROUP_FORM_BYTES if endpoint in LARGE_FORMS else MAX_FORM_BYTES


def local_path(target: str) -> str:
    """`target` if it is a path of this site, else `/`: nobody is sent elsewhere after signing in."""
    plain = target.startswith("/") and not target.startswith(("//", "/\\")) and target.isprintable() and len(target) <= 500
    return target if plain else "/"


def acting_operator(verb: str = "act") -> Actor:
    """Who acts in this request.

    Raises:
        ForbiddenError: Nobody who may; `verb` says what.
    """
    actor = cast(Actor | None, g.page_actor)
    if actor is None or "operator" not in MAY[actor.role]:
        raise ForbiddenError(f"You may look, not {verb}. Nothing was done. Sign in with an operator's token.")
    return actor


def for_roles(*roles: str) -> Callable[[View], View]:
    """Write on a view who may see it, where the authorisation test reads it; the page's own guard enforces it."""

    def mark(view: View) -> View:
        view.edgefleet_roles = roles  # type: ignore[attr-defined]
        return view

    return mark
