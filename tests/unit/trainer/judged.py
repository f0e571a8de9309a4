"""Projects and rows made by hand for the tests of gates and evaluation."""

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgefleet.manifest import Input
from trainer.answers import Answers
from trainer.dataset import DataSet
from trainer.settings import Gates, Goal, Search, Source


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """As much of a project as gates and evaluation read."""

    goal: Goal = Goal(question="q")
    gates: Gates = Gates()
    inputs: list[Input] = msgspec.field(default_factory=lambda: [Input(name="a"), Input(name="b")])
    data: Source = Source(source="rows.csv")
    search: Search = Search(candidates=["forest"])


def some_rows(label: NDArray[Any], classes: list[str] | None = None, **changes: Any) -> DataSet:
    """Validation rows with two random inputs; `changes` replaces any part."""
    n = len(label)
    parts: dict[str, Any] = {
        "x": np.random.default_rng(99).normal(size=(n, 2)).astype(np.float32),
        "label": label,
        "split": np.full(n, "validation"),
        "slices": {},
        "row_id": np.array([f"r{i}" for i in range(n)]),
        "group": None,
        "time": None,
        "weight": None,
        "classes": ["no", "yes"] if classes is None else classes,
        "breaches": 0,
        "named_breaches": [],
    }
    return DataSet(**{**parts, **changes})


def right_answers(right: NDArray[np.bool_]) -> tuple[NDArray[np.int64], Answers]:
    """Labels and sure answers of two classes that are right where `right` says so."""
    label = np.arange(len(right)) % 2
    return label, Answers(probabilities=np.eye(2)[np.where(right, label, 1 - label)] * 0.8 + 0.1)


def right_and_wrong(right: int, wrong: int) -> NDArray[np.bool_]:
    """So many True, then so many False."""
    return np.array([True] * right + [False] * wrong)
