"""Bad rows: each is refused with its reason, counted, and harms nobody else."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from device_agent import Scorer
from edgefleet.errors import ArtifactError, ConfigError, InputError, RowRejected
from edgefleet.manifest import Input
from edgefleet.statistics import InputStatistics
from tests.unit.device_agent.bundles import FEATURES, forest_bundle, logistic_bundle, numbers, regression_graph, training_rows, write_bundle

GOOD = [0.1, 0.2, 0.3, 0.4, 0.5]


@pytest.mark.parametrize(
    ("row", "feature", "reason"),
    [
        ([1.0, 2.0], None, "count"),
        ([1.0] * 6, None, "count"),
        ([], None, "count"),
        (np.zeros((1, FEATURES), np.float32), None, "count"),
        ("12345", None, "type"),
        (7.0, None, "type"),
        (["3.5", 0, 0, 0, 0], "f0", "type"),
        ([0, 0, b"1", 0, 0], "f2", "type"),
        ([0, 0, 0, [1.0], 0], "f3", "type"),
        (np.array(["1", "2", "3", "4", "5"]), "f0", "type"),
        ([0, 0, 0, 0, None], "f4", "missing"),
        ([0, float("nan"), 0, 0, 0], "f1", "missing"),
        ({"f0": 1.0, "f1": 1.0, "f2": 1.0, "f3": 1.0}, "f4", "missing"),
        ({"f0": 1.0, "f1": 1.0, "f2": 1.0, "f3": 1.0, "f4": 1.0, "typo": 1.0}, "typo", "count"),
        ([0, 0, float("inf"), 0, 0], "f2", "infinite"),
        ([0, 0, 1e39, 0, 0], "f2", "infinite"),
        ([0, 0, -(10**400), 0, 0], "f2", "infinite"),
        ([-2.0, 0, 0, 0, 0], "f0", "range"),
        (np.array([9.0, 0, 0, 0, 0]), "f0", "range"),
    ],
)
def test_a_bad_row_is_refused_by_feature_and_reason_and_counted(tmp_path: Path, row: object, feature: str | None, reason: str) -> None:
    made = forest_bundle(tmp_path, numbers(low=-1.0, high=1.0, range_policy="reject", unit="mm"))
    with Scorer.open(made.folder) as scorer:
        with pytest.raises(RowRejected) as refused:
            scorer.score(row)  # type: ignore[arg-type]
        after = scorer.score(GOOD)
        window = scorer.take_window(1)
    assert (refused.value.feature, refused.value.reason) == (feature, reason)
    assert after.label == ["low", "mid", "high"][int(made.model.predict(np.array([GOOD], np.float32))[0])]
    assert window is not None
    assert window.body.rejected == {reason: 1}
    assert window.body.answered == 1


def test_rows_that_parse_are_in_the_statistics_even_when_refused(tmp_path: Path) -> None:
    made = forest_bundle(tmp_path, numbers(low=-1.0, high=1.0, range_policy="reject"))
    with Scorer.open(made.folder) as scorer:
        for row in ([99.0, 0, 0, 0, 0], [0, 0, float("inf"), 0, 0], [None, 0, 0, 0, 0], ["x", 0, 0, 0, 0], [1.0]):
            with pytest.raises(RowRejected):
                scorer.score(row)
        window = scorer.take_window(1)
    assert window is not None
    seen = InputStatistics.from_bytes(window.body.statistics)
    assert seen.rows == 3
    assert seen.counts[0, -3] == 1  # 99 is above the last bin
    assert seen.counts[0, -2] == 1
    assert seen.infinite.tolist() == [0, 0, 1, 0, 0]
    assert window.body.answered == 0


def test_clip_gives_the_model_the_limit_and_the_statistics_the_value(tmp_path: Path) -> None:
    made = logistic_bundle(tmp_path, numbers(low=-1.0, high=1.0, range_policy="clip"))
    with Scorer.open(made.folder) as scorer:
        clipped = scorer.score([50.0, *GOOD[1:]])
        at_limit = scorer.score([1.0, *GOOD[1:]])
        window = scorer.take_window(1)
    assert clipped.margin == at_limit.margin
    assert window is not None
    seen = InputStatistics.from_bytes(window.body.statistics)
    assert seen.high[0] == 50.0
    assert window.body.answered == 2


def test_a_value_equal_to_its_decimal_limit_is_inside(tmp_path: Path) -> None:
    made = forest_bundle(tmp_path, numbers(low=0.1, high=0.3, range_policy="reject"))
    with Scorer.open(made.folder) as scorer:
        assert scorer.score([0.1, *GOOD[1:]]).status == "ok"
        assert scorer.score([0.3, *GOOD[1:]]).status == "ok"


def test_missing_is_given_to_a_model_only_when_its_variant_takes_it(tmp_path: Path) -> None:
    inputs = [Input(name=f"f{i}", missing=True) for i in range(FEATURES)]
    row = [None, 0.0, 0.0, 0.0, 0.0]
    with Scorer.open(logistic_bundle(tmp_path / "float", inputs).folder) as scorer:
        answer = scorer.score(row)
    with (
        Scorer.open(logistic_bundle(tmp_path / "int", inputs, variant="onnx-int8", takes_missing=False).folder) as scorer,
        pytest.raises(RowRejected) as refused,
    ):
        scorer.score(row)
    assert (answer.label, np.isnan(answer.score), np.isnan(answer.margin)) == (None, True, True)
    assert refused.value.reason == "missing"
    assert "onnx-int8" in str(refused.value)


def test_a_model_that_answers_nan_is_no_answer_in_the_window(tmp_path: Path) -> None:
    made = logistic_bundle(tmp_path, [Input(name=f"f{i}", missing=True) for i in range(FEATURES)])
    with Scorer.open(made.folder) as scorer:
        scorer.score([None, 0.0, 0.0, 0.0, 0.0])
        scorer.score(GOOD)
        window = scorer.take_window(1)
    assert window is not None
    assert window.body.answered == 1
    assert window.body.rejected == {"no-answer": 1}
    assert np.isfinite(window.body.score_sum)


def test_categories_are_texts_or_indices_and_unseen_ones_are_scored(tmp_path: Path) -> None:
    inputs = [Input(name="kind", kind="category", categories=["caf\u00e9", "bar"]), *numbers()[1:]]
    x, _ = training_rows()
    x[:, 0] = np.arange(len(x)) % 2
    made = write_bundle(tmp_path, regression_graph(np.array([1, 0, 0, 0, 0], np.float32)), x, inputs, [])
    rest = [0.0] * 4
    with Scorer.open(made.folder) as scorer:
        indices = [scorer.score([text, *rest]).score for text in ("caf\u00e9", "cafe\u0301", "bar", "pub", 1)]
        named = scorer.score({"kind": "bar", "f1": 0.0, "f2": 0.0, "f3": 0.0, "f4": 0.0}).score
        for wrong in (2, -2, 0.5, float("inf")):
            with pytest.raises(RowRejected) as refused:
                scorer.score([wrong, *rest])
            assert refused.value.reason == "category"
        batch = scorer.score_batch(np.array([[0, *rest], [7, *rest], [1, *rest]]))
        window = scorer.take_window(1)
    assert indices == [0.0, 0.0, 1.0, -1.0, 1.0]
    assert named == 1.0
    assert batch.score[[0, 2]].tolist() == [0.0, 1.0]
    assert batch.rejected[1].reason == "category"
    assert window is not None
    assert InputStatistics.from_bytes(window.body.statistics).counts[0, -1] == 1


def test_a_batch_has_nan_and_a_reason_at_bad_rows_and_answers_the_others(tmp_path: Path) -> None:
    made = forest_bundle(tmp_path, numbers(low=-5.0, high=5.0, range_policy="reject"))
    rows = made.x[:2500].astype(np.float64)
    rows = np.concatenate([rows] * 6)[:2300]
    rows[7, 0], rows[1500, 2], rows[2299, 1] = 6.0, np.nan, np.inf
    with Scorer.open(made.folder) as scorer:
        batch = scorer.score_batch(rows)
        single = [scorer.score(row) for row in rows[:5]]
    assert {i: err.reason for i, err in batch.rejected.items()} == {7: "range", 1500: "missing", 2299: "infinite"}
    assert np.flatnonzero(np.isnan(batch.score)).tolist() == [7, 1500, 2299]
    assert np.flatnonzero(batch.index < 0).tolist() == [7, 1500, 2299]
    assert batch.label[7] is None
    good = np.setdiff1d(np.arange(2300), [7, 1500, 2299])
    # Float32 sums of twelve trees against float64 ones.
    np.testing.assert_allclose(batch.probabilities[good], made.model.predict_proba(rows[good].astype(np.float32)), atol=1e-6)
    for i, score in enumerate(single):
        assert (score.label, score.score, score.margin) == (batch.label[i], batch.score[i], batch.margin[i])


def test_a_batch_of_lists_refuses_ragged_and_text_rows_one_by_one(tmp_path: Path) -> None:
    with Scorer.open(forest_bundle(tmp_path).folder) as scorer:
        batch = scorer.score_batch([GOOD, [1.0], ["a", 0, 0, 0, 0], {f"f{i}": GOOD[i] for i in range(FEATURES)}])
        window = scorer.take_window(1)
    assert {i: err.reason for i, err in batch.rejected.items()} == {1: "count", 2: "type"}
    assert batch.score[0] == batch.score[3]
    assert window is not None
    assert (window.body.answered, window.body.rejected) == (2, {"count": 1, "type": 1})


@pytest.mark.parametrize("rows", [np.zeros((3, 4)), np.zeros(5), np.array([["a"] * 5])])
def test_a_batch_array_of_another_shape_or_type_is_an_input_error(tmp_path: Path, rows: NDArray[Any]) -> None:
    with Scorer.open(forest_bundle(tmp_path).folder) as scorer, pytest.raises(InputError, match=r"expected numbers of shape \[n, 5\]"):
        scorer.score_batch(rows)


def test_a_million_rows_at_once_are_answered_and_counted_each_bad_one_by_its_reason(tmp_path: Path) -> None:
    made = logistic_bundle(tmp_path, numbers(low=-50.0, high=50.0, range_policy="reject"))
    x = np.resize(made.x[:1000], (1_000_000, FEATURES))
    x[7, 0], x[999_999, 0] = np.inf, 1e9

    with Scorer.open(made.folder) as scorer:
        answers = scorer.score_batch(x)
        window = scorer.take_window()

    assert window is not None
    assert {i: err.reason for i, err in answers.rejected.items()} == {7: "infinite", 999_999: "range"}
    assert (window.body.answered, window.body.rejected) == (999_998, {"infinite": 1, "range": 1})


def test_an_empty_batch_is_empty(tmp_path: Path) -> None:
    with Scorer.open(forest_bundle(tmp_path).folder) as scorer:
        batch = scorer.score_batch(np.zeros((0, FEATURES)))
        assert scorer.take_window(1) is None
    assert (len(batch), batch.probabilities.shape, batch.label.shape) == (0, (0, 3), (0,))


def test_threads_get_their_own_answers_and_every_row_is_counted(tmp_path: Path) -> None:
    made = forest_bundle(tmp_path)
    want = made.model.predict_proba(made.x)
    wrong: list[int] = []

    with Scorer.open(made.folder, ring_rows=16) as scorer:

        def work(start: int) -> None:
            for i in range(start, len(made.x), 4):
                answer = scorer.score(made.x[i])
                if answer.probabilities is None or abs(answer.probabilities - want[i]).max() > 1e-6:
                    wrong.append(i)

        threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        window = scorer.take_window(1)
    assert wrong == []
    assert window is not None
    assert window.body.answered == len(made.x)
    assert sum(window.body.classes) == len(made.x)


def test_the_returned_answer_survives_the_reuse_of_its_slot(tmp_path: Path) -> None:
    made = forest_bundle(tmp_path)
    with Scorer.open(made.folder, ring_rows=2) as scorer:
        first = scorer.score(made.x[0])
        before = np.array(first.probabilities)
        for row in made.x[1:9]:
            scorer.score(row)
    np.testing.assert_array_equal(first.probabilities, before)


def test_two_classes_with_one_margin_have_opposite_margins(tmp_path: Path) -> None:
    made = logistic_bundle(tmp_path)
    with Scorer.open(made.folder) as scorer:
        answers = [scorer.score(row) for row in made.x[:50]]
    for answer in answers:
        assert answer.margin == (answer.margins[0] if answer.label == "yes" else -answer.margins[0])
        assert answer.margin >= 0
        # The sigmoid of the margin is the label's probability, to float32 rounding.
        assert answer.score == pytest.approx(1 / (1 + np.exp(-answer.margin)), abs=1e-6)


def test_a_regression_has_a_value_and_no_label(tmp_path: Path) -> None:
    x, _ = training_rows()
    made = write_bundle(tmp_path, regression_graph(np.arange(5, dtype=np.float32)), x, numbers(), [])
    with Scorer.open(made.folder) as scorer:
        answer, batch = scorer.score([1.0, 1, 1, 1, 1]), scorer.score_batch(np.ones((3, 5)))
        window = scorer.take_window(1)
    assert (answer.label, answer.probabilities, answer.score, answer.margin) == (None, None, 10.0, 10.0)
    assert batch.score.tolist() == [10.0] * 3
    assert window is not None
    assert (window.body.answered, window.body.classes, window.body.scores, window.body.score_sum) == (4, [], [], 40.0)


def test_a_closed_scorer_refuses_and_still_gives_its_window(tmp_path: Path) -> None:
    scorer = Scorer.open(forest_bundle(tmp_path).folder)
    scorer.score(GOOD)
    scorer.close()
    with pytest.raises(ConfigError, match="closed"):
        scorer.score(GOOD)
    with pytest.raises(ConfigError, match="closed"):
        scorer.score_batch([GOOD])
    window = scorer.take_window(1)
    assert window is not None
    assert window.body.answered == 1


def test_a_runtime_failure_is_counted_and_the_next_row_is_scored(tmp_path: Path) -> None:
    from onnx import helper, numpy_helper

    nodes = [
        helper.make_node("Cast", ["inputs"], ["wide"], to=7),
        helper.make_node("Gather", ["table", "wide"], ["picked"]),
        helper.make_node("ReduceSum", ["picked", "axis"], ["margin"], keepdims=1),
    ]
    ends = [helper.make_tensor_value_info(n, 1, [None, w]) for n, w in (("inputs", FEATURES), ("margin", 1))]
    tables = [numpy_helper.from_array(np.array([1, 2], np.float32), "table"), numpy_helper.from_array(np.array([1], np.int64), "axis")]
    graph = helper.make_graph(nodes, "table", ends[:1], ends[1:], tables)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    made = write_bundle(tmp_path, model.SerializeToString(), training_rows()[0], numbers(), [])
    with Scorer.open(made.folder) as scorer:
        with pytest.raises(ArtifactError, match="failed on a row"):
            scorer.score([9.0, 0, 0, 0, 0])  # the table has two entries
        assert scorer.score([1.0, 0, 0, 0, 0]).score == 6.0
        window = scorer.take_window(1)
    assert window is not None
    assert window.body.rejected == {"runtime": 1}
