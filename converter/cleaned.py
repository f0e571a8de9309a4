"""What a model behind its cleaning steps takes: named columns, and whether they may still be missing."""

from collections.abc import Sequence

import numpy as np

from edgefleet.manifest import Input
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
    """Names of cleaned columns that are NaN for some row that the schema allows.

    Every cleaned column derives from one input, and no step looks at other columns; so three rows show it:
    everything that may be missing is missing, every category is unseen, and an ordinary row.
    """
    if steps.is_identity:
        return [column.name for column in inputs if column.missing]
    absent = [np.nan if column.missing else 0.0 for column in inputs]
    unseen = [-1.0 if column.kind == "category" else 0.0 for column in inputs]
    probes = np.array([absent, unseen, [0.0] * len(inputs)], np.float32)
    found = np.any(np.isnan(steps.run(probes)), axis=0).tolist()
    return [name for name, missing in zip(steps.names, found, strict=True) if missing]
