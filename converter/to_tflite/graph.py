"""A function of TensorFlow as one TFLite file: weights inside, one input `inputs`, named outputs, built-in operators only."""

import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from converter.to_tflite.flat import checked_operators
from edgefleet.errors import VerdictError
from edgefleet.quiet import quiet_load

Answer = Callable[[Any], dict[str, Any]]
MAX_REASON: Final = 300


def to_tflite(answer: Answer, shape: Sequence[int]) -> bytes:
    """The fp32 file of a function of raw rows.

    The batch is open; a graph with loops (recurrent layers) takes one row at a time, because LiteRT has no lists of open size.

    Args:
        answer: [n, *shape] float32 tensor to {"margin": [n, K]} or with "probabilities" [n, classes].
        shape: Of one raw row.

    Raises:
        VerdictError: An operator is not built into LiteRT.
    """
    function = frozen_function(answer, [None, *shape])
    if _has_loop(function):
        function = frozen_function(answer, [1, *shape])
    graph = _converted(function)
    checked_operators(graph)
    return graph


def piece_of(function: Callable[..., dict[str, Any]], takes: Mapping[str, Sequence[int]]) -> bytes:
    """The fp32 file of a function without variables, to be joined with another file; the batch is open.

    Args:
        function: Of tensors [n, ...] by name, to named tensors.
        takes: Shape of one row of each of them.

    Raises:
        VerdictError: An operator is not built into LiteRT.
    """
    import tensorflow as tf

    specs = {name: tf.TensorSpec([None, *shape], tf.float32, name=name) for name, shape in takes.items()}
    serve = tf.function(function).get_concrete_function(**specs)
    graph = _converted(serve)
    checked_operators(graph)
    return graph


def frozen_function(answer: Answer, shape: Sequence[int | None]) -> Any:
    """The same function of [n, *shape] without variables or other captured tensors: they are constants of its graph."""
    import tensorflow as tf

    frozen, names = _frozen(answer, shape)

    @tf.function(input_signature=[tf.TensorSpec(shape, tf.float32, name="inputs")])  # type: ignore[untyped-decorator]  # no types
    def serve(inputs: Any) -> dict[str, Any]:
        return dict(zip(names, tf.nest.flatten(frozen(inputs)), strict=True))

    return serve


def _frozen(answer: Answer, shape: Sequence[int | None]) -> tuple[Any, list[str]]:
    """The function with its variables as constants, whose outputs come in the order of their names."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    spec = tf.TensorSpec(shape, tf.float32, name="inputs")
    concrete = tf.function(answer).get_concrete_function(spec)
    return convert_variables_to_constants_v2(concrete, lower_control_flow=False), sorted(concrete.structured_outputs)


def _has_loop(function: Any) -> bool:
    graph = function.get_concrete_function().graph.as_graph_def()
    kinds = {node.op for node in graph.node} | {node.op for inner in graph.library.function for node in inner.node_def}
    return any(kind.startswith("TensorList") or kind in {"While", "StatelessWhile"} for kind in kinds)


def _converted(function: Any) -> bytes:
    """By way of a saved model of the frozen function: the only way that keeps constants and a signature with names."""
    import tensorflow as tf

    module = tf.Module()
    module.serve = function
    with tempfile.TemporaryDirectory(prefix="edgefleet-saved-") as folder, quiet_load():
        path = str(Path(folder) / "model")
        tf.saved_model.save(module, path, signatures={"serving_default": function})
        converter = tf.lite.TFLiteConverter.from_saved_model(path, signature_keys=["serving_default"])
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        # A scaling folded into the layer behind it leaves that layer columns of very different size, which integers would round as one.
        converter._experimental_disable_fuse_mul_and_fc = True
        return bytes(converter.convert())


def reason_of(err: Exception) -> str:
    """One bounded line of why a conversion failed; foreign texts have thousands."""
    text = " ".join(str(err)[:20_000].split())
    if isinstance(err, VerdictError):
        return text[:MAX_REASON]
    listed = re.search(r"(?:TF Select|Flex|Custom) ops: ((?:\w+(?:, )?)+?)(?= Details:| See|$)", text)
    names = listed.group(1) if listed else ", ".join(dict.fromkeys(re.findall(r"'tf\.(\w+)' op", text)))
    if names:
        return f"LiteRT has no operator {names}; use other layers"[:MAX_REASON]
    return f"{type(err).__name__}: {text}"[:MAX_REASON]
