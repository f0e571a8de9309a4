"""The writer of the target c, called in a child process; see `converter.targets` for what it is asked and leaves."""

import math
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from converter.cleaned import rows_may_miss
from converter.cores import Core, Distance, Trees
from converter.cores.reading import FAMILIES, core_of
from converter.targets import Made, answer, job_of
from converter.to_c.compiler import find_compiler, sizes_of
from converter.to_c.explanation import Explanation, explanation_of
from converter.to_c.selftest import Golden, GoldenExplanations, choose, write_selftest
from converter.to_c.source import HEADER_NAME, Described, Written, write_model
from converter.to_c.steps import why_not_steps
from edgefleet.errors import ArtifactError, VerdictError
from edgefleet.package import ModelPackage

MAX_INPUTS: Final = 16_384
SELFTEST_NAME: Final = "selftest.c"


def make(job: dict[str, Any]) -> dict[str, Any]:
    """Write model.c, model.h and selftest.c.

    Raises:
        VerdictError: The model has no form in C; why.
    """
    task = job_of(job)
    package = ModelPackage.open(task.package)
    if (reason := why_not_c(package)) is not None:
        raise VerdictError(reason)
    core, steps, index = core_of(package), package.steps(), package.index
    positive = index.classes.index(index.positive) if index.positive in index.classes else 1
    described = Described(index.project, package.digest, index.classes, index.threshold, positive)
    written = write_model(core, steps, described, explanation_of(core, package, task.explain))
    folder, result = Path(task.folder or Path(task.result).parent), Path(task.result)
    result.write_text(written.code, encoding="ascii")
    files = {
        f"c/{HEADER_NAME}": (HEADER_NAME, written.header),
        f"c/{SELFTEST_NAME}": (SELFTEST_NAME, _selftest(package, described, written.explanation)),
    }
    for name, content in files.values():
        (folder / name).write_text(content, encoding="ascii")
    facts = {"constant_bytes": written.constant_bytes, "function": f"{described.name}_predict", **_sizes(written)}
    exact = written.explanation.exact
    if exact is not None:
        facts |= {"explain_bytes": written.explain_bytes, "explain_function": f"{described.name}_explain"}
    made = Made(
        notes=[] if exact is not None else [f"The C variant does not explain: {written.explanation.reason}."],
        explained=None if exact is None else exact.method,
        explain_reason=written.explanation.reason,
        takes_missing=_takes_missing(package, core),
        facts=facts,
        files={place: str(folder / name) for place, (name, _) in files.items()},
    )
    return answer(made)


def why_not_c(package: ModelPackage) -> str | None:
    """Why a package has no C form, from its index and steps alone; None where it may have one."""
    index = package.index
    if index.family == "keras":
        return "networks of Keras are not written as C: use a tflite target, or train the family mlp"
    if index.family in ("onnx", "tflite"):
        return f"an imported .{index.family} graph is not written as C: import the scikit-learn model that it was made from"
    if index.family not in FAMILIES or not index.model.endswith(".skops"):
        return f"a model of the family {index.family!r} in {index.model!r} is not written as C; one of {', '.join(FAMILIES)} is"
    steps = package.steps()
    if (inputs := math.prod(steps.input_shape)) > MAX_INPUTS:
        return f"{inputs} values a row, the limit of the target c is {MAX_INPUTS}: shorten the window or choose fewer inputs"
    return why_not_steps(steps)


def _sizes(written: Written) -> dict[str, Any]:
    """What it takes on this kind of processor; nothing where no compiler is installed, which the proof will say."""
    try:
        compiler = find_compiler()
    except VerdictError:
        return {}
    with tempfile.TemporaryDirectory(prefix="edgefleet-c-") as name:
        folder = Path(name)
        (folder / "model.c").write_text(written.code, encoding="ascii")
        (folder / HEADER_NAME).write_text(written.header, encoding="ascii")
        found = sizes_of(compiler, folder)
    return {"compiler": Path(compiler[0]).name, **{key: value for key, value in asdict(found).items() if value is not None}}


def _takes_missing(package: ModelPackage, core: Core) -> bool:
    head = core.head
    fills = isinstance(head, Trees) or (isinstance(head, Distance) and head.fill is not None) or core.front is not None
    return fills or not rows_may_miss(package, package.steps())


def _selftest(package: ModelPackage, described: Described, explanation: Explanation) -> str:
    from converter.comparing import spread_of
    from converter.originals import answers_of, load_estimator
    from converter.recipes import RECIPES

    golden, model, steps = package.rows("golden"), load_estimator(package), package.steps()
    original = answers_of(package, model, steps, golden.x)
    wanted: NDArray[np.float64] = original.probabilities if package.index.task == "classification" else original.margin
    chosen = choose(golden.x, wanted, golden.label)
    if not len(chosen):
        raise ArtifactError("none of the golden rows has a finite answer of the original model; train again")
    spread = 1.0
    if package.index.task != "classification":
        spread = spread_of(package.index.task, answers_of(package, model, steps, package.rows("parity").x))
    x = np.asarray(golden.x[chosen], np.float32).reshape(len(chosen), -1)
    tolerance = RECIPES["c"].tolerance(spread).max_error
    explained = _explained(golden.x[chosen], original.margin[chosen], explanation)
    return write_selftest(Golden(x, wanted[chosen], tolerance), described.name, explained)


def _explained(x: NDArray[np.float32], margin: NDArray[np.float64], explanation: Explanation) -> GoldenExplanations | None:
    """Golden explanations of the predicted classes; rows that a linear model cannot answer are left out."""
    exact = explanation.exact
    if exact is None:
        return None
    found, rows = exact.contributions(np.asarray(x, np.float32)), np.arange(len(x))
    column = margin.argmax(axis=1) if len(exact.base) > 1 else np.zeros(len(x), np.intp)
    wanted = np.concatenate([exact.base[column][:, None], found[rows, :, column]], axis=1)
    good = np.isfinite(wanted).all(axis=1)
    flat = np.asarray(x, np.float32).reshape(len(x), -1)
    return GoldenExplanations(flat[good], column[good], wanted[good]) if good.any() else None
