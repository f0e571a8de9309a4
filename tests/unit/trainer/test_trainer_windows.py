"""Training windows are what a device's ring would hold."""

import numpy as np
import pytest
from numpy.typing import NDArray

from edgefleet.errors import ConfigError, InputError
from trainer.settings import Window
from trainer.windows import make_windows


def counting(n: int) -> NDArray[np.float32]:
    return np.arange(2 * n, dtype=np.float32).reshape(n, 2)


def test_each_window_ends_at_its_row_and_holds_the_rows_before_it() -> None:
    x = counting(6)
    windows, last = make_windows(x, None, None, Window(rows=3))

    assert last.tolist() == [2, 3, 4, 5]
    assert np.array_equal(windows, [x[i - 2 : i + 1] for i in last])


def test_no_window_spans_two_groups_and_each_group_warms_up() -> None:
    x = counting(8)
    group = np.array(["b", "a", "b", "a", "b", "a", "c", "a"])
    windows, last = make_windows(x, group, None, Window(rows=3))

    assert last.tolist() == [4, 5, 7]
    assert windows[:, :, 0].tolist() == [[0, 4, 8], [2, 6, 10], [6, 10, 14]]


def test_stride_takes_every_so_manyth_window_of_each_group() -> None:
    _, last = make_windows(counting(10), np.array(["a"] * 5 + ["b"] * 5), None, Window(rows=2, stride=2))

    assert last.tolist() == [1, 3, 6, 8]


def test_too_few_rows_give_no_windows() -> None:
    windows, last = make_windows(counting(2), None, None, Window(rows=3))

    assert windows.shape == (0, 3, 2)
    assert last.tolist() == []


def test_on_a_grid_gaps_are_held_then_missing_and_the_label_is_the_last_arrived_row() -> None:
    x = np.array([[1], [2], [3], [4], [5]], np.float32)
    time = np.array([0.5, 0.8, 1.5, 4.5, 5.5])
    windows, last = make_windows(x, None, time, Window(rows=3, rate_s=1.0, hold=1))

    # Grid rows 1..5 s: 2, 3, 3 (held), missing, 4; nothing arrived for 3 s and 4 s, so no label ends a window there.
    assert last.tolist() == [3]
    assert np.array_equal(windows[:, :, 0], [[3, np.nan, 4]], equal_nan=True)


def test_on_a_grid_no_window_spans_a_reset_or_two_groups() -> None:
    x = counting(12)
    time = np.array([1.0, 2, 3, 100, 101, 102, 1, 2, 3, 4, 5, 6])
    group = np.array(["a"] * 6 + ["b"] * 6)
    windows, last = make_windows(x, group, time, Window(rows=2, rate_s=1.0, reset_after=10))

    assert last.tolist() == [1, 2, 4, 7, 8, 9, 10]
    assert np.array_equal(windows, [x[i - 1 : i + 1] for i in last])


def test_a_grid_needs_times_in_order() -> None:
    with pytest.raises(ConfigError, match=r"data\.time names no column"):
        make_windows(counting(3), None, None, Window(rows=2, rate_s=1.0))
    with pytest.raises(InputError, match=r"row 2 has the time 1\.0, before row 1 of its group"):
        make_windows(counting(3), None, np.array([0.0, 2.0, 1.0]), Window(rows=2, rate_s=1.0))


def test_windows_that_would_fill_the_memory_are_refused_with_the_stride_that_helps() -> None:
    x = np.broadcast_to(np.zeros((1, 50), np.float32), (200_000, 50))

    with pytest.raises(ConfigError, match=r"limit is 4294967296; set cleaning\.window\.stride to 10 or more"):
        make_windows(x, None, None, Window(rows=1000))


def test_windows_shorter_than_a_row_are_refused() -> None:
    with pytest.raises(ConfigError, match="rows is 0"):
        make_windows(counting(3), None, None, Window(rows=0))
