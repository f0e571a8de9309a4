"""Declared cleanings that together use every step kind and every window feature, and hard rows for them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefleet.manifest import Input
from edgefleet.steps import Steps
from trainer.cleaning import compile_steps
from trainer.settings import Cleaning, CleaningStep, Window

COLOURS = ["red", "green", "blue"]
INPUTS = [
    Input(name="load", missing=True),
    Input(name="flow", missing=True),
    Input(name="pressure", missing=True),
    Input(name="steady"),
    Input(name="colour", kind="category", categories=COLOURS, missing=True),
    Input(name="size", kind="category", categories=["s", "m", "l", "xl"], missing=True),
]
FEATURES: list[Any] = ["last", "mean", "variance", "min", "max", "range", "difference", "missing_count"]


def step(kind: Any, *columns: str, **settings: Any) -> CleaningStep:
    return CleaningStep(step=kind, columns=list(columns) or ["*"], **settings)


IMPUTED = [step("impute", "load", "flow", "pressure"), step("impute", "colour", "size", value="most_frequent")]
ENCODED = [*IMPUTED, step("one_hot", "colour"), step("ordinal", "size"), step("impute", "size", value="zero")]

ROWS = {
    "impute-median": [step("impute")],
    "impute-mean": [step("impute", "load", "flow", value="mean")],
    "impute-number": [step("impute", "load", value="-2.5"), step("impute", "flow", value="zero")],
    "impute-most-frequent": [step("impute", value="most_frequent")],
    "impute-category-by-name": [step("impute", "colour", value="green")],
    "indicator": [step("indicator"), step("impute")],
    "clip": [step("clip", "load", low=-3.0, high=1e4), step("clip", "flow", low=0.0)],
    "clip-quantile": [step("clip", low=0.01, high=0.99, quantile=True)],
    "log": [step("impute"), step("clip", "flow", "load", low=0.0), step("log", "flow", "load")],
    "sqrt": [step("impute"), step("clip", "flow", "load", low=0.0), step("sqrt", "load", "flow")],
    "log-sqrt-missing": [step("clip", "flow", "load", low=0.0), step("log", "flow"), step("sqrt", "load")],
    "scale": [step("impute"), step("scale")],
    "unit": [step("unit", "load", "pressure", factor=0.3, offset=273.15)],
    "one-hot": [step("one_hot", "colour", "size")],
    "ordinal": [step("ordinal"), step("impute", "size", value="2")],
    "drop": [step("drop", "steady", "load")],
    "everything": [step("indicator", "load"), *ENCODED, step("unit", "pressure", factor=1e-5), step("clip", "flow", low=0.0),
                   step("log", "flow"), step("scale"), step("drop", "steady")],
}  # fmt: skip

WINDOWS = {
    "whole-window": (Window(rows=5), [step("impute")]),
    "filled-window": (Window(rows=6, fill=True), [step("impute", "load", "flow", "pressure"), step("scale", "load", "pressure")]),
    "features-8": (Window(rows=8, features=FEATURES, lags=[1, 7]), ENCODED),
    "features-7-filled": (Window(rows=7, features=FEATURES, lags=[3], fill=True), [*ENCODED, step("scale", "pressure")]),
    "features-32": (Window(rows=32, features=FEATURES, fill=True), [step("indicator", "flow"), *ENCODED]),
    "missing-passes": (Window(rows=3, features=["last", "missing_count"], lags=[1, 2]), []),
    "one-row": (Window(rows=1, features=["mean", "variance", "range"]), ENCODED),
}


@dataclass(frozen=True)
class Case:
    steps: Steps
    x: NDArray[np.float32]


def hard_rows(n: int, seed: int = 0) -> NDArray[np.float32]:
    """[n, 6]: magnitudes 1e-6 to 1e6, both zeros, missing values, unseen categories; `steady` is constant."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 6)) * 10.0 ** rng.integers(-6, 7, (n, 6))
    x[:, 2] = 1e5 + rng.standard_normal(n)
    x[:, 3] = 4.0
    x[rng.random(x.shape) < 0.03] = 0.0
    x[rng.random(x.shape) < 0.03] = -0.0
    x[:, 4], x[:, 5] = rng.integers(-1, 3, n), rng.integers(-1, 4, n)
    missing: NDArray[np.bool_] = np.asarray(rng.random(x.shape) < 0.1)
    missing[:, 3] = False
    return np.where(missing, np.nan, x).astype(np.float32)


def row_case(name: str, n: int = 2000, monotone: bool = True) -> Case:
    steps = compile_steps(Cleaning(steps=ROWS[name]), INPUTS, hard_rows(3000, seed=1), monotone=monotone)
    return Case(steps, hard_rows(n))


def window_case(name: str, n: int = 500) -> Case:
    window, declared = WINDOWS[name]
    x = hard_rows(n * window.rows).reshape(n, window.rows, 6)
    x[:3, :, :3] = np.nan  # windows in which everything is missing
    train = hard_rows(300 * window.rows, seed=1).reshape(300, window.rows, 6)
    return Case(compile_steps(Cleaning(steps=declared, window=window), INPUTS, train), x)


def all_cases() -> dict[str, Case]:
    return {name: row_case(name) for name in ROWS} | {name: window_case(name) for name in WINDOWS}
