"""Candidates: the model families that the trainer knows, one module each.

A candidate is a function `fit(rows, classes, shape, seed) -> Fitted`. Heavy libraries are imported inside the modules.
Read `fitted.py` next.
"""

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edgefleet.errors import ArtifactError, ConfigError
from edgefleet.package import ModelPackage
from trainer.candidates.fitted import Fitted, Predict

CANDIDATES: Final = ("forest", "conv")


def check_candidates(names: list[str]) -> list[str]:
    """Return `names` if each is known and none is repeated, else raise ConfigError."""
    for name in names:
        if name not in CANDIDATES:
            raise ConfigError(f"candidate {name!r} is unknown: one of {', '.join(CANDIDATES)}")
    if not names or len(set(names)) != len(names):
        raise ConfigError(f"search.candidates = {names}: name at least one, each once")
    return names


def fit(name: str, x: NDArray[np.float32], label: NDArray[np.int64], classes: int, shape: list[int], seed: int) -> Fitted:
    """Fit one candidate on x [n, F] float32 with class indices label [n]."""
    if name == "forest":
        from trainer.candidates.forest import fit_forest

        return fit_forest(x, label, classes, seed)
    if name == "conv":
        from trainer.candidates.conv import fit_conv

        return fit_conv(x, label, classes, shape, seed)
    raise ConfigError(f"candidate {name!r} is unknown: one of {', '.join(CANDIDATES)}")


def open_model(package: ModelPackage) -> Predict:
    """The model of a package as a function from x [n, F] to probabilities [n, classes]; for the comparison with a champion.

    Raises:
        ArtifactError: The model file is damaged or of a family that the trainer cannot run.
    """
    name = package.index.model
    content = package.read(name)
    if Path(name).suffix == ".skops":
        from trainer.candidates.forest import open_forest

        return open_forest(content, len(package.index.classes))
    if Path(name).suffix == ".keras":
        from trainer.candidates.conv import open_conv

        return open_conv(package.folder / name)
    raise ArtifactError(f"{package.folder}: the trainer cannot run {name!r}; it runs .skops and .keras")
