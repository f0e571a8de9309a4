"""Which candidates there are, what each can learn, and what it refuses before a fit begins."""

import difflib
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from edgefleet.errors import ConfigError, InputError
from edgefleet.manifest import Task
from trainer.candidates.fitted import Problem

MIN_SIDE: Final = 4  # of an image: two convolutions and one pooling
MIN_SVM_CLASS_ROWS: Final = 2  # its probabilities are fitted on rows that the machine has not seen, of every class
MAX_SVM_ROWS: Final = 20_000  # an SVM's fit grows with the square of the rows; this many take minutes
_TABULAR: Final[tuple[Task, ...]] = ("classification", "regression")


@dataclass(frozen=True)
class Candidate:
    """A kind of model.

    Attributes:
        name: Its name in `search.candidates`.
        library: Whose work it is.
        family: What the model is, for the converter (see `Fitted.family`).
        tasks: What it can learn.
        about: One sentence for `--list-candidates`.
        trees: Only the order of values counts, so monotone cleaning steps are left out for it.
        missing: It takes missing values.
        needs_images: Rows must be images, `Problem.shape` (height, width).
        needs_windows: Rows must be windows, `Problem.shape` (rows, features).
        takes_windows: Windows may come whole; others need features of the window.
        baseline: It only shows what a model must beat.
        max_rows: Training rows it takes at most, or None.
    """

    name: str
    library: Literal["numpy", "sklearn", "keras"]
    family: str
    tasks: tuple[Task, ...]
    about: str
    trees: bool = False
    missing: bool = False
    needs_images: bool = False
    needs_windows: bool = False
    takes_windows: bool = False
    baseline: bool = False
    max_rows: int | None = None


CANDIDATES: Final[dict[str, Candidate]] = {
    candidate.name: candidate
    for candidate in (
        Candidate(
            "majority", "sklearn", "constant", ("classification",), "the classes' shares", True, True, takes_windows=True, baseline=True
        ),
        Candidate("mean", "sklearn", "constant", ("regression",), "the mean", True, True, takes_windows=True, baseline=True),
        Candidate(
            "mahalanobis", "sklearn", "mahalanobis", ("anomaly",), "distance from the normal rows' mean", takes_windows=True, baseline=True
        ),
        Candidate("logistic", "sklearn", "linear", ("classification",), "logistic regression; exact explanation"),
        Candidate("ridge", "sklearn", "linear", ("regression",), "linear regression; exact explanation"),
        Candidate("tree", "sklearn", "tree", _TABULAR, "one decision tree", True, True),
        Candidate("forest", "sklearn", "forest", _TABULAR, "random forest; a safe start", True, True),
        Candidate("extra_trees", "sklearn", "forest", _TABULAR, "extremely randomised trees", True, True),
        Candidate("boosting", "sklearn", "boosting", _TABULAR, "gradient boosted trees, for up to some 10,000 rows", True),
        Candidate("hist_boosting", "sklearn", "hist_boosting", _TABULAR, "histogram boosting, also for millions of rows", True, True),
        Candidate("svm", "sklearn", "svm", _TABULAR, "support vectors (RBF), probabilities by a fitted sigmoid", max_rows=MAX_SVM_ROWS),
        Candidate("mlp", "sklearn", "mlp", _TABULAR, "small network of scikit-learn"),
        Candidate("isolation_forest", "sklearn", "isolation_forest", ("anomaly",), "how few cuts isolate a row", True, True),
        Candidate("dense", "keras", "keras", _TABULAR, "fully connected network", takes_windows=True),
        Candidate("conv", "keras", "keras", _TABULAR, "convolutions over images", needs_images=True, takes_windows=True),
        Candidate("conv1d", "keras", "keras", _TABULAR, "convolutions over windows", needs_windows=True, takes_windows=True),
        Candidate("lstm", "keras", "keras", _TABULAR, "recurrent network (LSTM) over windows", needs_windows=True, takes_windows=True),
        Candidate("gru", "keras", "keras", _TABULAR, "recurrent network (GRU) over windows", needs_windows=True, takes_windows=True),
        Candidate("autoencoder", "keras", "keras", ("anomaly",), "error of a network that repeats normal rows", takes_windows=True),
    )
}


def check_candidates(names: list[str], task: Task) -> list[str]:
    """Return `names` if each is known, can learn the task, and none is repeated.

    Raises:
        ConfigError: One of these is not so.
    """
    for name in names:
        if name not in CANDIDATES:
            near = difflib.get_close_matches(name, CANDIDATES, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"one of {', '.join(CANDIDATES)}"
            raise ConfigError(f"search.candidates: {name!r} is unknown; {hint}")
        if task not in CANDIDATES[name].tasks:
            able = ", ".join(other.name for other in CANDIDATES.values() if task in other.tasks)
            raise ConfigError(
                f"search.candidates: {name!r} learns {' and '.join(CANDIDATES[name].tasks)}, not {task}; for it there are {able}"
            )
    if not names or len(set(names)) != len(names):
        raise ConfigError(f"search.candidates = {names}: name at least one, each once")
    return names


def describe() -> list[dict[str, Any]]:
    """A row a candidate, for `edgefleet train --list-candidates`."""
    return [
        {
            "name": one.name,
            "learns": ", ".join(one.tasks),
            "library": one.library,
            "rows": "images" if one.needs_images else "windows" if one.needs_windows else "any" if one.takes_windows else "flat",
            "missing values": "taken" if one.missing else "refused",
            "about": one.about,
        }
        for one in CANDIDATES.values()
    ]


def refuse(name: str, z: NDArray[np.float32], label: NDArray[Any], problem: Problem) -> None:
    """Refuse what the candidate cannot learn from.

    Args:
        name: Candidate.
        z: [n, ...] float32 cleaned training rows.
        label: [n].
        problem: What shall be learnt.

    Raises:
        ConfigError: The candidate does not fit this problem: another one or a cleaning step is needed.
        InputError: No candidate could learn from these rows.
    """
    candidate = CANDIDATES[check_candidates([name], problem.task)[0]]
    _refuse_shape(candidate, z, problem)
    if candidate.max_rows is not None and len(z) > candidate.max_rows:
        raise ConfigError(f"candidate {name!r} takes at most {candidate.max_rows} training rows, these are {len(z)}; use 'hist_boosting'")
    if infinite := int(np.isinf(z).any(axis=tuple(range(1, z.ndim))).sum()):
        raise InputError(f"candidate {name!r}: {infinite} cleaned rows hold infinite values; add a clip step")
    if not candidate.missing and (rows := int(np.isnan(z).any(axis=tuple(range(1, z.ndim))).sum())):
        raise ConfigError(
            f"candidate {name!r} cannot take missing values, {rows} of {len(z)} rows have some;"
            " add the cleaning step `impute` or use 'forest'"
        )
    _refuse_labels(name, z, label, problem)


def _refuse_shape(candidate: Candidate, z: NDArray[np.float32], problem: Problem) -> None:
    shape = list(problem.shape)
    if candidate.needs_images and (len(shape) != 2 or min(shape) < MIN_SIDE):
        raise ConfigError(f"candidate {candidate.name!r} needs images: shape {shape}, expected two sides of at least {MIN_SIDE}")
    if candidate.needs_windows and len(shape) != 2:
        raise ConfigError(f"candidate {candidate.name!r} needs windows: shape {shape}; set cleaning.window.rows, without window.features")
    if z.ndim > 2 and not candidate.takes_windows:
        raise ConfigError(
            f"candidate {candidate.name!r} takes flat rows, these are windows of shape {list(z.shape[1:])}; name cleaning.window.features"
        )
    if z.size == 0 or z[0].size != int(np.prod(problem.shape)):
        raise InputError(f"candidate {candidate.name!r}: rows of shape {list(z.shape)} do not hold {shape} each; check the cleaning steps")


def _refuse_labels(name: str, z: NDArray[np.float32], label: NDArray[Any], problem: Problem) -> None:
    if len(label) != len(z):
        raise InputError(f"candidate {name!r}: {len(label)} labels for {len(z)} rows; each row needs one")
    if problem.task == "classification":
        if absent := sorted(set(range(problem.classes)) - set(label.tolist())):
            raise InputError(f"candidate {name!r}: class {absent[0]} of {problem.classes} has no training rows; add some")
        if problem.classes < 2:
            raise InputError(f"candidate {name!r}: the labels hold one class only; add rows of another one")
        if CANDIDATES[name].family == "svm" and (least := int(np.bincount(label).min())) < MIN_SVM_CLASS_ROWS:
            raise InputError(
                f"candidate {name!r}: a class has {least} training row, {MIN_SVM_CLASS_ROWS} are needed; add some, or use 'forest'"
            )
    elif problem.task == "anomaly" and not (label == 0).any():
        raise InputError(f"candidate {name!r} learns from normal rows, none of {len(label)} training rows is normal; add some")
    elif problem.task == "regression" and not np.isfinite(label).all():
        raise InputError(f"candidate {name!r}: {int((~np.isfinite(label)).sum())} targets are missing or infinite; remove those rows")
