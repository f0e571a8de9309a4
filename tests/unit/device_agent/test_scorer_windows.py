"""Models of windows: T rows go in, one answer comes out; checks see every row, statistics the newest one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from device_agent import Scorer
from edgefleet.errors import ArtifactError, InputError, RowRejected
from edgefleet.manifest import Input
from edgefleet.package import npz_bytes
from edgefleet.reference import build_reference
from edgefleet.statistics import InputStatistics
from tests.unit.device_agent.bundles import FEATURES, Made, logistic_graph, numbers, training_rows, write_bundle

ROWS = 3
WEIGHTS = np.random.default_rng(5).normal(size=(ROWS * FEATURES, 1)).astype(np.float32)


def window_graph(weights: NDArray[np.float32] = WEIGHTS, rows: int | str = ROWS) -> bytes:
    """Probability from all values of a window [n, rows, F], each with its own weight."""
    from onnx import helper, numpy_helper

    nodes = [
        helper.make_node("Flatten", ["inputs"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "w"], ["margin"]),
        helper.make_node("Sigmoid", ["margin"], ["one"]),
        helper.make_node("Sub", ["unit", "one"], ["zero"]),
        helper.make_node("Concat", ["zero", "one"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "window",
        [helper.make_tensor_value_info("inputs", 1, [None, rows, FEATURES])],
        [helper.make_tensor_value_info("margin", 1, [None, 1]), helper.make_tensor_value_info("probabilities", 1, [None, 2])],
        [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(np.ones(1, np.float32), "unit")],
    )
    return bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString())


def window_bundle(folder: Path, inputs: list[Input] | None = None, **more: Any) -> Made:
    x, _ = training_rows()
    background = np.stack([x[i : i + ROWS] for i in range(16)])
    explainer = npz_bytes({"method": np.array("sampled"), "background": background})
    changes = {"window_rows": ROWS, **more.pop("changes", {})}
    classes = ["no", "yes"]
    return write_bundle(folder, window_graph(), x, inputs or numbers(), classes, ("sampled", explainer), changes=changes, **more)


def windows(n: int) -> NDArray[np.float32]:
    return np.random.default_rng(8).normal(size=(n, ROWS, FEATURES)).astype(np.float32)


def margins(x: NDArray[np.float32]) -> NDArray[np.float64]:
    return x.reshape(len(x), -1).astype(np.float64) @ WEIGHTS.astype(np.float64)[:, 0]


def test_windows_one_by_one_and_in_batches_answer_what_the_weights_say(tmp_path: Path) -> None:
    x = windows(50)
    named = [[{f"f{i}": value for i, value in enumerate(row)} for row in window] for window in x.tolist()]
    ways: list[Any] = [x, x.astype(np.float64), x.tolist(), named]
    with Scorer.open(window_bundle(tmp_path).folder, ring_rows=8) as scorer:
        single = [np.array([scorer.score(window).margins[0] for window in way]) for way in ways]
        batch = [scorer.score_batch(way).margins[:, 0] for way in ways]
    for answers in single + batch:
        # Float32 sums of fifteen products.
        np.testing.assert_allclose(answers, margins(x), atol=1e-5)


def test_the_newest_row_of_each_window_is_counted_once(tmp_path: Path) -> None:
    made, x = window_bundle(tmp_path), windows(50)
    whole = InputStatistics.empty(made.reference)
    whole.update(x[:, -1], made.reference)
    with Scorer.open(made.folder, ring_rows=8) as scorer:
        for window in x[:20]:
            scorer.score(window)
        scorer.score_batch(x[20:])
        told = scorer.take_window(1)
    assert told is not None
    seen = InputStatistics.from_bytes(told.body.statistics)
    assert (seen.rows, told.body.answered) == (50, 50)
    np.testing.assert_array_equal(seen.counts, whole.counts)


@pytest.mark.parametrize(
    ("window", "reason", "words"),
    [
        ([[0.0] * FEATURES] * 2, "count", "3 rows of 5 values"),
        ([0.0] * ROWS, "type", "row 1 of 3"),
        (np.zeros((ROWS, 4), np.float32), "count", "row 1 of 3"),
        (np.zeros(FEATURES, np.float32), "count", "3 rows of 5 values"),
        (7.0, "type", "3 rows of 5 values"),
        ([[0.0] * 5, [0.0, "x", 0, 0, 0], [0.0] * 5], "type", "row 2 of 3"),
        ([[0.0] * 5, [0.0] * 5, [0.0, None, 0, 0, 0]], "missing", "row 3 of 3"),
        ([[0.0] * 5, [0.0, 0, float("inf"), 0, 0], [0.0] * 5], "infinite", "row 2 of 3"),
        ([[9.0, 0, 0, 0, 0], [0.0] * 5, [0.0] * 5], "range", "row 1 of 3"),
    ],
)
def test_a_bad_row_anywhere_in_the_window_refuses_it_and_is_named(tmp_path: Path, window: Any, reason: str, words: str) -> None:
    made = window_bundle(tmp_path, numbers(low=-8.0, high=8.0, range_policy="reject"))
    good = windows(1)[0]
    with Scorer.open(made.folder) as scorer:
        with pytest.raises(RowRejected, match=words) as refused:
            scorer.score(window)
        batch = scorer.score_batch([good, window])
        assert scorer.score(good).status == "ok"
    assert refused.value.reason == reason
    assert {i: err.reason for i, err in batch.rejected.items()} == {1: reason}
    assert batch.margins[0, 0] == pytest.approx(margins(good[None])[0], abs=1e-5)


def test_clipping_reaches_every_row_and_the_statistics_keep_the_value(tmp_path: Path) -> None:
    made = window_bundle(tmp_path, numbers(low=-1.0, high=1.0, range_policy="clip"))
    wild = np.zeros((ROWS, FEATURES), np.float32)
    wild[:, 0] = [50.0, -50.0, 30.0]
    with Scorer.open(made.folder) as scorer:
        clipped = scorer.score(wild)
        limits = scorer.score(np.clip(wild, -1, 1))
        batch = scorer.score_batch(wild[None])
        told = scorer.take_window(1)
    assert clipped.margin == limits.margin == batch.margin[0]
    assert told is not None
    assert InputStatistics.from_bytes(told.body.statistics).high[0] == 30.0


def test_a_wrong_category_in_an_old_row_is_refused(tmp_path: Path) -> None:
    inputs = [Input(name="kind", kind="category", categories=["a", "b"]), *numbers()[1:]]
    reference = build_reference(training_rows()[0], numbers(), block_rows=50, classes=2)
    made = window_bundle(tmp_path, inputs, reference=reference)
    window = np.zeros((ROWS, FEATURES), np.float32)
    with Scorer.open(made.folder) as scorer:
        texts = scorer.score([["b", 0, 0, 0, 0], ["a", 0, 0, 0, 0], ["new", 0, 0, 0, 0]])
        window[:, 0] = [1, 0, -1]
        assert scorer.score(window).margin == texts.margin
        window[0, 0] = 2
        with pytest.raises(RowRejected, match="row 1 of 3") as refused:
            scorer.score(window)
        batch = scorer.score_batch(window[None])
    assert (refused.value.feature, refused.value.reason) == ("kind", "category")
    assert batch.rejected[0].reason == "category"


def test_an_explanation_has_one_contribution_per_input_over_all_its_rows(tmp_path: Path) -> None:
    made, window = window_bundle(tmp_path), windows(1)[0]
    with Scorer.open(made.folder) as scorer:
        answer = scorer.score(window, explain=True)
        told = scorer.take_window(1)
    assert answer.explanation is not None
    assert answer.explanation.names == ("f0", "f1", "f2", "f3", "f4")
    background = np.stack([made.x[i : i + ROWS] for i in range(16)]).mean(axis=0)
    sign = 1.0 if answer.label == "yes" else -1.0
    # A linear model: every coalition's value is a sum, so that sampling is exact.
    want = sign * (WEIGHTS.reshape(ROWS, FEATURES) * (window - background)).sum(axis=0)
    np.testing.assert_allclose(answer.explanation.contributions, want, atol=1e-5)
    assert told is not None
    assert told.body.answered == 1


def test_an_array_of_another_shape_is_an_input_error(tmp_path: Path) -> None:
    with Scorer.open(window_bundle(tmp_path).folder) as scorer:
        wrong: NDArray[Any]
        for wrong in (np.zeros((4, FEATURES)), np.zeros((2, 4, FEATURES)), np.array(1.0)):
            with pytest.raises(InputError, match=r"expected numbers of shape \[n, 3, 5\]"):
                scorer.score_batch(wrong)


def test_a_graph_of_other_windows_than_the_manifest_says_is_refused(tmp_path: Path) -> None:
    x, _ = training_rows()
    rows = logistic_graph(np.ones((5, 1), np.float32), np.ones(1, np.float32))
    single = write_bundle(tmp_path / "a", rows, x, numbers(), ["no", "yes"], changes={"window_rows": 3})
    three = write_bundle(tmp_path / "b", window_graph(), x, numbers(), ["no", "yes"], changes={"window_rows": 12})
    unsaid = write_bundle(tmp_path / "c", window_graph(), x, numbers(), ["no", "yes"])
    free = write_bundle(tmp_path / "d", window_graph(rows="t"), x, numbers(), ["no", "yes"], changes={"window_rows": 3})
    for made, words in (
        (single, "takes single rows, the manifest says windows of 3 rows"),
        (three, "takes windows of 3 rows, the manifest says windows of 12 rows"),
        (unsaid, "takes windows of 3 rows, the manifest says single rows"),
        (free, r"takes one float32 \[n, features\] or \[n, rows, features\]"),
    ):
        with pytest.raises(ArtifactError, match=words):
            Scorer.open(made.folder)


def test_a_ring_of_wide_windows_stays_within_its_bytes(tmp_path: Path) -> None:
    rows = 20_000
    graph = window_graph(np.full((rows * FEATURES, 1), 1e-5, np.float32), rows)
    made = write_bundle(tmp_path, graph, training_rows()[0], numbers(), ["no", "yes"], changes={"window_rows": rows})
    with Scorer.open(made.folder) as scorer:
        assert scorer._ring.rows.nbytes <= 16 * 1024 * 1024 + 4 * rows * FEATURES
        # Float32 sums of 100,000 products.
        assert scorer.score(np.ones((rows, FEATURES), np.float32)).margin == pytest.approx(1.0, abs=1e-3)
