"""What the numbers mean: thresholds of two classes, anomaly detectors, and outliers beside the answer."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_agent import Scorer
from device_agent.choose import choose_variant
from device_agent.decision import Decision
from edgefleet.bundle import Bundle
from edgefleet.digests import sha256_hex
from edgefleet.errors import ArtifactError, ConfigError
from edgefleet.manifest import Input
from edgefleet.package import npz_bytes
from edgefleet.reference import build_reference, score_histogram
from tests.unit.device_agent.bundles import (
    FEATURES,
    Made,
    logistic_bundle,
    logistic_graph,
    numbers,
    regression_graph,
    training_rows,
    write_bundle,
)

ONES = np.ones(FEATURES, np.float32)


def detector_bundle(folder: Path, threshold: float | None) -> Made:
    """Anomaly score = sum of the five inputs."""
    x, _ = training_rows()
    reference = build_reference(x, numbers(), block_rows=50, scores=x.astype(np.float64).sum(axis=1))
    changes = {"task": "anomaly", "threshold": threshold}
    return write_bundle(folder, regression_graph(ONES), x, numbers(), [], changes=changes, reference=reference)


def outlier_bundle(folder: Path, detector: bytes | None = None, inputs: list[Input] | None = None, **more: Any) -> Made:
    """Two classes, and an outlier detector whose score is the sum of the five inputs."""
    graph = detector or regression_graph(ONES)
    made = logistic_bundle(folder, inputs, **more)
    (folder / "outlier.onnx").write_bytes(graph)
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["outlier.onnx"] = {"sha256": sha256_hex(graph), "size_bytes": len(graph)}
    manifest["outlier"] = {"threshold": 3.0, "files": {"onnxruntime": "outlier.onnx"}, "method": "mahalanobis"}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return made


def table_graph() -> bytes:
    """The sum of what a table of two entries holds at each value: any other value fails."""
    from onnx import helper, numpy_helper

    nodes = [
        helper.make_node("Cast", ["inputs"], ["wide"], to=7),
        helper.make_node("Gather", ["table", "wide"], ["picked"]),
        helper.make_node("ReduceSum", ["picked", "axis"], ["margin"], keepdims=1),
    ]
    ends = [helper.make_tensor_value_info("inputs", 1, [None, FEATURES])], [helper.make_tensor_value_info("margin", 1, [None, 1])]
    tables = [numpy_helper.from_array(np.array([0, 1], np.float32), "table"), numpy_helper.from_array(np.array([1], np.int64), "axis")]
    graph = helper.make_graph(nodes, "table", *ends, tables)
    return bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString())


@pytest.mark.parametrize("positive", ["no", "yes"])
@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.5, 0.9, 1.0])
def test_the_positive_class_is_answered_from_the_threshold_on(tmp_path: Path, positive: str, threshold: float) -> None:
    made = logistic_bundle(tmp_path, changes={"threshold": threshold, "positive": positive})
    at = ["no", "yes"].index(positive)
    with Scorer.open(made.folder) as scorer:
        single = [scorer.score(row) for row in made.x[:100]]
        batch = scorer.score_batch(made.x[:100])
        window = scorer.take_window(1)
    assert batch.probabilities[:, at].min() < 0.2
    assert batch.probabilities[:, at].max() > 0.9
    want = np.where(batch.probabilities[:, at].astype(np.float64) >= threshold, positive, "yes" if positive == "no" else "no")
    assert batch.label.tolist() == want.tolist() == [s.label for s in single]
    for i, answer in enumerate(single):
        assert (answer.index, answer.score, answer.margin) == (batch.index[i], batch.score[i], batch.margin[i])
        assert answer.score == batch.probabilities[i, ["no", "yes"].index(want[i])]
        assert answer.margin == (answer.margins[0] if want[i] == "yes" else -answer.margins[0])
    assert window is not None
    assert window.body.classes == [2 * int((want == name).sum()) for name in ("no", "yes")]
    assert window.body.scores == (2 * score_histogram(batch.score.astype(np.float64))).tolist()


def test_a_probability_one_bit_below_the_threshold_is_below_it() -> None:
    decision = Decision(1, ("no", "yes"), 1, 0.7)
    below = np.float32(0.7)  # 0.699999988
    answer = np.array([0.0, 1 - below, below], np.float32)
    assert float(below) < 0.7
    assert decision.index(answer) == 0
    assert decision.indices(answer[None, 1:]).tolist() == [0]


def test_nan_has_no_label_with_a_threshold_either(tmp_path: Path) -> None:
    inputs = [Input(name=f"f{i}", missing=True) for i in range(FEATURES)]
    made = logistic_bundle(tmp_path, inputs, changes={"threshold": 0.5, "positive": "yes"})
    row = [None, 0.0, 0.0, 0.0, 0.0]
    with Scorer.open(made.folder) as scorer:
        answer, batch = scorer.score(row), scorer.score_batch([row, [0.0] * FEATURES])
    assert (answer.label, answer.index, np.isnan(answer.score), np.isnan(answer.margin)) == (None, None, True, True)
    assert batch.index.tolist()[0] == -1
    assert batch.label[1] in ("no", "yes")


@pytest.mark.parametrize(("positive", "columns"), [("maybe", 1), ("c1", 3)])
def test_a_threshold_for_no_class_of_two_is_refused(tmp_path: Path, positive: str, columns: int) -> None:
    made = logistic_bundle(tmp_path, columns=columns, changes={"threshold": 0.4, "positive": positive})
    with pytest.raises(ArtifactError, match=f"the threshold 0.4 for class '{positive}' fits no two classes"):
        Scorer.open(made.folder)


def test_a_detector_says_normal_or_strange_and_its_margin_is_the_score(tmp_path: Path) -> None:
    made = detector_bundle(tmp_path, 2.0)
    rows = np.array([[0.0] * 5, [2.0, 0, 0, 0, 0], [9.0, 0, 0, 0, 0], [1.99, 0, 0, 0, 0]], np.float32)
    with Scorer.open(made.folder) as scorer:
        single, batch = [scorer.score(row) for row in rows], scorer.score_batch(rows)
        window = scorer.take_window(1)
    assert [s.label for s in single] == batch.label.tolist() == ["normal", "strange", "strange", "normal"]
    assert [s.score for s in single] == [s.margin for s in single] == batch.score.tolist() == batch.margin.tolist()
    assert [s.index for s in single] == [None] * 4
    assert single[0].probabilities is None
    assert window is not None
    assert window.body.classes == []
    assert window.body.scores == (2 * score_histogram(batch.score.astype(np.float64), made.reference.score_edges)).tolist()


def test_a_detector_without_threshold_has_a_score_only(tmp_path: Path) -> None:
    with Scorer.open(detector_bundle(tmp_path, None).folder) as scorer:
        assert scorer.score([9.0, 0, 0, 0, 0]).label is None
        assert scorer.score_batch([[9.0, 0, 0, 0, 0]]).label.tolist() == [None]
        assert scorer.decision.labels == ()


def test_the_spread_of_scores_is_that_of_the_validation_rows(tmp_path: Path) -> None:
    with Scorer.open(detector_bundle(tmp_path / "a", 2.0).folder) as scorer:
        # A sum of five standard normal values; 400 rows tell its deviation to about 8 %.
        assert scorer.score_spread == pytest.approx(np.sqrt(5), rel=0.1)
    with Scorer.open(logistic_bundle(tmp_path / "b").folder) as scorer:
        assert scorer.score_spread is None


def test_outliers_are_told_beside_the_answer_in_single_rows_and_batches(tmp_path: Path) -> None:
    made = outlier_bundle(tmp_path)
    rows = np.array([[0.0] * 5, [3.0, 0, 0, 0, 0], [3.5, 0, 0, 0, 0]], np.float32)
    with Scorer.open(made.folder, ring_rows=2) as scorer, Scorer.open(made.folder, outlier=False) as bare:
        single, batch = [scorer.score(row) for row in rows], scorer.score_batch(rows)
        window = scorer.take_window(1)
        for i, row in enumerate(rows):
            plain = bare.score(row)
            assert (plain.outlier, plain.label, plain.score, plain.margin) == (None, single[i].label, single[i].score, single[i].margin)
        without = bare.score_batch(rows)
        other = bare.take_window(1)
    assert [s.outlier for s in single] == [False, False, True]  # above the threshold, not at it
    assert batch.outlier is not None
    assert batch.outlier_scores is not None
    assert batch.outlier.tolist() == [False, False, True]
    assert batch.outlier_scores.tolist() == [0.0, 3.0, 3.5]
    assert window is not None
    assert window.body.outliers == 2
    assert (without.outlier, without.outlier_scores) == (None, None)
    assert other is not None
    assert other.body.outliers is None


def test_a_value_that_is_clipped_is_an_outlier_by_what_came_in_and_a_rejected_row_is_none(tmp_path: Path) -> None:
    made = outlier_bundle(tmp_path, inputs=numbers(low=-1.0, high=1.0, range_policy="clip"))
    with Scorer.open(made.folder) as scorer:
        clipped = scorer.score([50.0, 0, 0, 0, 0])
        batch = scorer.score_batch([[50.0, 0, 0, 0, 0], [float("inf"), 0, 0, 0, 0], [float("nan")] * 5])
        window = scorer.take_window(1)
    assert clipped.outlier is True
    assert batch.outlier is not None
    assert batch.outlier.tolist() == [True, False, False]
    assert sorted(batch.rejected) == [1, 2]
    assert window is not None
    assert (window.body.outliers, window.body.answered) == (2, 2)


def test_a_detector_that_answers_nan_cannot_tell(tmp_path: Path) -> None:
    from onnx import helper, numpy_helper

    nodes = [
        helper.make_node("ReduceSum", ["inputs", "axis"], ["sum"], keepdims=1),
        helper.make_node("Sqrt", ["sum"], ["margin"]),  # NaN below zero
    ]
    ends = [helper.make_tensor_value_info("inputs", 1, [None, FEATURES])], [helper.make_tensor_value_info("margin", 1, [None, 1])]
    graph = helper.make_graph(nodes, "root", *ends, [numpy_helper.from_array(np.array([1], np.int64), "axis")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    with Scorer.open(outlier_bundle(tmp_path, model.SerializeToString()).folder) as scorer:
        answer = scorer.score([-1.0, 0, 0, 0, 0])
        window = scorer.take_window(1)
    assert answer.outlier is None
    assert answer.label in ("no", "yes")
    assert window is not None
    assert (window.body.outliers, window.body.answered) == (0, 1)


def test_a_failing_detector_hurts_no_answer_and_is_counted(tmp_path: Path) -> None:
    with Scorer.open(outlier_bundle(tmp_path, table_graph()).folder) as scorer:
        answer = scorer.score([9.0, 0, 0, 0, 0])  # the table has two entries
        batch = scorer.score_batch([[9.0, 0, 0, 0, 0]])
        window = scorer.take_window(1)
        with pytest.raises(ArtifactError, match="the outlier detector failed on 1 rows"):
            _ = answer.outlier
        fine = scorer.score([1.0, 1, 1, 1, 0])
    assert fine.outlier is True  # read after the scorer was closed
    assert answer.label == batch.label[0]
    assert batch.outlier is not None
    assert batch.outlier.tolist() == [False]
    assert window is not None
    assert (window.body.answered, window.body.outliers, window.body.rejected) == (2, 0, {"outlier-detector": 2})


def test_a_detector_of_other_rows_than_the_model_is_refused(tmp_path: Path) -> None:
    four = outlier_bundle(tmp_path / "a", regression_graph(np.ones(4, np.float32)))
    classes = outlier_bundle(tmp_path / "b", logistic_graph(np.ones((5, 1), np.float32), np.ones(1, np.float32)))
    for made in (four, classes):
        with pytest.raises(ArtifactError, match=r"outlier.onnx takes rows of shape .* expected \[5\], 1 and 0"):
            Scorer.open(made.folder)
        Scorer.open(made.folder, outlier=False).close()


def test_a_damaged_detector_is_an_artifact_error_before_it_is_parsed(tmp_path: Path) -> None:
    made = outlier_bundle(tmp_path)
    content = (tmp_path / "outlier.onnx").read_bytes()
    (tmp_path / "outlier.onnx").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ArtifactError, match=r"outlier.onnx: sha256"):
        Scorer.open(made.folder)


def test_c_source_is_never_chosen_and_says_why_when_asked_for(tmp_path: Path) -> None:
    made = logistic_bundle(tmp_path)
    manifest: dict[str, Any] = json.loads((made.folder / "manifest.json").read_text())
    first = {**manifest["variants"][0], "name": "c", "runtime": "c"}
    manifest["variants"].insert(0, first)
    (made.folder / "manifest.json").write_text(json.dumps(manifest))
    both = Bundle.open(made.folder).manifest
    assert choose_variant(both)[0].name == "onnx-fp32"
    with pytest.raises(ConfigError, match="variant c is c source to compile into firmware"):
        choose_variant(both, "c")
    manifest["variants"] = [first]
    (made.folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ConfigError, match="nothing that an agent runs, only c"):
        choose_variant(Bundle.open(made.folder).manifest)


def test_a_model_that_fails_on_the_rows_of_an_explanation_is_an_artifact_error(tmp_path: Path) -> None:
    x, _ = training_rows()
    background = npz_bytes({"method": np.array("sampled"), "background": np.full((4, FEATURES), 7, np.float32)})
    write_bundle(tmp_path, table_graph(), x, numbers(), [], ("sampled", background))
    with Scorer.open(tmp_path) as scorer:
        assert scorer.score([0, 0, 0, 0, 1]).score == 1.0
        with pytest.raises(ArtifactError, match="failed on rows of an explanation"):
            scorer.score([0, 0, 0, 0, 1], explain=True)
