"""Images of more than 256 elements are counted by declared summaries: the same whatever the batches, small on the wire, and telling."""

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from edgefleet.errors import ArtifactError, InputError
from edgefleet.manifest import Input
from edgefleet.package import npz_bytes, read_npz
from edgefleet.reference import Reference, build_reference
from edgefleet.statistics import InputStatistics
from edgefleet.summaries import WHOLE, Summaries, is_summarised

SHAPE = (32, 32, 3)


def images(n: int, seed: int = 0) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    smooth = np.repeat(np.repeat(rng.normal(size=(n, 8, 8, 3)), 4, axis=1), 4, axis=2)
    return (smooth + 0.1 * rng.normal(size=(n, *SHAPE))).reshape(n, -1).astype(np.float32)


def inputs(n: int) -> list[Input]:
    return [Input(name=f"p{i}") for i in range(n)]


@pytest.fixture(scope="module")
def reference() -> Reference:
    return build_reference(images(600), inputs(3072), block_rows=50, classes=2, shape=SHAPE)


def naive(image: NDArray[np.float64]) -> list[float]:
    """The summaries of one image without missing elements, as their names say."""
    down, across = np.diff(image, axis=0), np.diff(image, axis=1)
    energy = np.sqrt(np.concatenate([down.ravel() ** 2, across.ravel() ** 2]).mean())
    patches = [image[4 * i : 4 * i + 4, 4 * j : 4 * j + 4].mean() for i in range(8) for j in range(8)]
    return [image.mean(), image.std(), image.min(), image.max(), energy, *patches]


def test_each_summary_is_what_its_name_says() -> None:
    x, summaries = images(5), Summaries(SHAPE)
    expected = [naive(row.reshape(SHAPE).astype(np.float64)) for row in x]

    # Float64 sums in another order, rounded to float32.
    np.testing.assert_allclose(summaries.of(x), expected, rtol=1e-6)
    assert len(summaries.names) == len(WHOLE) + 64
    assert (summaries.names[5], summaries.names[-1]) == ("patch 1,1", "patch 8,8")


def test_a_row_s_summaries_do_not_depend_on_its_batch() -> None:
    x, summaries = images(70), Summaries(SHAPE)
    alone = np.concatenate([summaries.of(row[None]) for row in x])

    assert alone.tobytes() == summaries.of(x).tobytes()
    x[3, 7], x[5] = np.inf, np.nan  # beside which the others are what they are alone
    others = [i for i in range(70) if i not in (3, 5)]
    assert summaries.of(x)[others].tobytes() == alone[others].tobytes()


def test_missing_elements_are_left_out_and_an_empty_image_is_missing() -> None:
    x = images(3)
    x[1, ::7] = np.nan
    x[2] = np.nan
    some = x[1].astype(np.float64)
    found = Summaries(SHAPE).of(x)

    np.testing.assert_allclose(found[1, :4], [np.nanmean(some), np.nanstd(some), np.nanmin(some), np.nanmax(some)], rtol=1e-6)
    assert np.isfinite(found[1]).all()
    assert np.isnan(found[2, :4]).all()


def test_infinite_elements_spoil_no_other_row_and_no_sum() -> None:
    x = images(3)
    x[1, 5], x[1, 6] = np.inf, -np.inf
    found = Summaries(SHAPE).of(x)

    assert found[[0, 2]].tobytes() == Summaries(SHAPE).of(images(3)[[0, 2]]).tobytes()
    assert not np.isnan(found[1]).any()


@pytest.mark.parametrize(
    ("shape", "columns", "category", "expected"),
    [
        (SHAPE, 3072, False, True),
        ((28, 28), 784, False, True),
        ((16, 16), 256, False, False),
        ((300,), 300, False, False),
        (SHAPE, 3072, True, False),
        ((8, 8), 3072, False, False),
    ],
)
def test_only_images_of_numbers_are_summarised(shape: tuple[int, ...], columns: int, category: bool, expected: bool) -> None:
    columns_of = inputs(columns)
    if category:
        columns_of[7] = Input(name="k", kind="category", categories=["a"])
    assert is_summarised(columns_of, shape) is expected


def test_statistics_of_images_are_the_same_whatever_the_batches_and_small_on_the_wire(reference: Reference) -> None:
    x, whole, parts = images(500, 1), InputStatistics.empty(reference), InputStatistics.empty(reference)
    whole.update(x, reference)
    for part in np.array_split(x, 7):
        some = InputStatistics.empty(reference)
        some.update(part, reference)
        parts = parts.merge(some)

    assert np.array_equal(parts.counts, whole.counts)
    assert np.array_equal(parts.sketch, whole.sketch)
    assert (whole.rows, whole.counts.shape[0]) == (500, 69)
    content = whole.to_bytes()
    assert len(content) < 6_000  # of 3072 elements one by one they were 160,000
    assert msgspec.msgpack.decode(content)[3] == 69
    assert len(reference.to_bytes()) < 200_000


def test_what_moves_an_image_moves_its_summaries(reference: Reference) -> None:
    def counted(x: NDArray[np.float32]) -> dict[str, NDArray[np.int64]]:
        statistics = InputStatistics.empty(reference)
        statistics.update(x, reference)
        assert reference.summaries is not None
        return dict(zip(reference.summaries.names, statistics.counts, strict=True))

    x = images(200, 2)
    darker, dirty = x - 0.5, x.reshape(-1, *SHAPE).copy()
    blurred = np.repeat(x.reshape(-1, 4, 8, 32, 3).mean(axis=2, keepdims=True), 8, axis=2).reshape(200, -1)
    dirty[:, :4, :4] = 9.0  # a spot on the lens

    assert counted(x)["mean"][1:11].min() > 5
    assert counted(darker)["mean"][0] > 190  # below everything seen in training
    assert counted(blurred)["edge energy"][0] > 150
    assert counted(dirty.reshape(200, -1))["patch 1,1"][11] == 200
    assert counted(dirty.reshape(200, -1))["patch 8,8"][11] < 10


def test_rows_of_another_size_are_refused(reference: Reference) -> None:
    with pytest.raises(InputError, match="rows have 69 columns, the reference is of 3072"):
        InputStatistics.empty(reference).update(np.zeros((1, 69), np.float32), reference)


@pytest.mark.parametrize("shape", [[32, 32], [16, 16, 3, 1, 1], [0, 3], [10**6, 10**6], [2, 2]])
def test_a_reference_whose_shape_does_not_fit_is_refused(reference: Reference, shape: list[int]) -> None:
    arrays = read_npz(reference.to_bytes(), (), "it") | {"row_shape": np.array(shape, np.int64)}
    if Summaries(shape).columns == 1024:  # 69 summaries too: a file cannot tell, the manifest's inputs do
        assert Reference.from_bytes(npz_bytes(arrays)).columns == 1024
        return
    with pytest.raises(ArtifactError, match="the shape of a row does not fit its features"):
        Reference.from_bytes(npz_bytes(arrays))
