"""Rows of one source, one by one: the same answers as windows, warming up at the start, after refusals and after gaps."""

import threading
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from device_agent import Scorer
from device_agent.row_stream import StreamAnswer, WarmingUp
from device_agent.score import Score
from edgefleet.errors import ConfigError, RowRejected
from edgefleet.grid import Grid
from edgefleet.statistics import InputStatistics
from tests.unit.device_agent.bundles import FEATURES, forest_bundle, numbers
from tests.unit.device_agent.test_scorer_windows import ROWS, window_bundle


def source(n: int, seed: int = 4) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(n, FEATURES)).astype(np.float32)


def kinds(answers: list[StreamAnswer]) -> str:
    """One letter an answer: s(cored), w(arming up), r(efused)."""
    return "".join("s" if isinstance(a, Score) else "w" if isinstance(a, WarmingUp) else "r" for a in answers)


def margins(answers: list[StreamAnswer]) -> list[float]:
    return [float(answer.margins[0]) for answer in answers if isinstance(answer, Score)]


def test_a_stream_answers_what_its_windows_answer_and_counts_each_row_once(tmp_path: Path) -> None:
    x = source(30)
    with Scorer.open(window_bundle(tmp_path).folder) as scorer:
        answers = list(scorer.score_stream(x))
        told = scorer.take_window()
        batch = scorer.score_batch(np.stack([x[i : i + ROWS] for i in range(len(x) - ROWS + 1)]))
    assert kinds(answers) == "w" * (ROWS - 1) + "s" * (30 - ROWS + 1)
    np.testing.assert_allclose(margins(answers), batch.margins[:, 0], rtol=1e-6, atol=1e-6)
    assert told is not None
    assert InputStatistics.from_bytes(told.body.statistics).rows == told.body.answered == 30 - ROWS + 1


def test_while_it_warms_up_a_stream_says_how_far_it_is(tmp_path: Path) -> None:
    with Scorer.open(window_bundle(tmp_path).folder) as scorer:
        first = scorer.stream().push(source(1)[0])
        assert isinstance(first, WarmingUp)
        assert (first.status, first.warming_up, first.digest) == ("warming_up", f"warming_up, 1 of {ROWS}", scorer.digest)
        assert f"1 of {ROWS}" in repr(first)


def test_rows_as_lists_and_mappings_are_the_same_stream(tmp_path: Path) -> None:
    x = source(8)
    names = [column.name for column in numbers()]
    with Scorer.open(window_bundle(tmp_path).folder) as scorer:
        by_array, by_list = list(scorer.score_stream(x)), list(scorer.score_stream(x.tolist()))
        by_name = list(scorer.score_stream(dict(zip(names, row, strict=True)) for row in x.tolist()))
    assert margins(by_array) == margins(by_list) == margins(by_name) != []


@pytest.mark.parametrize("bad", [[1.0], ["text"] * FEATURES, [float("inf")] * FEATURES, [None] * FEATURES, 3])
@pytest.mark.parametrize("at", [1, 6])
def test_a_refused_row_is_answered_counted_and_empties_the_window(tmp_path: Path, bad: object, at: int) -> None:
    rows: list[object] = source(12).tolist()
    rows[at] = bad
    with Scorer.open(window_bundle(tmp_path).folder) as scorer:
        answers = list(scorer.score_stream(rows))  # type: ignore[arg-type]
        told = scorer.take_window()
    before, after = at, 12 - at - 1
    warm = ROWS - 1
    assert kinds(answers) == ("w" * min(before, warm) + "s" * max(before - warm, 0) + "r" + "w" * warm + "s" * (after - warm))
    assert told is not None
    assert sum(told.body.rejected.values()) == 1


def test_two_streams_of_one_scorer_keep_their_rows_apart(tmp_path: Path) -> None:
    x, y = source(10), source(10, seed=5)
    with Scorer.open(window_bundle(tmp_path).folder) as scorer:
        one, other = scorer.stream(), scorer.stream()
        mixed = [(one.push(a), other.push(b)) for a, b in zip(x, y, strict=True)]
        assert margins([a for a, _ in mixed]) == margins(list(scorer.score_stream(x)))
        assert margins([b for _, b in mixed]) == margins(list(scorer.score_stream(y)))


def test_after_clear_nothing_reaches_back(tmp_path: Path) -> None:
    x = source(2 * ROWS)
    with Scorer.open(window_bundle(tmp_path).folder) as scorer:
        stream = scorer.stream()
        for row in x[:ROWS]:
            stream.push(row)
        stream.clear()
        assert kinds([stream.push(row) for row in x[ROWS:]]) == "w" * (ROWS - 1) + "s"


def test_a_model_of_single_rows_answers_every_row_of_a_stream(tmp_path: Path) -> None:
    made = forest_bundle(tmp_path)
    with Scorer.open(made.folder) as scorer:
        streamed = list(scorer.score_stream(made.x[:20]))
        assert margins(streamed) == [float(scorer.score(row).margins[0]) for row in made.x[:20]]


def test_rows_that_arrive_at_any_time_are_answered_on_the_grid(tmp_path: Path) -> None:
    x = source(12)
    with Scorer.open(window_bundle(tmp_path).folder) as scorer:
        stream = scorer.stream(Grid(FEATURES, 1.0, hold=1, reset_after=3))
        found = [pair for i, row in enumerate(x) for pair in stream.push_at(100.2 + i, row)]
        assert [at for at, _ in found] == [101.0 + i for i in range(11)]
        assert kinds([answer for _, answer in found]) == "w" * (ROWS - 1) + "s" * (11 - ROWS + 1)
        assert margins([answer for _, answer in found]) == margins(list(scorer.score_stream(x[:11])))
        after = stream.push_at(150.2, x[0])  # a long silence: the open point is answered, then the window begins anew
        assert [at for at, _ in after] == [112.0]
        assert kinds([answer for i in range(1, 4) for _, answer in stream.push_at(150.2 + i, x[i])])[: ROWS - 1] == "w" * (ROWS - 1)


def test_a_late_row_and_one_without_a_time_are_counted(tmp_path: Path) -> None:
    x = source(3)
    with Scorer.open(window_bundle(tmp_path).folder) as scorer:
        stream = scorer.stream(Grid(FEATURES, 1.0))
        stream.push_at(100.5, x[0])
        stream.push_at(105.5, x[1])
        assert stream.push_at(101.5, x[2]) == []
        with pytest.raises(RowRejected, match="seconds since 1970"):
            stream.push_at(float("nan"), x[2])
        told = scorer.take_window()
    assert told is not None
    assert (told.body.rejected["late"], told.body.rejected["type"]) == (1, 1)


def test_a_stream_says_which_way_its_rows_come(tmp_path: Path) -> None:
    with Scorer.open(window_bundle(tmp_path).folder) as scorer:
        with pytest.raises(ConfigError, match="call push_at"):
            scorer.stream(Grid(FEATURES, 1.0)).push(source(1)[0])
        with pytest.raises(ConfigError, match="has no grid"):
            scorer.stream().push_at(1.0, source(1)[0])


def test_four_threads_on_one_stream_lose_no_row(tmp_path: Path) -> None:
    x = source(200)
    with Scorer.open(window_bundle(tmp_path).folder) as scorer:
        stream = scorer.stream()
        answers: list[StreamAnswer] = []

        def push(rows: NDArray[np.float32]) -> None:
            answers.extend(stream.push(row) for row in rows)

        threads = [threading.Thread(target=push, args=(x[i::4],)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(kinds(list(answers))) == ["s"] * (200 - ROWS + 1) + ["w"] * (ROWS - 1)
