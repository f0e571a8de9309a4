"""Targets as a table: which file, for which runtime, from which families, judged how."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from converter.cleaned import may_be_missing
from edgefleet.errors import ConfigError
from edgefleet.manifest import Runtime, Tolerance
from edgefleet.package import ModelPackage

TREES: Final = frozenset({"forest", "boosting"})
NETWORKS: Final = frozenset({"keras"})


@dataclass(frozen=True)
class Recipe:
    """One target.

    Attributes:
        target: Name of the target and of the variant.
        runtime: Runtime that opens the file.
        suffix: File name ending.
        precision: Which gate limits apply.
        families: Families of models that it takes.
        by_default: Made when the caller names no targets.
        tolerance: What the device's self-test accepts; wider than the gate, because other CPUs round otherwise.
    """

    target: str
    runtime: Runtime
    suffix: str
    precision: Literal["fp32", "int8"]
    families: frozenset[str]
    by_default: bool
    tolerance: Tolerance

    @property
    def file(self) -> str:
        """Name of the graph's file in the bundle."""
        return f"{self.target}{self.suffix}"


_FP32: Final = Tolerance(max_error=1e-4, tie_margin=1e-3)
_INT8: Final = Tolerance(max_error=0.15, tie_margin=0.2)

RECIPES: Final[dict[str, Recipe]] = {
    recipe.target: recipe
    for recipe in (
        Recipe("onnx-fp32", "onnxruntime", ".onnx", "fp32", TREES | NETWORKS, True, _FP32),
        Recipe("tflite-fp32", "litert", ".tflite", "fp32", NETWORKS, True, _FP32),
        Recipe("tflite-int8", "litert", ".tflite", "int8", NETWORKS, True, _INT8),
        Recipe("tflite-int8-weights", "litert", ".tflite", "int8", NETWORKS, False, _INT8),
    )
}


def possible(package: ModelPackage) -> list[tuple[str, str | None]]:
    """Every target with None when the package can be converted to it, else with the reason why not."""
    return [(target, _reason(package, recipe)) for target, recipe in RECIPES.items()]


def choose(package: ModelPackage, targets: Iterable[str] | None, wished: Iterable[str] = ()) -> list[Recipe]:
    """The recipes to follow, in the table's order.

    Args:
        package: What shall be converted.
        targets: Names, or None for what the project wishes.
        wished: Names that the project declares, whatever model wins; the possible ones are made. Empty: every possible default target.

    Raises:
        ConfigError: A target is unknown, a named one is impossible for this package, or nothing is possible at all.
    """
    reasons = dict(possible(package))
    wishes = set(wished)
    if unknown := sorted(wishes - set(RECIPES)):
        raise ConfigError(f"[convert] targets: {unknown[0]!r} is unknown: one of {', '.join(RECIPES)}")
    if targets is None:
        chosen = [r for name, r in RECIPES.items() if reasons[name] is None and (name in wishes if wishes else r.by_default)]
        if not chosen:
            raise ConfigError(f"no target is possible for {package.folder}: {'; '.join(f'{n}: {r}' for n, r in reasons.items())}")
        return chosen
    named = {targets} if isinstance(targets, str) else set(targets)
    if unknown := sorted(named - set(RECIPES)):
        raise ConfigError(f"target {unknown[0]!r} is unknown: one of {', '.join(RECIPES)}")
    for name in sorted(named):
        if reasons[name] is not None:
            raise ConfigError(f"target {name} is impossible for this package: {reasons[name]}")
    if not named:
        raise ConfigError("no target was named; leave the list out to make everything possible")
    return [recipe for name, recipe in RECIPES.items() if name in named]


def _reason(package: ModelPackage, recipe: Recipe) -> str | None:
    index = package.index
    if index.task != "classification":
        return f"{index.task} is not converted in this version, only classification"
    if index.family not in recipe.families:
        if index.family in TREES:
            return "tree models convert to onnx-fp32 only in this version"
        return f"models of the family {index.family!r} are not converted in this version: {', '.join(sorted(TREES | NETWORKS))} are"
    wanted = ".keras" if index.family in NETWORKS else ".skops"
    if not index.model.endswith(wanted):
        return f"the model file {index.model!r} is not the {wanted} file that the family {index.family!r} is converted from"
    if "calibrator.json" in index.files:
        return "calibrated probabilities are not converted in this version; train with gates.calibrate = 'none'"
    if index.window_rows > 1:
        return f"windows of {index.window_rows} rows are not converted in this version, only single rows"
    if index.family == "forest" and (missing := may_be_missing(package.steps(), package.inputs())):
        return (
            f"input {missing[0]!r} may be missing, and a converted forest loses the side that missing values take; impute before training"
        )
    return None
