"""Window records added up: comparisons by pair of bundles, shares and explanations by bundle. Pure: no database, no clock."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgefleet import latency
from edgefleet.messages import AttributionSums, WindowBody
from edgefleet.shadow_counts import ShadowCounts
from fleet_server.queries.latency import quantile_ms
from fleet_server.read_observed import AttributionView, InputAttribution, ShadowView, ShareView

SHARES: Final = 1_024


@dataclass(frozen=True)
class ReleaseNames:
    """What a bundle's digest is called here."""

    version: str
    inputs: list[str]
    classes: list[str]


@dataclass
class _Heard:
    """Whose windows, and when the newest of them arrived."""

    devices: set[str]
    at: datetime

    def also(self, device_id: str, at: datetime) -> bool:
        """Note one more window; whether it is the newest so far."""
        newest = at > self.at
        self.devices.add(device_id)
        self.at = max(self.at, at)
        return newest


@dataclass
class _Share:
    """One model of an A/B."""

    heard: _Heard
    share_1024: int
    answered: int = 0
    rejected: int = 0
    score_sum: float = 0.0
    classes: list[int] = field(default_factory=list)
    latencies: NDArray[np.int64] = field(default_factory=latency.empty)

    def add(self, body: WindowBody) -> None:
        self.answered += body.answered
        self.rejected += sum(body.rejected.values())
        self.score_sum += body.score_sum
        self.classes = _added(self.classes, body.classes)
        told = latency.from_wire(body.latency_eighths) if body.latency_eighths else latency.spread(body.latency_us)
        self.latencies = self.latencies if told is None else self.latencies + told


@dataclass
class _Explained:
    """Sums of explanations of one bundle."""

    heard: _Heard
    rows: int = 0
    skipped: int = 0
    total: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    absolute: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    def add(self, sums: AttributionSums) -> None:
        self.skipped += sums.skipped
        if sums.rows:
            self.rows += sums.rows
            empty = not self.total.size
            self.total = np.asarray(sums.total) if empty else self.total + sums.total
            self.absolute = np.asarray(sums.absolute) if empty else self.absolute + sums.absolute


class Added:
    """Adds windows up in any order.

    Attributes:
        windows: How many were added.
    """

    def __init__(self) -> None:
        self.windows = 0
        self._shadow: dict[tuple[str, str], tuple[ShadowCounts, _Heard]] = {}
        self._shares: dict[str, _Share] = {}
        self._explained: dict[str, _Explained] = {}

    def add(self, device_id: str, at: datetime, body: WindowBody) -> None:
        """One window of a device that arrived at `at`; ingest has checked its sums."""
        self.windows += 1
        if body.shadow is not None:
            self._add_shadow(device_id, at, body.shadow)
        if body.share_1024 is not None:
            share = self._shares.setdefault(body.bundle_digest, _Share(_Heard({device_id}, at), body.share_1024))
            if share.heard.also(device_id, at):
                share.share_1024 = body.share_1024
            share.add(body)
        if body.attribution is not None:
            explained = self._explained.setdefault(body.bundle_digest, _Explained(_Heard({device_id}, at)))
            explained.heard.also(device_id, at)
            explained.add(body.attribution)

    def digests(self) -> set[str]:
        """Bundles that the sums speak of."""
        return {*self._shares, *self._explained, *(digest for pair in self._shadow for digest in pair)}

    def shadow(self, names: Mapping[str, ReleaseNames]) -> list[ShadowView]:
        """Comparisons, the one with the newest window first."""
        found = [_shadow_view(counts, heard, names) for counts, heard in self._shadow.values()]
        return sorted(found, key=_newest_first)

    def shares(self, names: Mapping[str, ReleaseNames]) -> list[ShareView]:
        """Models that share rows; the one with the largest share first."""
        found = [_share_view(digest, share, names.get(digest)) for digest, share in self._shares.items()]
        return sorted(found, key=lambda view: (-view.share_percent, view.bundle_digest))

    def attribution(self, names: Mapping[str, ReleaseNames]) -> list[AttributionView]:
        """Explanations in sums, the bundle with the newest window first; a bundle without one explained row is left out."""
        found = [_attribution_view(digest, sums, names.get(digest)) for digest, sums in self._explained.items() if sums.rows]
        return sorted(found, key=_newest_first)

    def _add_shadow(self, device_id: str, at: datetime, counts: ShadowCounts) -> None:
        # No view shows the pairs of answers, and merging them costs more than all the rest.
        counts = msgspec.structs.replace(counts, confusion=[], confusion_rest=0)
        pair = (counts.running, counts.shadow)
        known = self._shadow.get(pair)
        if known is None:
            self._shadow[pair] = (counts, _Heard({device_id}, at))
        else:
            known[1].also(device_id, at)
            self._shadow[pair] = (known[0].merge(counts), known[1])


def _newest_first(view: ShadowView | AttributionView) -> float:
    return -view.heard_at.timestamp()


def _added(ours: list[int], theirs: list[int]) -> list[int]:
    longer, shorter = (ours, theirs) if len(ours) >= len(theirs) else (theirs, ours)
    return [count + (shorter[i] if i < len(shorter) else 0) for i, count in enumerate(longer)]


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _version(names: Mapping[str, ReleaseNames], digest: str) -> str:
    return names[digest].version if digest in names else ""


def _shadow_view(counts: ShadowCounts, heard: _Heard, names: Mapping[str, ReleaseNames]) -> ShadowView:
    p95_us = counts.latency_us(0.95)
    return ShadowView(
        running_release=_version(names, counts.running),
        running_digest=counts.running,
        shadow_release=_version(names, counts.shadow),
        shadow_digest=counts.shadow,
        offered=counts.offered,
        compared=counts.compared,
        agreed=counts.agreed,
        running_failed=counts.running_failed,
        shadow_failed=counts.shadow_failed,
        both_failed=counts.both_failed,
        shed=counts.shed,
        agreement=_known(counts.agreement),
        differences=counts.differences,
        difference_mean=_known(counts.difference_mean),
        difference_sd=_known(counts.difference_sd),
        devices=len(heard.devices),
        heard_at=heard.at,
        latency_p95_ms=None if p95_us is None else p95_us / 1000,
    )


def _share_view(digest: str, share: _Share, release: ReleaseNames | None) -> ShareView:
    names = release.classes if release is not None and len(release.classes) == len(share.classes) else None
    return ShareView(
        release=release.version if release is not None else "",
        bundle_digest=digest,
        share_percent=100 * share.share_1024 / SHARES,
        answered=share.answered,
        rejected=share.rejected,
        score_mean=_known(share.score_sum / share.answered) if share.answered else None,
        classes=list(zip(names or [f"class {i}" for i in range(len(share.classes))], share.classes, strict=True)),
        latency_p50_ms=quantile_ms(share.latencies, 0.5),
        devices=len(share.heard.devices),
        heard_at=share.heard.at,
    )


def _attribution_view(digest: str, sums: _Explained, release: ReleaseNames | None) -> AttributionView:
    count = len(sums.absolute)
    names = release.inputs if release is not None and len(release.inputs) == count else [f"input {i}" for i in range(count)]
    whole = float(sums.absolute.sum())
    inputs = [
        InputAttribution(name, float(absolute) / sums.rows, float(total) / sums.rows, float(absolute) / whole if whole > 0 else 0.0)
        for name, absolute, total in zip(names, sums.absolute, sums.total, strict=True)
    ]
    return AttributionView(
        release=release.version if release is not None else "",
        bundle_digest=digest,
        rows=sums.rows,
        skipped=sums.skipped,
        inputs=sorted(inputs, key=lambda one: -one.mean_absolute),
        devices=len(sums.heard.devices),
        heard_at=sums.heard.at,
    )
