"""Whether probabilities mean what they say, and calibrators that mend them.

Two classes: of the positive class. More: the test takes all classes at once, the curve and the refit take the answered class.
"""

import math
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from edgefleet.errors import ArtifactError, InputError, VerdictError
from edgefleet.intervals import wilson
from trainer.answers import Answers
from trainer.intervals import design_effect
from trainer.metrics import Floats

BINS: Final = 10
# Probabilities are kept this far from 0 and 1: a forest says 0 and 1 often, and one such error would otherwise weigh infinitely.
LEAST_SHARE: Final = 1e-6
_STEPS: Final = 100
_ONE_VALUE: Final = 1e-12  # log-odds that differ by less are one value


def calibration(label: NDArray[Any], answers: Answers, groups: NDArray[Any] | None = None) -> dict[str, Any]:
    """Plain values for reports and gate G6.

    Returns:
        bins: [{low, high, n, confidence, share, share_low, share_high}], ten of equal width, empty ones left out, Wilson intervals.
        ece: Expected calibration error over them; a number to look at, too noisy to judge by.
        z: Spiegelhalter's; None where no probability could be tested.
        slope, intercept: Of the logit refit, 1 and 0 when calibrated; None where it does not exist (perfect separation, one class).
        of: "positive class" or "answered class": what bins and refit are about.

    Reference:
        Spiegelhalter (1986) for z; Cox (1958) for the refit.
    """
    assert answers.probabilities is not None  # noqa: S101  # callers have a classifier
    found, confidence = one_event(label, answers)
    refit = logit_refit(found, confidence)
    bins = reliability(found, confidence, groups)
    gap = sum(one["n"] * abs(one["confidence"] - one["share"]) for one in bins) / len(label)
    return {
        "bins": bins,
        "ece": gap,
        "z": spiegelhalter_z(label, answers.probabilities, groups),
        "slope": None if refit is None else refit[0],
        "intercept": None if refit is None else refit[1],
        "of": "positive class" if answers.probabilities.shape[1] == 2 else "answered class",
    }


def one_event(label: NDArray[Any], answers: Answers) -> tuple[NDArray[np.bool_], Floats]:
    """([n] whether it came true, [n] its probability): the positive class for two classes, else that the likeliest class is right."""
    assert answers.probabilities is not None  # noqa: S101  # callers have a classifier
    if answers.probabilities.shape[1] == 2:
        return label == answers.positive, answers.probabilities[:, answers.positive]
    return answers.probabilities.argmax(axis=1) == label, answers.probabilities.max(axis=1)


def reliability(found: NDArray[np.bool_], confidence: Floats, groups: NDArray[Any] | None = None) -> list[dict[str, float]]:
    """Bins of equal width over the probability: how sure it was, how often it was right."""
    which = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    bins = []
    for place in np.unique(which).tolist():
        here = which == place
        n = int(here.sum())
        share = float(found[here].mean())
        worth = n / design_effect(found[here].astype(np.float64), None if groups is None else groups[here])
        low, high = wilson(share * worth, worth)
        mean = float(confidence[here].mean())
        bins.append(
            {
                "low": place / BINS,
                "high": (place + 1) / BINS,
                "n": n,
                "confidence": mean,
                "share": share,
                "share_low": low,
                "share_high": high,
            }
        )
    return bins


def spiegelhalter_z(label: NDArray[Any], probabilities: Floats, groups: NDArray[Any] | None = None) -> float | None:
    """Standard normal when the probabilities are calibrated; None when none of them could be wrong (all .5).

    With two classes sum((y - p)(1 - 2p)) / sqrt(sum((1 - 2p)^2 p (1 - p))); the same for more: Brier score minus its expectation over its
    standard deviation. Alike rows of a group are allowed for by the design effect.

    >>> round(spiegelhalter_z(np.array([1, 0, 0]), np.array([[0.2, 0.8], [0.7, 0.3], [0.4, 0.6]])), 4)  # -.12 - .12 + .12 over sqrt(.1008)
    -0.378
    """
    shares = np.clip(probabilities, LEAST_SHARE, 1 - LEAST_SHARE)
    shares = shares / shares.sum(axis=1, keepdims=True)
    squares = np.square(shares).sum(axis=1)
    surprise = squares - shares[np.arange(len(label)), label]
    variance = float(((shares**3).sum(axis=1) - np.square(squares)).sum())
    if variance <= 1e-12 * len(label):
        return None
    return float(surprise.sum()) / math.sqrt(variance * design_effect(surprise, groups))


def logit_refit(found: NDArray[np.bool_], confidence: Floats) -> tuple[float, float] | None:
    """(slope, intercept) of the logistic regression of what came true on the log-odds; None where it has no finite answer."""
    return _newton(found.astype(np.float64), log_odds(confidence))


def log_odds(shares: Floats) -> Floats:
    """log(p / (1 - p)), of probabilities kept `LEAST_SHARE` away from 0 and 1."""
    kept = np.clip(shares, LEAST_SHARE, 1 - LEAST_SHARE)
    odds: Floats = np.log(kept / (1 - kept))
    return odds


def fit_calibrator(kind: Literal["sigmoid", "isotonic"], label: NDArray[Any], probabilities: Floats) -> dict[str, Any]:
    """A calibrator as plain numbers, fitted on validation rows.

    Two classes: `sigmoid` is Platt's scaling of the log-odds, with his smoothed targets; `isotonic` the best rising step curve, joined by
    lines. More classes: `sigmoid` is temperature scaling, one number, which changes no answered class; `isotonic` one curve a class, then
    normalised, which may.

    Args:
        kind: Which.
        label: [n] class index.
        probabilities: [n, classes].

    Returns:
        {"kind": "sigmoid", "slope", "intercept"} | {"kind": "temperature", "slope"} | {"kind": "isotonic", "curves": [{"x", "y"}, ...]}.

    Raises:
        InputError: Only one class among the rows.
        VerdictError: The probabilities rank backwards: there is nothing to calibrate.

    Reference:
        Platt (1999); Guo et al. (2017), section 4.2; Zadrozny and Elkan (2002).
    """
    if len(np.unique(label)) < 2:
        raise InputError("gates.calibrate: validation rows hold one class only; give rows of each class, or set it to 'none'")
    classes = probabilities.shape[1]
    if kind == "isotonic":
        return {"kind": kind, "curves": [_rising(label == k, probabilities[:, k]) for k in ([1] if classes == 2 else range(classes))]}
    if classes > 2:
        return {"kind": "temperature", "slope": _temperature(label, probabilities)}
    positives, negatives = int((label == 1).sum()), int((label == 0).sum())
    # Platt's targets keep the fit finite where the classes are separated.
    targets = np.where(label == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    odds = log_odds(probabilities[:, 1])
    if float(np.ptp(odds)) < _ONE_VALUE:
        # One answer to every row, as the majority baseline gives: only its level can be mended.
        return {"kind": kind, "slope": 1.0, "intercept": float(log_odds(targets.mean()) - odds.mean())}
    fitted = _newton(targets, odds)
    if fitted is None or fitted[0] <= 0:
        raise VerdictError("gates.calibrate = 'sigmoid': a higher probability means a rarer class on validation rows; set it to 'none'")
    return {"kind": kind, "slope": fitted[0], "intercept": fitted[1]}


def calibrate(calibrator: dict[str, Any], probabilities: Floats) -> Floats:
    """[n, classes] calibrated probabilities, rows sum to 1; of two classes the order of rows never turns round.

    Raises:
        ArtifactError: Not a calibrator that `fit_calibrator` makes.
    """
    try:
        kind = calibrator["kind"]
        if kind == "temperature":
            return _softmax(np.log(np.clip(probabilities, LEAST_SHARE, 1.0)) * calibrator["slope"])
        if kind == "sigmoid":
            shares = _logistic(calibrator["slope"] * log_odds(probabilities[:, 1]) + calibrator["intercept"])
            return np.stack([1 - shares, shares], axis=1)
        if kind != "isotonic":
            raise ArtifactError(f"calibrator {kind!r} is unknown; this version has sigmoid, temperature and isotonic")
        curves = calibrator["curves"]
        places = [1] if len(curves) == 1 else range(len(curves))
        found = np.stack([np.interp(probabilities[:, k], curve["x"], curve["y"]) for k, curve in zip(places, curves, strict=True)], axis=1)
    except (KeyError, TypeError, IndexError) as err:
        raise ArtifactError(f"the calibrator is damaged: {err!r}") from err
    if found.shape[1] == 1:
        return np.hstack([1 - found, found])
    total = found.sum(axis=1, keepdims=True)
    # All curves may say 0 at once: then the row keeps the probabilities it came with.
    return np.where(total > 0, found / np.where(total > 0, total, 1), probabilities)


def _newton(targets: Floats, odds: Floats) -> tuple[float, float] | None:
    """Maximum likelihood of logistic(slope * odds + intercept); None when it does not settle."""
    if float(np.ptp(odds)) < _ONE_VALUE:
        return None
    design = np.stack([odds, np.ones_like(odds)], axis=1)
    at = np.array([1.0, 0.0])

    def loss(where: Floats) -> float:
        line = design @ where
        return float((np.logaddexp(0, line) - targets * line).sum())

    for _ in range(_STEPS):
        shares = _logistic(design @ at)
        gradient = design.T @ (targets - shares)
        curvature = (design * (shares * (1 - shares))[:, None]).T @ design
        if np.linalg.cond(curvature) > 1e12:
            return None
        step = np.linalg.solve(curvature, gradient)
        while loss(at + step) > loss(at) + 1e-10 * (1 + abs(loss(at))) and np.abs(step).max() > 1e-12:
            step = step / 2
        at = at + step
        if np.abs(step).max() < 1e-9:
            return (float(at[0]), float(at[1])) if abs(at[0]) < 1e3 else None
    return None


def _temperature(label: NDArray[Any], probabilities: Floats) -> float:
    """The factor of log-probabilities with the least log loss, in [.01, 100], by golden section: the loss is convex in it."""
    logs = np.log(np.clip(probabilities, LEAST_SHARE, 1.0))

    def loss(exponent: float) -> float:
        shares = _softmax(logs * math.exp(exponent))
        return float(-np.log(np.clip(shares[np.arange(len(label)), label], 1e-300, 1)).mean())

    low, high, golden = math.log(0.01), math.log(100.0), (math.sqrt(5) - 1) / 2
    left, right = high - golden * (high - low), low + golden * (high - low)
    at_left, at_right = loss(left), loss(right)
    while high - low > 1e-8:
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            at_left = loss(left := high - golden * (high - low))
        else:
            low, left, at_left = left, right, at_right
            at_right = loss(right := low + golden * (high - low))
    return math.exp((low + high) / 2)


def _rising(found: NDArray[np.bool_], shares: Floats) -> dict[str, list[float]]:
    """Pool adjacent violators; the ends of each pool are kept, between pools a line."""
    distinct, index, counts = np.unique(shares, return_inverse=True, return_counts=True)
    rates = np.bincount(index.reshape(-1), weights=found) / counts
    pools: list[list[float]] = []  # [rate, rows, first place, last place]
    for place, (rate, rows) in enumerate(zip(rates.tolist(), counts.tolist(), strict=True)):
        pools.append([rate, rows, place, place])
        while len(pools) > 1 and pools[-2][0] >= pools[-1][0]:
            rate_b, rows_b, _, last = pools.pop()
            rate_a, rows_a, first, _ = pools.pop()
            pools.append([(rate_a * rows_a + rate_b * rows_b) / (rows_a + rows_b), rows_a + rows_b, first, last])
    points = [(float(distinct[int(end)]), pool[0]) for pool in pools for end in sorted({pool[2], pool[3]})]
    return {"x": [x for x, _ in points], "y": [y for _, y in points]}


def _logistic(line: Floats) -> Floats:
    shares: Floats = 0.5 * (1 + np.tanh(0.5 * line))  # does not overflow
    return shares


def _softmax(logs: Floats) -> Floats:
    powers = np.exp(logs - logs.max(axis=1, keepdims=True))
    shares: Floats = powers / powers.sum(axis=1, keepdims=True)
    return shares
