"""G8: the model bears rows as devices see them."""

from collections.abc import Sequence
from typing import Any, Final

from trainer.criteria import Criteria
from trainer.gates.verdicts import Gate, GateVerdict

_SEVERITY: Final[dict[str, int]] = {"pass": 0, "inconclusive": 1, "fail": 2}


def judge_robustness(project: Criteria, measured: Sequence[dict[str, Any]], n: int) -> Gate:
    """G8: the paired drop of the metric under each disturbance that has a limit keeps it; the worst verdict counts.

    Args:
        project: Its limits.
        measured: Of `trainer.robustness.measure_robustness`.
        n: Validation rows.
    """
    limits = project.gates.robustness_drop
    if not limits:
        worst = max((one for one in measured if one["value"] is not None), key=lambda one: one["value"], default=None)
        shown = "" if worst is None else f" Largest drop: {worst['value']:+.4g} ({worst['what']})."
        return Gate(gate="G8", verdict="skipped", n=n, sentence=f"gates.robustness_drop sets no limits.{shown}")
    found = {one["kind"]: one for one in measured if one["kind"] in limits}
    unfit = [kind for kind in limits if kind not in found]
    note = f" Does not apply to these inputs: {', '.join(unfit)}." if unfit else ""
    if not found:
        return Gate(gate="G8", verdict="skipped", n=n, sentence=f"Nothing could be disturbed.{note}")
    worst = max(found.values(), key=lambda one: (_SEVERITY[one["verdict"]], one["value"] is None, (one["value"] or 0.0) - one["limit"]))
    verdict: GateVerdict = worst["verdict"]
    if worst["value"] is None:
        sentence = f"{worst['what'].capitalize()}: {worst['reason']}."
    else:
        bounds = ", ".join("none" if bound is None else f"{bound:+.4g}" for bound in (worst["lower"], worst["upper"]))
        sentence = f"Worst of {len(found)} disturbances with a limit ({worst['what']}): the {project.goal.metric} drops by"
        sentence += f" {worst['value']:+.4g} [{bounds}] on the same rows, limit {worst['limit']:.4g}."
        sentence += f" Not judged: {worst['reason']}." if worst["reason"] else ""
    return Gate(gate="G8", verdict=verdict, value=worst["value"], limit=worst["limit"], n=n, low=worst["lower"], high=worst["upper"],
                sentence=sentence + note)  # fmt: skip
