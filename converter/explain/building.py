"""Which explanation a model gets, and making it: exact where it can be, else a student, else sampling.

`make(job)` is the work of a child process; `explainer_for` is the same without files. A student learns from the calibration rows, is
measured on every second parity row, and judged on the others (`fidelity.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from converter.cores import Core, Trees
from converter.explain.agreement import agreement, of_segments
from converter.explain.amortised import LABEL_EVALUATIONS, LEAST_TRAINING_ROWS, Amortised, amortise
from converter.explain.asking import Asked, margins_of_graph
from converter.explain.fidelity import LEAST_COSINE, LEAST_TOP3, PROVING_PAIRS, measured_rows, segments_point
from converter.explain.linear import compile_linear, is_linear
from converter.explain.own import own_explainers
from converter.explain.package_rows import background_rows, steps_in_front, training_rows
from converter.explain.player_groups import players_for
from converter.explain.shapley import Margins, Matrix, channel_sums, evaluations
from converter.explain.treeshap import MAX_SLOTS, NOTED_SLOTS, compile_leaves, treeshap_bytes
from converter.explain.treeshap_onnx import treeshap_to_onnx
from edgefleet.errors import VerdictError
from edgefleet.manifest import ExplainMethod, Runtime
from edgefleet.package import ModelPackage, npz_bytes
from edgefleet.players import by_segment, segments_for
from edgefleet.steps import Steps

Method = Literal["auto", "linear", "treeshap", "amortised", "sampled"]

# Multiplications that the labels of a student may cost: seconds of a processor.
STUDENT_PRODUCTS: Final = 3e10
# Time segments of a window that is not explained exactly: each one more costs evaluations, and is told apart less surely.
APPROXIMATE_SEGMENTS: Final = 4
# What the device's sampler may ask of the model for one row.
SAMPLED_EVALUATIONS: Final = 65_536


@dataclass(frozen=True)
class Explained:
    """An explainer.

    Attributes:
        content: Bytes of the explainer file (.npz).
        method: How it explains.
        graphs: The same as a graph, by runtime.
        reasons: Why a runtime has none.
        notes: Sentences for the card.
        figures: What a student's held-out rows said, against the float model; see `fidelity.agreement`.
    """

    content: bytes
    method: ExplainMethod
    graphs: dict[Runtime, bytes] = field(default_factory=dict)
    reasons: dict[Runtime, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    figures: dict[str, float] = field(default_factory=dict)


def explainer_for(
    core: Core | None, package: ModelPackage, method: Method = "auto", margins: Margins | None = None, products: float = 1_000.0
) -> Explained:
    """The explainer of a package.

    Args:
        core: The model as plain arrays, None where it has no such form.
        package: With its cleaning steps and rows.
        method: `auto` is exact where it can be, else a student that points well enough, else sampling; other names ask for just that.
            A student of windows tells as many time segments as it points at as well as contributions must.
        margins: The float model on raw rows, [n, F] or [n, T, F] to [n, K]; without it there is no student.
        products: Multiplications that one of these rows costs: a costly model gets fewer rows to learn from, or no student.

    Raises:
        VerdictError: The named method cannot explain this model, or nothing can; the reason is the message.
    """
    if method == "sampled":
        return _sampled(package, products)
    if method == "amortised":
        return _amortised(package, margins, products)[0]
    steps = steps_in_front(core, package)
    if method == "linear" or (method == "auto" and core is not None and is_linear(core)):
        return _linear(core, package, steps)
    if method == "treeshap":
        return _treeshap(core, package, steps)
    refused = ""
    if core is not None and isinstance(core.head, Trees) and core.head.average_depth is None:
        try:
            return _treeshap(core, package, steps)
        except VerdictError as err:
            refused = f"Not explained exactly: {err}"
    return _without_exact(package, margins, products, refused)


def make(job: dict[str, Any]) -> dict[str, Any]:
    """The child's work.

    Args:
        job: `package` (folder), `method`, `graph` (path of a float graph or ""), `runtime` of it, `folder` (for the results),
            `halved` (half precision targets that were made; none when left out), `integers` {integer target that was made: path of its
            graph}.

    Returns:
        `file`, `method`, `notes`, `graphs` {runtime: path}, `reasons` {runtime: why none}, `figures`, and `own` {target: path} of exact
        explainers of variants that hold other numbers than the float model.

    Raises:
        VerdictError: See `explainer_for`.
    """
    package = ModelPackage.open(job["package"])
    asked = margins_of_graph(Path(job["graph"]), job["runtime"]) if job.get("graph") else None
    core = _core(package)
    if asked is None and core is not None:
        asked = Asked(_margins_of_core(core, package), 20_000.0)
    done = explainer_for(core, package, job["method"], *((asked.margins, asked.products) if asked is not None else ()))
    folder = Path(job["folder"])
    file = folder / "explain.npz"
    file.write_bytes(done.content)
    graphs = {}
    for runtime, content in done.graphs.items():
        graphs[runtime] = str(folder / f"explain-{runtime}")
        (folder / f"explain-{runtime}").write_bytes(content)
    own: dict[str, str] = {}
    notes = list(done.notes)
    if core is not None:
        contents, said = own_explainers(core, package, done.method, job.get("halved", ()), job.get("integers", {}))
        notes += said
        for target, content in contents.items():
            own[target] = str(folder / f"explain-{target}.npz")
            Path(own[target]).write_bytes(content)
    return {
        "file": str(file), "method": done.method, "notes": notes, "graphs": graphs, "reasons": done.reasons,
        "figures": done.figures, "own": own,
    }  # fmt: skip


def _core(package: ModelPackage) -> Core | None:
    if not package.index.model.endswith(".skops"):
        return None
    from converter.cores.reading import core_of

    try:
        return core_of(package)
    except VerdictError:
        return None  # a pipeline that only another converter reads: explained through its graph


def _margins_of_core(core: Core, package: ModelPackage) -> Margins:
    from converter.cores.running import margins_of

    steps = package.steps()
    return lambda rows: margins_of(core, steps.run(rows).reshape(len(rows), -1))


def _linear(core: Core | None, package: ModelPackage, steps: Sequence[Steps]) -> Explained:
    if core is None:
        raise VerdictError("the closed form explains linear models, and this model has no form as plain arrays; use 'auto'")
    return Explained(compile_linear(core, training_rows(package), *steps), "linear")


def _treeshap(core: Core | None, package: ModelPackage, steps: Sequence[Steps]) -> Explained:
    if core is None or not isinstance(core.head, Trees):
        raise VerdictError("TreeSHAP is exact for trees, and this model is none; use 'auto'")
    if core.head.average_depth is not None:
        raise VerdictError("the score of an isolation forest is no sum of its trees, which TreeSHAP needs; use 'auto'")
    compiled = compile_leaves(core.head.ensemble, MAX_SLOTS)
    notes = []
    if compiled.slots > NOTED_SLOTS:
        notes.append(f"The exact explanation has {compiled.slots} slots ({compiled.slots * 25 // 1000} kB): smaller trees explain faster.")
    graphs: dict[Runtime, bytes] = {}
    reasons: dict[Runtime, str] = {}
    try:
        graphs["onnxruntime"] = treeshap_to_onnx(compiled, len(package.inputs()), *steps)
    except VerdictError as err:
        reasons["onnxruntime"] = str(err)
    return Explained(treeshap_bytes(compiled, *steps), "treeshap", graphs, reasons, tuple(notes))


def _without_exact(package: ModelPackage, margins: Margins | None, products: float, refused: str) -> Explained:
    notes = (refused,) if refused else ()
    if margins is None:
        return _noted(_sampled(package, products), (*notes, "Explained by sampling: there is no float graph for a student to learn from."))
    try:
        student, figures = _amortised(package, margins, products)
    except VerdictError as err:
        return _noted(_sampled(package, products), (*notes, f"Explained by sampling: {err}"))
    if not _points_well(figures):
        said = (
            f"Explained by sampling: a student's cosine to the Shapley values is at least {figures['cosine_low']:.3f} "
            f"(limit {LEAST_COSINE:g}), its top 3 overlap {figures['top3_low']:.2f} (limit {LEAST_TOP3:g})."
        )
        return _noted(_sampled(package, products), (*notes, said))
    return _noted(student, (*notes, *student.notes))


def _noted(explained: Explained, notes: tuple[str, ...]) -> Explained:
    return replace(explained, notes=tuple(dict.fromkeys(notes)))


def _amortised(package: ModelPackage, margins: Margins | None, products: float) -> tuple[Explained, dict[str, float]]:
    if margins is None:
        raise VerdictError("a student needs a float graph of the model to learn from, and there is none; use 'sampled'")
    background, rows, held_out = background_rows(package), training_rows(package), measured_rows(package.rows("parity").x)
    if len(rows) < 20 or len(held_out) < 10:
        raise VerdictError(f"a student needs 20 calibration and 20 parity rows, the package has {len(rows)} and {2 * len(held_out)}")
    asked = int(min(LABEL_EVALUATIONS, STUDENT_PRODUCTS / products))
    segments = APPROXIMATE_SEGMENTS
    while True:
        players = _players_in_reach(package, segments, len(background) * products)
        if int(players.max()) < 1:
            raise VerdictError("a model of one input needs no student: sampling is exact")
        made = amortise(margins, rows, held_out, background, package.inputs(), players, evaluations_at_most=asked)
        figures = _figures(made, players, len(package.index.classes), margins, held_out)
        segments = (int(players.max()) + 1) // len(package.inputs())
        # Angles alone: where most segments did nothing, any of them may stand among the three strongest.
        if players.ndim == 1 or (_points_well(figures) and segments_point(figures)):
            break
        segments //= 2  # whole channels in the end
    note = (
        f"Explained by a student of the Shapley values: cosine {figures['cosine']:.3f}, top 3 overlap {figures['top3']:.2f}, R2 "
        f"{figures['r2']:.3f} on {figures['rows']:.0f} held-out rows of the float model."
    )
    if players.ndim == 2:
        note = f"{note[:-1]}; of its {segments} time segments, cosine {figures['segment_cosine']:.3f}, beyond an even "
        note += f"division {figures['segment_within']:.3f}."
    return Explained(made.content, "amortised", notes=(note,), figures=figures), figures


def _points_well(figures: dict[str, float]) -> bool:
    return figures["cosine_low"] >= LEAST_COSINE and figures["top3_low"] >= LEAST_TOP3


def _figures(made: Amortised, players: NDArray[np.intp], classes: int, margins: Margins, held_out: Matrix) -> dict[str, float]:
    """Agreement on the predicted class's margin; of windows in segments also theirs."""
    values, reference = made.values, made.reference
    rows, best = np.arange(len(values)), np.zeros(len(values), np.intp)
    if values.shape[2] > 1 and classes > 0:
        best = np.asarray(margins(held_out[: len(values)]), np.float64).argmax(axis=1)
    figures = agreement(channel_sums(values, players)[rows, :, best], reference.shown.values[rows, :, best])
    if players.ndim == 2:
        found, wanted = (by_segment(one[rows, :, best], players.shape[1]) for one in (values, reference.values))
        figures |= of_segments(found, wanted)
    return figures


def _sampled(package: ModelPackage, products: float) -> Explained:
    """With time segments where they can be proven (gate X4) within the multiplications that a student may cost."""
    background, players = background_rows(package), _players(package, APPROXIMATE_SEGMENTS)
    if players.ndim == 2 and evaluations(int(players.max()) + 1, len(background)) * PROVING_PAIRS * products > STUDENT_PRODUCTS:
        players = _players(package, 1)
    count = int(players.max()) + 1
    if evaluations(count, 1) > SAMPLED_EVALUATIONS:
        raise VerdictError(f"sampling {count} inputs asks the model more than {SAMPLED_EVALUATIONS} times; declare fewer inputs")
    arrays: dict[str, NDArray[Any]] = {"method": np.array("sampled"), "background": background}
    if players.ndim == 2 or count < len(players):
        arrays["players"] = players.astype(np.int64)
    return Explained(npz_bytes(arrays), "sampled")


def _players(package: ModelPackage, segments_at_most: int) -> NDArray[np.intp]:
    index, inputs = package.index, len(package.inputs())
    return players_for(index.shape, inputs, index.window_rows, min(segments_at_most, segments_for(index.window_rows, inputs)))


def _players_in_reach(package: ModelPackage, segments: int, products: float) -> NDArray[np.intp]:
    """At most so many time segments of a window, fewer where labels would cost too much; `products` are those of one coalition."""
    most = 10 * STUDENT_PRODUCTS
    while True:
        players = _players(package, segments)
        cost = evaluations(int(players.max()) + 1, 1) * products * LEAST_TRAINING_ROWS
        if cost <= most:
            return players
        if segments <= 1:
            raise VerdictError(f"a student would cost {cost:.1g} multiplications, the limit is {most:.1g}")
        segments //= 2
