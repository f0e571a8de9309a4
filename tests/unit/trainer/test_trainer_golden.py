"""Golden rows hold the hard cases, and the same ones every time."""

import numpy as np
import pytest

from edgefleet.manifest import Input
from trainer.answers import Answers
from trainer.dataset import DataSet
from trainer.golden import choose_golden

INPUTS = [Input(name="a"), Input(name="b", missing=True), Input(name="c", kind="category", categories=["u", "v"])]


def rows_of(n: int = 500, *, classes: int = 3) -> DataSet:
    rng = np.random.default_rng(1)
    x = np.column_stack([rng.normal(size=n), rng.normal(size=n), rng.integers(0, 2, n)]).astype(np.float32)
    x[rng.choice(n, 20, replace=False), 1] = np.nan
    # The last class and the last slice are rare: one row each.
    label = np.where(np.arange(n) == 77, classes - 1, np.arange(n) % (classes - 1))
    where = np.where(np.arange(n) == 133, "rare", "usual")
    return DataSet(
        x=x, label=label, split=np.full(n, "validation"), slices={"where": where}, row_id=np.arange(n).astype(str), group=None, time=None,
        weight=None, classes=[str(i) for i in range(classes)], breaches=0, named_breaches=[],
    )  # fmt: skip


def answers_of(n: int = 500, classes: int = 3) -> Answers:
    shares = np.random.default_rng(2).dirichlet(np.ones(classes), n)
    shares[40] = [0.4, 0.4, 0.2]
    return Answers(probabilities=shares)


def kinds_of(**changes: object) -> dict[int, str]:
    rows = rows_of()
    index, kinds = choose_golden(rows, rows.x, answers_of(), INPUTS, **changes)  # type: ignore[arg-type]
    return dict(zip(index.tolist(), kinds, strict=True))


def test_the_row_with_two_equally_likely_classes_is_golden() -> None:
    assert kinds_of()[40] == "tie"


def test_missing_values_and_both_ends_of_every_number_are_among_the_golden_rows() -> None:
    rows, chosen = rows_of(), kinds_of()

    assert sum(kind == "missing" for kind in chosen.values()) == 4
    for column in (0, 1):
        assert int(np.nanargmin(rows.x[:, column])) in chosen
        assert int(np.nanargmax(rows.x[:, column])) in chosen


def test_a_class_and_a_slice_of_one_row_each_are_golden() -> None:
    chosen = kinds_of()

    assert {77, 133} <= set(chosen)


def test_half_of_the_golden_rows_are_ordinary_or_stand_for_a_class_or_slice() -> None:
    chosen = kinds_of()

    assert len(chosen) == 32
    assert sum(kind in {"ordinary", "class", "slice"} for kind in chosen.values()) >= 16


def test_rows_nearest_to_the_decision_threshold_are_golden() -> None:
    rows = rows_of(classes=2)
    positive = np.linspace(0, 1, 500)
    answers = Answers(probabilities=np.column_stack([1 - positive, positive]), threshold=0.8)

    index, kinds = choose_golden(rows, rows.x, answers, INPUTS)

    assert [i for i, kind in zip(index.tolist(), kinds, strict=True) if kind == "threshold"] == [398, 399, 400, 401]


def test_a_regression_over_windows_has_golden_rows_too() -> None:
    rows = rows_of(classes=2)
    windows = np.repeat(rows.x[:, None, :], 4, axis=1)
    regression = DataSet(**{**rows.__dict__, "classes": [], "label": rows.x[:, 0].astype(np.float64)})

    index, kinds = choose_golden(regression, windows, Answers(value=rows.x[:, 0].astype(np.float64)), INPUTS)

    assert len(index) == 32
    assert {"tie", "threshold", "class"}.isdisjoint(kinds)


@pytest.mark.parametrize("seed", [0, 7])
def test_the_same_seed_chooses_the_same_rows(seed: int) -> None:
    assert kinds_of(seed=seed) == kinds_of(seed=seed)


def test_fewer_rows_than_asked_are_all_golden() -> None:
    rows = rows_of(20, classes=2)

    index, _ = choose_golden(rows, rows.x, Answers(value=np.zeros(20)), INPUTS)

    assert index.tolist() == list(range(20))
