"""G1 to G3: what the rows themselves must bear."""

import time
from typing import Any

import numpy as np
import pytest

from edgefleet.manifest import Input
from tests.unit.trainer.judged import Wanted, some_rows
from trainer.dataset import DataSet
from trainer.gates import Gate, judge_rows
from trainer.gates.data import judge_quality, judge_schema
from trainer.gates.leakage import judge_leakage, row_hashes
from trainer.settings import Gates, Goal, Source, Splits

WANTED = Wanted()


def test_g1_names_the_breaches() -> None:
    gate = judge_schema(some_rows(np.zeros(98), [], breaches=2, named_breaches=["row 4, column a: 'x', expected a finite number"]))

    assert (gate.verdict, gate.value, gate.limit, gate.n) == ("fail", 2, 0, 100)
    assert "row 4, column a: 'x'" in gate.sentence


def g2(x: np.ndarray, label: np.ndarray | None = None, limit: float = 0.5, task: str = "classification", **changes: Any) -> Gate:
    label = np.arange(len(x)) % 2 if label is None else label
    changes = {"x": x.astype(np.float32), "split": np.full(len(x), "train"), **changes}
    inputs = [Input(name=name, missing=True, low=-5.0, high=5.0) for name in "abcdefgh"[: x.shape[-1]]]
    wanted = Wanted(goal=Goal(question="q", task=task), gates=Gates(max_missing_fraction=limit), inputs=inputs)  # type: ignore[arg-type]
    return judge_quality(wanted, some_rows(label, **changes))


def noise(n: int = 100, columns: int = 2) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, columns))


def test_g2_passes_without_missing_values_even_at_limit_zero() -> None:
    assert g2(noise(50), limit=0.0).verdict == "pass"


def test_g2_fails_when_most_of_a_column_is_missing() -> None:
    x = noise()
    x[:80, 1] = np.nan

    gate = g2(x)

    assert gate.verdict == "fail"
    assert gate.value == pytest.approx(0.8)
    assert "(b)" in gate.sentence


def test_g2_is_inconclusive_about_a_constant_column() -> None:
    gate = g2(np.concatenate([noise(), np.ones((100, 1))], axis=1))

    assert gate.verdict == "inconclusive"
    assert "1 columns never change: c" in gate.sentence


def test_a_column_without_any_value_fails() -> None:
    x = noise()
    x[:, 0] = np.nan

    gate = g2(x)

    assert gate.verdict == "fail"
    assert "never change: a" in gate.sentence


def test_a_column_that_is_there_or_not_is_no_constant() -> None:
    x = noise()
    x[:, 1] = np.where(np.arange(100) < 30, np.nan, 1.0)

    assert g2(x).verdict == "pass"


def test_g2_is_skipped_below_thirty_rows() -> None:
    assert g2(np.ones((29, 1))).verdict == "skipped"


def test_one_class_only_fails() -> None:
    gate = g2(noise(), np.zeros(100, np.int64))

    assert gate.verdict == "fail"
    assert "All training rows are of class 'no'" in gate.sentence


def test_a_class_that_is_first_met_after_training_fails() -> None:
    label = np.arange(100) % 2
    label[90:] = 2

    gate = g2(noise(), label, classes=["no", "yes", "new"], split=np.array(["train"] * 90 + ["validation"] * 10))

    assert gate.verdict == "fail"
    assert "Without a training row: new" in gate.sentence


def test_nine_rows_of_a_class_are_inconclusive_and_ten_pass() -> None:
    assert g2(noise(), (np.arange(100) < 9).astype(np.int64)).verdict == "inconclusive"
    assert g2(noise(), (np.arange(100) < 10).astype(np.int64)).verdict == "pass"


def test_a_target_that_never_changes_fails() -> None:
    gate = g2(noise(), np.full(100, 7.5), task="regression", classes=[])

    assert gate.verdict == "fail"
    assert "always 7.5" in gate.sentence


def test_a_detector_may_learn_from_normal_rows_only() -> None:
    assert g2(noise(), np.zeros(100, np.int64), task="anomaly", classes=["normal", "strange"]).verdict == "pass"


def test_repeated_rows_and_values_out_of_range_are_told() -> None:
    x = noise()
    x[:10] = x[0]
    x[20:23, 0] = 9.0

    sentence = g2(x).sentence

    assert "9.0% of the rows repeat another" in sentence
    assert "Up to 3.0% of a column is out of its range (a)" in sentence


def four_rows(**changes: Any) -> DataSet:
    parts = {
        "x": np.arange(8, dtype=np.float32).reshape(4, 2),
        "split": np.array(["train", "train", "validation", "test"]),
        "group": np.array(["g0", "g0", "g1", "g2"]),
    }
    return some_rows(np.array([0, 1, 0, 1]), **{**parts, **changes})


def test_g3_passes_when_groups_stay_in_their_split() -> None:
    assert judge_leakage(WANTED, four_rows()).verdict == "pass"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"row_id": np.array(["r0", "r1", "r0", "r3"])}, "1 row ids stand in two splits"),
        ({"group": np.array(["g0", "g0", "g1", "g0"])}, "1 groups stand in two splits"),
        ({"x": np.array([[0, 1], [2, 3], [0, 1], [6, 7]], np.float32)}, "1 of 2 validation and test rows equal a training row"),
        (
            {"x": np.array([[0, np.nan], [2, 3], [-0.0, np.nan], [6, 7]], np.float32)},
            "1 of 2 validation and test rows equal a training row",
        ),
        ({"row_id": np.array(["r0", "r0", "r2", "r3"])}, "1 row ids are repeated"),
    ],
)
def test_g3_finds_what_stands_in_two_splits(change: dict[str, Any], words: str) -> None:
    gate = judge_leakage(WANTED, four_rows(**change))

    assert gate.verdict == "fail"
    assert words in gate.sentence


def test_g3_finds_equal_windows() -> None:
    x = np.random.default_rng(1).normal(size=(4, 3, 2)).astype(np.float32)
    x[2] = x[0]

    assert "1 of 2 validation and test rows equal a training row" in judge_leakage(WANTED, four_rows(x=x)).sentence


@pytest.mark.parametrize(("allowed", "verdict"), [(0.49, "fail"), (0.5, "pass")])
def test_coarse_tables_may_repeat_rows_up_to_a_declared_share(allowed: float, verdict: str) -> None:
    x = np.array([[0, 1], [2, 3], [0, 1], [6, 7]], np.float32)

    gate = judge_leakage(Wanted(gates=Gates(max_equal_rows_fraction=allowed)), four_rows(x=x))

    assert gate.verdict == verdict
    assert "1 of 2 validation and test rows equal a training row" in gate.sentence


@pytest.mark.parametrize(("method", "verdict"), [("time", "fail"), ("column", "pass")])
def test_g3_asks_for_the_order_of_time_only_of_splits_by_time(method: str, verdict: str) -> None:
    wanted = Wanted(data=Source(source="rows.csv", splits=Splits(method=method)))  # type: ignore[arg-type]  # a parameter is plain text

    gate = judge_leakage(wanted, four_rows(time=np.array([0.0, 5.0, 4.0, 6.0])))

    assert gate.verdict == verdict
    assert (verdict == "pass") or "1 rows are older than a row of an earlier split" in gate.sentence


def learnable(n: int = 600, seed: int = 2) -> DataSet:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2)).astype(np.float32)
    label = (x[:, 0] + rng.normal(size=n) > 0).astype(np.int64)
    return some_rows(label, x=x, split=np.array(["train", "validation", "test"])[np.arange(n) % 3])


def test_a_good_input_is_no_leak() -> None:
    gate = judge_leakage(WANTED, learnable())

    assert gate.verdict == "pass"
    assert "The best single input is a, AUC" in gate.sentence


@pytest.mark.parametrize("task", ["two classes", "five classes", "number", "missing", "category", "strange rows"])
def test_the_label_in_disguise_is_named(task: str) -> None:
    rng = np.random.default_rng(3)
    rows = learnable(3000)
    x, label, wanted, classes = rows.x.copy(), rows.label, WANTED, ["no", "yes"]
    if task == "five classes":
        label, classes = rng.integers(5, size=3000), list("abcde")
    if task == "number":
        label, classes = rng.normal(size=3000), []
        wanted = Wanted(goal=Goal(question="q", task="regression"))
    if task == "strange rows":
        wanted = Wanted(goal=Goal(question="q", task="anomaly"))
    x[:, 1] = -3 * label + 0.01 * rng.normal(size=3000)
    if task == "missing":
        x[:, 1] = np.where(label == 1, np.nan, rng.normal(size=3000))
    if task == "category":
        x[:, 1] = np.where(label == 1, 1, rng.choice([0, 2], 3000))
        wanted = Wanted(inputs=[Input(name="a"), Input(name="b", kind="category", categories=list("xyz"))])

    gate = judge_leakage(wanted, some_rows(label, classes, x=x, split=rows.split))

    assert gate.verdict == "inconclusive"
    assert "The best single input is b, " in gate.sentence
    assert "look whether it is known before the answer is" in gate.sentence


def test_many_rare_categories_are_no_leak() -> None:
    # Each of 300 categories is seen twice: learnt by heart they would tell every label.
    x = np.stack([np.zeros(600), np.arange(600) % 300], axis=1).astype(np.float32)
    x[:, 0] = np.random.default_rng(4).normal(size=600)
    label = np.random.default_rng(5).integers(2, size=600)
    wanted = Wanted(inputs=[Input(name="a"), Input(name="b", kind="category", categories=[str(i) for i in range(300)])])

    assert judge_leakage(wanted, some_rows(label, x=x, split=np.full(600, "train"))).verdict == "pass"


def test_rows_of_only_missing_values_are_judged() -> None:
    rows = learnable()
    gates = judge_rows(WANTED, some_rows(rows.label, x=np.full((600, 2), np.nan, np.float32), split=np.full(600, "train")))

    assert [gate.verdict for gate in gates] == ["pass", "fail", "pass"]


def test_a_million_rows_of_twenty_inputs_are_compared_in_seconds() -> None:
    x = np.random.default_rng(6).normal(size=(1_000_000, 20)).astype(np.float32)
    x[999_999] = x[0]
    began = time.process_time()

    distinct = len(np.unique(row_hashes(x)))

    assert distinct == 999_999
    assert time.process_time() - began < 10


def test_swapped_and_shifted_values_are_other_rows() -> None:
    rows = np.array([[0, 1, 2], [1, 0, 2], [2, 1, 0], [1, 2, 0], [0, 0, 3], [0, 3, 0], [np.nan, 0, 0], [0, np.nan, 0]], np.float32)

    assert len(np.unique(row_hashes(rows))) == len(rows)
