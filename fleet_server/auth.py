"""Who asks, and whether they may. Tokens for programs and devices, sessions for browsers, nothing for strangers.

A token is `eft_` and 256 random bits; only its sha256 is kept. A browser signs in once with a token and then carries a cookie whose
row can be deleted at any time. The decorator that enforces a role also writes it on the view, so that a test can compare every route
with a reviewed table.
"""

import functools
import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar, cast
from urllib.parse import urlsplit

import sqlalchemy as sa
from flask import Request, Response, current_app, g, request

from edgefleet.errors import InputError
from edgefleet.files import write_durably
from fleet_server.errors import ForbiddenError, UnauthorizedError
from fleet_server.services import Services
from fleet_server.store import tokens

Role = Literal["viewer", "operator", "admin", "device"]
# What each role may do; a device reads blobs and nothing else.
MAY: Final[dict[str, frozenset[str]]] = {
    "viewer": frozenset({"viewer"}),
    "operator": frozenset({"viewer", "operator"}),
    "admin": frozenset({"viewer", "operator", "admin"}),
    "device": frozenset({"device"}),
}
TOKEN_PREFIX: Final = "eft_"  # noqa: S105  # a prefix that scanners can find, no secret
TOKEN_DAYS: Final = 365.0
SESSION_COOKIE: Final = "edgefleet_session"
SESSION_DAYS: Final = 7.0
ADMIN_TOKEN_FILE: Final = "admin.token"  # noqa: S105  # a file name
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})

View = TypeVar("View", bound=Callable[..., Any])


@dataclass(frozen=True)
class Actor:
    """Somebody who asks: a person or program by token or session, a device, or an anonymous viewer on loopback."""

    name: str
    role: Role
    device_id: str | None = None
    via: Literal["token", "session", "anonymous"] = "token"


def digest(secret: str) -> str:
    """What is kept of a token or a session id."""
    return hashlib.sha256(secret.encode()).hexdigest()


def issue_token(connection: sa.Connection, at: int, name: str, role: Role, device_id: str | None = None, days: float = TOKEN_DAYS) -> str:
    """Make a token and keep its digest; the return value is the only time it is seen."""
    if role not in MAY:
        raise InputError(f"role {role!r} is unknown: one of {', '.join(MAY)}")
    secret = TOKEN_PREFIX + secrets.token_urlsafe(32)
    tokens.insert(connection, tokens.TokenRow(secrets.token_hex(8), name, role, device_id), digest(secret), at, days)
    return secret


def ensure_admin_token(services: Services) -> None:
    """On the first start write an admin token to DATA/admin.token, readable by the owner only.

    The file is written before the row is committed: a crash in between leaves a token that opens nothing, and the next start makes another.
    """
    at = services.now_us()
    with services.db.write() as connection:
        tokens.lock_people(connection)
        if not tokens.any_of_role(connection, "admin", at):
            secret = issue_token(connection, at, "admin", "admin")
            write_durably(services.config.data_dir / ADMIN_TOKEN_FILE, secret.encode() + b"\n", mode=0o600)


def sign_in(services: Services, token: str) -> str:
    """Open a browser session for a token and return its id (the cookie's value).

    Raises:
        UnauthorizedError: The token is unknown, expired or revoked, or it is a device's.
    """
    at = services.now_us()
    with services.db.write() as connection:
        row = tokens.find(connection, digest(token.strip()), at)
        if row is None or row.role == "device":
            raise UnauthorizedError("this token is unknown, expired or revoked; ask an admin for another one")
        session_id = secrets.token_urlsafe(32)
        tokens.open_session(connection, digest(session_id), row.token_id, at, SESSION_DAYS)
    return session_id


def sign_out(services: Services, session_id: str) -> None:
    """End a session at once."""
    with services.db.write() as connection:
        tokens.close_session(connection, digest(session_id))


def set_session_cookie(response: Response, session_id: str) -> None:
    """Hand the session to the browser: scripts cannot read it, other sites cannot send it with a form."""
    secure = request.is_secure or services_of_request().config.behind_tls_proxy
    response.set_cookie(SESSION_COOKIE, session_id, max_age=int(SESSION_DAYS * 86_400), httponly=True, samesite="Lax", secure=secure)


def current_actor(asked: Request) -> Actor | None:
    """Who makes this request; None is nobody. Looked up once per request.

    Raises:
        UnauthorizedError: A token was sent and is not valid: never silently treated as nobody.
    """
    if not hasattr(g, "edgefleet_actor"):
        g.edgefleet_actor = _identify(services_of_request(), asked)
    return cast(Actor | None, g.edgefleet_actor)


def actor_now(services: Services, asked: Request) -> Actor | None:
    """Who made a request that goes on, looked up anew; None also when the token or the session has ended since."""
    try:
        return _identify(services, asked)
    except UnauthorizedError:
        return None


def check_origin(asked: Request) -> None:
    """Refuse an unsafe request that another site makes with our cookie.

    Raises:
        ForbiddenError: Origin (or Sec-Fetch-Site) says that the request comes from elsewhere, or nothing says where it comes from.
    """
    if asked.method in SAFE_METHODS or SESSION_COOKIE not in asked.cookies or "Authorization" in asked.headers:
        return
    site = asked.headers.get("Sec-Fetch-Site")
    origin = asked.headers.get("Origin")
    same = urlsplit(origin).netloc == asked.host if origin is not None else site == "same-origin"
    if not same or site == "cross-site":
        raise ForbiddenError(
            f"a request from {origin or site or 'an unknown site'} may not act with the session of {asked.host}; use this site's own page"
        )


def requires(*roles: Role) -> Callable[[View], View]:
    """Let a view answer only those who have one of the roles; without roles it is open to everybody."""

    def decorate(view: View) -> View:
        @functools.wraps(view)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            if roles:
                actor = current_actor(request)
                if actor is None:
                    raise UnauthorizedError("this needs a token: send Authorization: Bearer <token>, or sign in on the page")
                if not MAY[actor.role] & set(roles):
                    raise ForbiddenError(f"{actor.name} is {actor.role}; this needs {' or '.join(roles)}")
            return view(*args, **kwargs)

        guarded.edgefleet_roles = roles  # type: ignore[attr-defined]  # the authorisation test reads it
        return cast(View, guarded)

    return decorate


def services_of_request() -> Services:
    """The services of the application that handles this request."""
    return cast(Services, current_app.extensions["edgefleet"])


def require_actor() -> Actor:
    """Who makes this request, for views behind `requires`."""
    actor = current_actor(request)
    if actor is None:
        raise UnauthorizedError("this needs a token: send Authorization: Bearer <token>, or sign in on the page")
    return actor


def _identify(services: Services, asked: Request) -> Actor | None:
    header = asked.headers.get("Authorization")
    if header is not None:
        return _by_token(services, header)
    session_id = asked.cookies.get(SESSION_COOKIE)
    if session_id:
        with services.db.read() as connection:
            row = tokens.find_session(connection, digest(session_id), services.now_us())
        if row is not None:
            return Actor(row.name, cast(Role, row.role), row.device_id, "session")
    if services.config.anonymous_role is not None:
        return Actor("anonymous", services.config.anonymous_role, None, "anonymous")
    return None


def _by_token(services: Services, header: str) -> Actor:
    scheme, _, secret = header.partition(" ")
    row = None
    if scheme.lower() == "bearer" and len(secret) <= 200:
        with services.db.read() as connection:
            row = tokens.find(connection, digest(secret.strip()), services.now_us())
    if row is None:
        raise UnauthorizedError("this token is unknown, expired or revoked; ask an admin for another one")
    return Actor(row.name, cast(Role, row.role), row.device_id, "token")
