from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgefleet.errors import InputError
from trainer.settings import Splits
from trainer.splits import DROPPED, assign_splits, earlier_twins


def counts(split: NDArray[np.str_]) -> dict[str, int]:
    return {str(name): int(n) for name, n in zip(*np.unique(split, return_counts=True), strict=True)}


def test_random_splits_keep_the_share_of_every_class() -> None:
    label = np.repeat([0, 1, 2], [700, 200, 100])

    split = assign_splits(Splits(method="random", validation=0.2, test=0.1), 1000, stratum=label)

    assert counts(split[label == 0]) == {"train": 490, "validation": 140, "test": 70}
    assert counts(split[label == 1]) == {"train": 140, "validation": 40, "test": 20}
    assert counts(split[label == 2]) == {"train": 70, "validation": 20, "test": 10}


@pytest.mark.parametrize(("validation", "test"), [(0.9, 0.05), (0.45, 0.5), (0.05, 0.9)])
@pytest.mark.parametrize("rows", [3, 4, 7])
def test_large_shares_of_few_rows_leave_one_for_training(validation: float, test: float, rows: int) -> None:
    split = assign_splits(Splits(method="random", validation=validation, test=test), rows, stratum=np.zeros(rows, np.int64))

    assert counts(split).keys() == {"train", "validation", "test"}


def test_random_splits_depend_on_the_seed_only() -> None:
    one, again, other = (assign_splits(Splits(method="random", seed=seed), 300) for seed in (1, 1, 2))

    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_equal_rows_are_drawn_together() -> None:
    content = np.random.default_rng(0).integers(0, 1000, 1000).astype(np.uint64)

    split = assign_splits(Splits(method="random"), 1000, content=content)

    assert all(len(set(split[content == one])) == 1 for one in set(content.tolist()))
    assert set(split) == {"train", "validation", "test"}


def test_a_table_of_few_different_rows_is_drawn_row_by_row() -> None:
    content = np.arange(1000, dtype=np.uint64) % np.uint64(4)

    split = assign_splits(Splits(method="random"), 1000, content=content)

    assert counts(split) == {"train": 600, "validation": 200, "test": 200}


def test_the_draw_does_not_depend_on_the_hash_of_rows() -> None:
    content = np.random.default_rng(0).integers(0, 1000, 1000).astype(np.uint64)
    other = (content * np.uint64(2654435761)) ^ np.uint64(77)

    one, again = (assign_splits(Splits(method="random"), 1000, content=hashes) for hashes in (content, other))

    assert np.array_equal(one, again)


def test_rows_that_come_again_in_a_later_split_are_told() -> None:
    content = np.array([1, 2, 3, 2, 4, 3, 1, 9, 9], np.uint64)
    split = np.array(["train", "train", "train", "validation", "validation", "test", "train", "test", "test"])

    assert np.flatnonzero(earlier_twins(content, split)).tolist() == [1, 2]


def test_no_group_stands_in_two_splits() -> None:
    group = np.random.default_rng(0).integers(0, 40, 2000).astype(str)

    split = assign_splits(Splits(method="group"), 2000, group=group)

    assert all(len(set(split[group == name])) == 1 for name in set(group))
    assert {name: len(set(group[split == name])) for name in set(split)} == {"train": 24, "validation": 8, "test": 8}


def test_time_splits_train_on_the_oldest_and_drop_the_gap_before_each_border() -> None:
    time = np.arange(100.0)[::-1].copy()  # newest row first

    split = assign_splits(Splits(method="time", validation=0.2, test=0.2, gap=5), 100, time=time)

    assert counts(split) == {DROPPED: 10, "train": 55, "validation": 15, "test": 20}
    assert time[split == "train"].max() == 54
    assert time[split == "validation"].tolist() == list(range(74, 59, -1))
    assert time[split == "test"].min() == 80


def test_rows_of_one_moment_are_never_parted() -> None:
    time = np.repeat(np.arange(10.0), 7)

    split = assign_splits(Splits(method="time", validation=0.25, test=0.25), 70, time=time)

    assert all(len(set(split[time == moment])) == 1 for moment in range(10))


@pytest.mark.parametrize(
    ("splits", "arguments", "words"),
    [
        (Splits(), {"column": np.array(["train", "dev"])}, "split 'dev' is unknown"),
        (Splits(), {"column": np.array(["train", "test"])}, "split 'validation' has no rows"),
        (Splits(method="group"), {"group": np.array(["a", "b"])}, "has 2 groups, at least 3 are needed"),
        (Splits(method="time"), {"time": np.zeros(2)}, "split 'train' has no rows"),
        (Splits(method="random"), {}, "split 'validation' has no rows"),
    ],
)
def test_splits_that_leave_a_part_empty_are_refused(splits: Splits, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        assign_splits(splits, 2, **arguments)
