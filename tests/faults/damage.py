"""Damage to files by number: the same number does the same damage everywhere."""

from collections.abc import Callable

import numpy as np

SEED = 20261129
_EXTREMES = [
    value.to_bytes(size, "little", signed=True) for size in (4, 8) for value in (-(2 ** (8 * size - 1)), -1, 2 ** (8 * size - 1) - 1)
]


def damaged(content: bytes, number: int) -> bytes:
    """The content with damage of the kind and at the place that the number draws."""
    rng = np.random.default_rng([SEED, number])
    return _KINDS[number % len(_KINDS)](content, rng)


def _truncated(content: bytes, rng: np.random.Generator) -> bytes:
    return content[: int(rng.integers(0, len(content)))]


def _flipped(bits: int) -> Callable[[bytes, np.random.Generator], bytes]:
    def flip(content: bytes, rng: np.random.Generator) -> bytes:
        made = bytearray(content)
        for bit in rng.integers(0, 8 * len(content), bits):
            made[bit // 8] ^= 1 << (bit % 8)
        return bytes(made)

    return flip


def _overwritten(content: bytes, rng: np.random.Generator) -> bytes:
    return _put(content, rng.bytes(64), rng)


def _zeroed(content: bytes, rng: np.random.Generator) -> bytes:
    return _put(content, bytes(int(rng.integers(1, 257))), rng)


def _inserted(content: bytes, rng: np.random.Generator) -> bytes:
    at = int(rng.integers(0, len(content) + 1))
    return content[:at] + rng.bytes(int(rng.integers(1, 65))) + content[at:]


def _extreme(content: bytes, rng: np.random.Generator) -> bytes:
    return _put(content, _EXTREMES[int(rng.integers(len(_EXTREMES)))], rng)


def _put(content: bytes, piece: bytes, rng: np.random.Generator) -> bytes:
    at = int(rng.integers(0, max(1, len(content) - len(piece))))
    return content[:at] + piece[: len(content) - at] + content[at + len(piece) :]


_KINDS = (_truncated, _flipped(1), _flipped(16), _overwritten, _zeroed, _inserted, _extreme)
KINDS = len(_KINDS)
