"""Two windows of one model as one: everything in a window is additive, so that pieces of time can be put together in any order."""

from collections import Counter
from collections.abc import Sequence
from typing import TypeVar

from device_agent.telemetry.windows import Window
from edgefleet import latency
from edgefleet.errors import InputError
from edgefleet.messages import AttributionSums, WindowBody
from edgefleet.shadow_counts import ShadowCounts
from edgefleet.statistics import InputStatistics

_Number = TypeVar("_Number", int, float)


def merge_windows(one: Window, other: Window) -> Window:
    """The rows of both.

    Raises:
        InputError: They speak of different models, of another model beside, of different shares, or count in different bins.
        ArtifactError: The statistics of one are damaged.
    """
    a, b = one.body, other.body
    if (one.model_digest, a.bundle_digest) != (other.model_digest, b.bundle_digest):
        raise InputError(f"a window of model {other.model_digest[:12]} cannot merge into one of model {one.model_digest[:12]}")
    if a.share_1024 != b.share_1024:
        raise InputError(f"a window of a share of {b.share_1024}/1024 cannot merge into one of {a.share_1024}/1024")
    statistics = InputStatistics.from_bytes(a.statistics).merge(InputStatistics.from_bytes(b.statistics))
    body = WindowBody(
        bundle_digest=a.bundle_digest,
        statistics=statistics.to_bytes(),
        answered=a.answered + b.answered,
        classes=_added(a.classes, b.classes),
        scores=_added(a.scores, b.scores),
        latency_us=_added(a.latency_us, b.latency_us),
        rejected=dict(Counter(a.rejected) + Counter(b.rejected)),
        score_sum=a.score_sum + b.score_sum,
        outliers=None if a.outliers is None and b.outliers is None else (a.outliers or 0) + (b.outliers or 0),
        latency_eighths=_latencies(a.latency_eighths, b.latency_eighths),
        attribution=merge_attribution(a.attribution, b.attribution),
        shadow=_compared(a.shadow, b.shadow),
        share_1024=a.share_1024,
    )
    start_at, end_at = min(one.start_at, other.start_at), max(one.end_at, other.end_at)
    return Window(start_at=start_at, end_at=end_at, model_digest=one.model_digest, body=body)


def merge_attribution(one: AttributionSums | None, other: AttributionSums | None) -> AttributionSums | None:
    """The sums of both; None is the identity."""
    if one is None or other is None:
        return one if other is None else other
    return AttributionSums(
        rows=one.rows + other.rows,
        total=_added(one.total, other.total),
        absolute=_added(one.absolute, other.absolute),
        skipped=one.skipped + other.skipped,
    )


def _compared(one: ShadowCounts | None, other: ShadowCounts | None) -> ShadowCounts | None:
    if one is None or other is None:
        return one if other is None else other
    try:
        return one.merge(other)
    except ValueError as err:
        raise InputError(str(err)) from err


def _latencies(one: list[int], other: list[int]) -> list[int]:
    a, b = latency.from_wire(one), latency.from_wire(other)
    if a is None or b is None:
        raise InputError("a latency histogram is damaged")
    return latency.to_wire(a + b)


def _added(one: Sequence[_Number], other: Sequence[_Number]) -> list[_Number]:
    longer, shorter = (one, other) if len(one) >= len(other) else (other, one)
    return [value + shorter[i] if i < len(shorter) else value for i, value in enumerate(longer)]
