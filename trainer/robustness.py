"""What the metric loses when rows are disturbed as a device's rows are: missing values, noise, a dead sensor, the last bit of float32.

`float32` moves every value by one float32 step up or down: rows are float32 already, and an answer must not hang on the last bit.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgefleet.checks import Checks
from edgefleet.manifest import Input
from trainer.answers import Answers
from trainer.bootstrap import Interval, paired_interval
from trainer.criteria import Criteria, at_most, finite
from trainer.dataset import DataSet
from trainer.metrics import not_finite

RawPredict = Callable[[NDArray[np.float32]], Answers]
KINDS: Final = ("missing_5", "missing_20", "noise", "dead_sensor", "float32")
_ROWS: Final = 10_000
_NOISE: Final = 0.1  # in standard deviations of the input
_SCREENED: Final = 128  # inputs looked at for the dead sensor
_SCREEN_ROWS: Final = 256
_SCREEN_BYTES: Final = 64 * 1024 * 1024
_DEAD: Final = 8  # those of them whose death moves the answers most, judged on all rows


class Robustness(msgspec.Struct, frozen=True, kw_only=True):
    """One disturbance.

    Attributes:
        kind: Of KINDS; `what` says it in words.
        what: Which, in words.
        value: The metric's drop: positive is worse, for losses too.
        lower: One-sided 95 % lower bound, paired with the undisturbed rows.
        upper: Upper bound.
        limit: Largest drop allowed, None: only shown.
        verdict: pass, fail, inconclusive, or `shown` without a limit.
        reason: Why it could not be judged.
    """

    kind: str
    what: str
    value: float | None
    lower: float | None
    upper: float | None
    limit: float | None
    verdict: str
    reason: str = ""


def measure_robustness(project: Criteria, rows: DataSet, answers: Answers, predict: RawPredict) -> list[dict[str, Any]]:
    """Every disturbance that fits the inputs, as plain values.

    Args:
        project: Goal, limits and inputs.
        rows: Validation rows; at most 10,000 of them are disturbed.
        answers: To the undisturbed rows.
        predict: Raw rows to answers, with cleaning, calibration and threshold.

    Returns:
        [{kind, what, value, drop, lower, upper, limit, verdict, reason}]; `value` and `drop` are one number. Of dead sensors the worst.
    """
    if not_finite(answers):
        return []
    if len(rows) > _ROWS:
        index = np.sort(np.random.default_rng(project.search.seed).choice(len(rows), _ROWS, replace=False))
        rows, answers = rows.take(index), answers.take(index)
    found: dict[str, Robustness] = {}
    for kind, what, x in _disturbed(rows.x, project.inputs, answers, predict, project.search.seed):
        one = _judged(project, rows, answers, predict(x), kind, what)
        if kind not in found or _badness(one) > _badness(found[kind]):
            found[kind] = one
    return [{**msgspec.to_builtins(one), "drop": one.value} for one in found.values()]


def _judged(project: Criteria, rows: DataSet, clean: Answers, disturbed: Answers, kind: str, what: str) -> Robustness:
    limit, n = project.gates.robustness_drop.get(kind), len(rows)
    if broken := not_finite(disturbed):
        reason = f"{broken} of {n} answers are not finite numbers"
        verdict = "shown" if limit is None else "fail"
        return Robustness(kind=kind, what=what, value=None, lower=None, upper=None, limit=limit, verdict=verdict, reason=reason)
    drop: Interval = paired_interval(
        project.goal.metric, rows.label, clean, disturbed, rows.group, project.goal, project.search.seed, rows.classes
    )  # fmt: skip
    verdict = "shown" if limit is None else "inconclusive" if drop.reason else at_most(drop.lower, drop.upper, limit)
    return Robustness(
        kind=kind,
        what=what,
        value=finite(drop.value),
        lower=finite(drop.lower),
        upper=finite(drop.upper),
        limit=limit,
        verdict=verdict,
        reason=drop.reason,
    )


def _badness(one: Robustness) -> tuple[bool, float]:
    return one.value is None, one.value or 0.0


def _disturbed(
    x: NDArray[np.float32], inputs: Sequence[Input], answers: Answers, predict: RawPredict, seed: int
) -> Iterator[tuple[str, str, NDArray[np.float32]]]:
    """(kind, words, disturbed rows); each kind has its own generator, so that leaving one out changes no other."""
    for kind, share in (("missing_5", 0.05), ("missing_20", 0.2)):
        may = np.array([column.missing for column in inputs], np.bool_)
        if may.any():
            gone = (np.random.default_rng([seed, int(share * 100)]).random(x.shape) < share) & may
            yield kind, f"{share:.0%} of the values that may be missing are", np.where(gone, np.float32(np.nan), x)
    rng = np.random.default_rng([seed, 1])
    numbers = np.array([column.kind == "number" for column in inputs], np.bool_)
    if numbers.any():
        axes = tuple(range(x.ndim - 1))
        with np.errstate(invalid="ignore"):
            deviation = np.where(np.isnan(x).all(axis=axes), 0.0, _deviation(x, axes))
        noisy = x + np.where(numbers, _NOISE * deviation, 0.0) * rng.standard_normal(x.shape)
        yield "noise", f"noise of {_NOISE} standard deviations on every number", _within(noisy.astype(np.float32), inputs)
        direction = np.where(rng.random(x.shape) < 0.5, -np.inf, np.inf).astype(np.float32)
        moved = np.where(numbers, np.nextafter(x, direction), x).astype(np.float32)
        yield "float32", "every number moved by one float32 step", _within(moved, inputs)
    for place in _suspects(x, inputs, answers, predict):
        value = _stuck(x, inputs, place)
        yield "dead_sensor", f"{inputs[place].name} stuck at {value:.4g}", _dead(x, place, value)


def _deviation(x: NDArray[np.float32], axes: tuple[int, ...]) -> NDArray[np.float64]:
    known = ~np.isnan(x)
    n = np.maximum(known.sum(axis=axes), 1)
    mean = np.where(known, x, 0).sum(axis=axes, dtype=np.float64) / n
    deviation: NDArray[np.float64] = np.sqrt((np.where(known, x - mean, 0) ** 2).sum(axis=axes) / n)
    return deviation


def _within(x: NDArray[np.float32], inputs: Sequence[Input]) -> NDArray[np.float32]:
    """Inside the ranges whose rows a device would refuse or clip: what is measured must be able to happen."""
    rules = Checks(list(inputs))
    return np.clip(x, rules.admit_low, rules.admit_high)


def _stuck(x: NDArray[np.float32], inputs: Sequence[Input], place: int) -> float:
    """What a dead sensor says: its mean, of a category the most frequent one."""
    values = x[..., place]
    known = values[~np.isnan(values)]
    if len(known) == 0:
        return 0.0
    if inputs[place].kind == "category":
        found, counts = np.unique(known, return_counts=True)
        return float(found[counts.argmax()])
    return float(known.mean(dtype=np.float64))


def _dead(x: NDArray[np.float32], place: int, value: float) -> NDArray[np.float32]:
    dead = x.copy()
    dead[..., place] = value
    return dead


def _suspects(x: NDArray[np.float32], inputs: Sequence[Input], answers: Answers, predict: RawPredict) -> list[int]:
    """Inputs whose death moves the answers to some rows most."""
    places: list[int] = np.unique(np.linspace(0, len(inputs) - 1, min(len(inputs), _SCREENED)).round().astype(int)).tolist()
    if len(places) <= _DEAD:
        return places
    index = np.unique(np.linspace(0, len(x) - 1, min(len(x), _SCREEN_ROWS)).round().astype(int))
    before, some = _plain(answers.take(index)), x[index]
    moves: list[float] = []
    # Many at once: each call of an imported graph starts a process.
    together = max(1, _SCREEN_BYTES // max(1, some.nbytes))
    for begin in range(0, len(places), together):
        part = places[begin : begin + together]
        after = _plain(predict(np.concatenate([_dead(some, place, _stuck(x, inputs, place)) for place in part])))
        # An answer that is no number counts as the largest move.
        moves += [float(np.nan_to_num(np.abs(one - before), nan=np.inf).mean()) for one in np.split(after, len(part))]
    return [places[i] for i in sorted(range(len(places)), key=lambda i: -moves[i])[:_DEAD]]


def _plain(answers: Answers) -> NDArray[np.float64]:
    return answers.probabilities if answers.probabilities is not None else answers.score[:, None]
