"""Refusals of the server, each with the HTTP status that says who must act."""

from typing import Final

from edgefleet.errors import ArtifactError, ConfigError, EdgefleetError, InputError, StorageError, TransportError
from fleet_server.queries.errors import NotFoundError
from fleet_server.rollout.transitions import TransitionError


class UnauthorizedError(EdgefleetError):
    """Nobody, or a token that is unknown, expired or revoked."""

    exit_code = 3


class ForbiddenError(EdgefleetError):
    """Somebody who may not do this."""

    exit_code = 3


class ConflictError(EdgefleetError):
    """The thing has changed since the asker looked, or somebody else owns it."""

    exit_code = 3


class TooLargeError(InputError):
    """The body is larger than accepted."""


class LengthRequiredError(InputError):
    """An upload must say its length, so that a cut-off one is seen."""


class UnsupportedMediaError(InputError):
    """The body is not of the type that this address takes."""


# The most derived class first: the first one that fits gives the status.
STATUS: Final[tuple[tuple[type[EdgefleetError], int], ...]] = (
    (UnauthorizedError, 401),
    (ForbiddenError, 403),
    (NotFoundError, 404),
    (ConflictError, 409),
    (TransitionError, 409),
    (LengthRequiredError, 411),
    (TooLargeError, 413),
    (UnsupportedMediaError, 415),
    (InputError, 422),
    (ArtifactError, 422),
    (ConfigError, 422),
    (TransportError, 503),
    (StorageError, 507),
)


def status_of(error: EdgefleetError) -> int:
    """HTTP status of a deliberate error."""
    return next((status for kind, status in STATUS if isinstance(error, kind)), 500)
