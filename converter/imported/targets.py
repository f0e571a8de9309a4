"""Which targets a package has whose model is an .onnx or .tflite file, and how they are made."""

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from converter.imported.looking import FAMILIES, seen
from edgefleet.package import ModelPackage

if TYPE_CHECKING:
    from converter.recipes import Recipe

_WRITERS: Final = {"onnx": "converter.to_onnx.make:make", "tflite": "converter.to_tflite.make:make"}
WRAPPED: Final = "The graph was made elsewhere: its own operators are as they were, what stands in front of and behind them is ours."
_OTHER: Final = {
    "onnx": "an .onnx graph is not turned into TFLite: import the model that it was made from (.keras or .skops)",
    "tflite": "a .tflite file is not turned into ONNX: import the model that it was made from (.keras or .skops)",
}


def is_imported_graph(package: ModelPackage) -> bool:
    """Whether the package's model is an .onnx or .tflite file."""
    return package.index.family in FAMILIES


def why_not(package: ModelPackage, target: str) -> str | None:
    """Why such a package cannot have the target, None where it may have it; looks at its graph in a child process."""
    family, kind = package.index.family, target.partition("-")[0]
    if kind == "c":
        from converter.to_c.make import why_not_c

        return why_not_c(package)
    if kind != family:
        return _OTHER[family]
    found = seen(package)
    if found.refused:
        return found.refused
    if target == found.form:
        return None
    if found.form != f"{family}-fp32":
        return f"the file is {found.form} already: it is wrapped as it is, and neither widened nor rounded a second time"
    if reason := (found.reasons or {}).get(target):
        return reason
    from converter.quantize.make import why_not as why_not_quantized

    return None if target in ("onnx-fp32", "tflite-fp32", "tflite-fp16") else why_not_quantized(package, target)


def fitting(package: ModelPackage, recipe: "Recipe") -> "Recipe":
    """The recipe for this package: the form that its file is already is made from the file, by wrapping."""
    if not is_imported_graph(package) or recipe.target != seen(package).form:
        return recipe
    return replace(recipe, source="", writer=_WRITERS[package.index.family], by_default=True)


def answers_missing(package: ModelPackage, target: str) -> bool:
    """Whether the wrapped graph may be given missing values: float graphs are themselves, integers that meet NaN answer with confidence."""
    return not any(kind in target for kind in ("int8", "int16")) or not any(column.missing for column in package.inputs())
