"""How near two sets of contributions are: angle, strongest inputs, variance; with one-sided 95 % bounds over rows. Pure."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgefleet.intervals import Z_ONE_SIDED

Floats = NDArray[np.float64]

_LEAST_ROWS: Final = 10
_TOP: Final = 3


def of_segments(found: Floats, wanted: Floats) -> dict[str, float]:
    """The figures of time segments [n, S, F], under names of their own.

    Returns:
        `segment_cosine`, `segment_top3` and their lower ends, `segment_r2`; and `segment_within` with its lower end: the cosine of how the
        segments of each channel differ from an even division of it, which is all that they say beyond the channels. Where windows are
        level, an even division alone has a cosine of 0.9 and more.
    """
    whole, apart = agreement(_flat(found), _flat(wanted)), agreement(_flat(_uneven(found)), _flat(_uneven(wanted)))
    figures = {f"segment_{name}": value for name, value in whole.items() if name != "rows"}
    return figures | {"segment_within": apart["cosine"], "segment_within_low": apart["cosine_low"]}


def _flat(segments: Floats) -> Floats:
    return segments.reshape(len(segments), segments.shape[1] * segments.shape[2])


def _uneven(segments: Floats) -> Floats:
    differing: Floats = segments - segments.mean(axis=1, keepdims=True)
    return differing


def agreement(found: Floats, wanted: Floats) -> dict[str, float]:
    """The figures of two sets of contributions [n, P]; see `fidelity.fidelity`."""
    n = len(found)
    if n < 2:
        return {"cosine": 0.0, "cosine_low": 0.0, "top3": 0.0, "top3_low": 0.0, "r2": 0.0, "rows": float(n)}
    sizes = np.linalg.norm(found, axis=1) * np.linalg.norm(wanted, axis=1)
    # Where both say that nothing moved the margin, they agree.
    nothing = (np.linalg.norm(wanted, axis=1) < 1e-9) & (np.linalg.norm(found, axis=1) < 1e-6)
    cosine = np.where(nothing, 1.0, (found * wanted).sum(axis=1) / np.maximum(sizes, 1e-30))
    strongest = min(_TOP, found.shape[1])
    mine, theirs = (np.argsort(-np.abs(values), axis=1, kind="stable")[:, :strongest] for values in (found, wanted))
    top = (mine[:, :, None] == theirs[:, None, :]).any(axis=2).mean(axis=1)
    spread = ((wanted - wanted.mean(axis=0)) ** 2).sum()
    return {
        "cosine": float(cosine.mean()),
        "cosine_low": _low(cosine),
        "top3": float(top.mean()),
        "top3_low": _low(top),
        "r2": float(1 - ((found - wanted) ** 2).sum() / max(spread, 1e-30)),
        "rows": float(n),
    }


def _low(values: Floats) -> float:
    if len(values) < _LEAST_ROWS:
        return 0.0
    return float(values.mean() - Z_ONE_SIDED * values.std(ddof=1) / np.sqrt(len(values)))
