"""Input statistics: merging is addition, whatever the batches; the bytes are read back or refused."""

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgefleet.errors import ArtifactError, InputError
from edgefleet.manifest import Input
from edgefleet.reference import Reference, build_reference
from edgefleet.statistics import InputStatistics

_INPUTS = [Input(name="a"), Input(name="b", missing=True), Input(name="kind", kind="category", categories=["x", "y", "z"])]


def _reference(seed: int = 0) -> Reference:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(200, 3)).astype(np.float32)
    x[:, 2] = rng.integers(0, 3, 200)
    return build_reference(x, _INPUTS, block_rows=50)


REFERENCE, OTHER = _reference(), _reference(1)
assert REFERENCE.sketch is not None  # or nothing below would be said about sketches
EDGES = [float(e) for e in REFERENCE.edges[0]]
# Values on edges matter most; infinities and missing values are part of life.
number = st.one_of(st.floats(-1e6, 1e6, width=32), st.sampled_from([*EDGES, 0.0, -0.0, float("nan"), float("inf"), float("-inf")]))
row = st.tuples(number, number, st.sampled_from([-1.0, 0.0, 1.0, 2.0, float("nan")]))
rows = st.lists(row, max_size=40)


def _matrix(values: list[tuple[float, float, float]]) -> NDArray[np.float32]:
    return np.array(values, np.float32).reshape(-1, 3)


def _of(values: list[tuple[float, float, float]]) -> InputStatistics:
    statistics = InputStatistics.empty(REFERENCE)
    statistics.update(_matrix(values), REFERENCE)
    return statistics


def _assert_same(a: InputStatistics, b: InputStatistics) -> None:
    assert (a.rows, a.reference_digest) == (b.rows, b.reference_digest)
    np.testing.assert_array_equal(a.counts, b.counts)
    np.testing.assert_array_equal(a.sketch, b.sketch)
    np.testing.assert_array_equal(a.infinite, b.infinite)
    np.testing.assert_array_equal(a.low, b.low)
    np.testing.assert_array_equal(a.high, b.high)
    # Float64 sums in another order: relative to the size of the summands, which squares bound.
    size = np.sqrt(np.maximum(a.squares * max(a.rows, 1), 1.0))
    assert (np.abs(a.total - b.total) <= 1e-12 * size).all()
    np.testing.assert_allclose(a.squares, b.squares, rtol=1e-12, atol=1e-300)


@settings(deadline=None)
@given(rows, rows)
def test_merge_is_commutative_without_rounding(a: list[tuple[float, float, float]], b: list[tuple[float, float, float]]) -> None:
    ab, ba = _of(a).merge(_of(b)), _of(b).merge(_of(a))
    assert ab.rows == ba.rows
    for name in ("counts", "total", "squares", "low", "high", "infinite", "sketch"):
        # Equal as numbers: the least of 0.0 and -0.0 is either of them.
        np.testing.assert_array_equal(getattr(ab, name), getattr(ba, name))


@settings(deadline=None)
@given(rows, rows, rows)
def test_merge_is_associative(
    a: list[tuple[float, float, float]], b: list[tuple[float, float, float]], c: list[tuple[float, float, float]]
) -> None:
    _assert_same(_of(a).merge(_of(b)).merge(_of(c)), _of(a).merge(_of(b).merge(_of(c))))


@settings(deadline=None)
@given(rows)
def test_the_empty_object_is_the_identity(a: list[tuple[float, float, float]]) -> None:
    assert _of(a).merge(InputStatistics.empty(REFERENCE)).to_bytes() == _of(a).to_bytes()


@settings(deadline=None)
@given(rows, st.lists(st.integers(0, 40), max_size=6))
def test_batch_boundaries_change_nothing(a: list[tuple[float, float, float]], cuts: list[int]) -> None:
    statistics = InputStatistics.empty(REFERENCE)
    for part in np.split(_matrix(a), sorted(min(cut, len(a)) for cut in cuts)):
        statistics.update(part, REFERENCE)
    _assert_same(statistics, _of(a))


@settings(deadline=None)
@given(rows)
def test_counts_agree_with_counting_one_by_one(a: list[tuple[float, float, float]]) -> None:
    statistics = _of(a)
    want = np.zeros_like(statistics.counts)
    for values in _matrix(a):
        for f, value in enumerate(values):
            want[f, _cell(f, float(value))] += 1
    np.testing.assert_array_equal(statistics.counts, want)


def _cell(f: int, value: float) -> int:
    cells = REFERENCE.cells
    if np.isnan(value):
        return cells - 2
    if REFERENCE.is_category[f]:
        return cells - 1 if value < 0 else 1 + int(value)
    edges = [float(e) for e in REFERENCE.edges[f][: REFERENCE.bins[f] + 1]]
    if value < edges[0]:
        return 0
    if value >= edges[-1]:
        return cells - 3
    return max(i for i, edge in enumerate(edges) if edge <= value) + 1


@settings(deadline=None)
@given(rows)
def test_moments_agree_with_numpy(a: list[tuple[float, float, float]]) -> None:
    statistics = _of(a)
    for f in range(3):
        column = _matrix(a)[:, f].astype(np.float64)
        finite = column[np.isfinite(column)]
        assert statistics.present()[f] == len(finite)
        if len(finite):
            # The deviation from the reference mean is rounded to float32 before it is summed.
            allowed = 1e-6 * (np.abs(finite).max() + 1)
            assert abs(statistics.mean(REFERENCE)[f] - finite.mean()) <= allowed
            assert (statistics.low[f], statistics.high[f]) == (finite.min(), finite.max())


@settings(deadline=None)
@given(rows)
def test_bytes_are_read_back(a: list[tuple[float, float, float]]) -> None:
    content = _of(a).to_bytes()
    assert InputStatistics.from_bytes(content).to_bytes() == content


@settings(deadline=None)
@given(rows, st.data())
def test_truncated_bytes_are_an_artifact_error(a: list[tuple[float, float, float]], data: st.DataObject) -> None:
    content = _of(a).to_bytes()
    cut = data.draw(st.integers(0, len(content) - 1))
    with pytest.raises(ArtifactError):
        InputStatistics.from_bytes(content[:cut])


@settings(deadline=None)
@given(rows, st.binary(min_size=1, max_size=64))
def test_bytes_with_a_tail_are_an_artifact_error(a: list[tuple[float, float, float]], tail: bytes) -> None:
    with pytest.raises(ArtifactError):
        InputStatistics.from_bytes(_of(a).to_bytes() + tail)


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_an_artifact_error(content: bytes) -> None:
    with pytest.raises(ArtifactError):
        InputStatistics.from_bytes(content)


@pytest.mark.parametrize(
    ("position", "value"),
    [
        (0, 2),
        (2, -1),
        (2, 7),
        (2, 2**63),
        (3, 0),
        (3, 2),
        (3, 10**15),
        (4, 0),
        (4, 3),
        (4, 2**63),
        (5, [1]),
        (5, []),
        (5, [2**64 - 1] * 42),
        (6, []),
        (6, [float("nan"), 0.0, 0.0]),
        (6, [float("inf"), 0.0, 0.0]),
        (7, [-1.0, 0.0, 0.0]),
        (8, [1e300, 0.0, 0.0]),
        (9, [float("nan"), 0.0, 0.0]),
        (10, [0, 0]),
        (10, [-1, 0, 0]),
        (10, [2, 0, 0]),
        (10, [2**64 - 1, 0, 0]),
        (11, [1]),
        (11, [-1, 1, *[0] * 10]),
        (11, [2, *[0] * 11]),
        (11, [1, *[0] * 11, *[0] * 12]),
        (11, [*[0] * 12] * 66),
        (11, [2**64 - 1, *[0] * 11]),
    ],
)
def test_bytes_that_contradict_themselves_are_an_artifact_error(position: int, value: object) -> None:
    fields = msgspec.msgpack.decode(_of([(0.0, 1.0, 2.0)]).to_bytes())
    fields[position] = value
    with pytest.raises(ArtifactError):
        InputStatistics.from_bytes(msgspec.msgpack.encode(fields))


def test_statistics_without_features_are_an_artifact_error() -> None:
    for cells in (0, 14, 10**15, 2**63):
        content = msgspec.msgpack.encode([1, "r", 0, 0, cells, [], [], [], [], [], []])
        with pytest.raises(ArtifactError):
            InputStatistics.from_bytes(content)


def test_statistics_of_another_reference_are_refused() -> None:
    with pytest.raises(InputError):
        _of([(0.0, 0.0, 0.0)]).merge(InputStatistics.empty(OTHER))
    with pytest.raises(InputError):
        InputStatistics.empty(REFERENCE).update(_matrix([(0.0, 0.0, 0.0)]), OTHER)
