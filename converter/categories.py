"""Columns of categories inside histogram boosting: which column of a row each is, and which value each code stands for."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefleet.errors import VerdictError

# By node: the float32 values that go left.
NodeSets = dict[int, NDArray[np.float32]]


def category_splits(model: Any) -> tuple[NDArray[np.int64], list[NDArray[np.float64] | None]]:
    """For each column inside the model: the column of a row, and for categories the value of each code.

    scikit-learn moves the columns of categories to the front and numbers their values; a value that it never saw, a negative one that it
    never saw included, becomes missing.

    Raises:
        VerdictError: Categories that are not numbers.
    """
    features = int(model.n_features_in_)
    is_categorical = getattr(model, "is_categorical_", None)
    if is_categorical is None:
        return np.arange(features), [None] * features
    categorical = np.flatnonzero(is_categorical)
    columns = np.concatenate([categorical, np.flatnonzero(~np.asarray(is_categorical))]).astype(np.int64)
    encoder = model._preprocessor.named_transformers_["encoder"]
    codes: list[NDArray[np.float64] | None] = [None] * features
    for place, values in enumerate(encoder.categories_):
        if np.asarray(values).dtype.kind not in "fiub":
            raise VerdictError(f"{type(model).__name__} with categories as texts is not converted: give their numbers as columns")
        found = np.asarray(values, np.float64)
        codes[place] = found[~np.isnan(found)]
    return columns, codes
