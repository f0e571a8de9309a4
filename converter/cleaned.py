"""What a model behind its cleaning steps takes: named columns, and whether they may still be missing."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgefleet.manifest import Input
from edgefleet.package import ModelPackage
from edgefleet.steps import Steps


def cleaned_inputs(steps: Steps, inputs: Sequence[Input]) -> list[Input]:
    """The columns behind the steps as a schema.

    Args:
        steps: The identity returns the inputs.
        inputs: Raw inputs.
    """
    if steps.is_identity:
        return list(inputs)
    missing = set(may_be_missing(steps, inputs))
    return [Input(name=name, missing=name in missing) for name in steps.names]


def may_be_missing(steps: Steps, inputs: Sequence[Input]) -> list[str]:
    """Names of cleaned columns that are NaN for some row that the schema allows."""
    if steps.is_identity:
        return [column.name for column in inputs if column.missing]
    found = np.any(np.isnan(steps.run(_emptiest_rows(inputs))), axis=0).tolist()
    return [name for name, missing in zip(steps.names, found, strict=True) if missing]


def rows_may_miss(package: ModelPackage, steps: Steps, front: Steps | None = None) -> bool:
    """Whether some row that the schema allows still misses a value behind the steps and a pipeline's own."""
    probes = _emptiest_rows(package.inputs())
    if package.index.window_rows > 1:
        probes = np.repeat(probes[:, None, :], package.index.window_rows, axis=1)
    cleaned = steps.run(probes)
    if front is not None:
        cleaned = front.run(cleaned.reshape(len(cleaned), -1))
    return bool(np.isnan(cleaned).any())


def _emptiest_rows(inputs: Sequence[Input]) -> NDArray[np.float32]:
    """[3, F] rows that show every way of missing: what may be missing is, every category is unseen, all is 0.

    Three are enough, because every cleaned column derives from one input and no step looks at other columns.
    """
    absent = [np.nan if column.missing else 0.0 for column in inputs]
    unseen = [-1.0 if column.kind == "category" else 0.0 for column in inputs]
    return np.array([absent, unseen, [0.0] * len(inputs)], np.float32)
