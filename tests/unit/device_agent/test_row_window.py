"""The last T rows as one view: the same windows as slicing gives, nothing before T rows, nothing across a gap."""

from pathlib import Path

import numpy as np
import pytest

from device_agent import Scorer
from device_agent.row_window import RowWindow
from edgefleet.errors import ConfigError, InputError
from tests.unit.device_agent.bundles import FEATURES
from tests.unit.device_agent.test_scorer_windows import ROWS, window_bundle


def stream(n: int) -> np.ndarray:
    return np.random.default_rng(4).normal(size=(n, FEATURES)).astype(np.float32)


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_every_window_is_the_slice_of_the_last_rows_and_one_contiguous_view(rows: int) -> None:
    x, window = stream(40), RowWindow(rows, FEATURES)
    for i, row in enumerate(x):
        seen = window.push(row)
        if i + 1 < rows:
            assert (seen, window.warming_up) == (None, f"warming_up, {i + 1} of {rows}")
        else:
            assert seen is not None
            assert seen.flags.c_contiguous
            assert seen.base is not None
            np.testing.assert_array_equal(seen, x[i + 1 - rows : i + 1])
            assert window.warming_up == ""


def test_after_a_gap_no_window_reaches_back_over_it() -> None:
    x, window = stream(20), RowWindow(3, FEATURES)
    for row in x[:10]:
        window.push(row)
    window.clear()
    assert window.warming_up == "warming_up, 0 of 3"
    assert [window.push(row) is None for row in x[10:13]] == [True, True, False]
    seen = window.push(x[13])
    assert seen is not None
    np.testing.assert_array_equal(seen, x[11:14])


def test_a_stream_of_rows_is_scored_as_its_windows_are(tmp_path: Path) -> None:
    x, window = stream(30), RowWindow(ROWS, FEATURES)
    with Scorer.open(window_bundle(tmp_path).folder) as scorer:
        streamed = [scorer.score(seen).margins[0] for row in x if (seen := window.push(row)) is not None]
        batch = scorer.score_batch(np.stack([x[i : i + ROWS] for i in range(len(x) - ROWS + 1)]))
    # One row alone and rows together may differ in the last bit of a matrix product.
    np.testing.assert_allclose(streamed, batch.margins[:, 0], rtol=1e-6, atol=1e-6)


def test_a_row_of_another_width_is_refused_and_leaves_the_window_as_it_was() -> None:
    x, window = stream(4), RowWindow(3, FEATURES)
    for row in x[:2]:
        window.push(row)
    with pytest.raises(InputError, match=r"shape \(4,\)"):
        window.push(x[2, :4])
    seen = window.push(x[2])
    assert seen is not None
    np.testing.assert_array_equal(seen, x[:3])


@pytest.mark.parametrize(("rows", "features"), [(0, 3), (3, 0), (-1, 3)])
def test_an_empty_window_is_refused(rows: int, features: int) -> None:
    with pytest.raises(ConfigError, match="expected at least 1 of each"):
        RowWindow(rows, features)
