"""Quantiles of latency histograms: element i counts latencies in [2^i, 2^(i+1)) microseconds."""

from collections.abc import Iterable, Sequence


def merged(histograms: Iterable[Sequence[int]]) -> list[int]:
    """The sum of histograms of any lengths."""
    total: list[int] = []
    for counts in histograms:
        total += [0] * (len(counts) - len(total))
        for i, count in enumerate(counts):
            total[i] += count
    return total


def quantile_ms(counts: Sequence[int], fraction: float) -> float | None:
    """The quantile in milliseconds, interpolated within its bucket; None without a count. The error is below the bucket's width.

    >>> quantile_ms([0, 0, 4], 0.5)
    0.006
    """
    total = sum(counts)
    if total == 0:
        return None
    wanted, below = fraction * total, 0
    for i, count in enumerate(counts):
        if count and below + count >= wanted:
            low_us = 0 if i == 0 else 1 << i
            return round((low_us + ((2 << i) - low_us) * (wanted - below) / count) / 1000, 4)
        below += count
    return None
