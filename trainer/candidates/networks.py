"""Training of the networks: seeds set, one thread, a fixed number of steps, early stopping where validation rows are given."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trainer.candidates.costs import weights_cost
from trainer.candidates.fitted import Fitted, Problem, Progress
from trainer.candidates.keras_files import MODEL_NAME, import_keras, open_keras, save_keras
from trainer.candidates.layers import Network, build_network
from trainer.candidates.spaces import settings_of

MIN_EPOCHS: Final = 2
_MARGIN_KINDS: Final = {"classification": "logit", "regression": "target unit", "anomaly": "anomaly score"}


def fit_network(
    name: str,
    z: NDArray[np.float32],
    label: NDArray[Any],
    problem: Problem,
    parameters: dict[str, Any] | None = None,
    weight: NDArray[np.float64] | None = None,
    validation: tuple[NDArray[np.float32], NDArray[Any]] | None = None,
    progress: Progress | None = None,
) -> Fitted:
    """Train one network; an autoencoder learns and stops on the rows labelled 0 (normal) only."""
    keras, settings = import_keras(), settings_of(name, problem, parameters)
    if problem.task == "anomaly":
        z, label, weight = z[label == 0], label[label == 0], None if weight is None else weight[label == 0]
        validation = _normal(validation)
    keras.backend.clear_session()  # layer names start at zero again: equal training gives equal files
    keras.utils.set_random_seed(problem.seed)
    network = build_network(name, keras, settings, problem, z, label)
    steps_per_epoch = -(-len(z) // settings["batch_rows"])
    epochs = min(settings["max_epochs"], max(MIN_EPOCHS, round(settings["steps"] / steps_per_epoch)))
    schedule = keras.optimizers.schedules.CosineDecay(settings["learning_rate"], epochs * steps_per_epoch)
    network.training.compile(keras.optimizers.Adam(schedule), _loss(keras, problem))
    held = None if validation is None else (validation[0], _target(network, problem, label, *validation))
    history = network.training.fit(
        z,
        _target(network, problem, label, z, label),
        sample_weight=weight,
        batch_size=settings["batch_rows"],
        epochs=epochs,
        validation_data=held,
        callbacks=_callbacks(keras, settings, held is not None, progress),
        verbose=0,
    ).history
    content = save_keras(network.shipped)
    weights, multiply_adds = int(network.shipped.count_params()), _multiply_adds(network.shipped)
    size_bytes, latency_us = weights_cost(weights, multiply_adds)
    return Fitted(
        name=name,
        family="keras",
        margin_kind=_MARGIN_KINDS[problem.task],
        model=MODEL_NAME,
        content=content,
        # The file's own model is judged, not the one in memory: what is shipped is what was validated.
        predict=open_keras(content, problem),
        parameters=settings | {"weights": weights, "epochs": len(history["loss"])},
        versions=_versions(keras),
        curve=_curve(history),
        size_bytes=size_bytes,
        latency_us=latency_us,
    )


def _normal(validation: tuple[NDArray[np.float32], NDArray[Any]] | None) -> tuple[NDArray[np.float32], NDArray[Any]] | None:
    if validation is None or not (validation[1] == 0).any():
        return None
    return validation[0][validation[1] == 0], validation[1][validation[1] == 0]


def _target(network: Network, problem: Problem, training_label: NDArray[Any], z: NDArray[np.float32], label: NDArray[Any]) -> NDArray[Any]:
    if network.scaled_inputs is not None:
        return np.asarray(network.scaled_inputs.predict(z, verbose=0, batch_size=len(z)))
    if problem.task == "regression":
        scaled: NDArray[Any] = ((label - training_label.mean()) / (float(training_label.std()) or 1.0)).astype(np.float32)
        return scaled
    return label


def _loss(keras: Any, problem: Problem) -> Any:
    if problem.task == "classification":
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return keras.losses.MeanSquaredError()


def _callbacks(keras: Any, settings: dict[str, Any], held: bool, progress: Progress | None) -> list[Any]:
    if not held:
        return []

    class Told(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types
        """Tells the search how far the training is."""

        def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            """Stop where the search says so."""
            if progress is not None and not progress(epoch + 1, float((logs or {})["val_loss"])):
                self.model.stop_training = True

    # The best epoch's weights are kept; the search is told first, so that it also hears of the last epoch.
    return [Told(), keras.callbacks.EarlyStopping(monitor="val_loss", patience=settings["patience"], restore_best_weights=True)]


def _curve(history: dict[str, list[float]]) -> list[dict[str, float]]:
    curve = [{"step": float(step), "loss": float(value)} for step, value in enumerate(history["loss"], start=1)]
    for entry, value in zip(curve, history.get("val_loss", []), strict=False):
        entry["validation"] = float(value)
    return curve


def _multiply_adds(model: Any) -> int:
    """Multiply-adds of one row: a layer's weights times the places it is applied to (pixels or time steps)."""
    total = 0
    for layer in model.layers:
        if not layer.count_params():
            continue
        name = type(layer).__name__
        places = layer.output.shape[1:-1] if name.startswith("Conv") else layer.input.shape[1:2] if name in {"LSTM", "GRU"} else ()
        total += int(layer.count_params()) * int(np.prod(places, dtype=np.int64))
    return total


def _versions(keras: Any) -> dict[str, str]:
    import tensorflow

    return {"keras": str(keras.__version__), "tensorflow": str(tensorflow.__version__)}
