"""What explanations take from a package: rows to learn from, rows to compare with, and the steps in front of the model."""

from typing import Final

import numpy as np

from converter.cores import Core
from converter.explain.shapley import Matrix
from edgefleet.errors import VerdictError
from edgefleet.package import ModelPackage
from edgefleet.steps import Steps

BACKGROUND_ROWS: Final = 16


def steps_in_front(core: Core | None, package: ModelPackage) -> tuple[Steps, ...]:
    """Lists of steps in front of the core's head."""
    return (package.steps(), *((core.front,) if core is not None and core.front is not None else ()))


def background_rows(package: ModelPackage) -> Matrix:
    """[B, ...] at most `BACKGROUND_ROWS`.

    Raises:
        VerdictError: There are none.
    """
    background = package.rows("background").x[:BACKGROUND_ROWS]
    if len(background) == 0:
        raise VerdictError("the package has no background rows, and without them nothing is explained by comparison; train again")
    return np.ascontiguousarray(background, np.float32)


def training_rows(package: ModelPackage) -> Matrix:
    """The calibration rows, of a package without any the background rows."""
    rows = package.rows("calibration").x
    return rows if len(rows) else package.rows("background").x
