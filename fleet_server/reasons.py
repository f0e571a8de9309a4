"""The words with which a person says why; they stand in the log."""

from typing import Final

from edgefleet.errors import InputError

MAX_REASON: Final = 500


def reason_of(text: str, remedy: str = f"expected 1 to {MAX_REASON}: it is kept in the log. Nothing was changed.") -> str:
    """A person's words without the space around them.

    Args:
        text: As they came.
        remedy: What is said of words that are missing or too many.

    Raises:
        InputError: They are.
    """
    words = text.strip()
    if not 0 < len(words) <= MAX_REASON:
        raise InputError(f"the reason has {len(words)} characters, {remedy}")
    return words
