"""Rows that leave the device: none, unless the operator's signed desired state and the device's own configuration both allow it.

Of the two the lower rate, the lower limit of bytes and all redactions count, and the device may name the only inputs that leave at all;
each change of either holds for the next row. A row travels by
input name, without the redacted inputs; a text only where the model's input is a category, so that a free text that somebody fed in by
mistake does not leave. Rows that were refused are never sampled.
"""

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from edgefleet.desired import PayloadOrder
from edgefleet.errors import ConfigError
from edgefleet.manifest import Input
from edgefleet.messages import PayloadBody, encode

MAX_TEXT_CHARS: Final = 200
_DAY_S: Final = 86_400.0


@dataclass(frozen=True)
class PayloadSettings:
    """What this device's own configuration allows.

    Attributes:
        rows_per_hour: Rows at most, above 0.
        redact: Names of inputs that never leave.
        bytes_per_day: Bytes of sampled rows at most.
        only: Names of the only inputs that may leave; empty for all that are not redacted.
    """

    rows_per_hour: float
    redact: tuple[str, ...] = ()
    bytes_per_day: int = 1_000_000
    only: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.rows_per_hour <= 3600:
            raise ConfigError(f"payload rows per hour: {self.rows_per_hour} is out of range, expected above 0 and at most 3600")
        if not 0 < self.bytes_per_day <= 1 << 30:
            raise ConfigError(f"payload bytes per day: {self.bytes_per_day} is out of range, expected 1 to {1 << 30}")


class PayloadSampling:
    """Takes a row now and then; safe for threads.

    Args:
        settings: The device's own word, None forbids.
        order: Gives the operator's word as it is now, None forbids.

    Attributes:
        sampled: Rows taken since the start.
        too_large: Rows that did not fit the limit of bytes.
    """

    def __init__(self, settings: PayloadSettings | None, order: Callable[[], PayloadOrder | None]) -> None:
        self._settings, self._order = settings, order
        self._lock = threading.Lock()
        self._next_s, self._day_s, self._left = -math.inf, -math.inf, 0
        self.sampled = self.too_large = 0

    def take(self, bundle_digest: str, inputs: Sequence[Input], row: Any, answer: tuple[str, float], now_s: float) -> bytes | None:
        """The encoded body of a `payload` record, or None: nothing leaves.

        Args:
            bundle_digest: Of the model that answered.
            inputs: Of the manifest, in its order.
            row: As it came in; of a window of rows the newest is taken.
            answer: Label, "" for none, and score.
            now_s: Monotonic seconds.
        """
        settings = self._settings
        if settings is None or (order := self._order()) is None or not order.rows_per_hour > 0:
            return None
        with self._lock:
            if now_s < self._next_s:
                return None
            self._next_s = now_s + 3600.0 / min(settings.rows_per_hour, order.rows_per_hour)
            limit = min(settings.bytes_per_day, order.bytes_per_day)
            if now_s - self._day_s >= _DAY_S:
                self._day_s, self._left = now_s, limit
            others = {column.name for column in inputs if settings.only and column.name not in settings.only}
            shown = _shown(inputs, row, {*settings.redact, *order.redact, *others})
            score = answer[1] if math.isfinite(answer[1]) else None
            content = encode(PayloadBody(bundle_digest=bundle_digest, row=shown, label=answer[0], score=score))
            if len(content) > min(self._left, limit):
                self.too_large += 1
                return None
            self._left -= len(content)
            self.sampled += 1
            return content


def _shown(inputs: Sequence[Input], row: Any, hidden: set[str]) -> dict[str, float | str | None]:
    newest = row
    if not isinstance(row, Mapping) and len(row) and isinstance(row[-1], Mapping | list | tuple | np.ndarray):
        newest = row[-1]
    if not isinstance(newest, Mapping):
        newest = dict(zip((column.name for column in inputs), newest, strict=False))
    return {column.name: _value(column, newest.get(column.name)) for column in inputs if column.name not in hidden}


def _value(column: Input, value: object) -> float | str | None:
    if isinstance(value, str):
        return value[:MAX_TEXT_CHARS] if column.kind == "category" and value in column.categories else None
    if isinstance(value, bool | int | float | np.number):
        return float(value)
    return None
