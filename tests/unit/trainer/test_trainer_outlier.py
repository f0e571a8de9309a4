"""The outlier detector flags the absurd row, and about the declared share of ordinary ones."""

import numpy as np
import pytest
from numpy.typing import NDArray

from edgefleet.errors import ArtifactError, InputError
from trainer.outlier import ARRAYS_NAME, FOREST_NAME, OutlierDetector, fit_outlier, open_score, outlier_files


def normal_rows(n: int, columns: int, seed: int) -> NDArray[np.float32]:
    """Correlated normal columns of very different scales."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(columns, columns))
    return (rng.normal(size=(n, columns)) @ mixing * np.logspace(-2, 2, columns)).astype(np.float32)


# The second has too many columns for a distance, the third too few rows a column.
SHAPES = [("mahalanobis", 5000, 6), ("isolation_forest", 2000, 80), ("isolation_forest", 100, 20)]


@pytest.fixture(scope="module", params=SHAPES, ids=lambda shape: f"{shape[0]}-{shape[1]}x{shape[2]}")
def fitted(request: pytest.FixtureRequest) -> tuple[str, OutlierDetector, int]:
    method, n, columns = request.param
    return method, fit_outlier(normal_rows(n, columns, 0), seed=3), columns


def test_the_method_follows_from_the_shape(fitted: tuple[str, OutlierDetector, int]) -> None:
    method, detector, _ = fitted

    assert detector.method == method
    assert detector.file == (ARRAYS_NAME if method == "mahalanobis" else FOREST_NAME)


def test_one_value_a_million_deviations_away_is_flagged_in_any_column(fitted: tuple[str, OutlierDetector, int]) -> None:
    _, detector, columns = fitted
    rows = np.repeat(normal_rows(1, columns, 5), columns, axis=0)
    deviation = normal_rows(4000, columns, 6).std(axis=0)
    rows[np.arange(columns), np.arange(columns)] += 1e6 * deviation

    assert detector.flags(rows).all()


def test_an_infinite_value_is_flagged_and_a_missing_one_alone_is_not(fitted: tuple[str, OutlierDetector, int]) -> None:
    _, detector, columns = fitted
    rows = np.zeros((3, columns), np.float32)
    rows[0, 0], rows[1, 0], rows[2, 0] = np.inf, -np.inf, np.nan

    assert detector.flags(rows).tolist() == [True, True, False]


@pytest.mark.parametrize(("n", "columns"), [(5000, 6), (20_000, 80)])
def test_the_share_of_new_ordinary_rows_that_is_flagged_is_near_the_declared_one(n: int, columns: int) -> None:
    detector = fit_outlier(normal_rows(n, columns, 0), seed=0, false_alarm_share=0.01)

    measured = detector.notes(normal_rows(20_000, columns, 1))["validation"]

    # The threshold is itself a quantile of n rows: at n = 5000 its own 95 % spread is 0.7 to 1.3 percent; a forest fits its rows a little.
    assert 0.006 <= measured["value"] <= 0.016
    assert measured["low"] < measured["value"] < measured["high"]


def test_the_saved_files_score_as_the_fitted_detector(fitted: tuple[str, OutlierDetector, int]) -> None:
    _, detector, columns = fitted
    rows = normal_rows(50, columns, 8)

    assert np.array_equal(open_score(detector.files)(rows), detector.score(rows))


def test_the_same_rows_and_seed_give_the_same_bytes(fitted: tuple[str, OutlierDetector, int]) -> None:
    _, detector, columns = fitted
    n = {6: 5000, 80: 2000, 20: 100}[columns]
    rows = normal_rows(30, columns, 8)

    assert outlier_files(fit_outlier(normal_rows(n, columns, 0), seed=3), rows) == outlier_files(detector, rows)


def test_a_constant_column_flags_another_value() -> None:
    rows = normal_rows(1000, 3, 0)
    rows[:, 1] = 5.0
    detector = fit_outlier(rows, seed=0)
    strange = rows[:2].copy()
    strange[0, 1] = 6.0

    assert detector.flags(strange).tolist() == [True, False]


def test_windows_are_judged_as_a_whole() -> None:
    windows = normal_rows(4000, 6, 0).reshape(4000, 3, 2)
    detector = fit_outlier(windows, seed=0)
    strange = windows[:2].copy()
    strange[0, 0, 1] = 1e9

    assert detector.flags(strange).tolist() == [True, False]


def test_too_few_rows_and_an_impossible_share_are_refused_by_name() -> None:
    with pytest.raises(InputError, match="19 training rows are too few"):
        fit_outlier(np.zeros((19, 2), np.float32), seed=0)
    with pytest.raises(InputError, match=r"share 0\.5 is not above 0"):
        fit_outlier(np.zeros((50, 2), np.float32), seed=0, false_alarm_share=0.5)


def test_a_row_of_another_width_is_refused() -> None:
    detector = fit_outlier(normal_rows(500, 4, 0), seed=0)

    with pytest.raises(InputError, match="3 cleaned columns, the outlier detector was fitted on 4"):
        detector.flags(np.zeros((1, 3), np.float32))


def test_a_damaged_forest_is_an_artefact_error() -> None:
    files = fit_outlier(normal_rows(100, 20, 0), seed=0).files

    with pytest.raises(ArtifactError, match="no readable outlier detector"):
        open_score({**files, FOREST_NAME: files[FOREST_NAME][:-200]})
