"""Targets as a table: which file, for which runtime, written by whom from what, judged how."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import Final, Literal

from edgefleet.errors import ConfigError
from edgefleet.manifest import Runtime, Tolerance
from edgefleet.package import ModelPackage

Precision = Literal["fp32", "fp16", "int8"]


@dataclass(frozen=True)
class Bounds:
    """Limits of one precision. Errors are of probabilities, of values and scores in units of the original's spread.

    Attributes:
        max_error: Largest error, None: only shown.
        mean_error: Mean error, None: not judged.
        agreement: Lower 95 % bound of the share of rows with the same answer; None: every row outside ties must agree.
        max_drop: Upper 95 % bound of the metric's drop: of accuracy and area absolute, of the root mean square error relative.
        same_value: Values and scores this near are the same answer.
    """

    max_error: float | None
    mean_error: float | None
    agreement: float | None
    max_drop: float
    same_value: float


BOUNDS: Final[dict[Precision, Bounds]] = {
    "fp32": Bounds(1e-5, None, None, 0.01, 1e-5),
    "fp16": Bounds(5e-3, None, 0.995, 0.005, 5e-3),
    # The maximum alone tells little: clipped activations show in the mean first.
    "int8": Bounds(None, 1e-2, 0.98, 0.01, 0.1),
}
# What the device's self-test accepts; wider than the gate, because other CPUs round otherwise.
_TOLERANCES: Final[dict[Precision, Tolerance]] = {
    "fp32": Tolerance(max_error=1e-4, tie_margin=1e-3),
    "fp16": Tolerance(max_error=2e-2, tie_margin=4e-2),
    "int8": Tolerance(max_error=0.15, tie_margin=0.2),
}


@dataclass(frozen=True)
class Recipe:
    """One target.

    Attributes:
        target: Name of the target and of the variant.
        runtime: Runtime that opens the file.
        suffix: File name ending.
        precision: Which gate limits apply.
        source: Target whose graph it is made from; "" for those made from the model.
        writer: `module:function` that makes it in a child process; see `converter.targets`.
        reasons: `module:function` that says why a package cannot have it.
        by_default: Made when nobody names targets.
    """

    target: str
    runtime: Runtime
    suffix: str
    precision: Precision
    source: str
    writer: str
    reasons: str
    by_default: bool = True

    @property
    def file(self) -> str:
        """Name of the graph's file in the bundle."""
        return f"c/model{self.suffix}" if self.runtime == "c" else f"{self.target}{self.suffix}"

    @property
    def bounds(self) -> Bounds:
        """Its gates' limits."""
        return BOUNDS[self.precision]

    def tolerance(self, spread: float = 1.0) -> Tolerance:
        """What the device's self-test accepts; `spread` turns it into the unit of values and scores."""
        base = _TOLERANCES[self.precision]
        return Tolerance(max_error=float(f"{base.max_error * spread:.3g}"), tie_margin=base.tie_margin)


_ONNX: Final = ("converter.to_onnx.make:make", "converter.to_onnx.make:why_not_onnx")
_TFLITE: Final = ("converter.to_tflite.make:make", "converter.to_tflite.make:why_not_tflite")
_QUANTIZE: Final = ("converter.quantize.make:make", "converter.quantize.make:why_not")
_C: Final = ("converter.to_c.make:make", "converter.to_c.make:why_not_c")

RECIPES: Final[dict[str, Recipe]] = {
    recipe.target: recipe
    for recipe in (
        Recipe("onnx-fp32", "onnxruntime", ".onnx", "fp32", "", *_ONNX),
        Recipe("onnx-fp16", "onnxruntime", ".onnx", "fp16", "onnx-fp32", *_QUANTIZE),
        Recipe("onnx-int8", "onnxruntime", ".onnx", "int8", "onnx-fp32", *_QUANTIZE),
        Recipe("onnx-int8-dynamic", "onnxruntime", ".onnx", "int8", "onnx-fp32", *_QUANTIZE),
        Recipe("tflite-fp32", "litert", ".tflite", "fp32", "", *_TFLITE),
        Recipe("tflite-fp16", "litert", ".tflite", "fp16", "", *_TFLITE),
        Recipe("tflite-int8", "litert", ".tflite", "int8", "tflite-fp32", *_QUANTIZE),
        Recipe("tflite-int8-dynamic", "litert", ".tflite", "int8", "tflite-fp32", *_QUANTIZE),
        Recipe("tflite-int8-weights", "litert", ".tflite", "int8", "tflite-fp32", *_QUANTIZE),
        # No fast kernels on common processors: 2 to 50 times slower than fp32.
        Recipe("tflite-int16x8", "litert", ".tflite", "int8", "tflite-fp32", *_QUANTIZE, by_default=False),
        Recipe("c", "c", ".c", "fp32", "", *_C),
    )
}


def possible(package: ModelPackage) -> list[tuple[str, str | None]]:
    """Every target with None when the package can be converted to it, else with the reason why not."""
    found: dict[str, str | None] = {}
    for target, recipe in _fitting(package).items():
        reason = _why_not(package, recipe)
        if reason is None and recipe.source and found[recipe.source] is not None:
            reason = f"it is made from {recipe.source}: {found[recipe.source]}"
        found[target] = reason
    return list(found.items())


def choose(package: ModelPackage, targets: Iterable[str] | None, wished: Iterable[str] = ()) -> list[Recipe]:
    """The recipes to follow, in the table's order.

    Args:
        package: What shall be converted.
        targets: Names, or None for what the project wishes.
        wished: Names that the project declares, whatever model wins; the possible ones are made. Empty: every possible default target.

    Raises:
        ConfigError: A target is unknown, a named one is impossible for this package, or nothing is possible at all.
    """
    reasons, recipes = dict(possible(package)), _fitting(package)
    wishes = set(wished)
    if unknown := sorted(wishes - set(RECIPES)):
        raise ConfigError(f"[convert] targets: {unknown[0]!r} is unknown: one of {', '.join(RECIPES)}")
    if targets is None:
        chosen = [r for name, r in recipes.items() if reasons[name] is None and (name in wishes if wishes else r.by_default)]
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
    return [recipe for name, recipe in recipes.items() if name in named]


def _fitting(package: ModelPackage) -> dict[str, Recipe]:
    """The table for this package: a graph made elsewhere is one of the forms already."""
    from converter.imported.targets import fitting

    return {target: fitting(package, recipe) for target, recipe in RECIPES.items()}


def _why_not(package: ModelPackage, recipe: Recipe) -> str | None:
    """Why this package cannot have the target, looking at its index and settings, and at a graph made elsewhere."""
    from converter.imported.targets import is_imported_graph, why_not

    if is_imported_graph(package):
        return why_not(package, recipe.target)
    module, _, function = recipe.reasons.partition(":")
    why: Callable[..., str | None] = getattr(import_module(module), function)
    return why(package, recipe.target) if recipe.source else why(package)
