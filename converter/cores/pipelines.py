"""Imported scikit-learn pipelines of simple transformers and a known model, as a core of the raw rows.

Trees take everything into their splits and stay exact. Other models keep filling and indicators as steps of their own in front
(`Core.front`), and take the scaling into their weights. What cannot be read so is left to `converter.to_onnx.foreign`.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from converter.cores.columns import Derived, raw_columns, transformed
from converter.cores.core import Core, Kernel, Layers, Trees
from converter.cores.dense import scaled
from converter.cores.folded import folded
from converter.ensembles import FOREST_NAMES
from edgefleet.errors import ArtifactError, VerdictError
from edgefleet.package import ModelPackage
from edgefleet.steps import Steps, Trace

Floats = NDArray[np.float64]


class _Called(msgspec.Struct, frozen=True):
    """What matters here of signature.json."""

    table: bool = False
    categories: list[list[str]] = []


def core_of_pipeline(model: Any, package: ModelPackage) -> Core:
    """The core of an imported model, on the package's rows.

    Raises:
        VerdictError: A transformer or model without a core; named.
        ArtifactError: signature.json is damaged.
    """
    called = _Called()
    if "signature.json" in package.index.files:
        try:
            called = msgspec.json.decode(package.read("signature.json"), type=_Called)
        except (msgspec.DecodeError, UnicodeDecodeError) as err:
            raise ArtifactError(f"signature.json: {str(err)[:200]}; import the model again") from err
    return pipeline_core(model, len(package.inputs()), called.categories if called.table else [])


def pipeline_core(model: Any, width: int, texts: Sequence[Sequence[str]] = ()) -> Core:
    """The core of a fitted scikit-learn Pipeline.

    Args:
        model: The pipeline, or a bare model.
        width: Raw columns.
        texts: Categories of each raw column that is handed over as text; the column holds their places.

    Raises:
        VerdictError: A transformer or model without a core; named.
    """
    from converter.cores.reading import estimator_core

    if type(model).__name__ != "Pipeline":
        return estimator_core(model)
    columns = raw_columns(width, texts)
    for _, step in model.steps[:-1]:
        columns = transformed(step, columns)
    last = model.steps[-1][1]
    core = estimator_core(last)
    if len(columns) != core.features:
        raise VerdictError(f"a pipeline whose transformers give {len(columns)} columns, but {type(last).__name__} takes {core.features}")
    if isinstance(core.head, Trees):
        columns, front = _filled_apart(columns, width)
        features = width if front is None else len(front.names)
        trees = folded(core.head.ensemble, _thresholds(last), columns, features, _rounds(last))
        return replace(core, features=features, head=replace(core.head, ensemble=trees), front=front)
    return _with_front(core, columns, width)


def _filled_apart(columns: list[Derived], width: int) -> tuple[list[Derived], Steps | None]:
    """Where a missing value counts as one of the categories, a split by sets reads a filled copy of the column, made in front."""
    fills: dict[tuple[int, float], int] = {}
    found = []
    for column in columns:
        key = next((key for key, value in (column.table or {}).items() if column.of(np.array(value)) == column.missing), None)
        if key is None or column.missing == column.other:
            found.append(column)
            continue
        place = fills.setdefault((column.source, key), width + len(fills))
        found.append(replace(column, source=place, missing=column.other))
    if not fills:
        return columns, None
    trace = Trace((width,))
    taken = trace.take(0, [source for source, _ in fills])
    trace.concat([0, trace.where(trace.isnan(taken), np.array([key for _, key in fills], np.float32), taken)])
    sources = (*range(width), *(source for source, _ in fills))
    return found, Steps(tuple(trace.ops), tuple(f"column{i}" for i in range(len(sources))), sources)


def _rounds(model: Any) -> bool:
    return not type(model).__name__.startswith("HistGradientBoosting")


def _thresholds(model: Any) -> list[Floats]:
    """Of every tree, in the order of the ensemble."""
    name = type(model).__name__
    if name.startswith("HistGradientBoosting"):
        return [np.asarray(tree.nodes["num_threshold"], np.float64) for stage in model._predictors for tree in stage]
    if name in FOREST_NAMES or name == "IsolationForest" or name.startswith("GradientBoosting"):
        trees = np.ravel(getattr(model, "estimators_", [model])).tolist()
        return [np.asarray(tree.tree_.threshold, np.float64) for tree in trees]
    return [np.zeros(1)]  # a constant: one leaf


def _with_front(core: Core, columns: list[Derived], width: int) -> Core:
    """Fill and compare in front, scale inside the head."""
    if core.link == "none" and not isinstance(core.head, Layers | Kernel):
        raise VerdictError("a pipeline that ends in a distance")
    steps = _front(columns, width)
    lines = np.array([column.line for column in columns])
    factor, shift = lines[:, 0], lines[:, 1]
    if (factor <= 0).any():
        raise VerdictError("a scaler that turns the order of values round")
    front = None if steps.is_identity else steps
    if isinstance(core.head, Layers):
        return replace(core, head=scaled(core.head, factor, shift), front=front)
    assert isinstance(core.head, Kernel)  # noqa: S101  # the other forms were refused
    mean, scale = (core.head.mean - shift) / factor, core.head.scale / factor
    return replace(core, head=replace(core.head, mean=mean, scale=scale), front=front)


def _front(columns: list[Derived], width: int) -> Steps:
    """Steps from raw rows to the derived columns before their operations; indicators as 0 and 1."""
    trace = Trace((width,))
    kinds = [_kind(column) for column in columns]
    order: list[int] = []
    parts: list[int] = []
    for kind in ("number", "is", "absent"):
        places = [i for i, found in enumerate(kinds) if found == kind]
        if not places:
            continue
        order += places
        some = [columns[i] for i in places]
        taken = trace.take(0, [column.source for column in some])
        parts.append(_part(trace, kind, some, taken))
    trace.take(trace.concat(parts), np.argsort(order).tolist())
    return Steps(tuple(trace.ops), tuple(f"column{i}" for i in range(len(columns))), tuple(column.source for column in columns))


def _kind(column: Derived) -> str:
    if column.table is None:
        return "number"
    if not column.table and column.missing != column.other:
        return "absent"
    base = sorted(set(column.table.values()))
    if base == [1.0] and len(column.table) == 1:
        return "is"
    raise VerdictError("an ordinal encoder in front of a model that is no tree")


def _part(trace: Trace, kind: str, columns: list[Derived], taken: int) -> int:
    if kind == "absent":
        return trace.f32(trace.isnan(taken))
    if kind == "number":
        raw = np.array([_raw(column) for column in columns], np.float32)
        return taken if np.isnan(raw).all() else trace.where(trace.isnan(taken), raw, taken)
    keys = np.array([next(iter(column.table or {})) for column in columns], np.float64)
    # A missing value that was filled with a category is that category.
    filled = np.array([_filled(column) for column in columns], np.float32)
    if not np.isnan(filled).all():
        taken = trace.where(trace.isnan(taken), filled, taken)
    near = keys.astype(np.float32)
    return trace.f32(trace.eq(taken, np.where(near.astype(np.float64) == keys, near, np.float32(np.nan))))


def _raw(column: Derived) -> float:
    """The raw value that gives what a missing one becomes."""
    factor, shift = column.line
    return (column.missing - shift) / factor


def _filled(column: Derived) -> float:
    """The key where missing values count as it, else missing."""
    key = next(iter(column.table or {}))
    one = float(column.of(np.array(1.0)))
    return key if column.missing == one else np.nan
