"""What a window says about explanations and about a second model: checked before it is stored, because every page adds it up."""

import math
from typing import Final

import numpy as np

from edgefleet import latency
from edgefleet.errors import InputError
from edgefleet.messages import AttributionSums, WindowBody
from edgefleet.shadow_counts import MAX_PAIRS, ShadowCounts
from fleet_server.ingest.fleet_facts import ReleaseFacts

MAX_ROWS: Final = 100_000_000
SHARES: Final = 1_024
_DIGEST_CHARS: Final = 64


def check(device_id: str, body: WindowBody, release: ReleaseFacts) -> None:
    """Refuse sums that no device can have counted.

    Raises:
        InputError: They do not fit the release, are not finite, or contradict each other.
    """
    if body.attribution is not None:
        _check_attribution(device_id, body.attribution, release)
    if body.shadow is not None:
        _check_shadow(device_id, body.shadow)
    if body.share_1024 is not None and not 0 <= body.share_1024 <= SHARES:
        raise InputError(f"window of {device_id}: a share of {body.share_1024}/{SHARES} is out of range, expected 0 to {SHARES}")


def _check_attribution(device_id: str, sums: AttributionSums, release: ReleaseFacts) -> None:
    if not (0 <= sums.rows <= MAX_ROWS and 0 <= sums.skipped <= MAX_ROWS):
        raise InputError(f"window of {device_id}: {sums.rows} rows explained, {sums.skipped} skipped: outside 0 to {MAX_ROWS}")
    lengths = {len(sums.total), len(sums.absolute)}
    if lengths != {release.features if sums.rows else 0} or not np.isfinite([*sums.total, *sums.absolute]).all():
        raise InputError(
            f"window of {device_id}: attribution sums {sorted(lengths)} do not fit {release.features} inputs, or are not finite"
        )
    if min(sums.absolute, default=0.0) < 0:
        raise InputError(f"window of {device_id}: a sum of absolute contributions is {min(sums.absolute)}, which is below 0")


def _check_shadow(device_id: str, counts: ShadowCounts) -> None:
    if not (len(counts.running) == len(counts.shadow) == _DIGEST_CHARS):
        raise InputError(f"window of {device_id}: a comparison must name both bundles by their digests")
    missed = (counts.running_failed, counts.shadow_failed, counts.both_failed, counts.shed)
    pairs = [rows for _, _, rows in counts.confusion]
    rows = [counts.offered, counts.compared, counts.agreed, counts.differences, counts.confusion_rest, *missed, *pairs]
    if min(rows) < 0 or max(rows) > MAX_ROWS or len(pairs) > MAX_PAIRS:
        raise InputError(f"window of {device_id}: a count of its comparison is outside 0 to {MAX_ROWS}, or it has over {MAX_PAIRS} pairs")
    if counts.offered != counts.compared + sum(missed) or not counts.compared >= max(counts.agreed, counts.differences):
        raise InputError(
            f"window of {device_id}: its comparison does not add up: {counts.offered} rows offered, {counts.compared} compared, "
            f"{counts.agreed} agreed, {sum(missed)} missed"
        )
    latencies = latency.from_wire(counts.latency_eighths)
    if latencies is None or int(latencies.sum()) > MAX_ROWS:
        raise InputError(f"window of {device_id}: {len(counts.latency_eighths)} numbers are no latency histogram of a comparison")
    if not (math.isfinite(counts.difference_sum) and 0 <= counts.difference_square_sum < math.inf):
        raise InputError(f"window of {device_id}: a sum of differences is not finite, or one of squares below 0")
