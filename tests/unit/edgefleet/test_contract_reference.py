import numpy as np
import pytest

from edgefleet.errors import ArtifactError, InputError
from edgefleet.manifest import Input
from edgefleet.package import Rows, npz_bytes, read_npz
from edgefleet.reference import BINS, Reference, build_reference, count_cells
from edgefleet.statistics import InputStatistics

INPUTS = [Input(name="deciles"), Input(name="few"), Input(name="text", kind="category", categories=["a", "b", "c"])]


def training_rows(n: int = 1000) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    rng = np.random.default_rng(0)
    return np.column_stack([rng.normal(size=n), rng.integers(0, 4, n), rng.integers(0, 3, n)]).astype(np.float32)


@pytest.fixture
def reference() -> Reference:
    return build_reference(training_rows(), INPUTS, block_rows=50)


def test_deciles_fill_ten_bins_evenly_and_leave_nothing_outside(reference: Reference) -> None:
    counts = reference.counts[0]
    assert counts[1 : 1 + BINS].tolist() == [100] * BINS
    assert counts[[0, -3, -2, -1]].tolist() == [0, 0, 0, 0]


def test_a_feature_of_few_values_has_a_cell_for_each(reference: Reference) -> None:
    values, counts = np.unique(training_rows()[:, 1], return_counts=True)
    assert values.tolist() == [0, 1, 2, 3]
    assert reference.counts[1, 1:5].tolist() == counts.tolist()


def test_blocks_are_consecutive_and_add_up(reference: Reference) -> None:
    assert reference.blocks.shape == (20, 3, 14)
    assert (reference.blocks.sum(axis=0) == reference.counts).all()


@pytest.mark.parametrize(
    ("row", "feature", "cell"),
    [
        ([-99, 0, 0], 0, 0),
        ([99, 0, 0], 0, -3),
        ([np.nan, 0, 0], 0, -2),
        ([np.inf, 0, 0], 0, -3),
        ([-np.inf, 0, 0], 0, 0),
        ([0, 0, -1], 2, -1),
        ([0, 0, 2], 2, 3),
    ],
)
def test_each_special_value_has_its_cell(reference: Reference, row: list[float], feature: int, cell: int) -> None:
    counts = count_cells(np.array([row], np.float32), reference)
    assert counts[feature, cell] == 1
    assert counts.sum(axis=1).tolist() == [1, 1, 1]


def test_a_value_on_an_edge_belongs_to_the_bin_on_its_right(reference: Reference) -> None:
    edge = reference.edges[0, 3]
    below = np.nextafter(edge, np.float32(-np.inf))
    counts = count_cells(np.array([[edge, 0, 0], [below, 0, 0]], np.float32), reference)
    assert counts[0, 3:5].tolist() == [1, 1]


def test_statistics_count_infinities_and_keep_them_out_of_the_moments(reference: Reference) -> None:
    statistics = InputStatistics.empty(reference)
    statistics.update(np.array([[np.inf, 1, 0], [2.0, 3, 1], [np.nan, 2, 1]], np.float32), reference)
    assert statistics.infinite.tolist() == [1, 0, 0]
    assert statistics.mean(reference)[0] == pytest.approx(2.0, abs=1e-6)
    assert (statistics.low[0], statistics.high[0]) == (2.0, 2.0)
    assert statistics.m2()[1] == pytest.approx(2.0, abs=1e-6)


def test_statistics_of_two_references_never_mix(reference: Reference) -> None:
    other = build_reference(training_rows(500), INPUTS, block_rows=50)
    with pytest.raises(InputError, match="cannot merge"):
        InputStatistics.empty(reference).merge(InputStatistics.empty(other))
    with pytest.raises(InputError, match="cannot take rows"):
        InputStatistics.empty(reference).update(training_rows(1), other)


def test_damaged_reference_statistics_are_refused(reference: Reference) -> None:
    content = reference.to_bytes()
    for damaged in (b"", content[:200], b"x" * 50, npz_bytes({"edges": np.zeros(3)})):
        with pytest.raises(ArtifactError):
            Reference.from_bytes(damaged)


def test_arrays_are_stored_without_pickles_and_with_the_same_bytes() -> None:
    rows = Rows(x=np.ones((2, 3), np.float32), label=np.array([0, 1]), slice=np.array(["a", "b"]), row_id=np.array(["1", "2"]))
    assert rows.to_bytes() == rows.to_bytes()
    assert b"pickle" not in rows.to_bytes()
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        npz_bytes({"x": np.array([object()])})
    with pytest.raises(ArtifactError, match="array 'y is not a file"):
        read_npz(rows.to_bytes(), ("y",), "rows")
