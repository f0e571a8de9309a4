"""Target leak suspects: single inputs that tell the answer almost alone. A hint for a person, not a verdict; gate G3 judges."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trainer.dataset import DataSet

THRESHOLD: Final = 0.98
MOST_ROWS: Final = 50_000
LEAST_ROWS: Final = 30  # of a class and of all others: fewer are told apart by chance


@dataclass(frozen=True)
class Suspect:
    """An input that tells the answer almost alone.

    Attributes:
        column: Its name.
        measure: `AUC` (of one class against the others, the largest, whatever the direction) or `|rank correlation|`.
        value: In [0.98, 1].
    """

    column: str
    measure: str
    value: float


def leak_suspects(rows: DataSet, names: list[str]) -> list[Suspect]:
    """Inputs whose AUC or rank correlation with the answer exceeds .98 on the training rows, strongest first.

    Classes of fewer than 30 rows are not judged. Windows are judged by their last row. Above 50,000 rows an evenly spaced
    sample is taken. Missing values count as the least.
    """
    train = np.flatnonzero(rows.split == "train")
    some = train[np.linspace(0, len(train) - 1, min(len(train), MOST_ROWS)).astype(np.int64)]
    x, label = rows.x[some], rows.label[some]
    last = x[:, -1] if x.ndim == 3 else x
    measure = "AUC" if rows.classes else "|rank correlation|"
    found = []
    for at, name in enumerate(names):
        ranks = _ranks(np.nan_to_num(last[:, at], nan=-np.inf))
        value = _largest_auc(ranks, label) if rows.classes else _correlation(ranks, _ranks(label))
        if value > THRESHOLD:
            found.append(Suspect(name, measure, round(value, 4)))
    return sorted(found, key=lambda suspect: -suspect.value)


def _ranks(values: NDArray[Any]) -> NDArray[np.float64]:
    """Ranks from 1, ties share their mean."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    mean_rank: NDArray[np.float64] = last - (count - 1) / 2
    return mean_rank[place]


def _largest_auc(ranks: NDArray[np.float64], label: NDArray[np.int64]) -> float:
    """Of one class against the others, turned so that it is at least one half (Mann and Whitney 1947)."""
    count = np.bincount(label).astype(np.float64)
    total = np.bincount(label, weights=ranks)
    others = len(label) - count
    judged = (count >= LEAST_ROWS) & (others >= LEAST_ROWS)
    auc = (total[judged] - count[judged] * (count[judged] + 1) / 2) / (count[judged] * others[judged])
    return float(np.maximum(auc, 1 - auc).max(initial=0.0))


def _correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    a, b = a - a.mean(), b - b.mean()
    spread = float(np.sqrt((a @ a) * (b @ b)))
    return abs(float(a @ b)) / spread if spread else 0.0
