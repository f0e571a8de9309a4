"""Types that a skops file may hold beside skops' own list of safe ones: parts of scikit-learn that hold numbers and run no code.

The list alone would be too wide: skops asks whether a name is on it, not what a file does with the name. Read `skops_nodes.py` next.
"""

from typing import Final

PARTIAL: Final = "functools.partial"
CHECK_ARRAY: Final = "sklearn.utils.validation.check_array"
# Type: the loader that skops saves it with.
LOADERS: Final = {
    # Histogram boosting with sets of categories checks its rows by a `partial` of `check_array`.
    PARTIAL: "PartialNode",
    "numpy.dtype": "DTypeNode",
    "sklearn.calibration._CalibratedClassifier": "ObjectNode",
    "sklearn.calibration._SigmoidCalibration": "ObjectNode",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor": "ObjectNode",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer": "ObjectNode",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer": "ObjectNode",
    "sklearn.tree._tree.Tree": "TreeNode",
    "sklearn.utils._bunch.Bunch": "DictNode",
    CHECK_ARRAY: "FunctionNode",
}
TRUSTED_TYPES: Final = tuple(LOADERS)
