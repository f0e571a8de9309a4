"""Who gets the other model: a pure function of a salt and a key, so that the same key is always answered by the same model.

A key's place is one of 1024, uniform over keys; a share of k/1024 takes the places 0 to k - 1. So a larger share keeps everybody of a
smaller one, another salt deals anew, and nothing has to be remembered.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from edgefleet.errors import ConfigError

STEPS: Final = 1024
MAX_SALT_BYTES: Final = 64


def place(salt: str, key: bytes) -> int:
    """The key's place, 0 to 1023.

    >>> place("autumn", b"machine-7"), place("autumn", b"machine-7"), place("winter", b"machine-7")
    (862, 862, 949)
    """
    import hashlib  # with it comes OpenSSL, 4 MB: only where two models share the rows

    digest = hashlib.blake2b(key, digest_size=8, key=salt.encode()).digest()
    return int.from_bytes(digest, "big") % STEPS  # exact: a power of two divides the digest's range


def takes(salt: str, key: bytes, share_1024: int) -> bool:
    """Whether a key is among the share."""
    return place(salt, key) < share_1024


def check_share(share_1024: int, salt: str) -> None:
    """Raise ConfigError for a share outside 0 to 1024, or a salt that is empty or too long."""
    if not 0 <= share_1024 <= STEPS:
        raise ConfigError(f"a share of {share_1024}/{STEPS} is out of range, expected 0 to {STEPS}")
    size_bytes = len(salt.encode())
    if not 1 <= size_bytes <= MAX_SALT_BYTES:
        raise ConfigError(f"a salt of {size_bytes} bytes is out of range, expected 1 to {MAX_SALT_BYTES}; name the experiment")


def key_bytes(key: str | int) -> bytes:
    """A key that the caller gave: 7 and "7" are the same."""
    return str(key).encode(errors="surrogatepass")


def row_key(row: Any, names: Sequence[str]) -> bytes:
    """A key from the row itself, for callers that give none: the same values are the same key, in whatever form they come.

    Args:
        row: As `Scorer.score` takes it; a mapping is read in the order of `names`.
        names: The model's inputs.
    """
    values = [row.get(name) for name in names] if isinstance(row, Mapping) else row
    try:
        with np.errstate(all="ignore"):
            numbers = np.asarray(values, np.float32) + np.float32(0)  # -0 becomes 0
    except (TypeError, ValueError, OverflowError):
        return _texts(values).encode(errors="surrogatepass")
    # There are many NaNs, and None is one of them too.
    return np.where(np.isnan(numbers), np.float32(np.nan), numbers).tobytes()


def _texts(values: Any) -> str:
    try:
        return "\x1f".join(str(np.float32(v)) if isinstance(v, int | float | np.number) else str(v) for v in values)
    except (TypeError, ValueError, OverflowError):
        return type(values).__name__  # no row at all: whoever answers refuses it
