"""Which steps trees do not need: a strictly rising function of a column leaves every possible split as it is."""

from collections.abc import Sequence

from trainer.cleaning.plan import Planned
from trainer.settings import CleaningStep, Window

_RISING = frozenset({"log", "sqrt", "scale"})
# Window features that only choose or count values; the others mean something else of a logarithm.
_CHOOSING = frozenset({"last", "min", "max", "missing_count"})


def needed_steps(planned: Sequence[Planned], window: Window | None) -> list[Planned]:
    """The steps without log, scale and sqrt where nothing behind them depends on the unit of their columns.

    Args:
        planned: All steps.
        window: Its features come behind the steps; a mean of scaled values is the scaled mean, a mean of logarithms is not.
    """
    kept: list[Planned] = []
    for i, one in enumerate(planned):
        names = {one.before[k].name for k in one.picked}
        bound = any(_keeps_unit(later.step) and names & {later.before[k].name for k in later.picked} for later in planned[i + 1 :])
        curved = one.step.step in ("log", "sqrt")
        mixed = window is not None and curved and not set(window.features) <= _CHOOSING
        if one.step.step not in _RISING or bound or mixed:
            kept.append(one)
    return kept


def _keeps_unit(step: CleaningStep) -> bool:
    """Whether a step's constants are written in the unit in front of it, instead of fitted to wherever the rows are."""
    if step.step == "impute":
        return step.value not in ("median", "most_frequent")
    return step.step == "unit" or (step.step == "clip" and not step.quantile)
