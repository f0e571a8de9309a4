"""What the engine decided on, as one document: the rollout as it was found, the facts, the time. The same document decides the same again.

The document keeps the order in which facts were read, because sentences name gates and strata in it; its digest does not depend on that
order, and stands in the log beside the action. Numbers are written so that they read back to the last bit. A NaN is
written as null: what was decided on it was a pause, and it is not decided again.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
import numpy as np

from edgefleet.digests import sha256_hex
from edgefleet.errors import StorageError
from fleet_server.rollout.engine import decide
from fleet_server.rollout.model import Action, Facts, Rollout


@dataclass(frozen=True)
class Decided:
    """The three arguments of `decide`."""

    rollout: Rollout
    facts: Facts
    now: datetime


def document(rollout: Rollout, facts: Facts, now: datetime) -> bytes:
    """The arguments of a decision as bytes."""
    return msgspec.json.encode(Decided(rollout, facts, now), enc_hook=_plain)


def digest_of(content: bytes) -> str:
    """Sha256 of a document with its keys in order, in hex: equal inputs have equal digests."""
    return sha256_hex(msgspec.json.encode(msgspec.json.decode(content), order="sorted"))


def again(content: bytes) -> Action | None:
    """What the engine of today decides on a document.

    Raises:
        StorageError: It cannot be read.
    """
    try:
        decided = msgspec.json.decode(content, type=Decided, dec_hook=_array)
    except (msgspec.DecodeError, ValueError) as err:
        raise StorageError(f"a document of {len(content)} bytes holds no decision: {str(err)[:200]}") from err
    return decide(decided.rollout, decided.facts, decided.now)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise NotImplementedError(f"{type(value).__name__} is no part of a decision")


def _array(kind: Any, value: Any) -> Any:
    if kind is np.ndarray or getattr(kind, "__origin__", None) is np.ndarray:
        return np.asarray(value)
    raise NotImplementedError(f"{kind} is no part of a decision")
