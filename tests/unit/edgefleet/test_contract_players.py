"""Who plays with whom in a coalition: time segments are contiguous and nearly equal, and files that break the rule are refused."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgefleet.errors import ArtifactError
from edgefleet.players import (
    MAX_PLAYERS,
    MAX_SEGMENTS,
    by_segment,
    players_of,
    rows_back,
    segment_of_rows,
    segmented,
    segments_for,
    strongest_when,
)


@pytest.mark.parametrize("window_rows", [1, 2, 5, 7, 8, 31, 64, 1000])
@pytest.mark.parametrize("inputs", [1, 3, 4, 17, 33, 500])
def test_segments_cover_every_row_once_in_nearly_equal_lengths_within_the_limits(window_rows: int, inputs: int) -> None:
    segments = segments_for(window_rows, inputs)
    segment = segment_of_rows(window_rows, segments)

    lengths = np.bincount(segment, minlength=segments)
    assert 1 <= segments <= min(window_rows, MAX_SEGMENTS)
    assert segments == 1 or segments * inputs <= MAX_PLAYERS
    assert (np.diff(segment) >= 0).all()
    assert np.ptp(lengths) <= 1
    told = [list(range(newest, oldest + 1)) for oldest, newest in rows_back(segment)]
    assert [row for rows in reversed(told) for row in rows] == list(range(window_rows))


def test_a_players_number_says_its_segment_and_its_channel() -> None:
    players = segmented(9, 3, 4)

    for row in range(9):
        for channel in range(3):
            assert divmod(int(players[row, channel]), 3) == (row * 4 // 9, channel)
    assert by_segment(np.arange(12.0), 3).tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]


def test_players_of_files_are_read_back_and_none_is_one_for_each_input() -> None:
    assert players_of(None, 3).tolist() == [0, 1, 2]
    assert players_of(np.array([0, 0, 1]), 3).tolist() == [0, 0, 1]
    assert players_of(segmented(6, 2, 3), 2).tolist() == segmented(6, 2, 3).tolist()


@pytest.mark.parametrize(
    "players",
    [
        np.array([0, 1, 2]),
        np.array([0, 2]),
        np.array([-1, 0]),
        np.array([0.0, 1.0]),
        np.array([0, 1], np.uint8),
        np.array(0),
        np.zeros((0, 2), np.int64),
        np.zeros((2, 2, 2), np.int64),
        segmented(6, 3, 2),
        segmented(6, 2, 3).astype(float),
        segmented(6, 2, 3) + 2,  # the first segment is missing
        segmented(6, 2, 3)[::-1],  # the newest first
        segmented(6, 2, 3)[[0, 2, 1, 3, 4, 5]],  # not contiguous
        segmented(6, 2, 3)[[0, 1, 4, 5]],  # a segment left out
        segmented(6, 2, 3) // 2,  # one player of two channels
        np.array([[0, 1], [0, 3], [2, 3]]),  # channels cut at different rows
        np.array([[-2, -1], [0, 1]]),
        np.array([[0, 1], [2**62, 2**62 + 1]]),
    ],
)
def test_players_that_break_the_rule_are_refused(players: NDArray[Any]) -> None:
    with pytest.raises(ArtifactError, match="players"):
        players_of(players, 2)


@pytest.mark.parametrize(
    ("moved", "said"),
    [
        ([3, 1, 0], "strongest 7-9 rows ago"),
        ([0, 3, 2], "strongest 1-6 rows ago"),
        ([0, 1, 9], "strongest in the newest row"),
        ([5, -9, 1], "strongest 1-6 rows ago"),  # in all it moved the margin down
        ([5, -4, 1], "strongest 7-9 rows ago"),
    ],
)
def test_words_name_the_segment_that_did_most_of_what_the_input_did(moved: list[float], said: str) -> None:
    assert strongest_when(moved, [(9, 7), (6, 1), (0, 0)]) == said


def test_a_segment_of_one_row_is_named_as_one_row() -> None:
    back = rows_back(segment_of_rows(3, 3))

    assert strongest_when([0, 1, 0], back) == "strongest 1 row ago"
    assert strongest_when([1, 0, 0], back) == "strongest 2 rows ago"
    assert strongest_when([0, 1], [(3, 2), (1, 0)]) == "strongest in the newest 2 rows"
