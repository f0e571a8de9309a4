"""The devices of one round side by side: the median of a device's peers, and how much a contrast with it scatters by chance.

The median, not the mean: with two faulty devices of eight the mean would drag the six healthy ones beyond the floor. All scores are
sorted once per round; leaving one device out only moves the middle by its own rank, so that the cost grows with the number of devices
and not with its square.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgefleet.reference import Reference
from edgefleet.statistics import InputStatistics
from fleet_server.drift.scores import cell_scores, design_effect, score_variance, window_scores

# A value that is seen in one row of two hundred cannot tell its usual rate: its scale is not believed below this.
LEAST_SCALE: Final = 0.3


@dataclass(frozen=True)
class Round:
    """Scores of one round.

    Attributes:
        scale: [F] reference standard deviation of a row's score, as far as it is believed; 0 for constant features.
        row_variance: [F] variance that one row adds, with the design effect.
        scores: Device -> [F] mean score, of the devices with enough rows.
        inverse_n: Device -> [F] 1 / present values.
        rank: Peer -> [F] its place among the sorted scores of all peers.
        in_order: [peers, F] sorted scores of all peers, NaN last.
        count: [F] peers with a value.
        inverse_sum: [F] sum of their 1 / n.
    """

    scale: NDArray[np.float64]
    row_variance: NDArray[np.float64]
    scores: dict[str, NDArray[np.float64]]
    inverse_n: dict[str, NDArray[np.float64]]
    rank: dict[str, NDArray[np.int64]]
    in_order: NDArray[np.float64]
    count: NDArray[np.int64]
    inverse_sum: NDArray[np.float64]

    def peers_of(self, device_id: str) -> int:
        """Number of peers that this device is compared with."""
        return len(self.rank) - (device_id in self.rank)

    def contrast(self, device_id: str, minimum_peers: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Own score minus the median of the peers [F], NaN where too few of them have values, and its theoretical variance [F]."""
        own, inverse_n = self.scores[device_id], self.inverse_n[device_id]
        is_peer = np.isfinite(own) & (device_id in self.rank)
        count = self.count - is_peer
        median = (self._place((count - 1) // 2, device_id, is_peer) + self._place(count // 2, device_id, is_peer)) / 2
        enough = count >= minimum_peers
        several = np.maximum(count, 1)
        # Variance of a median of m equal normal means: pi/2 times that of their mean.
        of_median = math.pi / 2 * (self.inverse_sum - np.where(is_peer, inverse_n, 0.0)) / np.square(several)
        return np.where(enough, own - median, np.nan), self.row_variance * (inverse_n + of_median)

    def _place(self, place: NDArray[np.int64], device_id: str, is_peer: NDArray[np.bool_]) -> NDArray[np.float64]:
        """[F] the score at a place of the order without this device."""
        place = np.maximum(place, 0)
        if device_id in self.rank:
            place = place + (is_peer & (place >= self.rank[device_id]))
        place = np.minimum(place, len(self.in_order) - 1)
        return np.asarray(np.take_along_axis(self.in_order, place[None], axis=0)[0], np.float64)


def gather(pending: Mapping[str, InputStatistics], reference: Reference, minimum_rows: int, alarmed: Collection[str]) -> Round:
    """Score all devices of a round.

    Args:
        pending: Merged statistics per device.
        reference: Whose cells they count.
        minimum_rows: Devices with fewer rows take no part.
        alarmed: Devices that are compared, but are nobody's peers.

    Raises:
        InputError: Statistics of another reference.
    """
    table = cell_scores(reference)
    scale = np.sqrt(score_variance(reference.counts, table))
    believed = np.where(scale > 0, np.maximum(scale, LEAST_SCALE), 0.0)
    scores: dict[str, NDArray[np.float64]] = {}
    inverse_n: dict[str, NDArray[np.float64]] = {}
    within: list[NDArray[np.float64]] = []
    for device_id, statistics in pending.items():
        own, present = window_scores(statistics, reference, table)
        if statistics.rows >= minimum_rows:
            scores[device_id], inverse_n[device_id] = own, 1.0 / np.maximum(present, 1)
            within.append(score_variance(statistics.counts, table) * statistics.rows / max(statistics.rows - 1, 1))
    # Traffic may scatter more than the training rows did; the fleet's own rows of this round say how much.
    variance = np.maximum(np.square(believed), np.mean(within, axis=0)) if within else np.square(believed)
    peers = [device_id for device_id in scores if device_id not in alarmed]
    stacked = np.stack([scores[d] for d in peers]) if peers else np.full((1, reference.features), np.nan)
    order = np.argsort(stacked, axis=0, kind="stable")
    ranks = np.argsort(order, axis=0, kind="stable")
    finite = np.isfinite(stacked)
    inverse = np.stack([inverse_n[d] for d in peers]) if peers else np.zeros_like(stacked)
    return Round(
        scale=believed,
        row_variance=variance * design_effect(reference, table),
        scores=scores,
        inverse_n=inverse_n,
        rank={device_id: ranks[i] for i, device_id in enumerate(peers)},
        in_order=np.take_along_axis(stacked, order, axis=0),
        count=finite.sum(axis=0),
        inverse_sum=np.where(finite, inverse, 0.0).sum(axis=0),
    )
