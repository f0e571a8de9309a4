"""How many of many rows a converted tree model answers otherwise than scikit-learn: ours, and beside it skl2onnx's own conversion.

A row counts when some probability differs by more than 1e-6. Kinds of rows: plain ones, with missing values, with categories, values
exactly on split values or on a float32 neighbour of one, and behind an imputer and a scaler, whose constants land on splits.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.figures import Figure
from converter.cores import Trees
from converter.cores.exactness import hard_rows, rows_off
from converter.cores.pipelines import pipeline_core
from converter.to_onnx.core import core_to_onnx

Matrix = NDArray[np.float32]
KINDS: Final = ("plain", "missing", "categories", "on thresholds", "imputed and scaled")
_TRAINED: Final = 8000
_AT_ONCE: Final = 50_000
_NUMBERS: Final = 6
_MISSING: Final = 0.2
_CATEGORIES: Final = (6, 7)


def models() -> dict[str, Callable[..., Any]]:
    """Name -> unfitted classifier, with further options."""
    from sklearn.ensemble import ExtraTreesClassifier, GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier

    return {
        "forest": lambda **more: RandomForestClassifier(50, max_depth=10, random_state=0, **more),
        "extra trees": lambda **more: ExtraTreesClassifier(50, max_depth=10, random_state=0, **more),
        "gradient boosting": lambda **more: GradientBoostingClassifier(n_estimators=50, random_state=0, **more),
        "histogram boosting": lambda **more: HistGradientBoostingClassifier(max_iter=50, early_stopping=False, random_state=0, **more),
    }


def rows_figures(rows: int) -> Iterator[Figure]:
    """Two figures for each model and kind of rows that scikit-learn itself takes."""
    for name in models():
        for kind in KINDS:
            # scikit-learn's GradientBoosting refuses missing values itself.
            if (name, kind) != ("gradient boosting", "missing"):
                yield from figures_of(name, kind, rows)


def figures_of(name: str, kind: str, rows: int) -> list[Figure]:
    """One model and kind of rows: our count, then skl2onnx's, or that it refuses. Rows are made and answered `_AT_ONCE` at a time."""
    model, what = _fitted(name, kind), f"{name}, {kind}"
    core = pipeline_core(model, _NUMBERS + len(_CATEGORIES))
    assert isinstance(core.head, Trees)  # noqa: S101  # every model here is one of trees
    asked = [_opened(core_to_onnx(core))]
    try:
        asked.append(_opened(_skl2onnx(model)))
    except Exception:  # it raises anything, with texts of up to 50,000 lines
        theirs = Figure(f"{what}: refused by skl2onnx", 1.0, "", None, rows)
    off = np.zeros(len(asked), np.int64)
    for part, at in enumerate(range(0, rows, _AT_ONCE), start=1):
        count = min(_AT_ONCE, rows - at)
        x = hard_rows(core.head.ensemble, count, part) if kind == "on thresholds" else table(count, part, _missing(kind))[0]
        wanted = model.predict_proba(x.astype(np.float64))
        off += [rows_off(wanted, ask(x)).off for ask in asked]
    if len(asked) > 1:
        theirs = Figure(f"{what}: rows off by skl2onnx", float(off[1]), "rows", None, rows)
    return [Figure(f"{what}: rows off", float(off[0]), "rows", 0.0, rows), theirs]


def _missing(kind: str) -> float:
    return _MISSING if kind in ("missing", "imputed and scaled") else 0.0


def table(rows: int, seed: int, missing: float = 0.0) -> tuple[Matrix, NDArray[np.int64]]:
    """Rows of six numbers with two decimals and two columns of categories, and one of three classes."""
    draw = np.random.default_rng(seed)
    x = np.round(draw.normal(size=(rows, _NUMBERS + 2)) * [1, 5, 1, 100, 1, 20, 1, 1] + [0, 0, 3, 1000, 0, 0, 0, 0], 2).astype(np.float32)
    x[:, 6], x[:, 7] = draw.integers(0, 8, rows), draw.integers(0, 4, rows)
    signal = x[:, 0] + 0.2 * x[:, 1] * (x[:, 2] - 3) + (x[:, 6] % 3 == 1) + (x[:, 7] == 2) + 0.5 * draw.normal(size=rows)
    numbers = x[:, :_NUMBERS]
    numbers[draw.random(numbers.shape) < missing] = np.nan
    return x, np.digitize(signal, [-0.5, 1.5]).astype(np.int64)


def _fitted(name: str, kind: str) -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    make = models()[name]
    x, y = table(_TRAINED, seed=0, missing=_missing(kind))
    if kind == "categories" and name == "histogram boosting":
        return make(categorical_features=list(_CATEGORIES)).fit(x, y)
    if kind == "categories":
        encoder = ColumnTransformer(
            [("c", OneHotEncoder(handle_unknown="ignore"), list(_CATEGORIES))], remainder="passthrough", sparse_threshold=0
        )
        return make_pipeline(encoder, make()).fit(x, y)
    if kind == "imputed and scaled":
        return make_pipeline(SimpleImputer(strategy="median"), StandardScaler(), make()).fit(x, y)
    return make().fit(x, y)


def _skl2onnx(model: Any) -> bytes:
    from skl2onnx import to_onnx

    example = np.zeros((1, _NUMBERS + len(_CATEGORIES)), np.float32)
    graph = to_onnx(model, example, options={id(model): {"zipmap": False}}, target_opset={"": 17, "ai.onnx.ml": 3})
    return bytes(graph.SerializeToString())


def _opened(graph: bytes) -> Callable[[Matrix], NDArray[Any]]:
    import onnxruntime

    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    (taken,) = session.get_inputs()

    def probabilities(x: Matrix) -> NDArray[Any]:
        (said,) = session.run(["probabilities"], {taken.name: x})
        found: NDArray[Any] = said
        return found

    return probabilities
