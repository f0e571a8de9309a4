"""A package's calibrator, calibrator.json, as numbers that every writer of graphs reads, and numpy's reader of them.

The trainer fits it (Platt, temperature or rising curves) on the probabilities of the original; here it is only applied. In graphs:

- `Odds`: probabilities [1 - p, p] of p = logistic(slope * log-odds + intercept). The log-odds are the margin itself where the link is
  logistic, else log p1 - log p0; both are kept inside +-LIMIT, as the trainer keeps probabilities LEAST_SHARE away from 0 and 1.
- `Powers`: softmax(slope * log(max(p, LEAST_SHARE))).
- `Curves`: for each class start + sum over segments of rise * min(max((p - low) * inverse_width, 0), 1). No segment is divided by, and the
  error of a steep one is bounded by its rise. More than two classes: divided by their sum, or left as they were where all are 0.
"""

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgefleet.errors import ArtifactError

Floats = NDArray[np.float64]
LEAST_SHARE: Final = 1e-6
LIMIT: Final = math.log((1 - LEAST_SHARE) / LEAST_SHARE)


@dataclass(frozen=True)
class Odds:
    """Platt's scaling of two classes."""

    slope: float
    intercept: float


@dataclass(frozen=True)
class Powers:
    """Temperature scaling of several classes."""

    slope: float


@dataclass(frozen=True)
class Curve:
    """One rising curve, arrays by segment.

    Attributes:
        start: Answer below the first point.
        low: Where each segment starts.
        inverse_width: One over its width, finite in float32.
        rise: What it adds from its start to its end.
    """

    start: float
    low: Floats
    inverse_width: Floats
    rise: Floats


@dataclass(frozen=True)
class Curves:
    """One curve: of the second of two classes; several: one a class."""

    curves: tuple[Curve, ...]


Calibrator = Odds | Powers | Curves


def parse_calibrator(document: dict[str, Any], classes: int) -> Calibrator:
    """The calibrator of a document for so many classes.

    Raises:
        ArtifactError: Of an unknown kind, damaged, or made for another number of classes.
    """
    try:
        kind = document["kind"]
        if kind == "sigmoid" and classes == 2:
            return Odds(_finite(document["slope"]), _finite(document["intercept"]))
        if kind == "temperature":
            return Powers(_finite(document["slope"]))
        if kind == "isotonic":
            curves = tuple(_curve(curve["x"], curve["y"]) for curve in document["curves"])
            if len(curves) == (1 if classes == 2 else classes):
                return Curves(curves)
    except (KeyError, TypeError, ValueError) as err:
        raise ArtifactError(f"calibrator.json is damaged: {err!r}; train again") from err
    raise ArtifactError(f"calibrator.json: a calibrator {str(kind)[:40]!r} like this one is unknown for {classes} classes; train again")


def calibrate(document: dict[str, Any], probabilities: Floats) -> Floats:
    """[n, classes] calibrated probabilities, rows sum to 1.

    >>> curve = {"x": [0.0, 0.5, 1.0], "y": [0.0, 0.2, 1.0]}
    >>> calibrate({"kind": "isotonic", "curves": [curve]}, np.array([[0.25, 0.75]])).round(3).tolist()
    [[0.4, 0.6]]

    Raises:
        ArtifactError: See `parse_calibrator`.
    """
    calibrator = parse_calibrator(document, probabilities.shape[1])
    if isinstance(calibrator, Powers):
        logs = np.log(np.clip(probabilities, LEAST_SHARE, 1)) * calibrator.slope
        powers = np.exp(logs - logs.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))
    if isinstance(calibrator, Odds):
        kept = np.clip(probabilities[:, 1], LEAST_SHARE, 1 - LEAST_SHARE)
        line = calibrator.slope * np.log(kept / (1 - kept)) + calibrator.intercept
        return _pair(0.5 * (1 + np.tanh(0.5 * line)))
    if len(calibrator.curves) == 1:
        return _pair(_along(calibrator.curves[0], probabilities[:, 1]))
    found = np.stack([_along(curve, probabilities[:, k]) for k, curve in enumerate(calibrator.curves)], axis=1)
    total = found.sum(axis=1, keepdims=True)
    return np.where(total > 0, found / np.where(total > 0, total, 1), probabilities)


def _pair(second: Floats) -> Floats:
    return np.stack([1 - second, second], axis=1)


def _along(curve: Curve, shares: Floats) -> Floats:
    return np.asarray(curve.start + np.clip((shares[:, None] - curve.low) * curve.inverse_width, 0, 1) @ curve.rise)


def _finite(value: Any) -> float:
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no finite number")
    return float(value)


def _curve(places: Any, answers: Any) -> Curve:
    x, y = np.asarray(places, np.float64), np.asarray(answers, np.float64)
    if x.ndim != 1 or x.shape != y.shape or len(x) == 0 or not np.isfinite(np.stack([x, y])).all() or (np.diff(x) <= 0).any():
        raise ValueError("a curve needs as many answers as rising places")
    rise = np.diff(y)
    used = rise != 0
    # A width below float32's grid is a step; its inverse must still be a float32.
    return Curve(float(y[0]), x[:-1][used], 1 / np.maximum(np.diff(x)[used], 1e-30), rise[used])
