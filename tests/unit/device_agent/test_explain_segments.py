"""When in a window something moved the margin: every method, every door, telemetry and the fleet's page tell the same segments."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from device_agent.doors.http.explaining import explainer_outputs
from device_agent.doors.mqtt.reply import of_score
from device_agent.explain import open_explainer
from device_agent.explanation import Explanation, Matrix
from device_agent.scorer import Scorer
from edgefleet.errors import ArtifactError
from edgefleet.manifest import Input
from edgefleet.messages import ExplanationBody, decode, encode
from edgefleet.package import npz_bytes
from edgefleet.players import segmented
from edgefleet.steps import Steps
from edgefleet.steps.trace import Trace
from tests.unit.device_agent.batch_world import csv_text, lines_of, score
from tests.unit.device_agent.bundles import Made, forest_arrays, numbers, training_rows, write_bundle
from tests.unit.device_agent.http_world import world
from tests.unit.device_agent.test_scorer_windows import ROWS, WEIGHTS, window_graph, windows

Arrays = dict[str, NDArray[Any]]


def opened(arrays: Arrays, names: tuple[str, ...], columns: int = 1) -> Any:
    return open_explainer(npz_bytes(arrays), str(arrays["method"]), names, columns)


def no_model(rows: Matrix) -> Matrix:
    raise AssertionError("this form asks no model")


def student() -> Arrays:
    """Windows [4, 2] in two segments: each value has its own weight; one hidden unit gives player 3 five times what newest b has over 1."""
    own = np.array([[1, 10, 2, 20, 3, 30, 4, 40]], np.float32)
    return {
        "method": np.array("amortised"),
        "values": np.array(8),
        "numbers": np.arange(8),
        "mean": np.zeros(8, np.float32),
        "rate": np.ones(8, np.float32),
        "coded": np.zeros(0, np.int64),
        "codes": np.zeros(0, np.float32),
        "limit": np.array(10.0, np.float32),
        "base": np.array([0.5]),
        "first": np.array([[0.0]] * 7 + [[1.0]], np.float32),
        "first_bias": np.array([-1.0], np.float32),
        "second": np.array([[[0.0, 0.0, 0.0, 5.0]]], np.float32),
        "second_bias": np.zeros((1, 4), np.float32),
        "own": own,
        "error": np.array([[0.25, 0.75]]),
        "rest": np.array([[0.5, 0.25, 0.25, 0.0]]),
        "players": segmented(4, 2, 2).astype(np.int64),
    }


def segment_bundle(folder: Path) -> Made:
    """A model of three rows, each of them a segment of its own, explained by sampling."""
    x, _ = training_rows()
    background = np.stack([x[i : i + ROWS] for i in range(16)])
    arrays: Arrays = {"method": np.array("sampled"), "background": background, "players": segmented(ROWS, 5, 3).astype(np.int64)}
    changes = {"window_rows": ROWS, "shape": [ROWS, 5]}
    return write_bundle(folder, window_graph(), x, numbers(unit="mm/s"), ["no", "yes"], ("sampled", npz_bytes(arrays)), changes=changes)


def wanted_segments(made: Made, window: Matrix, label: str | None) -> NDArray[np.float64]:
    """A linear model: every coalition's value is a sum, so that each value's part is its weight times its distance to the background."""
    background = np.stack([made.x[i : i + ROWS] for i in range(16)]).mean(axis=0)
    moved: NDArray[np.float64] = (WEIGHTS.reshape(ROWS, 5) * (window - background)).astype(np.float64)
    return moved if label == "yes" else -moved


def test_a_student_of_segments_tells_them_and_their_sums_with_the_channels_error() -> None:
    row = np.array([[1, 0], [1, 0], [0, 1], [0, 2]], np.float32)

    found = opened(student(), ("a", "b")).explain(row, None, 118.5, no_model)

    # Own: a 1 + 2 in the older half, b 30 + 80 in the newer, and 5 x (2 - 1). Together 118: no rest.
    np.testing.assert_allclose(found.segments, [[3, 0], [0, 115]])
    np.testing.assert_allclose(found.contributions, [3, 115])
    np.testing.assert_array_equal(found.error, [0.25, 0.75])
    assert found.segment_rows_back == ((3, 2), (1, 0))
    assert abs(found.gap) < 1e-9
    # A rest of 4 is shared among segments.
    found = opened(student(), ("a", "b")).explain(row, None, 122.5, no_model)
    np.testing.assert_allclose(found.segments, [[5, 1], [1, 115]])


@pytest.mark.parametrize(
    "change",
    [
        {"players": segmented(8, 1, 2).astype(np.int64)},
        {"players": segmented(3, 2, 2).astype(np.int64)},
        {"players": segmented(4, 2, 4).astype(np.int64)},
        {"players": segmented(4, 2, 2)[::-1].astype(np.int64)},
        {"players": segmented(4, 2, 2).astype(np.float64)},
        {"error": np.zeros((1, 4))},
        {"rest": np.zeros((1, 2))},
    ],
)
def test_a_student_whose_segments_do_not_fit_is_refused(change: Arrays) -> None:
    with pytest.raises(ArtifactError):
        opened(student() | change, ("a", "b"))


def test_segments_of_other_windows_than_the_background_are_refused() -> None:
    arrays = {"method": np.array("sampled"), "background": np.zeros((2, 6, 2), np.float32), "players": segmented(4, 2, 2).astype(np.int64)}

    with pytest.raises(ArtifactError, match=r"\[4, 2\].*\[6, 2\]"):
        opened(arrays, ("a", "b"))


def window_steps() -> Steps:
    """Scaled by column, with a flag for gaps of b: nothing reaches over rows."""
    trace = Trace((4, 2))
    gap = trace.isnan(trace.take(0, [1]))
    trace.concat([trace.mul(0, np.array([2, 1], np.float32)), trace.f32(gap)])
    return Steps(tuple(trace.ops), ("a", "b", "b missing"), (0, 1, 1))


def linear() -> Arrays:
    """Three cleaned columns of four rows, the weight of each value its place."""
    return {
        "method": np.array("linear"),
        "weight": np.arange(12.0)[:, None],
        "mean": np.zeros(12),
        "base": np.array([1.0]),
        "steps_0": np.frombuffer(window_steps().to_json(), np.uint8),
        "rows": np.repeat(np.arange(4), 3),
    }


def test_a_linear_model_of_windows_says_exactly_when() -> None:
    row = np.array([[1, 0], [0, 3], [0, 0], [5, 0]], np.float32)

    found = opened(linear(), ("a", "b")).explain(row, None, 1 + 0 + 4 * 3 + 9 * 10, no_model)

    np.testing.assert_array_equal(found.segments, [[0, 0], [0, 12], [0, 0], [90, 0]])
    np.testing.assert_array_equal(found.contributions, [90, 12])
    assert found.segment_rows_back == ((3, 3), (2, 2), (1, 1), (0, 0))
    assert found.gap == 0.0
    without = {name: array for name, array in linear().items() if name != "rows"}
    older = opened(without, ("a", "b")).explain(row, None, 103.0, no_model)
    assert older.segments is None
    np.testing.assert_array_equal(older.contributions, found.contributions)


@pytest.mark.parametrize(
    "rows",
    [np.arange(4), np.repeat(np.arange(4), 3) + 1, np.repeat(np.arange(4), 3) - 1, np.repeat(np.arange(4.0), 3), np.zeros((4, 3), int)],
)
def test_rows_of_cleaned_values_that_do_not_fit_are_refused(rows: NDArray[Any]) -> None:
    with pytest.raises(ArtifactError):
        opened(linear() | {"rows": rows}, ("a", "b"))


def test_rows_without_a_window_are_refused() -> None:
    flat: Arrays = {"method": np.array("linear"), "weight": np.ones((2, 1)), "mean": np.zeros(2), "base": np.zeros(1)}

    with pytest.raises(ArtifactError, match="windows of 0 rows"):
        opened(flat | {"rows": np.zeros(2, np.int64)}, ("a", "b"))


def test_trees_over_windows_say_exactly_when() -> None:
    from sklearn.ensemble import RandomForestClassifier

    rng = np.random.default_rng(3)
    x = rng.normal(size=(300, 4, 2)).astype(np.float32)
    label = (x[:, 3, 1] + 0.5 * x[:, 0, 0] > 0).astype(np.int64)
    arrays = forest_arrays(RandomForestClassifier(10, max_depth=4, random_state=0).fit(x.reshape(300, -1), label))
    steps: Arrays = {"steps_0": np.frombuffer(Steps.identity((4, 2)).to_json(), np.uint8), "rows": np.repeat(np.arange(4), 2)}
    flat = opened(arrays, tuple(f"x{i}" for i in range(8)), 2)

    explainer = opened(arrays | steps, ("a", "b"), 2)

    for row in x[:10]:
        found, wanted = explainer.explain(row, 1, 0.0, no_model), flat.explain(row.ravel(), 1, 0.0, no_model)
        np.testing.assert_allclose(found.segments, wanted.contributions.reshape(4, 2), atol=1e-12)
        np.testing.assert_allclose(found.contributions, found.segments.sum(axis=0), atol=1e-12)
        assert np.abs(found.segments).argmax() in (0, 7)


def told(segments: list[list[float]]) -> Explanation:
    parts = np.array(segments)
    return Explanation(
        0.5, parts.sum(axis=0), ("vibration", "flow"), "sampled", np.zeros(2), 0.0, parts, ((63, 48), (47, 32), (31, 16), (15, 0))
    )


def test_words_and_plain_values_say_when_each_named_input_moved_the_answer() -> None:
    inputs, row = [Input(name="vibration", unit="mm/s"), Input(name="flow")], np.array([8.1, 2.0], np.float32)
    explanation = told([[0.1, 0.0], [0.2, -0.1], [1.5, 0.0], [0.1, -0.5]])

    assert explanation.as_text(inputs, row, "failure") == (
        "vibration 8.1 mm/s pushed towards failure by +1.9, strongest 16-31 rows ago; "
        "flow 2 pushed away from failure by -0.6, strongest in the newest 16 rows"
    )
    plain = explanation.as_plain(inputs, row, 1)
    assert [entry["input"] for entry in plain] == ["vibration"]
    assert plain[0]["segments"] == [
        {"rows_back": [63, 48], "contribution": 0.1}, {"rows_back": [47, 32], "contribution": 0.2},
        {"rows_back": [31, 16], "contribution": 1.5}, {"rows_back": [15, 0], "contribution": 0.1},
    ]  # fmt: skip
    assert sum(part["contribution"] for part in plain[0]["segments"]) == pytest.approx(plain[0]["contribution"])


def test_the_scorer_explains_windows_by_segments_that_add_up(tmp_path: Path) -> None:
    made = segment_bundle(tmp_path)
    with Scorer.open(made.folder) as scorer:
        for window in windows(5):
            answer = scorer.score(window, explain=True)
            assert answer.explanation is not None
            assert answer.explanation.segments is not None
            np.testing.assert_allclose(answer.explanation.segments, wanted_segments(made, window, answer.label), atol=1e-5)
            assert (answer.explanation.contributions == answer.explanation.segments.sum(axis=0)).all()
        assert scorer.segment_rows_back == ((2, 2), (1, 1), (0, 0))


def test_the_mqtt_reply_has_the_segments_of_each_named_input(tmp_path: Path) -> None:
    made, window = segment_bundle(tmp_path), windows(1)[0]
    with Scorer.open(made.folder) as scorer:
        answer = scorer.score(window, explain=True)
        reply = of_score(answer, None)

    wanted = wanted_segments(made, window, answer.label)
    for entry in reply["explanation"]:
        column = int(entry["input"][1:])
        assert [part["rows_back"] for part in entry["segments"]] == [[2, 2], [1, 1], [0, 0]]
        np.testing.assert_allclose([part["contribution"] for part in entry["segments"]], wanted[:, column], atol=1e-5)


def test_the_http_explainer_has_segments_and_its_metadata_says_which_rows(tmp_path: Path) -> None:
    made, x = segment_bundle(tmp_path), windows(2)
    with world(made.folder) as one:
        metadata = one.ask("GET", "/v2/models/tiny.explainer").json
        tensor = {"name": "inputs", "datatype": "FP32", "shape": list(x.shape), "data": x.ravel().tolist()}
        reply = one.infer(tensor, path="tiny.explainer")
        plain = one.ask("GET", "/v2/models/tiny").json

    shapes = {output["name"]: output["shape"] for output in reply.json["outputs"]}
    assert (shapes["segments"], shapes["contributions"], shapes["gap"]) == ([2, 3, 5], [2, 5], [2])
    assert {"name": "segments", "datatype": "FP64", "shape": [-1, 3, 5]} in metadata["outputs"]
    assert metadata["parameters"]["segment_rows_back"] == [[2, 2], [1, 1], [0, 0]]
    assert "segment_rows_back" not in plain["parameters"]
    outputs = reply.outputs()
    found = np.array(outputs["segments"]).reshape(2, 3, 5)
    for i, window in enumerate(x):
        np.testing.assert_allclose(found[i], wanted_segments(made, window, outputs["label"][i]), atol=1e-5)
    np.testing.assert_allclose(found.sum(axis=1), np.array(outputs["contributions"]).reshape(2, 5), atol=1e-12)


def test_batch_answers_have_words_and_segments(tmp_path: Path) -> None:
    made, x = segment_bundle(tmp_path / "bundle"), windows(1)[0]
    (tmp_path / "in.csv").write_text(csv_text(x))

    score(made.folder, tmp_path / "in.csv", tmp_path / "out.ndjson", top=2)

    line = lines_of(tmp_path / "out.ndjson")[-1]
    wanted = wanted_segments(made, x, line["label"])
    for entry in line["explanation"]:
        np.testing.assert_allclose([part["contribution"] for part in entry["segments"]], wanted[:, int(entry["input"][1:])], atol=1e-4)
    assert ", strongest " in line["explanation_text"]


def test_a_bundle_with_players_for_whole_channels_has_no_segments_to_tell(tmp_path: Path) -> None:
    x, _ = training_rows()
    arrays = {"method": np.array("sampled"), "background": np.stack([x[i : i + ROWS] for i in range(16)]), "players": np.arange(5)}
    made = write_bundle(
        tmp_path, window_graph(), x, numbers(), ["no", "yes"], ("sampled", npz_bytes(arrays)), changes={"window_rows": ROWS}
    )
    window = windows(1)[0]
    with Scorer.open(made.folder) as scorer:
        answer = scorer.score(window, explain=True)
        assert [output.name for output in explainer_outputs(scorer)][:4] == ["contributions", "base", "gap", "error"]

    assert answer.explanation is not None
    assert answer.explanation.segments is None
    np.testing.assert_allclose(answer.explanation.contributions, wanted_segments(made, window, answer.label).sum(axis=0), atol=1e-5)
    assert "segments" not in of_score(answer, None)["explanation"][0]


def test_segments_survive_the_wire_and_bodies_of_before_have_none() -> None:
    body = ExplanationBody(
        bundle_digest="ab" * 32, label="x", score=0.5, margin=1.0, base=0.0, contributions=[0.5, 0.5], method="sampled",
        segments=[[0.25, 0.5], [0.25, 0.0]],
    )  # fmt: skip

    assert decode(ExplanationBody, encode(body)) == body
    import msgspec

    older = msgspec.msgpack.encode(msgspec.msgpack.decode(encode(body))[:-1])
    assert decode(ExplanationBody, older).segments == []
