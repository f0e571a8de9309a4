"""Which variants nobody beats in size, latency and metric, and which one each class of devices should take, with the reason. Pure."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from converter.estimates import Estimate
from converter.profiles import CLASSES, Aim, DeviceClass
from edgefleet.manifest import Runtime

# Two medians of the same program differ by so much from run to run.
LATENCY_NOISE: Final = 1.05
_SAME_ERROR: Final = 1e-5


@dataclass(frozen=True)
class Point:
    """A variant that is in the bundle.

    Attributes:
        name: Of the variant.
        runtime: What it needs.
        size_bytes: Of the graph, of C source its constants.
        latency_ms: Median of one row on the measuring machine.
        loss: How much worse the metric is than the original's, at least 0; NaN where the rows do not say.
        error: Largest error of an answer: decides between variants that are equal in everything else.
        memory_bytes: Peak of a process that scores on the measuring machine.
        estimates: By name of a device profile; without those that cannot run it.
        explained: Whether the bundle explains its answers.
    """

    name: str
    runtime: Runtime
    size_bytes: int
    latency_ms: float
    loss: float
    error: float
    memory_bytes: int
    estimates: Mapping[str, Estimate] = field(default_factory=dict)
    explained: bool = False


@dataclass(frozen=True)
class Proposal:
    """What a class of devices should take.

    Attributes:
        device_class: The class.
        variant: Name of the variant, None where none can run or fits.
        reason: One sentence.
        estimate: Of the variant on the class's profile, or None.
        explained: Whether the variant's answers are explained.
    """

    device_class: DeviceClass
    variant: str | None
    reason: str
    estimate: Estimate | None = None
    explained: bool = False


def front(points: Sequence[Point]) -> list[str]:
    """Names of the variants on the Pareto front of size, latency and metric, in the given order.

    A variant is off the front when another is no worse in all three and better in one; latencies within 5 % are the same. Sizes and losses
    are compared exactly, therefore two variants can never beat each other. C source is compared with C source only: of it the constants
    and the function alone are measured, of the others a file and a scorer's call.

    >>> small = Point("int8", "litert", 4000, 0.020, 0.001, 0.1, 50)
    >>> exact = Point("fp32", "litert", 9000, 0.0201, 0.0, 1e-7, 50)
    >>> large = Point("other", "litert", 9500, 0.020, 0.0, 1e-7, 50)
    >>> front([small, exact, large])
    ['int8', 'fp32']
    """
    return [point.name for point in points if not any(_beats(other, point) for other in points)]


def _beats(one: Point, other: Point) -> bool:
    if (one.runtime == "c") != (other.runtime == "c"):
        return False
    loss, theirs = _known(one.loss), _known(other.loss)
    no_worse = one.size_bytes <= other.size_bytes and one.latency_ms <= other.latency_ms * LATENCY_NOISE and loss <= theirs
    return no_worse and (one.size_bytes < other.size_bytes or one.latency_ms * LATENCY_NOISE < other.latency_ms or loss < theirs)


def _known(loss: float) -> float:
    """The rows know the metric of all variants or of none, so that an unknown one compares as no loss."""
    return 0.0 if math.isnan(loss) else loss


def propose(points: Sequence[Point], explain: bool = False) -> list[Proposal]:
    """The best variant for each class of devices; with `explain` the best explained one, where one of those fits."""
    return [_proposal(device_class, points, explain) for device_class in CLASSES.values()]


def _proposal(device_class: DeviceClass, points: Sequence[Point], explain: bool) -> Proposal:
    there = [point for point in points if device_class.profile in point.estimates]
    needed = " or ".join(_RUNTIMES[runtime] for runtime in device_class.runtimes)
    if not there:
        return Proposal(device_class, None, f"the bundle has no variant for {needed}")
    fitting = [point for point in there if not point.estimates[device_class.profile].misfit]
    if not fitting:
        misfits = "; ".join(f"{point.name}: {point.estimates[device_class.profile].misfit}" for point in there)
        return Proposal(device_class, None, f"none fits, as estimated: {misfits}")
    explained = [point for point in fitting if point.explained]
    left = explained if explain and explained else fitting
    chosen, steps = _chosen(device_class, left)
    kind = "one" if len(left) == len(fitting) else "explained one"
    if len(left) == 1:
        reason = f"the only {kind} for {needed}" + ("" if len(there) == 1 else " and fits")
    else:
        listed = f"{len(left)}" if kind == "one" else f"{len(left)} explained ones"
        reason = f"of {listed} for {needed}: {', then '.join(steps) or 'all are alike, the first'}"
    reason += _about_explanation(device_class, chosen, fitting, explain)
    return Proposal(device_class, chosen.name, reason, chosen.estimates[device_class.profile], chosen.explained)


def _chosen(device_class: DeviceClass, left: list[Point]) -> tuple[Point, list[str]]:
    """The best by the class's aims, and what decided."""
    steps = []
    for aim, factor in device_class.aims:
        kept = _best(left, aim, factor)
        if len(kept) < len(left):
            steps.append(_said(aim, factor, kept, left))
        left = kept
    return left[0], steps


def _about_explanation(device_class: DeviceClass, chosen: Point, fitting: list[Point], explain: bool) -> str:
    """What choosing costs: the explanation, or what would be better without one; empty where it costs nothing."""
    explained = [point for point in fitting if point.explained]
    if not chosen.explained:
        if explained:
            return f"; it is not explained, the best that is: {_chosen(device_class, explained)[0].name}"
        return "; no variant that fits is explained" if explain else ""
    without = _chosen(device_class, fitting)[0]
    return "" if without.name == chosen.name else f"; if nothing were to be explained: {without.name}"


_RUNTIMES: Final[dict[Runtime, str]] = {"onnxruntime": "ONNX Runtime", "litert": "LiteRT", "c": "compiled C"}
_VALUES: Final[dict[Aim, Callable[[Point], float]]] = {
    "size": lambda point: point.size_bytes,
    "latency": lambda point: point.latency_ms,
    "memory": lambda point: point.memory_bytes,
    # Below it lie the last bits of float32, which say nothing.
    "error": lambda point: max(point.error, _SAME_ERROR),
}


def _best(points: list[Point], aim: Aim, factor: float) -> list[Point]:
    values = [_VALUES[aim](point) for point in points]
    limit = min(values) * factor
    return [point for point, value in zip(points, values, strict=True) if value <= limit]


def _said(aim: Aim, factor: float, kept: list[Point], before: list[Point]) -> str:
    """One step in words, with the figures that decided."""
    best = min(kept, key=_VALUES[aim])
    lost = min((point for point in before if point not in kept), key=_VALUES[aim])
    most = {"size": "smallest", "latency": "fastest", "memory": "least memory", "error": "nearest to the original"}[aim]
    about = "" if factor == 1.0 else f" within {100 * (factor - 1):.0f} %" if factor < 2 else f" within a factor of {factor:g}"
    return f"{most}{about} ({_figure(aim, best)} against {_figure(aim, lost)} of {lost.name})"


def _figure(aim: Aim, point: Point) -> str:
    if aim == "latency":
        return f"{point.latency_ms:.3g} ms here"
    if aim == "memory":
        return f"{point.memory_bytes / 1e6:.0f} MB"
    return f"{point.size_bytes / 1e3:.3g} kB" if aim == "size" else f"error {point.error:.1e}"
