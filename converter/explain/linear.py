"""Linear models: the closed form w_j (z_j - mean_j), as arrays for `device_agent.linear`."""

import numpy as np
from numpy.typing import NDArray

from converter.cores import Core, Layers
from converter.explain.behind import cleaned, cleaning_arrays
from edgefleet.errors import VerdictError
from edgefleet.package import npz_bytes
from edgefleet.steps import Steps


def is_linear(core: Core) -> bool:
    """Whether the margin is a linear function of the cleaned columns."""
    return isinstance(core.head, Layers) and len(core.head.layers) == 1 and core.head.layers[0].activation == "identity"


def compile_linear(core: Core, rows: NDArray[np.float32], *steps: Steps) -> bytes:
    """The explainer file of a linear core.

    Args:
        core: `is_linear`.
        rows: [n, ...] raw training rows; the base is the margin of their mean behind the steps, which is their mean margin.
        steps: Cleaning in front, the first first.

    Raises:
        VerdictError: The model is not linear, or no row is complete behind the steps.
    """
    mean, base = closed_form(core, rows, *steps)
    assert isinstance(core.head, Layers)  # noqa: S101  # `closed_form` refuses all else
    return npz_bytes(
        {
            "method": np.array("linear"),
            "weight": core.head.layers[0].weight.astype(np.float64),
            "mean": mean,
            "base": base,
            **cleaning_arrays(steps, core.features),
        }
    )


def closed_form(core: Core, rows: NDArray[np.float32], *steps: Steps) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """([C] mean of the rows behind the steps, [K] margin of it); arguments and errors as of `compile_linear`."""
    if not is_linear(core) or not isinstance(core.head, Layers):
        raise VerdictError("the closed form explains linear models, and this is none; use 'auto'")
    z = cleaned(steps, rows).astype(np.float64)
    z = z[np.isfinite(z).all(axis=1)]
    if len(z) == 0:
        raise VerdictError("no row of the package is complete behind the cleaning steps, and a linear model needs complete rows; impute")
    layer, mean = core.head.layers[0], z.mean(axis=0)
    return mean, mean @ layer.weight + layer.bias
