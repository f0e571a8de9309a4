"""The outlier detector as one more graph: the same raw rows as the model, `margin` [n, 1] as answer, larger = stranger.

The package has it as numbers (`trainer.outlier` says how they are made): a distance, or an isolation forest with the range of each column.
Both become cores, so that the same writers make their graphs. The ranges are trees too: a value outside reaches a leaf that makes the score
infinite.
"""

from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from converter.cores import Core, Distance, Trees
from converter.ensembles import Ensemble, Tree, round_down
from edgefleet.errors import ArtifactError, VerdictError
from edgefleet.package import ModelPackage, read_npz

NOTES_NAME: Final = "outlier.json"
ARRAYS_NAME: Final = "outlier.npz"
FOREST_NAME: Final = "outlier.skops"
# 2^(-s / average depth) of s = -1e6 is infinite in float32, whatever the trees add to it.
_OUTSIDE: Final = -1e6


class Notes(msgspec.Struct, frozen=True):
    """What outlier.json says; other keys are the trainer's.

    Attributes:
        method: `mahalanobis` or `isolation_forest`.
        threshold: A row whose score is above it is an outlier.
    """

    method: str
    threshold: float


@dataclass(frozen=True)
class Detector:
    """The package's detector.

    Attributes:
        core: What its graphs are written from.
        notes: Method and threshold.
    """

    core: Core
    notes: Notes


def detector_of(package: ModelPackage) -> Detector | None:
    """The package's outlier detector, None where it has none.

    Raises:
        ArtifactError: Its files are damaged.
    """
    if package.index.outlier is None:
        return None
    try:
        notes = msgspec.json.decode(package.read(NOTES_NAME), type=Notes)
    except (msgspec.DecodeError, UnicodeDecodeError) as err:
        raise ArtifactError(f"{package.folder}/{NOTES_NAME}: {str(err)[:200]}; train again") from err
    if package.index.outlier == ARRAYS_NAME:
        arrays = read_npz(package.read(ARRAYS_NAME), ("mean", "whitening", "fill"), ARRAYS_NAME)
        head = Distance(arrays["mean"], arrays["whitening"], arrays["fill"])
        return Detector(Core(head, len(arrays["mean"]), 1, 0, "none"), notes)
    ranges = read_npz(package.read(ARRAYS_NAME), ("low", "high", "fill"), ARRAYS_NAME)
    trees = _forest(package)
    filled = [_filling(tree, ranges["fill"]) for tree in trees.ensemble.trees]
    guards = [_guard(column, low, high) for column, (low, high) in enumerate(zip(ranges["low"], ranges["high"], strict=True))]
    ensemble = Ensemble(filled + guards, trees.ensemble.offset, len(ranges["fill"]))
    return Detector(Core(Trees(ensemble, trees.average_depth), ensemble.features, 1, 0, "none"), notes)


def _forest(package: ModelPackage) -> Trees:
    from converter.cores.reading import core_of_estimator
    from converter.originals import load_skops

    core = core_of_estimator(load_skops(package.read(FOREST_NAME), FOREST_NAME), "isolation_forest", "anomaly")
    if not isinstance(core.head, Trees) or core.head.average_depth is None:
        raise VerdictError(f"{FOREST_NAME} holds no isolation forest; train again")
    return core.head


def _filling(tree: Tree, fill: NDArray[Any]) -> Tree:
    """The tree with each missing value going where its column's fill goes."""
    goes_left = fill.astype(np.float64)[tree.feature] <= tree.threshold.astype(np.float64)
    return Tree(tree.left, tree.right, tree.feature, tree.threshold, goes_left, tree.cover, tree.value)


def _guard(column: int, low: float, high: float) -> Tree:
    """A tree that adds nothing inside [low, high], and makes the score infinite outside; a missing value is filled, so inside."""
    # x < low is x <= the largest number below low, for every float32 x.
    below, above = round_down(np.nextafter(low, -np.inf)), round_down(high)
    return Tree(
        left=np.array([1, -1, 3, -1, -1]),
        right=np.array([2, -1, 4, -1, -1]),
        feature=np.array([column, 0, column, 0, 0]),
        threshold=np.array([below, 0, above, 0, 0], np.float32),
        missing_left=np.array([False, False, True, False, False]),
        cover=np.array([1.0, 0.0, 1.0, 1.0, 0.0]),
        value=np.array([0.0, _OUTSIDE, 0.0, 0.0, _OUTSIDE])[:, None],
    )
