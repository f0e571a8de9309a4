"""The trained model and its own answers: what every variant is compared with."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgefleet.errors import ArtifactError, VerdictError
from edgefleet.package import ModelPackage, npz_bytes, read_npz

MAX_MODEL_BYTES: Final = 512 * 1024 * 1024
# Beside skops' own list of safe types: what the tree models hold, and nothing that runs code.
_TRUSTED: Final = frozenset({"sklearn.tree._tree.Tree", "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"})


@dataclass(frozen=True)
class Original:
    """Answers of the original model.

    Attributes:
        probabilities: [n, classes] float64.
        margin: [n, K] float64.
    """

    probabilities: NDArray[np.float64]
    margin: NDArray[np.float64]

    def to_file(self, path: Path) -> None:
        """Write as .npz, from a child process to its parent."""
        path.write_bytes(npz_bytes({"probabilities": self.probabilities, "margin": self.margin}))

    @classmethod
    def from_file(cls, path: Path) -> "Original":
        """Read what `to_file` wrote."""
        return cls(**read_npz(path.read_bytes(), ("probabilities", "margin"), path.name))


def load_trees(package: ModelPackage) -> Any:
    """The fitted scikit-learn tree model of a package, without unpickling.

    Raises:
        ArtifactError: Unreadable, too large, or it holds types that are not on the list.
    """
    import skops.io as sio

    content = package.read(package.index.model)
    if len(content) > MAX_MODEL_BYTES:
        raise ArtifactError(f"{package.index.model}: {len(content)} bytes exceed the limit of {MAX_MODEL_BYTES}; train a smaller model")
    try:
        unknown = sorted(set(sio.get_untrusted_types(data=content)) - _TRUSTED)
        if unknown:
            raise ArtifactError(f"{package.index.model} holds the type {unknown[0]!r}, which is not loaded; train with a listed model")
        return sio.loads(content, trusted=sorted(_TRUSTED))
    except ArtifactError:
        raise
    except Exception as err:  # zipfile, json, skops and scikit-learn each raise their own
        raise ArtifactError(f"{package.index.model}: not a readable skops file: {str(err)[:200]}") from err


def answers_of_trees(model: Any, x: NDArray[np.float32], family: str) -> Original:
    """Answers of a tree model on float32 rows (as float64, so that scikit-learn sees exactly what the device sees)."""
    rows = x.astype(np.float64)
    with warnings.catch_warnings():
        # The package's rows have no column names; the model may have been fitted on a table that had them.
        warnings.filterwarnings("ignore", message="X does not have valid feature names", category=UserWarning)
        probabilities = np.asarray(model.predict_proba(rows), np.float64)
        if family == "forest":
            return Original(probabilities, probabilities)
        margin = np.asarray(model.decision_function(rows), np.float64)
    return Original(probabilities, margin.reshape(len(rows), -1))


def check_answers(original: Original, package: ModelPackage, what: str) -> None:
    """Refuse answers that cannot be compared with.

    Raises:
        VerdictError: Not one column per class, or not finite.
    """
    classes = len(package.index.classes)
    if original.probabilities.shape[1] != classes:
        raise VerdictError(
            f"{what}: the model answers {original.probabilities.shape[1]} classes, package.json names {classes}; train again"
        )
    if not (np.isfinite(original.probabilities).all() and np.isfinite(original.margin).all()):
        raise VerdictError(f"{what}: the original model answers NaN or infinity on the package's own rows; train again")
