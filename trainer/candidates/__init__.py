"""Candidates: the kinds of models that the trainer knows.

A candidate learns from cleaned rows and hands back its file together with the file's own answers. It never sees test rows, never
unpickles, and refuses rows it cannot take with the remedy in the sentence. Heavy libraries are imported when a candidate is fitted or
opened, not before.

Read `fitted.py` next (what is asked and handed back), then `table.py` (which there are) and `spaces.py` (their settings).
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefleet.errors import ArtifactError
from trainer.candidates.fitted import Fitted, Predict, Problem, Progress
from trainer.candidates.spaces import defaults, settings_of, suggest
from trainer.candidates.table import CANDIDATES, Candidate, check_candidates, describe, refuse

__all__ = [
    "CANDIDATES", "Candidate", "Fitted", "Predict", "Problem", "Progress", "check_candidates", "defaults", "describe", "fit", "open_model",
    "refuse", "settings_of", "suggest",
]  # fmt: skip


def fit(
    name: str,
    z: NDArray[np.float32],
    label: NDArray[Any],
    problem: Problem,
    *,
    parameters: dict[str, Any] | None = None,
    weight: NDArray[np.float64] | None = None,
    validation: tuple[NDArray[np.float32], NDArray[Any]] | None = None,
    progress: Progress | None = None,
) -> Fitted:
    """Fit one candidate.

    Args:
        name: Which.
        z: [n, ...] float32 cleaned training rows.
        label: [n] int64 class index, int64 0 normal or 1 strange (only normal rows are learnt from), or float64 target.
        problem: What shall be learnt.
        parameters: Settings in place of the defaults.
        weight: [n] float64 weights of the rows.
        validation: Rows and labels for early stopping and the training curve; never fitted on.
        progress: Is told the validation loss after each epoch or some trees; the fit ends when it answers False.

    Raises:
        ConfigError: The candidate does not fit the problem, or a setting is wrong.
        InputError: Nothing can be learnt from these rows.
        MissingPartError: Its library is not installed.
    """
    refuse(name, z, label, problem)
    if CANDIDATES[name].library == "keras":
        from trainer.candidates.networks import fit_network

        return fit_network(name, z, label, problem, parameters, weight, validation, progress)
    from trainer.candidates.scikit import fit_scikit

    return fit_scikit(name, z, label, problem, parameters, weight, validation, progress)


def open_model(content: bytes, file_name: str, problem: Problem) -> Predict:
    """The model of a file as a function.

    Args:
        content: Bytes of the file.
        file_name: Its name in the package; the suffix says what it is.
        problem: What it was trained for.

    Raises:
        ArtifactError: Damaged, for another problem, or of a kind that the trainer cannot run.
        MissingPartError: Its library is not installed.
    """
    suffix = Path(file_name).suffix
    if suffix == ".skops":
        from trainer.candidates.scikit import open_skops

        return open_skops(content, problem)
    if suffix == ".keras":
        from trainer.candidates.keras_files import open_keras

        return open_keras(content, problem)
    raise ArtifactError(f"the trainer cannot run {file_name!r}; it runs .skops and .keras")
