"""Literals that are no JSON but that real clients write: NaN (a missing value) and Infinity (which the scorer refuses by name)."""

import re
from typing import Final

_TEXT_OR_LITERAL: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|NaN|-?Infinity', re.DOTALL)


def with_json_literals(body: bytes) -> bytes | None:
    """The body with null for NaN and 1e999 for Infinity, outside texts; None when there are none."""
    if b"NaN" not in body and b"Infinity" not in body:
        return None
    return _TEXT_OR_LITERAL.sub(_literal, body)


def _literal(match: "re.Match[bytes]") -> bytes:
    found = match[0]
    if found == b"NaN":
        return b"null"
    return found.replace(b"Infinity", b"1e999") if found[:1] != b'"' else found
