"""The multivariate sketch: it sees features that part, counts the same whatever the batches, and old files and messages stay readable."""

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from edgefleet.cells import BINS
from edgefleet.errors import ArtifactError, InputError
from edgefleet.manifest import Input
from edgefleet.package import npz_bytes, read_npz
from edgefleet.reference import Reference, build_reference
from edgefleet.sketch import MAX_COMPONENTS, Sketch
from edgefleet.sketch_building import PATCHES_A_SIDE, patches
from edgefleet.statistics import InputStatistics

Matrix = NDArray[np.float32]


def inputs(count: int) -> list[Input]:
    return [Input(name=f"f{i}") for i in range(count)]


def pairs(n: int, correlation: float, seed: int = 0, features: int = 4) -> Matrix:
    """Standard normal columns of which the first two move together."""
    x = np.random.default_rng(seed).normal(size=(n, features))
    x[:, 1] = correlation * x[:, 0] + np.sqrt(1 - correlation**2) * x[:, 1]
    return x.astype(np.float32)


def sketch_of(reference: Reference) -> Sketch:
    assert reference.sketch is not None
    return reference.sketch


def deviations(reference: Reference, x: Matrix) -> Matrix:
    return np.ascontiguousarray((x - reference.mean).T)


def counted(reference: Reference, x: Matrix) -> NDArray[np.int64]:
    return sketch_of(reference).count(deviations(reference, x))


def distance(counts: NDArray[np.int64], expected: NDArray[np.int64]) -> float:
    """Largest chi-square distance of a stream's shares from the reference's, cells of a few rows left out."""
    share, base = counts / counts.sum(axis=1, keepdims=True), expected / expected.sum(axis=1, keepdims=True)
    return float(np.where(base > 0.01, (share - base) ** 2 / np.maximum(base, 0.01), 0).sum(axis=1).max())


def test_a_correlation_that_breaks_is_seen_in_the_sketch_and_in_no_feature() -> None:
    reference = build_reference(pairs(20_000, 0.9), inputs(4), block_rows=500)
    apart, same = InputStatistics.empty(reference), InputStatistics.empty(reference)
    apart.update(pairs(5000, 0.0, seed=1), reference)
    same.update(pairs(5000, 0.9, seed=1), reference)
    known = sketch_of(reference).counts
    assert distance(apart.counts[:, 1:11], reference.counts[:, 1:11]) < 0.01
    assert distance(same.sketch, known) < 0.01
    assert distance(apart.sketch, known) > 0.3
    worst = ((apart.sketch / 5000 - known / 20_000) ** 2).sum(axis=1)[:-1].argmax()
    assert sketch_of(reference).names[worst] == "component 1"  # the least variance is where the two used to agree


def test_components_of_training_rows_are_uncorrelated_and_of_unit_variance() -> None:
    x = pairs(20_000, 0.8)
    reference = build_reference(x, inputs(4), block_rows=500)
    values = sketch_of(reference).values(deviations(reference, x))
    np.testing.assert_allclose(np.cov(values[:, :-1].T), np.eye(4), atol=0.01)
    np.testing.assert_allclose(values[:, -1], np.sqrt((values[:, :-1].astype(float) ** 2).sum(axis=1)), atol=1e-3)


def test_reference_counts_are_those_of_the_training_rows_and_blocks_add_up() -> None:
    x = pairs(1000, 0.5)
    reference = build_reference(x, inputs(4), block_rows=50)
    sketch = sketch_of(reference)
    assert (counted(reference, x) == sketch.counts).all()
    assert sketch.blocks.shape == (20, 5, BINS + 2)
    assert (sketch.blocks.sum(axis=0) == sketch.counts).all()
    assert sketch.counts[:, [0, -1]].sum() == 0
    assert sketch.counts.sum(axis=1).tolist() == [1000] * 5


@pytest.mark.parametrize(("features", "correlation"), [(7, 0.9), (90, 0.999999), (300, 0.5)])
def test_no_count_depends_on_how_rows_were_batched(features: int, correlation: float) -> None:
    x = pairs(2500, correlation, features=features)
    x[::17, 2] = np.nan
    reference = build_reference(x, inputs(features), block_rows=100)
    for size in (1, 3, 64):
        statistics = InputStatistics.empty(reference)
        for i in range(0, 700, size):
            statistics.update(x[i : min(i + size, 700)], reference)
        np.testing.assert_array_equal(statistics.sketch, counted(reference, x[:700]))


def test_a_missing_value_counts_as_the_mean_and_an_infinite_one_as_far_away() -> None:
    reference = build_reference(pairs(2000, 0.5), inputs(4), block_rows=100)
    sketch = sketch_of(reference)
    given = np.zeros((1, 4), np.float32)
    given[0] = reference.mean
    absent = np.where(np.arange(4) < 2, np.float32(np.nan), given)
    np.testing.assert_array_equal(sketch.values(deviations(reference, given)), sketch.values(deviations(reference, absent)))
    statistics = InputStatistics.empty(reference)
    statistics.update(np.array([[np.inf, 0, 0, 0], [3e38, -np.inf, 0, 0], [200, 0, 0, 0]], np.float32), reference)
    assert statistics.sketch[-1, -1] == 3


def test_categories_and_constant_columns_are_not_sketched() -> None:
    x = np.column_stack([pairs(500, 0.5), np.ones(500), np.arange(500) % 3]).astype(np.float32)
    columns = [*inputs(5), Input(name="kind", kind="category", categories=["a", "b", "c"])]
    assert sketch_of(build_reference(x, columns, block_rows=50)).columns.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(("rows", "features"), [(19, 4), (500, 1)])
def test_too_few_rows_or_columns_have_no_sketch(rows: int, features: int) -> None:
    reference = build_reference(pairs(rows, 0.5)[:, :features], inputs(features), block_rows=5)
    assert reference.sketch is None
    assert InputStatistics.empty(reference).sketch.shape == (0, BINS + 2)


def test_beyond_64_columns_those_of_least_variance_are_kept() -> None:
    x = np.random.default_rng(0).normal(size=(2000, 100)).astype(np.float32)
    x[:, 99] = x[:, 0] + 1e-2 * x[:, 99]
    sketch = sketch_of(build_reference(x, inputs(100), block_rows=100))
    assert sketch.streams == MAX_COMPONENTS + 1
    assert set(np.argsort(-np.abs(sketch.weights[:, 0]))[:2].tolist()) == {0, 99}


def test_a_wide_row_is_sketched_by_its_neighbours_and_its_intensity() -> None:
    rng = np.random.default_rng(0)
    bright = rng.normal(size=(1500, 1))
    wide = (bright + rng.normal(size=(1500, 784))).astype(np.float32)
    wide[:, :3] = 0.0  # columns that never change
    reference = build_reference(wide, inputs(784), block_rows=100)
    assert sketch_of(reference).weights.shape == (PATCHES_A_SIDE**2 + 1, MAX_COMPONENTS)
    noisy = (bright[:500] + 3 * rng.normal(size=(500, 784))).astype(np.float32)
    assert counted(reference, noisy)[-1, -1] > 450  # the norm is beyond everything seen in training
    assert counted(reference, wide[:500])[-1, -1] == 0


def test_of_an_image_its_summaries_are_sketched() -> None:
    rng = np.random.default_rng(0)
    images = (rng.normal(size=(1500, 1)) + rng.normal(size=(1500, 784))).astype(np.float32)
    reference = build_reference(images, inputs(784), block_rows=100, shape=(28, 28))
    assert sketch_of(reference).streams == MAX_COMPONENTS + 1
    for factor, beyond in ((1, False), (3, True)):
        statistics = InputStatistics.empty(reference)
        statistics.update(factor * images[:500], reference)
        assert (statistics.sketch[-1, -1] > 450) == beyond


def test_patches_of_an_image_are_squares_and_of_a_row_neighbours() -> None:
    grid = patches((16, 16, 3), 768).reshape(16, 16, 3)
    assert (grid[:2, :2] == 0).all()
    assert (grid[:2, 2:4] == 1).all()
    assert (grid[14:, 14:] == 63).all()
    assert patches((), 640).tolist() == np.repeat(np.arange(64), 10).tolist()


def test_a_reference_without_sketch_is_read_as_before() -> None:
    whole = build_reference(pairs(400, 0.5), inputs(4), block_rows=50)
    arrays = {name: array for name, array in read_npz(whole.to_bytes(), (), "it").items() if not name.startswith("sketch")}
    old = Reference.from_bytes(npz_bytes(arrays))
    assert old.sketch is None
    statistics = InputStatistics.empty(old)
    statistics.update(pairs(10, 0.5), old)
    assert InputStatistics.from_bytes(statistics.to_bytes()).sketch.shape == (0, BINS + 2)


def test_a_sketch_that_contradicts_itself_is_an_artifact_error() -> None:
    arrays = read_npz(build_reference(pairs(400, 0.5), inputs(4), block_rows=50).to_bytes(), (), "it")
    lacking = {name: array for name, array in arrays.items() if name != "sketch_weights"}
    with pytest.raises(ArtifactError, match="the sketch lacks sketch_weights"):
        Reference.from_bytes(npz_bytes(lacking))
    for name, value in (
        ("sketch_columns", np.array([0, 1, 2, 9])),
        ("sketch_edges", np.zeros((2, 3), np.float32)),
        ("sketch_pool", np.array([0, 0, 0, 0])),
        ("sketch_weights", np.zeros(4, np.float32)),
        ("sketch_spread", np.zeros((), np.float32)),
    ):
        with pytest.raises(ArtifactError, match="sketch's arrays contradict"):
            Reference.from_bytes(npz_bytes({**arrays, name: value}))


def test_messages_of_devices_without_sketch_are_read_and_merged() -> None:
    reference = build_reference(pairs(400, 0.5), inputs(4), block_rows=50)
    statistics = InputStatistics.empty(reference)
    statistics.update(pairs(30, 0.5, seed=1), reference)
    old = InputStatistics.from_bytes(msgspec.msgpack.encode(msgspec.msgpack.decode(statistics.to_bytes())[:11]))
    assert old.sketch.shape == (0, BINS + 2)
    for both in (old.merge(statistics), statistics.merge(old)):
        assert both.rows == 60
        np.testing.assert_array_equal(both.sketch, statistics.sketch)
        assert InputStatistics.from_bytes(both.to_bytes()).sketch.sum(axis=1).tolist() == [30] * 5
    old.update(pairs(5, 0.5, seed=2), reference)
    assert old.sketch.sum(axis=1).tolist() == [5] * 5


def test_a_reader_that_knows_no_sketch_still_reads_the_message() -> None:
    class Before(msgspec.Struct, array_like=True):
        version: int
        reference_digest: str
        rows: int

    reference = build_reference(pairs(400, 0.5), inputs(4), block_rows=50)
    statistics = InputStatistics.empty(reference)
    statistics.update(pairs(30, 0.5), reference)
    assert msgspec.msgpack.decode(statistics.to_bytes(), type=Before).rows == 30


def test_sketches_of_another_number_of_streams_never_merge() -> None:
    reference = build_reference(pairs(400, 0.5), inputs(4), block_rows=50)
    one, other = InputStatistics.empty(reference), InputStatistics.empty(reference)
    other.sketch = np.zeros((3, BINS + 2), np.int64)
    with pytest.raises(InputError, match="a sketch of 5 streams cannot merge with one of 3"):
        one.merge(other)
