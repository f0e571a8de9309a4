"""Latency histograms as they are stored with the totals, and their quantiles."""

from collections.abc import Iterable

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgefleet import latency


class _Eighths(msgspec.Struct):
    eighths: list[int]


def stored(text: str) -> NDArray[np.int64]:
    """Counts of a stored histogram; the form of earlier versions, one bucket per octave, is spread over the eighths.

    >>> int(stored('{"eighths": [16, 4]}').sum()), int(stored("[0, 20]").sum()), int(stored("").sum())
    (4, 20, 0)
    """
    if not text:
        return latency.empty()
    content = msgspec.json.decode(text, type=_Eighths | list[int])
    if isinstance(content, _Eighths):
        counts = latency.from_wire(content.eighths)
        return latency.empty() if counts is None else counts
    return latency.spread(content)


def merged(histograms: Iterable[NDArray[np.int64]]) -> NDArray[np.int64]:
    """The sum of histograms."""
    return sum(histograms, latency.empty())


def quantile_ms(counts: NDArray[np.int64], fraction: float) -> float | None:
    """The quantile in milliseconds, within 6.25 % of a measured latency; None without one.

    >>> quantile_ms(stored('{"eighths": [32, 100]}'), 0.95)
    0.0085
    """
    found = latency.quantile_us(counts, fraction)
    return None if found is None else round(found / 1000, 4)
