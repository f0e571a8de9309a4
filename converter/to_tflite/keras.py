"""All work that needs TensorFlow, in one child process per package, because its import alone takes seconds.

`convert_keras(job)` is called by `converter.isolate`: it loads the model, names its outputs, answers the package's rows with the original,
and writes the fp32 files. A target that fails does not take the others with it.
"""

from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from converter.originals import Original
from converter.to_onnx.steps import merge_bytes
from converter.to_tflite.steps import run_in_tensorflow
from edgefleet.errors import VerdictError
from edgefleet.package import read_npz
from edgefleet.steps import Steps

MAX_REASON: Final = 300
_ROWS_AT_ONCE: Final = 256


def convert_keras(job: dict[str, Any]) -> dict[str, Any]:
    """The child's whole work.

    Args:
        job: `model` (path of the .keras file), `steps` (JSON of the cleaning in front of it), `targets` (of onnx-fp32 and tflite-fp32),
            `folder` (for the results), `rows` {name: path of an .npz with raw x}.

    Returns:
        `files` {target: path}, `failed` {target: reason}, `answers` {row set: path}.
    """
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)  # sums in one order: equal inputs, equal bytes
    tf.config.threading.set_inter_op_parallelism_threads(1)
    folder, steps = Path(job["folder"]), Steps.from_json(job["steps"].encode())
    model = with_margin(tf.keras.models.load_model(job["model"], compile=False, safe_mode=True), steps.output_shape[0])
    answers = {}
    for name, path in job["rows"].items():
        x = read_npz(Path(path).read_bytes(), ("x",), name)["x"]
        answers[name] = str(folder / f"answers-{name}.npz")
        _answers(model, steps.run(x)).to_file(Path(answers[name]))
    files: dict[str, str] = {}
    failed: dict[str, str] = {}
    for target in job["targets"]:
        try:
            content = _convert(target, model, steps)
        except Exception as err:  # the converters raise anything; one target's failure is that target's verdict
            failed[target] = _reason(err)
            continue
        path = folder / f"{target}.graph"
        path.write_bytes(content)
        files[target] = str(path)
    return {"files": files, "failed": failed, "answers": answers}


def _reason(err: Exception) -> str:
    text = " ".join(str(err)[:20_000].split())
    if "TensorList" in text:
        return "recurrent layers are not converted to TFLite in this version, only to onnx-fp32"
    return (text if isinstance(err, VerdictError) else f"{type(err).__name__}: {text}")[:MAX_REASON]


def with_margin(model: Any, features: int) -> Any:
    """The model with the outputs `margin` (before the last activation) and `probabilities`.

    Raises:
        VerdictError: It has several inputs, another number of columns, or no margin can be found.
    """
    import tensorflow as tf

    if len(model.inputs) != 1 or tuple(model.inputs[0].shape) != (None, features):
        shapes = [tuple(tensor.shape) for tensor in model.inputs]
        raise VerdictError(
            f"the Keras model takes {shapes}, expected one input [None, {features}] in schema order; reshape inside the model"
        )
    # A loaded Sequential has no output of its own, but its layers do; it cannot have named outputs either.
    outputs = None if isinstance(model, tf.keras.Sequential) else model.output
    if isinstance(outputs, dict) and {"margin", "probabilities"} <= set(outputs):
        return tf.keras.Model(model.inputs[0], {name: outputs[name] for name in ("margin", "probabilities")})
    last = model.layers[-1]
    kind, activation = type(last).__name__, getattr(getattr(last, "activation", None), "__name__", "")
    if kind == "Softmax" or (kind == "Activation" and activation == "softmax"):
        margin, probabilities = last.input, last.output
    elif kind == "Dense" and activation == "softmax":
        margin = _linear_twin(last)(last.input)
        probabilities = tf.keras.layers.Softmax(name="probabilities")(margin)
    elif kind == "Dense" and activation == "sigmoid" and last.units == 1:
        margin = _linear_twin(last)(last.input)
        positive = tf.keras.layers.Activation("sigmoid")(margin)
        negative = tf.keras.layers.Activation("sigmoid")(tf.keras.layers.Rescaling(-1.0)(margin))
        probabilities = tf.keras.layers.Concatenate(name="probabilities")([negative, positive])
    else:
        raise VerdictError(
            f"no margin is found: the last layer is {kind} with activation {activation!r}; end with softmax, or one sigmoid unit"
        )
    return tf.keras.Model(model.inputs[0], {"margin": margin, "probabilities": probabilities})


def _linear_twin(layer: Any) -> Any:
    """A layer of the same weights without the activation."""
    import tensorflow as tf

    twin = tf.keras.layers.Dense(layer.units, use_bias=layer.use_bias, name="margin")
    twin.build(layer.input.shape)
    twin.set_weights(layer.get_weights())
    return twin


def _answers(model: Any, x: NDArray[np.float32]) -> Original:
    parts = [model(x[i : i + _ROWS_AT_ONCE], training=False) for i in range(0, len(x), _ROWS_AT_ONCE)]
    probabilities, margin = (
        np.concatenate([part[name].numpy() for part in parts]).astype(np.float64) for name in ("probabilities", "margin")
    )
    return Original(probabilities, margin)


def _convert(target: str, model: Any, steps: Steps) -> bytes:
    if target == "onnx-fp32":
        from converter.to_onnx.keras import keras_to_onnx

        return merge_bytes(steps, keras_to_onnx(model, steps.output_shape[0]))
    return keras_to_tflite(model if steps.is_identity else _behind(steps, model))


def _behind(steps: Steps, model: Any) -> Any:
    """One model of raw rows: the cleaning steps, then the model; input and outputs keep their names."""
    import tensorflow as tf

    raw = tf.keras.Input(steps.input_shape, name="inputs")
    cleaned = tf.keras.layers.Lambda(lambda x: run_in_tensorflow(steps, x), output_shape=steps.output_shape, name="cleaning")(raw)
    return tf.keras.Model(raw, model(cleaned))


def keras_to_tflite(model: Any) -> bytes:
    """The fp32 file: built-in operators only, so that every LiteRT opens it."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    return bytes(converter.convert())
