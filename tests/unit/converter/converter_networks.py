"""Packages with Keras models, made in a child: `python -m tests.unit.converter.converter_networks FOLDER`.

Beside each lies NAME.npz with what the trainer's own readers answer to its parity rows: `answers`, probabilities or values.
"""

import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgefleet.digests import canonical_json
from edgefleet.manifest import Input, Task
from edgefleet.package import ModelPackage, PackageIndex, Rows, write_package
from edgefleet.steps import Steps

TEMPERATURE = {"kind": "temperature", "slope": 0.5}
# Name: candidate, task, classes, shape of a row as the network sees it, whether rows are flat.
OWN: dict[str, tuple[str, Task, int, tuple[int, ...], bool]] = {
    "dense": ("dense", "classification", 2, (6,), False),
    "value": ("dense", "regression", 0, (6,), False),
    "calibrated": ("dense", "classification", 3, (6,), False),
    "autoencoder": ("autoencoder", "anomaly", 0, (6,), False),
    "image": ("conv", "classification", 3, (8, 8), True),
    "conv1d": ("conv1d", "classification", 2, (16, 3), False),
    "lstm": ("lstm", "classification", 3, (12, 3), False),
    "gru": ("gru", "regression", 0, (12, 3), False),
    "flat-lstm": ("lstm", "classification", 2, (12, 3), True),
    "window-autoencoder": ("autoencoder", "anomaly", 0, (12, 3), False),
}
IMPORTED = ("logits", "logit", "sigmoid", "softmax", "hidden-softmax", "columns", "reconstruction", "sign", "bidirectional")


def network_package(
    folder: Path,
    task: Task,
    classes: int,
    x: NDArray[np.float32],
    files: dict[str, bytes],
    *,
    shape: tuple[int, ...] = (),
    inputs: list[Input] | None = None,
) -> ModelPackage:
    """A package around model.keras; `x` [300, ...] are its parity rows."""
    label: NDArray[Any] = np.arange(len(x)) % max(classes, 1) if task == "classification" else np.zeros(len(x))

    def rows(where: slice) -> bytes:
        return Rows(x[where], label[where], np.full(len(x[where]), "all"), np.arange(len(x[where])).astype(str)).to_bytes()

    inputs = inputs or [Input(name=f"x{i}") for i in range(x.shape[-1])]
    everything = {
        "schema.json": canonical_json([msgspec.to_builtins(column) for column in inputs]),
        "rows/parity.npz": rows(slice(None)),
        "rows/golden.npz": rows(slice(0, 16)),
        "rows/calibration.npz": rows(slice(0, 100)),
        "rows/background.npz": rows(slice(0, 16)),
        **files,
    }
    index = PackageIndex(
        format_version=1, project="networks", task=task, model="model.keras", family="keras", margin_kind="logit", overrides=[], files={},
        classes=[f"c{i}" for i in range(classes)], shape=list(shape or x.shape[1:]), window_rows=1 if x.ndim == 2 else x.shape[1],
    )  # fmt: skip
    return write_package(folder, index, everything)


def make_own(folder: Path, name: str) -> None:
    from trainer.calibration import calibrate
    from trainer.candidates.fitted import Problem
    from trainer.candidates.networks import fit_network

    candidate, task, classes, shape, flat = OWN[name]
    x = np.random.default_rng(0).normal(5, 3, (600, *shape)).astype(np.float32)
    z = x.reshape(len(x), -1) if flat else x
    signal = z.reshape(len(z), -1)[:, 0] + 0.5 * z.reshape(len(z), -1)[:, -1]
    label: NDArray[Any] = signal.astype(np.float64)
    if task == "classification":
        label = np.digitize(signal, np.quantile(signal, np.linspace(0, 1, classes + 1)[1:-1])).astype(np.int64)
    elif task == "anomaly":
        label = np.zeros(len(z), np.int64)
    fitted = fit_network(candidate, z[:300], label[:300], Problem(task=task, classes=classes, shape=shape, seed=0), {"steps": 60})
    files, answers = {"model.keras": fitted.content}, fitted.predict(z[300:])
    if name == "calibrated":
        files["calibrator.json"] = canonical_json(TEMPERATURE)
        answers = calibrate(TEMPERATURE, answers)
    if name == "dense":  # the cleaning halves raw rows
        halved = scaled_steps(shape[0])
        files["steps.json"] = halved.to_json()
        answers = fitted.predict(halved.run(z[300:]))
    network_package(folder / name, task, classes, z[300:], files, shape=shape)
    np.savez(folder / f"{name}.npz", answers=answers)


def scaled_steps(features: int) -> Steps:
    """Cleaning that halves every column."""
    from edgefleet.steps import Trace

    trace = Trace((features,))
    trace.mul(0, np.full(features, 0.5, np.float32))
    return Steps(tuple(trace.ops), tuple(f"x{i}" for i in range(features)), tuple(range(features)))


def make_imported(folder: Path, name: str) -> None:
    import keras

    from edgefleet.signature import Signature
    from trainer.candidates.keras_files import save_keras
    from trainer.importers.outputs import meant
    from trainer.importers.runtimes import open_file
    from trainer.importers.signature import plain

    keras.utils.set_random_seed(3)
    layers = keras.layers
    x = np.random.default_rng(1).normal(0, 1, (300, 4)).astype(np.float32)
    given = keras.Input((4,), name="given")
    hidden = layers.Dense(8, activation="tanh")(given)
    task: Task = "classification"
    meaning: Any = name
    model, classes, sign = None, 2, 1.0
    if name == "logits":
        model, classes = keras.Model(given, [layers.Dense(1)(hidden), layers.Dense(3)(hidden)]), 3
    elif name == "logit":
        model = keras.Sequential([keras.Input((4,)), layers.Dense(5, activation="relu"), layers.Dense(1)])
    elif name == "sigmoid":
        model = keras.Model(given, layers.Dense(1, activation="sigmoid")(hidden))
    elif name in ("softmax", "hidden-softmax"):
        end = keras.Sequential([keras.Input((8,)), layers.Dense(3, activation="softmax")])
        model = keras.Model(given, end(hidden) if name == "hidden-softmax" else layers.Activation("softmax")(layers.Dense(3)(hidden)))
        meaning, classes = "probabilities", 3
    elif name == "columns":
        kind, speed = keras.Input((1,), name="kind", dtype="int32"), keras.Input((1,), name="speed_km_h")
        both = layers.Concatenate()([layers.Flatten()(layers.Embedding(4, 3)(kind)), speed])
        model, meaning = keras.Model([kind, speed], layers.Dense(2, activation="softmax")(both)), "probabilities"
        x = np.column_stack([x[:, 0], np.arange(300) % 4]).astype(np.float32)
    elif name == "reconstruction":
        model, task, classes = keras.Model(given, layers.Dense(4)(hidden)), "anomaly", 0
    elif name == "sign":
        model, task, classes, meaning, sign = keras.Model(given, layers.Dense(1)(hidden)), "anomaly", 0, "score", -1.0
    else:
        rows = keras.Input((None, 3), name="rows")
        body = layers.Bidirectional(layers.LSTM(4, return_sequences=True))(rows)
        model, meaning, classes = keras.Model(rows, layers.Dense(3, activation="softmax")(layers.GRU(5)(body))), "probabilities", 3
        x = np.random.default_rng(1).normal(0, 1, (300, 9, 3)).astype(np.float32)
    content = save_keras(model)
    (folder / f"{name}.keras").write_bytes(content)
    description, run = open_file("keras", folder / f"{name}.keras")
    columns = ["speed km/h", "kind"] if name == "columns" else [f"x{i}" for i in range(x.shape[-1])]
    output = description.outputs[-1].name
    signature = Signature(
        kind="keras", inputs=description.inputs, output=output, meaning=meaning, columns=columns, categories=[[]] * len(columns), sign=sign
    )
    answers = meant(run(x, signature)[output], signature, x)
    files = {"model.keras": content, "signature.json": canonical_json(plain(signature))}
    network_package(folder / name, task, classes, x, files, inputs=[Input(name=column) for column in columns])
    np.savez(folder / f"{name}.npz", answers=answers)


def main(folder: Path) -> None:
    for name in OWN:
        make_own(folder, name)
    for name in IMPORTED:
        make_imported(folder, name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
