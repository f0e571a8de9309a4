"""Rows on a grid: the same as pandas, row by row, without the future."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from edgefleet.errors import ConfigError, InputError
from edgefleet.grid import MAX_SILENCE, Grid


@pytest.mark.parametrize(("step_s", "hold"), [(1.0, 0), (1.0, 2), (0.25, 5), (7.0, 1)])
def test_live_rows_are_pandas_resample_value_by_value(step_s: float, hold: int) -> None:
    rng = np.random.default_rng(0)
    gaps_ms = rng.choice([900, 1000, 1100, 2500, 10, 7000], 20_000, p=[0.3, 0.3, 0.3, 0.05, 0.04, 0.01])
    time_ms = 1_700_000_000_123 + np.cumsum(gaps_ms)
    x = rng.standard_normal((len(time_ms), 3))
    x[rng.random(x.shape) < 0.1] = np.nan
    grid, done = Grid(3, step_s, hold), []

    for at, row in zip(time_ms, x, strict=True):
        done += grid.push(at / 1000, row.tolist())

    table = pd.DataFrame(x, index=pd.to_datetime(time_ms, unit="ms"))
    buckets = table.resample(f"{int(step_s * 1000)}ms", label="right", closed="right", origin="epoch").last()
    want = (buckets.ffill(limit=hold) if hold else buckets).iloc[: len(done)]
    assert len(done) >= len(buckets) - 1
    assert np.array_equal(np.array([row for _, row in done]), want.to_numpy(), equal_nan=True)
    times: Any = want.index
    assert np.allclose([at for at, _ in done], times.as_unit("ns").astype("int64") / 1e9, rtol=0, atol=1e-6)
    assert grid.late == 0


def test_a_row_on_a_grid_point_belongs_to_it() -> None:
    grid = Grid(1, 1.0)

    assert grid.push(1.0, [5.0]) == []
    assert grid.push(1.5, [6.0]) == [(1.0, [5.0])]


def test_a_late_row_is_counted_and_changes_nothing() -> None:
    grid = Grid(1, 1.0)
    grid.push(0.5, [1.0])
    grid.push(1.5, [3.0])

    assert grid.push(0.9, [9.0]) == []
    assert grid.late == 1
    assert grid.push(2.5, [4.0]) == [(2.0, [3.0])]


def test_a_long_silence_empties_the_window_and_forgets_held_values() -> None:
    grid = Grid(1, 1.0, hold=100, reset_after=5)
    grid.push(0.5, [3.0])

    assert grid.push(60.0, [math.nan]) == [(1.0, [3.0]), (60.0, None)]
    (at, row), *rest = grid.push(60.5, [4.0])
    assert (at, rest, grid.resets) == (60.0, [], 1)
    assert row is not None
    assert math.isnan(row[0])


def test_a_clock_that_jumps_years_does_not_fill_the_memory() -> None:
    grid = Grid(1, 0.001)
    grid.push(0.0005, [1.0])

    assert len(grid.push(1e9, [2.0])) == 2
    assert grid.resets == 1


def test_every_column_has_its_own_age() -> None:
    grid = Grid(2, 1.0, hold=1)
    grid.push(0.5, [1.0, 2.0])
    done = grid.push(1.5, [math.nan, 3.0]) + grid.push(2.5, [math.nan, 4.0]) + grid.push(3.5, [math.nan, 5.0])

    assert [row[0] for _, row in done if row] == [1.0, 1.0, pytest.approx(math.nan, nan_ok=True)]
    assert [row[1] for _, row in done if row] == [2.0, 3.0, 4.0]


def test_grid_points_close_by_the_clock_when_nothing_arrives() -> None:
    grid = Grid(1, 1.0, hold=1)

    assert grid.advance(5.0) == []
    grid.push(5.5, [1.0])
    assert grid.advance(6.0) == []
    assert grid.advance(7.5) == [(6.0, [1.0]), (7.0, [1.0])]


@pytest.mark.parametrize("at", [0, 1, 7, 20])
def test_a_kept_grid_goes_on_as_if_it_had_not_been_left(at: int) -> None:
    rows = [(1.79e9 + 0.7 * i + 9 * (i > 12), [float(i), math.nan if i % 3 else 1.0]) for i in range(30)]
    one, two = Grid(2, 1.0, hold=2, reset_after=5), Grid(2, 1.0, hold=2, reset_after=5)
    for row in rows[:at]:
        one.push(*row)
    two.restore(one.kept())

    assert str([two.push(*row) for row in rows[at:]]) == str([one.push(*row) for row in rows[at:]])  # NaN equals NaN as text
    assert (two.late, two.resets) == (one.late, one.resets)


def test_a_kept_grid_of_other_columns_is_refused() -> None:
    with pytest.raises(InputError, match="5 kept numbers are no grid of 2 columns"):
        Grid(2, 1.0).restore(Grid(1, 1.0).kept())


def test_a_tenth_of_a_second_does_not_drift() -> None:
    grid, done = Grid(1, 0.1), []
    for i in range(20_001):
        done += grid.push(1.7e9 + i / 10, [float(i)])

    assert len(done) == 20_000
    assert done[-1] == (1.7e9 + 1999.9, [19_999.0])


def test_impossible_settings_and_rows_are_refused() -> None:
    with pytest.raises(ConfigError, match="rate_s is 0"):
        Grid(1, 0.0)
    with pytest.raises(ConfigError, match="hold is -1"):
        Grid(1, 1.0, hold=-1)
    with pytest.raises(ConfigError, match="reset_after"):
        Grid(1, 1.0, reset_after=MAX_SILENCE + 1)
    with pytest.raises(InputError, match="time is nan"):
        Grid(1, 1.0).push(math.nan, [1.0])
    with pytest.raises(InputError, match="2 values was pushed to a grid of 1"):
        Grid(1, 1.0).push(1.0, [1.0, 2.0])
