"""Writers of the float TFLite targets, each called in a child process; `make_networks` writes every float target of a Keras package.

TensorFlow is imported in these functions only. One thread: two add in another order, and equal inputs shall give equal bytes.
"""

from pathlib import Path
from typing import Any, Final

from converter.cleaned import rows_may_miss
from converter.cores import Core, Distance, Trees
from converter.imported.looking import seen
from converter.imported.targets import WRAPPED, answers_missing, why_not
from converter.targets import Job, Made, answer, job_of
from converter.to_tflite.flat import checked_operators, read_model
from converter.to_tflite.graph import reason_of, to_tflite
from converter.to_tflite.half import half
from edgefleet.errors import VerdictError
from edgefleet.package import ModelPackage, read_npz

TARGETS: Final = ("tflite-fp32", "tflite-fp16")
# Families of the trainer with a core; "pipeline" has one if its stages are simple, which only reading it tells.
_CORES: Final = frozenset(
    ("constant", "linear", "tree", "forest", "boosting", "hist_boosting", "svm", "mlp", "isolation_forest", "mahalanobis", "pipeline")
)


def make(job: dict[str, Any]) -> dict[str, Any]:
    """Write one float target of any package that TFLite can hold; see `converter.targets`.

    Raises:
        VerdictError: It cannot; why.
    """
    asked = job_of(job)
    package = ModelPackage.open(asked.package)
    _one_thread()
    if package.index.family == "tflite":
        from converter.imported.tflite_graph import wrapped_tflite

        return answer(_write_wrapped(asked, wrapped_tflite(package), package))
    if (reason := why_not_tflite(package)) is not None:
        raise VerdictError(reason)
    if package.index.family == "keras":
        from converter.to_tflite.keras import open_network

        network = open_network(package)
        graph = to_tflite(network.behind_steps, network.steps.input_shape)
        return answer(_write(asked, graph, _network_notes(package), takes_missing=True, tables=[]))
    from converter.cores.reading import core_of

    return answer(_write_core(asked, core_of(package), package))


def make_outlier(job: dict[str, Any]) -> dict[str, Any]:
    """Write the package's outlier detector as a graph of its own.

    Raises:
        VerdictError: The package has none, or it has no form in TFLite.
    """
    from converter.outlier import detector_of

    asked = job_of(job)
    package = ModelPackage.open(asked.package)
    detector = detector_of(package)
    if detector is None:
        raise VerdictError("the package has no outlier detector")
    _one_thread()
    return answer(_write_core(asked, detector.core, package))


def make_explanation(job: dict[str, Any]) -> dict[str, Any]:
    """Write the exact explanation of a package's trees as a graph of its own; a target's own numbers where its name asks for them.

    Raises:
        VerdictError: The model is no sum of trees, or too large; why.
    """
    from converter.cores.reading import core_of
    from converter.explain.halved import GRAPHS, halved
    from converter.explain.treeshap import MAX_SLOTS, compile_leaves
    from converter.explain.treeshap_tflite import treeshap_in_tensorflow

    asked = job_of(job)
    package = ModelPackage.open(asked.package)
    core, steps = core_of(package), package.steps()
    if not isinstance(core.head, Trees) or core.head.average_depth is not None:
        raise VerdictError("TreeSHAP is exact for sums of trees, and this model is none")
    for target, name in GRAPHS.items():
        if asked.target == name:
            core = halved(core, target) or core
    assert isinstance(core.head, Trees)  # noqa: S101  # halving leaves trees trees
    _one_thread()
    both = (steps, *((core.front,) if core.front is not None else ()))
    compiled = compile_leaves(core.head.ensemble, MAX_SLOTS)
    function = treeshap_in_tensorflow(compiled, len(package.inputs()), *both, missing=rows_may_miss(package, steps, core.front))
    graph = to_tflite(function, steps.input_shape)
    Path(asked.result).write_bytes(graph)
    return answer(Made(operators=checked_operators(graph)))


def make_networks(job: dict[str, Any]) -> dict[str, Any]:
    """Every float target of a Keras package, and the original's answers, in one TensorFlow process.

    A target that fails does not take the others with it.

    Args:
        job: `package` (folder), `targets` (of onnx-fp32, tflite-fp32, tflite-fp16), `folder` (for the results), `rows` {name: path of an
            .npz with raw x}.

    Returns:
        `files` {target: path}, `made` {target: see `converter.targets.Made`}, `failed` {target: reason}, `answers` {row set: path}.
    """
    _one_thread()
    from converter.to_tflite.keras import open_network

    package, folder = ModelPackage.open(job["package"]), Path(job["folder"])
    network = open_network(package)
    answers = {}
    for name, path in job["rows"].items():
        answers[name] = str(folder / f"answers-{name}.npz")
        network.answers(read_npz(Path(path).read_bytes(), ("x",), name)["x"]).to_file(Path(answers[name]))
    files: dict[str, str] = {}
    made: dict[str, Any] = {}
    failed: dict[str, str] = {}
    graph: bytes | None = None
    for target in job["targets"]:
        asked = Job(package=job["package"], target=target, result=str(folder / f"{target}.graph"))
        try:
            if target == "onnx-fp32":
                from converter.to_onnx.keras import keras_to_onnx

                done = keras_to_onnx(network)
                Path(asked.result).write_bytes(done.content)
                made[target] = answer(Made(notes=_network_notes(package), operators=done.operators, opset=done.opset))
            else:
                graph = graph or to_tflite(network.behind_steps, network.steps.input_shape)
                made[target] = answer(_write(asked, graph, _network_notes(package), takes_missing=True, tables=[]))
        except Exception as err:  # the converters raise anything; one target's failure is that target's verdict
            failed[target] = reason_of(err)
            continue
        files[target] = asked.result
    return {"files": files, "made": made, "failed": failed, "answers": answers}


def why_not_tflite(package: ModelPackage) -> str | None:
    """Why a package has no float TFLite targets, from its index alone; None where it may have them."""
    family, model = package.index.family, package.index.model
    if family in ("onnx", "tflite"):
        return why_not(package, seen(package).form if family == "tflite" else "tflite-fp32")
    if family != "keras" and family not in _CORES:
        return f"models of the family {family!r} are not converted to TFLite"
    wanted = ".keras" if family == "keras" else ".skops"
    if not model.endswith(wanted):
        return f"the model file {model!r} is not the {wanted} file that the family {family!r} is converted from"
    return None


def _one_thread() -> None:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def _write_core(asked: Job, core: Core, package: ModelPackage) -> Made:
    from converter.to_tflite.core import core_in_tensorflow

    steps = package.steps()
    missing = rows_may_miss(package, steps, core.front)
    function, tables = core_in_tensorflow(core, steps, missing=missing)
    graph = to_tflite(function, steps.input_shape)
    eats = isinstance(core.head, Trees) or (isinstance(core.head, Distance) and core.head.fill is not None)
    return _write(asked, graph, [], takes_missing=eats or not missing, tables=tables)


def _write(asked: Job, graph: bytes, notes: list[str], *, takes_missing: bool, tables: list[bytes]) -> Made:
    if asked.target == "tflite-fp16":
        graph = half(graph, tables)
    Path(asked.result).write_bytes(graph)
    return Made(notes=notes, operators=checked_operators(graph), takes_missing=takes_missing)


def _write_wrapped(asked: Job, graph: bytes, package: ModelPackage) -> Made:
    """A file made elsewhere: as it is, or with halved weights where it is float."""
    from converter.imported.tflite_file import form_of

    content = half(graph) if asked.target == "tflite-fp16" and form_of(read_model(graph)) == "tflite-fp32" else graph
    Path(asked.result).write_bytes(content)
    return Made(notes=[WRAPPED], operators=checked_operators(content), takes_missing=answers_missing(package, asked.target))


def _network_notes(package: ModelPackage) -> list[str]:
    return ["The calibrator is part of the graph."] if "calibrator.json" in package.index.files else []
