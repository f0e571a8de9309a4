"""A model whose training rows were put on a grid: live rows and rows of files go to the same grid, and become the trainer's windows."""

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from device_agent import Scorer
from device_agent.doors.batch.rows import Position
from device_agent.score import Score
from edgefleet.errors import ConfigError, RowRejected
from edgefleet.grid import Sampling
from tests.unit.device_agent.batch_world import NAMES, csv_text, lines_of, score, table_of
from tests.unit.device_agent.bundles import FEATURES, numbers, training_rows, write_bundle
from trainer.settings import Window
from trainer.windows import make_windows

ROWS, RATE_S, HOLD, RESET = 3, 1.0, 2, 6
PRESENT = NAMES[:-1]
# Of f4 a training row could lack the value, of the others not; on the grid each may be missing.
INPUTS = [msgspec.structs.replace(column, missing=True) for column in numbers(low=-3.0, high=3.0, range_policy="reject")]


def echo_graph() -> bytes:
    """The margins are the window itself: what the model was given can be read off its answer, bit for bit."""
    from onnx import helper

    width = ROWS * FEATURES
    nodes = [
        helper.make_node("Flatten", ["inputs"], ["margin"], axis=1),
        helper.make_node("Softmax", ["margin"], ["probabilities"], axis=1),
    ]
    outputs = [helper.make_tensor_value_info(name, 1, [None, width]) for name in ("margin", "probabilities")]
    graph = helper.make_graph(nodes, "echo", [helper.make_tensor_value_info("inputs", 1, [None, ROWS, FEATURES])], outputs)
    return bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString())


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sampling = Sampling(rate_s=RATE_S, hold=HOLD, reset_after=RESET, time="at", group="machine", present=PRESENT)
    classes = [f"c{i}" for i in range(ROWS * FEATURES)]
    x, _ = training_rows()
    changes = {"window_rows": ROWS, "sampling": sampling}
    return write_bundle(tmp_path_factory.mktemp("bundle"), echo_graph(), x, INPUTS, classes, changes=changes).folder


def recorded(n: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Rows of one machine at uneven times: several in one second, none for some, silences that are held, outlast the hold, and reset."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-2, 2, (n, FEATURES)).astype(np.float32)
    x[rng.random(n) < 0.3, -1] = np.nan
    steps = rng.choice([0.05, 0.4, 1.0, 1.7, 3.0, 4.5, 30.0], n, p=[0.2, 0.3, 0.2, 0.15, 0.06, 0.06, 0.03])
    return x, 1_790_000_000.0 + np.cumsum(steps)


def trained(x: NDArray[np.float32], at: NDArray[np.float64], group: NDArray[Any] | None = None) -> dict[int, NDArray[np.float32]]:
    """The windows that the trainer makes of the rows, by the row whose label each has."""
    windows, last = make_windows(x, group, at, Window(rows=ROWS, rate_s=RATE_S, hold=HOLD, reset_after=RESET))
    return dict(zip(last.tolist(), windows, strict=True))


def given(answer: Score) -> NDArray[np.float32]:
    """The window that the model was given."""
    return np.asarray(answer.margins, np.float32).reshape(ROWS, FEATURES)


def test_streamed_rows_become_the_trainer_s_windows_bit_for_bit(bundle: Path) -> None:
    x, at = recorded(600, 1)
    labelled, held = trained(x, at), 0
    found: dict[int, NDArray[np.float32]] = {}
    with Scorer.open(bundle) as scorer:
        stream = scorer.stream()
        for i, (time_s, row) in enumerate(zip(at.tolist(), x, strict=True)):
            # The first point that a row completes was gathered from the rows before it; the others are held values without a label.
            answers = [answer for _, answer in stream.push_at(time_s, row)]
            held += len(answers[1:])
            if answers and isinstance(answers[0], Score):
                found[i - 1] = given(answers[0])
    assert sorted(found) == sorted(labelled)
    assert len(found) > 150
    assert held > 20
    for i, window in labelled.items():
        assert found[i].tobytes() == window.tobytes()
    assert any(np.isnan(window[:, 0]).any() for window in labelled.values())  # a value that its schema demands, missing on the grid


def test_score_stream_at_answers_what_the_stream_answers(bundle: Path) -> None:
    x, at = recorded(80, 2)
    with Scorer.open(bundle) as scorer:
        stream = scorer.stream()
        pushed = [pair for time_s, row in zip(at.tolist(), x, strict=True) for pair in stream.push_at(time_s, row)]
        streamed = list(scorer.score_stream_at(zip(at.tolist(), x, strict=True)))
    assert [when for when, _ in streamed] == [when for when, _ in pushed]
    assert [type(answer) for _, answer in streamed] == [type(answer) for _, answer in pushed]
    assert sum(isinstance(answer, Score) for _, answer in streamed) > 20


def test_a_refused_row_is_told_and_does_not_come_to_the_grid(bundle: Path) -> None:
    x, at = np.zeros((8, FEATURES), np.float32), np.arange(8.0)
    x[:, 1] = np.arange(8)
    bad = x.copy()
    bad[4, 0], bad[5, 2] = 9.0, np.nan  # out of range; missing where a row must have a value
    good = [0, 1, 2, 3, 6, 7]
    with Scorer.open(bundle) as scorer:
        answers = list(scorer.score_stream_at(zip(at.tolist(), bad, strict=True)))
        told = scorer.take_window()
    refused = [(when, answer.feature, answer.reason) for when, answer in answers if isinstance(answer, RowRejected)]
    assert refused == [(4.0, "f0", "range"), (5.0, "f2", "missing")]
    by_time = {when: given(answer) for when, answer in answers if isinstance(answer, Score)}
    for i, window in trained(x[good], at[good]).items():
        assert by_time[at[good][i]].tobytes() == window.tobytes()
    assert told is not None
    assert (told.body.rejected["range"], told.body.rejected["missing"]) == (1, 1)


def test_rows_without_times_are_refused_unless_they_are_on_the_grid_already(bundle: Path) -> None:
    x, _ = recorded(5, 3)
    with Scorer.open(bundle) as scorer:
        with pytest.raises(ConfigError, match="needs the time of each"):
            list(scorer.score_stream(x))
        stream = scorer.stream(None)
        answers = [stream.push(row) for row in x]
    assert isinstance(answers[-1], Score)
    assert given(answers[-1]).tobytes() == x[-ROWS:].tobytes()


def file_of(folder: Path, x: NDArray[np.float32], at: NDArray[np.float64], machine: list[str]) -> Path:
    lines = csv_text(x).replace("nan", "").splitlines()
    lines = [
        f"{line},{when},{name}" for line, when, name in zip(lines, ["at", *map(repr, at.tolist())], ["machine", *machine], strict=True)
    ]
    (folder / "in.csv").write_text("\n".join(lines) + "\n")
    return folder / "in.csv"


def mixed(n: int) -> tuple[NDArray[np.float32], NDArray[np.float64], list[str]]:
    """Two machines' rows in turns; each machine's own are in the order of time."""
    (one, one_at), (other, other_at) = recorded(n, 4), recorded(n, 5)
    order = np.argsort(np.concatenate([one_at, other_at]), kind="stable")
    machine = np.array(["a"] * n + ["b"] * n)
    return np.concatenate([one, other])[order], np.concatenate([one_at, other_at])[order], machine[order].tolist()


@pytest.mark.parametrize("kind", ["csv", "ndjson", "parquet"])
def test_rows_of_a_file_go_to_the_grid_by_the_columns_of_the_training(bundle: Path, tmp_path: Path, kind: str) -> None:
    import pyarrow
    import pyarrow.csv
    import pyarrow.parquet

    x, at, machine = mixed(300)
    source = file_of(tmp_path, x, at, machine)
    table = pyarrow.csv.read_csv(source)
    pyarrow.parquet.write_table(table, tmp_path / "in.parquet")
    (tmp_path / "in.ndjson").write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))

    outcome = score(bundle, tmp_path / f"in.{kind}", tmp_path / "out.ndjson")

    lines = lines_of(tmp_path / "out.ndjson")
    labelled = trained(x, at, np.array(machine))
    # A row stands for the grid point that it completes, which the row of its machine before it was the last one of.
    before = {i: next((j for j in range(i - 1, -1, -1) if machine[j] == machine[i]), -1) for i in range(len(x))}
    answered = {before[line["row"] - 1]: line for line in lines if line["status"] == "ok"}
    assert sorted(answered) == sorted(labelled)
    with Scorer.open(bundle) as scorer:
        expected = scorer.score_batch(np.stack([labelled[i] for i in sorted(labelled)]))
    shown = np.array([answered[i]["score"] for i in sorted(answered)], np.float64)
    # Windows of other batches: the last bit of a softmax. NaN is null.
    np.testing.assert_allclose(shown, expected.score, rtol=1e-6)
    for i, line in answered.items():
        assert line["at"] == np.ceil(at[i])
    tally = outcome.tally
    assert (tally.offered, tally.scored) == (600, len(labelled))
    assert tally.offered == tally.scored + tally.warming_up + tally.gathered + tally.refused
    assert tally.gathered > 100


def test_an_interrupted_run_goes_on_in_the_middle_of_a_grid_point(bundle: Path, tmp_path: Path) -> None:
    x, at, machine = mixed(1200)
    source = file_of(tmp_path, x, at, machine)
    score(bundle, source, tmp_path / "whole.csv")

    def once(_: Position, __: int | None) -> bool:
        return True

    score(bundle, source, tmp_path / "out.csv", said=once)
    last = score(bundle, source, tmp_path / "out.csv", resume=True)

    assert last.resumed_at == 1024
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert {row["status"] for row in table_of(tmp_path / "out.csv")} == {"ok", "warming_up", "gathered"}


def test_a_late_row_is_refused_and_a_group_may_be_left_out(bundle: Path, tmp_path: Path) -> None:
    x, at = np.ones((6, FEATURES), np.float32), np.array([0.5, 1.5, 2.5, 3.5, 1.2, 4.5])
    source = file_of(tmp_path, x, at, ["a", "b", "a", "b", "a", "b"])

    outcome = score(bundle, source, tmp_path / "out.csv", group="")

    assert [row["status"] for row in table_of(tmp_path / "out.csv")] == ["gathered", "warming_up", "warming_up", "ok", "rejected", "ok"]
    assert [row["at"] for row in table_of(tmp_path / "out.csv")] == ["", "1.0", "2.0", "3.0", "", "4.0"]
    assert outcome.tally.rejected == {"late": 1}


@pytest.mark.parametrize(
    ("wishes", "words"), [({"max_gap_s": 3.0}, "--max-gap is for models without a grid"), ({"time": "f0"}, "is an input of the model")]
)
def test_wishes_that_contradict_the_grid_are_refused(bundle: Path, tmp_path: Path, wishes: dict[str, Any], words: str) -> None:
    source = file_of(tmp_path, *recorded(5, 1), ["a"] * 5)
    with pytest.raises(ConfigError, match=words):
        score(bundle, source, tmp_path / "out.csv", **wishes)
