"""Random forest by scikit-learn, saved with skops.

Trees are limited in depth and in leaf size, because the exact explanation on a device grows with leaves x depth. One thread and a fixed
seed: the same rows give the same trees. A reader opens model.skops with `skops.io.load(file, trusted=list(TRUSTED_TYPES))`; whatever else
a file may name is refused, nothing is unpickled.
"""

import warnings
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgefleet.errors import ArtifactError
from trainer.candidates.fitted import Fitted, Predict
from trainer.candidates.reproducible import canonical_skops

# Beyond the types of scikit-learn and numpy that skops trusts by itself, a forest needs exactly this one.
TRUSTED_TYPES: Final = ("sklearn.tree._tree.Tree",)
TREES: Final = 60
MAX_DEPTH: Final = 12
MIN_LEAF_ROWS: Final = 3


def fit_forest(x: NDArray[np.float32], label: NDArray[np.int64], classes: int, seed: int) -> Fitted:
    """Fit a random forest; every class must occur among the labels, so that probability columns are class indices."""
    import sklearn
    import skops
    import skops.io
    from sklearn.ensemble import RandomForestClassifier

    forest = RandomForestClassifier(n_estimators=TREES, max_depth=MAX_DEPTH, min_samples_leaf=MIN_LEAF_ROWS, random_state=seed, n_jobs=1)
    forest.fit(x, label)
    content = canonical_skops(skops.io.dumps(forest))
    return Fitted(
        name="forest",
        family="forest",
        margin_kind="mean leaf probability",
        model="model.skops",
        content=content,
        # The file's own model is judged, not the one in memory: what is shipped is what was validated.
        predict=open_forest(content, classes),
        parameters={
            "trees": TREES,
            "max_depth": MAX_DEPTH,
            "min_leaf_rows": MIN_LEAF_ROWS,
            "leaves": int(sum(tree.tree_.n_leaves for tree in forest.estimators_)),
        },
        versions={"scikit-learn": sklearn.__version__, "skops": skops.__version__},
    )


def open_forest(content: bytes, classes: int) -> Predict:
    """The model of a .skops file as a function.

    Raises:
        ArtifactError: Damaged, of other types than TRUSTED_TYPES, or for another number of classes.
    """
    import skops.io

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a file of another scikit-learn version only warns, and may then answer wrongly
            model: Any = skops.io.loads(content, trusted=list(TRUSTED_TYPES))
    except Exception as err:  # skops, zipfile and json raise a dozen kinds on damaged input
        raise ArtifactError(f"model.skops: {len(content)} bytes are no readable forest: {str(err)[:200]}; train again") from err
    if list(getattr(model, "classes_", [])) != list(range(classes)):
        raise ArtifactError(f"model.skops answers classes {getattr(model, 'classes_', None)}, expected 0 to {classes - 1}; train again")

    def predict(x: NDArray[np.float32]) -> NDArray[np.float64]:
        probabilities: NDArray[np.float64] = model.predict_proba(x)
        return probabilities

    return predict
