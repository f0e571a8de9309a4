"""Types that a skops file may hold beside skops' own list of safe ones: parts of scikit-learn that hold numbers and run no code."""

from typing import Final

TRUSTED_TYPES: Final = (
    # Histogram boosting with sets of categories checks its rows by a `partial` of `check_array`. Building a partial calls nothing, and what
    # it would call stands under its own name in the file, which must be on a list too.
    "functools.partial",
    "numpy.dtype",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
    "sklearn.tree._tree.Tree",
    "sklearn.utils._bunch.Bunch",
    "sklearn.utils.validation.check_array",
)
