"""The trained model and its own answers: what every variant is compared with.

`answer(job)` runs in a child process, because a model file is foreign until its digest was checked and its library is heavy.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgefleet.archives import check_archive
from edgefleet.errors import ArtifactError, VerdictError
from edgefleet.package import ModelPackage, npz_bytes, read_npz
from edgefleet.skops_nodes import check_nodes
from edgefleet.skops_types import TRUSTED_TYPES
from edgefleet.steps import Steps

MAX_MODEL_BYTES: Final = 512 * 1024 * 1024
_LEAST_SHARE: Final = 1e-12


@dataclass(frozen=True)
class Original:
    """Answers of the original model.

    Attributes:
        probabilities: [n, classes] float64; no columns for values and scores.
        margin: [n, K] float64.
    """

    probabilities: NDArray[np.float64]
    margin: NDArray[np.float64]

    def to_file(self, path: Path) -> None:
        """Write as .npz, from a child process to its parent."""
        path.write_bytes(npz_bytes({"probabilities": self.probabilities, "margin": self.margin}))

    @classmethod
    def from_file(cls, path: Path) -> "Original":
        """Read what `to_file` wrote."""
        return cls(**read_npz(path.read_bytes(), ("probabilities", "margin"), path.name))


def answer(job: dict[str, Any]) -> dict[str, Any]:
    """The child's whole work for every package but those of Keras: the model's own answers to row sets.

    Args:
        job: `package` (folder), `rows` {name: path of an .npz with raw x}, `folder` (for the results).

    Returns:
        `answers` {name: path}.
    """
    package = ModelPackage.open(job["package"])
    answered = _asked(package)
    paths = {}
    for name, path in job["rows"].items():
        x = read_npz(Path(path).read_bytes(), ("x",), name)["x"]
        paths[name] = str(Path(job["folder"]) / f"answers-{name}.npz")
        answered(x).to_file(Path(paths[name]))
    return {"answers": paths}


def _asked(package: ModelPackage) -> Callable[[NDArray[np.float32]], Original]:
    """The package's model as a function of raw rows."""
    if package.index.family in ("onnx", "tflite"):
        from converter.imported.answers import answers_of_graph

        return lambda x: answers_of_graph(package, x)
    model, steps = load_estimator(package), package.steps()
    return lambda x: answers_of(package, model, steps, x)


def load_estimator(package: ModelPackage) -> Any:
    """The fitted scikit-learn model of a package, without unpickling.

    Raises:
        ArtifactError: Unreadable, too large, or it holds types that are not on the list.
    """
    return load_skops(package.read(package.index.model), package.index.model)


def load_skops(content: bytes, name: str) -> Any:
    """A fitted estimator from a skops file's bytes, without unpickling; `name` is what errors call it.

    Raises:
        ArtifactError: Unreadable, too large as it is or when unpacked, or it holds types that are not on the list.
    """
    import skops.io as sio

    if len(content) > MAX_MODEL_BYTES:
        raise ArtifactError(f"{name}: {len(content)} bytes exceed the limit of {MAX_MODEL_BYTES}; train a smaller model")
    check_archive(content, name, ".skops")
    try:
        unknown = sorted(set(sio.get_untrusted_types(data=content)) - set(TRUSTED_TYPES))
        if unknown:
            raise ArtifactError(f"{name} holds the type {unknown[0]!r}, which is not loaded; train with a listed model")
        check_nodes(content, name)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a file of another scikit-learn version only warns, and may then answer wrongly
            return sio.loads(content, trusted=list(TRUSTED_TYPES))
    except ArtifactError:
        raise
    except Exception as err:  # zipfile, json, skops and scikit-learn each raise their own
        raise ArtifactError(f"{name}: not a readable skops file: {str(err)[:200]}") from err


def answers_of(package: ModelPackage, model: Any, steps: Steps, x: NDArray[np.float32]) -> Original:
    """Answers of a scikit-learn model to raw float32 rows x; it is given the cleaned rows as float64, exactly what a device computes on."""
    z = steps.run(x)
    rows = z.reshape(len(z), -1)
    handed = _handed(package, rows.astype(np.float64))
    with warnings.catch_warnings():
        # The package's rows have no column names; the model may have been fitted on a table that had them.
        warnings.filterwarnings("ignore", message="X does not have valid feature names", category=UserWarning)
        if package.index.task != "classification":
            value = _values(package.index.task, model, handed)
            return Original(np.empty((len(rows), 0)), value.reshape(len(rows), 1))
        probabilities = np.asarray(model.predict_proba(handed), np.float64)
    return _classes(package, probabilities, rows)


def _handed(package: ModelPackage, rows: NDArray[np.float64]) -> Any:
    """The rows as the model wants them: a matrix, or for imported models that were fitted on one a table with names and texts."""
    from converter.imported.signature import signature_of

    called = signature_of(package)
    if called is None or not called.table:
        return rows
    import pandas

    columns = {}
    for i, (name, known) in enumerate(zip(called.columns, called.categories, strict=True)):
        texts = np.array([*known, None], object)
        place = np.where(np.isfinite(rows[:, i]) & (rows[:, i] >= 0), rows[:, i], len(known)).astype(np.int64)
        columns[name] = texts[place] if known else rows[:, i]
    return pandas.DataFrame(columns)


def _classes(package: ModelPackage, probabilities: NDArray[np.float64], rows: NDArray[np.float32]) -> Original:
    import msgspec

    from converter.calibrators import calibrate
    from converter.cores.reading import core_of
    from converter.cores.running import margins_of

    try:
        margin = margins_of(core_of(package), rows)
    except VerdictError:  # an imported pipeline without a core: the logarithm is as additive as it gets
        margin = np.log(np.maximum(probabilities, _LEAST_SHARE))
    if "calibrator.json" in package.index.files:
        probabilities = calibrate(msgspec.json.decode(package.read("calibrator.json")), probabilities)
    return Original(probabilities, margin)


def _values(task: str, model: Any, rows: Any) -> NDArray[np.float64]:
    if task == "regression":
        return np.asarray(model.predict(rows), np.float64)
    if hasattr(model, "named_steps") and "mahalanobis" in model.named_steps:
        scale, distance = model.named_steps["scale"], model.named_steps["mahalanobis"]
        return np.asarray(np.sqrt(np.maximum(distance.mahalanobis(scale.transform(rows)), 0)), np.float64)
    return np.asarray(-model.score_samples(rows), np.float64)  # scikit-learn's is larger for ordinary rows


def check_answers(original: Original, package: ModelPackage, what: str) -> None:
    """Refuse answers that cannot be compared with.

    Raises:
        VerdictError: Not one column per class, or not finite.
    """
    classes = len(package.index.classes)
    if original.probabilities.shape[1] != classes:
        raise VerdictError(
            f"{what}: the model answers {original.probabilities.shape[1]} classes, package.json names {classes}; train again"
        )
    if not (np.isfinite(original.probabilities).all() and np.isfinite(original.margin).all()):
        raise VerdictError(f"{what}: the original model answers NaN or infinity on the package's own rows; train again")
