"""From margins to probabilities, and the package's calibrator, in C; see `converter.calibrators` for the maths."""

from typing import Final

import numpy as np

from converter.calibrators import LEAST_SHARE, LIMIT, Curve, Odds, Powers, parse_calibrator
from converter.cores import Core
from converter.to_c.text import Source, literal

_OPENS: Final = "EXACT static void answer(const float *margin, float *shares)\n{\n"
_LEAST: Final = literal(np.float32(LEAST_SHARE))


def write_answer(core: Core, source: Source) -> None:
    """Write `static void answer(const float *margin, float *shares)` of a classifier."""
    body = _linked(core, source)
    if core.calibrator is not None:
        calibrator = parse_calibrator(core.calibrator, core.classes)
        if isinstance(calibrator, Powers):
            body += _powers(calibrator, core.classes, source)
        elif isinstance(calibrator, Odds):
            body = _odds(calibrator, core, source) if core.link == "logistic" else body + _odds(calibrator, core, source)
        else:
            body += _curves(calibrator.curves, core.classes, source)
    source.function(f"{_OPENS}{body}}}\n")


def _linked(core: Core, source: Source) -> str:
    classes = core.classes
    if core.link == "logistic":
        return f"  {source.helper('pair')}(margin[0], shares);\n"
    if core.link == "softmax":
        return f"  {source.helper('softmax')}(margin, shares, {classes});\n"
    if core.link == "ovr":
        # The softmax of the logistics' logarithms is each over their sum, and stays finite where all of them vanish.
        return (
            f"  float logs[{classes}];\n  for (int k = 0; k < {classes}; k++) {{\n"
            "    logs[k] = (margin[k] < 0.0f ? margin[k] : 0.0f * margin[k]) - log1pf(expf(-fabsf(margin[k])));\n  }\n"
            f"  {source.helper('softmax')}(logs, shares, {classes});\n"
        )
    return f"  for (int k = 0; k < {classes}; k++) shares[k] = margin[k];\n"


def _log_share(k: str) -> str:
    return f"logf(shares[{k}] < {_LEAST} ? {_LEAST} : shares[{k}])"


def _powers(calibrator: Powers, classes: int, source: Source) -> str:
    return (
        f"  float powers[{classes}];\n"
        f"  for (int k = 0; k < {classes}; k++) powers[k] = {_log_share('k')} * {literal(np.float32(calibrator.slope))};\n"
        f"  {source.helper('softmax')}(powers, shares, {classes});\n"
    )


def _odds(calibrator: Odds, core: Core, source: Source) -> str:
    odds = "margin[0]" if core.link == "logistic" else f"{_log_share('1')} - {_log_share('0')}"
    most, slope, intercept = (literal(np.float32(value)) for value in (LIMIT, calibrator.slope, calibrator.intercept))
    return (
        f"  float odds = {odds};\n  odds = odds < -{most} ? -{most} : odds > {most} ? {most} : odds;\n"
        f"  {source.helper('pair')}(odds * {slope} + {intercept}, shares);\n"
    )


def _curves(curves: tuple[Curve, ...], classes: int, source: Source) -> str:
    if len(curves) == 1:
        return _along(curves[0], "shares[1]", "second", source) + "  shares[0] = 1.0f - second;\n  shares[1] = second;\n"
    body, total = "", " + ".join(f"share{k}" for k in range(classes))
    for k, curve in enumerate(curves):
        body += _along(curve, f"shares[{k}]", f"share{k}", source)
    body += f"  const float total = {total};\n  if (total > 0.0f) {{\n"
    return body + "".join(f"    shares[{k}] = share{k} / total;\n" for k in range(classes)) + "  }\n"


def _along(curve: Curve, share: str, name: str, source: Source) -> str:
    start = f"  float {name} = {literal(np.float32(curve.start))};\n"
    if not len(curve.rise):
        return start
    return (
        f"{start}  for (int i = 0; i < {len(curve.rise)}; i++) {{\n"
        f"    float part = ({share} - {source.table(curve.low)}[i]) * {source.table(curve.inverse_width)}[i];\n"
        f"    part = part < 0.0f ? 0.0f : part > 1.0f ? 1.0f : part;\n    {name} += part * {source.table(curve.rise)}[i];\n  }}\n"
    )
