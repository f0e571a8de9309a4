"""The outlier detector: whether a row is unlike the training rows, whatever the model answers.

It is fitted on the cleaned training rows, flattened. Two methods, chosen by a rule that looks at the shape only:

- `mahalanobis`: distance from the mean in units of the shrunk covariance; at most 64 columns and at least ten rows a column. Saved as
  outlier.npz (arrays `mean` [d], `whitening` [d, d], `fill` [d]), so that every device can compute it: |(z - mean) whitening|.
- `isolation_forest` otherwise, saved with skops as outlier.skops. Its score saturates far outside, so each column's training range,
  widened by its own width on either side, is kept beside it, and a value outside is an outlier whatever the forest says.

Missing values of a column take its training median (`fill`); infinities are outliers always.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgefleet.digests import canonical_json
from edgefleet.errors import ArtifactError, InputError
from edgefleet.intervals import wilson
from edgefleet.package import npz_bytes, read_npz

FALSE_ALARM_SHARE: Final = 0.001
MAX_DISTANCE_COLUMNS: Final = 64
LEAST_ROWS_A_COLUMN: Final = 10
MAX_ROWS: Final = 50_000
FOREST_NAME, ARRAYS_NAME, NOTES_NAME = "outlier.skops", "outlier.npz", "outlier.json"
Score = Callable[[NDArray[np.float32]], NDArray[np.float64]]


@dataclass(frozen=True)
class OutlierDetector:
    """A fitted detector.

    Attributes:
        files: Content by file name, without outlier.json.
        file: The one that the package index names.
        method: `mahalanobis` or `isolation_forest`.
        threshold: A row whose score is above it is an outlier.
        false_alarm_share: Share of training rows that the threshold was chosen to flag.
        score: [n, ...] cleaned rows to [n] scores, larger = stranger; the saved file's own.
    """

    files: dict[str, bytes]
    file: str
    method: str
    threshold: float
    false_alarm_share: float
    score: Score

    def flags(self, z: NDArray[np.float32]) -> NDArray[np.bool_]:
        """[n] whether each cleaned row is an outlier."""
        return np.asarray(self.score(z) > self.threshold)

    def notes(self, z_validation: NDArray[np.float32]) -> dict[str, Any]:
        """Plain values for outlier.json: method, threshold, and the share of validation rows flagged with its 95 % Wilson interval."""
        flagged, n = int(self.flags(z_validation).sum()), len(z_validation)
        low, high = wilson(flagged, n)
        measured = {"flagged": flagged, "n": n, "value": flagged / n if n else None, "low": low, "high": high}
        return {
            "method": self.method,
            "file": self.file,
            "threshold": self.threshold,
            "false_alarm_share": self.false_alarm_share,
            "validation": measured,
        }


def fit_outlier(z: NDArray[np.float32], *, seed: int, false_alarm_share: float = FALSE_ALARM_SHARE) -> OutlierDetector:
    """Fit on cleaned training rows.

    The threshold is an upper quantile of the training rows' own scores; with fewer than 1 / `false_alarm_share` rows it is the largest of
    them, so the share on new rows may be larger than declared: outlier.json has the share measured on validation rows.

    Args:
        z: [n, ...] float32; of more than MAX_ROWS an even sample is taken.
        seed: Seed of the forest.
        false_alarm_share: Share of ordinary rows that may be flagged, above 0 and at most 0.1.

    Raises:
        InputError: Fewer than 20 rows, or a share that is out of range.
    """
    if not 0 < false_alarm_share <= 0.1:
        raise InputError(f"outlier false alarm share {false_alarm_share} is not above 0 and at most 0.1")
    rows = _flat(z)
    if len(rows) < 20:
        raise InputError(f"{len(rows)} training rows are too few for an outlier detector; it needs 20")
    if len(rows) > MAX_ROWS:
        rows = rows[np.linspace(0, len(rows) - 1, MAX_ROWS).astype(np.int64)]
    finite = np.where(np.isfinite(rows), rows, np.nan)
    some = ~np.isnan(finite).all(axis=0)
    fill = np.zeros(rows.shape[1])
    fill[some] = np.nanmedian(finite[:, some], axis=0)
    filled = np.where(np.isnan(finite), fill, finite)
    columns = rows.shape[1]
    if columns <= MAX_DISTANCE_COLUMNS and len(rows) >= LEAST_ROWS_A_COLUMN * columns:
        method, files = "mahalanobis", {ARRAYS_NAME: _fit_distance(filled, fill)}
    else:
        method, files = "isolation_forest", _fit_forest(filled, fill, seed)
    file = ARRAYS_NAME if method == "mahalanobis" else FOREST_NAME
    score = open_score(files)
    scores = score(filled.astype(np.float32))
    # "higher" never flags more than the share; float32 neighbours of the same row stay below by the last bit.
    threshold = float(np.nextafter(np.quantile(scores, 1 - false_alarm_share, method="higher"), np.inf))
    return OutlierDetector(files, file, method, threshold, false_alarm_share, score)


def open_score(files: dict[str, bytes]) -> Score:
    """The detector of a package as a function, from the files of `OutlierDetector.files`.

    Raises:
        ArtifactError: Damaged.
    """
    if FOREST_NAME not in files:
        return _distance(read_npz(files[ARRAYS_NAME], ("mean", "whitening", "fill"), ARRAYS_NAME))
    ranges = read_npz(files[ARRAYS_NAME], ("low", "high", "fill"), ARRAYS_NAME)
    return _forest(files[FOREST_NAME], ranges)


def outlier_files(detector: OutlierDetector, z_validation: NDArray[np.float32]) -> dict[str, bytes]:
    """Everything that goes into a package."""
    return {**detector.files, NOTES_NAME: canonical_json(detector.notes(z_validation))}


def _fit_distance(filled: NDArray[np.float64], fill: NDArray[np.float64]) -> bytes:
    n, d = filled.shape
    mean, deviation = filled.mean(axis=0), filled.std(axis=0)
    # A constant column must flag any other value, but not a rounding of it.
    scale = np.where(deviation > 0, deviation, np.maximum(np.abs(mean), 1.0) * 1e-3)
    standard = (filled - mean) / scale
    # Correlations shrunk a little towards none: invertible whatever the columns are, and no direction without variance counts for all.
    shrinkage = min(0.5, max(0.01, d / n))
    correlation = (1 - shrinkage) * (standard.T @ standard) / n + shrinkage * np.eye(d)
    values, vectors = np.linalg.eigh(correlation)
    whitening = (vectors / np.sqrt(np.maximum(values, 1e-6))) / scale[:, None]
    return npz_bytes({"mean": mean, "whitening": whitening, "fill": fill})


def _fit_forest(filled: NDArray[np.float64], fill: NDArray[np.float64], seed: int) -> dict[str, bytes]:
    import skops.io
    from sklearn.ensemble import IsolationForest

    from trainer.candidates.reproducible import canonical_skops

    forest = IsolationForest(n_estimators=100, max_samples=min(256, len(filled)), random_state=seed, n_jobs=1).fit(filled)
    low, high = filled.min(axis=0), filled.max(axis=0)
    width = np.maximum(high - low, np.maximum(np.abs(high), 1.0) * 1e-3)
    ranges = npz_bytes({"low": low - width, "high": high + width, "fill": fill})
    return {FOREST_NAME: canonical_skops(skops.io.dumps(forest)), ARRAYS_NAME: ranges}


def _distance(arrays: dict[str, NDArray[Any]]) -> Score:
    def score(z: NDArray[np.float32]) -> NDArray[np.float64]:
        rows, infinite = _filled(z, arrays["fill"])
        distance = np.sqrt(np.square((rows - arrays["mean"]) @ arrays["whitening"]).sum(axis=1))
        return np.where(infinite, np.inf, distance)

    return score


def _forest(content: bytes, ranges: dict[str, NDArray[Any]]) -> Score:
    import skops.io

    try:
        model: Any = skops.io.loads(content, trusted=["sklearn.tree._tree.Tree"])
    except Exception as err:  # skops, zipfile and json raise a dozen kinds on damaged input
        raise ArtifactError(f"{FOREST_NAME}: {len(content)} bytes are no readable outlier detector: {str(err)[:200]}; train again") from err

    def score(z: NDArray[np.float32]) -> NDArray[np.float64]:
        rows, infinite = _filled(z, ranges["fill"])
        outside = ((rows < ranges["low"]) | (rows > ranges["high"])).any(axis=1)
        return np.where(infinite | outside, np.inf, -np.asarray(model.score_samples(rows), np.float64))

    return score


def _filled(z: NDArray[np.float32], fill: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    rows = _flat(z)
    if rows.shape[1] != len(fill):
        raise InputError(f"rows have {rows.shape[1]} cleaned columns, the outlier detector was fitted on {len(fill)}")
    infinite = np.isinf(rows)
    return np.where(np.isfinite(rows), rows, fill), np.asarray(infinite.any(axis=1))


def _flat(z: NDArray[np.float32]) -> NDArray[np.float64]:
    return z.reshape(len(z), -1).astype(np.float64)
