"""Exact explainers of variants that hold other numbers than the float model: each shall add up to the margin of the very variant."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from converter.cores import Core, Trees
from converter.explain.fidelity import measured_rows
from converter.explain.halved import halved
from converter.explain.linear import compile_linear
from converter.explain.package_rows import background_rows, steps_in_front, training_rows
from converter.explain.rounded import RoundedLinear, compile_rounded, rounded
from converter.explain.treeshap import MAX_SLOTS, compile_leaves, treeshap_bytes
from edgefleet.errors import VerdictError
from edgefleet.manifest import ExplainMethod
from edgefleet.package import ModelPackage


def own_explainers(
    core: Core, package: ModelPackage, method: ExplainMethod, in_half: Iterable[str], integers: Mapping[str, str]
) -> tuple[dict[str, bytes], list[str]]:
    """({target: explainer file}, sentences for the card), of targets that need one of their own.

    Args:
        core: The model.
        package: Its package.
        method: How the float model is explained.
        in_half: Half-precision targets that were made.
        integers: Path of the graph of each integer target that was made.
    """
    own, notes = {}, []
    for target in in_half:
        content = explainer_of_halved(core, package, method, target)
        if content is not None:
            own[target] = content
    for target, path in integers.items():
        content, said = explainer_of_integers(core, package, method, target, Path(path).read_bytes())
        if content is not None:
            own[target] = content
        notes += [said] if said else []
    return own, notes


def explainer_of_halved(core: Core, package: ModelPackage, method: ExplainMethod, target: str) -> bytes | None:
    """The exact explainer file of a half-precision variant; None where the float model's says the same, or where no method is exact."""
    if method not in ("linear", "treeshap") or (in_half := halved(core, target)) is None:
        return None
    steps = steps_in_front(core, package)
    if isinstance(in_half.head, Trees):
        return treeshap_bytes(compile_leaves(in_half.head.ensemble, MAX_SLOTS), *steps)
    return compile_linear(in_half, training_rows(package), *steps)


def explainer_of_integers(core: Core, package: ModelPackage, method: ExplainMethod, target: str, graph: bytes) -> tuple[bytes | None, str]:
    """The explainer file of a linear model's integer variant, and a sentence for the card.

    Neither where the method is another, nor where the variant's integers are not found: what explains the float model then has to pass the
    variant's gates.
    """
    if method != "linear" or (found := rounded(core, target, graph)) is None:
        return None, ""
    model = RoundedLinear.of(found, core, len(package.inputs()), steps_in_front(core, package))
    held_out = measured_rows(package.rows("parity").x)
    try:
        content = compile_rounded(model, training_rows(package), held_out, background_rows(package))
    except VerdictError as err:
        return None, f"{target} is not explained: {err}"
    if found.answer is None:
        return content, ""
    return content, (
        f"{target} rounds its margin to steps of {found.answer.step:.2g} from {found.answer.low:.3g} to {found.answer.high:.3g}: "
        "its contributions add up to the margin before that, and the gap says what the rounding did."
    )
