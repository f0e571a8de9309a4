"""Identifiers that travel in topics, paths and tables."""

import re

from edgefleet.errors import InputError

_ID = re.compile(r"[a-z0-9-]{1,64}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


def check_id(value: str, what: str = "id") -> str:
    """Return `value` if it is an identifier that is safe in a topic and a path.

    Args:
        value: Candidate, 1 to 64 characters of a-z, 0-9 and '-'.
        what: What the identifier names, for the message.

    Raises:
        InputError: It is anything else ('/', '+' and '#' would be topic syntax).
    """
    if not _ID.fullmatch(value):
        raise InputError(f"{what} {value[:80]!r} is not an identifier: use 1 to 64 characters of a-z, 0-9 and '-'")
    return value


def check_digest(value: str, what: str = "digest") -> str:
    """Return `value` if it is a sha256 in lower-case hex, else raise InputError."""
    if not _DIGEST.fullmatch(value):
        raise InputError(f"{what} {value[:80]!r} is not a sha256: 64 characters of 0-9 and a-f")
    return value
