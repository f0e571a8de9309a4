"""The candidates' settings: defaults, the ranges that a search draws from, and the check of what a project sets itself."""

import difflib
from dataclasses import dataclass
from typing import Any, Final

from edgefleet.errors import ConfigError
from trainer.candidates.fitted import Problem

Value = int | float | str


@dataclass(frozen=True)
class Setting:
    """One setting of a candidate.

    Attributes:
        default: Value when nothing else is said.
        low: Least value of the search; None: it is not searched.
        high: Largest value of the search.
        log: The search draws on a logarithmic scale.
        choices: Texts or numbers to choose from, instead of a range.
        least: Least value that makes sense at all.
    """

    default: Value
    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: tuple[Value, ...] = ()
    least: float = 0.0


# Depth and leaves are bounded, because the exact explanation on a device grows with leaves x depth.
_DEPTH: Final = Setting(12, 3, 16, least=1)
_LEAF: Final = Setting(3, 1, 30, log=True, least=1)
_FOREST: Final = {
    "n_estimators": Setting(60, 20, 200, log=True, least=1),
    "max_depth": _DEPTH,
    "min_samples_leaf": _LEAF,
    "max_features": Setting("sqrt", choices=("sqrt", "half", "all")),
}
_RATE: Final = Setting(3e-3, 3e-4, 1e-2, log=True, least=1e-9)
# Steps, not epochs, are fixed: twice the rows do not take twice the time.
_TRAINING: Final = {
    "learning_rate": _RATE,
    "batch_rows": Setting(64, least=1),
    "steps": Setting(3000, least=1),
    "max_epochs": Setting(60, least=1),
    "patience": Setting(10, least=1),
}
_RECURRENT: Final = {"units": Setting(32, 8, 64, log=True, least=1), "dropout": Setting(0.0, 0.0, 0.4), **_TRAINING}

SPACES: Final[dict[str, dict[str, Setting]]] = {
    "majority": {},
    "mean": {},
    "mahalanobis": {"shrinkage": Setting(0.05, 1e-3, 0.9, log=True)},
    "logistic": {"C": Setting(1.0, 1e-3, 1e3, log=True, least=1e-12), "max_iter": Setting(1000, least=1)},
    "ridge": {"alpha": Setting(1.0, 1e-3, 1e4, log=True)},
    "tree": {"max_depth": Setting(8, 2, 16, least=1), "min_samples_leaf": Setting(5, 1, 100, log=True, least=1)},
    "forest": _FOREST,
    "extra_trees": _FOREST,
    "boosting": {
        "n_estimators": Setting(100, 20, 400, log=True, least=1),
        "learning_rate": Setting(0.1, 0.01, 0.3, log=True, least=1e-9),
        "max_depth": Setting(3, 2, 6, least=1),
        "min_samples_leaf": Setting(5, 1, 50, log=True, least=1),
        "subsample": Setting(1.0, 0.5, 1.0, least=1e-3),
    },
    "hist_boosting": {
        "max_iter": Setting(200, 50, 400, log=True, least=1),
        "learning_rate": Setting(0.1, 0.02, 0.3, log=True, least=1e-9),
        "max_leaf_nodes": Setting(31, 7, 63, log=True, least=2),
        "min_samples_leaf": Setting(20, 5, 100, log=True, least=1),
        "l2_regularization": Setting(0.0, 0.0, 5.0),
        "patience": Setting(10, least=1),
    },
    "svm": {
        "C": Setting(1.0, 0.05, 100.0, log=True, least=1e-12),
        "gamma_factor": Setting(1.0, 0.05, 5.0, log=True, least=1e-12),
        "epsilon": Setting(0.1),
    },
    "mlp": {
        "hidden": Setting(64, 16, 128, log=True, least=1),
        "layers": Setting(1, 1, 3, least=1),
        "alpha": Setting(1e-4, 1e-6, 1e-1, log=True),
        "learning_rate": Setting(1e-3, 1e-4, 1e-2, log=True, least=1e-9),
        "max_iter": Setting(200, least=1),
    },
    "isolation_forest": {
        "n_estimators": Setting(100, 50, 300, log=True, least=1),
        "max_samples": Setting(256, 64, 1024, log=True, least=2),
    },
    "dense": {
        "hidden": Setting(64, 16, 256, log=True, least=1),
        "layers": Setting(2, 1, 3, least=1),
        "dropout": Setting(0.0, 0.0, 0.5),
        **_TRAINING,
    },
    "conv": {
        "filters": Setting(16, 8, 32, log=True, least=1),
        "hidden": Setting(48, 16, 96, log=True, least=1),
        **_TRAINING,
        "batch_rows": Setting(32, least=1),
        "steps": Setting(900, least=1),
        "max_epochs": Setting(40, least=1),
    },
    "conv1d": {
        "filters": Setting(24, 8, 64, log=True, least=1),
        "kernel": Setting(3, choices=(3, 5, 7), least=1),
        "layers": Setting(2, 1, 3, least=1),
        "hidden": Setting(48, 16, 96, log=True, least=1),
        **_TRAINING,
    },
    "lstm": _RECURRENT,
    "gru": _RECURRENT,
    "autoencoder": {
        "hidden": Setting(32, 8, 128, log=True, least=1),
        "code_fraction": Setting(0.25, 0.05, 0.6, least=1e-3),
        **_TRAINING,
    },
}


def defaults(name: str, problem: Problem) -> dict[str, Any]:
    """Settings of a candidate when nothing else is said."""
    chosen = {key: setting.default for key, setting in SPACES[name].items()}
    if problem.task == "regression" and "max_features" in chosen:
        chosen["max_features"] = "all"  # as scikit-learn: a mean of few inputs' guesses is a poor value
    return chosen


def suggest(name: str, trial: Any, problem: Problem) -> dict[str, Any]:
    """Settings drawn by an optuna trial; those that are not searched keep their defaults."""
    chosen = defaults(name, problem)
    for key, setting in SPACES[name].items():
        if setting.choices:
            chosen[key] = trial.suggest_categorical(key, setting.choices)
        elif setting.low is not None and isinstance(setting.default, int):
            chosen[key] = trial.suggest_int(key, int(setting.low), int(setting.high or 0), log=setting.log)
        elif setting.low is not None:
            chosen[key] = trial.suggest_float(key, setting.low, float(setting.high or 0), log=setting.log)
    return chosen


def settings_of(name: str, problem: Problem, wanted: dict[str, Any] | None) -> dict[str, Any]:
    """The defaults with `wanted` in their place.

    Raises:
        ConfigError: An unknown name, another type, or a value that makes no sense.
    """
    chosen = defaults(name, problem)
    for key, value in (wanted or {}).items():
        place = f"search.parameters.{name}.{key} = {value!r}"
        if key not in chosen:
            near = difflib.get_close_matches(key, chosen, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(chosen) or 'no settings'}"
            raise ConfigError(f"{place}: candidate {name!r} has no such setting; {hint}")
        chosen[key] = _checked(place, value, SPACES[name][key])
    return chosen


def _checked(place: str, value: Any, setting: Setting) -> Value:
    if isinstance(setting.default, str):
        if value not in setting.choices:
            raise ConfigError(f"{place}: expected one of {', '.join(map(str, setting.choices))}")
        return str(value)
    whole = isinstance(setting.default, int)
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        raise ConfigError(f"{place}: expected {'a whole number' if whole else 'a number'}")
    if not setting.least <= value < float("inf"):
        raise ConfigError(f"{place}: expected at least {setting.least:g}")
    return int(value) if whole else float(value)
