from typing import Any

import numpy as np
import pytest

from edgefleet.manifest import Input
from tests.unit.trainer.judged import right_and_wrong, right_answers, some_rows
from trainer.answers import Answers
from trainer.dataset import DataSet
from trainer.slices import declared_slices, slice_verdicts, worst_slices

NUMBER, GAPS = Input(name="n"), Input(name="g", missing=True)
CATEGORY = Input(name="c", kind="category", categories=["red", "green", "blue"])
INPUTS = [NUMBER, GAPS, CATEGORY]


def table(seed: int, n: int = 3000) -> tuple[np.random.Generator, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = np.stack([rng.normal(size=n), rng.normal(size=n), rng.integers(3, size=n)], axis=1).astype(np.float32)
    x[rng.random(n) < 0.2, 1] = np.nan
    return rng, x


def found_in(x: np.ndarray, right: np.ndarray, **changes: Any) -> list[dict[str, Any]]:
    label, answers = right_answers(right)
    return worst_slices(some_rows(label, x=x, **changes), answers, INPUTS)


def test_nothing_is_found_where_nothing_is_wrong() -> None:
    # Holm holds the chance of any false finding at 5 % a data set; 60 sets: at most 8 with probability .99.
    false = 0
    for seed in range(60):
        rng, x = table(seed)
        false += bool(found_in(x, rng.random(3000) < 0.9))

    assert false <= 8


@pytest.mark.parametrize(
    ("where", "column", "name"),
    [
        ("category", "c", "c = blue"),
        ("missing", "g", "g missing"),
        ("range", "n", "n > "),
        ("pair", "g, c", "g missing and c = red"),
    ],
)
def test_a_planted_slice_is_found_first(where: str, column: str, name: str) -> None:
    rng, x = table(1)
    bad = {
        "category": x[:, 2] == 2,
        "missing": np.isnan(x[:, 1]),
        "range": x[:, 0] > np.quantile(x[:, 0], 0.9),
        "pair": np.isnan(x[:, 1]) & (x[:, 2] == 0),
    }[where]

    found = found_in(x, rng.random(3000) < np.where(bad, 0.5, 0.95))

    assert found[0]["column"] == column
    assert found[0]["name"].startswith(name)
    assert found[0]["value"] == pytest.approx(0.5, abs=0.1)
    assert found[0]["n"] == bad.sum() or where == "range"
    assert found[0]["p"] < 1e-6


def test_at_most_five_slices_are_named_and_none_twice() -> None:
    rng, x = table(2)

    found = found_in(x, rng.random(3000) < np.where(np.isnan(x[:, 1]), 0.5, 0.95))

    assert 1 <= len(found) <= 5
    assert [one["name"] for one in found] == ["g missing"]  # its pairs hold mostly its own rows


def test_a_slice_of_large_errors_is_found_by_rank() -> None:
    rng, x = table(3)
    error = rng.standard_t(2, size=3000) * np.where(x[:, 2] == 1, 2.0, 1.0)  # long tails

    found = worst_slices(some_rows(np.zeros(3000), [], x=x), Answers(value=error), INPUTS)

    assert found[0]["name"] == "c = green"
    assert found[0]["low"] < found[0]["value"] < found[0]["high"]


def test_alike_rows_of_groups_are_not_mistaken_for_a_slice() -> None:
    rng = np.random.default_rng(4)
    falsely = {True: 0, False: 0}
    for _ in range(20):
        right = np.repeat(rng.random(60) < 0.7, 50)
        x = np.repeat(rng.normal(size=(60, 3)), 50, axis=0).astype(np.float32)
        x[:, 2] = np.repeat(rng.integers(3, size=60), 50)
        for grouped in falsely:
            changes = {"group": np.repeat(np.arange(60).astype(str), 50)} if grouped else {}
            falsely[grouped] += bool(found_in(x, right, **changes))

    assert falsely[False] >= 18
    assert falsely[True] <= 3


def test_of_windows_the_last_row_is_looked_at() -> None:
    rng, last = table(5)
    x = np.stack([table(6)[1], last], axis=1)

    found = found_in(x, rng.random(3000) < np.where(last[:, 2] == 2, 0.5, 0.95))

    assert found[0]["name"] == "c = blue"


def test_equal_losses_and_few_rows_have_no_slices() -> None:
    _, x = table(7, 59)

    assert found_in(x, right_and_wrong(30, 29)) == []
    assert found_in(table(7)[1], np.full(3000, True)) == []


def test_many_categories_are_looked_at_by_frequency() -> None:
    rng = np.random.default_rng(8)
    codes = np.where(rng.random(4000) < 0.5, rng.integers(3, size=4000), rng.integers(10_000, size=4000))
    many = Input(name="city", kind="category", categories=[f"city {i}" for i in range(10_000)])
    label, answers = right_answers(rng.random(4000) < np.where(codes == 1, 0.5, 0.95))

    found = worst_slices(some_rows(label, x=codes[:, None].astype(np.float32)), answers, [many])

    assert [one["name"] for one in found] == ["city = city 1"]


def slices_of(right: np.ndarray, names: np.ndarray, limit: float) -> list[str]:
    label, answers = right_answers(right)
    rows: DataSet = some_rows(label, slices={"s": names})
    return slice_verdicts(declared_slices(rows, answers, limit, 0), limit, is_share=True)


def test_a_slice_at_the_limit_is_neither_passed_nor_failed() -> None:
    assert slices_of(right_and_wrong(180, 20), np.full(200, "x"), 0.9) == ["inconclusive"]


def test_thirty_rows_are_enough_and_twenty_nine_are_not() -> None:
    assert slices_of(np.full(59, True), np.array(["x"] * 30 + ["y"] * 29), 0.8) == ["pass", "inconclusive"]


def test_slices_come_by_column_and_name() -> None:
    label, answers = right_answers(right_and_wrong(3, 1))
    rows = some_rows(label, slices={"b": np.array(list("yxyx")), "a": np.array(list("zzzz"))})

    found = [(one.column, one.name, one.n, one.value) for one in declared_slices(rows, answers, None, 0)]

    assert found == [("b", "x", 2, 0.5), ("b", "y", 2, 1.0), ("a", "z", 4, 0.75)]


def test_a_missing_category_is_another_slice_than_one_never_seen() -> None:
    rng, x = table(7)
    x[:, 2] = rng.integers(3, size=len(x))
    x[:400, 2], x[400:800, 2] = np.nan, -1
    right = rng.random(len(x)) < 0.95
    right[:400] = rng.random(400) < 0.5

    assert found_in(x, right)[0]["name"] == "c missing"
