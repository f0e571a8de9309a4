import numpy as np
import pytest

from edgefleet.errors import ArtifactError
from trainer.dataset import ALL_ROWS, DataSet


def some_rows(**other: object) -> DataSet:
    arrays = {
        "x": np.arange(12, dtype=np.float32).reshape(4, 3),
        "label": np.array([0, 1, 0, 1]),
        "split": np.array(["train", "train", "validation", "test"]),
        "slices": {"place": np.array(["north", "north", "south", "south"]), "shift": np.array(["day", "night", "day", "night"])},
        "row_id": np.array(["a", "b", "c", "d"]),
        "group": np.array(["g", "g", "h", "h"]),
        "time": np.arange(4.0),
        "weight": None,
        "classes": ["no", "yes"],
        "breaches": 2,
        "named_breaches": ["row 7, column a: nothing, expected a finite number"],
    }
    return DataSet(**(arrays | other)).with_digest()  # type: ignore[arg-type]


def test_the_rows_of_a_split_keep_every_column_aligned() -> None:
    train = some_rows().of("train")

    assert len(train) == 2
    assert train.x.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert train.slices["shift"].tolist() == ["day", "night"]
    assert train.time is not None
    assert train.time.tolist() == [0, 1]
    assert train.weight is None
    assert train.classes == ["no", "yes"]


def test_the_first_declared_slice_is_the_slice_and_without_one_there_is_one_slice() -> None:
    assert some_rows().slice.tolist() == ["north", "north", "south", "south"]
    assert set(some_rows(slices={}).slice) == {ALL_ROWS}


@pytest.mark.parametrize(
    "other", [{}, {"slices": {}, "group": None, "time": None}, {"weight": np.ones(4), "x": np.ones((4, 2, 3), np.float32)}]
)
def test_bytes_and_back_gives_the_same_rows(other: dict[str, object]) -> None:
    rows = some_rows(**other)

    again = DataSet.from_bytes(rows.to_bytes())

    assert again.with_digest().digest == again.digest == rows.digest
    assert again.to_bytes() == rows.to_bytes()
    assert list(again.slices) == list(rows.slices)


def test_every_column_is_in_the_digest() -> None:
    changes: list[dict[str, object]] = [
        {},
        {"x": np.ones((4, 3), np.float32)},
        {"label": np.zeros(4, np.int64)},
        {"split": np.full(4, "train")},
        {"slices": {}},
        {"row_id": np.array(["a", "b", "c", "e"])},
        {"group": None},
        {"time": np.ones(4)},
        {"weight": np.ones(4)},
        {"classes": ["no", "maybe"]},
        {"breaches": 3},
    ]
    changed = [some_rows(**other).digest for other in changes]

    assert len(set(changed)) == len(changed)


def test_text_padding_does_not_change_the_digest() -> None:
    wide = some_rows(row_id=np.array(["a", "b", "c", "d"], "U40"))

    assert wide.digest == some_rows().digest


def test_damaged_bytes_are_an_artifact_error() -> None:
    with pytest.raises(ArtifactError, match="data set: 100 bytes are no readable"):
        DataSet.from_bytes(some_rows().to_bytes()[:100])
