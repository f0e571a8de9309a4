"""People: who may look, steer and approve. Each one has a token of her own, because approvals are counted by its name.

Only the admin token of the first start comes by itself (`auth.ensure_admin_token`). Whoever adds people can also act in their names, so
each token that is issued or revoked stands in the log with who did it.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

import sqlalchemy as sa

from edgefleet.errors import InputError
from edgefleet.identifiers import check_id
from fleet_server import audit
from fleet_server.auth import TOKEN_DAYS, Actor, issue_token
from fleet_server.errors import ConflictError
from fleet_server.queries import NotFoundError
from fleet_server.reasons import reason_of
from fleet_server.services import Services
from fleet_server.store import Database, tokens
from fleet_server.store.moments import from_micros
from fleet_server.store.tokens import PersonRow

PersonRole = Literal["viewer", "operator", "admin"]
MAX_DAYS: Final = 3_660.0
MAX_PEOPLE: Final = 1_000
# Who acts without a token; a person of that name could not be told from it in the log.
NOBODY: Final = frozenset({"anonymous", "drift", "engine", "mlflow", "relay", "scheduler", "server"})


@dataclass(frozen=True)
class Person:
    """Somebody with a valid token.

    Attributes:
        name: By which people are told apart: in the log, and where approvals are counted.
        role: viewer | operator | admin.
    """

    name: str
    role: str
    since_at: datetime
    expires_at: datetime


@dataclass(frozen=True)
class Added:
    """A person who was added, with her token, which is seen this once."""

    name: str
    role: str
    expires_at: datetime
    token: str


def people_of(db: Database, now_us: int) -> list[Person]:
    """Everybody who has a valid token, by name; devices are not among them."""
    with db.read() as connection:
        rows = tokens.of_people(connection, now_us)
    return [Person(row.name, row.role, from_micros(row.created_at), from_micros(row.expires_at)) for row in rows]


def add_person(services: Services, name: str, *, role: PersonRole, reason: str, actor: Actor, days: float = TOKEN_DAYS) -> Added:
    """Issue a token for a person who has none.

    Args:
        services: The server's parts.
        name: Identifier.
        role: What she may do: look, also steer and approve, also add people.
        reason: The admin's words.
        actor: The admin.
        days: Until the token expires, above 0 to MAX_DAYS.

    Raises:
        InputError: No identifier, a name that the server itself acts under, days outside their limits, or no reason.
        ConflictError: She has a token, or there are MAX_PEOPLE people.
    """
    words = reason_of(reason)
    check_id(name, "person")
    if name in NOBODY:
        raise InputError(f"{name!r} is what the log calls a part of the server; choose another name. Nothing was changed.")
    if not 0 < days <= MAX_DAYS:
        raise InputError(f"days = {days:g} is outside 0 to {MAX_DAYS:g}; nothing was changed")
    at = services.now_us()
    with services.db.write() as connection:
        tokens.lock_people(connection)
        there = tokens.of_people(connection, at)
        if (hers := _of(there, name)) is not None:
            until = f"{from_micros(hers.expires_at):%Y-%m-%d}"
            raise ConflictError(f"{name} is {hers.role} until {until}; remove {name} first for another token. Nothing was changed.")
        if len(there) >= MAX_PEOPLE:
            raise ConflictError(f"there are {len(there)} people, the limit is {MAX_PEOPLE}; remove those who have left")
        secret = issue_token(connection, at, name, role, days=days)
        expires_at = from_micros(at + int(days * tokens.DAY_US))
        _note(connection, at, actor, "add-person", name, f"{role} until {expires_at:%Y-%m-%d}: {words}")
    return Added(name, role, expires_at, secret)


def remove_person(services: Services, name: str, *, reason: str, actor: Actor) -> None:
    """End a person's token and sessions at once; what she approved stays approved.

    Raises:
        InputError: No reason.
        NotFoundError: Nobody of that name has a valid token.
        ConflictError: Nobody else is admin.
    """
    words = reason_of(reason)
    at = services.now_us()
    with services.db.write() as connection:
        tokens.lock_people(connection)
        there = tokens.of_people(connection, at)
        if _of(there, name) is None:
            raise NotFoundError("person", name)
        if not any(row.role == "admin" for row in there if row.name != name):
            raise ConflictError(f"nobody but {name} is admin, and nobody could add people then; add another admin first")
        tokens.revoke_person(connection, name, at)
        _note(connection, at, actor, "remove-person", name, words)


def _of(there: list[PersonRow], name: str) -> PersonRow | None:
    return next((row for row in there if row.name == name), None)


def _note(connection: sa.Connection, at: int, actor: Actor, action: str, name: str, detail: str) -> None:
    audit.record(connection, at, actor=actor.name, action=action, subject=("person", name), detail=detail)
